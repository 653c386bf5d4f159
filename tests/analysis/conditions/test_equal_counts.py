"""Features beside as many units: each number is recomputed another way, from tables made by hand."""

import itertools

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from sklearn.metrics import jaccard_score

from expertlens_jax.analysis.conditions.equal_counts import (
    FEATURES,
    UNITS,
    compare_at_equal_counts,
    find_silent,
    make_sources,
)
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.errors import SelectionError

CONCEPTS = tuple("abcdefgh")
SETS = ("facts", "stories")


def table(units, seed, silent=0, concepts=CONCEPTS):
    """Average precision of a signal that both sentence sets have, and noise of each; the first units say nothing."""
    signal = np.random.default_rng(0).random((len(concepts), units))
    values = (0.6 * signal + 0.4 * np.random.default_rng(seed).random((len(concepts), units))).astype(np.float32)
    said = np.ones((len(concepts), units), np.float32)
    values[:, :silent], said[:, :silent] = 0.25, 0
    dims = ("concept", "unit")
    names = {"average_precision": values, "positive_mean": said, "negative_mean": said}
    coords = {"concept": list(concepts), "unit": np.arange(units)}
    coords["base_rate"] = ("concept", np.full(len(concepts), 0.25))
    return xr.Dataset({name: (dims, each) for name, each in names.items()}, coords=coords)


def tables(units, silent=0):
    return {name: table(units, seed, silent) for seed, name in enumerate(SETS, start=1)}


@pytest.fixture(scope="module")
def ratings():
    pairs = list(itertools.combinations(CONCEPTS, 2))
    scores = np.random.default_rng(5).random(len(pairs))
    return Ratings("mine", tuple(pairs), scores)


@pytest.fixture(scope="module")
def sources():
    features = {FEATURES: tables(30, silent=6), "frozen decoder": tables(20)}
    return make_sources(features, tables(60), draws=5, seed=0)


@pytest.fixture(scope="module")
def found(sources, ratings):
    return compare_at_equal_counts(sources, [ratings], threshold=0.7, top=4, resamples=200, seed=0)


def rows(found, source, statistic, selection=None):
    kept = found[(found["source"] == source) & (found["statistic"] == statistic)]
    return kept if selection is None else kept[kept["selection"] == selection]


def sets_of(source, name, subset, threshold):
    return source.tables[name]["average_precision"].values[:, subset] >= np.float32(threshold)


def test_as_many_units_as_live_features_are_drawn(sources):
    features, units, twin = sources
    assert (features.name, units.name, twin.name) == (FEATURES, UNITS, "frozen decoder")
    assert features.silent == 6 and features.subsets[0].tolist() == list(range(6, 30)) and twin.silent == 0
    assert len(units.subsets) == 5 and {len(set(subset)) for subset in units.subsets} == {24}
    assert len({tuple(subset) for subset in units.subsets}) == 5
    again = make_sources({FEATURES: tables(30, silent=6)}, tables(60), draws=5, seed=0)[1]
    np.testing.assert_array_equal(np.stack(again.subsets), np.stack(units.subsets))


def test_more_features_than_units_are_drawn_from_instead():
    features, units = make_sources({FEATURES: tables(90)}, tables(60), draws=3, seed=0)
    assert len(features.subsets) == 3 and {len(subset) for subset in features.subsets} == {60}
    assert [len(subset) for subset in units.subsets] == [60]
    features, units = make_sources({FEATURES: tables(60)}, tables(60), draws=3, seed=0)
    assert len(features.subsets) == len(units.subsets) == 1


def test_alignment_is_scipys_of_scikit_learns_jaccard(sources, ratings, found):
    features, units, _ = sources
    means = {}
    for source in (features, units):
        correlations = []
        for subset in source.subsets:
            sets = sets_of(source, "stories", subset, 0.7)
            overlaps = [
                jaccard_score(sets[CONCEPTS.index(a)], sets[CONCEPTS.index(b)], zero_division=0)
                for a, b in ratings.pairs
            ]
            correlations.append(scipy.stats.spearmanr(overlaps, ratings.scores).statistic)
        (row,) = [
            row for row in rows(found, source.name, "alignment", "τ = 0.7").itertuples() if row.sentences == "stories"
        ]
        assert row.value == pytest.approx(np.mean(correlations), abs=1e-9) and row.pairs == len(ratings.pairs)
        assert row.ci_low < row.value < row.ci_high and row.chance == 0
        if len(correlations) > 1:
            assert row.subsets_low == pytest.approx(np.percentile(correlations, 2.5), abs=1e-9)
        means[source.name] = np.mean(correlations), row
    lead = means[UNITS][0] - means[FEATURES][0]
    of_features, of_units = means[FEATURES][1], means[UNITS][1]
    assert of_features.units_lead == pytest.approx(lead, abs=1e-9)
    assert of_units.features_lead == pytest.approx(-lead, abs=1e-9)
    assert of_features.units_lead_low < of_features.units_lead < of_features.units_lead_high
    assert np.isnan(of_features.features_lead) and np.isnan(of_units.units_lead)


def test_stability_is_scikit_learns_jaccard_of_two_sets(sources, found):
    features, units, _ = sources
    values = {}
    for source in (features, units):
        per_subset = [
            [
                jaccard_score(*pair, zero_division=0)
                for pair in zip(*(sets_of(source, name, subset, 0.7) for name in SETS), strict=True)
            ]
            for subset in source.subsets
        ]
        (row,) = rows(found, source.name, "stability", "τ = 0.7").itertuples()
        values[source.name] = np.mean(per_subset)
        assert row.value == pytest.approx(values[source.name], abs=1e-9)
        assert 0 < row.chance < row.value and row.sentences == "facts / stories" and row.concepts == len(CONCEPTS)
    (row,) = rows(found, FEATURES, "stability", "τ = 0.7").itertuples()
    assert row.units_lead == pytest.approx(values[UNITS] - values[FEATURES], abs=1e-9)


def test_detection_is_the_other_sets_score_of_the_best(sources, found):
    features, units, _ = sources
    for source in (features, units):
        scores = []
        for subset in source.subsets:
            one, other = (source.tables[name]["average_precision"].values[:, subset] for name in SETS)
            for concept in range(len(CONCEPTS)):
                scores += [other[concept, one[concept].argmax()], one[concept, other[concept].argmax()]]
        (row,) = rows(found, source.name, "detection").itertuples()
        assert row.value == pytest.approx(np.mean(scores, dtype=np.float64), abs=1e-6) and row.chance == 0.25
        assert row.selection == "best" and row.ci_low < row.value < row.ci_high


def test_the_same_against_itself_leads_by_nothing(ratings):
    own = tables(40)
    same = compare_at_equal_counts(
        make_sources({FEATURES: own, "twin": own}, own, draws=3, seed=0), [ratings], threshold=0.7, top=4, resamples=50
    )
    for name in ("units_lead", "units_lead_low", "units_lead_high"):
        np.testing.assert_allclose(same.loc[same["source"] != UNITS, name], 0, atol=1e-12)


def test_top_experts_are_as_many_whatever_their_score(found):
    by_top = rows(found, "frozen decoder", "stability", "top 4")
    assert len(by_top) == 1 and by_top["value"].item() > by_top["chance"].item()
    assert set(found["selection"]) == {"τ = 0.7", "top 4", "best"}


def test_one_sentence_set_or_other_concepts_leave_alignment_alone(ratings):
    one = {"facts": table(30, 1)}
    other = {"facts": table(30, 1), "stories": table(30, 2, concepts=CONCEPTS[::-1])}
    for given in (one, other):
        found = compare_at_equal_counts(
            make_sources({FEATURES: given}, given, draws=2, seed=0), [ratings], threshold=0.7, top=4, resamples=50
        )
        assert set(found["statistic"]) == {"alignment"}


def test_without_overlap_there_is_a_note_instead_of_a_number(ratings):
    found = compare_at_equal_counts(
        make_sources({FEATURES: tables(30)}, tables(30), draws=2, seed=0), [ratings], threshold=1.0, top=4, resamples=50
    )
    none = rows(found, FEATURES, "alignment", "τ = 1")
    assert none["value"].isna().all() and none["units_lead"].isna().all()
    assert none["note"].str.contains("are the expert sets empty").all()


def test_features_that_say_nothing_are_told(ratings):
    assert find_silent(tables(10, silent=3)).tolist() == [True] * 3 + [False] * 7
    with pytest.raises(
        SelectionError, match="all 10 features of SAE features are silent in facts and stories: no conc"
    ):
        make_sources({FEATURES: tables(10, silent=10)}, tables(20), draws=2, seed=0)
    with pytest.raises(
        SelectionError, match="8 experts were asked for of each concept .top., and SAE features has 7 that say"
    ):
        compare_at_equal_counts(
            make_sources({FEATURES: tables(10, silent=3)}, tables(20), draws=2, seed=0), [ratings], threshold=0.7, top=8
        )
