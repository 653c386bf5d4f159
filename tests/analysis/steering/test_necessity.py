"""Necessity: falls of log-probability against ablation by hand, controls, agreement of orders, and verdicts."""

import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.steering import necessity
from expertlens_jax.analysis.steering.necessity import (
    Ablation,
    compare_orders,
    compare_sets,
    control_of,
    forms_of,
    measure_concept,
    read_words,
    silence,
    summarise_falls,
    typical_activations,
)
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.controls import place_matched_units, units_by_place
from expertlens_jax.models import scoring
from expertlens_jax.models.scoring import next_log_probs, score_continuations, score_words
from expertlens_jax.report.necessity_findings import conclude, tell

pytestmark = pytest.mark.compiled_quickly

WORDS = ("cat", "bread", "rain")
AP, ATTRIBUTION = "average_precision", "attribution"
PROMPTS = ("They talked about the", "There was a")


def made(ends):
    sentences = [
        f"{begin} {word} {end}." for word in WORDS for begin, end in zip(("I saw the", "It is a"), ends, strict=True)
    ]
    labels = np.repeat(np.eye(3, dtype=bool), 2, axis=1)
    domains = ("animal", "food", "weather")
    return el.ConceptDataset("short", tuple(sentences), WORDS, domains, labels, np.ones(6, bool))


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def expertise(model):
    train = made(("here", "now"))
    table = el.measure_expertise(el.record_responses(model, train.sentences, sites="mlp.up"), train, transport=False)
    return el.attribute(model, train, expertise=table)


@pytest.fixture(scope="module")
def concepts():
    return made(("there", "again"))


@pytest.fixture(scope="module")
def result(model, expertise, concepts):
    asked = {"counts": (5, 40), "ablations": ("zero", "median"), "prompts": PROMPTS, "sentences": 10}
    return el.analysis.necessity(model, expertise, concepts, resamples=50, **asked)


@pytest.mark.long
def test_falls_are_those_of_ablation_by_hand(model, expertise, concepts, result):
    each = result.tables["concepts"].set_index(["concept", "units", "count", "ablation"])
    begins = [f"{begin}" for begin in ("I saw the", "It is a")]

    def falls(concept, steering):
        found = []
        for word in WORDS:
            rows = begins, [f" {word}"] * 2
            before, after = (score_continuations(model, *rows, steering=each) for each in (None, steering))
            found.append(np.mean([b[0] - a[0] for b, a in zip(before, after, strict=True)]))
        own = WORDS.index(concept)
        return found[own], np.mean(np.delete(found, own))

    recorded = el.record_responses(model, concepts.sentences, sites="mlp.up", pooling="mean").values
    for concept, score, count in (("cat", AP, 40), ("rain", ATTRIBUTION, 5)):
        experts = el.select_experts(expertise, top=count, by=score).sel(concept=concept).values
        units = expertise.isel(unit=experts)[["layer", "site", "channel"]].to_dataframe()
        typical = np.median(recorded, axis=0)[experts]
        for ablation, shift in (("zero", 0.0), ("median", typical)):
            row = each.loc[(concept, score, count, ablation)]
            own, others = falls(concept, el.steer_units(model, units, scale=0.0, shift=shift))
            assert row["own"] == pytest.approx(own, abs=2e-4) and row["others"] == pytest.approx(others, abs=2e-4)
            assert row["selective"] == pytest.approx(own - others, abs=3e-4)
    speaking = el.steer(expertise, "cat", top=40)
    risen = [
        score_words(model, PROMPTS, forms_of(concepts, 0), steering=steering).mean() for steering in (None, speaking)
    ]
    assert each.loc[("cat", AP, 40, "zero"), "sufficiency"] == pytest.approx(risen[1] - risen[0], abs=1e-4)


def test_sets_share_batches_and_change_nothing_of_each_other(model, expertise, concepts, monkeypatch):
    words, ablation = read_words(model, concepts), Ablation((5, 40), (AP, ATTRIBUTION), ("zero", "median"))
    typical = typical_activations(model, concepts, expertise)
    batches = []

    def counted(*args):
        batches.append(args[2].shape)
        return next_log_probs(*args)

    monkeypatch.setattr(scoring, "next_log_probs", counted)

    def measured():
        given = {"sentences": 10, "prompts": PROMPTS, "forms": ("cat", "cats"), "seed": 0}
        found = measure_concept(model, expertise, 0, ablation, words, typical, **given)
        shapes = [*batches]
        batches.clear()
        return found, shapes

    together, of_all = measured()
    monkeypatch.setattr(necessity, "_BYTES_TOGETHER", 1)  # one at a time
    alone, of_each = measured()
    for name in ("units", "count", "ablation"):
        assert together[name] == alone[name]
    for name in ("own", "others", "sufficiency"):
        np.testing.assert_allclose(together[name], alone[name], rtol=0, atol=1e-6)
    # 17 ways to be silenced, 9 to speak, intact among them: a batch each; or 102 rows and 18, by 32.
    assert len(of_each) == 17 + 9 and len(of_all) == 4 + 1 and {*of_all} == {*of_each} == {(32, 8)}


def test_the_result_has_a_row_per_set_and_measure_with_chance_beside(result, expertise):
    table = result.table
    assert set(table["units"]) == {AP, ATTRIBUTION, control_of(AP), control_of(ATTRIBUTION)}
    assert len(table) == 4 * 2 * 2 * 4 and (table["concepts"] == 3).all()
    each = result.tables["concepts"]
    for row in table[table["measure"] == "own"].to_dict("records"):
        own = each[(each[["units", "count", "ablation"]] == [row["units"], row["count"], row["ablation"]]).all(axis=1)]
        assert row["value"] == pytest.approx(own["own"].mean())
    shared = result.tables["agreement"].query("measure == 'shared'")
    np.testing.assert_allclose(shared["chance"], shared["count"] / expertise.sizes["unit"])
    assert "log-probability falls, in nats, by average_precision" in result.summary()
    assert "rank correlation" in result.summary() and "chance" in result.summary()


def test_each_ablation_is_drawn_in_a_panel_of_its_own(result):
    panels = {axes.get_title(loc="left"): axes for axes in result.plot().axes}
    names = {"zero": "Necessary (set to 0)", "median": "Necessary (set to their median)"}
    assert list(panels) == [*names.values(), "Sufficient", "Chosen alike"]
    table = result.table.set_index(["ablation", "measure", "units"])
    for ablation, name in names.items():
        drawn = {tuple(line.get_ydata()) for line in panels[name].lines}
        for measure in ("own", "others"):
            for units in (AP, ATTRIBUTION, control_of(AP), control_of(ATTRIBUTION)):
                assert tuple(table.loc[(ablation, measure, units), "value"]) in drawn
    assert panels[names["zero"]].get_ylim() == panels[names["median"]].get_ylim()
    assert len(panels["Sufficient"].lines) == 5  # four sets, and zero: once, however units were silenced


def test_a_steering_of_sets_is_differentiable(model, expertise):
    """The fall is a function of the steering's leaves, which jax differentiates: at scale 1 it is the attribution."""
    units = expertise["unit"].values[:3]
    steering = silence(expertise, "cat", units)
    token_ids = np.asarray(model.tokenizer(["I saw the cat"])["input_ids"])

    def log_prob(scale):
        logits = model(token_ids, steering=steering.replace(scale=scale))[0, -2]
        return jax.nn.log_softmax(logits)[token_ids[0, -1]]

    assert np.isfinite(jax.grad(log_prob)(np.ones(3, np.float32))).all()


def test_orders_are_compared_as_scipy_and_sets_do():
    rng = np.random.default_rng(0)
    values = rng.random((4, 30)).astype(np.float32)
    other = (values + rng.normal(size=values.shape)).astype(np.float32)
    table = xr.Dataset({AP: (("concept", "unit"), values), ATTRIBUTION: (("concept", "unit"), other)})
    found = compare_orders(table, (AP, ATTRIBUTION), (5,), resamples=30).set_index("measure")
    rank = np.mean([scipy.stats.spearmanr(*each).statistic for each in zip(values, other, strict=True)])
    assert found.loc["spearman", "value"] == pytest.approx(rank)
    magnitude = np.mean([scipy.stats.spearmanr(a, abs(b)).statistic for a, b in zip(values, other, strict=True)])
    assert found.loc["spearman_of_magnitude", "value"] == pytest.approx(magnitude)
    tops = [{*np.argsort(-a)[:5]} & {*np.argsort(-b)[:5]} for a, b in zip(values, other, strict=True)]
    assert found.loc["shared", "value"] == pytest.approx(np.mean([len(each) / 5 for each in tops]))
    assert found.loc["shared", "chance"] == pytest.approx(5 / 30)


def test_comparisons_are_wilcoxons_over_concepts():
    rng = np.random.default_rng(1)
    units = (AP, control_of(AP))
    rows = [
        {"concept": f"c{i}", "units": name, "count": 5, "ablation": "zero", "selective": rng.random()}
        for i in range(8)
        for name in units
    ]
    each = pd.DataFrame(rows).assign(own=0.0, others=0.0, sufficiency=np.nan)
    compared = compare_sets(each, (AP,), resamples=50)
    wide = each.pivot_table(index="concept", columns="units", values="selective")
    row = compared[compared["measure"] == "selective"].iloc[0]
    assert row["difference"] == pytest.approx((wide[units[0]] - wide[units[1]]).mean())
    assert row["p_value"] == pytest.approx(scipy.stats.wilcoxon(wide[units[0]], wide[units[1]]).pvalue)
    assert row["least_p"] == 2.0**-7 and row["concepts"] == 8
    assert set(summarise_falls(each)["measure"]) == {"own", "others", "selective"}  # none of what wasn't measured


def test_random_units_stand_in_the_same_layers_and_sites(expertise):
    experts = expertise["unit"].values[[0, 1, 2, 600, 601, 1500]]
    drawn = place_matched_units(expertise, experts, seed=3)
    assert len(drawn) == 6 and not set(drawn) & set(experts)
    for here in units_by_place(expertise).values():
        own = expertise["unit"].values[here]
        assert np.isin(own, experts).sum() == np.isin(own, drawn).sum()
    np.testing.assert_array_equal(drawn, place_matched_units(expertise, experts, seed=3))
    small = expertise.isel(unit=[0, 1, 2, 600, 601, 602])  # two of three in one place: one must come from elsewhere
    assert len(place_matched_units(small, small["unit"].values[:2], seed=0)) == 2
    with pytest.raises(SelectionError, match="4 units were chosen, and only 2 others are left"):
        place_matched_units(small, small["unit"].values[:4], seed=0)


def test_sets_are_the_highest_by_each_score(expertise):
    sets = Ablation((5, 40), (AP, ATTRIBUTION)).choose(expertise, 1, seed=0)
    for score in (AP, ATTRIBUTION):
        for count in (5, 40):
            chosen = el.select_experts(expertise, top=count, by=score).isel(concept=1).values
            np.testing.assert_array_equal(sets[score, count], expertise["unit"].values[chosen])
            assert len(sets[control_of(score), count]) == count


def test_other_concepts_of_the_same_word_are_no_others(model, concepts):
    texts = (*concepts.sentences[:4], "She is a cat so.", "We had a cat too.")
    senses = {"concepts": ("cat (a)", "bread", "cat (b)"), "words": ("cat", "bread", "cat")}
    twice = dataclasses.replace(concepts, sentences=texts, **senses)
    words = read_words(model, twice)
    assert set(words.concept[words.others(0, 99, 0)]) == {1} and set(words.concept[words.others(1, 99, 0)]) == {0, 2}
    assert len(words.others(1, 3, 0)) == 3 and len(words.own(0, 1, 0)) == 1
    assert typical_activations(model, concepts, made_table(model)).shape == (2048,)


def made_table(model):
    units = model.units[model.units["site"] == "mlp.up"]
    return xr.Dataset(coords={name: ("unit", units[name].astype(object)) for name in ("layer", "site", "channel")})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"counts": (0,)}, r"counts=\(0,\) were given; wanted numbers of units, integers of at least 1"),
        ({"counts": (2000,)}, "counts go up to 2000, and the table has 2,048 units; wanted at most half"),
        ({"by": ("accuracy",)}, "Unknown score 'accuracy'"),
        ({"by": ()}, "by is empty; name a score"),
        ({"by": ("cohens_d",)}, "needs cohens_d, which this table of expertise doesn't have"),
        ({"ablations": ("mean",)}, "wanted one or more of zero, median"),
        ({"sentences": 0}, "sentences=0 was given; wanted a number of sentences"),
    ],
)
def test_what_cannot_be_asked_is_refused(model, expertise, concepts, given, message):
    with pytest.raises(SelectionError, match=message):
        el.analysis.necessity(model, expertise, concepts, **{"counts": (5,)} | given)


def test_a_table_of_other_concepts_or_of_one_is_refused(model, expertise, concepts):
    with pytest.raises(SelectionError, match="has 2 concepts and 'short' has 3; number 1 is 'bread' there and 'cat'"):
        el.analysis.necessity(model, expertise.isel(concept=[1, 2]), concepts)
    with pytest.raises(SelectionError, match="one concept was given"):
        el.analysis.necessity(model, expertise.sel(concept=["cat"]), concepts.subset(["cat"]))


def tables(difference, p_value, shared=0.6, concepts=12):
    at = {"count": 50, "ablation": "zero", "ci_low": 0.1, "ci_high": 0.9, "concepts": concepts}
    names = (AP, control_of(AP), ATTRIBUTION, control_of(ATTRIBUTION))
    falls = pd.DataFrame(
        [at | {"units": name, "measure": m, "value": 0.5} for name in names for m in ("own", "others", "sufficiency")]
    )
    low = {"ci_low": difference / 2, "difference": difference, "p_value": p_value, "least_p": 2.0 ** (1 - concepts)}
    pairs = [(AP, control_of(AP)), (ATTRIBUTION, control_of(ATTRIBUTION)), (AP, ATTRIBUTION)]
    compared = pd.DataFrame([at | {"measure": "selective", "first": a, "second": b} | low for a, b in pairs])
    pair = {"first": AP, "second": ATTRIBUTION, "ci_low": 0.05, "ci_high": 0.7, "concepts": concepts}
    agreed = pd.DataFrame(
        [
            pair | {"measure": "spearman", "count": 0, "value": 0.2, "chance": 0.0},
            pair | {"measure": "spearman_of_magnitude", "count": 0, "value": 0.2, "chance": 0.0},
            pair | {"measure": "shared", "count": 50, "value": shared, "chance": 0.01},
        ]
    )
    return {"necessity": falls, "comparisons": compared, "agreement": agreed}


@pytest.mark.parametrize(
    ("given", "verdicts", "said"),
    [
        (tables(0.4, 0.001), ("held", "held"), "More necessary are those by average precision"),
        (tables(-0.4, 0.001), ("not held", "held"), "More necessary are those by attribution"),
        (tables(0.4, 0.2, shared=0.1), ("not held", "not held"), "Neither choice is surely the more necessary"),
        (tables(0.4, 0.25, concepts=3), ("not testable", "not testable"), "Neither choice is surely"),
    ],
)
def test_the_verdicts(given, verdicts, said):
    found = conclude(given, count=50)
    assert tuple(each.verdict for each in found) == verdicts
    assert said in found[0].found and "chance" in found[0].found and "chance 0.01" in found[1].found
    shown = tell(given)
    assert "shared of the highest 50: " in shown and "random, placed as by attribution" in shown
