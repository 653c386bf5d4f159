"""The smallest p that a test could have given: where it is not small, a test of so few says nothing."""

import collections
import math
from collections.abc import Hashable, Sequence


def least_p_of_signs(number: int) -> float:
    """Return the least two-sided p of a sign test, or of Wilcoxon's signed ranks, over `number` differences.

    All on one side has probability 2 / 2^n. A percentile bootstrap of their mean is no surer than that: whatever their
    number, its interval lies on one side of 0 if they all do. So it goes for such intervals too.
    """
    return min(1.0, 2.0 ** (1 - number))


def least_p_of_permutations(draws: int, arrangements: int) -> float:
    """Return the least p of a permutation test, (1 + hits) / (1 + draws), of so many distinct arrangements.

    Args:
      draws: permutations that were drawn.
      arrangements: how many ways there are to permute, the one that was observed included: of them one in so many
        draws is the observed one again.
    """
    return max(1 / (1 + draws), 1 / arrangements)


def count_orders(number: int) -> int:
    """Return in how many orders `number` things can stand."""
    return math.factorial(number)


def count_groupings(labels: Sequence[Hashable]) -> int:
    """Return in how many ways things can be grouped as `labels` do: groups of these sizes, whatever their names.

    n! / (sizes! ...), over the orders of groups of one size: 4 things in two groups of 2 can be grouped in 3 ways.
    """
    sizes = collections.Counter(labels).values()
    alike = collections.Counter(sizes).values()
    return math.factorial(len(labels)) // math.prod(map(math.factorial, [*sizes, *alike]))


def least_p_of_ks(first: int, second: int) -> float:
    """Return the least two-sided p of Kolmogorov and Smirnov's test of two samples of these sizes: all apart."""
    return min(1.0, 2 / math.comb(first + second, first))
