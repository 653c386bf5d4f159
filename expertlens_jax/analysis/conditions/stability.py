"""How alike a concept's expert set is under two conditions: other sentences, other negatives, another model.

Two questions. Are concepts arranged alike, that is do the two overlap matrices go together? That can be asked of any
two models. And is it the same units? That needs the same units, and asks whether a concept's two sets share more than
the sets of different concepts do, and whether a concept can be told by its set among all concepts (retrieval at 1).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr

from expertlens_jax.analysis.statistics import (
    bootstrap_mantel,
    bootstrap_mean,
    bootstrap_mean_of_pairs,
    diagonal_p,
    mantel,
)
from expertlens_jax.cards import counted
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.overlap import jaccard
from expertlens_jax.experts.ratio import ratio
from expertlens_jax.experts.selection import expert_sets

STATISTICS = ("overlap_correlation", "jaccard_same", "jaccard_different", "retrieval")
_UNITS = 2**16  # compared at once: sums of so many ones are exact in float32
COLUMNS = ("statistic", "value", "ci_low", "ci_high", "chance", "p_value")


def compare_conditions(
    first: xr.DataArray, second: xr.DataArray, *, resamples: int = 2000, permutations: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """Compare the expert sets of the same concepts under two conditions.

    Args:
      first, second: bool (concept, unit), from `select_experts`, with the same concepts in the same order; of other
        units too, and then only the overlaps are compared.
      resamples: of the intervals' bootstrap over concepts.
      permutations: of concepts, of the p-values.
      seed: of both.

    Returns:
      A row per statistic: statistic, value, ci_low, ci_high (95%), chance, p_value.
      overlap_correlation: Spearman's correlation of the two Jaccard matrices (Mantel's test); chance 0.
      jaccard_same: mean over concepts of the Jaccard overlap of their two sets; chance is that of random sets as large;
        p permutes concepts, so it says whether it exceeds what different concepts share.
      jaccard_different: mean over pairs of different concepts, one under each condition.
      retrieval: how often a concept's set under one condition is the one most like it among all under the other, mean
        of both directions; chance 1 / concepts.

    Raises:
      SelectionError: these aren't expert sets, or not of the same concepts; or versions of this package that give other
        numbers measured them. Models, sentences, sites, pooling and negatives may differ: they are the conditions.
    """
    first, second = expert_sets(first), expert_sets(second)
    names = [[str(name) for name in each["concept"].values] for each in (first, second)]
    if names[0] != names[1]:
        raise SelectionError(
            f"the expert sets are of {len(names[0])} and {counted(len(names[1]), 'concept')} that differ or stand in "
            "another order; wanted the same. Select them alike, as with experts.sel(concept=names)."
        )
    versions = [each.attrs.get("numbers_version") for each in (first, second)]
    if None not in versions and versions[0] != versions[1]:
        models = [each.attrs.get("model", "an unnamed model") for each in (first, second)]
        raise SelectionError(
            f"the expert sets of {models[0]} and {models[1]} were measured by versions of this package that read files "
            f"otherwise (numbers_version {versions[0]} and {versions[1]}), so what differs may be that. Measure the "
            "older again."
        )
    draws = {"resamples": resamples, "seed": seed}
    overlaps = jaccard(first).values, jaccard(second).values
    rho, p_value = mantel(*overlaps, permutations=permutations, seed=seed)
    rows = [("overlap_correlation", rho, *bootstrap_mantel(*overlaps, **draws), 0.0, p_value)]
    if same_units(first, second):
        crossed = cross_jaccard(first.values, second.values)
        random = random_jaccard(first.values.sum(1), second.values.sum(1), first.sizes["unit"])
        found = retrieved(crossed), retrieved(crossed.T)
        both_ways = (found[0] + found[1].T) / 2  # a permutation of concepts permutes rows of one, columns of the other
        rows += [
            (
                "jaccard_same",
                *bootstrap_mean(np.diag(crossed)[:, None], **draws),
                float(random.mean()),
                diagonal_p(crossed, permutations, seed),
            ),
            ("jaccard_different", *bootstrap_mean_of_pairs(crossed, **draws), float("nan"), float("nan")),
            (
                "retrieval",
                *bootstrap_mean(np.diag(both_ways)[:, None], **draws),
                1 / len(crossed),
                diagonal_p(both_ways, permutations, seed),
            ),
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


def same_units(first: xr.DataArray | xr.Dataset, second: xr.DataArray | xr.Dataset) -> bool:
    """Return whether two tables are of units with the same addresses (layer, site, channel), in the same order.

    Checkpoints of one model have the same units; two models of one shape, trained apart, have units of the same
    addresses that have nothing to do with one another: what is compared then is at chance.
    """
    return first.sizes["unit"] == second.sizes["unit"] and all(
        np.array_equal(first[name].values, second[name].values)
        for name in ("layer", "site", "channel")
        if name in first.coords and name in second.coords
    )


def cross_jaccard(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Jaccard overlap of every set of one condition with every set of another; 0 where both are empty.

    Args:
      first, second: bool [concepts, units], [others, units].

    Returns:
      float64 [concepts, others].
    """
    shared = np.zeros((len(first), len(second)))
    for start in range(0, first.shape[1], _UNITS):
        block = slice(start, start + _UNITS)
        shared += first[:, block].astype(np.float32) @ second[:, block].astype(np.float32).T
    either = first.sum(1)[:, None] + second.sum(1) - shared
    return ratio(shared, either, empty=0)


def retrieved(similarity: np.ndarray) -> np.ndarray:
    """Return which column each row finds: 1 at its largest value, shared evenly among ties; float64 [rows, columns].

    The diagonal's mean is retrieval at 1. An empty set is equally unlike all, so it finds its own with probability
    1 / columns, which is chance.
    """
    largest = similarity >= similarity.max(axis=1, keepdims=True)
    return largest / largest.sum(axis=1, keepdims=True)


def random_jaccard(first: np.ndarray, second: np.ndarray, units: int) -> np.ndarray:
    """Return the expected Jaccard overlap of two random sets of given sizes: float64 [pairs].

    What they share has a hypergeometric distribution; the expectation is the sum over it of k / (n + m - k).

    Args:
      first, second: int [pairs], sizes.
      units: how many there are to draw from.
    """
    first, second = np.asarray(first, np.int64), np.asarray(second, np.int64)
    mean = first * second / units
    # Beyond ten standard deviations (of a Poisson variable, which is wider) there is nothing.
    low = np.floor(np.maximum(mean - 10 * np.sqrt(mean) - 10, 0)).astype(np.int64)
    width = int(np.ceil((20 * np.sqrt(mean) + 20).max(initial=0))) + 1
    shared = low[:, None] + np.arange(width)
    # By logarithms: a hundred times as fast as scipy's pmf, and within 1e-10 of it (5e-8 for ten million units).
    probability = np.exp(scipy.stats.hypergeom.logpmf(shared, units, first[:, None], second[:, None]))
    either = (first + second)[:, None] - shared
    return (probability * ratio(shared, either, empty=0)).sum(axis=1)
