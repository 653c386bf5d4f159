"""Expertise: the average precision of every unit's response as a classifier of every concept's sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.cards import counted
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import Contrast, contrast_concepts
from expertlens_jax.errors import ResponsesError
from expertlens_jax.experts.fingerprints import question
from expertlens_jax.experts.labelled_responses import UNIT_COLUMNS, Responses, as_column, as_responses, as_text
from expertlens_jax.experts.ranking import Ranking, rank_units
from expertlens_jax.models.provenance import differences, read_provenance
from expertlens_jax.settings import Negatives, PlainNegatives, check_scores, settings_of

BY_NEGATIVES = {"base_rate_by_negatives": "base_rate", "num_negatives_by_negatives": "num_negatives"}
"""Coordinates of a table with several negatives, and what they are of a contrast."""


def measure_expertise(
    responses: Responses,
    concepts: ConceptDataset,
    *,
    negatives: Negatives | None = None,
    transport: bool = True,
    scores: Sequence[str] = (),
    units_per_block: int | None = None,
    progress: bool = False,
    **settings: Unpack[PlainNegatives],
) -> xr.Dataset:
    """Measure every unit's expertise on every concept: exact average precision, as scikit-learn defines it.

    The finding-experts method of Suau et al., "Self-conditioning pre-trained language models" (ICML 2022), as
    ExpertLens reads it (Fedzechkina et al., arXiv 2502.15090). `negatives_per_positive` fixes the base rate,
    1 / (1 + negatives_per_positive), which is the AP of a unit that knows nothing: a threshold only has a
    meaning next to it.

    Args:
      responses: float32 over (sentence, unit), recorded for `concepts.sentences`; or the same read from a file.
      concepts: labels bool [concepts, sentences].
      negatives: which sentences a concept is told apart from, and what they weigh.
      transport: whether to measure `transport_slope`, about half of the time that ranking takes on a CPU.
      scores: more scores to measure: "average_precision_down", of units that say a concept by falling silent;
        "cohens_d", the difference of means in pooled standard deviations.
      units_per_block: units a device ranks at once; None chooses by memory. Doesn't change the result.
      progress: shows a bar.
      **settings: the fields of `negatives` as plain keywords: `negatives_per_positive` (total weight of a concept's
        negatives, or their number if sampled, per positive), `exclude_mentions`, `sampled`, `seed`.

    Returns:
      A dataset over (concept, unit), float32: `average_precision`; `positive_median`, `positive_p90` and
      `positive_mean` (of the positives' responses); `negative_mean`; `auroc`, the probability that a positive
      sentence's response is above a negative's (half of it where they tie); with `transport`, `transport_slope` (see
      `distributions.transport_slope`); with `scores`, these; with the units' table, domains, counts and base
      rates as coordinates, and the
      settings as attributes: which network the responses are of and how it was read (see `models.provenance`), and
      what they were ranked for.

    Raises:
      ResponsesError: responses to other sentences, or that aren't finite.
      ConceptDataError: a concept without enough negatives.
      SettingError: an unknown setting, or one that is given twice.

    >>> import expertlens_jax as el
    >>> concepts = el.load_concepts("facts").subset(["cat", "rain"])
    >>> responses = el.record_responses(el.load_model("lenslet-2m"), concepts.sentences, sites="attn.v")
    >>> expertise = el.measure_expertise(responses, concepts)
    >>> best = expertise["average_precision"].sel(concept="cat").max().item()
    >>> round(best, 1), expertise["base_rate"].values.round(2).tolist()
    (1.0, [0.29, 0.29])
    """
    (negatives,) = settings_of(
        "measure_expertise",
        settings,
        {"negatives": (Negatives, negatives)},
        others=("transport", "scores", "units_per_block", "progress"),
    )
    scores = check_scores(scores)
    responses = as_responses(responses)
    units, sentences = responses.units, responses.sentences
    check_same_sentences(sentences, concepts.sentences)
    contrast = contrast_concepts(concepts, negatives)
    ranking = rank_units(
        responses.values,
        contrast,
        transport=transport,
        scores=scores,
        units_per_block=units_per_block,
        units=units,
        sentences=sentences,
        progress=progress,
    )
    read = responses.provenance
    if read is None:
        attributes = {"model": responses.model, "sentences": concepts.name, **negatives.attributes()}
    else:
        asked = question(read, concepts, [contrast], [negatives])
        attributes = asked | read.attributes()
    return expertise_table(ranking, units, concepts, contrast, attributes)


def expertise_table(
    ranking: Ranking, units: pd.DataFrame, concepts: ConceptDataset, contrast: Contrast, settings: dict
) -> xr.Dataset:
    """Name a ranking's arrays [concepts, units]: the table that `measure_expertise` returns, for any block
    of units.

    `units` has a row per column of the ranking; its index becomes the `unit` coordinate, so blocks of one
    model can be concatenated.
    """
    return xr.Dataset(
        {name: (("concept", "unit"), values) for name, values in ranking.measured().items()},
        coords=expertise_coordinates(units, concepts, contrast),
        attrs=settings,
    )


def expertise_coordinates(units: pd.DataFrame, concepts: ConceptDataset, contrast: Contrast) -> dict[str, tuple]:
    """Return what stands beside a table of expertise: who the concepts and the units are, and what was counted."""
    return {
        "concept": ("concept", as_text(concepts.concepts)),
        "domain": ("concept", as_text(concepts.domains)),
        "base_rate": ("concept", np.asarray(contrast.base_rate)),
        "num_positives": ("concept", np.asarray(contrast.num_positives)),
        "num_negatives": ("concept", np.asarray(contrast.num_negatives)),
        "unit": ("unit", np.asarray(units.index)),
    } | {name: ("unit", as_column(units[name])) for name in UNIT_COLUMNS if name in units or name != "expert"}


def negatives_coordinates(negatives: Sequence[Negatives], contrasts: Sequence[Contrast]) -> dict[str, tuple]:
    """Return what stands along a dimension of several negatives: their settings, and what was counted."""
    settings = [each.attributes() for each in negatives]
    return {name: ("negatives", np.array([each[name] for each in settings])) for name in Negatives.plain} | {
        name: (("negatives", "concept"), np.stack([getattr(contrast, field) for contrast in contrasts]))
        for name, field in BY_NEGATIVES.items()
    }


def check_same_sentences(recorded: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise ResponsesError unless the recorded sentences are the wanted ones, naming the first that differs."""
    if tuple(recorded) == tuple(wanted):
        return
    if len(recorded) != len(wanted):
        difference = f"{len(recorded)} sentences were recorded, the concepts have {len(wanted)}"
    else:
        first = next(i for i, pair in enumerate(zip(recorded, wanted, strict=True)) if pair[0] != pair[1])
        difference = f"sentence {first} was recorded as {recorded[first]!r}, the concepts have {wanted[first]!r}"
    raise ResponsesError(
        f"these responses are to other sentences than the concepts': {difference}. "
        "Record them with record_responses(model, concepts.sentences)."
    )


def check_same_responses(expertise: xr.Dataset, responses: Responses) -> None:
    """Raise ResponsesError unless a table is of these responses' units, read alike from the same network.

    Where one of them doesn't say which network it is of (responses that you made yourself don't), names decide.
    """
    responses = as_responses(responses)
    table, own = read_provenance(expertise.attrs), responses.provenance
    units = responses.units
    named = str(expertise.attrs.get("model", "an unnamed model"))
    known = table is not None and own is not None
    same_units = len(units) == expertise.sizes["unit"] and all(
        list(units[name]) == expertise[name].values.tolist() for name in ("layer", "site", "channel")
    )
    why = differences(table, own) if known else ""
    if not same_units or why or (not known and responses.model != named):
        raise ResponsesError(
            f"these responses are of {counted(len(units), 'unit')} of {responses.model}, the table of "
            f"{counted(expertise.sizes['unit'], 'unit')} of "
            f"{named}{f' ({why}, of table and responses)' if why else ''}. Give the responses it was measured from."
        )
