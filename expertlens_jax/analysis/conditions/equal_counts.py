"""Features of a sparse autoencoder beside units of the same layers, at equal counts.

With more to choose from, the best of many is better by chance alone, and expert sets are larger. So an autoencoder's
live features are compared with random subsets of the units, each as many as they are: what is said of units is the mean
over subsets, with an interval over concepts and, beside it, the range of the subsets. Beside them stand random twins:
autoencoders that learned less, or of a model that learned nothing.

Three questions: do expert sets go with human judgement (alignment), does the best one detect its concept in sentences
that it wasn't chosen by (detection), and are experts the same whatever the sentences (stability)?
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.analysis.conditions.stability import cross_jaccard, random_jaccard
from expertlens_jax.analysis.detecting.detectors import precision_elsewhere
from expertlens_jax.analysis.similarity.alignment import RatedPairs, rated_pairs, why_no_correlation
from expertlens_jax.analysis.statistics import (
    bootstrap_mean,
    jackknife_over_concepts,
    spearman,
    weighted_spearman,
)
from expertlens_jax.analysis.statistics.intervals import Statistic
from expertlens_jax.cards import counted
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.ratio import ratio
from expertlens_jax.experts.scores import check_threshold
from expertlens_jax.experts.selection import average_precision, select_experts

FEATURES, UNITS = "SAE features", "units, as many"
COLUMNS = [
    *("source", "units", "silent", "selection", "statistic", "sentences", "ratings", "pairs", "concepts", "value"),
    *("ci_low", "ci_high", "subsets_low", "subsets_high", "chance"),
    *(f"{name}_lead{end}" for name in ("units", "features") for end in ("", "_low", "_high")),
    "note",
]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What experts are looked for among: one set of features or units, or several random sets, each as large."""

    name: str
    tables: Mapping[str, xr.Dataset]
    """Average precision in each sentence set, by its name, of the same units in the same order."""
    subsets: tuple[np.ndarray, ...]
    """int [units] each: which units."""
    silent: int = 0
    """How many were left out, because they say nothing in any sentence."""


def find_silent(tables: Mapping[str, xr.Dataset]) -> np.ndarray:
    """Return which features are 0 in all sentences of all sets: bool [units].

    Args:
      tables: of expertise by sentence set, of features, which are never below 0.
    """
    sums = [
        table[name].values.sum(0, dtype=np.float64)
        for table in tables.values()
        for name in ("positive_mean", "negative_mean")
    ]
    return np.sum(sums, axis=0) == 0


def make_sources(
    features: Mapping[str, Mapping[str, xr.Dataset]], units: Mapping[str, xr.Dataset], *, draws: int, seed: int
) -> list[Source]:
    """Return what is compared: each autoencoder's live features, and random subsets of units, as many as the first's.

    Args:
      features: tables of expertise by sentence set, of each autoencoder; the first is the one in question.
      units: such tables of the units of the same layers.
      draws: of random subsets.
      seed: of the draws.

    Raises:
      SelectionError: an autoencoder without a live feature.
    """
    found = []
    for name, tables in features.items():
        silent = find_silent(tables)
        if silent.all():
            raise SelectionError(
                f"all {len(silent)} features of {name} are silent in {' and '.join(tables)}: no concept has experts "
                "among them. Train the autoencoder for longer, or on text like these sentences."
            )
        found.append(Source(name, tables, (np.flatnonzero(~silent),), int(silent.sum())))
    total = next(iter(units.values())).sizes["unit"]
    count = min(len(found[0].subsets[0]), total)
    if count < len(found[0].subsets[0]):
        found[0] = dataclasses.replace(found[0], subsets=_subsets(found[0].subsets[0], count, draws, seed))
        subsets = (np.arange(total),)
    else:
        subsets = _subsets(np.arange(total), count, draws, seed)
    return [found[0], Source(UNITS, units, subsets), *found[1:]]


def _subsets(members: np.ndarray, count: int, draws: int, seed: int) -> tuple[np.ndarray, ...]:
    """Random subsets of so many members; the members themselves where there are no more."""
    if count == len(members):
        return (members,)
    rng = np.random.default_rng(seed)
    return tuple(np.sort(rng.choice(members, count, replace=False)) for _ in range(draws))


def compare_at_equal_counts(
    sources: Sequence[Source],
    ratings: Sequence[Ratings],
    *,
    threshold: float,
    top: int,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare what experts are looked for among; tell by how much the units, and the features, are ahead.

    Args:
      sources: from `make_sources`; two of them are called `FEATURES` and `UNITS`.
      ratings: of people.
      threshold: selects experts by average precision.
      top: selects as many for each concept, whatever their average precision.
      resamples: of the intervals' bootstrap over concepts and subsets.
      seed: of the bootstrap.

    Returns:
      A row per source, statistic and what it is of: source, units (how many), silent (left out), selection ("τ = 0.5",
      "top 20", "best"), statistic, sentences, ratings, pairs, concepts, value, ci_low, ci_high (95%), subsets_low and
      subsets_high (95% of the random subsets, where there are several), chance, note (why there is no number); and, of
      "units" and "features", X_lead, X_lead_low, X_lead_high: their value less this one, and its 95% interval.
      alignment: Spearman's correlation of the Jaccard overlap with ratings, mean over subsets; intervals by the
      jackknife over concepts.
      detection: average precision in one sentence set of the one unit that is best in another, mean over both
      directions and all concepts; chance is the base rate.
      stability: Jaccard overlap of a concept's experts in two sentence sets; chance is that of random sets as large.

    Raises:
      SelectionError: fewer features or units than `top`, or a threshold that can't be.
    """
    threshold = check_threshold(threshold)
    smallest = min(sources, key=lambda source: len(source.subsets[0]))
    if len(smallest.subsets[0]) < top:
        raise SelectionError(
            f"{counted(top, 'expert was', 'experts were')} asked for of each concept (top), and {smallest.name} has "
            f"{len(smallest.subsets[0])} that say anything. Ask for fewer, or train an autoencoder of more features."
        )
    selections = {f"τ = {threshold:g}": {"threshold": threshold}, f"top {top}": {"top": top}}
    references = {"units": UNITS, "features": FEATURES}
    parts = []
    for selection, how in selections.items():
        chosen = {source.name: _select(source, **how) for source in sources}
        for source in sources:
            others = {name: chosen[which] for name, which in references.items() if which != source.name}
            rows = _alignment_rows(chosen[source.name], others, source.tables, ratings)
            values = {name: _same(sets, source.tables) for name, sets in chosen.items()}
            rows += _rows(
                "stability", values, source, references, _random_overlaps(chosen[source.name]), resamples, seed
            )
            parts.append(_labelled(rows, source, selection))
    best = {source.name: _detected(source) for source in sources}
    for source in sources:
        chance = {
            (first, second): [np.mean([source.tables[name]["base_rate"].values.mean() for name in (first, second)])]
            for first, second in comparable(source.tables)
        }
        rows = _rows("detection", best, source, references, chance, resamples, seed)
        parts.append(_labelled(rows, source, "best"))
    return pd.concat(parts, ignore_index=True).reindex(columns=COLUMNS)


def comparable(tables: Mapping[str, xr.Dataset]) -> list[tuple[str, str]]:
    """Return the pairs of sentence sets that have the same concepts, in the same order."""
    concepts = {name: list(map(str, table["concept"].values)) for name, table in tables.items()}
    return [pair for pair in itertools.combinations(tables, 2) if concepts[pair[0]] == concepts[pair[1]]]


def _labelled(rows: list[dict[str, Any]], source: Source, selection: str) -> pd.DataFrame:
    about = {"source": source.name, "units": len(source.subsets[0]), "silent": source.silent, "selection": selection}
    return pd.DataFrame([about | row for row in rows])


def _select(source: Source, **how: Any) -> dict[str, list[np.ndarray]]:
    """Expert sets, bool [concepts, units of the subset], of each sentence set and subset."""
    return {
        name: [select_experts(table.isel(unit=subset), **how).values for subset in source.subsets]
        for name, table in source.tables.items()
    }


def _alignment_rows(
    theirs: Mapping[str, list[np.ndarray]],
    references: Mapping[str, Mapping[str, list[np.ndarray]]],
    tables: Mapping[str, xr.Dataset],
    ratings: Sequence[Ratings],
) -> list[dict[str, Any]]:
    rows = []
    for (sentences, sets), rated_by in itertools.product(theirs.items(), ratings):
        concepts = [str(name) for name in tables[sentences]["concept"].values]
        rated = rated_pairs(concepts, rated_by)

        own, pairs, note = _correlation(sets, rated, rated_by, len(concepts))
        row: dict[str, Any] = {
            "statistic": "alignment",
            "sentences": sentences,
            "ratings": rated_by.name,
            "chance": 0.0,
        }
        row |= {"pairs": len(rated.scores), "concepts": len(concepts), "note": note}
        if own is not None:
            found = jackknife_over_concepts(own, rated.first, rated.second)
            row |= {"value": found.value, "ci_low": found.low, "ci_high": found.high}
            row |= _over_subsets([spearman(each, rated.scores) for each in pairs])
        for name, reference in references.items():
            other, *_ = _correlation(reference[sentences], rated, rated_by, len(concepts))
            if own is not None and other is not None:
                lead = jackknife_over_concepts(
                    lambda weights, own=own, other=other: other(weights) - own(weights),
                    rated.first,
                    rated.second,
                    correlation=False,
                )
                row |= {f"{name}_lead": lead.value, f"{name}_lead_low": lead.low, f"{name}_lead_high": lead.high}
        rows.append(row)
    return rows


def _overlaps(sets: np.ndarray, rated: RatedPairs) -> np.ndarray:
    """Jaccard overlap of the rated pairs of concepts, float64 [pairs]; 0 where neither has an expert."""
    first, second = sets[rated.first], sets[rated.second]
    return ratio((first & second).sum(1), (first | second).sum(1), empty=0)


def _correlation(
    sets: list[np.ndarray], rated: RatedPairs, rated_by: Ratings, num_concepts: int
) -> tuple[Statistic | None, list[np.ndarray], str]:
    """Return the statistic that is the mean over subsets of their correlation with ratings, or why there is none."""
    pairs = [_overlaps(each, rated) for each in sets]
    notes = [why_no_correlation(each, rated, rated_by, num_concepts) for each in pairs]
    if note := next(filter(None, notes), ""):
        return None, pairs, note

    def mean_correlation(weights: np.ndarray) -> np.ndarray:
        return np.mean([weighted_spearman(each, rated.scores, weights) for each in pairs], axis=0)

    return mean_correlation, pairs, ""


Values = Mapping[tuple[str, str], np.ndarray]
"""Of each pair of sentence sets, float64 [concepts, subsets]."""


def _same(sets: Mapping[str, list[np.ndarray]], tables: Mapping[str, xr.Dataset]) -> Values:
    """Jaccard overlap of each concept's experts in two sentence sets."""
    return {
        (first, second): np.stack(
            [np.diag(cross_jaccard(one, other)) for one, other in zip(sets[first], sets[second], strict=True)], axis=1
        )
        for first, second in comparable(tables)
    }


def _random_overlaps(sets: Mapping[str, list[np.ndarray]]) -> dict[tuple[str, str], list[float]]:
    """Return what random sets as large would overlap by, a number a subset."""
    return {
        (first, second): [
            random_jaccard(one.sum(1), other.sum(1), one.shape[1]).mean()
            for one, other in zip(sets[first], sets[second], strict=True)
        ]
        for first, second in itertools.combinations(sets, 2)
    }


def _detected(source: Source) -> Values:
    """Average precision in one sentence set of the unit that is best in the other, mean of both directions."""
    scores = {name: average_precision(table).values.astype(np.float64) for name, table in source.tables.items()}
    found = {}
    for first, second in comparable(source.tables):
        by_subset = []
        for subset in source.subsets:
            one, other = scores[first][:, subset], scores[second][:, subset]
            by_subset.append((precision_elsewhere(one, other) + precision_elsewhere(other, one)) / 2)
        found[first, second] = np.stack(by_subset, axis=1)
    return found


def _rows(
    statistic: str,
    values: Mapping[str, Values],
    source: Source,
    references: Mapping[str, str],
    chance: Mapping[tuple[str, str], Sequence[float]],
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    rows = []
    for pair, own in values[source.name].items():
        value, low, high = bootstrap_mean(own, resamples, seed)
        row: dict[str, Any] = {"statistic": statistic, "sentences": " / ".join(pair), "ratings": "", "note": ""}
        row |= {
            "concepts": len(own),
            "value": value,
            "ci_low": low,
            "ci_high": high,
            "chance": float(np.mean(chance[pair])),
        }
        row |= _over_subsets(own.mean(0))
        for name, which in references.items():
            if which != source.name:
                other = values[which][pair]
                own_mean, other_mean = (each.mean(1, keepdims=True) for each in (own, other))
                several = other - own_mean if other.shape[1] > 1 else other_mean - own
                lead = bootstrap_mean(several, resamples, seed)
                row |= dict(zip((f"{name}_lead", f"{name}_lead_low", f"{name}_lead_high"), lead, strict=True))
        rows.append(row)
    return rows


def _over_subsets(values: Sequence[float]) -> dict[str, float]:
    """Return where 95% of several subsets' values lie; nothing of one alone."""
    if len(values) == 1:
        return {}
    low, high = np.percentile(values, [2.5, 97.5])
    return {"subsets_low": float(low), "subsets_high": float(high)}
