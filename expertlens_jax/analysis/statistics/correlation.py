"""Rank correlations of pairs of concepts: plain, weighted by how often a pair was drawn, and given other variables."""

from collections.abc import Sequence

import numpy as np
import scipy.stats
from jaxtyping import Float64, Real

from expertlens_jax.experts.ratio import ratio


def spearman(x: Real[np.ndarray, " pairs"], y: Real[np.ndarray, " pairs"]) -> float:
    """Return Spearman's rank correlation of `x` and `y`, each [pairs], ties at mid-rank; NaN if either is constant.

    Spearman, "The proof and measurement of association between two things", Am. J. Psychol. 15, 1904.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if len(x) < 2 or np.all(x == x[0]) or np.all(y == y[0]):
        return float("nan")
    return float(scipy.stats.spearmanr(x, y).statistic)


def weighted_spearman(
    x: Real[np.ndarray, " pairs"], y: Real[np.ndarray, " pairs"], weights: Real[np.ndarray, "resamples pairs"]
) -> Float64[np.ndarray, " resamples"]:
    """Return Spearman's correlation of a sample in which pair k stands `weights[..., k]` times.

    With whole-number weights this is, exactly, `spearman` of `x` and `y` with each pair repeated that often:
    a pair's mid-rank is the weight below it, plus the middle of the weight tied with it, (w + 1) / 2; and the
    correlation of ranks weighs each pair alike.

    Args:
      x, y: float [pairs].
      weights: [resamples, pairs], 0 or more: one sample a row.

    Returns:
      float64 [resamples]; NaN where what has weight is constant in `x` or in `y`.
    """
    weights = np.asarray(weights, np.float64)
    middle = (weights.sum(axis=1, keepdims=True) + 1) / 2  # the mean of the ranks 1 ... n, ties or not
    rank_x, rank_y = _mid_ranks(x, weights) - middle, _mid_ranks(y, weights) - middle
    covariance = np.einsum("bp,bp,bp->b", weights, rank_x, rank_y)
    variances = np.einsum("bp,bp->b", weights, rank_x**2) * np.einsum("bp,bp->b", weights, rank_y**2)
    return ratio(covariance, np.sqrt(variances), empty=np.nan)


def partial_spearman(
    x: Real[np.ndarray, " pairs"],
    y: Real[np.ndarray, " pairs"],
    control: Real[np.ndarray, "*controls pairs"] | Sequence[Real[np.ndarray, " pairs"]],
) -> float:
    """Return Spearman's partial correlation of `x` and `y`, each [pairs], given `control`.

    The control is [pairs] or [controls, pairs].

    The correlation of what is left of the ranks of `x` and of `y` when each is regressed on the controls' ranks;
    with one control z it is

        (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2))

    of the rank correlations r (Kendall, "Partial rank correlation", Biometrika 32, 1942, has it for tau; Conover,
    "Practical Nonparametric Statistics", 3rd ed. 1999, section 5.4, for ranks).

    Returns:
      float; NaN if `x`, `y` or a control is constant, or if the controls' ranks explain those of `x` or `y` wholly.
    """
    x = np.asarray(x, np.float64)
    return float(weighted_partial_spearman(x, y, control, np.ones((1, len(x))))[0])


def weighted_partial_spearman(
    x: Real[np.ndarray, " pairs"],
    y: Real[np.ndarray, " pairs"],
    control: Real[np.ndarray, "*controls pairs"] | Sequence[Real[np.ndarray, " pairs"]],
    weights: Real[np.ndarray, "samples pairs"],
) -> Float64[np.ndarray, " samples"]:
    """Return `partial_spearman` of samples in which pair k stands `weights[..., k]` times, as in `weighted_spearman`.

    Args:
      x, y: float [pairs].
      control: float [pairs], or [controls, pairs].
      weights: [samples, pairs], 0 or more.

    Returns:
      float64 [samples]; NaN where there is no such correlation.
    """
    weights = np.asarray(weights, np.float64)
    middle = (weights.sum(axis=1, keepdims=True) + 1) / 2
    variables = [np.asarray(values, np.float64) for values in (x, y, *np.atleast_2d(control))]
    ranks = np.stack([_mid_ranks(values, weights) - middle for values in variables])
    covariance = np.einsum("bp,ubp,vbp->buv", weights, ranks, ranks, optimize=True)
    scale = np.sqrt(np.einsum("buu->bu", covariance))
    result = np.full(len(weights), np.nan)
    defined = (scale > 0).all(axis=1)
    correlation = covariance[defined] / (scale[defined, :, None] * scale[defined, None, :])
    # The Schur complement: what the controls' ranks leave of x and y, without inverting a singular whole.
    controls = np.linalg.pinv(correlation[:, 2:, 2:], hermitian=True)
    left = correlation[:, :2, :2] - correlation[:, :2, 2:] @ controls @ correlation[:, 2:, :2]
    variances = left[:, 0, 0] * left[:, 1, 1]
    enough = (left[:, 0, 0] > 1e-10) & (left[:, 1, 1] > 1e-10)
    result[defined] = np.where(enough, left[:, 0, 1] / np.sqrt(np.where(enough, variances, 1)), np.nan)
    return result


def _mid_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rank of each value [pairs] where it stands `weights` [resamples, pairs] times: [resamples, pairs]."""
    _, tie = np.unique(values, return_inverse=True)  # the sorting is the same for every resample
    order = np.argsort(tie, kind="stable")
    starts = np.flatnonzero(np.diff(tie[order], prepend=-1))
    tied = np.add.reduceat(weights[:, order], starts, axis=1)
    below = np.cumsum(tied, axis=1) - tied
    return (below + (tied + 1) / 2)[:, tie]


def rank_pairs(
    first: Real[np.ndarray, "concepts concepts"], second: Real[np.ndarray, "concepts concepts"]
) -> tuple[float, list[np.ndarray]]:
    """Return Spearman's rho over all pairs, and both matrices [concepts, concepts] as centred ranks.

    The diagonals are 0.
    """
    here, there = np.triu_indices(len(first), 1)
    ranked = []
    for matrix in (first, second):
        ranks = np.zeros(np.shape(matrix))
        of_pairs = scipy.stats.rankdata(np.asarray(matrix, np.float64)[here, there])
        ranks[here, there] = ranks[there, here] = of_pairs - of_pairs.mean() if len(of_pairs) else of_pairs
        ranked.append(ranks)
    return spearman(ranked[0][here, there], ranked[1][here, there]) if len(first) > 2 else float("nan"), ranked
