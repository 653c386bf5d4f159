"""What the page counts is what the package's own functions find."""

import numpy as np
import pytest
import xarray as xr

import expertlens_jax as el
from expertlens_jax.explorer import counting

LAYERS, SITES, CHANNELS = 3, ("attn.q", "mlp.up"), 4000


@pytest.fixture(scope="module")
def expertise():
    units = LAYERS * len(SITES) * CHANNELS
    rng = np.random.default_rng(0)
    values = rng.beta(3, 4, (5, units)).round(2).astype(np.float32)  # many ties, also at the levels themselves
    return xr.Dataset(
        {"average_precision": (("concept", "unit"), values)},
        coords={
            "concept": ["a", "b", "c", "d", "e"],
            "unit": np.arange(units),
            "layer": ("unit", np.repeat(np.arange(LAYERS) + 2, units // LAYERS)),
            "site": ("unit", np.tile(np.repeat(np.array(SITES, object), CHANNELS), LAYERS)),
            "channel": ("unit", np.tile(np.arange(CHANNELS), units // CHANNELS)),
        },
    )


@pytest.fixture(scope="module", params=[1, 1 << 24], ids=["three blocks", "one block"])
def counts(expertise, request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "VALUES_PER_BLOCK", request.param)
        assert len(list(counting.precision_blocks(expertise))) == (3 if request.param == 1 else 1)
        return counting.count(expertise, counting.threshold_levels(np.array([2 / 7])), 30)


def test_experts_are_those_that_select_experts_finds_at_every_level_and_place(expertise, counts):
    for level, threshold in enumerate(counts.levels):
        experts = el.select_experts(expertise, threshold=float(threshold))
        assert counts.experts[:, level].tolist() == experts.sum("unit").values.tolist()
        for i, layer in enumerate(counts.layers):
            for j, site in enumerate(counts.sites):
                here = ((experts["layer"] == layer) & (experts["site"] == site)).values
                found = (experts.values & here).sum(1)
                assert counts.per_place[:, level, i, j].tolist() == found.tolist()
    assert counts.layers.tolist() == [2, 3, 4] and counts.sites == SITES
    assert (counts.units_per_place == CHANNELS).all()


def test_overlaps_are_jaccards(expertise, counts):
    for level in (0, 4, len(counts.levels) - 1):
        experts = el.select_experts(expertise, threshold=float(counts.levels[level]))
        np.testing.assert_allclose(counts.overlap(level), el.jaccard(experts).values, rtol=0, atol=1e-12)
        assert counts.shared[level].tolist() == (experts.values.astype(int) @ experts.values.T.astype(int)).tolist()


def test_the_best_are_the_highest_and_the_first_of_equals_first(expertise, counts):
    for row, values in enumerate(expertise["average_precision"].values):
        assert counts.best[row].tolist() == np.argsort(-values, kind="stable")[:30].tolist()


@pytest.mark.parametrize(
    ("base_rate", "first", "number"), [(2 / 7, 0.4, 23), (1 / 11, 0.2, 31), (0.5, 0.6, 15), (0.9, 0.95, 1)]
)
def test_the_slider_starts_a_tenth_above_the_base_rate(base_rate, first, number):
    levels = counting.threshold_levels(np.array([base_rate, base_rate / 2]))
    assert levels[0] == first and levels[-1] == 0.95 and len(levels) == number
    assert all(level == round(level, 3) for level in levels)
