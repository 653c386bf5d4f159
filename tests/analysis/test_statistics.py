"""Statistics against scipy, against literally repeated data, and against simulated graphs of concepts."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from expertlens_jax.analysis.statistics import (
    bootstrap_over_concepts,
    permutation_p,
    spearman,
    weighted_spearman,
)


def rated_graph(rng, concepts, pairs):
    """Distinct random pairs of concepts."""
    first, second = np.triu_indices(concepts, 1)
    chosen = rng.choice(len(first), pairs, replace=False)
    return first[chosen], second[chosen]


@pytest.mark.parametrize("levels", [3, 1000])  # many ties, few ties
def test_spearman_is_scipys(levels):
    rng = np.random.default_rng(0)
    x, y = rng.integers(levels, size=(2, 80)).astype(float)
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-14)


def test_spearman_of_a_constant_is_nan():
    assert np.isnan(spearman(np.zeros(20), np.arange(20)))
    assert np.isnan(spearman(np.arange(20), np.ones(20)))
    assert np.isnan(spearman(np.ones(1), np.ones(1)))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), pairs=st.integers(2, 30), levels=st.sampled_from([2, 5, 100]))
def test_weights_are_repetitions(seed, pairs, levels):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(levels, size=(2, pairs)) / 7
    weights = rng.integers(0, 5, size=(6, pairs))
    expected = [spearman(np.repeat(x, w), np.repeat(y, w)) for w in weights]
    np.testing.assert_allclose(weighted_spearman(x, y, weights), expected, rtol=0, atol=1e-12)


def test_the_bootstrap_repeats_pairs_by_the_draws_of_both_concepts():
    rng = np.random.default_rng(5)
    first, second = rated_graph(rng, 12, 40)
    x, y = rng.normal(size=(2, 40))
    draws = np.random.default_rng(9).multinomial(12, np.full(12, 1 / 12), size=50)
    rhos = [scipy.stats.spearmanr(*(np.repeat(v, m[first] * m[second]) for v in (x, y))).statistic for m in draws]
    expected = np.percentile(rhos, [2.5, 97.5])
    got = bootstrap_over_concepts(x, y, first, second, 12, resamples=50, seed=9)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def test_blocks_do_not_change_the_numbers(monkeypatch):
    rng = np.random.default_rng(2)
    first, second = rated_graph(rng, 20, 60)
    similarity = rng.normal(size=(20, 20))
    similarity += similarity.T
    scores = rng.normal(size=60)

    def both():
        interval = bootstrap_over_concepts(similarity[first, second], scores, first, second, 20, 200, seed=1)
        return *interval, permutation_p(similarity, scores, first, second, 200, seed=1)

    whole = both()
    monkeypatch.setattr("expertlens_jax.analysis.statistics._CELLS", 700)
    assert both() == pytest.approx(whole, abs=1e-12)


def test_an_interval_nobody_can_give_is_nan():
    # One pair: no resample has a correlation.
    assert np.isnan(bootstrap_over_concepts([0.5], [3.0], np.array([0]), np.array([1]), 2, 50)).all()


@pytest.mark.parametrize("noise", ["concepts", "pairs"])
def test_the_interval_covers_the_truth(noise):
    """Simulated coverage, 300 graphs each: 0.987 with noise of concepts and pairs, 1.000 of pairs alone."""

    def draw(rng, concepts, pairs):
        first, second = rated_graph(rng, concepts, pairs)
        signal, error_x, error_y = rng.normal(size=(3, pairs))
        if noise == "concepts":
            ours = rng.normal(size=concepts)
            theirs = 0.7 * ours + 0.7 * rng.normal(size=concepts)
            x = ours[first] + ours[second] + 0.5 * error_x
            return x, theirs[first] + theirs[second] + 0.5 * error_y, first, second
        return signal + 0.5 * error_x, signal + 0.5 * error_y, first, second

    rng = np.random.default_rng(1)
    truth = np.mean([spearman(*draw(rng, 1500, 20_000)[:2]) for _ in range(10)])
    covered = []
    for seed in range(300):
        x, y, first, second = draw(rng, 60, 200)
        used, where = np.unique([first, second], return_inverse=True)
        first, second = where.reshape(2, -1)
        low, high = bootstrap_over_concepts(x, y, first, second, len(used), resamples=300, seed=seed)
        covered.append(low <= truth <= high)
    assert np.mean(covered) >= 0.93


def test_p_is_uniform_under_the_null():
    """Ratings and similarities each depend on their concepts, but not on one another.

    2000 graphs: enough to see an error of 0.04 in the distribution, or of 0.015 in the level at 0.05.
    """
    rng = np.random.default_rng(3)
    ps = []
    for seed in range(2000):
        first, second = rated_graph(rng, 25, 60)
        ours, theirs = rng.normal(size=(2, 25))
        similarity = ours[:, None] + ours + 0.3 * rng.normal(size=(25, 25))
        similarity = (similarity + similarity.T) / 2
        scores = theirs[first] + theirs[second] + 0.3 * rng.normal(size=60)
        ps.append(permutation_p(similarity, scores, first, second, permutations=199, seed=seed))
    assert scipy.stats.kstest(ps, "uniform").pvalue > 0.01
    assert np.mean(np.array(ps) <= 0.05) == pytest.approx(0.05, abs=0.015)  # 3 standard errors


def test_p_of_a_strong_effect_is_the_smallest_there_is():
    rng = np.random.default_rng(4)
    first, second = rated_graph(rng, 40, 150)
    similarity = rng.normal(size=(40, 40))
    similarity += similarity.T
    scores = similarity[first, second] + 0.2 * rng.normal(size=150)
    assert permutation_p(similarity, scores, first, second, permutations=999) == 1 / 1000
    assert permutation_p(similarity, -scores, first, second, permutations=999) == 1 / 1000  # two-sided


def test_p_counts_permutations_as_scipy_would():
    rng = np.random.default_rng(6)
    first, second = rated_graph(rng, 30, 20)  # some of the 30 concepts are in no pair, and are not permuted
    rated = np.unique([first, second])
    assert len(rated) < 30
    similarity = rng.integers(4, size=(30, 30)).astype(float)  # ties
    similarity += similarity.T
    scores = similarity[first, second] + 10 * rng.normal(size=20)
    observed = abs(spearman(similarity[first, second], scores))
    places = np.random.default_rng(8).permuted(np.tile(np.arange(len(rated)), (60, 1)), axis=1)
    extreme = 0
    for place in places:
        moved = np.arange(30)
        moved[rated] = rated[place]
        rho = scipy.stats.spearmanr(similarity[moved[first], moved[second]], scores).statistic
        extreme += abs(rho) >= observed - 1e-12
    assert 0 < extreme < 60
    assert permutation_p(similarity, scores, first, second, permutations=60, seed=8) == (1 + extreme) / 61


def test_p_without_a_correlation_is_nan():
    first, second = np.array([0, 1, 2]), np.array([1, 2, 3])
    assert np.isnan(permutation_p(np.zeros((4, 4)), np.arange(3.0), first, second, 10))
