"""Agreement of expert sets against scipy, scikit-learn, brute force and simulation; the tests' p under the null."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from expertlens_jax.analysis.conditions.stability import (
    compare_conditions,
    cross_jaccard,
    random_jaccard,
    retrieved,
    same_units,
)
from expertlens_jax.analysis.statistics import (
    bootstrap_mantel,
    bootstrap_mean_of_pairs,
    diagonal_p,
    mantel,
    permutation_p,
    spearman,
)
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.overlap import jaccard


def symmetric(rng, count, levels=None):
    values = rng.normal(size=(count, count)) if levels is None else rng.integers(levels, size=(count, count))
    return np.triu(values, 1) + np.triu(values, 1).T


def sets(values, first_site="mlp.up"):
    concepts, units = values.shape
    return xr.DataArray(
        values,
        dims=("concept", "unit"),
        coords={
            "concept": [f"c{i}" for i in range(concepts)],
            "layer": ("unit", np.zeros(units, int)),
            "site": ("unit", [first_site] * units),
            "channel": ("unit", np.arange(units)),
        },
    )


@pytest.mark.parametrize("levels", [None, 3])  # no ties, many
def test_mantel_is_the_permutation_test_over_all_pairs(levels):
    rng = np.random.default_rng(0)
    first, second = symmetric(rng, 12, levels), symmetric(rng, 12, levels)
    here, there = np.triu_indices(12, 1)
    rho, p = mantel(first, second, permutations=300, seed=4)
    assert rho == pytest.approx(scipy.stats.spearmanr(first[here, there], second[here, there]).statistic, abs=1e-12)
    assert p == permutation_p(first, second[here, there], here, there, permutations=300, seed=4)
    np.fill_diagonal(first, 100)  # isn't looked at
    assert mantel(first, second, permutations=300, seed=4) == (rho, p)


def test_mantel_p_is_uniform_under_the_null():
    """Both matrices depend on their concepts, but not on one another: pairs aren't independent, concepts are."""
    rng = np.random.default_rng(1)
    ps = []
    for seed in range(600):
        ours, theirs = rng.normal(size=(2, 14))
        first, second = (each[:, None] + each + 0.3 * symmetric(rng, 14) for each in (ours, theirs))
        ps.append(mantel(first, second, permutations=99, seed=seed)[1])
    assert scipy.stats.kstest(ps, "uniform").pvalue > 0.01
    assert np.mean(np.array(ps) <= 0.05) == pytest.approx(0.05, abs=0.027)  # 3 standard errors


def test_mantel_without_a_correlation_is_nan():
    constant = np.ones((5, 5))
    assert np.isnan(mantel(constant, symmetric(np.random.default_rng(0), 5), 10)).all()
    assert np.isnan(bootstrap_mantel(constant, constant, 10)).all()
    assert np.isnan(mantel(np.eye(2), np.eye(2), 10)).all()


def test_the_interval_of_mantel_weighs_pairs_by_both_concepts_draws():
    rng = np.random.default_rng(3)
    first = symmetric(rng, 9)
    second = first + symmetric(rng, 9)
    here, there = np.triu_indices(9, 1)
    ranks = [scipy.stats.rankdata(each[here, there]) for each in (first, second)]
    rhos = []
    for drawn in np.random.default_rng(7).multinomial(9, np.full(9, 1 / 9), size=40):
        times = drawn[here] * drawn[there]
        rhos.append(np.corrcoef(*(np.repeat(each, times) for each in ranks))[0, 1])
    expected = np.percentile(rhos, [2.5, 97.5])
    np.testing.assert_allclose(bootstrap_mantel(first, second, resamples=40, seed=7), expected, atol=1e-10)


def test_ranks_made_anew_would_hardly_move_the_interval():
    rng = np.random.default_rng(4)
    first = symmetric(rng, 60)
    second = first + symmetric(rng, 60)
    here, there = np.triu_indices(60, 1)
    rhos = []
    for drawn in np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=200):
        times = drawn[here] * drawn[there]
        rhos.append(spearman(np.repeat(first[here, there], times), np.repeat(second[here, there], times)))
    np.testing.assert_allclose(bootstrap_mantel(first, second, 200), np.percentile(rhos, [2.5, 97.5]), atol=0.02)


def test_the_mean_of_pairs_and_its_interval():
    rng = np.random.default_rng(5)
    values = rng.random((8, 8))  # not symmetric
    off = ~np.eye(8, dtype=bool)
    mean, low, high = bootstrap_mean_of_pairs(values, resamples=50, seed=2)
    assert mean == pytest.approx(values[off].mean())
    means = []
    for drawn in np.random.default_rng(2).multinomial(8, np.full(8, 1 / 8), size=50):
        weights = np.outer(drawn, drawn) * off
        means.append((weights * values).sum() / weights.sum())
    np.testing.assert_allclose([low, high], np.percentile(means, [2.5, 97.5]))
    assert np.isnan(bootstrap_mean_of_pairs(np.ones((1, 1)))).all()


def test_the_diagonals_p_is_uniform_under_the_null_and_small_with_an_effect():
    rng = np.random.default_rng(6)
    ps = [diagonal_p(rng.random((10, 10)), permutations=99, seed=seed) for seed in range(600)]
    assert scipy.stats.kstest(ps, "uniform").pvalue > 0.01
    assert diagonal_p(rng.random((10, 10)) + np.eye(10), permutations=99) == 1 / 100
    assert diagonal_p(np.zeros((10, 10)), permutations=99) == 1  # nothing is found: every permutation does as well


def test_cross_jaccard_is_scikit_learns(monkeypatch):
    rng = np.random.default_rng(8)
    first, second = rng.random((2, 6, 40)) < 0.3
    expected = [[sklearn.metrics.jaccard_score(a, b) for b in second] for a in first]
    np.testing.assert_allclose(cross_jaccard(first, second), expected)
    monkeypatch.setattr("expertlens_jax.analysis.conditions.stability._UNITS", 7)
    np.testing.assert_allclose(cross_jaccard(first, second), expected)
    np.testing.assert_allclose(cross_jaccard(first, first), jaccard(sets(first)).values)
    assert (cross_jaccard(np.zeros((2, 5), bool), np.zeros((2, 5), bool)) == 0).all()


@pytest.mark.parametrize(
    ("first", "second", "units"), [(1, 1, 50), (3, 7, 20), (20, 20, 20), (0, 4, 9), (300, 200, 1000)]
)
def test_random_sets_overlap_as_drawn_ones_do(first, second, units):
    rng = np.random.default_rng(9)
    drawn = []
    for _ in range(4000):
        a, b = (set(rng.choice(units, size, replace=False)) for size in (first, second))
        drawn.append(len(a & b) / max(len(a | b), 1))
    (expected,) = random_jaccard([first], [second], units)
    assert expected == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(4000) + 1e-9)


@given(st.integers(1, 20_000), st.data())
@settings(deadline=None, max_examples=50)
def test_random_overlap_is_the_sum_over_what_sets_can_share(units, data):
    first, second = (data.draw(st.integers(0, min(units, 2000))) for _ in range(2))
    shared = np.arange(max(0, first + second - units), min(first, second) + 1)
    probability = scipy.stats.hypergeom.pmf(shared, units, first, second)
    expected = (probability * shared / np.maximum(first + second - shared, 1)).sum()
    assert random_jaccard([first], [second], units)[0] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_retrieval_of_random_sets_is_at_chance_and_of_empty_ones_exactly():
    rng = np.random.default_rng(10)
    found = []
    for _ in range(300):
        first, second = rng.random((2, 12, 60)) < 0.05  # small: many ties, some empty
        found.append(np.diag(retrieved(cross_jaccard(first, second))).mean())
    assert np.mean(found) == pytest.approx(1 / 12, abs=4 * np.std(found) / np.sqrt(300))
    assert np.diag(retrieved(np.zeros((5, 5)))).mean() == pytest.approx(1 / 5)
    assert np.diag(retrieved(np.eye(5))).mean() == 1


def test_a_comparison_says_what_its_parts_say():
    rng = np.random.default_rng(11)
    first = sets(rng.random((10, 300)) < 0.1)
    second = first.copy(data=first.values ^ (rng.random((10, 300)) < 0.05))
    table = compare_conditions(first, second, resamples=50, permutations=99).set_index("statistic")
    crossed = cross_jaccard(first.values, second.values)
    overlaps = [jaccard(each).values[np.triu_indices(10, 1)] for each in (first, second)]
    assert table.loc["overlap_correlation", "value"] == pytest.approx(scipy.stats.spearmanr(*overlaps).statistic)
    assert table.loc["jaccard_same", "value"] == pytest.approx(np.diag(crossed).mean())
    assert table.loc["jaccard_different", "value"] == pytest.approx(crossed[~np.eye(10, dtype=bool)].mean())
    nearest = (crossed.argmax(1) == np.arange(10)).mean() / 2 + (crossed.argmax(0) == np.arange(10)).mean() / 2
    assert table.loc["retrieval", "value"] == pytest.approx(nearest)
    assert table.loc["retrieval", "chance"] == 0.1
    assert (table.loc[["jaccard_same", "retrieval"], "p_value"] == 0.01).all()
    assert table.loc["jaccard_same", "chance"] == pytest.approx(table.loc["jaccard_different", "value"], abs=0.02)
    assert (table["ci_low"] <= table["value"]).all() and (table["value"] <= table["ci_high"]).all()


def test_other_units_leave_only_the_overlaps():
    rng = np.random.default_rng(12)
    values = rng.random((5, 40)) < 0.3
    table = compare_conditions(sets(values), sets(values, first_site="attn.q"), resamples=20, permutations=20)
    assert table["statistic"].tolist() == ["overlap_correlation"]
    assert table["value"].item() == pytest.approx(1)
    assert same_units(sets(values), sets(values)) and not same_units(sets(values), sets(values[:, :30]))


def test_other_concepts_are_refused():
    values = np.ones((4, 3), bool)
    with pytest.raises(SelectionError, match="of 4 and 3 concepts that differ or stand in another order"):
        compare_conditions(sets(values), sets(values[:3]))
