"""Paired comparisons of alignments and what controls leave, against scipy, by hand, and by simulation."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from expertlens_jax.analysis.similarity.comparison import compare_alignments, partial_alignments
from expertlens_jax.analysis.statistics import holm, jackknife_over_concepts, partial_spearman, weighted_spearman
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.errors import ExpertLensError

NAMES = [f"word{i}" for i in range(20)]
FIRST, SECOND = np.triu_indices(20, 1)


def similarity_of(values, names=NAMES):
    return xr.DataArray(values, dims=("concept", "other"), coords={"concept": names, "other": names})


def symmetric(rng, of_pairs=None):
    values = np.zeros((20, 20))
    values[FIRST, SECOND] = rng.normal(size=len(FIRST)) if of_pairs is None else of_pairs
    return values + values.T


@pytest.fixture
def data():
    """A similarity, ratings of 60 of its pairs, and two baselines: one good, one of noise."""
    rng = np.random.default_rng(0)
    truth = symmetric(rng)
    chosen = rng.choice(len(FIRST), 60, replace=False)
    pairs = tuple((NAMES[FIRST[k]], NAMES[SECOND[k]]) for k in chosen)
    ratings = Ratings("ours", pairs, truth[FIRST[chosen], SECOND[chosen]] + 0.3 * rng.normal(size=60))
    ours = similarity_of(truth + 0.4 * symmetric(rng))
    baselines = {"good": similarity_of(truth + 0.5 * symmetric(rng)), "noise": similarity_of(symmetric(rng))}
    return ours, baselines, ratings, FIRST[chosen], SECOND[chosen]


def test_differences_are_of_scipys_correlations_and_tested_as_one_number(data):
    ours, baselines, ratings, first, second = data
    table = compare_alignments(ours, baselines, ratings).set_index("baseline")
    mine = ours.values[first, second]
    assert list(table.index) == ["good", "noise"]
    for name, baseline in baselines.items():
        theirs = baseline.values[first, second]
        row = table.loc[name]
        assert row.pairs == 60
        assert row.spearman == pytest.approx(scipy.stats.spearmanr(mine, ratings.scores).statistic)
        assert row.baseline_spearman == pytest.approx(scipy.stats.spearmanr(theirs, ratings.scores).statistic)
        assert row.difference == pytest.approx(row.spearman - row.baseline_spearman)
        expected = jackknife_over_concepts(
            lambda w, theirs=theirs: (
                weighted_spearman(mine, ratings.scores, w) - weighted_spearman(theirs, ratings.scores, w)
            ),
            first,
            second,
            correlation=False,
        )
        assert (row.ci_low, row.ci_high, row.p_value) == (expected.low, expected.high, expected.p_value)
    np.testing.assert_array_equal(table["p_holm"], holm(table["p_value"]))
    assert table.loc["noise", "p_holm"] < 0.001
    assert table.loc["good", "p_holm"] > 0.05
    assert (table["note"] == "").all()


def test_the_bootstrap_may_be_asked_for(data):
    ours, baselines, ratings, *_ = data
    one = compare_alignments(ours, baselines, ratings, interval="bootstrap", resamples=200, seed=1)
    again = compare_alignments(ours, baselines, ratings, interval="bootstrap", resamples=200, seed=1)
    assert one.equals(again)
    assert ((one["ci_low"] < one["difference"]) & (one["difference"] < one["ci_high"])).all()
    assert one["p_value"].iloc[1] < 0.05 < one["p_value"].iloc[0]
    with pytest.raises(ExpertLensError, match="interval is 'wald'; there is 'jackknife' and 'bootstrap'"):
        compare_alignments(ours, baselines, ratings, interval="wald")
    with pytest.raises(ExpertLensError, match="interval is 'wald'"):
        partial_alignments(ours, baselines, ratings, interval="wald")


def test_a_similarity_against_itself_differs_by_nothing(data):
    ours, _, ratings, *_ = data
    row = compare_alignments(ours, {"itself": ours}, ratings).iloc[0]
    assert (row.difference, row.ci_low, row.ci_high, row.p_value) == (0, 0, 0, 1)


def test_only_pairs_that_both_have_are_compared(data):
    ours, baselines, ratings, first, second = data
    fewer = baselines["good"].isel(concept=slice(15, 4, -1), other=slice(15, 4, -1))
    row = compare_alignments(ours, {"fewer": fewer}, ratings).iloc[0]
    both = (first > 4) & (first < 16) & (second > 4) & (second < 16)
    assert row.pairs == both.sum() < 60
    expected = scipy.stats.spearmanr(ours.values[first, second][both], ratings.scores[both]).statistic
    assert row.spearman == pytest.approx(expected)


def test_no_number_where_there_is_none(data):
    ours, baselines, ratings, *_ = data
    flat = similarity_of(np.zeros((20, 20)))
    table = compare_alignments(ours, {"flat": flat, **baselines}, ratings)
    assert table["note"][0] == (
        "flat: the similarity is 0 for all 60 rated pairs (are the expert sets empty? lower the threshold)"
    )
    assert np.isnan(table.loc[0, ["difference", "p_value", "p_holm"]].astype(float)).all()
    np.testing.assert_array_equal(table["p_holm"][1:], holm(table["p_value"][1:]))  # it is no test, so it isn't counted
    few = partial_alignments(ours, {"few": baselines["good"].isel(concept=slice(4), other=slice(4))}, ratings)
    assert few["note"][0].startswith("the similarity: ")
    assert "among the 4 concepts, and a correlation needs at least 10" in few["note"][0]


def test_partial_correlations_and_the_share_left(data):
    ours, baselines, ratings, first, second = data
    table = partial_alignments(ours, baselines, ratings).set_index("control")
    mine = ours.values[first, second]
    theirs = [each.values[first, second] for each in baselines.values()]
    assert list(table.index) == ["good", "noise", "all together"]
    for name, control in zip(table.index, (theirs[0], theirs[1], theirs), strict=True):
        row = table.loc[name]
        assert row.partial_spearman == pytest.approx(partial_spearman(mine, ratings.scores, control), abs=1e-12)
        assert row.spearman == pytest.approx(scipy.stats.spearmanr(mine, ratings.scores).statistic)
        assert row.share_left == pytest.approx(row.partial_spearman / row.spearman)
        assert row.ci_low < row.partial_spearman < row.ci_high
    assert table.loc["good", "share_left"] < 0.7
    assert 0.9 < table.loc["noise", "share_left"] < 1.1
    assert table.loc["noise", "p_value"] < 0.001
    assert list(partial_alignments(ours, {"noise": baselines["noise"]}, ratings)["control"]) == ["noise"]


def test_what_only_repeats_the_control_leaves_nothing():
    """Similarity and ratings go together only through the control: p is uniform, the interval covers 0."""
    rng = np.random.default_rng(4)
    results = []
    for _ in range(200):
        chosen = rng.choice(len(FIRST), 50, replace=False)
        control = rng.normal(size=len(FIRST))
        ours, theirs = control + 0.7 * rng.normal(size=(2, len(FIRST)))
        pairs = tuple((NAMES[FIRST[k]], NAMES[SECOND[k]]) for k in chosen)
        row = partial_alignments(
            similarity_of(symmetric(rng, ours)),
            {"control": similarity_of(symmetric(rng, control))},
            Ratings("r", pairs, theirs[chosen]),
        ).iloc[0]
        results.append(row)
    assert np.mean([row.spearman for row in results]) > 0.5
    assert 0.92 <= np.mean([row.ci_low <= 0 <= row.ci_high for row in results]) <= 0.98


@pytest.mark.long
def test_p_of_two_equally_good_similarities_is_uniform():
    rng = np.random.default_rng(5)
    ps = []
    for _ in range(250):
        chosen = rng.choice(len(FIRST), 60, replace=False)
        effects = rng.normal(size=(3, 20))
        truth = rng.normal(size=len(FIRST))
        ours, theirs, rated = truth + 0.5 * (effects[:, FIRST] + effects[:, SECOND])
        pairs = tuple((NAMES[FIRST[k]], NAMES[SECOND[k]]) for k in chosen)
        ours, theirs = (similarity_of(symmetric(rng, each)) for each in (ours, theirs))
        ps.append(compare_alignments(ours, {"b": theirs}, Ratings("r", pairs, rated[chosen]))["p_value"][0])
    assert scipy.stats.kstest(ps, "uniform").pvalue > 0.01
    assert np.mean(np.array(ps) <= 0.05) == pytest.approx(0.05, abs=0.03)


def test_errors_name_the_similarity(data):
    ours, baselines, ratings, *_ = data
    bad = baselines["good"].copy()
    bad[0, 1] += 1
    with pytest.raises(ExpertLensError, match="^bad: the similarity isn't symmetric"):
        compare_alignments(ours, {"bad": bad}, ratings)
    with pytest.raises(ExpertLensError, match=r"^bad: the similarity has dims \('concept', 'unit'\)"):
        partial_alignments(ours, {"bad": bad.rename(other="unit")}, ratings)
    with pytest.raises(ExpertLensError, match="baselines must be a dict of names and similarities.*not a DataArray"):
        compare_alignments(ours, baselines["good"], ratings)
    with pytest.raises(ExpertLensError, match=r"controls must be a dict .*, not an empty one"):
        partial_alignments(ours, {}, ratings)
