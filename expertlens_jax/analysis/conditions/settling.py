"""When expert sets become what they end as: overlap with the last checkpoint's, and where half of it is reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.analysis.conditions.stability import cross_jaccard, random_jaccard, same_units
from expertlens_jax.analysis.statistics import bootstrap_mean, resample_counts
from expertlens_jax.analysis.structure.thresholds import describe_thresholds
from expertlens_jax.analysis.tables import label
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.selection import select_experts


def follow_training(
    tables: Mapping[str, Mapping[int, xr.Dataset]],
    thresholds: Sequence[float],
    ratings: Sequence[Ratings] = (),
    *,
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Follow expert sets through training: how many there are, how far they overlap, align, and are what they end as.

    Args:
      tables: tables of expertise by sentence set, and then by training step.
      thresholds: on AP.
      ratings: to align the overlap with.
      resamples: of the 95% intervals, over concepts.
      permutations: of the alignments' p.
      seed: of both.

    Returns:
      table: a row per sentence set, step, threshold and statistic: columns sentences, statistic, step, threshold,
        value, ci_low, ci_high, chance, ratings, p_value, note. Statistics are those of `describe_thresholds`, and
        `final_overlap` with the last checkpoint's sets; with two sentence sets also `final_overlap_held_out`, with
        what the last checkpoint has in the next set.
      settled: a row per sentence set, `last_with` (the set that the last experts were found with) and threshold, see
        `trace_overlap`.

    Raises:
      SelectionError: checkpoints of a sentence set have other concepts or units than the last one.
    """
    parts, settling = [], []
    for sentences, by_step in tables.items():
        for last_with, statistic in _last_tables(list(tables), sentences).items():
            last = tables[last_with][max(tables[last_with])]
            overlap, settled = trace_overlap(by_step, last, thresholds, resamples=resamples, seed=seed)
            settling.append(label(settled, sentences=sentences, last_with=last_with))
            parts.append(label(overlap, sentences=sentences, statistic=statistic))
        for step, expertise in by_step.items():
            described = describe_thresholds(
                expertise, thresholds, ratings, resamples=resamples, permutations=permutations, seed=seed
            )
            parts.append(label(described, sentences=sentences, step=step))
    table = pd.concat(parts, ignore_index=True)
    table["ratings"], table["note"] = table["ratings"].fillna(""), table["note"].fillna("")
    return table, pd.concat(settling, ignore_index=True)


def _last_tables(names: Sequence[str], sentences: str) -> dict[str, str]:
    """With which sentence sets the last checkpoint's experts were found, and what to call the overlap with them.

    The set's own, where the last checkpoint agrees with itself, and the one after it.
    """
    following = names[(names.index(sentences) + 1) % len(names)]
    return {sentences: "final_overlap"} | ({following: "final_overlap_held_out"} if following != sentences else {})


def overlap_with_last(experts: xr.DataArray, last: xr.DataArray) -> tuple[np.ndarray, float]:
    """Return the Jaccard overlap of each concept's set with its set at the last checkpoint.

    Args:
      experts, last: bool (concept, unit) of the same concepts and units.

    Returns:
      float64 [concepts] (0 where both sets are empty), and the mean that random sets as large would have.

    Raises:
      SelectionError: they are of other concepts or units.
    """
    names = [list(map(str, each["concept"].values)) for each in (experts, last)]
    if names[0] != names[1] or not same_units(experts, last):
        models = [each.attrs.get("model", "an unnamed model") for each in (experts, last)]
        raise SelectionError(
            f"the expert sets are of {len(names[0])} concepts and {experts.sizes['unit']} units of {models[0]}, "
            f"the last of {len(names[1])} concepts and {last.sizes['unit']} units of {models[1]}, and these aren't "
            "the same. Measure all checkpoints alike."
        )
    sizes = experts.values.sum(1), last.values.sum(1)
    return np.diag(cross_jaccard(experts.values, last.values)), float(random_jaccard(*sizes, last.sizes["unit"]).mean())


def trace_overlap(
    checkpoints: Mapping[int, xr.Dataset],
    last: xr.Dataset,
    thresholds: Sequence[float],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Follow the overlap with the last checkpoint's expert sets through training.

    Args:
      checkpoints: tables of expertise by training step, of the same concepts and units.
      last: the last checkpoint's, found with the same sentences, where the curve ends in 1 by construction; or with
        others, where it ends in what two sets of sentences agree on, which is all that can be reached.
      thresholds: on AP.
      resamples: of the 95% intervals, over concepts.
      seed: of those.

    Returns:
      overlap: a row per step and threshold: step, threshold, value (mean over the concepts that have experts in
        `last`), ci_low, ci_high, chance (of random sets as large).
      settling: a row per threshold: threshold, concepts (with experts in `last`), step (where the mean overlap first
        reaches half of where it ends, see `half_step`), ci_low, ci_high.
    """
    steps = sorted(checkpoints)
    rows, settling = [], []
    for threshold in thresholds:
        end = select_experts(last, threshold=threshold)
        some = end.values.any(axis=1)
        curves = np.full((len(steps), int(some.sum())), np.nan)
        for row, step in enumerate(steps):
            value, chance = [np.nan] * 3, np.nan
            if some.any():
                curves[row], chance = overlap_with_last(
                    select_experts(checkpoints[step], threshold=threshold)[some], end[some]
                )
                value = bootstrap_mean(curves[row][:, None], resamples=resamples, seed=seed)
            rows.append((step, threshold, *value, chance))
        settling.append((threshold, int(some.sum()), *bootstrap_half_step(steps, curves, resamples, seed)))
    return (
        pd.DataFrame(rows, columns=["step", "threshold", "value", "ci_low", "ci_high", "chance"]),
        pd.DataFrame(settling, columns=["threshold", "concepts", "step", "ci_low", "ci_high"]),
    )


def half_step(steps: Sequence[int], curve: np.ndarray) -> float:
    """Return the step at which a curve first reaches half of its end, between checkpoints straight over log(1 + step).

    Args:
      steps: [steps], ascending.
      curve: float [steps].

    Returns:
      The step; NaN if the curve ends at 0 or at NaN.
    """
    level = curve[-1] / 2
    if not level > 0:
        return float("nan")
    after = int(np.flatnonzero(np.asarray(curve) >= level)[0])
    if after == 0:
        return float(steps[0])
    places = np.log1p(np.asarray(steps, float))
    rise = (level - curve[after - 1]) / (curve[after] - curve[after - 1])
    return float(np.expm1(places[after - 1] + rise * (places[after] - places[after - 1])))


def bootstrap_half_step(
    steps: Sequence[int], curves: np.ndarray, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Return `half_step` of the mean of `curves` [steps, concepts], and its 95% percentile interval over concepts."""
    count = curves.shape[1]
    if not count:
        return float("nan"), float("nan"), float("nan")
    drawn = resample_counts(count, resamples, seed)
    found = [half_step(steps, mean) for mean in drawn @ curves.T / count]
    low, high = np.nanpercentile(found, [2.5, 97.5]) if not np.isnan(found).all() else (np.nan, np.nan)
    return half_step(steps, curves.mean(axis=1)), float(low), float(high)
