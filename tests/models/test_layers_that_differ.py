"""Models whose layers differ in width (Gemma 4): only what a layer has are units, and what can't be done is told."""

import families
import hooks
import numpy as np
import pytest
import safetensors.torch
import torch

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError, SelectionError
from expertlens_jax.experts.budget import Budget, plan_passes
from expertlens_jax.experts.learned_steering import _learnable
from expertlens_jax.models.saving import save_model
from expertlens_jax.models.sites import SITES, layer_widths, own_columns
from expertlens_jax.models.units import units_table
from expertlens_jax.training.activations import prepare_reading, tokenize_pieces

pytestmark = pytest.mark.compiled_quickly

NAMES = ("gemma4_text", "gemma4_text-31b")
SENTENCES = tuple(f"{word} {other} {last}" for word in "ab" for other in ("be", "di", "fo") for last in "xyz")
CONCEPTS = el.ConceptDataset(
    name="letters",
    sentences=SENTENCES,
    concepts=("a", "b"),
    domains=("", ""),
    labels=np.repeat(np.eye(2, dtype=bool), 9, axis=1),
    negative_pool=np.ones(18, bool),
)


@pytest.fixture(scope="module", params=NAMES)
def pair(request, tmp_path_factory):
    return load(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("small")


@pytest.fixture(scope="module")
def model(directory):
    return load("gemma4_text", directory)[1]


def load(name, directory):
    case = next(case for case in families.CASES if case.name == name)
    directory = families.save(families.make_hf_model(case), directory)
    return families.load_hf_model(case, directory, torch.float32), el.load_model(directory)


def test_units_are_the_channels_that_pytorchs_modules_have(pair):
    reference, model = pair
    modules = {name: module for name, module in reference.named_modules() if isinstance(module, torch.nn.Linear)}
    of_layers = {name: module for name, module in modules.items() if "proj" in name and "per_layer" not in name}
    found = {module: rows["hf_channel"].tolist() for module, rows in model.units.groupby("hf_module")}
    assert found == {name: list(range(module.out_features)) for name, module in of_layers.items()}
    assert len({len(channels) for channels in found.values()}) > 3
    by_layer = model.units.groupby(["layer", "site"], observed=True).size()
    for (layer, site), size in by_layer.items():
        assert layer_widths(SITES[site], model.config)[layer] == size


def test_columns_beside_units_are_left_out(model):
    """0, 12 and 24 of 24 channels; counted from the first of the layers that are asked for."""
    columns = own_columns(model.config, ("attn.k",), (1, 4))
    np.testing.assert_array_equal(columns, [*range(24), *range(24, 36)])
    assert own_columns(model.config, ("attn.k",), (3, 5)).size == 0
    assert own_columns(model.config, ("resid", "attn.out")) is None


def test_a_head_is_the_length_of_its_part_of_z(pair):
    reference, model = pair
    token_ids, mask = np.random.default_rng(0).integers(4, families.VOCABULARY, (2, 9)), np.ones((2, 9), bool)
    seen = {}
    with hooks.hooked(reference, [f"model.layers.{i}.self_attn.o_proj#input" for i in range(1, 3)], seen.__setitem__):
        hooks.run(reference, token_ids, mask)
    norms = [each.unflatten(-1, (model.config.num_heads, -1)).norm(dim=-1).amax(1) for each in seen.values()]
    ours = np.asarray(model.respond(token_ids, mask, sites="attn.head"))
    wanted = torch.cat(norms, 1).detach().numpy()
    np.testing.assert_allclose(ours[:, model.config.num_heads : 3 * model.config.num_heads], wanted, atol=1e-5)


@pytest.mark.parametrize("options", [dict(passes=5), dict(budget=Budget(0, 0, 10**9), passes=2)], ids=str)
def test_finding_is_recording_and_measuring(model, tmp_path, options):
    """By passes too, though the last layers have no unit at all of these sites."""
    sites = ("attn.k", "attn.v")
    found = el.find_experts(model, CONCEPTS, tmp_path, sites=sites, permutations=3, **options)
    wanted = el.measure_expertise(el.record_responses(model, SENTENCES, sites=sites), CONCEPTS)
    assert set(found["layer"].values) == {0, 1, 2} and found.sizes["unit"] == 2 * (12 + 24 + 12)
    for name in ("layer", "site", "channel"):
        np.testing.assert_array_equal(found[name].values, wanted[name].values)
    np.testing.assert_allclose(found["average_precision"].values, wanted["average_precision"].values, atol=2e-6)


def test_layers_without_units_have_no_pass():
    assert plan_passes(10, [4, 0, 6, 0, 0], Budget(10**6, 0, 0, passes=5), devices=1).layers == ((0, 1), (2, 3))


def test_a_steering_is_saved_loaded_and_made_of_an_expertise(model, tmp_path):
    expertise = el.measure_expertise(el.record_responses(model, SENTENCES), CONCEPTS)
    steering = el.steer(expertise, "a", top=400)
    assert len({layer for layer, _, _ in steering.units}) == model.config.num_layers
    steering.save(tmp_path / "a.json")
    again = el.load_steering(tmp_path / "a.json")
    token_ids = np.arange(4, 16).reshape(2, 6)
    ours = np.asarray(model(token_ids, steering=again))
    np.testing.assert_array_equal(ours, model(token_ids, steering=steering))
    assert np.abs(ours - np.asarray(model(token_ids))).max() > 1e-2


def test_steered_units_say_their_value_where_some_layers_are_narrower(pair):
    """At the last unit of each layer's site, beyond which narrower layers have none."""
    _, model = pair
    units = units_table(model.family, model.config, tuple(model.config.site_channels()))
    chosen = units.groupby(["layer", "site"], observed=True).tail(1)
    chosen = chosen[~chosen["site"].isin(["resid", "resid.pre"])]
    steering = el.steer_units(model, chosen, scale=0.0, shift=1.25)
    sites = tuple(model.config.site_channels())
    values = np.asarray(model.respond(np.arange(4, 16).reshape(2, 6), sites=sites, steering=steering))
    assert (values[:, chosen.index] == 1.25).all()


def test_units_that_a_layer_does_not_have_are_refused(model, directory, tmp_path):
    units = model.units.query("site == 'attn.q' and layer == 1").tail(1)
    assert units["channel"].item() == 47
    with pytest.raises(SelectionError, match=r"layer 0.*attn.q"):
        el.steer_units(model, units.assign(layer=0))
    with pytest.raises(SelectionError, match=r"layer 4.*attn.k"):
        el.steer_units(model, units.assign(layer=4, site="attn.k", channel=0))
    wide = next(case for case in families.CASES if case.name == "gemma4_text")
    options = {"layer_types": ["full_attention"] + ["sliding_attention"] * 3 + ["full_attention"]}
    other = families.Case("other", wide.config, wide.options | options | {"num_kv_shared_layers": 0})
    other = el.load_model(families.save(families.make_hf_model(other), tmp_path))
    steering = el.steer_units(other, units.assign(layer=0))
    with pytest.raises(SelectionError, match=r"it has the unit L0 attn.q 47, and that layer has 24 channels of attn.q"):
        model([[5, 6]], steering=steering)
    late = el.When(unit=(0, "attn.q", 47), above=0.0)
    with pytest.raises(SelectionError, match=r"has no such unit: attn.q has the channels 0 to 47, .*layer 0 has 24"):
        el.steer_units(model, model.units.tail(1), when=late)


@pytest.mark.parametrize(
    ("site", "widths"), [("attn.z", "24 or 48"), ("mlp.act", "37 or 74"), ("attn.k", "0 or 12 or 24")]
)
def test_what_takes_layers_of_one_width_is_refused_by_name(model, site, widths):
    message = (
        f"the site {site} was given to be %s; layers of .* have {widths} channels there, and this takes layers that "
        f"are alike: resid.pre, attn.head, attn.out, mlp.down, resid. Single units of {site} can be recorded, traced"
    )
    with pytest.raises(SelectionError, match=message % "captured"):
        model.capture([[5, 6]], sites=site)
    with pytest.raises(SelectionError, match=message % "intervened on"):
        model([[5, 6]], interventions=el.cap(site, 0.5))
    with pytest.raises(SelectionError, match=message % "read"):
        prepare_reading(model, 1, site)


def test_single_units_are_traced(pair):
    """As PyTorch's modules have them at every token."""
    reference, model = pair
    units = model.units.groupby(["layer", "site"], observed=True).tail(1).reset_index(drop=True)
    seen = el.trace(model, ["a b be"], units)
    ids = np.array([model.tokenizer("a b be")["input_ids"]])
    held = {}
    with hooks.hooked(reference, list(units["hf_module"]), held.__setitem__):
        hooks.run(reference, ids, np.ones_like(ids))
    addresses = zip(units["hf_module"], units["hf_channel"], strict=True)
    wanted = np.stack([held[module][0, :, channel].detach().numpy() for module, channel in addresses], axis=1)
    own = slice(1, -1) if len(seen.activations[0]) < len(wanted) else slice(None)
    np.testing.assert_allclose(seen.activations[0], wanted[own], atol=1e-4)


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_the_stream_is_read_for_autoencoders_without_the_layers_above(model, layer):
    """The first layer alone has narrow heads; the fourth takes keys and values of the third."""
    tokens = tokenize_pieces(model.tokenizer, SENTENCES[:2], 8)
    reader = prepare_reading(model, layer, "resid")
    assert reader.network.config.num_layers == layer + 1
    held = np.asarray(model.capture([np.asarray(ids) for ids in tokens.ids], sites="resid")["resid"])[layer]
    wanted = np.concatenate([row[: len(own)][own] for row, own in zip(held, tokens.in_pool, strict=True)])
    np.testing.assert_allclose(reader.read(tokens), wanted, atol=1e-5)


def test_an_autoencoder_of_a_narrower_layer_is_refused(model):
    def sae(layer, site, channels):
        return el.SAE(np.ones((channels, 7), np.float32), np.zeros(7, np.float32), layer=layer, site=site)

    with pytest.raises(
        CheckpointError, match=r"reads mlp.act of layer 1, where .* has 37 channels and other layers 74"
    ):
        model.with_sae(sae(1, "mlp.act", 37))

    carrying = model.with_sae(sae(3, "mlp.act", 74))
    held = el.record_responses(model, SENTENCES[:2], sites="mlp.act", pooling="last")
    found = el.record_responses(carrying, SENTENCES[:2], sites="sae", pooling="last").values
    wanted = np.maximum(held.values[:, held["layer"].values == 3].sum(1), 0)
    np.testing.assert_allclose(found, np.repeat(wanted[:, None], 7, axis=1), atol=1e-4)


def test_means_and_spreads_of_steerings_to_learn_are_each_units(model):
    sites = ("attn.q", "attn.v")
    units = model.units[model.units["site"].isin(sites)].assign(site=lambda table: table["site"].astype(str))
    found = _learnable(model, units, sites, list(SENTENCES))
    told = el.record_responses(model, SENTENCES, sites=sites, pooling="mean")
    for layer, site, channel in zip(units["layer"], units["site"], units["channel"], strict=True):
        own = (told["layer"].values == layer) & (told["site"].values == site) & (told["channel"].values == channel)
        assert found.chosen[site][layer, channel]
        assert found.mean[site][layer, channel] == pytest.approx(told.values[:, own].mean(), abs=1e-6)
        assert found.spread[site][layer, channel] == pytest.approx(told.values[:, own].std(), abs=1e-6)
    assert found.chosen["attn.v"].sum() == 48 and found.mean["attn.v"].shape == (5, 24)


def test_random_weights_are_of_what_layers_have(pair, tmp_path):
    """Written as PyTorch's tensors and read again they are the same, and so is what they compute."""
    _, model = pair
    name = "gemma4_text-31b" if model.config.global_values_are_keys else "gemma4_text"
    hf = families.make_config(next(case for case in families.CASES if case.name == name))
    random = el.randomize_weights(model, seed=1)
    save_model(tmp_path, random.params, hf, model.tokenizer)
    again = el.load_model(tmp_path)
    assert again.digest == random.digest
    token_ids = np.arange(4, 16).reshape(2, 6)
    np.testing.assert_array_equal(again(token_ids), random(token_ids))


def test_keys_that_no_layer_takes_are_left_in_the_file(model, directory, tmp_path):
    """As the hub's files hold them; other strangers are told."""
    tensors = safetensors.torch.load_file(directory / "model.safetensors")
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    unread = {
        f"model.layers.{i}.self_attn.{name}.weight": torch.ones(3) for i in (3, 4) for name in ("k_proj", "v_norm")
    }
    unread = {name.replace("v_norm", "k_norm"): tensor for name, tensor in unread.items()}
    safetensors.torch.save_file(tensors | unread, tmp_path / "model.safetensors")
    assert el.load_model(tmp_path).digest == model.digest
    safetensors.torch.save_file(
        tensors | {"model.layers.2.self_attn.k_norm.bias": torch.ones(3)}, tmp_path / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match=r"has unexpected 1 tensor \(model.layers.2.self_attn.k_norm.bias\)"):
        el.load_model(tmp_path)
    del tensors["model.layers.1.self_attn.k_proj.weight"]
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks 1 tensor \(model.layers.1.self_attn.k_proj.weight\)"):
        el.load_model(tmp_path)


def test_a_tensor_of_another_layers_width_is_refused(directory, tmp_path):
    tensors = safetensors.torch.load_file(directory / "model.safetensors")
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.ones(74, 24)
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"gives layers/mlp/up/kernel the shape \[24, 74\], but .* wants \[24, 37\]"
    ):
        el.load_model(tmp_path)
