"""Nulls against enumeration, plain sampling, and bounds; p, q and familywise p against what they promise."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score

from expertlens_jax.data.contrast import Contrast
from expertlens_jax.data.resampling import join_contrasts, permuted_labels
from expertlens_jax.errors import ConceptDataError
from expertlens_jax.experts import significance
from expertlens_jax.experts.ranking import rank_units
from expertlens_jax.experts.significance import (
    NullDistribution,
    familywise_p,
    null_distributions,
    null_survival,
    p_values,
    q_values,
)


def average_precisions(above, weight):
    """[sets, P] negatives above the k-th positive, ascending -> [sets]."""
    rank = np.arange(1, above.shape[1] + 1)
    return (rank / (rank + weight * above)).mean(axis=1)


def shares_at_least(values, nodes):
    """The share of `values` that reach each node, equal up to rounding."""
    return (values.size - np.searchsorted(np.sort(values), nodes - 1e-9)) / values.size


def a_contrast(counts, num_sentences, negatives_per_positive=2.5, seed=0):
    """Concepts with these many positives at random places; all other sentences are their negatives."""
    rng = np.random.default_rng(seed)
    positives = np.full((len(counts), max(counts)), -1, np.int32)
    for row, count in zip(positives, counts, strict=True):
        row[:count] = np.sort(rng.choice(num_sentences, count, replace=False))
    weight = negatives_per_positive * np.array(counts) / (num_sentences - np.array(counts))
    return Contrast(
        positives, np.ones(num_sentences, bool), positives, -(positives >= 0).astype(np.float32), np.float32(weight)
    )


# The null.


def test_the_null_is_that_of_scikit_learn_s_average_precision():
    weight, total = 0.7, 10
    responses, values = -np.arange(total), []
    for chosen in itertools.combinations(range(total), 3):
        truth = np.isin(np.arange(total), chosen)
        values.append(average_precision_score(truth, responses, sample_weight=np.where(truth, 1, weight)))
    values = np.array(values)
    null = null_survival(3, 7, weight, seed=0, draws=4000)
    p = p_values(values.astype(np.float32), null)
    np.testing.assert_allclose(p, shares_at_least(values, values), rtol=0.05)
    assert p.min() == pytest.approx(1 / math.comb(10, 3), rel=1e-4)


@pytest.mark.parametrize(
    ("positives", "negatives", "weight"), [(1, 3000, 0.001), (2, 300, 1), (4, 30, 0.4), (5, 20, 2)]
)
def test_the_null_equals_enumeration(positives, negatives, weight):
    every = itertools.combinations_with_replacement(range(negatives + 1), positives)
    values = average_precisions(np.array(list(every)), weight)
    assert values.size == math.comb(positives + negatives, positives)
    null = null_survival(positives, negatives, weight, seed=1)
    distinct = np.unique(values)
    want = shares_at_least(values, distinct)
    np.testing.assert_allclose(np.log(p_values(distinct, null)), np.log(want), atol=0.15)
    assert null.average_precision[-1] == 1
    assert null.log_survival[-1] == pytest.approx(-math.log(values.size))


def test_the_null_equals_plain_sampling():
    positives, negatives, weight = 40, 700, 0.15
    rng = np.random.default_rng(5)
    places = np.sort(rng.integers(positives + negatives, size=(600_000, positives), dtype=np.int16), axis=1)
    places = places[(np.diff(places, axis=1) > 0).all(axis=1)]  # all different: a uniform set of places
    values = average_precisions(places - np.arange(positives), weight)
    null = null_survival(positives, negatives, weight, seed=2, draws=8000)
    for p, tolerance in ((0.9, 0.02), (0.5, 0.03), (0.1, 0.06), (0.01, 0.1), (1e-3, 0.3)):
        node = np.quantile(values, 1 - p)
        assert p_values(node, null) == pytest.approx(p, rel=tolerance)


def bounds(positives, negatives, weight, nodes, bins):
    """P(AP >= node) with each precision rounded down and up to a grid, by counting all orders: [2, nodes]."""
    above, survival = np.arange(negatives + 1), []
    for rounding in (np.floor, np.ceil):
        ways = np.zeros((negatives + 1, positives * bins + 1))  # by the last positive's place, and the sum
        ways[:, 0] = np.arange(negatives + 1) == 0
        for k in range(1, positives + 1):
            ways = ways.cumsum(axis=0)
            for place, shift in enumerate(rounding(bins * k / (k + weight * above)).astype(int)):
                ways[place] = np.roll(ways[place], shift)
        tail = ways.sum(axis=0)[::-1].cumsum()[::-1] / math.comb(positives + negatives, positives)
        survival.append(tail[np.ceil(np.round(nodes * positives * bins, 6)).astype(int)])
    return np.array(survival)


def test_the_null_is_right_far_into_the_tail():
    nodes = np.array([0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
    low, high = bounds(12, 60, 0.5, nodes, bins=1500)
    assert high[-1] < 1e-10
    assert (high < 1.05 * low).all()
    logs = [np.log(p_values(nodes, null_survival(12, 60, 0.5, seed=seed))) for seed in range(5)]
    assert (np.mean(logs, axis=0) > np.log(low) - 0.05).all()
    assert (np.mean(logs, axis=0) < np.log(high) + 0.05).all()
    assert (np.std(logs, axis=0) < 0.1).all()


def test_taking_places_together_changes_little(monkeypatch):
    coarse = null_survival(10, 30_000, 1 / 1200, seed=0, draws=4000)
    monkeypatch.setattr(significance, "_PLACES", 2**20)
    fine = null_survival(10, 30_000, 1 / 1200, seed=0, draws=4000)
    nodes = np.interp(
        np.log([0.9, 0.1, 1e-2, 1e-4, 1e-6, 1e-9])[::-1], fine.log_survival[::-1], fine.average_precision[::-1]
    )
    np.testing.assert_allclose(np.log(p_values(nodes, coarse)), np.log(p_values(nodes, fine)), atol=0.1)


def test_a_table_is_in_order_and_reproducible():
    first, again, other = (null_survival(8, 100, 0.2, seed=seed) for seed in (3, 3, 4))
    assert first.average_precision.tobytes() == again.average_precision.tobytes()
    assert first.log_survival.tobytes() == again.log_survival.tobytes()
    assert first.log_survival.tobytes() != other.log_survival.tobytes()
    assert (np.diff(first.average_precision) > 0).all()
    assert (np.diff(first.log_survival) <= 0).all()
    assert first.log_survival[0] == 0
    short = null_survival(8, 100, 0.2, seed=3, smallest=1e-4)
    assert math.log(1e-4) <= short.log_survival[-1] < math.log(2e-4)


@pytest.mark.parametrize(("positives", "negatives", "weight"), [(0, 5, 1), (5, 0, 1), (5, 5, 0), (5, 5, math.inf)])
def test_a_null_of_nothing_is_refused(positives, negatives, weight):
    with pytest.raises(
        ConceptDataError, match=f"not {positives} positives and {negatives} negatives of weight {weight}"
    ):
        null_survival(positives, negatives, weight, seed=0)


# p-values.

NULL = null_survival(6, 60, 0.25, seed=0)


@given(hnp.arrays(np.float32, 12, elements=st.floats(0, 1, width=32)))
def test_p_falls_with_average_precision_and_is_a_probability(values):
    p = p_values(np.sort(values), NULL)
    assert (np.diff(p) <= 0).all()
    assert (p > 0).all()
    assert (p <= 1).all()
    assert p.min() >= 1 / math.comb(66, 6) * (1 - 1e-9)


def test_a_float32_at_a_node_is_not_above_it():
    nodes, survival = NULL.average_precision, np.exp(NULL.log_survival)
    for rounded in (nodes.astype(np.float32), np.nextafter(nodes.astype(np.float32), 2, dtype=np.float32)):
        assert (p_values(rounded, NULL) >= survival).all()


def test_every_concept_has_its_own_null():
    other = null_survival(3, 60, 0.25, seed=0)
    values = np.array([[0.2, 0.5, 0.9], [0.2, 0.5, 0.9]], np.float32)
    p = p_values(values, [NULL, other])
    np.testing.assert_array_equal(p, [p_values(values[0], NULL), p_values(values[1], other)])
    assert p_values(np.float32(0.5), NULL).shape == ()
    with pytest.raises(ValueError, match="shorter"):
        p_values(values, [NULL])


def test_p_is_uniform_for_units_that_know_nothing():
    contrast = a_contrast([40, 40, 12], 400)
    values = np.random.default_rng(8).normal(size=(400, 1500)).astype(np.float32)
    p = p_values(rank_units(values, contrast).average_precision, null_distributions(contrast, seed=0))
    for of_units in p:
        assert scipy.stats.kstest(of_units, "uniform").pvalue > 1e-3


# Nulls of many concepts.


@pytest.mark.parametrize(("low", "high"), [(6800, 7000), (101, 152)])
def test_nulls_between_two_equal_their_own(low, high, monkeypatch):
    positives, calls = 12, []
    counts = [*range(low, high, (high - low) // 10), high]
    contrast = a_contrast([positives] * len(counts), high + positives)
    taken = np.full((len(counts), high - low), -1, np.int32)  # besides a concept's own, some of the others
    for row, count in enumerate(counts):
        others = np.setdiff1d(np.arange(high + positives), contrast.positives[row])
        taken[row, : high - count] = others[: high - count]
    corrected = np.concatenate([contrast.positives, taken], axis=1)
    weights = np.float32(2.5 * positives / np.array(counts))
    contrast = Contrast(contrast.positives, contrast.pool, corrected, -(corrected >= 0).astype(np.float32), weights)
    np.testing.assert_array_equal(contrast.num_negatives, counts)

    def counted(*arguments, **options):
        calls.append(arguments)
        return null_survival(*arguments, **options)

    monkeypatch.setattr(significance, "null_survival", counted)
    nulls = null_distributions(contrast, seed=0)
    assert len(calls) <= 3
    nodes = np.array([0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    for row in (0, len(counts) // 2, len(counts) - 1):
        own = null_survival(positives, counts[row], float(weights[row]), seed=0)
        error = np.abs(np.log(p_values(nodes, nulls[row])) - np.log(p_values(nodes, own)))
        assert error.max() < (0.05 if 0 < row < len(counts) - 1 else 1e-4)


def test_each_size_has_its_own_null():
    contrast = a_contrast([3, 6, 3], 40)
    first, second, third = null_distributions(contrast, seed=0)
    assert first is third
    own = null_survival(6, 34, contrast.negative_weight[1], seed=0)
    np.testing.assert_allclose(second.log_survival, own.log_survival, atol=1e-6)


@given(st.sets(st.integers(1, 5000), min_size=1, max_size=40))
def test_every_count_is_computed_or_between_two_near_ones(counts):
    counts = np.array(sorted(counts))
    computed = significance._computed_counts(counts)
    assert computed.size <= counts.size
    assert (np.diff(computed) > 0).all()
    for count in np.setdiff1d(counts, computed):
        above = np.searchsorted(computed, count)
        assert 0 < above < computed.size
        assert computed[above] <= 1.51 * computed[above - 1] + 1


# q-values and familywise p.


@given(hnp.arrays(np.float64, 9, elements=st.floats(1e-12, 1)))
def test_q_is_benjamini_and_hochberg_s(p):
    want = [min(p.size * x / (p <= x).sum() for x in p if x >= mine) for mine in p]
    np.testing.assert_allclose(q_values(p), np.minimum(want, 1), rtol=1e-12)
    np.testing.assert_array_equal(q_values(np.stack([p, p[::-1]])), [q_values(p), q_values(p[::-1])])


@given(
    hnp.arrays(np.float32, 7, elements=st.floats(0, 1, width=32)),
    hnp.arrays(np.float32, 5, elements=st.floats(0, 1, width=32)),
)
def test_familywise_p_counts_maxima(values, maxima):
    p = familywise_p(values, maxima)
    assert p.dtype == np.float32
    want = [(1 + sum(m >= v or m >= v * (1 - 4e-7) for m in maxima.tolist())) / 6 for v in values.tolist()]
    np.testing.assert_allclose(p, want, rtol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_familywise_p_holds_for_dependent_units(seed):
    rng = np.random.default_rng(seed)
    # Units in groups of ten that almost agree, with few distinct responses: neither independent nor without ties.
    factors = np.repeat(rng.normal(size=(200, 12)), 10, axis=1)
    values = np.round(2 * (factors + 0.3 * rng.normal(size=factors.shape))).astype(np.float32)
    contrast = a_contrast([10] * 100, 200, seed=seed + 1)
    joint = join_contrasts(contrast, permuted_labels(contrast, 199, seed=seed))
    average_precision = rank_units(values, joint).average_precision
    maxima = average_precision[100:].max(axis=1)
    best = np.array([familywise_p(row, maxima).min() for row in average_precision[:100]])
    assert best.min() >= np.float32(1 / 200)
    assert 0.02 <= (best <= 0.2).mean() <= 0.5  # 0.2, but for the chance of 100 concepts


def test_a_true_expert_stands_out():
    contrast = a_contrast([20], 600)
    values = np.random.default_rng(2).normal(size=(600, 400)).astype(np.float32)
    values[contrast.positives[0], 7] += 3
    joint = join_contrasts(contrast, permuted_labels(contrast, 99, seed=0))
    average_precision = rank_units(values, joint).average_precision
    p = p_values(average_precision[0], null_distributions(contrast, seed=0)[0])
    assert p[7] < 1e-10
    assert np.flatnonzero(q_values(p) < 0.01).tolist() == [7]
    assert np.flatnonzero(familywise_p(average_precision[0], average_precision[1:].max(axis=1)) <= 0.01).tolist() == [7]


def test_a_null_distribution_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        NullDistribution(np.zeros(1), np.zeros(1)).log_survival = None
