"""How far people agree with one another: the ceiling of an alignment, from ratings with their raters."""

import dataclasses

import numpy as np
import scipy.stats

from expertlens_jax.analysis.statistics import jackknife_over_concepts, spearman, weighted_spearman
from expertlens_jax.cards import counted
from expertlens_jax.data.raters import Raters
from expertlens_jax.data.words import normal_name
from expertlens_jax.errors import SelectionError

MINIMUM_PAIRS = 10  # as for an alignment


@dataclasses.dataclass(frozen=True)
class Ceiling:
    """The reliability of mean ratings, with its 95% interval; NaN, and a `note` why, where there is none."""

    ratings: str
    raters: int
    pairs: int
    half: float
    """The mean correlation between halves of the raters."""
    reliability: float
    """That of all raters' mean with another such crowd's, by Spearman-Brown."""
    ci_low: float
    ci_high: float
    note: str


def spearman_brown(correlation: np.ndarray | float) -> np.ndarray | float:
    """Return the reliability of a whole, given the correlation of its two halves: 2 r / (1 + r).

    Spearman, "Correlation calculated from faulty data", Br. J. Psychol. 3, 1910; Brown, "Some experimental results in
    the correlation of mental abilities", ibid.

    >>> spearman_brown(0.5).round(3).item()
    0.667
    """
    correlation = np.asarray(correlation, np.float64)
    return np.divide(2 * correlation, 1 + correlation, out=np.full(correlation.shape, -np.inf), where=correlation > -1)


def split_half_ceiling(raters: Raters, *, splits: int = 100, seed: int = 0) -> Ceiling:
    """Measure how far two halves of the raters agree, and what that says of all of them.

    The raters are split at random, the mean of each half is taken of each pair that somebody in either half rated, and
    Spearman's correlation of the halves is averaged over splits. The interval leaves out one concept (word) at a time,
    as that of `align` does, with the same splits. A similarity without any noise of its own is expected to reach the
    root of the reliability.

    Args:
      raters: whose ratings.
      splits: how many.
      seed: of the splits.

    Returns:
      A `Ceiling`; its numbers are NaN, and its note says why, with fewer than 10 pairs in some split, or where a half
        gives all pairs the same.

    Raises:
      SelectionError: fewer than one split.
    """
    if splits < 1:
        raise SelectionError(f"{splits} splits were given; wanted 1 or more.")
    rng = np.random.default_rng(seed)
    halves = []
    for _ in range(splits):
        order = rng.permutation(len(raters.raters))
        cut = len(order) // 2
        halves.append([_mean(raters.scores[:, part]) for part in (order[:cut], order[cut:])])
    both = [~np.isnan(one) & ~np.isnan(other) for one, other in halves]
    fewest = min(int(each.sum()) for each in both)
    nan = float("nan")
    if fewest < MINIMUM_PAIRS:
        note = f"a split leaves {fewest} pairs that both halves rated, and a correlation needs {MINIMUM_PAIRS}"
        return Ceiling(raters.name, len(raters.raters), len(raters.pairs), nan, nan, nan, nan, note)
    filled = [[np.nan_to_num(half) for half in pair] for pair in halves]

    def half(weights: np.ndarray) -> np.ndarray:
        """Return the mean correlation of the halves in each sample."""
        return np.mean(
            [weighted_spearman(*pair, weights * there) for pair, there in zip(filled, both, strict=True)], axis=0
        )

    words = {normal_name(word): None for pair in raters.pairs for word in pair}
    index = {word: place for place, word in enumerate(words)}
    first, second = np.array([[index[normal_name(word)] for word in pair] for pair in raters.pairs]).T
    estimate = jackknife_over_concepts(half, first, second)
    note = "a half of the raters rates all pairs the same" if np.isnan(estimate.value) else ""
    reliability, low, high = (float(spearman_brown(each)) for each in (estimate.value, estimate.low, estimate.high))
    return Ceiling(raters.name, len(raters.raters), len(raters.pairs), estimate.value, reliability, low, high, note)


def noise_ceiling(raters: Raters) -> tuple[float, float]:
    """Return between what bounds a similarity would correlate with single raters, if it were the true one.

    Nili et al., "A toolbox for representational similarity analysis" (PLoS Comput. Biol. 10, 2014). Each rater is
    correlated (Spearman) with the mean ranks of all the others, and with those of all raters: the mean of the first is
    the lower bound, that of the second, which has the rater himself in it, the upper. A reliability (see
    `split_half_ceiling`) is of the raters' mean; these bounds are for a similarity that is correlated with each rater,
    as rsatoolbox does.

    Args:
      raters: who all rated all pairs.

    Returns:
      The lower and the upper bound.

    Raises:
      SelectionError: somebody left a pair out: ranks of different pairs have no mean.
    """
    missing = np.isnan(raters.scores)
    if missing.any():
        row, column = np.argwhere(missing)[0]
        raise SelectionError(
            f"{raters.name}: {raters.raters[column]!r} didn't rate {'/'.join(raters.pairs[row])}, and "
            f"{counted(int(missing.sum()), 'rating is', 'ratings are')} missing in all; bounds want every one: leave "
            "out such pairs or raters, or ask split_half_ceiling."
        )
    ranks = scipy.stats.rankdata(raters.scores, axis=0)
    lower, upper = [], []
    for number, own in enumerate(ranks.T):
        lower.append(spearman(own, np.delete(ranks, number, axis=1).mean(axis=1)))
        upper.append(spearman(own, ranks.mean(axis=1)))
    return float(np.mean(lower)), float(np.mean(upper))


def _mean(scores: np.ndarray) -> np.ndarray:
    """Return the mean over raters [pairs, raters] of each pair; NaN where none rated it."""
    there = ~np.isnan(scores)
    total = np.where(there, scores, 0.0).sum(axis=1)
    return np.divide(total, there.sum(axis=1), out=np.full(len(scores), np.nan), where=there.any(axis=1))
