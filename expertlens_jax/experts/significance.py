"""How surprising an average precision is: its null distribution, p-values, and what many units make of them.

Under the null a unit's responses say nothing of the labels: every order of a concept's P positives among its
N negatives is equally likely. With n_k the negatives above the k-th strongest positive, 0 <= n_1 <= ... <= n_P
<= N, and w the weight of a negative, average precision is that of `ranking.py` without ties,

    AP = mean over k of   k / (k + w * n_k),

so the null depends on (P, N, w) alone, and all C(P + N, P) choices of n are equally likely. Among a million units
the best have p far below what plain sampling reaches, and a normal approximation of AP is off there by orders
of magnitude. But AP is a sum of terms of a Markov chain, so the null *tilted* by exp(theta * P * AP) has its
constant, and independent draws, exactly from running sums over n, P of them (forward filtering, backward
sampling). Draws at a ladder of theta, each where the last one's spread ends, weighed together by the balance
heuristic (Veach & Guibas, "Optimally combining sampling techniques", SIGGRAPH 1995), estimate every tail at
once. This is importance sampling by exponential tilting (Siegmund, Ann. Statist. 4, 1976); nothing is
approximated but by the number of draws, and there's no Markov chain to wait for, as in multilevel splitting.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import scipy.signal
import scipy.special
import scipy.stats
from jaxtyping import Float, Float32, Float64

from expertlens_jax.cards import counted
from expertlens_jax.data.contrast import Contrast
from expertlens_jax.errors import ConceptDataError

# AP is measured in float32, from a sum of P rounded terms. What differs by less than this, relatively, is equal.
_SAME = 4 * 2.0**-23
# The ladder's steps, in standard deviations of P * AP: neighbouring rungs overlap well.
_STEP = 1.5
# And no farther than this Kullback-Leibler divergence; a step of 1.5 is 1.1 where sums are normal.
_FARTHEST = 2.0
# Few positives have rougher nulls and cost less: up to so many times the draws.
_MOST_DRAWS = 5
# And so many times the draws without a tilt: most units are there, and would show an error in their bulk.
_FIRST_RUNG = 6
# Nodes closer than this in the log odds of survival say nothing new.
_THINNING = 0.02
# Finest grids of places: exact up to _PLACES, or this many per positive; the table of sums has at most _CELLS.
_PLACES, _PLACES_PER_POSITIVE, _CELLS = 8192, 64, 2**23
# Numbers of negatives whose null is computed: all up to _FEW, then one per _RATIO, and those between interpolated.
_FEW, _RATIO = 100, 1.5


@dataclasses.dataclass(frozen=True, eq=False)
class NullDistribution:
    """The average precision of a unit that knows nothing of the labels, as a table of its upper tail.

    Attributes:
      average_precision: float64 `[nodes]`, ascending.
      log_survival: float64 `[nodes]`, log P(AP >= node), 0 at first, not ascending.
    """

    average_precision: np.ndarray
    log_survival: np.ndarray


def null_survival(
    num_positives: int,
    num_negatives: int,
    negative_weight: float,
    *,
    seed: int,
    smallest: float = 1e-15,
    draws: int = 3000,
) -> NullDistribution:
    """Return the null of average precision for P positives and N negatives of this weight, without ties.

    With the default draws, p has a standard error of 1% at 0.5, 2% at 0.1, and 2% to 4% from 1e-2 to 1e-12 (the
    spread over seeds, P = 40 and N = 7000), in 0.24 s on one core. The table ends at `smallest`, or exactly at
    P(AP = 1) = 1 / C(P + N, P) where that is greater.

    Beyond max(8192, 64 P) places, or 2**23 / P if that is less, neighbouring places are taken together. What a
    block does to pairs of positives in it is kept exactly; with 64 blocks per positive what is lost is less than
    the draws' error, and with fewer p becomes larger, not smaller: by 10% at 1e-12 for P = 1000 and N = 20,000.

    Args:
      num_positives: P.
      num_negatives: N.
      negative_weight: w, the weight of a negative; a positive weighs 1.
      seed: of the draws; equal arguments give equal tables, and tables of similar arguments similar errors.
      smallest: the survival where the table may end.
      draws: per rung of the ladder, six times as many on the first, and up to five times as many on each for fewer
        than 40 positives; the error goes with one over its root.

    Raises:
      ConceptDataError: there is no positive or no negative, or the weight isn't above 0.
    """
    positives, negatives = int(num_positives), int(num_negatives)
    if positives < 1 or negatives < 1 or not (negative_weight > 0 and math.isfinite(negative_weight)):
        raise ConceptDataError(
            "a null needs at least one positive, one negative and a weight above 0, not "
            f"{counted(num_positives, 'positive')} and {counted(num_negatives, 'negative')} of weight {negative_weight}"
        )
    rng = np.random.default_rng(seed)
    finest = min(max(_PLACES, _PLACES_PER_POSITIVE * positives), max(_CELLS // positives, 2))
    places = min(negatives + 1, finest)
    block = (negatives + 1) / places
    # The weight of the negatives above each place: of those before its block, and of half of the block's others.
    weight_above = negative_weight * (block * np.arange(places) + (block - 1) / 2)

    draws *= min(_MOST_DRAWS, max(1, 40 // positives))

    tilts, log_constants, sums = [], [], []
    tilt, step = 0.0, 0.0
    while True:
        log_sums, log_constant = _running_sums(positives, weight_above, block, tilt)
        # The divergence of the last rung from this one, were it too far. A heavy tail isn't seen from below.
        if tilts and log_constant - log_constants[-1] - step * (sums[-1].mean() - positives) > _FARTHEST:
            step /= 2
            tilt = tilts[-1] + step
            continue
        number = draws if tilts else _FIRST_RUNG * draws
        drawn = _draw_sums(log_sums, weight_above, block, number, rng)
        tilts.append(tilt)
        log_constants.append(log_constant)
        sums.append(drawn)
        # Chernoff's bound on P(P * AP >= this rung's mean); and the chance of AP = 1 at this tilt.
        log_bound = log_constant - log_constants[0] - tilt * (drawn.mean() - positives)
        if log_bound < math.log(smallest) or -log_constant > math.log(0.5) or drawn.std() < 1e-9 / (1 + tilt):
            break
        step = _STEP / drawn.std()
        tilt += step

    sums = np.concatenate(sums)
    log_ratios = [t * (sums - positives) - z + log_constants[0] for t, z in zip(tilts, log_constants, strict=True)]
    log_ratios[0] += math.log(_FIRST_RUNG)
    weights = np.exp(-np.logaddexp.reduce(log_ratios, axis=0))
    average_precision, first = np.unique(np.round(sums / positives, 9), return_inverse=True)  # equal up to rounding
    mass = np.bincount(first, weights)
    log_survival = np.minimum(np.log(np.cumsum(mass[::-1])[::-1]) - np.log(mass.sum()), 0)
    log_survival[0] = 0
    log_least = _log_least(positives, negatives)
    if block == 1 and average_precision[-1] == 1 and average_precision.size > 1:
        log_survival[-1] = log_least
    log_survival = np.maximum(log_survival, log_least)
    log_survival = np.maximum.accumulate(log_survival[::-1])[::-1]
    # Two nodes in each interval of log odds, its first and its last, so that no step between them is blurred.
    with np.errstate(divide="ignore"):
        interval = np.floor((log_survival - np.log(-np.expm1(log_survival))) / _THINNING)
    starts = interval[1:] != interval[:-1]
    keep = np.append(True, starts) | np.append(starts, True)
    keep &= log_survival >= min(math.log(smallest), 0)
    return NullDistribution(average_precision[keep], log_survival[keep])


def p_values(
    average_precision: Float[np.ndarray, "*concepts units"], null: NullDistribution | Sequence[NullDistribution]
) -> Float64[np.ndarray, "*concepts units"]:
    """Return P(AP >= ap) of each average precision under the null: float64, of the same shape.

    Log survival is interpolated linearly between nodes. AP is lowered by a few float32 roundings first, so that
    one equal to a node never counts as above it. Beyond the table's end p is the end's: never 0, "at most" there.

    The null has no ties. For a unit whose responses are mostly tied, compare with `permuted_labels` of
    `data/resampling.py`: their null has the same ties.

    Args:
      average_precision: float `[units]`, or `[concepts, units]`.
      null: of all; or, for `[concepts, units]`, one for each concept.
    """
    average_precision = np.asarray(average_precision)
    if isinstance(null, NullDistribution):
        lowered = np.asarray(average_precision, np.float64) * (1 - _SAME)
        return np.exp(np.interp(lowered, null.average_precision, null.log_survival))
    p = np.empty(average_precision.shape)
    for row, (of_units, of_concept) in enumerate(zip(average_precision, null, strict=True)):
        p[row] = p_values(of_units, of_concept)
    return p


def null_distributions(contrast: Contrast, *, seed: int) -> list[NullDistribution]:
    """Return `[concepts]` nulls, in `null_survival`'s way; only a few are computed.

    Concepts of one P and base rate differ in N alone, and in their null by an amount that is linear in 1 / N as far
    as the draws can tell (all have the same seed, so their errors go together). It's computed at both ends of
    the N's there are, and between them such that no N is more than 1.5 times the last; where N is at most 100,
    for each. Log survival at other N is interpolated in 1 / N.
    """
    positives, negatives = contrast.num_positives, contrast.num_negatives
    ratios = contrast.negative_weight.astype(np.float64) * negatives / positives
    families = {}  # the weights are float32: ratios equal to six digits are one
    for row, ratio in enumerate(ratios):
        families.setdefault((int(positives[row]), f"{ratio:.6g}"), []).append(row)
    nulls: dict[int, NullDistribution] = {}
    for (num_positives, _), rows in families.items():
        counts, ratio = np.unique(negatives[rows]), ratios[rows].mean()
        computed = _computed_counts(counts)
        table = {
            count: null_survival(num_positives, count, ratio * num_positives / count, seed=seed)
            for count in computed.tolist()
        }
        for count in np.setdiff1d(counts, computed).tolist():
            above = np.searchsorted(computed, count)
            low, high = computed[above - 1 : above + 1].tolist()
            share = (1 / low - 1 / count) / (1 / low - 1 / high)
            table[count] = _between(table[low], table[high], share, _log_least(num_positives, count))
        for row in rows:
            nulls[row] = table[int(negatives[row])]
    return [nulls[row] for row in range(len(positives))]


def q_values(p: Float[np.ndarray, "*concepts units"]) -> Float64[np.ndarray, "*concepts units"]:
    """Return q of each p, float64 `[..., units]`: calling all units up to q expects a share q of false ones.

    Benjamini & Hochberg (J. R. Stat. Soc. B 57, 1995), over the last axis: within each concept. That bounds the
    share in each concept's list, not among the units some concept calls. It assumes units that are independent, or
    positively dependent on each of the nulls (Benjamini & Yekutieli, Ann. Statist. 29, 2001). Units of one
    model are dependent, mostly so; a channel and its opposite aren't. `familywise_p` needs no such assumption.
    """
    return scipy.stats.false_discovery_control(p, axis=-1, method="bh")


def familywise_p(
    average_precision: Float[np.ndarray, " units"], null_maximum: Float[np.ndarray, " permutations"]
) -> Float32[np.ndarray, " units"]:
    """Return the p of each unit, corrected for all of them: float32 `[units]`.

        p = (1 + #{permuted concepts whose best unit has at least this AP}) / (1 + permutations)

    Westfall & Young, "Resampling-based multiple testing", 1993 (the single-step maximum). Calling the units up
    to p calls any false one with probability at most p, however dependent they are: permuted labels meet the
    same responses. The actual labels count as one of the permutations, so p is at least 1 / (1 + permutations).

    Args:
      average_precision: float `[units]`, of one concept.
      null_maximum: float `[permutations]`, the maximum over all units of each permuted concept of its size.
    """
    maxima = np.sort(np.asarray(null_maximum, np.float64))
    below = np.searchsorted(maxima, np.asarray(average_precision, np.float64) * (1 - _SAME), side="left")
    return ((1 + maxima.size - below) / (1 + maxima.size)).astype(np.float32)


def _running_sums(positives: int, weight_above: np.ndarray, block: float, tilt: float) -> tuple[np.ndarray, float]:
    """Sum the tilted weights exp(tilt * sum over j <= k of (precision_j - 1)) of n_1 <= ... <= n_k.

    At block = 1, the sum over n_k <= n of those that end in n_k is log_sums[k - 1, n]. For blocks of b places, two
    positives in one have b (b + 1) / 2 orders in b**2, so the second weighs (1 + 1 / b) / 2 there.

    Returns:
      float64 [P, places], the log of sums; and the log of all.
    """
    places = len(weight_above)
    # Sums over k of n places grow like n**k. Times decay**n they're bounded, greatest where positives belong,
    # and sum by a filter; what underflows far from there is never drawn.
    decay = places / (places + positives)
    log_decay = np.arange(places) * math.log(decay)
    within = (1 + 1 / block) / 2
    log_sums = np.empty((positives, places))
    ending, log_scale = np.exp(log_decay), 0.0
    with np.errstate(divide="ignore", under="ignore"):
        for k in range(1, positives + 1):
            if tilt:
                ending = ending * np.exp(tilt * (k / (k + weight_above) - 1))
            ending = scipy.signal.lfilter([1.0], [1.0, -decay], ending)
            greatest = ending.max()
            ending /= greatest
            log_scale += math.log(greatest)
            np.log(ending, out=log_sums[k - 1])
            log_sums[k - 1] -= log_decay
            if block > 1:
                summed, ending = ending, within * ending
                ending[1:] += (1 - within) * decay * summed[:-1]
    return log_sums, log_scale + log_sums[-1, -1]


def _draw_sums(
    log_sums: np.ndarray, weight_above: np.ndarray, block: float, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws n_P, then each n_k given the next, from the sums: float64 [draws], the sum of their precisions."""
    within = (1 + 1 / block) / 2
    place, precisions = np.full(draws, len(weight_above) - 1), np.zeros(draws)
    for k in range(len(log_sums), 0, -1):
        row = log_sums[k - 1]
        log_total = row[place]
        if block > 1 and k < len(log_sums):
            before = np.where(place > 0, row[place - 1], -np.inf)
            log_total = log_total + np.log(within + (1 - within) * np.exp(before - log_total))
        # -log of a uniform number is exponential.
        place = np.minimum(np.searchsorted(row, log_total - rng.standard_exponential(draws)), place)
        precisions += k / (k + weight_above[place])
    return precisions


def _log_least(positives: int, negatives: int) -> float:
    """Return the log of the least p there is, 1 / C(P + N, P): that all positives come first."""
    log_factorials = scipy.special.gammaln(np.array([positives + 1, negatives + 1, positives + negatives + 1]))
    return float(log_factorials[0] + log_factorials[1] - log_factorials[2])


def _computed_counts(counts: np.ndarray) -> np.ndarray:
    """Those N, ascending, whose null is computed; every one of `counts` is among or between them."""
    few, many = counts[counts <= _FEW], counts[counts > _FEW]
    if many.size:
        number = math.ceil(math.log(many[-1] / many[0]) / math.log(_RATIO)) + 1
        if number < many.size:
            many = np.unique(np.round(np.geomspace(many[0], many[-1], number)).astype(counts.dtype))
    return np.concatenate([few, many])


def _between(low: NullDistribution, high: NullDistribution, share: float, log_least: float) -> NullDistribution:
    """Return the null whose log survival lies this share of the way from one to the other."""
    nodes = np.union1d(low.average_precision, high.average_precision)
    log_low, log_high = (np.interp(nodes, null.average_precision, null.log_survival) for null in (low, high))
    return NullDistribution(nodes, np.maximum((1 - share) * log_low + share * log_high, log_least))
