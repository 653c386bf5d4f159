"""What expert sets are like at each threshold: how many experts, how far they overlap, how well that aligns.

The quantities that are followed through training, over model sizes, and as negatives are added, in one tidy table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.analysis.similarity.alignment import align
from expertlens_jax.analysis.statistics import bootstrap_mean, bootstrap_mean_of_pairs
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.experts.overlap import jaccard
from expertlens_jax.experts.selection import expert_sets, select_experts

COLUMNS = ("threshold", "statistic", "ratings", "value", "ci_low", "ci_high", "chance", "p_value", "note")


def describe_thresholds(
    expertise: xr.Dataset,
    thresholds: Sequence[float],
    ratings: Sequence[Ratings] = (),
    *,
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Describes the expert sets at each threshold: `describe_experts`, with a column `threshold` first."""
    draws = {"resamples": resamples, "permutations": permutations, "seed": seed}
    found = [
        describe_experts(select_experts(expertise, threshold=threshold), ratings, **draws).assign(threshold=threshold)
        for threshold in thresholds
    ]
    return pd.concat(found, ignore_index=True)[list(COLUMNS)]


def describe_experts(
    experts: xr.DataArray,
    ratings: Sequence[Ratings] = (),
    *,
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Numbers, overlap and alignment of expert sets.

    Args:
      experts: bool (concept, unit), from `select_experts`.
      ratings: to align the overlap with.
      resamples: of the 95% intervals, over concepts.
      permutations: of the alignment's p.
      seed: of both.

    Returns:
      A row per statistic: statistic, ratings ("" but for alignment), value, ci_low, ci_high, chance, p_value, note.
      experts: mean number per concept. share: the same as a share of all units, in percent. empty: share of concepts
      without any, in percent. overlap: mean Jaccard overlap of different concepts; chance is that of random sets as
      large. alignment: Spearman's correlation of the overlap with human ratings; NaN, and `note` why, where there is
      none; chance 0.
    """
    experts = expert_sets(experts)
    sizes = experts.values.sum(axis=1).astype(float)
    overlap = jaccard(experts)
    nan = float("nan")
    draws = {"resamples": resamples, "seed": seed}
    mean, low, high = bootstrap_mean(sizes[:, None], **draws)
    percent = 100 / experts.sizes["unit"]
    rows = [
        ("experts", "", mean, low, high, nan, nan, ""),
        ("share", "", percent * mean, percent * low, percent * high, nan, nan, ""),
        ("empty", "", *bootstrap_mean(100.0 * (sizes == 0)[:, None], **draws), nan, nan, ""),
        ("overlap", "", *bootstrap_mean_of_pairs(overlap.values, **draws), chance_overlap(experts, seed), nan, ""),
    ]
    for rated in ratings:
        found = align(overlap, rated, permutations=permutations, **draws)
        interval = found.spearman, found.ci_low, found.ci_high
        rows.append(("alignment", rated.name, *interval, 0.0, found.p_value, found.note))
    return pd.DataFrame(rows, columns=COLUMNS[1:])


def chance_overlap(experts: xr.DataArray, seed: int = 0) -> float:
    """Mean Jaccard overlap of different concepts if each had as many experts as it has, drawn evenly from all units.

    One draw of random sets is enough: its mean is over all pairs of concepts.

    Args:
      experts: bool (concept, unit).
      seed: of the draw.
    """
    random = np.random.default_rng(seed).permuted(experts.values, axis=1)
    values = jaccard(experts.copy(data=random)).values
    return float(values[~np.eye(len(values), dtype=bool)].mean()) if len(values) > 1 else float("nan")
