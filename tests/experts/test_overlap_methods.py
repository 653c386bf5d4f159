"""`el.overlap`: one signature for every way to compare concepts, and a table that takes new ones."""

import math

import numpy as np
import pytest
import scipy.spatial.distance
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.similarity.measures import check_measures, expert_measures, measure_names
from expertlens_jax.errors import SelectionError


@pytest.fixture
def expertise():
    precision = np.random.default_rng(3).uniform(0.1, 0.9, (5, 40)).astype(np.float32)
    domains = ["animal", "animal", "vehicle", "vehicle", "vehicle"]
    coords = {"concept": ["cat", "dog", "car", "bus", "train"], "domain": ("concept", domains), "unit": np.arange(40)}
    return xr.Dataset({"average_precision": (("concept", "unit"), precision)}, coords, {"negatives_per_positive": 2.5})


@pytest.fixture
def dice():
    def of_sets(experts, power=1):
        distance = scipy.spatial.distance.pdist(experts.values, "dice")
        values = (1 - scipy.spatial.distance.squareform(distance)) ** power
        names = experts["concept"].values
        return xr.DataArray(values, dims=("concept", "other"), coords={"concept": names, "other": names})

    el.OVERLAPS["dice"] = el.Overlap("dice", of_sets, "experts")
    yield of_sets
    del el.OVERLAPS["dice"]


def test_every_method_is_the_function_of_its_name(expertise):
    experts = el.select_experts(expertise, threshold=0.5)
    expected = {
        "jaccard": el.jaccard(experts),
        "overlap_coefficient": el.overlap_coefficient(experts),
        "weighted_jaccard": el.weighted_jaccard(expertise, 0.5),
        "cosine": el.cosine(expertise),
        "kl": el.kl(expertise),
        "js": el.js(expertise),
    }
    assert list(el.OVERLAPS) == list(expected)
    for method, similarity in expected.items():
        each = el.OVERLAPS[method]
        at = {"threshold": 0.5} if each.takes == "experts" or each.thresholded else {}
        found = el.overlap(expertise, method=method, **at)
        xr.testing.assert_identical(found, similarity)
        low, high = each.bounds
        assert (found >= low - 1e-12).all() and (found <= high + 1e-12).all(), method
        if each.takes == "experts":
            xr.testing.assert_identical(el.overlap(experts, method), similarity)


def test_jaccard_is_the_method_unless_another_is_named_and_is_what_scipy_gives(expertise):
    experts = el.select_experts(expertise, threshold=0.5).values
    distance = scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(experts, "jaccard"))
    np.testing.assert_allclose(el.overlap(expertise, threshold=0.5), 1 - distance, rtol=0, atol=1e-12)


def test_top_selects_the_best_units_of_each_concept(expertise):
    xr.testing.assert_identical(el.overlap(expertise, top=7), el.jaccard(el.select_experts(expertise, top=7)))


def test_options_reach_the_method(expertise):
    for centred in (False, True):
        xr.testing.assert_identical(el.overlap(expertise, "cosine", centred=centred), el.cosine(expertise, centred))
        xr.testing.assert_identical(el.overlap(expertise, "kl", centred=centred), el.kl(expertise, centred))


def test_a_method_of_ones_own_can_be_named_wherever_the_others_can(expertise, dice):
    experts = el.select_experts(expertise, threshold=0.5)
    xr.testing.assert_identical(el.overlap(expertise, "dice", threshold=0.5), dice(experts))
    xr.testing.assert_identical(el.overlap(experts, method="dice", power=2), dice(experts, power=2))
    (measure,) = expert_measures(expertise, ["dice"], [0.5])
    assert (measure.name, measure.threshold) == ("dice", 0.5)
    xr.testing.assert_identical(measure.similarity, dice(experts))


def test_measures_of_experts_say_in_their_name_whether_they_are_centred(expertise):
    assert measure_names() == {
        **dict.fromkeys(("jaccard", "overlap_coefficient", "weighted_jaccard"), True),
        **dict.fromkeys(("cosine", "cosine_centred", "kl", "kl_centred", "js"), False),
    }
    found = {each.name: each for each in expert_measures(expertise, list(measure_names()), [0.4, 0.6])}
    for name, function in (("cosine", el.cosine), ("kl", el.kl)):
        xr.testing.assert_identical(found[name].similarity, function(expertise, centred=False))
        xr.testing.assert_identical(found[f"{name}_centred"].similarity, function(expertise, centred=True))
        assert math.isnan(found[name].threshold)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        (
            "jacard",
            {},
            "Unknown method of overlap 'jacard'. Choose from: jaccard, overlap_coefficient, weighted_jaccard",
        ),
        (None, {}, "Unknown method of overlap None"),
        ("jaccard", {"centred": True}, "unknown option centred; this method takes none"),
        ("cosine", {"centered": True}, "unknown option centered; this method takes centred"),
        ("jaccard", {}, "neither a threshold nor top was given"),
        ("weighted_jaccard", {}, "no threshold was given. Add one, such as threshold=0.5"),
        (
            "weighted_jaccard",
            {"threshold": 0.5, "top": 3},
            "takes no top. .* choose from: jaccard, overlap_coefficient",
        ),
        ("js", {"threshold": 0.5}, "takes no threshold. .*: jaccard, overlap_coefficient, weighted_jaccard"),
        ("jaccard", {"threshold": 1.5}, "wanted an average precision"),
    ],
)
def test_what_a_method_does_not_take_is_refused(expertise, method, given, message):
    with pytest.raises(SelectionError, match=message):
        el.overlap(expertise, method, **given)


def test_expert_sets_are_not_selected_twice_nor_taken_for_a_table(expertise):
    experts = el.select_experts(expertise, threshold=0.5)
    with pytest.raises(SelectionError, match="selected already, and threshold. Leave that out"):
        el.overlap(experts, threshold=0.6)
    with pytest.raises(SelectionError, match="where a table of expertise is wanted"):
        el.overlap(experts, method="js")


def test_an_entry_that_cannot_work_is_refused(expertise, dice):
    with pytest.raises(SelectionError, match="Choose from: 'experts', 'expertise'"):
        el.Overlap("mine", dice, takes="sets")
    with pytest.raises(SelectionError, match="come from a threshold already"):
        el.Overlap("mine", dice, takes="experts", thresholded=True)
    el.OVERLAPS["dice"] = dice
    with pytest.raises(SelectionError, match="OVERLAPS\\['dice'\\] is a function; wanted an Overlap"):
        el.overlap(expertise, "dice", threshold=0.5)
    el.OVERLAPS["dice"] = el.Overlap("dice", lambda experts: experts.values, "experts")
    with pytest.raises(SelectionError, match="returned a ndarray. Return an xarray.DataArray with dims"):
        el.overlap(expertise, "dice", threshold=0.5)


def test_measures_without_a_threshold_are_named():
    with pytest.raises(SelectionError, match="measures jaccard need at least one threshold"):
        check_measures(["jaccard", "js"], [])
