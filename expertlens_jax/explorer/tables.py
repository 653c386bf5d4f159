"""The chunks of one table of expertise: concepts, units, overlaps, maps, sentences, and what units say at tokens."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from etils import epath
from tqdm.auto import tqdm

from expertlens_jax.analysis.structure.organisation import map_concepts
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import contrast_concepts
from expertlens_jax.data.rows import each_row
from expertlens_jax.experts.concept_tree import link_concepts
from expertlens_jax.experts.labelled_responses import UNIT_COLUMNS
from expertlens_jax.explorer import activations
from expertlens_jax.explorer.chunks import exact, packed, rounded, write_chunk
from expertlens_jax.explorer.counting import Counts, count, threshold_levels
from expertlens_jax.explorer.runs import Table
from expertlens_jax.models.model import Model
from expertlens_jax.settings import Negatives

UNITS_PER_CHUNK, SENTENCES_PER_CHUNK = 64, 500
CONCEPTS_OF_A_UNIT = 20
SENTENCES_OF_A_CONCEPT, SENTENCES_OF_A_UNIT = 16, 8
MAP_EVERY = 4  # levels of τ from one map and tree to the next: a tenth
_OF_BEST = ("q_value", "familywise_p", "auroc", "positive_median", "positive_p90", "negative_mean")


@dataclasses.dataclass(frozen=True)
class Bounds:
    """How much of a table is shown."""

    experts: int
    """Units of each concept, the best."""
    speaking: int
    """Of these, those read at every token."""
    progress: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Best:
    """The units that are shown: the union of the concepts' best."""

    positions: np.ndarray
    """int64 `[units]`, where in the table each stands, ascending."""
    units: pd.DataFrame
    """`[units]`, a row each."""
    values: dict[str, np.ndarray]
    """float32 `[concepts, units]`, by variable; the halves' average precision as `half_0` and `half_1`."""
    of_concept: np.ndarray
    """int64 `[concepts, best]`, places in `positions`."""


def write_table(
    site: epath.Path,
    name: str,
    table: Table,
    concepts: ConceptDataset | None,
    model: Model | None,
    rated: pd.DataFrame,
    bounds: Bounds,
) -> dict[str, Any]:
    """Write a table's chunks, and return its entry in the index.

    Args:
      site: the folder of the page.
      name: of the folder of the table's chunks.
      table: the table.
      concepts: its sentences, if they are found.
      model: what it was measured with, if it is found.
      rated: columns `word_1, word_2, rating, ratings`.
      bounds: how much is shown.
    """
    expertise = table.expertise
    names = [str(each) for each in expertise["concept"].values]
    levels = threshold_levels(expertise["base_rate"].values)
    counts = count(expertise, levels, min(bounds.experts, expertise.sizes["unit"]))
    best = read_best(table, counts)
    maps = write_overlaps(site, name, expertise, counts)
    write_units(site, name, best, counts)
    own = concepts_sentences(concepts, names)
    write_sentences(site, name, concepts)
    speaking = {}
    if concepts is not None and model is not None:
        speaking = write_spoken(site, name, table, concepts, model, best, own, bounds)
    for row in range(len(names)):
        write_concept(site, name, row, expertise, counts, best, own)
    return {
        "id": name,
        "title": table.title,
        "model": str(expertise.attrs.get("model", "")),
        "sentences": str(expertise.attrs.get("sentences", "")),
        "settings": _settings(expertise),
        "concepts": names,
        "domains": [str(each) for each in expertise["domain"].values],
        "baseRates": rounded(expertise["base_rate"].values),
        "positives": expertise["num_positives"].values.tolist(),
        "negatives": expertise["num_negatives"].values.tolist(),
        "levels": levels.tolist(),
        "experts": counts.experts.tolist(),
        "highest": exact(best.values["average_precision"][row, of[0]] for row, of in enumerate(best.of_concept)),
        "layers": counts.layers.tolist(),
        "sites": list(counts.sites),
        "unitsPerPlace": counts.units_per_place.tolist(),
        "numUnits": int(expertise.sizes["unit"]),
        "shownUnits": len(best.positions),
        "best": best.of_concept.shape[1],
        "unitsPerChunk": UNITS_PER_CHUNK,
        "sentencesPerChunk": SENTENCES_PER_CHUNK,
        "numSentences": 0 if concepts is None else len(concepts.sentences),
        "speaking": speaking,
        "maps": maps,
        "random": {each: count(other, levels, 1).experts.tolist() for each, other in table.random.items()},
        "rated": rated_pairs(rated, names),
        "hasQ": "q_value" in expertise,
        "hasHalves": table.halves is not None,
    }


def _settings(expertise: xr.Dataset) -> dict[str, str]:
    """Return what the numbers follow from, for people to read."""
    shown = (
        *("dtype", "sites", "pooling", "pool_over", "negatives_per_positive", "exclude_mentions", "sampled", "seed"),
        *("significant_bits", "permutations", "package"),
    )
    return {name: str(expertise.attrs[name]) for name in shown if name in expertise.attrs}


def read_best(table: Table, counts: Counts) -> Best:
    """Read what is shown of the units that are among some concept's best."""
    expertise = table.expertise
    positions, places = np.unique(counts.best, return_inverse=True)
    chosen = expertise.isel(unit=positions)
    names = [each for each in ("average_precision", *_OF_BEST) if each in expertise]
    values = {each: chosen[each].transpose("concept", "unit").values for each in names}
    if table.halves is not None:
        halves = table.halves["average_precision_halves"].isel(unit=positions).transpose("half", "concept", "unit")
        values |= {f"half_{half}": each for half, each in enumerate(halves.values)}
    units = pd.DataFrame(
        {each: chosen[each].values for each in UNIT_COLUMNS if each in chosen.coords}, index=chosen["unit"].values
    )
    return Best(positions, units, values, places.reshape(counts.best.shape))


def write_units(site: epath.Path, name: str, best: Best, counts: Counts) -> None:
    """Write the units that are shown: their addresses, the concepts they serve, and a list of all to search."""
    columns = {each: i for i, each in enumerate(counts.sites)}
    site_of = np.array([columns[str(each)] for each in best.units["site"]], np.int64)
    of_mixture = "expert" in best.units
    write_chunk(
        site,
        f"{name}/units",
        {
            "layer": packed(best.units["layer"].to_numpy()),
            "site": packed(site_of),
            "channel": packed(best.units["channel"].to_numpy()),
            # Numbers from 1 on, and 0 of units that are no expert's of a mixture.
            **({"expert": packed(best.units["expert"].to_numpy() + 1)} if of_mixture else {}),
        },
    )
    precision = best.values["average_precision"]
    most = min(CONCEPTS_OF_A_UNIT, len(precision))
    for number, start in enumerate(range(0, len(best.positions), UNITS_PER_CHUNK)):
        told = []
        for unit in range(start, min(start + UNITS_PER_CHUNK, len(best.positions))):
            of_unit = precision[:, unit]
            order = np.argsort(-of_unit, kind="stable")[:most]
            row = best.units.iloc[unit]
            told.append(
                {
                    "module": str(row["hf_module"]),
                    "channel": int(row["hf_channel"]),
                    **({"expert": int(row["expert"])} if of_mixture and row["expert"] >= 0 else {}),
                    "serves": (of_unit[:, None] >= counts.levels.astype(np.float32)).sum(0).tolist(),
                    "concepts": order.tolist(),
                    "ap": exact(of_unit[order]),
                    **{each: rounded(of[order, unit]) for each, of in _others(best)},
                }
            )
        write_chunk(site, f"{name}/units/{number}", told)


def _others(best: Best) -> list[tuple[str, np.ndarray]]:
    return [(each, values) for each, values in best.values.items() if each != "average_precision"]


def write_concept(
    site: epath.Path,
    name: str,
    row: int,
    expertise: xr.Dataset,
    counts: Counts,
    best: Best,
    sentences: Sequence[np.ndarray],
) -> None:
    """Write a concept: its best units, where its experts are at each τ, and which sentences are its own."""
    of = best.of_concept[row]
    write_chunk(
        site,
        f"{name}/concepts/{row}",
        {
            "units": of.tolist(),
            "ap": exact(best.values["average_precision"][row, of]),
            **{each: rounded(values[row, of]) for each, values in _others(best)},
            "perPlace": packed(counts.per_place[row]),
            "sentences": list(map(int, sentences[row])),
        },
    )


def write_overlaps(site: epath.Path, name: str, expertise: xr.Dataset, counts: Counts) -> list[int]:
    """Write how many experts concepts share at each τ, and maps and trees at some; return which have these."""
    number = expertise.sizes["concept"]
    above = np.triu_indices(number, 1)
    maps = []
    for level in range(len(counts.levels)):
        write_chunk(site, f"{name}/shared/{level}", packed(counts.shared[level][above]))
        overlap = counts.overlap(level)
        if number < 3 or level % MAP_EVERY or (maps and not overlap[above].any()):
            continue
        coordinates = {
            "concept": [str(each) for each in expertise["concept"].values],
            "domain": ("concept", [str(each) for each in expertise["domain"].values]),
        }
        table = xr.DataArray(overlap, dims=("concept", "other"), coords=coordinates)
        tree = link_concepts(table)
        told: dict[str, Any] = {"tree": [rounded(row, 5) for row in tree]}
        if number >= 4:
            places = map_concepts(table, "tsne")
            told |= {"x": rounded(places["x"]), "y": rounded(places["y"])}
            told["trustworthiness"] = round(places.attrs["trustworthiness"], 3)
        write_chunk(site, f"{name}/arranged/{level}", told)
        maps.append(level)
    return maps


def concepts_sentences(concepts: ConceptDataset | None, names: Sequence[str]) -> list[np.ndarray]:
    """Return, of each concept, its positive sentences; none without a sentence set."""
    if concepts is None:
        return [np.zeros(0, np.int64)] * len(names)
    return [np.flatnonzero(labels) for labels in concepts.labels]


def write_sentences(site: epath.Path, name: str, concepts: ConceptDataset | None) -> None:
    """Write all sentences of the set, with the concepts that each is a positive of."""
    if concepts is None:
        return
    of = [np.flatnonzero(column).tolist() for column in concepts.labels.T]
    for number, start in enumerate(range(0, len(concepts.sentences), SENTENCES_PER_CHUNK)):
        stop = start + SENTENCES_PER_CHUNK
        write_chunk(
            site, f"{name}/sentences/{number}", {"texts": concepts.sentences[start:stop], "concepts": of[start:stop]}
        )


def write_spoken(
    site: epath.Path,
    name: str,
    table: Table,
    concepts: ConceptDataset,
    model: Model,
    best: Best,
    own: Sequence[np.ndarray],
    bounds: Bounds,
) -> dict[str, int]:
    """Write what the concepts' best units say at tokens, and how their responses are spread.

    Returns:
      By the place of each unit that was read (a key of JSON, so text), its file's number.
    """
    expertise = table.expertise
    chosen = best.of_concept[:, : bounds.speaking]
    read, places = np.unique(chosen, return_inverse=True)
    places = places.reshape(chosen.shape)
    shown: dict[int, set[int]] = {}
    for row, sentences in enumerate(own):
        for sentence in sentences[:SENTENCES_OF_A_CONCEPT]:
            shown.setdefault(int(sentence), set()).update(map(int, places[row]))
    units = best.units.iloc[read]
    spoken = activations.listen(
        activations.reader_of(model, expertise),
        concepts,
        units,
        {sentence: sorted(of) for sentence, of in shown.items()},
        pooling=str(expertise.attrs.get("pooling", "max")),
        num_shown=SENTENCES_OF_A_UNIT,
        progress=bounds.progress,
    )
    for row, sentences in enumerate(own):
        of = list(map(int, places[row]))
        told = [activations.spoken_tokens(spoken, int(each), of) for each in sentences[:SENTENCES_OF_A_CONCEPT]]
        write_chunk(
            site,
            f"{name}/spoken/{row}",
            {"units": chosen[row].tolist(), "scales": activations.scales(spoken, of), "sentences": told},
        )
    contrast = contrast_concepts(concepts, Negatives.of_attributes(expertise.attrs))
    weights = contrast.weights()
    positive = concepts.labels
    negative = (weights > 0) & ~positive
    whole = str(expertise.attrs.get("pool_over", "all")) == "all"
    for place, unit in enumerate(tqdm(read, desc="units", disable=not bounds.progress)):
        served = np.argsort(-best.values["average_precision"][:, unit], kind="stable")[:3]
        spread = [
            {"concept": int(row)} | activations.histogram(spoken.responses[:, place], positive[row], negative[row])
            for row in served
        ]
        write_chunk(
            site,
            f"{name}/speaks/{place}",
            {
                "scales": activations.scales(spoken, [place]),
                "most": [activations.spoken_tokens(spoken, int(each), [place]) for each in spoken.most[place]],
                "least": [activations.spoken_tokens(spoken, int(each), [place]) for each in spoken.least[place]],
                "spread": spread if whole else [],
            },
        )
    return {str(int(unit)): place for place, unit in enumerate(read)}


def rated_pairs(rated: pd.DataFrame, names: Sequence[str]) -> dict[str, list[list[float]]]:
    """Return, by the ratings' name, pairs of concepts that people rated.

    A pair is two places among the concepts, and the rating.
    """
    place = {each: i for i, each in enumerate(names)} | {each.lower(): i for i, each in enumerate(names)}
    pairs: dict[str, list[list[float]]] = {}
    for row in each_row(rated):
        first, second = place.get(str(row.word_1)), place.get(str(row.word_2))
        if first is not None and second is not None:
            pairs.setdefault(str(row.ratings), []).append([first, second, float(row.rating)])
    return pairs
