"""Pairs of experts in a mixture's experts are those of a loop over all pairs; a router's lead is that of a loop."""

import itertools

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.structure.mixture import locate_in_mixture
from expertlens_jax.analysis.structure.together import (
    CONCEPT,
    DOMAIN,
    OTHERS,
    count_together,
    score_routers,
    summarise_together,
)
from expertlens_jax.errors import SelectionError

DOMAINS = ("animal", "animal", "food", "food", "food", "")


def made_up(seed=0, share=0.3, domains=DOMAINS):
    """A table of two layers; the first has three experts of 5, 3 and 2 units at mlp.up, the second four of 4."""
    rng = np.random.default_rng(seed)
    of_layers = ([0] * 5 + [1] * 3 + [2] * 2, [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4)
    rows = [(layer, "mlp.up", expert) for layer, own in enumerate(of_layers) for expert in own]
    rows += [(layer, "mlp.router", expert) for layer, number in enumerate((3, 4)) for expert in range(number)]
    rows += [(0, "attn.q", -1)] * 3
    layer, site, expert = zip(*rows, strict=True)
    precision = np.where(rng.random((len(domains), len(rows))) < share, 0.9, 0.1) + rng.uniform(0, 0.05, (1, len(rows)))
    units = {"layer": layer, "site": site, "expert": expert}
    coords = {"concept": [f"c{i}" for i in range(len(domains))], "domain": ("concept", list(domains))}
    coords |= {name: ("unit", list(values)) for name, values in units.items()}
    return xr.Dataset({"average_precision": (("concept", "unit"), precision.astype(np.float32))}, coords)


def kind_of(a, b, domains=DOMAINS):
    if a == b:
        return CONCEPT
    return DOMAIN if domains[a] and domains[a] == domains[b] else OTHERS


def test_pairs_are_those_of_a_loop():
    table = made_up()
    experts = el.select_experts(table, 0.5)
    found = count_together(experts).set_index(["concept", "layer", "pair"])
    layers, numbers, sites = (table[name].values for name in ("layer", "expert", "site"))
    for layer in (0, 1):
        here = np.flatnonzero((layers == layer) & (sites == "mlp.up"))
        every = list(itertools.combinations(here, 2))
        chance = np.mean([numbers[u] == numbers[v] for u, v in every])
        for a in range(len(DOMAINS)):
            want = {kind: [0, 0] for kind in (CONCEPT, DOMAIN, OTHERS)}
            for b in range(len(DOMAINS)):
                first, second = ([u for u in here if experts.values[i, u]] for i in (a, b))
                pairs = itertools.combinations(first, 2) if a == b else itertools.product(first, second)
                for u, v in pairs:
                    if u != v:
                        want[kind_of(a, b)][0] += 1
                        want[kind_of(a, b)][1] += numbers[u] == numbers[v]
            for kind, (pairs, together) in want.items():
                row = found.loc[(f"c{a}", layer, kind)]
                assert (row["pairs"], row["together"]) == (pairs, together)
                assert row["expected"] == pytest.approx(pairs * chance)


def test_experts_drawn_at_random_are_together_as_often_as_by_chance():
    """Over 400 concepts the mean of the index is 1 within four of its standard errors, for few experts and for many."""
    for share in (0.15, 0.6):
        summary = summarise_together(
            count_together(el.select_experts(made_up(1, share, ("",) * 400), 0.5)), resamples=200
        )
        assert set(summary["pair"]) == {CONCEPT, OTHERS}  # none has a domain
        for row in summary.itertuples():
            assert abs(row.times_chance - 1) < row.ci_high - row.ci_low
            assert (row.ci_low > 0) and (row.ci_high < 2)


def test_summaries_are_means_over_concepts():
    counts = count_together(el.select_experts(made_up(), 0.5))
    summary = summarise_together(counts, resamples=300).set_index(["layer", "pair"])
    times = {}
    for kind in (CONCEPT, DOMAIN, OTHERS):
        sums = counts[counts["pair"] == kind].groupby("concept")[["together", "expected"]].sum()
        times[kind] = (sums["together"] / sums["expected"]).where(sums["expected"] > 0)
        row = summary.loc[("all", kind)]
        assert row["times_chance"] == pytest.approx(times[kind].mean()) and row["concepts"] == times[kind].notna().sum()
        assert row["ci_low"] <= row["times_chance"] <= row["ci_high"]
    assert summary.loc[("all", OTHERS), "lead"] == pytest.approx((times[CONCEPT] - times[OTHERS]).mean())
    assert np.isnan(summary.loc[("all", CONCEPT), "lead"]) and (0, CONCEPT) in summary.index
    assert summary.loc[("all", DOMAIN), "concepts"] == 5  # of the sixth no domain is known


def test_concepts_that_divide_the_experts_are_found():
    """Each concept has all units of one expert of each layer, and both concepts of a domain have the same one."""
    table = made_up(domains=("x", "x", "y", "y"))
    own = np.array([0, 0, 1, 1])[:, None] == table["expert"].values
    table["average_precision"] = (("concept", "unit"), np.where(own, 0.9, 0.1).astype(np.float32))
    result = el.analysis.mixture(table, resamples=50)
    times = result.tables["together"].set_index(["layer", "pair"])["times_chance"]
    assert times[(1, CONCEPT)] == pytest.approx(1 / (4 * 6 / (16 * 15 / 2))) and times[("all", OTHERS)] == 0
    assert times[(1, DOMAIN)] == times[(1, CONCEPT)]
    (router,) = result.tables["router"].itertuples()
    lead = 0.8 * np.mean([(5 * 2 / 3 + 4 * 3 / 4) / 9, (3 * 2 / 3 + 4 * 3 / 4) / 7])  # of layers of three, and of four
    assert (router.own, router.lead) == (pytest.approx(0.9), pytest.approx(lead))
    assert (
        "Two experts in a layer are in one of its mixture's, in times of chance (1): same concept" in result.summary()
    )
    assert f"a difference of {lead:.3g} [" in result.summary()


def test_a_routers_lead_is_that_of_a_loop_in_other_sentences():
    table, other = made_up(), made_up(5).isel(concept=[4, 3, 2, 1])  # in another order, and two are missing
    found = score_routers(locate_in_mixture(table, 0.5), locate_in_mixture(other, 0.5), resamples=50).iloc[0]
    experts = el.select_experts(table, 0.5)
    leads, scores = [], []
    for concept in ("c1", "c2", "c3", "c4"):
        precision = other["average_precision"].sel(concept=concept).values
        own, rest = [], []
        for unit in np.flatnonzero(experts.sel(concept=concept).values & (table["site"].values == "mlp.up")):
            logits = (table["site"].values == "mlp.router") & (table["layer"].values == table["layer"].values[unit])
            own.append(precision[logits & (table["expert"].values == table["expert"].values[unit])].item())
            rest.append(precision[logits].mean())
        scores.append(np.mean(own))
        leads.append(np.mean(own) - np.mean(rest))
    assert found["concepts"] == 4
    assert (found["own"], found["lead"]) == (pytest.approx(np.mean(scores)), pytest.approx(np.mean(leads)))
    assert min(leads) <= found["lead_ci_low"] <= found["lead"] <= found["lead_ci_high"] <= max(leads)


def test_what_cannot_be_known_is_not_a_number():
    table = made_up().isel(unit=slice(0, 26))  # without the router
    (row,) = score_routers(locate_in_mixture(table, 0.5)).itertuples()
    assert row.concepts == 0 and np.isnan(row.lead)
    none = el.analysis.mixture(made_up(), threshold=0.99, resamples=20)
    together = none.tables["together"]
    assert not none.figures and together["times_chance"].isna().all() and (together["concepts"] == 0).all()
    one = el.analysis.mixture(made_up(domains=("x",)), resamples=20).tables["together"]
    assert set(one["pair"]) == {CONCEPT} and one["ci_low"].isna().all() and one["times_chance"].notna().any()
    with pytest.raises(SelectionError, match="none is within a mixture's experts. Find experts at one or more of"):
        count_together(el.select_experts(made_up(), 0.5).isel(unit=slice(26, 40)))


def test_the_figure_has_a_line_a_kind_and_chance():
    table = el.analysis.mixture(made_up(), resamples=20).tables
    rows = pd.concat([table["together"].assign(weights=each) for each in ("trained", "random_weights_0")])
    routers = pd.concat([table["router"].assign(weights=each) for each in ("trained", "random_weights_0")])
    figure = el.plot.together(rows.assign(sentences="facts"), routers.assign(sentences="facts"))
    lines, router = figure.axes
    assert [line.get_ydata()[0] for line in lines.lines[-1:]] == [1] and len(lines.lines) == 5
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        *(CONCEPT, DOMAIN, OTHERS, f"{CONCEPT}, random weights", "chance"),
    ]
    assert (
        router.lines[-1].get_ydata()[0] == 0
        and router.lines[1].get_ydata().tolist() == table["router"]["lead"].tolist()
    )
