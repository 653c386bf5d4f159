"""What expert sets are like at each threshold: how many experts, how far they overlap, how well that aligns.

The quantities that are followed through training, over model sizes, and as negatives are added, in one tidy table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.analysis.similarity.alignment import align
from expertlens_jax.analysis.statistics import bootstrap_mean, bootstrap_mean_of_pairs
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.experts.overlap import jaccard
from expertlens_jax.experts.selection import expert_sets, select_experts

COLUMNS = ("threshold", "statistic", "ratings", "value", "ci_low", "ci_high", "chance", "p_value", "note")
FALL = (
    *("sentences", "model", "parameters", "statistic", "ratings"),
    *("low", "high", "value_low", "value_high", "kept"),
)


def describe_thresholds(
    expertise: xr.Dataset,
    thresholds: Sequence[float],
    ratings: Sequence[Ratings] = (),
    *,
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Describe the expert sets at each threshold: `describe_experts`, with a column `threshold` first."""
    draws: dict[str, Any] = {"resamples": resamples, "permutations": permutations, "seed": seed}
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
    """Return the numbers, overlap and alignment of expert sets.

    Args:
      experts: bool (concept, unit), from `select_experts`.
      ratings: to align the overlap with.
      resamples: of the 95% intervals, over concepts.
      permutations: of the alignment's p.
      seed: of both.

    Returns:
      A row per statistic: statistic, ratings (of an alignment; else ""), value, ci_low, ci_high, chance, p_value, note.
      experts: mean number per concept. share: the same as a share of all units, in percent. empty: share of concepts
      without any, in percent. overlap: mean Jaccard overlap of different concepts; chance is that of random sets as
      large. alignment: Spearman's correlation of the overlap with human ratings; NaN, and `note` why, where there is
      none; chance 0.
    """
    experts = expert_sets(experts)
    sizes = experts.values.sum(axis=1).astype(float)
    overlap = jaccard(experts)
    nan = float("nan")
    draws: dict[str, Any] = {"resamples": resamples, "seed": seed}
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
    """Return the mean Jaccard overlap of different concepts if each had as many experts as it has.

    They are drawn evenly from all units.

    One draw of random sets is enough: its mean is over all pairs of concepts.

    Args:
      experts: bool (concept, unit).
      seed: of the draw.
    """
    random = np.random.default_rng(seed).permuted(experts.values, axis=1)
    values = jaccard(experts.copy(data=random)).values
    return float(values[~np.eye(len(values), dtype=bool)].mean()) if len(values) > 1 else float("nan")


def measure_fall(table: pd.DataFrame) -> pd.DataFrame:
    """Measure what is left of overlap and alignment at the highest threshold that has a value, of that at the lowest.

    Args:
      table: of `describe_thresholds`, after columns sentences, model and parameters.

    Returns:
      A row per sentence set, model, statistic and ratings: those, parameters, low, high (thresholds), value_low,
      value_high, kept (their ratio).
    """
    rows = table[table["statistic"].isin(["overlap", "alignment"]) & table["value"].notna()]
    found = []
    for (sentences, model, statistic, ratings), line in rows.groupby(
        ["sentences", "model", "statistic", "ratings"], sort=False
    ):
        low, high = line.loc[line["threshold"].idxmin()], line.loc[line["threshold"].idxmax()]
        found.append(
            {
                "sentences": sentences,
                "model": model,
                "parameters": low["parameters"],
                "statistic": statistic,
                "ratings": ratings,
                "low": low["threshold"],
                "high": high["threshold"],
                "value_low": low["value"],
                "value_high": high["value"],
                "kept": high["value"] / low["value"] if low["value"] else np.nan,
            }
        )
    return pd.DataFrame(found, columns=FALL)


def count_by_concept(expertise: xr.Dataset, thresholds: Sequence[float]) -> pd.DataFrame:
    """Count the units that are experts on each concept, with one concept's units in memory at a time.

    Args:
      expertise: from `find_experts`, which may be opened lazily.
      thresholds: on AP.

    Returns:
      A row per concept and threshold: experts; with halves, `held_out` (the mean average precision, in one half of the
      sentences, of experts chosen in the other; both ways); with permutations, `significant` (experts with q <= 0.05),
      `familywise` (those with a family-wise p <= 0.05).
    """
    rows = []
    for i, concept in enumerate(expertise["concept"].values):
        own = expertise.isel(concept=i).load()
        for threshold in thresholds:
            experts = own["average_precision"].values >= threshold
            row = {"concept": concept, "threshold": threshold, "experts": int(experts.sum())}
            if "average_precision_halves" in own:
                first, second = own["average_precision_halves"].transpose("half", "unit").values
                chosen = np.concatenate([second[first >= threshold], first[second >= threshold]])
                row["held_out"] = float(chosen.mean()) if len(chosen) else np.nan
            if "q_value" in own:
                row["significant"] = int((experts & (own["q_value"].values <= 0.05)).sum())
                row["familywise"] = int((experts & (own["familywise_p"].values <= 0.05)).sum())
            rows.append(row)
    return pd.DataFrame(rows)


def summarise_counts(counts: pd.DataFrame) -> pd.DataFrame:
    """Return the medians over concepts, a row per threshold."""
    return counts.drop(columns="concept").groupby("threshold").median().round(3).reset_index()
