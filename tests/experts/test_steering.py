"""Steering from a table: every method against numpy, its units, its algebra, and what it refuses."""

import json

import families
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

import expertlens_jax as el
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import ExpertLensWarning, SelectionError
from expertlens_jax.experts.controls import matched_units, random_units
from expertlens_jax.experts.labelled_responses import Responses
from expertlens_jax.experts.steering import METHODS
from expertlens_jax.models.placed_steering import place_steering


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    case = next(case for case in families.CASES if case.name == "gpt_neox")
    return el.load_model(families.save(families.make_hf_model(case), tmp_path_factory.mktemp("neox")))


def make_table(model, seed=0):
    """A table of random numbers for a model's units, of five concepts in two domains."""
    rng = np.random.default_rng(seed)
    concepts, units = ["animal", "cat", "dog", "cow", "car"], len(model.units)
    names = [*("average_precision", "auroc", "transport_slope"), *("positive_median", "positive_p90")]
    values = {
        name: (("concept", "unit"), rng.uniform(0.2, 1, (5, units)).astype(np.float32))
        for name in [*names, "positive_mean", "negative_mean"]
    }
    return xr.Dataset(
        values,
        coords={
            "concept": np.array(concepts, object),
            "domain": ("concept", np.array(["animal"] * 4 + ["vehicle"], object)),
            "base_rate": ("concept", np.full(5, 2 / 7)),
            "unit": np.arange(units),
            **{name: ("unit", model.units[name].astype(object).to_numpy()) for name in ("layer", "site", "channel")},
        },
        attrs={"model": model.name},
    )


@pytest.fixture(scope="module")
def table(model):
    return make_table(model)


def numpy_version(method, row, base_rate):
    """Scale and shift by the papers' formulas, written out one by one."""
    n = len(row["auroc"])
    match method:
        case "set_median":
            return np.zeros(n), row["positive_median"]
        case "set_p90":
            return np.zeros(n), row["positive_p90"]
        case "zero":
            return np.zeros(n), np.zeros(n)
        case "aura":  # Suau et al. 2024, eq. 3: 1 - Gini where AUROC > 0.5, else 1
            return np.where(row["auroc"] > 0.5, 1 - 2 * (row["auroc"] - 0.5), 1), np.zeros(n)
        case "aura_ap":
            ap = row["average_precision"]
            return np.where(ap > base_rate, 1 - (ap - base_rate) / (1 - base_rate), 1), np.zeros(n)
        case "mean_shift":
            return np.ones(n), row["positive_mean"] - row["negative_mean"]
        case "linear_ot":  # Rodriguez et al. 2025: omega x + (mean target - omega mean source)
            slope = row["transport_slope"]
            return slope, row["positive_mean"] - slope * row["negative_mean"]
    raise AssertionError(method)


@pytest.mark.parametrize("method", METHODS)
def test_methods_are_the_papers_formulas(model, table, method):
    steering = el.steer(table, "cat", top=12, method=method)
    best = np.argsort(-table.average_precision.sel(concept="cat").values)[:12]
    units = model.units.iloc[np.sort(best)]
    assert steering.units == tuple(zip(units["layer"], units["site"], units["channel"], strict=True))
    row = {name: table[name].sel(concept="cat").values[np.sort(best)].astype(np.float64) for name in table.data_vars}
    scale, shift = numpy_version(method, row, 2 / 7)
    np.testing.assert_allclose(steering.scale, scale, atol=1e-6)
    np.testing.assert_allclose(steering.shift, shift, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_methods_from_responses_to_maps(method):
    """The whole way, of labels that leave out sentences that mention the word, and ties: numpy from scratch."""
    rng = np.random.default_rng(5)
    sentences = (*(f"{name} {i}" for name in ("cat", "dog", "car") for i in range(7)), "a car with a cat")
    labels = np.repeat(np.eye(3, dtype=bool), 7, axis=1)
    labels = np.concatenate([labels, [[False], [False], [True]]], axis=1)
    concepts = ConceptDataset("made", sentences, ("cat", "dog", "car"), ("",) * 3, labels, np.ones(22, bool))
    units = pd.DataFrame({"layer": 0, "site": "mlp.up", "channel": range(9), "hf_module": "m", "hf_channel": range(9)})
    values = (rng.normal(size=(22, 9)) * 3 + labels[:1].T * rng.normal(size=9)).round().astype(np.float32)
    responses = Responses.of(values=values, units=units, model="made", sentences=sentences)
    expertise = el.measure_distributions(el.measure_expertise(responses, concepts), responses, concepts, top=None)
    steering = el.steer(expertise, "cat", threshold=0.0, method=method)

    positives, negatives = values[:7].astype(float), values[7:21].astype(float)  # the last mentions a cat
    pairs = positives[:, None] - negatives[None]
    auroc = ((pairs > 0) + 0.5 * (pairs == 0)).mean((0, 1))
    labelled, weights = np.repeat([1, 0], [7, 14]), np.repeat([1, 2.5 * 7 / 14], [7, 14])
    precision = [average_precision_score(labelled, z, sample_weight=weights) for z in values[:21].T]
    lines = [np.polyfit(np.sort(n), np.repeat(np.sort(p), 2), 1) for p, n in zip(positives.T, negatives.T, strict=True)]
    row = {
        **{"auroc": auroc, "average_precision": np.array(precision), "transport_slope": np.array(lines)[:, 0]},
        **{"positive_median": np.median(positives, 0), "positive_p90": np.quantile(positives, 0.9, axis=0)},
        **{"positive_mean": positives.mean(0), "negative_mean": negatives.mean(0)},
    }
    scale, shift = numpy_version(method, row, 2 / 7)
    np.testing.assert_allclose(steering.scale, scale, atol=1e-5)
    np.testing.assert_allclose(steering.shift, shift, atol=1e-5)
    if method == "linear_ot":  # the offset of the fit itself
        np.testing.assert_allclose(steering.shift, np.array(lines)[:, 1], atol=1e-5)


def test_a_steered_unit_responds_with_what_it_is_set_to(model, table):
    steering = el.steer(table, "cat", top=20)
    last = [i for i, (layer, _, _) in enumerate(steering.units) if layer == model.config.num_layers - 1]
    assert last
    responses = el.record_responses(model, ["a b c", "d e"], steering=steering)
    keys = list(zip(responses.units["layer"], responses.units["site"], responses.units["channel"], strict=True))
    for i in last:
        np.testing.assert_array_equal(responses.values[:, keys.index(steering.units[i])], steering.shift[i])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_algebra_of_affine_maps(model, seed, strength):
    rng = np.random.default_rng(seed)
    places = list(zip(model.units["layer"], model.units["site"], model.units["channel"], strict=True))

    def draw():
        units = model.units.sample(6, random_state=rng.integers(2**31))
        return el.steer_units(model, units, rng.normal(size=6), rng.normal(size=6))

    def act(steering, x):
        rows = [places.index(unit) for unit in steering.units]
        y = x.copy()
        y[rows] = x[rows] * np.asarray(steering.scale) + np.asarray(steering.shift)
        return y

    first, second, third, x = draw(), draw(), draw(), rng.normal(size=len(model.units))
    np.testing.assert_allclose(act(first.then(second), x), act(second, act(first, x)), atol=1e-5)
    np.testing.assert_allclose(
        act(first.then(second).then(third), x), act(first.then(second.then(third)), x), atol=1e-5
    )
    part = (1 - strength) * x + strength * act(first, x)
    np.testing.assert_allclose(act(first.at_strength(strength), x), part, atol=1e-5)


def test_shifts_may_be_stronger_or_turned_round(model, table):
    shifts = el.steer(table, "cat", top=10, method="mean_shift")
    for strength in (2.0, -1.0):
        made = el.steer(table, "cat", top=10, method="mean_shift", strength=strength)
        np.testing.assert_allclose(made.shift, strength * np.asarray(shifts.shift), rtol=1e-6)
        assert (np.asarray(made.scale) == 1).all() and made.label == f"{strength:g} of {shifts.label}"
    with pytest.raises(SelectionError, match="strength=-0.5; .* Only steerings that shift units"):
        el.steer(table, "cat", top=10, method="set_median", strength=-0.5)
    with pytest.raises(SelectionError, match="strength=inf; wanted a number"):
        shifts.at_strength(float("inf"))


def test_several_concepts_and_spared_ones(table):
    both = el.steer(table, ["cat", "dog"], top=10)
    cat, dog = (el.steer(table, name, top=10) for name in ("cat", "dog"))
    assert set(both.units) == {*cat.units, *dog.units}
    shift = dict(zip(both.units, np.asarray(both.shift), strict=True))
    assert all(shift[unit] == value for unit, value in zip(dog.units, dog.shift, strict=True))
    sparing = el.steer(table, "cat", top=10, sparing=["dog"])
    assert set(sparing.units) == set(cat.units) - set(dog.units)
    assert len(el.steer(table, "cat", method="aura_ap")) == table.sizes["unit"]


def test_only_some_sites(table):
    steering = el.steer(table, "cat", top=10, sites=["mlp.up", "attn.v"])
    at = np.isin(table["site"].values.astype(str), ["mlp.up", "attn.v"])
    best = np.argsort(-np.where(at, table.average_precision.sel(concept="cat").values, -1))[:10]
    keys = list(zip(*(table[name].values for name in ("layer", "site", "channel")), strict=True))
    assert set(steering.units) == {keys[i] for i in best}
    assert dict(el.steer(table, "cat", top=10, sites="mlp.up").channels) == {"mlp.up": 52}
    stored = table.assign_coords(site=("unit", table["site"].values.astype(np.dtypes.StringDType())))  # as in zarr
    assert el.steer(stored, "cat", top=10, sites=["mlp.up", "attn.v"]).units == steering.units
    with pytest.raises(SelectionError, match="sites mlp.gate were given, and this table of expertise has attn.q"):
        el.steer(table, "cat", top=10, sites=["mlp.gate", "mlp.up"])


def test_a_table_of_some_units_steers_them(model, table, tmp_path):
    """Its sites have more channels than it knows of; the steering fits the model all the same, saved or joined too."""
    token_ids = np.arange(1, 9)[None]
    steering = el.steer(table, "cat", top=6)
    rows = np.flatnonzero(el.select_experts(table, top=20).sel(concept="cat").values)
    of_some = el.steer(table.isel(unit=rows), "cat", top=6)
    assert of_some.units == steering.units
    of_some.save(tmp_path / "some.json")
    expected = model(token_ids, steering=steering)
    for same in (of_some, el.load_steering(tmp_path / "some.json")):
        np.testing.assert_array_equal(model(token_ids, steering=same), expected)
    dog = el.steer(table, "dog", top=6)
    assert dict(of_some.then(dog).channels) == dict(dog.then(of_some).channels) == dict(dog.channels)
    far = table.isel(unit=rows).assign_coords(channel=("unit", table["channel"].values[rows] + 200))
    with pytest.raises(SelectionError, match=r"has a channel 2\d\d there, \d+ here"):
        model(token_ids, steering=el.steer(far, "cat", top=1))


def test_what_members_share_is_what_enough_of_them_reach(table):
    shared = el.share_expertise(table, "animal", share=2 / 3)
    members = table.sel(concept=["cat", "dog", "cow"])
    second = np.sort(members["average_precision"].values, axis=0)[1]  # two of three have as much
    np.testing.assert_allclose(shared["average_precision"].values[0], second)
    np.testing.assert_allclose(
        shared["positive_median"].values[0], members["positive_median"].values.mean(axis=0), rtol=1e-6
    )
    assert len(el.steer(shared, "animal", top=5)) == 5
    everyone = el.share_expertise(table, "animal", share=1.0)
    np.testing.assert_allclose(everyone["average_precision"][0], members["average_precision"].min("concept"))


def test_it_can_be_saved_and_shown(table, tmp_path):
    steering = el.steer(table, "cat", top=10, strength=0.3)
    steering.save(tmp_path / "deep" / "cat.json")
    loaded = el.load_steering(tmp_path / "deep" / "cat.json")
    assert loaded.units == steering.units and loaded.label == "0.3 of cat, set_median"
    assert "0.3 of cat, set_median; 10 units" in repr(loaded)
    np.testing.assert_array_equal(loaded.scale, steering.scale)
    np.testing.assert_array_equal(loaded.shift, steering.shift)
    pd.testing.assert_frame_equal(loaded.table, steering.table, check_dtype=False)


def test_outputs_can_be_differentiated_by_a_steering(model, table):
    token_ids = np.arange(1, 9)[None]
    steering = el.steer(table, "cat", top=6, method="mean_shift")

    def loss(steering):
        return jnp.square(model(token_ids, steering=steering)).mean()

    gradient = jax.grad(loss)(jax.tree.map(jnp.asarray, steering))
    i, step = int(np.abs(gradient.shift).argmax()), 1e-2
    ahead, behind = (steering.replace(shift=steering.shift + sign * step * np.eye(6)[i]) for sign in (1, -1))
    difference = (loss(ahead) - loss(behind)) / (2 * step)
    assert float(gradient.shift[i]) == pytest.approx(float(difference), rel=2e-2)


def test_controls_are_no_experts(table):
    experts = np.argsort(-table.average_precision.sel(concept="cat").values)[:8]
    random = random_units(table, experts, seed=1)
    assert len(random) == 8 and not set(random) & set(experts)
    matched = matched_units(table, "cat", experts)
    assert len(set(matched)) == 8 and not set(matched) & set(experts)
    places = [sorted(zip(*(table[k].values[u] for k in ("layer", "site")), strict=True)) for u in (experts, matched)]
    assert places[0] == places[1]
    precision = table.average_precision.sel(concept="cat").values
    assert precision[matched].max() < precision[experts].min()
    with pytest.raises(SelectionError, match="only 0 others are left"):
        random_units(table, table["unit"].values, seed=0)


def test_matched_units_say_nearly_the_same(table):
    experts = np.argsort(-table.average_precision.sel(concept="cat").values)[:8]
    median = table.positive_median.sel(concept="cat").values
    matched = matched_units(table, "cat", experts)
    drawn = [np.abs(median[experts] - median[random_units(table, experts, seed)]).mean() for seed in range(20)]
    # Both are in the order of layer and site, but not matched one by one within one: compare sorted there.
    keys = [
        [(table["layer"].values[u], table["site"].values[u], median[u]) for u in group] for group in (experts, matched)
    ]
    close = np.mean([abs(a[2] - b[2]) for a, b in zip(*map(sorted, keys), strict=True)])
    assert close < np.mean(drawn)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"concept": "cta"}, "'cta' isn't in this table of expertise. Did you mean 'cat'"),
        ({"concept": "zebra"}, "It has 5, such as 'animal'"),
        ({"concept": "cat", "sparing": ["dgo"]}, "'dgo' isn't in this table"),
        ({"concept": ()}, "no concept was given"),
        ({"concept": ("cat", "cat")}, "a concept is given twice among 'cat', 'cat'"),
        ({"concept": "cat", "top": None}, 'el.steer(expertise, "cat", top=50)'),
        ({"concept": "cat", "method": "magic"}, "method 'magic' was given; wanted one of set_median"),
        ({"concept": "cat", "strength": 1.5}, "strength=1.5; wanted a number from 0"),
        ({"concept": "cat", "sparing": ["cat"]}, "no unit is left to steer 'cat' with"),
        ({"concept": "cat", "units": [0, 10**6]}, "2 units were given, and only 1 of them"),
    ],
)
def test_what_cannot_be_steered_is_refused(table, arguments, message):
    with pytest.raises(SelectionError) as error:
        el.steer(table, **({"top": 5} | arguments))
    assert message in str(error.value)


def test_a_table_without_distributions_says_how_to_get_them(table):
    with pytest.raises(SelectionError, match="needs auroc, which this table .* el.measure_distributions"):
        el.steer(table.drop_vars("auroc"), "cat", top=5, method="aura")
    with pytest.raises(SelectionError, match="needs transport_slope, and the table has it for 0 of the 5"):
        el.steer(table.assign(transport_slope=table.auroc * np.nan), "cat", top=5, method="linear_ot")
    with pytest.raises(SelectionError, match="needs positive_mean, .* measure it again"):
        el.steer(table.drop_vars("positive_mean"), "cat", top=5, method="mean_shift")


def test_domains_that_are_not_there_are_refused(table):
    with pytest.raises(SelectionError, match="no concepts of a domain 'fruit'; its domains are animal, vehicle"):
        el.share_expertise(table, "fruit")
    with pytest.raises(SelectionError, match="share=0"):
        el.share_expertise(table, "animal", share=0)
    with pytest.raises(SelectionError, match="no concepts of a domain 'animal'; its domains are none"):
        el.share_expertise(table.drop_vars("domain"), "animal")


def test_numbers_that_cannot_be_are_refused(model):
    units = model.units.head(5)
    with pytest.raises(SelectionError, match=r"scale has shape \(3,\); wanted a number, or one for each of 5"):
        el.steer_units(model, units, scale=np.ones(3))
    with pytest.raises(SelectionError, match="shift holds a number that isn't finite"):
        el.steer_units(model, units, shift=[0, 1, 2, 3, np.nan])


def test_another_model_s_steering_is_refused_or_told_of(model, table, tmp_path):
    wider = table.assign_coords(channel=table["channel"] * 2).assign_attrs(model="wide-model")
    wider = xr.concat([wider, wider.assign_coords(channel=wider["channel"] + 1)], "unit")
    wider = wider.assign_coords(unit=np.arange(wider.sizes["unit"]))
    message = f"is of wide-model and doesn't fit {model.name}: attn.q has 96 channels there, 48 here. Make it from"
    with pytest.raises(SelectionError, match=message):
        model(np.ones((1, 3), int), steering=el.steer(wider, "cat", top=3))
    with pytest.raises(SelectionError, match=f"of {model.name} can't be joined with one of wide-model: attn.q has 48"):
        el.steer(table, "cat", top=3).then(el.steer(wider, "cat", top=3))
    with pytest.warns(ExpertLensWarning, match=f"of {model.name} is joined with one of sibling"):
        el.steer(table, "cat", top=3).then(el.steer(table.assign_attrs(model="sibling"), "dog", top=3))
    deeper = table.assign_coords(layer=table["layer"] + 9).assign_attrs(model="deep-model")
    with pytest.raises(SelectionError, match="is of deep-model .* has units in layer 1"):
        el.record_responses(model, ["a"], steering=el.steer(deeper, "cat", top=3))
    sibling = el.steer(table.assign_attrs(model="sibling"), "cat", top=3)
    with pytest.warns(ExpertLensWarning, match=f"is of sibling and is applied to {model.name}"):
        el.generate(model, "a b", steering=sibling, max_new_tokens=1)
    with pytest.raises(SelectionError, match="a dict was given as steering"):
        model(np.ones((1, 3), int), steering={})
    with pytest.raises(SelectionError, match="there is no steering"):
        el.load_steering(tmp_path / "none.json")
    el.steer(table, "cat", top=3).save(tmp_path / "short.json")
    short = json.loads((tmp_path / "short.json").read_text())
    for text in ("{}", "not JSON", json.dumps(short | {"shift": short["shift"][:2]})):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(SelectionError, match="is no steering that steering.save wrote"):
            el.load_steering(tmp_path / "bad.json")


def test_nothing_is_laid_out_for_no_steering(model):
    assert place_steering(None, model.config, model.name) is None
