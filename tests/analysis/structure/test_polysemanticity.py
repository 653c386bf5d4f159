"""What units serve, shared experts, and matched non-experts, against counting by hand and scipy."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from expertlens_jax.analysis.structure.matched_controls import compare_matched, match_non_experts, summarise_matched
from expertlens_jax.analysis.structure.polysemanticity import (
    compare_shared,
    count_services,
    distribute_shared,
    gather_domains,
    spread_services,
    summarise_shared,
)


def table_of(seed=0, concepts=8, units=200):
    rng = np.random.default_rng(seed)
    dims = ("concept", "unit")
    return xr.Dataset(
        {
            "average_precision": (dims, rng.random((concepts, units), np.float32)),
            "positive_median": (dims, rng.normal(size=(concepts, units)).astype(np.float32)),
            "negative_mean": (dims, rng.normal(size=(concepts, units)).astype(np.float32)),
        },
        coords={
            "concept": [f"c{i}" for i in range(concepts)],
            "domain": ("concept", np.repeat(["a", "b"], concepts // 2).tolist()),
            "unit": np.arange(units) + 1000,
            "layer": ("unit", np.repeat([0, 1], units // 2)),
            "site": ("unit", np.tile(["attn.q", "mlp.up"], units // 2)),
            "channel": ("unit", np.arange(units)),
        },
    )


def select(table, threshold=0.7):
    return table["average_precision"] >= threshold


def test_services_are_counted():
    experts = select(table_of())
    found = count_services(experts)
    for unit in (0, 17, 199):
        served = experts.values[:, unit]
        assert found["concepts"][unit] == served.sum()
        assert found["domains"][unit] == len(set(experts["domain"].values[served]))
    assert found["unit"][17] == 1017


def test_the_null_of_services_is_poisson_binomial():
    experts = select(table_of(1))
    found = spread_services(experts, draws=400).set_index(["served", "number"])
    expected = np.ones(1)
    for share in experts.mean("unit").values:
        expected = np.convolve(expected, [1 - share, share])
    null = found.loc["concepts", "null_mean"]
    np.testing.assert_allclose(null, 200 * expected[: len(null)], atol=1.0)
    assert found.loc["concepts", "units"].sum() == found.loc["domains", "units"].sum() == 200
    assert (found["null_low"] <= found["null_mean"]).all() and (found["null_mean"] <= found["null_high"]).all()
    # Random experts are what the null is of.
    inside = found["units"].between(found["null_low"], found["null_high"])
    assert inside.mean() > 0.8


def test_units_that_keep_to_a_domain_are_told_from_chance():
    values = np.zeros((8, 30), bool)
    values[:4, :10], values[4:, 10:20] = True, True
    experts = xr.DataArray(values, dims=("concept", "unit"), coords=select(table_of(units=30)).coords)
    found = gather_domains(experts, permutations=300).set_index("concepts")
    assert found.loc[4, "domains"] == 1 and found.loc[4, "units"] == 20
    # Of 70 ways to choose 4 of 8 concepts, 2 are a whole domain.
    assert found.loc[4, "null_mean"] == pytest.approx(2 - 2 / 70, abs=0.03)
    assert found.loc[0, "p_value"] == found.loc[4, "p_value"] == pytest.approx(2 / 70, abs=0.03)
    assert gather_domains(experts & False).empty


def test_shared_and_unshared_experts_are_compared_as_scipy_does():
    table = table_of(2)
    experts = select(table)
    found = compare_shared(table, experts, minimum=5)
    assert len(found) == 8 * 7 and (found["comparable"] == 1).all()
    row = found.set_index(["concept_a", "concept_b"]).loc[("c1", "c6")]
    precision, sets = table["average_precision"].values[1], experts.values
    shared, unshared = precision[sets[1] & sets[6]], precision[sets[1] & ~sets[6]]
    test = scipy.stats.ks_2samp(shared, unshared)
    assert row["pair"] == "different domains" and row["shared"] == len(shared) and row["unshared"] == len(unshared)
    assert (row["ks"], row["p_value"]) == (test.statistic, test.pvalue)
    summary = summarise_shared(found, resamples=50).set_index("pair")
    same = found[found["pair"] == "same domain"]
    assert summary.loc["same domain", "difference"] == pytest.approx((same["ap_shared"] - same["ap_unshared"]).mean())
    assert summary.loc["same domain", "pairs"] == 8 * 3
    # AP was drawn at random: there is no difference to find.
    assert (summary["ci_low"] < 0.01).all() and (summary["ci_high"] > -0.01).all()

    curves = distribute_shared(table, experts, same, steps=10)
    at = curves[(curves["experts"] == "shared")].set_index("average_precision")["share"]
    assert at.iloc[-1] == 1 and (np.diff(at) >= 0).all()
    value = at.index[5]
    index = {name: i for i, name in enumerate(table["concept"].values)}
    by_hand = [
        (table["average_precision"].values[a, sets[a] & sets[b]] <= value).mean()
        for a, b in zip(same["concept_a"].map(index), same["concept_b"].map(index), strict=True)
    ]
    assert at.iloc[5] == pytest.approx(np.mean(by_hand))


def test_few_pairs_are_drawn_and_none_is_an_empty_table():
    table = table_of(3)
    drawn = compare_shared(table, select(table), pairs=4)
    assert drawn["pair"].value_counts().to_dict() == {"same domain": 4, "different domains": 4}
    nothing = compare_shared(table, select(table, 0.99), minimum=50)
    assert nothing.empty and summarise_shared(nothing).empty and distribute_shared(table, select(table), nothing).empty


@pytest.mark.parametrize("match", ["concept", "others", "both"])
def test_matches_are_non_experts_of_the_same_place_and_as_active(match):
    table = table_of(4)
    experts = select(table, 0.8)
    twins = np.flatnonzero(experts.values[0])[:10]
    plain = [
        np.flatnonzero(
            (table["layer"] == table["layer"][t]).values
            & (table["site"] == table["site"][t]).values
            & ~experts.values[0]
        )
        for t in twins
    ]
    chosen = []
    for twin, some in zip(twins, plain, strict=True):
        mate = next(unit for unit in some if unit not in chosen)
        chosen.append(mate)
        for name in ("positive_median", "negative_mean"):
            table[name][0, mate] = table[name][0, twin] = 10.0 + 3 * len(chosen)  # far from all but each other
    ours, theirs = match_non_experts(table, experts, "c0", match)
    assert sorted(ours) == sorted(np.flatnonzero(experts.values[0])) and len(set(theirs)) == len(theirs)
    assert not experts.values[0, theirs].any()
    for name in ("layer", "site"):
        np.testing.assert_array_equal(table[name].values[ours], table[name].values[theirs])
    of = dict(zip(ours, theirs, strict=True))
    assert [of[twin] for twin in twins] == chosen


def test_matched_measures_are_means_over_experts():
    table, held_out = table_of(5), table_of(6).isel(concept=slice(0, 5))
    experts = select(table, 0.8)
    found = compare_matched(table, experts, held_out, "concept").set_index("concept")
    ours, theirs = match_non_experts(table, experts, "c2", "concept")
    assert found.loc["c2", "ap_experts"] == pytest.approx(table["average_precision"].values[2, ours].mean())
    expected = held_out["average_precision"].values[2, theirs].mean()
    assert found.loc["c2", "held_out_ap_matched"] == pytest.approx(expected)
    assert found.loc["c6":, "held_out_ap_experts"].isna().all()  # not among the other sentences' concepts
    served = experts.values[[0, 1, 3]].sum(axis=0)
    assert found.loc["c2", "same_domain_experts"] == pytest.approx(served[ours].mean())
    assert found.loc["c2", "other_domains_matched"] == pytest.approx(experts.values[4:, theirs].sum(axis=0).mean())
    summary = summarise_matched(found.reset_index(), resamples=50).set_index("measure")
    assert summary.loc["held_out_ap", "concepts"] == 5
    assert summary.loc["ap", "difference"] == pytest.approx((found["ap_experts"] - found["ap_matched"]).mean())
    alone = summarise_matched(compare_matched(table, experts), resamples=5).set_index("measure")
    assert np.isnan(alone.loc["held_out_ap", "difference"])
