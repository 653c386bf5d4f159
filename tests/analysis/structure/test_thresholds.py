"""What expert sets are like at a threshold, against direct counting; and when in training they settle."""

import numpy as np
import pytest
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.conditions.settling import bootstrap_half_step, half_step, trace_overlap
from expertlens_jax.analysis.structure.thresholds import chance_overlap, describe_experts, describe_thresholds
from expertlens_jax.data.ratings import Ratings

CONCEPTS = [f"c{i}" for i in range(8)]
PAIRS = tuple((a, b) for i, a in enumerate(CONCEPTS) for b in CONCEPTS[:i])


def expertise(rng, units=120):
    values = rng.random((8, units)).astype(np.float32)
    coords = {"concept": CONCEPTS, "unit": np.arange(units)}
    return xr.Dataset({"average_precision": (("concept", "unit"), values)}, coords=coords)


def test_descriptions_are_direct_counts():
    rng = np.random.default_rng(0)
    table = expertise(rng)
    ratings = Ratings("mine", PAIRS, tuple(rng.random(len(PAIRS))))
    found = describe_thresholds(table, (0.7, 0.9), [ratings], resamples=50, permutations=50)
    for threshold in (0.7, 0.9):
        rows = found[found["threshold"] == threshold].set_index("statistic")
        chosen = table["average_precision"].values >= np.float32(threshold)
        assert rows.loc["experts", "value"] == pytest.approx(chosen.sum(1).mean())
        assert rows.loc["share", "value"] == pytest.approx(100 * chosen.mean())
        assert rows.loc["empty", "value"] == 0
        overlap = el.jaccard(el.select_experts(table, threshold=threshold))
        off = ~np.eye(8, dtype=bool)
        assert rows.loc["overlap", "value"] == pytest.approx(overlap.values[off].mean())
        assert rows.loc["overlap", "chance"] == pytest.approx(rows.loc["overlap", "value"], abs=0.05)
        assert rows.loc["alignment", "value"] == pytest.approx(
            el.align(overlap, ratings, permutations=50).spearman, abs=1e-12
        )


def test_empty_sets_have_no_alignment_and_say_so():
    table = expertise(np.random.default_rng(0))
    ratings = Ratings("mine", PAIRS, tuple(np.arange(float(len(PAIRS)))))
    found = describe_experts(el.select_experts(table, threshold=1.0), [ratings], resamples=9, permutations=9)
    found = found.set_index("statistic")
    assert found.loc["experts", "value"] == 0 and found.loc["empty", "value"] == 100
    assert found.loc["overlap", "value"] == 0
    assert np.isnan(found.loc["alignment", "value"]) and "lower the threshold" in found.loc["alignment", "note"]


def test_chance_keeps_the_sizes():
    rng = np.random.default_rng(1)
    shared = np.zeros((30, 2000), bool)
    shared[:, :200] = True  # all alike
    experts = xr.DataArray(shared, dims=("concept", "unit"), coords={"concept": [str(i) for i in range(30)]})
    drawn = [set(rng.choice(2000, 200, replace=False)) for _ in range(30)]
    expected = np.mean([len(a & b) / len(a | b) for i, a in enumerate(drawn) for b in drawn[:i]])
    assert chance_overlap(experts) == pytest.approx(expected, abs=0.003)


def test_half_of_the_end_is_found_between_checkpoints():
    steps = [0, 10, 100, 1000]
    assert half_step(steps, np.array([0, 0.1, 0.5, 1.0])) == pytest.approx(100)
    between = half_step(steps, np.array([0, 0.0, 0.4, 0.4]))  # halfway over log(1 + step) from 10 to 100
    assert between == pytest.approx(np.sqrt(11 * 101) - 1)
    assert half_step(steps, np.array([0.6, 0.6, 0.6, 1.0])) == 0
    assert np.isnan(half_step(steps, np.zeros(4)))
    curves = np.array([[0, 0], [0.1, 0.1], [0.5, 0.5], [1, 1]])
    assert bootstrap_half_step(steps, curves, 20) == pytest.approx((100, 100, 100))
    assert np.isnan(bootstrap_half_step(steps, np.zeros((4, 0)), 20)).all()


def test_overlap_with_the_last_is_1_at_the_end_and_nan_without_experts():
    rng = np.random.default_rng(2)
    last = expertise(rng)
    mixed = last.copy(deep=True)
    mixed["average_precision"].values[:, :60] = expertise(rng)["average_precision"].values[:, :60]
    overlap, settled = trace_overlap({0: expertise(rng), 5: mixed, 50: last}, last, (0.7, 1.0), resamples=30)
    overlap = overlap.set_index(["threshold", "step"])
    assert overlap.loc[(0.7, 50), "value"] == 1
    sets = [each["average_precision"].values >= np.float32(0.7) for each in (mixed, last)]
    expected = np.mean([(a & b).sum() / (a | b).sum() for a, b in zip(*sets, strict=True)])
    assert overlap.loc[(0.7, 5), "value"] == pytest.approx(expected)
    assert overlap.loc[(0.7, 0), "value"] == pytest.approx(overlap.loc[(0.7, 0), "chance"], abs=0.04)
    assert overlap.loc[1.0, "value"].isna().all()
    settled = settled.set_index("threshold")
    assert settled["concepts"].tolist() == [8, 0]
    assert 0 < settled.loc[0.7, "step"] < 50 and np.isnan(settled.loc[1.0, "step"])
