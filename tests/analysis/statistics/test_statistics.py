"""Statistics against scipy, against literally repeated data, and against simulated graphs of concepts."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from expertlens_jax.analysis.statistics import (
    bootstrap_over_concepts,
    holm,
    jackknife_over_concepts,
    partial_spearman,
    permutation_p,
    signed_ranks_p,
    spearman,
    weighted_partial_spearman,
    weighted_spearman,
)


def rated_graph(rng, concepts, pairs):
    """Distinct random pairs of concepts."""
    first, second = np.triu_indices(concepts, 1)
    chosen = rng.choice(len(first), pairs, replace=False)
    return first[chosen], second[chosen]


def correlating(x, y):
    """The statistic of an alignment."""
    return lambda weights: weighted_spearman(x, y, weights)


@pytest.mark.parametrize("size", [2, 7, 30, 50])
def test_signed_ranks_without_ties_are_scipys_exact_test(size):
    differences = np.random.default_rng(size).normal(0.3, 1, size)
    wanted = scipy.stats.wilcoxon(differences, method="exact").pvalue
    assert signed_ranks_p(differences) == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=7).filter(lambda each: np.count_nonzero(each) > 1))
def test_signed_ranks_with_ties_go_through_all_signs_as_scipy_does(differences):
    differences = np.array(differences) / 10
    signs = scipy.stats.PermutationMethod(n_resamples=np.inf)
    wanted = scipy.stats.wilcoxon(differences[differences != 0], method=signs).pvalue
    assert signed_ranks_p(differences) == pytest.approx(wanted, abs=1e-12)


def test_signed_ranks_of_no_difference_have_p_1_and_of_all_on_one_side_the_least_there_is():
    assert signed_ranks_p(np.zeros(5)) == 1 and signed_ranks_p(np.array([])) == 1
    assert signed_ranks_p(np.array([0.1, 0.1, 0.1, 0.1, 0.1, 0.1])) == pytest.approx(2 / 2**6)


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


@pytest.mark.parametrize("controls", [1, 3])
def test_partial_spearman_is_the_correlation_of_what_regression_leaves(controls):
    rng = np.random.default_rng(11)
    x, y = rng.integers(9, size=(2, 50)).astype(float)  # ties
    control = rng.normal(size=(controls, 50)) + 0.1 * x - 0.2 * y
    ranks = scipy.stats.rankdata([x, y, *control], axis=1)
    design = np.column_stack([np.ones(50), *ranks[2:]])
    left = [each - design @ np.linalg.lstsq(design, each, rcond=None)[0] for each in ranks[:2]]
    expected = scipy.stats.pearsonr(*left).statistic
    assert partial_spearman(x, y, control) == pytest.approx(expected, abs=1e-12)
    if controls == 1:
        xy, xz, yz = (spearman(*two) for two in ((x, y), (x, control[0]), (y, control[0])))
        formula = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
        assert partial_spearman(x, y, control[0]) == pytest.approx(formula, abs=1e-12)


def test_a_control_that_explains_all_leaves_nothing_and_one_said_twice_counts_once():
    rng = np.random.default_rng(12)
    x, y, control = rng.normal(size=(3, 40))
    assert np.isnan(partial_spearman(x, y, x**3))  # the same ranks
    assert np.isnan(partial_spearman(x, y, np.ones(40)))
    assert np.isnan(partial_spearman(np.ones(40), y, control))
    once = partial_spearman(x, y, control)
    assert partial_spearman(x, y, [control, control]) == pytest.approx(once, abs=1e-10)


def test_weights_are_repetitions_in_a_partial_correlation():
    rng = np.random.default_rng(13)
    x, y, control = rng.integers(6, size=(3, 20)) / 7
    weights = rng.integers(0, 4, size=(8, 20))
    expected = [partial_spearman(*(np.repeat(v, w) for v in (x, y, control))) for w in weights]
    np.testing.assert_allclose(weighted_partial_spearman(x, y, control, weights), expected, rtol=0, atol=1e-10)


def test_the_bootstrap_repeats_pairs_by_the_draws_of_both_concepts():
    rng = np.random.default_rng(5)
    first, second = rated_graph(rng, 12, 40)
    x, y = rng.normal(size=(2, 40))
    draws = np.random.default_rng(9).multinomial(12, np.full(12, 1 / 12), size=50)
    rhos = [scipy.stats.spearmanr(*(np.repeat(v, m[first] * m[second]) for v in (x, y))).statistic for m in draws]
    got = bootstrap_over_concepts(correlating(x, y), first, second, resamples=50, seed=9)
    np.testing.assert_allclose([got.low, got.high], np.percentile(rhos, [2.5, 97.5]), rtol=0, atol=1e-12)
    rarer = min(np.sum(np.array(rhos) <= 0), np.sum(np.array(rhos) >= 0))
    assert got.p_value == pytest.approx(min(1, 2 * (1 + rarer) / 51), abs=1e-12)


def test_the_jackknife_leaves_out_concepts_and_pairs():
    """Its variance, from leaving out by hand; and that of a mean is the dyadic-robust one, as pairs grow."""
    rng = np.random.default_rng(14)
    first, second = rated_graph(rng, 14, 45)
    x, y = rng.normal(size=(2, 45)) + 0.5 * rng.normal(size=45)
    concepts = np.unique([first, second])
    rho = spearman(x, y)
    without = [spearman(x[k], y[k]) for k in ((first != v) & (second != v) for v in concepts)]
    singly = [spearman(np.delete(x, k), np.delete(y, k)) for k in range(45)]
    independent = np.sum((np.array(singly) - rho) ** 2)
    variance = max(np.sum((np.array(without) - rho) ** 2) - independent, independent / 2)
    got = jackknife_over_concepts(correlating(x, y), first, second)
    half = scipy.stats.t.ppf(0.975, len(concepts) - 1) * np.sqrt(variance) / (1 - rho**2)
    assert got.value == pytest.approx(rho, abs=1e-14)
    np.testing.assert_allclose(np.arctanh([got.low, got.high]), np.arctanh(rho) + np.array([-half, half]), rtol=1e-9)
    plain = jackknife_over_concepts(correlating(x, y), first, second, correlation=False)
    assert plain.high - rho == pytest.approx(rho - plain.low)
    assert plain.high - rho == pytest.approx(half * (1 - rho**2))


def test_the_jackknifes_variance_is_the_dyadic_robust_one_with_many_concepts():
    """Aronow, Samii & Assenova: the sum of products of residuals of pairs that share a concept, themselves too."""
    rng = np.random.default_rng(15)
    first, second = rated_graph(rng, 400, 700)
    ours = rng.normal(size=400)
    values = ours[first] + ours[second] + rng.normal(size=700)
    shares = (first[:, None] == first) | (first[:, None] == second) | (second[:, None] == first)
    shares |= second[:, None] == second
    residuals = values - values.mean()
    expected = np.sqrt(residuals @ shares @ residuals) / 700
    mean = jackknife_over_concepts(lambda w: w @ values / w.sum(axis=1), first, second, correlation=False)
    concepts = len(np.unique([first, second]))
    error = (mean.high - mean.low) / 2 / scipy.stats.t.ppf(0.975, concepts - 1)
    assert error == pytest.approx(expected, rel=0.02)
    assert mean.p_value == pytest.approx(2 * scipy.stats.t.sf(abs(mean.value) / error, concepts - 1))


def test_the_jackknifes_p_and_interval_agree():
    rng = np.random.default_rng(16)
    for _ in range(40):
        first, second = rated_graph(rng, 20, 40)
        x, y = rng.normal(size=(2, 40)) + 0.4 * rng.normal(size=40)
        got = jackknife_over_concepts(correlating(x, y), first, second)
        assert (got.p_value < 0.05) == (got.low > 0 or got.high < 0)
        assert -1 < got.low < got.value < got.high < 1


def test_blocks_do_not_change_the_numbers(monkeypatch):
    rng = np.random.default_rng(2)
    first, second = rated_graph(rng, 20, 60)
    similarity = rng.normal(size=(20, 20))
    similarity += similarity.T
    scores = rng.normal(size=60)

    def all_three():
        statistic = correlating(similarity[first, second], scores)
        bootstrap = bootstrap_over_concepts(statistic, first, second, resamples=200, seed=1)
        jackknife = jackknife_over_concepts(statistic, first, second)
        p = permutation_p(similarity, scores, first, second, 200, seed=1)
        return *dataclasses.astuple(bootstrap), *dataclasses.astuple(jackknife), p

    whole = all_three()
    monkeypatch.setattr("expertlens_jax.analysis.statistics.blocks._CELLS", 700)
    assert all_three() == pytest.approx(whole, abs=1e-12)


def test_an_interval_nobody_can_give_is_nan():
    # One pair: no resample has a correlation.
    one = bootstrap_over_concepts(correlating([0.5], [3.0]), np.array([0]), np.array([1]), resamples=50)
    assert np.isnan(dataclasses.astuple(one)).all()
    # Everything hangs on one concept: without it, all similarities are 0.
    first, second = rated_graph(np.random.default_rng(0), 12, 30)
    hub = ((first == 3) | (second == 3)).astype(float)
    got = jackknife_over_concepts(correlating(hub, np.arange(30.0)), first, second)
    assert np.isfinite(got.value)
    assert np.isnan([got.low, got.high, got.p_value]).all()


def test_a_perfect_correlation_has_itself_as_its_interval():
    first, second = rated_graph(np.random.default_rng(0), 12, 30)
    got = jackknife_over_concepts(correlating(np.arange(30.0), np.arange(30.0) ** 3), first, second)
    assert dataclasses.astuple(got) == pytest.approx((1, 1, 1, 0), abs=1e-12)


GRAPHS = {  # concepts and pairs: as sparse as WordSim-353, SimLex-999 and MEN among 176 concepts, and all pairs
    "sparse": (36, 29),
    "middling": (80, 72),
    "many": (90, 150),
    "all": (20, 190),
}


@pytest.mark.long
@pytest.mark.parametrize("graph", GRAPHS)
def test_the_interval_covers_the_truth(graph):
    """Simulated coverage over three kinds of noise and three correlations, 100 graphs each: 93% to 97%."""
    concepts, pairs = GRAPHS[graph]
    rng = np.random.default_rng(1)
    covered = []
    for truth in (0.2, 0.5, 0.8):
        r = 2 * np.sin(np.pi * truth / 6)  # of two normal variables whose Spearman correlation is `truth`
        for signal, noise in [("pairs", "pairs"), ("concepts", "concepts"), ("pairs", "concepts")] * 100:
            first, second = rated_graph(rng, concepts, pairs)

            def draw(of, first=first, second=second):
                if of == "pairs":
                    return rng.normal(size=pairs)
                effects = rng.normal(size=concepts) / np.sqrt(2)
                return effects[first] + effects[second]

            common = np.sqrt(r) * draw(signal)
            x, y = (common + np.sqrt(1 - r) * draw(noise) for _ in range(2))
            got = jackknife_over_concepts(correlating(x, y), first, second)
            covered.append(got.low <= truth <= got.high)
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.long
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


def test_holm_rejects_what_his_steps_do():
    """Step down by hand: reject while the k-th smallest of m is at most level / (m - k)."""
    rng = np.random.default_rng(10)
    for _ in range(50):
        p_values = rng.choice([0.001, 0.01, 0.012, 0.02, 0.04, 0.3, 0.9], size=6)
        for level in (0.01, 0.05, 0.1):
            rejected = np.zeros(6, bool)
            for step, test in enumerate(np.argsort(p_values)):
                if p_values[test] > level / (6 - step):
                    break
                rejected[test] = True
            np.testing.assert_array_equal(holm(p_values) <= level + 1e-12, rejected)


def test_holms_published_rule_in_numbers():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.5, 0.6]), [0.03, np.nan, 1, 1])
    assert holm([]).shape == (0,)


def test_very_many_pairs_are_left_out_in_groups(monkeypatch):
    rng = np.random.default_rng(17)
    first, second = rated_graph(rng, 60, 900)
    effects = rng.normal(size=60)
    x, y = rng.normal(size=(2, 900)) + 0.7 * rng.normal(size=900) + effects[first] + effects[second]
    whole = jackknife_over_concepts(correlating(x, y), first, second)
    monkeypatch.setattr("expertlens_jax.analysis.statistics.intervals._GROUPS", 300)
    grouped = jackknife_over_concepts(correlating(x, y), first, second)
    assert grouped.high - grouped.low == pytest.approx(whole.high - whole.low, rel=0.02)
