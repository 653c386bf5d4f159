"""What a number follows from: no run answers another question than it was asked, and what doesn't fit isn't joined."""

import dataclasses
import json
import re

import families
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.conditions.settling import overlap_with_last
from expertlens_jax.analysis.conditions.stability import compare_conditions
from expertlens_jax.analysis.steering.effects import Continuations, expert_response
from expertlens_jax.analysis.structure.matched_controls import compare_matched
from expertlens_jax.analysis.structure.polysemanticity import compare_shared, distribute_shared
from expertlens_jax.errors import ExpertLensWarning, ResponsesError, RunDirectoryError, SelectionError
from expertlens_jax.models import digests, provenance
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.provenance import read_provenance
from expertlens_jax.models.rotary import Rotary

pytestmark = pytest.mark.compiled_quickly


def save(name, directory, **options):
    case = next(case for case in families.CASES if case.name == name)
    case = dataclasses.replace(case, options=case.options | options)
    return families.save(families.make_hf_model(case), directory)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save("llama", tmp_path_factory.mktemp("llama"), num_hidden_layers=2)


@pytest.fixture(scope="module")
def model(directory):
    return el.load_model(directory, name="llama")


@pytest.fixture(scope="module")
def tuned(model):
    """The model after some more training, under the same name."""
    return model.replace(params=jax.tree.map(lambda leaf: leaf * 1.01, dict(model.params)))


def make_concepts():
    words = "xyz"
    sentences = [f"{word} {first} {' '.join('abcdefgh')}" for word in words for first in "klmnop"]
    labels = np.repeat(np.eye(3, dtype=bool), 6, axis=1)
    return el.ConceptDataset(
        "letters", tuple(sentences), tuple(words), ("end", "end", "last"), labels, np.ones(len(sentences), bool)
    )


CONCEPTS = make_concepts()


def find(model, workdir, **options):
    return el.find_experts(model, CONCEPTS, workdir, **dict(halves=False, permutations=0) | options)


@pytest.fixture(scope="module")
def found(model, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("found") / "run"
    return workdir, find(model, workdir).load()


@pytest.fixture(scope="module")
def responses(model):
    return el.record_responses(model, CONCEPTS.sentences)


@pytest.fixture(scope="module")
def expertise(responses):
    return el.measure_expertise(responses, CONCEPTS)


# A finished run is handed out to the very same question only.


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 3.0}}, "config.rotary.base: 10000.0 there, 3.0"),
        ({"hidden_act": "gelu"}, "config.activation: 'silu' there, 'gelu' asked for"),
        ({"rms_norm_eps": 0.5}, "config.norm_eps: 0.001 there, 0.5 asked for"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}, "config.rotary.factor"),
    ],
)
def test_a_run_of_another_config_is_refused_by_the_setting(model, directory, found, tmp_path, change, named):
    other = tmp_path / "other"
    other.mkdir()
    for file in directory.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    stated = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(stated | change))
    changed = el.load_model(other, name="llama")
    assert changed._weights_digest == model._weights_digest and changed.digest != model.digest
    with pytest.raises(RunDirectoryError, match=re.escape(named)):
        find(changed, found[0])
    fresh = find(changed, tmp_path / "fresh")["average_precision"].values
    want = el.measure_expertise(el.record_responses(changed, CONCEPTS.sentences), CONCEPTS)["average_precision"].values
    np.testing.assert_allclose(fresh, want, atol=1e-6)
    assert np.abs(fresh - found[1]["average_precision"].values).max() > 0.01


def test_the_same_files_under_another_path_are_the_same_question(found, directory, tmp_path):
    moved = tmp_path / "checkpoint-500"
    moved.mkdir()
    for file in directory.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    again = el.load_model(moved, name="llama")
    xr.testing.assert_identical(find(again, found[0]).load(), found[1])
    assert el.load_model(moved).name == "checkpoint-500"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (dict(centred=True), "saes.0.centred: False there, True asked for"),
        (dict(k=9), "saes.0.k: 3 there, 9 asked for"),
        (dict(normalize="layer_norm"), "saes.0.normalize: 'none' there, 'layer_norm' asked for"),
        (dict(site="mlp.down"), "saes.0.site: 'resid' there, 'mlp.down' asked for"),
        (dict(layer=0), "saes.0.layer: 1 there, 0 asked for"),
        (dict(scaled=2.0), "saes.0.weights: "),
    ],
)
def test_a_run_of_another_autoencoder_is_refused_by_the_setting(carrier, change, named):
    model, sae, workdir, table = carrier
    scaled = change.get("scaled", 1.0)
    other = sae.replace(**{k: v for k, v in change.items() if k != "scaled"}, bias=sae.bias * scaled)
    carrying = model.with_sae(other)
    with pytest.raises(RunDirectoryError, match=re.escape(named)):
        find(carrying, workdir, sites=("sae",))
    xr.testing.assert_identical(find(model.with_sae(sae), workdir, sites=("sae",)).load(), table)


@pytest.fixture(scope="module")
def carrier(tmp_path_factory):
    """A model, an autoencoder of it, and a finished run of its features."""
    model = el.load_model(save("gpt2", tmp_path_factory.mktemp("gpt2"), n_layer=2), name="gpt2")
    rng = np.random.default_rng(0)
    encoder, bias = rng.normal(size=(24, 50)).astype(np.float32), rng.normal(size=50).astype(np.float32)
    sae = el.SAE(encoder, bias, layer=1, site="resid", k=3)
    workdir = tmp_path_factory.mktemp("features") / "run"
    return model, sae, workdir, find(model.with_sae(sae), workdir, sites=("sae",)).load()


def test_what_else_changes_numbers_is_part_of_the_question(model, found):
    with jax.default_matmul_precision("bfloat16"):
        with pytest.raises(RunDirectoryError, match=r"\(matmul_precision: None there, 'bfloat16' asked for\)"):
            find(model, found[0])
    halved = model.replace(dtype="bfloat16", params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model.params))
    with pytest.raises(RunDirectoryError, match="dtype: 'float32' there, 'bfloat16' asked for"):
        find(halved, found[0])
    for options, named in (
        (dict(pooling="mean"), "pooling: 'max' there, 'mean' asked for"),
        (dict(pool_over="others"), "pool_over: None there, 'others' asked for"),
        (dict(truncate=True), "truncate: False there, True asked for"),
        (dict(tokens_per_batch=99), "tokens_per_batch: 1024 there, 99 asked for"),
        (dict(seed=3), "seed: 0 there, 3 asked for"),
    ):
        with pytest.raises(RunDirectoryError, match=named):
            find(model, found[0], **options)
    relabelled = dataclasses.replace(CONCEPTS, labels=CONCEPTS.labels[::-1].copy())
    with pytest.raises(RunDirectoryError, match=r"another config \(concepts_sha256: "):
        el.find_experts(model, relabelled, found[0], halves=False, permutations=0)


def test_a_version_that_gives_other_numbers_takes_no_earlier_run(model, found, monkeypatch):
    later = provenance.Provenance(**vars(model.provenance) | {"numbers_version": provenance.NUMBERS_VERSION + 1})
    monkeypatch.setattr("expertlens_jax.models.model.provenance_of", lambda *_: later)
    with pytest.raises(RunDirectoryError, match=r"another config \(numbers_version: \d there, \d asked for\)"):
        find(model, found[0])


def test_a_run_of_an_earlier_version_is_told_and_can_be_read(model, found, tmp_path):
    """0.1.0 wrote neither the model's config nor which version of numbers it gave."""
    workdir = tmp_path / "run"
    find(model, workdir)
    written = json.loads((workdir / "config.json").read_text())
    new = ("config", "numbers_version", "sentences_sha256", "concepts_sha256", "contrast_sha256")
    (workdir / "config.json").write_text(json.dumps({k: v for k, v in written.items() if k not in new}))
    with pytest.raises(RunDirectoryError) as refused:
        find(model, workdir)
    lacking = re.search(r"lacks (.*?)\. It is an earlier version's", str(refused.value)).group(1)
    assert set(lacking.split(", ")) == set(new)
    assert el.open_expertise(workdir)["average_precision"].shape == found[1]["average_precision"].shape
    (workdir / "config.json").write_text("not JSON")
    with pytest.raises(RunDirectoryError, match="is no config that a run wrote"):
        find(model, workdir)


def test_an_option_that_is_added_with_its_default_changes_no_digest():
    @dataclasses.dataclass(frozen=True)
    class Later(TransformerConfig):
        sinks: int = 0

    sizes = dict(vocab_size=9, num_layers=2, d_model=8, num_heads=2, num_kv_heads=2, head_dim=4, d_mlp=9, max_tokens=9)
    options = sizes | dict(activation="silu", windows=(3, 0), rotary=Rotary(dim=4, base=3.0))
    stated = digests.stated_options(TransformerConfig(**options))
    assert stated == options | {"windows": [3, 0], "rotary": {"dim": 4, "base": 3.0}}
    assert digests.stated_options(Later(**options)) == stated
    assert digests.stated_options(Later(**options, sinks=4)) == stated | {"sinks": 4}


def test_weights_that_differ_anywhere_have_another_digest():
    rng = np.random.default_rng(0)
    params = {
        "norm": {"scale": rng.normal(size=7)},
        "kernel": rng.normal(size=(5, 7)),
        "other": rng.normal(size=(5, 7)),
    }
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    seen = [digests.digest_arrays(params)]

    def changed(name, array):
        seen.append(digests.digest_arrays(params | {name: array}))

    for i in range(7):  # two signs, which sums of bits could take for each other
        for j in range(i):
            flipped = np.ones(7, np.float32)
            flipped[[i, j]] = -1
            changed("norm", {"scale": params["norm"]["scale"] * flipped})
    kernel = params["kernel"]
    for array in (kernel[::-1], kernel[:, ::-1], kernel.T, kernel.reshape(7, 5), -kernel, kernel.at[0, 0].add(1e-7)):
        changed("kernel", array)
    for axis in (0, 1):
        changed("kernel", jnp.roll(kernel, 1, axis))
    changed("kernel", params["other"])
    seen.append(digests.digest_arrays({**params, "kernel": params["other"], "other": kernel}))
    assert len(set(seen)) == len(seen)
    assert digests.digest_arrays(params) == seen[0]
    half = params | {"kernel": kernel.astype(jnp.bfloat16)}
    assert digests.digest_arrays(half) == digests.digest_arrays(half | {"kernel": half["kernel"].astype(jnp.float32)})


def test_a_tokenizer_is_told_by_its_file_and_not_by_its_last_call():
    tokenizer = families.tokenizer()
    before = digests.digest_tokenizer(tokenizer)
    tokenizer(["a b c"], truncation=True, max_length=2, padding="max_length")
    tokenizer.chat_template = "{{ messages }}"
    assert digests.digest_tokenizer(tokenizer) == before
    tokenizer.add_tokens(["newword"])
    assert digests.digest_tokenizer(tokenizer) != before


def test_a_dataset_in_a_run_directory_is_of_one_question(tmp_path):
    from expertlens_jax.run_directory import saved_dataset

    path = tmp_path / "more.zarr"
    kept = xr.Dataset({"x": ("i", np.arange(3.0))}, attrs={"mine": 1})
    for _ in range(2):
        xr.testing.assert_identical(saved_dataset(path, lambda: kept, {"model": {"weights": "a"}, "top": 3}), kept)
    with pytest.raises(RunDirectoryError, match=r"of something else \(model.weights: 'a' there, 'b' asked for\)"):
        saved_dataset(path, lambda: kept, {"model": {"weights": "b"}, "top": 3})
    kept.to_zarr(str(tmp_path / "old.zarr"), consolidated=False)
    with pytest.raises(RunDirectoryError, match="old.zarr doesn't say what it follows from: an earlier version"):
        saved_dataset(tmp_path / "old.zarr", lambda: kept, {"top": 3})


# Provenance travels.


def test_it_goes_from_the_model_to_the_steering(model, responses, expertise, found, tmp_path):
    own = responses.provenance
    assert (own.model, own.model_digest, own.pooling, own.pool_over) == ("llama", model.digest, "max", "all")
    assert own.sites == tuple(dict.fromkeys(model.units["site"])) and own.steering == "" and own.package
    for table in (expertise, found[1]):
        assert read_provenance(table.attrs) == own
        assert all(isinstance(value, str | int | float) for value in table.attrs.values())
        json.dumps(table.attrs)
    assert (
        expertise.attrs["pooling"] == "max" and expertise.attrs["concepts_sha256"] == found[1].attrs["concepts_sha256"]
    )
    numeric = expertise[["average_precision"]].reset_coords(drop=True)
    numeric.to_netcdf(tmp_path / "table.nc")
    with xr.open_dataset(tmp_path / "table.nc") as stored:
        assert read_provenance(stored.attrs) == own
    expertise.to_zarr(str(tmp_path / "table.zarr"), consolidated=False)
    with xr.open_zarr(str(tmp_path / "table.zarr"), consolidated=False) as stored:
        assert read_provenance(stored.attrs) == own
    assert read_provenance(el.select_experts(expertise, threshold=0.5).attrs) == own
    steering = el.steer(expertise, "x", top=4, strength=0.5)
    steering.save(tmp_path / "x.json")
    assert el.load_steering(tmp_path / "x.json").provenance == steering.provenance == own


def test_responses_say_what_was_done_to_the_model(model, expertise):
    steering = el.steer(expertise, "x", top=4)
    steered = el.record_responses(model, CONCEPTS.sentences, steering=steering)
    assert steered.provenance.steering.startswith("Steering of llama: x, set_median; 4 units") and (
        steering.digest in steered.provenance.steering
    )
    with pytest.raises(ResponsesError, match="steering: '' and 'Steering of llama: x, set_median; 4 units"):
        el.measure_distributions(expertise, steered, CONCEPTS)
    by_hand = el.steer_units(model, model.units.head(3))
    assert by_hand.provenance.model_digest == model.digest and by_hand.provenance.pooling == ""


# Whoever joins what doesn't fit is refused, or told.


def test_a_table_and_responses_of_two_models_of_one_name_are_not_joined(tuned, model, expertise):
    theirs = el.record_responses(tuned, CONCEPTS.sentences)
    with pytest.raises(ResponsesError, match=r"of llama, the table of \d+ units of llama \(weights: '.{12}' and '"):
        el.measure_distributions(expertise, theirs, CONCEPTS)
    means = el.record_responses(model, CONCEPTS.sentences, pooling="mean")
    with pytest.raises(ResponsesError, match="pooling: 'max' and 'mean', of table and responses"):
        el.measure_distributions(expertise, means, CONCEPTS)
    backwards = means.units[::-1].reset_index(drop=True)
    shuffled = el.Responses.of(means.values, backwards, means.model, means.sentences)
    with pytest.raises(ResponsesError, match="Give the responses it was measured from"):
        el.measure_distributions(expertise, shuffled, CONCEPTS)
    renamed = el.record_responses(model.replace(name="mine"), CONCEPTS.sentences)
    assert "auroc" in el.measure_distributions(expertise, renamed, CONCEPTS, top=2)


def test_a_steering_is_told_from_another_model_s_by_the_weights(model, tuned, expertise, tmp_path):
    ids = np.arange(1, 9)[None]
    steering = el.steer(expertise, "x", top=4)
    expected = model(ids, steering=steering)  # no warning, nor under another name
    np.testing.assert_array_equal(model.replace(name="mine")(ids, steering=steering), expected)
    said = "is of llama and is applied to llama, whose units are others that stand at the same places .weights: '"
    with pytest.warns(ExpertLensWarning, match=said):
        theirs = tuned(ids, steering=steering)
    meant = steering.transfer(tuned)
    meant.save(tmp_path / "meant.json")
    for same in (meant, el.load_steering(tmp_path / "meant.json")):
        np.testing.assert_array_equal(tuned(ids, steering=same), theirs)
        np.testing.assert_array_equal(model(ids, steering=same), expected)
    with pytest.warns(ExpertLensWarning, match="is joined with one of llama, .* .weights: "):
        el.steer_units(tuned, model.units.head(2)).then(steering)
    joined = steering.then(el.steer(expertise, "y", top=4))
    assert joined.provenance == steering.provenance
    both = steering.then(el.steer_units(model, model.units.head(2)))
    assert both.provenance.model_digest == model.digest and both.provenance.pooling == ""


def test_a_steering_that_does_not_fit_cannot_be_meant(carrier, expertise):
    with pytest.raises(SelectionError, match="is of llama and doesn't fit gpt2"):
        el.steer(expertise, "x", top=4).transfer(carrier[0])


def test_a_steering_saved_by_an_earlier_version_is_told(model, expertise, tmp_path):
    el.steer(expertise, "x", top=4).save(tmp_path / "x.json")
    stored = json.loads((tmp_path / "x.json").read_text())
    del stored["provenance"], stored["transferred_to"]
    (tmp_path / "x.json").write_text(json.dumps(stored))
    with pytest.warns(ExpertLensWarning, match="saved by an earlier version, which says no more .* its name, llama"):
        loaded = el.load_steering(tmp_path / "x.json")
    model(np.ones((1, 3), int), steering=loaded)
    with pytest.warns(ExpertLensWarning, match="is of llama and is applied to another"):
        model.replace(name="another")(np.ones((1, 3), int), steering=loaded)


def test_outputs_can_be_differentiated_by_parameters_while_steered(model, expertise):
    steering = el.steer(expertise, "x", top=4)

    def loss(scale):
        params = jax.tree.map(lambda leaf: leaf * scale, dict(model.params))
        return jnp.square(model.replace(params=params)(np.arange(1, 5)[None], steering=steering)).mean()

    assert np.isfinite(jax.grad(loss)(1.0))


def test_experts_are_compared_with_their_own_table(tuned, model, expertise):
    experts = el.select_experts(expertise, threshold=0.5)
    theirs = el.measure_expertise(el.record_responses(tuned, CONCEPTS.sentences), CONCEPTS)
    other = el.select_experts(theirs, threshold=0.5)
    compare_matched(expertise, experts)
    for compare in (compare_matched, compare_shared):
        with pytest.raises(SelectionError, match=r"of llama, the expert sets of llama, .* \(weights: '"):
            compare(expertise, other)
    with pytest.raises(SelectionError, match="the expert sets of llama"):
        distribute_shared(expertise, other, pd.DataFrame())
    with pytest.raises(SelectionError, match=r"held-out table is of \d+ units of llama, .* \(weights: '"):
        compare_matched(expertise, experts, held_out=theirs)
    heavier = el.measure_expertise(el.record_responses(model, CONCEPTS.sentences), CONCEPTS, negatives_per_positive=1)
    with pytest.raises(SelectionError, match=r"\(negatives_per_positive: 2.5 and 1.0\)"):
        compare_shared(expertise, el.select_experts(heavier, threshold=0.5))
    with pytest.raises(SelectionError, match="3 and 2 concepts that differ"):
        compare_shared(expertise, experts.isel(concept=[0, 1]))
    with pytest.raises(SelectionError, match="units, which aren't the same"):
        compare_shared(expertise, experts.isel(unit=slice(5)))
    with pytest.raises(
        SelectionError, match=r"of 3 concepts and 5 units of llama, the last of 3 concepts and \d+ units"
    ):
        overlap_with_last(experts.isel(unit=slice(5)), experts)
    with pytest.raises(SelectionError, match="these aren't the same. Measure all checkpoints alike"):
        overlap_with_last(experts[::-1], experts)


def test_conditions_may_differ_but_not_what_numbers_mean(model, expertise):
    experts = el.select_experts(expertise, threshold=0.5)
    means = el.measure_expertise(el.record_responses(model, CONCEPTS.sentences, pooling="mean"), CONCEPTS)
    draws = dict(resamples=9, permutations=9)
    compare_conditions(experts, el.select_experts(means, threshold=0.5), **draws)
    with pytest.raises(
        SelectionError, match=r"sets of llama and llama were measured by .* \(numbers_version 2 and 3\)"
    ):
        compare_conditions(experts.assign_attrs(numbers_version=2), experts.assign_attrs(numbers_version=3), **draws)


def test_texts_are_read_as_the_table_was(model, tuned, carrier, expertise):
    texts = Continuations(("a b", "c d"), np.array([[" e f"], [" g h"]], dtype=object), ())

    def read(table, by=model):
        return expert_response(by, texts, table, "x", top=5)

    means = el.record_responses(model, CONCEPTS.sentences, pooling="mean", sites=("resid",))
    table = el.measure_expertise(means, CONCEPTS)
    best = np.argsort(-table.average_precision.sel(concept="x").values, kind="stable")[:5]
    row = table.sel(concept="x").isel(unit=best)
    values = el.record_responses(model, texts.whole, pooling="mean", sites=("resid",)).values[:, best]
    scale = (row.positive_median - row.negative_mean).values
    want = np.median((values - row.negative_mean.values) / scale, axis=1)[:, None]
    np.testing.assert_allclose(read(table), want, rtol=1e-3)
    # A table that holds some units only, the best among them, reads the same.
    kept = np.sort(np.concatenate([best, np.setdiff1d(np.arange(len(table.unit)), best)[3:9]]))
    np.testing.assert_allclose(read(table.isel(unit=kept)), want, rtol=1e-3)
    with pytest.raises(ResponsesError, match="of llama doesn't say how its responses were pooled over tokens"):
        read(xr.Dataset(expertise.data_vars, expertise.coords, {"model": "llama"}))
    with pytest.raises(ResponsesError, match="of llama has pool_over='concept', and texts are read over all"):
        read(expertise.assign_attrs(pool_over="concept"))
    with pytest.raises(ResponsesError, match="of llama has steering='Steering of"):
        read(expertise.assign_attrs(steering="Steering of llama"))
    with pytest.raises(ResponsesError, match=r"of llama can't tell what experts of llama see: .* \(weights: '"):
        read(expertise, by=tuned)
    by_hand = xr.Dataset(expertise.data_vars, expertise.coords, {"model": "llama", "pooling": "max"})
    np.testing.assert_allclose(read(by_hand), read(expertise))
    with pytest.raises(ResponsesError, match=r"of another can't tell what experts of llama see: .* \(by their names\)"):
        read(by_hand.assign_attrs(model="another"))
    gpt2, sae, _, features = carrier
    read(features, by=gpt2.with_sae(sae))
    with pytest.raises(ResponsesError, match="two models .other sparse autoencoders"):
        read(features, by=gpt2.with_sae(sae.replace(k=9)))
