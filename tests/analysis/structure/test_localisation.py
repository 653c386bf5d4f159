"""Where experts are, against counting by hand, and what an even spread must give."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from expertlens_jax.analysis.structure.localisation import locate_experts, trace_depth

SITES = ("attn.q", "mlp.up", "mlp.down")


def table_of(values, layers=4, domains=None):
    """Average precision [concepts, units] of a model with these layers and sites, as many units in each."""
    concepts, units = values.shape
    per = units // (layers * len(SITES))
    coords = {
        "concept": [f"c{i}" for i in range(concepts)],
        "unit": np.arange(units),
        "layer": ("unit", np.repeat(np.arange(layers), per * len(SITES))),
        "site": ("unit", np.tile(np.repeat(SITES, per), layers)),
    }
    if domains is not None:
        coords["domain"] = ("concept", list(domains))
    return xr.Dataset({"average_precision": (("concept", "unit"), values.astype(np.float32))}, coords=coords)


def random_table(seed=0, concepts=9, units=120):
    rng = np.random.default_rng(seed)
    return table_of(rng.random((concepts, units)), domains=np.repeat(["animal", "food", "room"], concepts // 3))


def test_enrichment_is_share_over_share():
    experts = random_table()["average_precision"] >= 0.8
    found = locate_experts(experts, resamples=20).set_index(["domain", "layer", "site"])
    assert len(found) == 4 * (4 * 3 + 4 + 3 + 1)
    for domain, layer, site in (
        ("all", 1, "mlp.up"),
        ("food", 3, "all"),
        ("room", "all", "attn.q"),
        ("food", 0, "attn.q"),
    ):
        of = experts if domain == "all" else experts[experts["domain"].values == domain]
        here = np.ones(120, bool)
        here &= True if layer == "all" else experts["layer"].values == layer
        here &= True if site == "all" else experts["site"].values == site
        expected = (of.values[:, here].sum() / of.values.sum()) / here.mean()
        row = found.loc[(domain, layer, site)]
        assert row["enrichment"] == pytest.approx(expected)
        assert row["ci_low"] <= expected <= row["ci_high"]
        assert row["experts_per_concept"] == pytest.approx(of.values[:, here].sum() / len(of))
        assert row["share"] == pytest.approx(of.values[:, here].mean())


def test_the_interval_is_that_of_literally_redrawn_concepts():
    experts = random_table(1)["average_precision"] >= 0.7
    row = (
        locate_experts(experts, resamples=40, seed=5).set_index(["domain", "layer", "site"]).loc[("all", 2, "mlp.down")]
    )
    here = (experts["layer"].values == 2) & (experts["site"].values == "mlp.down")
    drawn = np.random.default_rng(5).multinomial(9, np.full(9, 1 / 9), size=40)
    redrawn = [np.repeat(experts.values, counts, axis=0) for counts in drawn]
    expected = np.percentile([each[:, here].sum() / each.sum() / here.mean() for each in redrawn], [2.5, 97.5])
    np.testing.assert_allclose([row["ci_low"], row["ci_high"]], expected)


def test_experts_spread_evenly_are_enriched_nowhere():
    values = np.tile([0.9, 0.1], (6, 60))
    found = locate_experts(table_of(values)["average_precision"] >= 0.5, resamples=10)
    np.testing.assert_allclose(found[["enrichment", "ci_low", "ci_high"]], 1)
    assert set(found["domain"]) == {"all"}
    depth = trace_depth(table_of(values), [0.5], resamples=10)
    np.testing.assert_allclose(depth[["depth", "even_depth"]], 0.5)
    np.testing.assert_allclose(depth["bimodality"], 1)


def test_the_order_of_concepts_does_not_matter():
    experts = random_table(2)["average_precision"] >= 0.6
    columns = ["domain", "layer", "site", "experts_per_concept", "enrichment"]
    one = locate_experts(experts, resamples=5)[columns]
    other = locate_experts(experts.isel(concept=[4, 3, 5, 8, 6, 7, 0, 2, 1]), resamples=5)[columns]
    one, other = (t.astype({"layer": str}).sort_values(columns[:3], ignore_index=True) for t in (one, other))
    pd.testing.assert_frame_equal(one, other)


def test_a_domain_without_experts_has_no_enrichment():
    table = random_table(3)
    table["average_precision"][:3] = 0
    found = locate_experts(table["average_precision"] >= 0.5, resamples=10)
    animal = found[found["domain"] == "animal"]
    assert animal[["enrichment", "ci_low", "ci_high"]].isna().all(axis=None) and (animal["share"] == 0).all()
    assert found.loc[found["domain"] == "food", "enrichment"].notna().all()


def test_depth_is_the_mean_layer_of_experts():
    table = random_table(4)
    found = trace_depth(table, [0.9, 0.5], resamples=30).set_index(["block", "threshold"])
    assert list(found.loc["mlp"].index) == [0.5, 0.9]
    sites, layers = table["site"].values, table["layer"].values
    for block, threshold in (("mlp", 0.9), ("attn", 0.5), ("all", 0.9)):
        here = np.array([block == "all" or site.startswith(block) for site in sites])
        experts = (table["average_precision"].values >= np.float32(threshold)) & here
        expected = np.broadcast_to(layers / 3, experts.shape)[experts].mean()
        row = found.loc[(block, threshold)]
        assert row["depth"] == pytest.approx(expected)
        assert row["change"] == pytest.approx(expected - found.loc[(block, 0.5), "depth"])
        assert row["share"] == pytest.approx(experts.sum() / (table["average_precision"].values >= threshold).sum())


def test_bimodality_wants_both_ends():
    values = np.zeros((4, 120))
    layer = table_of(values)["layer"].values
    values[:, (layer == 0) | (layer == 3)] = 0.9
    values[:, np.flatnonzero(layer == 1)[:15]] = 0.9  # half of one of the two middle layers
    depth = trace_depth(table_of(values), [0.5], resamples=10).set_index("block")
    assert depth.loc["all", "bimodality"] == pytest.approx(4)
    values[:, layer == 3] = 0
    depth = trace_depth(table_of(values), [0.5, 0.95], resamples=10).set_index(["block", "threshold"])
    assert depth.loc[("all", 0.5), "bimodality"] == 0
    assert np.isnan(depth.loc[("all", 0.95), "depth"])  # nobody is that expert
