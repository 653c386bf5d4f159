"""Sparse autoencoders: features against PyTorch, from both kinds of files; found, measured and carried like units."""

import families
import hooks
import jax
import numpy as np
import pytest
import torch
from launched import run_script
from sae_files import FEATURES, random_weights, save_gemma_scope, save_gemma_scope_2, save_oldest, save_sae_lens
from sklearn.metrics import average_precision_score

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError, ExpertLensWarning, RunDirectoryError, SelectionError
from expertlens_jax.experts import responses
from expertlens_jax.experts.budget import Budget
from expertlens_jax.experts.responses import prepare_recording
from expertlens_jax.models.checkpoint import up_to_layer
from expertlens_jax.models.families import family_of
from expertlens_jax.models.model import respond
from expertlens_jax.models.sae import check_saes
from expertlens_jax.models.taps import Taps
from expertlens_jax.models.transformer import Transformer

TOLERANCE = 1e-4  # absolute, float32, on features of order 1 to 30
MARGIN = 2e-4  # of what PyTorch has at a threshold: nearer, rounding alone could decide what fires


def case_named(name: str) -> families.Case:
    return next(case for case in families.CASES if case.name == name)


pytestmark = pytest.mark.compiled_quickly


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A GPT-2, whose layer norms let TransformerLens centre what is written to the residual stream."""
    return families.save(families.make_hf_model(case_named("gpt2")), tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def reference(directory):
    return families.load_hf_model(case_named("gpt2"), directory, torch.float32)


@pytest.fixture(scope="module")
def model(directory):
    return el.load_model(directory)


def torch_features(
    x,
    w,
    *,
    kind="relu",
    k=None,
    subtract=True,
    normalize="none",
    scale=1.0,
    centred=False,
    by_norm=False,
    threshold=None,
):
    """Features of `x` `[..., d_model]`, written from SAELens's formulas and in double precision."""
    x, w = x.double(), {name: tensor.double() for name, tensor in w.items()}
    if centred:
        x = x - x.mean(-1, keepdim=True)
    if normalize == "constant_norm_rescale":
        x = x / x.norm(dim=-1, keepdim=True) * x.shape[-1] ** 0.5
    if normalize == "layer_norm":
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.std(-1, keepdim=True) + 1e-5)
    x = x * scale - (w["b_dec"] if subtract else 0)
    before = x @ w["W_enc"] + w["b_enc"]
    if by_norm:
        before = before * w["W_dec"].norm(dim=-1)
    if kind == "jumprelu":
        threshold = w["threshold"] if threshold is None else threshold
        assert (before - threshold).abs().min() > MARGIN
        return before.relu() * (before > threshold)
    if k is not None:
        values, places = before.topk(k + 1)
        assert (values[..., k - 1] - values[..., k]).abs().min() > MARGIN
        return torch.zeros_like(before).scatter(-1, places[..., :k], values[..., :k].relu())
    return before.relu()


def batch():
    """Four sentences padded on the right; the first and last token of each stay out of the pool."""
    rng = np.random.default_rng(0)
    lengths = np.array([17, 11, 5, 3])
    token_ids = rng.integers(4, families.VOCABULARY, (4, 17))
    position = np.arange(17)
    mask = position < lengths[:, None]
    return token_ids, mask, mask & (position > 0) & (position < lengths[:, None] - 1)


def pooled(reference, address, features_of, pooling="max"):
    """`[batch, features]` of what a hook sees at `address`, pooled in numpy."""
    token_ids, mask, pool_mask = batch()
    seen = []
    with hooks.hooked(reference, [address], lambda _, activations: seen.append(activations.detach())):
        hooks.run(reference, token_ids, mask)
    rows = []
    for row, kept in zip(seen[0], pool_mask, strict=True):
        features = features_of(row[torch.tensor(kept)]).numpy()  # of the pooled tokens only
        rows.append({"max": features.max(0), "mean": features.mean(0), "last": features[-1]}[pooling])
    return np.stack(rows)


CENTRED = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
FILES = {  # hook, what is written into the config, its address and layer, and the reference's options
    "relu, older": (
        "blocks.2.hook_resid_pre",
        dict(older=True),
        ("transformer.h.1", 1),
        {},
    ),
    "relu, newer": (
        "blocks.2.hook_resid_post",
        dict(architecture="standard", apply_b_dec_to_input=False),
        ("transformer.h.2", 2),
        dict(subtract=False),
    ),
    "relu, constant norm": (
        "blocks.0.hook_resid_post",
        dict(architecture="standard", normalize_activations="constant_norm_rescale"),
        ("transformer.h.0", 0),
        dict(normalize="constant_norm_rescale"),
    ),
    "jumprelu, layer norm": (
        "blocks.1.hook_mlp_out",
        dict(architecture="jumprelu", normalize_activations="layer_norm"),
        ("transformer.h.1.mlp.c_proj", 1),
        dict(kind="jumprelu", normalize="layer_norm"),
    ),
    "topk by decoder norm, centred": (
        "blocks.0.hook_attn_out",
        dict(architecture="topk", k=5, rescale_acts_by_decoder_norm=True, metadata=CENTRED),
        ("transformer.h.0.attn.c_proj", 0),
        dict(k=5, by_norm=True, centred=True),
    ),
    "jumprelu while it is trained": (
        "blocks.1.hook_resid_post",
        dict(architecture="jumprelu", stored=("log_threshold", lambda w: w["threshold"].log())),
        ("transformer.h.1", 1),
        dict(kind="jumprelu"),
    ),
    "batchtopk by decoder norm": (
        "blocks.0.hook_resid_post",
        dict(
            architecture="batchtopk",
            k=4.5,
            rescale_acts_by_decoder_norm=True,
            normalize_activations="constant_norm_rescale",
            stored=("topk_threshold", lambda w: torch.tensor(2.5, dtype=torch.float64)),
        ),
        ("transformer.h.0", 0),
        dict(kind="jumprelu", threshold=2.5, by_norm=True, normalize="constant_norm_rescale"),
    ),
    "matryoshka, not by decoder norm": (
        "blocks.2.hook_mlp_out",
        dict(
            architecture="matryoshka_batchtopk",
            matryoshka_widths=[10, 50],
            stored=("topk_threshold", lambda w: torch.tensor(0.5, dtype=torch.float64)),
        ),
        ("transformer.h.2.mlp.c_proj", 2),
        dict(kind="jumprelu", threshold=0.5),
    ),
    "topk, layer norm, centred branch": (
        "blocks.2.hook_attn_out",
        dict(architecture="topk", k=6, normalize_activations="layer_norm", metadata=CENTRED),
        ("transformer.h.2.attn.c_proj", 2),
        dict(k=6, normalize="layer_norm", centred=True),
    ),
    "a module of Hugging Face": (
        "transformer.h.0.mlp",
        dict(architecture="standard"),
        ("transformer.h.0.mlp", 0),
        {},
    ),
    "topk, older": (
        "blocks.1.hook_resid_pre",
        dict(older=True, activation_fn_str="topk", activation_fn_kwargs={"k": 7}, metadata=CENTRED),
        ("transformer.h.0", 0),
        dict(k=7, centred=True),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_features_of_sae_lens_match(name, reference, model, tmp_path):
    hook, settings, (address, layer), options = FILES[name]
    weights = random_weights()
    if "stored" in settings:
        stored, tensor = settings["stored"]
        settings = {key: value for key, value in settings.items() if key != "stored"}
        settings["tensors"] = {stored: tensor(weights)}
        in_file = {key: value for key, value in weights.items() if key != "threshold"}
    else:
        in_file = weights
    sae = el.load_sae(save_sae_lens(tmp_path / "sae", in_file, hook, **settings))
    carrying = model.with_sae(sae)
    ours = np.asarray(carrying.respond(*batch(), sites=("sae",)))
    theirs = pooled(reference, address, lambda x: torch_features(x, weights, **options))
    assert ours.dtype == np.float32 and ours.shape == (4, FEATURES)
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)
    assert 0.02 < (ours > 0).mean() < 0.99
    units = el.record_responses(carrying, ["a b"], sites=("sae",)).units
    module = address + ".c_proj" * address.endswith("mlp")
    assert set(units["hf_module"]) == {module} and set(units["layer"]) == {layer} and set(units["site"]) == {"sae"}
    np.testing.assert_array_equal(units["hf_channel"], np.arange(FEATURES))


@pytest.mark.parametrize("pooling", ["max", "mean", "last"])
def test_features_of_gemma_scope_match(pooling, reference, model, tmp_path):
    weights = random_weights(3)
    directory = save_gemma_scope(tmp_path / "average_l0_82", weights)
    sae = el.load_sae(directory, layer=1)
    ours = np.asarray(model.with_sae(sae).respond(*batch(), sites=("sae",), pooling=pooling))
    want = lambda x: torch_features(x, weights, kind="jumprelu", subtract=False)  # noqa: E731
    np.testing.assert_allclose(ours, pooled(reference, "transformer.h.1", want, pooling), atol=TOLERANCE, rtol=0)
    same = el.load_sae(directory / "params.npz", layer=1, site="resid")
    np.testing.assert_array_equal(same.encoder, sae.encoder)
    assert sae.name == "average_l0_82"


def test_features_of_gemma_scope_2_match(reference, model, tmp_path):
    weights = random_weights(3)
    directory = save_gemma_scope_2(tmp_path / "layer_1", weights, model_name="openai-community/gpt2")
    ours = np.asarray(model.with_sae(el.load_sae(directory)).respond(*batch(), sites=("sae",)))
    want = lambda x: torch_features(x, weights, kind="jumprelu", subtract=False)  # noqa: E731
    np.testing.assert_allclose(ours, pooled(reference, "transformer.h.1", want), atol=TOLERANCE, rtol=0)


def test_whether_old_saes_were_trained_on_centred_activations_must_be_said(reference, model, tmp_path):
    weights = random_weights()
    directory = save_oldest(tmp_path / "blocks.1.hook_resid_pre", weights)
    with pytest.raises(CheckpointError, match="don't say whether .* centred=True.*, right for gpt2-small"):
        model.with_sae(el.load_sae(directory))
    for centred in (True, False):
        ours = model.with_sae(el.load_sae(directory, centred=centred)).respond(*batch(), sites=("sae",))
        theirs = pooled(reference, "transformer.h.0", lambda x: torch_features(x, weights, centred=centred))  # noqa: B023
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)
    assert check_saes([el.load_sae(directory).replace(layer=0)], config_of("llama"), "small")[0].centred is False


@pytest.mark.parametrize(
    ("trained_on", "message"),
    [
        ("gemma-2-2b", "was trained on gemma-2-2b, a model of gemma2, and .* is one of gpt2"),
        ("meta-llama/Llama-3.1-8B", "a model of llama, and .* is one of gpt2.* sae.replace"),
        ("EleutherAI/pythia-70m-deduped", "a model of gpt_neox"),
        ("Qwen/Qwen3-0.6B", "a model of qwen3"),
        ("google/gemma-3-1b-pt", "a model of gemma3_text"),
        ("gemma-2b", "a model of gemma, "),
    ],
)
def test_an_sae_of_another_familys_model_is_refused(trained_on, message, model):
    with pytest.raises(CheckpointError, match=message):
        model.with_sae(by_hand(1, layer=0, site="resid", model_name=trained_on))


def test_an_sae_of_another_model_of_the_family_is_told(model):
    medium = by_hand(1, layer=0, site="resid", model_name="gpt2-medium")
    with pytest.warns(ExpertLensWarning, match="was trained on gpt2-medium, and is put on openai-community/gpt2-large"):
        model.replace(name="openai-community/gpt2-large").with_sae(medium)
    for name in ("openai-community/gpt2-medium", "checkpoint-500"):  # the same, and a name that says nothing
        model.replace(name=name).with_sae(medium)
    config = config_of("gpt2")
    tuned = by_hand(1, layer=0, site="resid", model_name="gemma-2-2b-it")
    with pytest.warns(ExpertLensWarning, match="was trained on gemma-2-2b-it, and is put on google/gemma-2-2b"):
        check_saes([tuned], config, "google/gemma-2-2b", "gemma2")
    check_saes([tuned], config, "google/gemma-2-2b-it", "gemma2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(encoder=[[1.0]]), "the encoder of by hand is a list; give a numpy or jax array"),
        (dict(encoder=np.zeros(24, np.float32)), r"the encoder of by hand has the shape \[24\]"),
        (dict(bias=np.zeros((50, 1), np.float32)), r"the bias of by hand has the shape \[50, 1\]"),
        (dict(offset=np.zeros(50, np.float32)), r"the offset of by hand has the shape \[50\]; .* should be \[24\]"),
        (dict(threshold=np.zeros((), np.float32)), r"the threshold of by hand has the shape \[\]"),
        (dict(bias=np.zeros(50, int)), "the bias of by hand is of int64; it should be float32"),
        (dict(layer="1"), "layer='1' was given for by hand; wanted a whole number"),
        (dict(layer=True), "layer=True was given"),
        (dict(k=2.5), "k=2.5 was given for by hand; wanted a whole number"),
        (dict(k=0), "keeps the 0 largest features; wanted 1 to the 50"),
        (dict(site="mlp"), "said to read 'mlp'; SAEs can read attn.out, mlp.down, resid"),
        (dict(normalize="batch"), "normalizes its input by 'batch'"),
    ],
)
def test_an_sae_that_cannot_be_is_refused_when_it_is_made(changes, message):
    weights = {name: tensor.numpy() for name, tensor in random_weights().items()}
    given = dict(encoder=weights["W_enc"], bias=weights["b_enc"], layer=1, site="resid") | changes
    with pytest.raises(CheckpointError, match=message):
        el.SAE(**given)


def test_what_is_no_sae_or_holds_nan_is_refused(model):
    sae = by_hand(1, layer=0, site="resid")
    broken = sae.threshold.copy()
    broken[3] = np.inf
    with pytest.raises(CheckpointError, match="the threshold of by hand holds 1 value that is NaN or infinite"):
        model.with_sae(sae.replace(threshold=broken))
    with pytest.raises(CheckpointError, match=r"was given to with_sae; wanted el.load_sae\(...\) or el.SAE"):
        model.with_sae("saes/blocks.8.hook_resid_pre")
    with pytest.raises(CheckpointError, match="the bias of by hand is a Tensor; give a numpy or jax array"):
        model.with_sae(sae.replace(bias=torch.zeros(FEATURES)))


def test_the_scale_of_activations_is_given_or_read_beside_the_weights(reference, model, tmp_path):
    weights, hook = random_weights(), "blocks.1.hook_resid_post"
    settings = dict(architecture="standard", normalize_activations="expected_average_only_in")
    directory = save_sae_lens(tmp_path / "sae", weights, hook, **settings)
    with pytest.raises(CheckpointError, match=r"multiplied by a number .* Give scale="):
        el.load_sae(directory)
    given = el.load_sae(directory, scale=0.37)
    ours = np.asarray(model.with_sae(given).respond(*batch(), sites=("sae",)))
    want = lambda x: torch_features(x, weights, scale=0.37)  # noqa: E731
    np.testing.assert_allclose(ours, pooled(reference, "transformer.h.1", want), atol=TOLERANCE, rtol=0)
    (directory / "activation_scaler.json").write_text('{"scaling_factor": 0.37}')
    np.testing.assert_array_equal(el.load_sae(directory).encoder, given.encoder)
    np.testing.assert_array_equal(el.load_sae(directory).offset, given.offset)


def by_hand(seed: int, **where) -> el.SAE:
    weights = {name: tensor.numpy() for name, tensor in random_weights(seed).items()}
    return el.SAE(weights["W_enc"], weights["b_enc"], weights["b_dec"], weights["threshold"], **where)


@pytest.fixture(scope="module")
def carrying(model):
    """Two SAEs of different kinds, sites and layers, given in another order than that of the layers."""
    return model.with_sae(by_hand(1, layer=2, site="resid", k=9), by_hand(2, layer=0, site="mlp.down"))


def test_several_are_laid_out_by_layer(model, carrying):
    both = np.asarray(carrying.respond(*batch(), sites=("sae",)))
    parts = [np.asarray(model.with_sae(sae).respond(*batch(), sites=("sae",))) for sae in carrying.saes]
    np.testing.assert_allclose(both, np.concatenate(parts, axis=1), atol=1e-5)
    units = el.record_responses(carrying, ["a b"], sites=("sae",)).units
    assert list(units["layer"].unique()) == [0, 2]
    assert list(units["hf_module"].unique()) == ["transformer.h.0.mlp.c_proj", "transformer.h.2"]


def test_what_an_sae_reads_is_steered_first(carrying):
    """A channel of mlp.down in layer 0 raised by 5 moves each feature's preactivation by 5 times its weight."""
    unit = carrying.units[(carrying.units["site"] == "mlp.down") & (carrying.units["layer"] == 0)].iloc[[3]]
    first = carrying.saes[0]
    linear = first.replace(threshold=None, bias=first.bias + 1000.0)  # all features fire
    raised = carrying.with_sae(linear)
    steered = raised.respond(*batch(), sites=("sae",), steering=el.steer_units(carrying, unit, scale=1.0, shift=5.0))
    moved = np.asarray(steered) - np.asarray(raised.respond(*batch(), sites=("sae",)))
    np.testing.assert_allclose(moved, np.tile(5.0 * np.asarray(first.encoder)[3], (4, 1)), atol=1e-3)


def test_a_model_that_carries_one_says_elsewhere_what_it_said(model, carrying):
    token_ids, mask, pool_mask = batch()
    np.testing.assert_array_equal(carrying(token_ids, mask), model(token_ids, mask))
    np.testing.assert_array_equal(carrying.respond(token_ids, mask), model.respond(token_ids, mask))
    assert carrying.units.equals(model.units)
    # Layers that no SAE reads skip it: the encoder stands in a branch, of which there are two and an empty one.
    network = Transformer(model.config, Taps(("sae",)))
    program = respond.lower(
        network, model.params, token_ids, mask, pool_mask, None, np.int32(0), 2, carrying.saes
    ).as_text()
    assert program.count("stablehlo.case") == 1


SENTENCES = [f"{word} {other} {last}" for word in "abcd" for other in ("be", "di", "fo") for last in "xyz"]
CONCEPTS = el.ConceptDataset(
    name="letters",
    sentences=tuple(SENTENCES),
    concepts=tuple("abcd"),
    domains=("",) * 4,
    labels=np.repeat(np.eye(4, dtype=bool), 9, axis=1),
    negative_pool=np.ones(len(SENTENCES), bool),
)


def test_expertise_of_features_is_scikit_learns(carrying):
    responses = el.record_responses(carrying, CONCEPTS.sentences, sites=("sae",))
    expertise = el.measure_expertise(responses, CONCEPTS)
    weights = el.contrast_concepts(CONCEPTS).weights()
    for concept in range(4):
        for unit in range(0, 2 * FEATURES, 7):
            want = average_precision_score(
                CONCEPTS.labels[concept], responses.values[:, unit], sample_weight=weights[concept]
            )
            assert expertise["average_precision"].values[concept, unit] == pytest.approx(want, abs=1e-6)
    ties = [np.unique(column).size < len(SENTENCES) for column in responses.values.T]
    assert np.mean(ties) > 0.5  # zeros of features that don't fire


@pytest.mark.parametrize("offload", [None, "host"])
def test_layers_above_the_last_that_is_read_do_not_run(directory, offload, monkeypatch):
    low = el.load_model(directory, offload=offload).with_sae(by_hand(2, layer=1, site="mlp.down"))
    recording = el.Recording(sites="sae")
    whole = prepare_recording(low, SENTENCES, recording)
    lower = prepare_recording(low, SENTENCES, recording, all_layers=False)
    assert (whole.network.config.num_layers, lower.network.config.num_layers) == (3, 2)
    assert whole.provenance == lower.provenance and lower.units.equals(whole.units)
    for batch in whole.batches():
        np.testing.assert_array_equal(lower.respond(batch), whole.respond(batch))
    if offload is None:
        copied, there = (jax.tree.leaves(each.params["layers"]) for each in (lower, whole))
        assert {len(each) for each in copied} == {2} and {len(each) for each in there} == {3}
        size = sum(each.nbytes for each in copied)
        for most, layers in ((size - 1, 3), (size, 2)):  # where a copy of them has no room, all of them run
            config, params = up_to_layer(low.config, low.params, 1, most_bytes=most)
            assert config.num_layers == len(jax.tree.leaves(params["layers"])[0]) == layers
            assert params["embed"]["token"] is low.params["embed"]["token"]  # what isn't of layers isn't copied
    ran = []
    monkeypatch.setattr(responses, "up_to_layer", lambda *given, **room: ran.append(given) or given[:2])
    el.record_responses(low, SENTENCES, sites="sae", steering=el.steer_units(low, low.units.head(1)))
    assert not ran  # what acts on activations goes by all layers
    el.record_responses(low, SENTENCES, sites="sae")
    assert ran


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"passes": 2, "budget": Budget(0, 10**9, 0)}], ids=["one pass", "two"])
def test_finding_is_recording_and_measuring(carrying, tmp_path, options):
    found = el.find_experts(carrying, CONCEPTS, tmp_path, sites=("sae",), permutations=3, **options)
    want = el.measure_expertise(el.record_responses(carrying, CONCEPTS.sentences, sites=("sae",)), CONCEPTS)
    np.testing.assert_allclose(found["average_precision"].values, want["average_precision"].values, atol=2e-6)
    for name in ("layer", "site", "channel", "hf_module"):
        np.testing.assert_array_equal(found[name].values, want[name].values)
    # The same SAEs go on with the table; others, be it in one weight or option, don't.
    again = el.find_experts(carrying, CONCEPTS, tmp_path, sites=("sae",), permutations=3, **options)
    np.testing.assert_array_equal(again["average_precision"].values, found["average_precision"].values)
    first, second = carrying.saes
    for other in (first.replace(bias=first.bias.at[4].add(0.01)), first.replace(centred=True)):
        with pytest.raises(RunDirectoryError):
            el.find_experts(
                carrying.with_sae(other, second), CONCEPTS, tmp_path, sites=("sae",), permutations=3, **options
            )


@pytest.mark.long
@pytest.mark.skipif(jax.default_backend() != "cpu" or jax.local_device_count() > 1, reason="compares with one CPU")
def test_features_are_the_same_over_eight_devices(directory, carrying, tmp_path):
    for i, sae in enumerate(carrying.saes):
        np.savez(tmp_path / f"{i}.npz", **{name: np.asarray(array) for name, array in sae.arrays.items()})
    script = f"""
import sys
import jax, numpy as np
import expertlens_jax as el
assert jax.local_device_count() == 8
first, second = (dict(np.load({str(tmp_path)!r} + f"/{{i}}.npz")) for i in range(2))
model = el.load_model({str(directory)!r}).with_sae(
    el.SAE(**first, layer=0, site="mlp.down"), el.SAE(**second, layer=2, site="resid", k=9))
responses = el.record_responses(model, {list(CONCEPTS.sentences)!r}, sites=("sae",))
split = el.load_model({str(directory)!r}, mesh=el.make_mesh(model=2)).with_sae(*model.saes)
over_mesh = el.record_responses(split, {list(CONCEPTS.sentences)!r}, sites=("sae",))
np.savez({str(tmp_path / "eight.npz")!r}, data=responses.values, mesh=over_mesh.values)
"""
    run_script(script)
    eight = np.load(tmp_path / "eight.npz")
    here = el.record_responses(carrying, CONCEPTS.sentences, sites=("sae",)).values
    np.testing.assert_allclose(eight["data"], here, atol=TOLERANCE)
    np.testing.assert_allclose(eight["mesh"], here, atol=TOLERANCE)


def test_a_missing_bos_is_told(model):
    trained_with = by_hand(1, layer=0, site="resid", prepend_bos=True)
    model.with_sae(trained_with)  # this tokenizer adds CLS
    bare = families.tokenizer()
    bare.backend_tokenizer.post_processor = None
    with pytest.warns(ExpertLensWarning, match="begin with a BOS token, which the tokenizer of .* doesn't add"):
        model.replace(tokenizer=bare).with_sae(trained_with)


def test_how_an_sae_is_shown():
    sae = by_hand(1, layer=2, site="resid", k=9, normalize="layer_norm", centred=True)
    assert repr(sae) == "SAE by hand: 50 features (top 9, layer_norm, centred) of resid in layer 2"


def config_of(name: str):
    hf = families.make_config(case_named(name))
    return family_of(hf).translate(hf)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("gpt2", dict(layer=3), "reads layer 3; small has layers 0 to 2"),
        ("gpt2", dict(site="attn.head"), "said to read 'attn.head'; SAEs can read"),
        ("gpt2", dict(bias=np.zeros(3, np.float32)), r"bias of by hand has the shape \[3\]; .* should be \[50\]"),
        ("gpt2", dict(k=51), "keeps the 51 largest features; wanted 1 to the 50"),
        ("gpt2", dict(normalize="batch"), "normalizes its input by 'batch'"),
        ("bert", {}, "reads 24 channels, and resid of small has 36"),
        ("gemma2", dict(hook="blocks.0.hook_mlp_out", site="mlp.down"), "a norm on the branch's output"),
        ("olmo2", dict(hook="Gemma Scope's attn.out", site="attn.out"), "a norm on the branch's output"),
        ("opt-post", dict(hook="blocks.0.hook_resid_post"), "before the block's last norm.* hook_resid_pre"),
    ],
)
def test_an_sae_that_does_not_fit_the_model_is_refused(family, changes, message):
    with pytest.raises(CheckpointError, match=message):
        check_saes([by_hand(0, layer=0, site="resid").replace(**changes)], config_of(family), "small")


def test_centring_is_left_to_models_of_layer_norms():
    sae = by_hand(0, layer=0, site="resid", centred=True)
    assert check_saes([sae], config_of("gpt2"), "small")[0].centred
    assert not check_saes([sae], config_of("llama"), "small")[0].centred


def test_wrong_use_is_explained(model, carrying):
    first = carrying.saes[0]
    with pytest.raises(CheckpointError, match=r"2 SAEs read layer 0; a model carries one a layer"):
        model.with_sae(first, first)
    narrow = el.SAE(np.zeros((24, 7), np.float32), np.zeros(7, np.float32), layer=1, site="resid")
    with pytest.raises(CheckpointError, match=r"SAEs of 7, 50 features were given together"):
        model.with_sae(first, narrow)
    with pytest.raises(SelectionError, match=r"carries no sparse autoencoder. Give it one: model.with_sae"):
        el.record_responses(model, SENTENCES, sites=("sae",))
    with pytest.raises(SelectionError, match="resid, sae were given; sae is recorded by itself"):
        el.record_responses(carrying, SENTENCES, sites=("resid", "sae"))
    responses = el.record_responses(carrying, SENTENCES, sites=("sae",))
    with pytest.raises(SelectionError, match="units of the site sae can't be steered"):
        el.steer_units(carrying, responses.units.iloc[:3])
    with pytest.raises(SelectionError, match="units of the site sae can't be steered"):
        el.steer(el.measure_expertise(responses, CONCEPTS), "a", top=3)
