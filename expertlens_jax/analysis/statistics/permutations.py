"""Could it be chance? p-values from concepts that change places, and p-values of many tests together."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import scipy.stats
from jaxtyping import Float, Float64, Integer, Real, Shaped

from expertlens_jax import parallel
from expertlens_jax.analysis.statistics.blocks import in_blocks
from expertlens_jax.analysis.statistics.correlation import rank_pairs, spearman
from expertlens_jax.analysis.statistics.draws import p_of_draws
from expertlens_jax.experts.ratio import ratio


def permutation_p(
    similarity: Real[np.ndarray, "concepts concepts"],
    scores: Real[np.ndarray, " pairs"],
    first: Integer[np.ndarray, " pairs"],
    second: Integer[np.ndarray, " pairs"],
    permutations: int = 10_000,
    seed: int = 0,
) -> float:
    """Return the two-sided p of Spearman's correlation, from permuting which concept is which in the similarity matrix.

    Mantel's test ("The detection of disease clustering and a generalized regression approach", Cancer
    Research 27, 1967) on the pairs that are rated: under the null the concepts' names mean nothing, so the
    rated concepts change places, rows and columns together, and the ratings stay. That keeps each concept's
    similarities together, as shuffling pairs would not. The observed order counts as one of the permutations,
    hence

        p = (1 + #{|rho_permuted| >= |rho|}) / (1 + permutations),

    which is never 0 (Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010).

    Args:
      similarity: float [concepts, concepts], symmetric.
      scores: float [pairs], the human ratings.
      first, second: int [pairs], rows of `similarity`.
      permutations: how many to draw.
      seed: of `np.random.default_rng`.

    Returns:
      p; NaN if the correlation itself is. A permutation that leaves all pairs tied counts as rho = 0.
    """
    pairs: np.ndarray = np.stack([first, second])
    rated, where = np.unique(pairs.astype(int), return_inverse=True)
    first, second = where.reshape(2, -1)
    similarity = np.asarray(similarity, np.float64)[np.ix_(rated, rated)]
    rho = spearman(similarity[first, second], scores)
    if np.isnan(rho):
        return float("nan")
    rng = np.random.default_rng(seed)
    score_ranks = scipy.stats.rankdata(scores)
    score_ranks -= score_ranks.mean()
    extreme = 0
    for size in in_blocks(permutations, max(len(first), len(rated))):
        places = rng.permuted(np.tile(np.arange(len(rated)), (size, 1)), axis=1)
        ranks = scipy.stats.rankdata(similarity[places[:, first], places[:, second]], axis=1)
        ranks -= ranks.mean(axis=1, keepdims=True)
        norms = np.sqrt((ranks**2).sum(axis=1) * (score_ranks**2).sum())
        permuted = ratio(ranks @ score_ranks, norms, empty=0)
        extreme += int((np.abs(permuted) >= abs(rho) - 1e-12).sum())  # 1e-12: the same ranks, summed otherwise
    return p_of_draws(extreme, permutations)


def mantel(
    first: Real[np.ndarray, "concepts concepts"],
    second: Real[np.ndarray, "concepts concepts"],
    permutations: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return Spearman's correlation of two similarity matrices over all pairs of concepts, and its two-sided p.

    Mantel's test, as in `permutation_p`, where every pair has a value in both: ranks then stay what they are when
    concepts change places, so a permutation is a sum of products.

    Args:
      first, second: float [concepts, concepts], symmetric, of the same concepts; the diagonals are not used.
      permutations: how many to draw.
      seed: of `np.random.default_rng`.

    Returns:
      (rho, p); both NaN with fewer than three concepts, or if either matrix is constant off its diagonal.
    """
    rho, ranks = rank_pairs(first, second)
    if np.isnan(rho):
        return rho, float("nan")
    here, there = np.triu_indices(len(ranks[0]), 1)
    scale = np.sqrt((ranks[0][here, there] ** 2).sum() * (ranks[1][here, there] ** 2).sum())

    def count_extreme(drawn: np.ndarray) -> int:
        rows, both = np.empty_like(ranks[0]), np.empty_like(ranks[0])
        count = 0
        for places in drawn:
            # Rows move, then columns, into memory that is used again: far quicker than to look up pair by pair. Each
            # pair is summed twice; centred ranks are whole or half numbers, whose sums are exact in any order.
            np.take(ranks[0], places, axis=0, out=rows, mode="clip")
            np.take(rows, places, axis=1, out=both, mode="clip")
            permuted = np.einsum("ij,ij->", both, ranks[1]) / 2
            count += int(abs(permuted) >= (abs(rho) - 1e-12) * scale)  # 1e-12: the same ranks, summed otherwise
        return count

    rng = np.random.default_rng(seed)
    extreme = 0
    cores = parallel.num_cores()
    with ThreadPoolExecutor(cores) as threads:  # numpy lets go of Python's lock while it moves rows and columns
        for size in in_blocks(permutations, len(ranks[0])):
            drawn = rng.permuted(np.tile(np.arange(len(ranks[0])), (size, 1)), axis=1)
            extreme += sum(threads.map(count_extreme, np.array_split(drawn, cores)))
    return rho, p_of_draws(extreme, permutations)


def diagonal_p(values: Shaped[np.ndarray, "concepts concepts"], permutations: int = 10_000, seed: int = 0) -> float:
    """Return the one-sided p of the mean of a matrix's diagonal.

    It asks whether concepts are more like themselves than like one another.

    Under the null the columns' names mean nothing, so they change places. Of a 0/1 matrix of nearest neighbours it
    tests retrieval. Counted as in `permutation_p`.

    Args:
      values: float [concepts, concepts]: rows under one condition, columns under another.
      permutations: how many to draw.
      seed: of `np.random.default_rng`.
    """
    count = len(values)
    observed = np.trace(values)
    rng = np.random.default_rng(seed)
    extreme = 0
    for size in in_blocks(permutations, count):
        places = rng.permuted(np.tile(np.arange(count), (size, 1)), axis=1)
        extreme += int((values[np.arange(count), places].sum(axis=1) >= observed - 1e-12 * max(1, observed)).sum())
    return p_of_draws(extreme, permutations)


def signed_ranks_p(differences: Real[np.ndarray, " pairs"]) -> float:
    """Return the two-sided p of Wilcoxon's signed ranks, exact, with ties.

    It goes through all ways to give the differences their signs.

    Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1, 1945. Differences of 0 are left out.
    The null is summed up rank by rank, which takes no longer with ties; `scipy.stats.wilcoxon` goes through all signs
    then, and takes a thousand times as long.

    Args:
      differences: float [pairs]; equal ones up to 1e-12 tie.

    Returns:
      p; 1 where nothing differs.
    """
    differences = np.round(np.asarray(differences, np.float64), 12)
    differences = differences[differences != 0]
    doubled = (2 * scipy.stats.rankdata(np.abs(differences))).astype(int)  # mid-ranks may be halves
    null = np.zeros(doubled.sum() + 1)
    null[0] = 1
    for rank in doubled:
        with_rank = np.zeros_like(null)
        with_rank[rank:] = null[: len(null) - rank]
        null = (null + with_rank) / 2
    negative = int(doubled[differences < 0].sum())
    return float(min(1.0, 2 * null[: min(negative, len(null) - 1 - negative) + 1].sum()))


def holm(p_values: Sequence[float] | pd.Series | Float[np.ndarray, " tests"]) -> Float64[np.ndarray, " tests"]:
    """Adjust p-values [tests] so that the chance of any false rejection among them stays at the level.

    Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 6, 1979. The smallest p of m
    is multiplied by m, the next by m - 1, ...; none is smaller than one before it, or larger than 1. A NaN is no
    test: it stays NaN and doesn't count.
    """
    given = np.asarray(p_values, np.float64)
    adjusted = np.full(len(given), np.nan)
    order = np.argsort(given)[: np.sum(~np.isnan(given))]  # NaN sorts last
    steps = given[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted
