"""The two mechanisms under every draw: concepts drawn with replacement, and the p-value of a count of draws."""

from typing import Any

import numpy as np
from jaxtyping import Int64


def resample_counts(
    count: int, resamples: int, seed: int | np.random.Generator
) -> Int64[np.ndarray, "{resamples} {count}"]:
    """Return how often each of `count` concepts is drawn in each resample of as many, with replacement.

    Args:
      count: how many concepts (or domains, prompts ...) there are.
      resamples: how often to draw.
      seed: of `np.random.default_rng`, or a generator that goes on from where it is.

    Returns:
      int64 [resamples, count]; each row sums to `count`.

    >>> resample_counts(3, resamples=2, seed=0).sum(axis=1).tolist()
    [3, 3]
    """
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)


def p_of_draws(extreme: float | np.number | np.ndarray, draws: int) -> Any:
    """Return the p-value of a permutation test: (1 + extreme) / (1 + draws).

    The observed order counts as one of the draws, so that p is never 0 (Phipson & Smyth, Stat. Appl. Genet. Mol. Biol.
    9, 2010).

    Args:
      extreme: how many draws were at least as extreme as the data; a number, or an array of any shape.
      draws: how many there were.

    Returns:
      p, a float, or an array of the shape of `extreme`.

    >>> p_of_draws(4, 99)
    0.05
    """
    return (1 + extreme) / (1 + draws)
