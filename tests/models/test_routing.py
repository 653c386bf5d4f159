"""Mixtures of experts: who is routed where, what an expert's units say, and what may be done to them."""

import dataclasses
import json
import re

import families
import hooks
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from jax.sharding import NamedSharding, PartitionSpec
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError, SelectionError, UnsupportedModelError, UnsupportedSAEError
from expertlens_jax.models import routing
from expertlens_jax.models.addresses import locate_units, read_address
from expertlens_jax.models.families import family_of
from expertlens_jax.models.model import respond
from expertlens_jax.models.quantised.mxfp4 import dequantise, quantised_tensor
from expertlens_jax.models.routing import into_experts, out_of_experts, route
from expertlens_jax.models.steering_fit import check_fit
from expertlens_jax.models.taps import Taps, keep_reached, pool_by_expert
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.models.weights import StoredTensor
from expertlens_jax.report.hub_card import write_steering_card
from expertlens_jax.training.activations import prepare_reading

pytestmark = pytest.mark.compiled_quickly

CASE = next(case for case in families.CASES if case.name == "olmoe")
WIDTH, EXPERTS = CASE.options["intermediate_size"], CASE.options["num_experts"]
SENTENCES = ["a ba c", "d", "fo e x y", "b", "z lu mi"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return families.save(families.make_hf_model(CASE), tmp_path_factory.mktemp("olmoe"))


@pytest.fixture(scope="module")
def model(directory):
    return el.load_model(directory)


@pytest.fixture(scope="module")
def reference(directory):
    return families.load_hf_model(CASE, directory, torch.float32)


# Routing and products


def config_with(**options):
    hf = families.make_config(CASE)
    return family_of(hf).translate(type(hf)(**hf.to_dict() | options))


@pytest.mark.parametrize("norm", [True, False])
def test_a_token_goes_to_its_highest_logits_with_their_shares_of_the_softmax(norm):
    logits = np.array([[[2.0, -1.0, 0.5, 1.0], [0.0, 3.0, 3.5, -9.0]]], np.float32)
    found = route(jnp.asarray(logits), config_with(norm_topk_prob=norm))
    assert found.reached[0].tolist() == [[True, False, False, True], [False, True, True, False]]
    shares = np.exp(logits[0]) / np.exp(logits[0]).sum(-1, keepdims=True)
    shares = np.where(found.reached[0], shares, 0)
    want = shares / shares.sum(-1, keepdims=True) if norm else shares
    np.testing.assert_allclose(found.weights_by_expert[0], want, atol=1e-6)


@pytest.mark.parametrize("rows_per_block", [1, 4, 64])
@pytest.mark.parametrize("idle", [False, True], ids=["all experts", "an expert without tokens"])
def test_dense_and_grouped_products_are_the_same(idle, rows_per_block, monkeypatch):
    """Both against a loop over tokens in numpy; in float32 only the order of sums differs."""
    monkeypatch.setattr(routing, "ROWS_PER_BLOCK", rows_per_block)
    rng, config = np.random.default_rng(0), config_with(num_experts=5, num_experts_per_tok=3)
    x, logits = (rng.normal(size=(2, 7, size)).astype(np.float32) for size in (16, 5))
    logits[..., 2] -= 99.0 * idle
    kernels, back = (rng.normal(size=(5, *size)).astype(np.float32) for size in ((16, 11), (11, 16)))
    found = route(jnp.asarray(logits), config)
    assert found.reached.any(axis=(0, 1)).tolist() == [True, True, not idle, True, True]
    weights = np.asarray(found.weights_by_expert)
    inner = np.einsum("btd,edf->btef", x, kernels) * (weights > 0)[..., None]
    want = np.einsum("btef,efd,bte->btd", inner, back, weights)
    for grouped in (None, routing.by_instruction, routing.by_blocks):
        ours = into_experts(x, kernels, found, grouped)
        ours = keep_reached(ours.reshape(2, 7, -1), found.reached).reshape(2, 7, 5, 11)
        np.testing.assert_allclose(ours, inner, atol=1e-5)
        np.testing.assert_allclose(out_of_experts(ours, back, found, grouped), want, atol=1e-4)


@pytest.mark.long
def test_gradients_flow_through_blocks():
    rng = np.random.default_rng(0)
    x, logits = (rng.normal(size=(2, 7, size)).astype(np.float32) for size in (16, 4))
    kernels, back = (rng.normal(size=(4, *size)).astype(np.float32) for size in ((16, 11), (11, 16)))
    found = route(jnp.asarray(logits), config_with())

    def total(x, grouped):
        inner = into_experts(x, kernels, found, grouped)
        inner = keep_reached(inner.reshape(2, 7, -1), found.reached).reshape(inner.shape)
        return (out_of_experts(inner, back, found, grouped) ** 2).sum()

    ours, theirs = (np.asarray(jax.grad(total)(x, grouped)) for grouped in (routing.by_blocks, None))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_large_experts_are_grouped_on_one_accelerator_and_nowhere_else(monkeypatch):
    """What is lowered for each platform, and over a mesh, whose axis may divide the experts or not."""
    found = route(jnp.ones((1, 3, 4)), config_with())
    x, kernels = jnp.ones((1, 3, 16)), jnp.ones((4, 16, 11))

    def lowered(platform, mesh=None, devices=None):
        product = jax.jit(lambda x, kernels: routing.multiply(into_experts, x, kernels, found, mesh, devices))
        return "ragged_dot" in product.trace(x, kernels).lower(lowering_platforms=(platform,)).as_text()

    assert not lowered("tpu")
    monkeypatch.setattr(routing, "LARGE", kernels.size)
    assert lowered("tpu")
    assert not lowered("cpu")
    assert not lowered("tpu", mesh=el.parallel.make_mesh())
    assert not lowered("cpu", mesh=el.parallel.make_mesh())
    assert not lowered("tpu", mesh=jax.sharding.AbstractMesh((1, 3), ("data", "model")))
    assert lowered("tpu", devices=1) and not lowered("tpu", devices=8)


def test_products_follow_where_parameters_are_and_not_what_the_process_has(monkeypatch):
    """A process of one device traces for four what four would run, and one of eight, on one of them, what one would."""
    config = config_with(num_experts=16)
    network, token = Transformer(config, Taps(("mlp.router",))), jnp.zeros((1, 1), jnp.int32)
    params = network.init(jax.random.key(0), token, token > -1, token > -1)["params"]
    ids = np.arange(256).reshape(16, 16) % 7
    rows = ids.astype(np.int32), ids > -1, ids > -1
    monkeypatch.setattr(routing, "LARGE", 1)
    before = np.asarray(respond.compiled(network, params, *rows, None))
    here = respond(network, params, *rows, None)  # in blocks, as before it was told
    assert np.asarray(here).tobytes() == before.tobytes()

    def is_grouped(*places):
        shapes = params
        if places:
            whole = NamedSharding(jax.sharding.AbstractMesh(places, ("data", "model")), PartitionSpec())
            shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), params)
        return "ragged_dot" in str(respond.trace(network, shapes, *rows, None).jaxpr)

    assert is_grouped() and is_grouped(1, 1) and not is_grouped(4, 1)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert is_grouped() and not is_grouped(4, 1)


@pytest.mark.parametrize("grouped", [routing.by_instruction, routing.by_blocks])
def test_experts_elsewhere_add_nothing_to_grouped_products(grouped):
    """Of four experts, two are here: their own products alone, and the other two's where they are make up the whole."""
    rng = np.random.default_rng(0)
    x, logits = (rng.normal(size=(2, 7, size)).astype(np.float32) for size in (16, 4))
    kernels, back = (rng.normal(size=(4, *size)).astype(np.float32) for size in ((16, 11), (11, 16)))
    found = route(jnp.asarray(logits), config_with())
    into = keep_reached(into_experts(x, kernels, found).reshape(2, 7, -1), found.reached)
    into = into.reshape(2, 7, 4, 11)
    parts = []
    for first in (0, 2):
        own, here = slice(first, first + 2), found.replace(experts=found.experts - first, num_experts=2)
        ours = into_experts(x, kernels[own], here, grouped)
        np.testing.assert_allclose(ours, into[:, :, own], atol=1e-5)
        parts.append(out_of_experts(into[:, :, own], back[own], here, grouped))
    np.testing.assert_allclose(sum(parts), out_of_experts(into, back, found), atol=1e-4)


# What units say


def test_only_tokens_that_are_routed_to_an_expert_enter_its_pool():
    """Of two experts of one channel: three tokens, of which the first isn't pooled; the second has none of the rest."""
    values = jnp.array([[[9.0, 9.0], [-3.0, 0.0], [-1.0, 0.0]]])
    reached = jnp.array([[[True, True], [True, False], [True, False]]])
    mask = jnp.array([[False, True, True]])
    for pooling, of_first in {"max": -1.0, "min": -3.0, "mean": -2.0, "last": -1.0}.items():
        assert pool_by_expert(values, mask, pooling, reached).tolist() == [[of_first, 0.0]]


def test_units_carry_their_expert(model):
    units = model.units
    assert list(units) == ["layer", "site", "channel", "expert", "hf_module", "hf_channel"]
    up = units[(units["site"] == "mlp.up") & (units["layer"] == 1)]
    assert up["channel"].tolist() == list(range(EXPERTS * WIDTH))
    assert up["expert"].tolist() == [expert for expert in range(EXPERTS) for _ in range(WIDTH)]
    assert set(up["hf_module"]) == {""} and set(up["hf_channel"]) == {-1}
    router = units[(units["site"] == "mlp.router") & (units["layer"] == 0)]
    assert router["expert"].tolist() == router["hf_channel"].tolist() == [0, 1, 2, 3]
    assert set(router["hf_module"]) == {"model.layers.0.mlp.gate"}
    assert set(units.loc[~units["site"].isin(["mlp.router", "mlp.gate", "mlp.up"]), "expert"]) == {-1}


def test_an_address_may_name_the_expert(model):
    """Its channel counts within the expert; where no expert has so many, from the site's first, as in the table."""
    place = 2 * WIDTH + 5
    forms = [(1, "mlp.up", 2, 5), (1, "mlp.up", 2, place), "L1 mlp.up 2 5", "1/mlp.up/2/5", (1, "mlp.up", place)]
    found = locate_units(model, forms)
    assert list(found) == ["layer", "site", "channel", "expert", "hf_module", "hf_channel"]
    assert found[["channel", "expert"]].values.tolist() == [[place, 2]] * len(forms)
    alone = locate_units(model, forms[0])
    assert len(alone) == 1 and alone.iloc[0].equals(found.iloc[0])
    assert read_address("L0 mlp.shared_up 3") == (0, "mlp.shared_up", 3)  # a site's name may have a _
    own = model.units.query("site == 'mlp.up' and layer == 1")
    addresses = own[["layer", "site", "expert", "channel"]].values.tolist()
    assert locate_units(model, [tuple(each) for each in addresses])["channel"].tolist() == own["channel"].tolist()


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ((1, "mlp.up", 4, 0), r"\(1, 'mlp.up', 4, 0\) was given, .* this model has the experts 0 to 3\."),
        ((1, "mlp.up", 0, WIDTH), r"an expert has the channels 0 to 10, and expert 0 those from 0 to 10 of the site's"),
        ((1, "mlp.down", 0, 1), r"mlp.down isn't within its experts, as mlp.gate, mlp.up, mlp.act are"),
        ("L9 mlp.up 2 5", r"L9 mlp.up 27 was given; .* has mlp.up in layers 0 to 1"),
        ((1, "mlp.up", 2, -5), "was given for a unit; wanted"),
    ],
)
def test_an_expert_that_is_not_there_is_told(model, unit, message):
    with pytest.raises(SelectionError, match=message):
        locate_units(model, unit)


def test_where_no_model_is_known_an_expert_is_not_guessed(model):
    with pytest.raises(SelectionError, match="no model is known here, which tells where an expert's channels begin"):
        el.When(unit=(1, "mlp.up", 2, 5), above=0.5)
    with pytest.raises(SelectionError, match="this model is no mixture of experts"):
        el.top_tokens(el.load_model("lenslet-2m"), ["A cat."], (1, "mlp.up", 2, 5))


def test_units_that_are_another_experts_are_another_models(model):
    units = model.units.query("site == 'mlp.up' and layer == 1").iloc[[5, 27]]
    wider = units.assign(expert=[0, 1])  # as in a mixture whose experts are wider
    for read in (lambda: el.trace(model, ["a"], wider), lambda: el.steer_units(model, wider)):
        with pytest.raises(SelectionError, match=r"1 of 2 units are another model's: L1 mlp.up 27 is of expert 1 in"):
            read()
    assert len(el.steer_units(model, units)) == 2
    with pytest.raises(SelectionError, match=r"1 of 2 units are another model's: L1 mlp.up 27 is of expert 1 in"):
        el.learn_steering(model, el.load_concepts("facts").subset(["cat", "rain"]), "cat", units=wider)


def steerings(model):
    """A steering of units of two experts, of a logit of the router and of a unit of none; and its experts."""
    units = locate_units(model, [(1, "mlp.up", 2, 5), (0, "mlp.up", 0, 3), (1, "mlp.router", 3), (0, "resid", 7)])
    return el.steer_units(model, units, scale=0.5, shift=1.0, label="some"), [2, 0, 3, -1]


def test_a_steering_of_a_mixture_names_the_expert_of_each_unit(model, tmp_path):
    steering, experts = steerings(model)
    assert list(steering.table) == ["layer", "site", "channel", "expert", "scale", "shift"]
    assert steering.table["expert"].tolist() == experts
    assert "(2 at mlp.up, 1 at mlp.router, 1 at resid; of experts 0, 2, 3)" in repr(steering)
    assert "<th>expert</th>" in steering._repr_html_()
    steering.save(tmp_path / "one.json")
    assert el.load_steering(tmp_path / "one.json").table.equals(steering.table)

    late = steering.only(el.When(from_token=1))
    both = late.then(steering)
    assert both.table["expert"].tolist() == experts * 2
    assert [part.table["expert"].tolist() for part in both.parts] == [experts, experts]
    both.save(tmp_path / "both.json")
    assert el.load_steering(tmp_path / "both.json").table.equals(both.table)
    other = el.steer_units(model, locate_units(model, [(0, "mlp.up", 1, 0), (0, "resid", 7)]))
    assert steering.then(other).table["expert"].tolist() == [*experts, 1]  # resid 7 is in both
    card = write_steering_card(steering, "me/some", None)
    assert "| Expert | mlp.router | mlp.up |\n| --- | --- | --- |\n| 0 | 0 | 1 |\n| 2 | 0 | 1 |\n| 3 | 1 | 0 |" in card


def test_a_steering_of_no_mixture_has_no_column_for_experts(tmp_path):
    lenslet = el.load_model("lenslet-2m")
    steering = el.steer_units(lenslet, lenslet.units.query("site == 'mlp.up'").head(2))
    assert list(steering.table) == ["layer", "site", "channel", "scale", "shift"]
    steering.save(tmp_path / "dense.json")
    assert "expert" not in json.loads((tmp_path / "dense.json").read_text())
    assert "of expert" not in repr(steering) and "| Expert |" not in write_steering_card(steering, "me/some", None)


def test_a_file_that_does_not_know_experts_is_read_and_learns_them_of_the_model(model, tmp_path):
    steering, _ = steerings(model)
    steering.save(tmp_path / "new.json")
    stored = json.loads((tmp_path / "new.json").read_text())
    (tmp_path / "old.json").write_text(json.dumps({name: each for name, each in stored.items() if name != "expert"}))
    old = el.load_steering(tmp_path / "old.json")
    assert "expert" not in old.table and old.digest == steering.digest
    assert "expert" not in old.then(steering).table and "expert" not in steering.then(old).table
    assert old.transfer(model).table.equals(steering.table)
    for wrong in ([2, 0, 3], [2, 0, 3, -2], [2, 0, 3, 0.5]):
        (tmp_path / "wrong.json").write_text(json.dumps(stored | {"expert": wrong}))
        with pytest.raises(SelectionError, match="is no steering that steering.save wrote .*(experts|columns)"):
            el.load_steering(tmp_path / "wrong.json")


def test_a_steering_does_not_fit_a_mixture_whose_experts_are_wider(model):
    steering, _ = steerings(model)
    wider = config_with(num_experts=2, num_experts_per_tok=2, intermediate_size=2 * WIDTH)
    of_up = dataclasses.replace(
        steering, **{name: getattr(steering, name)[:2] for name in ("scale", "shift", "units", "experts")}
    )
    of_up = dataclasses.replace(of_up, channels=(("mlp.up", EXPERTS * WIDTH),))
    with pytest.raises(
        SelectionError, match=r"doesn't fit wider: L1 mlp.up 27 is expert 2's there, and expert 1's here \(1 of 2 units"
    ):
        check_fit(of_up, wider, "wider")


def test_what_no_other_program_carries_of_a_mixture_is_named_with_its_expert(model, reference, tmp_path):
    steering, _ = steerings(model)
    with pytest.raises(SelectionError, match=r"L1 mlp.up 2 27, L0 mlp.up 0 3, L1 mlp.router 3 3\."):
        steering.save_gguf(tmp_path / "some.gguf")
    with pytest.raises(SelectionError, match="are scaled.*L1 mlp.up 2 27"):
        steering.save_lm_eval(tmp_path / "some.pt", reference)


def test_a_table_of_expertise_knows_the_experts_and_a_trace_pools_to_its_responses(model, tmp_path):
    sites = ("mlp.router", "mlp.act", "mlp.down")
    responses = el.record_responses(model, SENTENCES, sites=sites)
    labels = np.array([[True, False, True, False, False], [False, True, False, True, True]])
    concepts = el.ConceptDataset("two", tuple(SENTENCES), ("a", "b"), ("", ""), labels, np.ones(5, bool))
    found = el.find_experts(model, concepts, tmp_path, sites=sites, permutations=0)
    assert found["expert"].values.tolist() == responses.units["expert"].tolist()
    best = el.top_experts(found, "a", 4)
    assert {"expert", "hf_module"} <= set(best)
    check_choice_by_expert(found)

    act = responses.units.query("site == 'mlp.act' and layer == 1")
    seen = el.trace(model, SENTENCES, act)
    silent = np.array([~there[own].any(0) for there, own in zip(seen.reached, seen.in_pool, strict=True)])
    assert silent.any() and not silent.all()
    values = responses.values[:, act.index]
    assert (values[silent] == 0).all() and (values[~silent] != 0).all()
    np.testing.assert_array_equal(seen.pooled(), values)
    assert all((said[~there] == 0).all() for said, there in zip(seen.activations, seen.reached, strict=True))
    unit = act.iloc[int(silent.any(0).argmax())]
    heard = el.top_tokens(model, SENTENCES, unit, 99)
    place = int(act.index.get_loc(unit.name))
    assert len(heard) == sum(
        (there[:, place] & own).sum() for there, own in zip(seen.reached, seen.in_pool, strict=True)
    )


def check_choice_by_expert(found):
    """Steering, counting, and the table as versions wrote it that didn't know experts."""
    steered = el.steer(found, "a", top=5, experts=[1, 3], sites="mlp.act", method="zero")
    assert steered.table["expert"].tolist() == [channel // WIDTH for channel in steered.table["channel"]]
    of_unit = dict(
        zip(zip(found["site"].values, found["channel"].values, strict=True), found["expert"].values, strict=True)
    )
    assert {of_unit[site, channel] for _, site, channel in steered.units} <= {1, 3} and len(steered) == 5
    own = found.isel(unit=(found["expert"] == 1).values & (found["site"] == "mlp.act").values)
    assert el.steer(own, "a", top=5).units == el.steer(found, "a", top=5, experts=1, sites="mlp.act").units
    with pytest.raises(
        SelectionError, match=r"experts=\[4\] were given, .* this table has the experts 0, 1, 2, 3\. Expert"
    ):
        el.steer(found, "a", top=5, experts=[4])
    with pytest.raises(SelectionError, match=r"experts=an array of bool over \(concept, unit\) were given"):
        el.steer(found, "a", experts=el.select_experts(found, top=3))
    held = el.analysis.mixture(found, threshold=0.5).table
    assert len(held) == 2 * 2 * EXPERTS and set(held["units"]) == {WIDTH}
    assert held["experts"].sum() == el.select_experts(found, threshold=0.5).isel(unit=found["site"] == "mlp.act").sum()

    old = found.drop_vars("expert")
    assert "expert" not in el.top_experts(old, "a", 4)
    assert el.steer(old, "a", top=5).units == el.steer(found, "a", top=5).units
    assert "expert" not in el.steer(old, "a", top=5).table
    with pytest.raises(SelectionError, match="this table has no units of a mixture's experts"):
        el.steer(old, "a", top=5, experts=1)


# What may be done to them


def test_steering_an_expert_changes_only_tokens_that_are_routed_to_it(model, reference):
    token_ids = np.random.default_rng(3).integers(4, families.VOCABULARY, (4, 6))
    mask, last = np.ones(token_ids.shape, bool), model.config.num_layers - 1
    router = model.capture(token_ids, sites="mlp.router")["mlp.router"][last]
    routed = np.asarray(route(router, model.config).reached)[..., 2]
    assert routed.any() and not routed.all()
    units = model.units.query(f"site == 'mlp.up' and layer == {last} and expert == 2")
    steered = np.asarray(model(token_ids, mask, steering=el.steer_units(model, units, 0.0, 3.0)))
    changed = np.abs(steered - np.asarray(model(token_ids, mask))).max(-1) > 1e-6
    np.testing.assert_array_equal(changed, routed)

    forced = el.steer_units(model, model.units.query(f"site == 'mlp.router' and layer == {last}").iloc[[2]], 0.0, 99.0)
    everywhere = np.asarray(route(jnp.asarray(router).at[..., 2].set(99.0), model.config).reached)[..., 2]
    assert everywhere.all()
    values = model.respond(token_ids, mask, sites="mlp.act", steering=forced)
    of_expert = np.asarray(values).reshape(4, -1, EXPERTS, WIDTH)[:, last, 2]
    assert (of_expert != 0).all()


def test_interventions_see_nothing_at_tokens_that_are_not_routed_and_change_nothing_there(model):
    token_ids = [[5, 6, 7, 8]]
    reached = np.asarray(route(model.capture(token_ids, sites="mlp.router")["mlp.router"][0], model.config).reached)
    plain = np.asarray(model.capture(token_ids, sites="mlp.act")["mlp.act"])[0].reshape(1, 4, EXPERTS, WIDTH)
    assert (plain[~reached] == 0).all() and (plain[reached] != 0).all()
    flood = el.intervene("mlp.act", lambda x, at: jnp.ones_like(x), layers=0)
    seen = np.asarray(model.capture(token_ids, sites="mlp.act", interventions=flood)["mlp.act"])[0]
    assert (seen.reshape(plain.shape) == np.broadcast_to(reached[..., None], plain.shape)).all()


@pytest.mark.parametrize(
    ("site", "why"),
    [
        ("mlp.router", r"the router|router chooses experts within the module"),
        ("mlp.up", "computes all its experts within one module"),
    ],
)
def test_what_no_hook_reaches_is_not_exported_to_pytorch(model, reference, site, why):
    units = model.units[model.units["site"] == site].head(2)
    with pytest.raises(SelectionError, match=rf"units of the site {site} can't be steered in PyTorch: .*{why}"):
        el.steer_units(model, units).to_torch(reference)


def test_autoencoders_within_experts_are_refused(model):
    channels = model.config.site_channels()["mlp.act"]
    sae = el.SAE(np.eye(channels, 6, dtype=np.float32), np.zeros(6, np.float32), layer=0, site="mlp.act", name="mine")
    with pytest.raises(UnsupportedSAEError, match=r"mine reads mlp.act. Each of .*experts has its own"):
        model.with_sae(sae)
    with pytest.raises(SelectionError, match=r"no autoencoder can be trained on mlp.act of .* Read mlp.down or resid"):
        prepare_reading(model, 0, "mlp.act")


def test_an_experts_neuron_raises_what_its_row_of_down_reads(model, reference):
    layer, expert, channel = 1, 2, 5
    told = el.logit_effect(model, (layer, "mlp.act", expert * WIDTH + channel), 3)
    row = reference.model.layers[layer].mlp.experts.down_proj[expert, :, channel].detach()
    effects = (reference.lm_head.weight.detach() @ (row * reference.model.norm.weight.detach())).numpy()
    np.testing.assert_allclose(told["effect"], effects[told["token_id"]], atol=1e-5)
    with pytest.raises(
        SelectionError, match="mlp.router 1 doesn't write to the residual stream.*chooses which experts"
    ):
        el.logit_effect(model, (0, "mlp.router", 1))


# Files and configs


def fused(tensors, **more):
    """A file's tensors as transformers has them in memory: one tensor for all experts."""
    kept = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    for layer in range(CASE.options["num_hidden_layers"]):
        start = f"model.layers.{layer}.mlp.experts."

        def of(name, start=start):
            return torch.stack([tensors[f"{start}{expert}.{name}.weight"] for expert in range(EXPERTS)])

        kept[start + "gate_up_proj"] = torch.cat([of("gate_proj"), of("up_proj")], dim=1)
        kept[start + "down_proj"] = of("down_proj")
    return kept | more


@pytest.fixture
def files(directory, tmp_path):
    """A copy of the directory without weights, its tensors, and a function that writes them."""
    for path in directory.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = safetensors.torch.load_file(directory / "model.safetensors")

    def write(tensors):
        safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "model.safetensors")
        return tmp_path

    return tensors, write


def test_experts_in_one_tensor_are_read_as_experts_apart(model, files):
    tensors, write = files
    loaded = el.load_model(write(fused(tensors)))
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded.params, model.params))


def test_a_missing_expert_is_named(files):
    tensors, write = files
    del tensors["model.layers.1.mlp.experts.3.up_proj.weight"]
    with pytest.raises(CheckpointError, match=r"lacks 1 tensor \(model.layers.1.mlp.experts.3.up_proj.weight\)"):
        el.load_model(write(tensors))


def test_experts_given_twice_have_to_be_the_same(files):
    tensors, write = files
    twice = fused(tensors) | tensors
    el.load_model(write(twice))
    twice["model.layers.0.mlp.experts.2.down_proj.weight"] = torch.zeros(CASE.options["hidden_size"], WIDTH)
    with pytest.raises(CheckpointError, match=r"which are the same tensor of a olmoe model, with different values"):
        el.load_model(write(twice))


def test_fewer_experts_than_the_config_says_are_refused(files):
    tensors, write = files
    with pytest.raises(CheckpointError, match=r"lacks 6 tensors \(model.layers.0.mlp.experts.3.down_proj.weight, "):
        el.load_model(write({name: each for name, each in tensors.items() if ".experts.3." not in name}))


GPT_OSS = next(case for case in families.CASES if case.name == "gpt_oss")


@pytest.fixture(scope="module")
def quantised(tmp_path_factory):
    """A gpt-oss with what PyTorch makes of its experts in MXFP4, and one with these, as the hub's files have them."""
    case = families.Case("gpt_oss", "GptOssConfig", GPT_OSS.options | dict(hidden_size=64, intermediate_size=32))
    plain = families.save(families.make_hf_model(case), tmp_path_factory.mktemp("plain"))
    packed = families.save(families.make_hf_model(case), tmp_path_factory.mktemp("packed"))
    tensors = safetensors.torch.load_file(plain / "model.safetensors")
    experts, rng = dict(tensors), np.random.default_rng(0)
    for name in [name for name in tensors if re.fullmatch(r".*experts\.(gate_up|down)_proj", name)]:
        _, inputs, outputs = tensors.pop(name).shape
        blocks = torch.tensor(rng.integers(0, 256, (4, outputs, inputs // 32, 16), np.uint8))
        scales = torch.tensor(rng.integers(120, 126, (4, outputs, inputs // 32), np.uint8))
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        experts[name] = convert_moe_packed_tensors(blocks, scales).float()
    safetensors.torch.save_file(experts, plain / "model.safetensors")
    safetensors.torch.save_file(tensors, packed / "model.safetensors")
    config = json.loads((packed / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "mxfp4"}}))
    return plain, packed


def test_mxfp4_is_read_as_pytorch_dequantises_it(quantised):
    plain, packed = map(el.load_model, quantised)
    assert jax.tree.all(jax.tree.map(np.array_equal, packed.params, plain.params))
    token_ids = np.random.default_rng(0).integers(4, families.VOCABULARY, (2, 9))
    theirs = hooks.run(
        transformers.AutoModelForCausalLM.from_pretrained(quantised[0], attn_implementation="eager", **families.EAGER),
        token_ids,
        np.ones(token_ids.shape, bool),
    )
    np.testing.assert_allclose(np.asarray(packed(token_ids)), theirs, atol=1e-4, rtol=0)


def test_a_part_of_a_quantised_tensor_is_that_part_of_the_whole():
    rng = np.random.default_rng(1)
    arrays = [rng.integers(0, 256, shape, np.uint8) for shape in ((2, 5, 3, 16), (2, 5, 3))]
    whole = quantised_tensor(*(StoredTensor(each.shape, "U8", each.__getitem__) for each in arrays))
    assert whole.shape == (2, 5, 96)
    everything = whole.read((slice(0, 2), slice(0, 5), slice(0, 96)))
    np.testing.assert_array_equal(everything, dequantise(*arrays))
    part = slice(1, 2), slice(2, 4), slice(30, 70)
    np.testing.assert_array_equal(whole.read(part), everything[part])


def test_blocks_without_their_scales_and_other_ways_of_quantising_are_refused(quantised, tmp_path):
    for path in quantised[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.0.mlp.experts.down_proj_scales"]
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has unexpected 1 tensor \(model.layers.0.mlp.experts.down_proj_blocks"):
        el.load_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for model_type, method in ("gpt_oss", "awq"), ("mixtral", "mxfp4"):
        stated = config | {"model_type": model_type, "quantization_config": {"quant_method": method}}
        (tmp_path / "config.json").write_text(json.dumps(stated))
        with pytest.raises(CheckpointError, match=rf"this {model_type} checkpoint is quantised"):
            el.load_model(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (transformers.MixtralConfig(num_local_experts=0), "mixtral config says num_experts=0; wanted 1 or more"),
        (
            transformers.OlmoeConfig(num_experts=4, num_experts_per_tok=5),
            "olmoe config says num_experts_per_tok=5; wanted is a number from 1 to that of experts, 4",
        ),
        (transformers.Qwen3MoeConfig(mlp_only_layers=[3]), "qwen3_moe config says mlp_only_layers=[3]; only [] is"),
    ],
)
def test_configs_of_other_mixtures_are_refused(config, message):
    with pytest.raises(UnsupportedModelError, match=re.escape(message)):
        family_of(config).translate(config)


def test_what_pytorch_computes_is_what_the_parity_table_computes_by_hand(reference):
    """The mixture that parity is tested against, where no hook reaches, gives transformers' own logits."""
    token_ids = np.random.default_rng(0).integers(4, families.VOCABULARY, (2, 9))
    mask = np.ones(token_ids.shape, bool)
    plain, shown = hooks.run(reference, token_ids, mask), []
    with hooks.hooked(reference, ["model.layers.0.mlp@mlp.up"], lambda address, values: shown.append(values.shape)):
        by_hand = hooks.run(reference, token_ids, mask)
    np.testing.assert_allclose(by_hand, plain, atol=1e-5, rtol=0)
    assert shown == [(2, 9, EXPERTS * WIDTH)]


def test_a_shared_expert_has_units_that_hooks_reach_and_no_straight_way_to_the_logits(tmp_path):
    case = next(case for case in families.CASES if case.name == "qwen2_moe")
    model = el.load_model(families.save(families.make_hf_model(case), tmp_path))
    up = model.units[model.units["site"] == "mlp.shared_up"]
    assert (up["expert"] == -1).all() and len(up) == model.config.num_layers * 13
    assert up["hf_module"].iloc[0] == "model.layers.0.mlp.shared_expert.up_proj"
    router = model.units[model.units["site"] == "mlp.shared_router"]
    assert router["hf_module"].tolist() == [f"model.layers.{layer}.mlp.shared_expert_gate" for layer in range(2)]
    with pytest.raises(
        SelectionError, match=r"mlp.shared_act 1 doesn't write .* weighted anew at every token; ask for"
    ):
        el.logit_effect(model, (0, "mlp.shared_act", 1))
    token_ids = np.full((1, 3), 7)
    off = model(token_ids, steering=el.steer_units(model, router, 0.0, -99.0))  # its sigmoid is 0
    silent = model(
        token_ids, steering=el.steer_units(model, model.units[model.units["site"] == "mlp.shared_down"], 0.0)
    )
    np.testing.assert_allclose(off, silent, atol=1e-5, rtol=0)
    assert np.abs(np.asarray(off - model(token_ids))).max() > 1e-3
