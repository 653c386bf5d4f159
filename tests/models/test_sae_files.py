"""Files of sparse autoencoders: read as they are, and refused by what is wrong with them."""

import json

import numpy as np
import pytest
import torch
from sae_files import FEATURES, random_weights, save_gemma_scope, save_gemma_scope_2, save_oldest, save_sae_lens

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError, ExpertLensWarning, UnsupportedSAEError

pytestmark = pytest.mark.compiled_quickly


def test_weights_of_half_precision_are_read_as_they_are(tmp_path):
    weights = {name: tensor.bfloat16() for name, tensor in random_weights().items()}
    sae = el.load_sae(save_sae_lens(tmp_path / "sae", weights, "blocks.0.hook_resid_post"))
    assert sae.encoder.dtype == np.float32
    np.testing.assert_array_equal(sae.encoder, weights["W_enc"].float().numpy())


REFUSED_FILES = {  # settings of the config, arguments of load_sae, what the message says
    "gated": (dict(architecture="gated"), {}, "architecture 'gated'; SAEs of standard, jumprelu, topk"),
    "transcoder": (dict(architecture="skip_transcoder"), {}, "'skip_transcoder'.* Transcoders, gated"),
    "older transcoder": (
        dict(metadata={"hook_name_out": "blocks.1.hook_mlp_out"}),
        {},
        "a transcoder, from blocks.1.hook_resid_post to blocks.1.hook_mlp_out",
    ),
    "tanh": (dict(older=True, activation_fn_str="tanh-relu"), {}, "activation 'tanh-relu'"),
    "head": (dict(metadata={"hook_head_index": 3}), {}, "reads blocks.1.hook_resid_post, head 3"),
    "hook z": (dict(metadata={"hook_name": "blocks.1.attn.hook_z"}), {}, "reads blocks.1.attn.hook_z; .* hook_mlp_out"),
    "embedding": (dict(metadata={"hook_name": "hook_embed"}), {}, "reads hook_embed; SAEs can read blocks.N."),
    "no hook": (dict(metadata={"hook_name": None}), {}, "reads nothing; .* give layer= and site="),
    "before the first block": (
        dict(metadata={"hook_name": "blocks.0.hook_resid_pre"}),
        {},
        "before the first block, which is no site",
    ),
    "another layer": ({}, dict(layer=2), "layer=2, site=None were given.* layer=1, site='resid'. Leave them out"),
    "another site": (
        {},
        dict(site="attn.head"),
        "site='attn.head' was given for .*; SAEs can read attn.out, mlp.down, resid",
    ),
    "before the first block, layer and site given": (
        dict(metadata={"hook_name": "blocks.0.hook_resid_pre"}),
        dict(layer=0, site="resid"),
        "before the first block, which is no site",
    ),
    "hook z, layer and site given": (
        dict(metadata={"hook_name": "blocks.1.attn.hook_z"}),
        dict(layer=1, site="attn.out"),
        "reads blocks.1.attn.hook_z; .* Use an SAE of one of these",
    ),
    "between the branches": (
        dict(metadata={"hook_name": "blocks.1.hook_resid_mid"}),
        dict(layer=1, site="resid"),
        "reads blocks.1.hook_resid_mid; SAEs can read",
    ),
    "the MLP's input": (
        dict(metadata={"hook_name": "blocks.1.ln2.hook_normalized"}),
        dict(layer=1, site="mlp.down"),
        "reads blocks.1.ln2.hook_normalized; SAEs can read",
    ),
    "a module's input": (
        dict(metadata={"hook_name": "model.layers.1.self_attn.o_proj.input"}),
        dict(layer=1, site="attn.out"),
        "o_proj.input; of Hugging Face's modules SAEs can read the outputs",
    ),
    "a module of another layer": (
        dict(metadata={"hook_name": "transformer.h.1"}),
        dict(layer=2, site="resid"),
        "layer=2, site=resid were given, and .* reads transformer.h.1. Leave them out",
    ),
    "a module of another site": (
        dict(metadata={"hook_name": "transformer.h.1.mlp"}),
        dict(layer=1, site="resid"),
        "layer=1, site=resid were given, and .* reads transformer.h.1.mlp",
    ),
    "hook layer": (dict(older=True, hook_layer=2), {}, "reads blocks.1.hook_resid_post, and .* says hook_layer=2"),
    "hook twice": (
        dict(hook_name="blocks.2.hook_resid_post"),
        {},
        "states hook_name twice, as 'blocks.2.hook_resid_post' and as 'blocks.1.hook_resid_post'",
    ),
    "heads side by side": (dict(reshape_activations="hook_z"), {}, "reshape_activations='hook_z': .* attention heads"),
    "crosscoder": (dict(architecture="crosscoder"), {}, "architecture 'crosscoder'"),
    "topk of a jumprelu": (
        dict(older=True, architecture="jumprelu", activation_fn_str="topk"),
        {},
        "activation 'topk'",
    ),
    "signed topk": (
        dict(older=True, activation_fn_str="topk", activation_fn_kwargs={"k": 5, "signed": True}),
        {},
        r"signed=True of the activation \(activation_fn_kwargs\), which is unknown",
    ),
    "k twice": (dict(architecture="topk", k=4, activation_fn_kwargs={"k": 5}), {}, "says k=4 and 5"),
    "half a feature": (dict(architecture="topk", k=4.5), {}, "says k=4.5; .* a whole number"),
    "k is true": (dict(architecture="topk", k=True), {}, "says k=True, a bool; wanted int or float"),
    "head it writes to": (dict(metadata={"hook_head_index_out": 2}), {}, "reads blocks.1.hook_resid_post, head 2"),
    "a number for a flag": (dict(finetuning_scaling_factor=2.0), {}, "finetuning_scaling_factor=2.0; wanted true"),
    "architectures": (dict(architecture=["topk"]), {}, r"architecture=\['topk'\], a list; wanted str"),
    "layers": (dict(older=True, hook_layer=[1]), {}, r"hook_layer=\[1\], a list; wanted int"),
    "a word for a width": (dict(d_out="24"), {}, "d_out='24', a str; wanted int"),
    "a word for true": ({}, dict(centred="yes"), "centred='yes' was given for .*; wanted True, False or None"),
    "a list for settings": (
        dict(metadata={"model_from_pretrained_kwargs": [1]}),
        {},
        r"model_from_pretrained_kwargs=\[1\]; wanted settings by name",
    ),
    "a word for false": (dict(apply_b_dec_to_input="false"), {}, "apply_b_dec_to_input='false'; wanted true or false"),
    "unknown": (
        dict(input_standardization=True),
        {},
        r"states input_standardization=True, which is unknown .* or build it by hand, .* el.SAE\(encoder, bias",
    ),
    "unknown of the model": (dict(metadata={"token_offset": 3}), {}, "states token_offset=3, which is unknown"),
    "unknown of loading": (
        dict(metadata={"model_from_pretrained_kwargs": {"rotary_base": 3}}),
        {},
        r"loaded with rotary_base=3 \(model_from_pretrained_kwargs\), which is unknown",
    ),
    "constant scalar": (
        dict(normalize_activations="constant_scalar_rescale"),
        {},
        "normalize_activations='constant_scalar_rescale'; there are none",
    ),
    "rescaled": (
        dict(rescale_acts_by_decoder_norm=True),
        {},
        "rescale_acts_by_decoder_norm=True of a standard SAE, .* W_dec has rows of",
    ),
    "two widths": (dict(d_in=24, d_out=36), {}, "a transcoder, from 24 to 36"),
    "mamba": (dict(metadata={"model_class_name": "HookedMamba"}), {}, "its model is a HookedMamba"),
    "no k": (dict(architecture="topk"), {}, "says k=None; a topk SAE needs"),
    "normalization": (dict(normalize_activations="batch"), {}, "normalize_activations='batch'; there are none"),
    "scale": ({}, dict(scale=2.0), "scale=2.0 was given, .* takes none"),
    "bad scale": (dict(normalize_activations="expected_average_only_in"), dict(scale=-1), "scale=-1 was given"),
    "other width": (dict(d_sae=7), {}, r"says d_sae=7, and W_enc .* is \[24, 50\]"),
}


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_what_is_not_supported_is_refused(name, tmp_path):
    settings, arguments, message = REFUSED_FILES[name]
    directory = save_sae_lens(tmp_path / "sae", random_weights(), "blocks.1.hook_resid_post", **settings)
    with pytest.raises(CheckpointError, match=message):
        el.load_sae(directory, **arguments)


def test_a_hook_of_another_library_is_taken_at_the_users_word(tmp_path):
    metadata = {"hook_name": "transformer.h.1"}
    directory = save_sae_lens(tmp_path / "sae", random_weights(), "", metadata=metadata)
    sae = el.load_sae(directory, layer=1, site="resid", centred=True)
    assert (sae.layer, sae.site, sae.hook, sae.centred) == (1, "resid", "", True)


def test_damaged_files_are_refused(tmp_path):
    weights, hook = random_weights(), "blocks.1.hook_resid_post"
    with pytest.raises(CheckpointError, match=r"holds no sparse autoencoder: looked for cfg.json .* params.npz"):
        el.load_sae(tmp_path)
    bare = save_sae_lens(tmp_path / "bare", weights, hook)
    (bare / "sae_weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has cfg.json and no sae_weights.safetensors"):
        el.load_sae(bare)
    (bare / "cfg.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        el.load_sae(bare)
    without = {name: tensor for name, tensor in weights.items() if name != "threshold"}
    with pytest.raises(CheckpointError, match=r"lacks threshold of an SAE's tensors; it has W_dec, W_enc"):
        el.load_sae(save_sae_lens(tmp_path / "lacking", without, hook, architecture="jumprelu"))
    with pytest.raises(CheckpointError, match="lacks threshold"):
        el.load_sae(save_gemma_scope(tmp_path / "lacking_too", without), layer=1)
    with pytest.raises(CheckpointError, match=r"b_enc in .* shape \[49\]; with W_enc \[24, 50\] it should be \[50\]"):
        el.load_sae(save_sae_lens(tmp_path / "short", weights | {"b_enc": weights["b_enc"][1:]}, hook))
    broken = weights["W_enc"].clone()
    broken[3, 4] = float("nan")
    with pytest.raises(CheckpointError, match="W_enc in .* holds 1 value that is NaN"):
        el.load_sae(save_sae_lens(tmp_path / "nan", weights | {"W_enc": broken}, hook))
    with pytest.raises(CheckpointError, match="is stored as I64; wanted floating point"):
        el.load_sae(save_sae_lens(tmp_path / "whole", weights | {"W_enc": broken.nan_to_num().long()}, hook))
    scope = save_gemma_scope(tmp_path / "scope", weights)
    with pytest.raises(CheckpointError, match=r"doesn't say which layer it reads. Give it"):
        el.load_sae(scope)
    with pytest.raises(CheckpointError, match="layer=-1 was given for scope; layers are counted from 0"):
        el.load_sae(scope, layer=-1)
    whole = weights | {"b_enc": weights["b_enc"].long()}
    with pytest.raises(CheckpointError, match="b_enc in .* is stored as int64; wanted floating point"):
        el.load_sae(save_gemma_scope(tmp_path / "whole_too", whole), layer=1)
    with pytest.raises(CheckpointError, match="holds both of w_ and W_ among W_enc"):
        el.load_sae(save_gemma_scope(tmp_path / "twice", weights | {"w_enc": weights["W_enc"]}), layer=1)
    (scope / "params.npz").write_bytes((scope / "params.npz").read_bytes()[:300])
    with pytest.raises(CheckpointError, match="can't be read: .* truncated"):
        el.load_sae(scope, layer=1)


def test_each_tensor_is_used_or_refused(tmp_path):
    weights, hook = random_weights(), "blocks.1.hook_resid_post"
    ones = torch.ones(FEATURES)
    for i, (tensors, settings, message) in enumerate(
        [
            ({"threshold": ones}, {}, "holds threshold, which an SAE of the kind that was said has no use for"),
            ({"threshold": ones}, dict(architecture="topk", k=3), "holds threshold"),
            ({"b_gate": ones, "r_mag": 2 * ones, "b_mag": 3 * ones}, {}, "holds b_gate, b_mag, r_mag"),
            ({"log_threshold": ones}, dict(architecture="jumprelu"), "holds log_threshold"),
            ({"W_skip": torch.ones(24, 24)}, {}, "holds W_skip"),
            ({"scaling_factor": 2 * ones}, {}, "holds scaling_factor, .* or fine-tuned"),
            (
                {"finetuning_scaling_factor": 2 * ones},
                dict(finetuning_scaling_factor=True),
                "finetuning_scaling_factor",
            ),
            ({"running_norm_mean": torch.ones(24)}, {}, r"running_norm_mean.* build it by hand, .*el.SAE\(encoder"),
            ({"estimated_norm_scaling_factor": torch.ones(())}, {}, "holds estimated_norm_scaling_factor"),
            ({"W_dec": torch.ones(FEATURES, 36)}, {}, r"W_dec in .* \[50, 36\]; .* it should be \[50, 24\]"),
            ({"b_dec": torch.ones(36)}, dict(apply_b_dec_to_input=False), r"b_dec in .* \[36\]; .* should be \[24\]"),
            ({"topk_threshold": ones.double()}, dict(architecture="batchtopk"), r"\[50\]; .* it should be \[\]"),
            ({}, dict(architecture="batchtopk", k=8), "lacks topk_threshold of an SAE's tensors"),
            ({"n_forward_passes_since_fired": ones.int()}, {}, "n_forward_passes_since_fired .* stored as I32"),
        ]
    ):
        directory = save_sae_lens(tmp_path / str(i), weights, hook, tensors=tensors, **settings)
        with pytest.raises(CheckpointError, match=message):
            el.load_sae(directory)
    for i, name in enumerate(("W_skip", "affine_skip_connection", "scaling_factor")):
        with pytest.raises(UnsupportedSAEError, match=f"holds {name}"):
            el.load_sae(save_gemma_scope(tmp_path / f"g{i}", weights | {name: 2 * ones}), layer=1)


def test_a_scaling_factor_of_ones_and_what_training_left_change_nothing(tmp_path):
    weights = random_weights()
    sae = el.load_sae(save_oldest(tmp_path / "oldest", weights), centred=True)
    assert (sae.layer, sae.site, sae.k, sae.threshold, sae.centred) == (0, "resid", None, None, True)
    assert sae.model_name == "gpt2"
    np.testing.assert_array_equal(sae.encoder, weights["W_enc"].numpy())
    assert el.load_sae(tmp_path / "oldest").centred is None
    kwargs = {"model_from_pretrained_kwargs": {"fold_ln": True, "center_writing_weights": True, "dtype": "bfloat16"}}
    stated = save_sae_lens(tmp_path / "stated", weights, "blocks.1.hook_resid_pre", metadata=kwargs)
    assert el.load_sae(stated).centred is True and el.load_sae(stated, centred=False).centred is False


def test_an_unusual_training_is_told(tmp_path):
    weights, hook = random_weights(), "blocks.1.hook_resid_post"
    directory = save_sae_lens(tmp_path / "slice", weights, hook, metadata={"seqpos_slice": [5, -5]})
    with pytest.warns(ExpertLensWarning, match=r"seqpos_slice=\[5, -5\]: .* on some positions of a text only"):
        el.load_sae(directory)
    kwargs = {"model_from_pretrained_kwargs": {"checkpoint_value": 1000}}
    with pytest.warns(ExpertLensWarning, match="loaded with checkpoint_value=1000: see that yours is that checkpoint"):
        el.load_sae(save_sae_lens(tmp_path / "checkpoint", weights, hook, metadata=kwargs))
    el.load_sae(save_sae_lens(tmp_path / "all", weights, hook, metadata={"seqpos_slice": [None]}))


def test_files_that_do_not_say_whether_the_model_was_centred_are_told(tmp_path):
    """As SAELens wrote them before it left models as they are."""
    weights, hook = random_weights(), "blocks.1.hook_resid_post"
    directory = save_sae_lens(tmp_path / "sae", weights, hook, older=True)
    settings = json.loads((directory / "cfg.json").read_text())
    del settings["model_from_pretrained_kwargs"]
    for name in ("gpt2-small", "pythia-70m-deduped"):
        (directory / "cfg.json").write_text(json.dumps(settings | {"model_name": name}))
        with pytest.warns(ExpertLensWarning, match=f"doesn't say whether {name} was centred .* taken not to have been"):
            assert el.load_sae(directory).centred is False
        assert el.load_sae(directory, centred=True).centred is True
    (directory / "cfg.json").write_text(json.dumps(settings | {"model_name": "gemma-2b"}))  # of RMS norms
    assert el.load_sae(directory).centred is False


def test_a_scale_beside_the_weights_is_used_or_refused(tmp_path):
    weights, hook = random_weights(), "blocks.1.hook_resid_post"
    directory = save_sae_lens(tmp_path / "none", weights, hook)
    (directory / "activation_scaler.json").write_text('{"scaling_factor": null}')
    el.load_sae(directory)
    (directory / "activation_scaler.json").write_text('{"scaling_factor": 0.37}')
    with pytest.raises(UnsupportedSAEError, match="says scaling_factor=0.37, and .* normalize_activations=none"):
        el.load_sae(directory)
    average = "expected_average_only_in"
    directory = save_sae_lens(tmp_path / "average", weights, hook, normalize_activations=average)
    (directory / "activation_scaler.json").write_text('{"scaling_factor": 0.37}')
    with pytest.raises(UnsupportedSAEError, match="scale=0.5 was given, and .* says scaling_factor=0.37"):
        el.load_sae(directory, scale=0.5)


HUB = "models--google--gemma-scope-2b-pt-res/snapshots/fd571b47c1c64851e9b1989792367b9babb4af63"
PATHS = {  # directories, what is given, what follows or what the message says
    "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82": ({}, (12, "resid")),
    f"{HUB}/layer_7/width_16k/average_l0_82": (dict(layer=7, site="resid"), (7, "resid")),
    "gemma-scope-2b-pt-mlp/layer_3/width_16k/canonical": ({}, (3, "mlp.down")),
    "gemma-scope-2b-pt-res/layer_13/width_16k/average_l0_82": (
        dict(layer=12),
        "layer=12, site=None were given, and the directory layer_13 of .* says layer 13. Leave them out; or rename",
    ),
    "gemma-scope-9b-pt-mlp/layer_3/width_16k/average_l0_82": (
        dict(layer=3, site="resid"),
        "site=resid were given, and the directory gemma-scope-9b-pt-mlp of .* says site mlp.down",
    ),
    "gemma-scope-2b-pt-att/layer_3/width_16k/average_l0_41": (dict(layer=3, site="attn.out"), "heads before they are"),
    "gemma-scope-2b-pt-transcoders/layer_5/width_16k/average_l0_41": (dict(layer=5), "this is of a transcoder; only"),
    "transcoders/layer_5": (dict(layer=5, site="mlp.down"), "this is of a transcoder; only"),
    "gemma-scope-9b-pt-res/embedding/width_4k/average_l0_6": (dict(layer=0), "this is of embeddings; only"),
    "saes/mlp_out/layer_2": (dict(site="resid"), "directory mlp_out of .* says site mlp.down"),
    "gemma-2-2b/20-gemmascope-res-16k": (dict(layer=19), "says layer 20 and site resid"),
    "saes/layers.2/resid": ({}, (2, "resid")),
}


@pytest.mark.parametrize("name", PATHS)
def test_directories_of_gemma_scope_say_what_it_reads(name, tmp_path):
    given, wanted = PATHS[name]
    directory = save_gemma_scope(tmp_path / name, random_weights())
    if isinstance(wanted, str):
        with pytest.raises(UnsupportedSAEError, match=wanted):
            el.load_sae(directory, **given)
    else:
        for path in (directory, directory / "params.npz"):
            sae = el.load_sae(path, **given)
            assert (sae.layer, sae.site) == wanted


def test_directories_of_sae_lens_are_held_against_its_files(tmp_path, monkeypatch):
    weights = random_weights()
    pre = save_sae_lens(tmp_path / "a" / "layer_8" / "blocks.8.hook_resid_pre_50", weights, "blocks.8.hook_resid_pre")
    assert el.load_sae(pre).layer == 7 == el.load_sae(pre / "sae_weights.safetensors", layer=7).layer
    monkeypatch.chdir(pre)
    assert el.load_sae(".").layer == 7
    with pytest.raises(UnsupportedSAEError, match="layer=8, .* reads blocks.8.hook_resid_pre: layer=7, site='resid'"):
        el.load_sae(pre, layer=8)
    for where, message in {
        "blocks.8.hook_mlp_out": "reads blocks.8.hook_resid_post, and the directory blocks.8.hook_mlp_out .*'mlp.down'",
        "blocks.9.hook_resid_post": "reads blocks.8.hook_resid_post, and the directory .* layer=9",
        "layer_9/sae": "hook_resid_post, and the directory layer_9 .* says layer 9. One of the two is wrong",
        "blocks.8.attn.hook_z": "reads blocks.8.attn.hook_z; SAEs can read",
        "skip-transcoder": "this is of a transcoder",
    }.items():
        directory = save_sae_lens(tmp_path / "b" / where, weights, "blocks.8.hook_resid_post")
        with pytest.raises(UnsupportedSAEError, match=message):
            el.load_sae(directory)


def test_modules_of_hugging_face_are_read_at_their_outputs(tmp_path):
    for i, (hook, wanted) in enumerate(
        {
            "transformer.h.2": (2, "resid"),
            "model.layers.1.mlp": (1, "mlp.down"),
            "gpt_neox.layers.0.attention.dense": (0, "attn.out"),
        }.items()
    ):
        sae = el.load_sae(save_sae_lens(tmp_path / str(i), random_weights(), hook))
        assert (sae.layer, sae.site, sae.hook) == (*wanted, "")


def test_gemma_scope_2_is_read_or_refused(tmp_path):
    weights = random_weights()
    directory = save_gemma_scope_2(tmp_path / "resid_post" / "layer_1_width_16k_l0_small", weights)
    for path in (directory, directory / "params.safetensors"):
        sae = el.load_sae(path)
        assert (sae.layer, sae.site, sae.model_name) == (1, "resid", "google/gemma-3-1b-pt")
        for name, ours in {"W_enc": sae.encoder, "b_enc": sae.bias, "threshold": sae.threshold}.items():
            np.testing.assert_array_equal(ours, weights[name].numpy())
        assert sae.offset is None  # b_dec is the decoder's only
    after = "model.layers.1.post_feedforward_layernorm.output"
    for i, (stated, message) in enumerate(
        [
            (dict(type="transcoder"), "says type='transcoder'; of Gemma Scope 2 SAEs with type='sae' can be read"),
            (dict(affine_connection=True), "says affine_connection=True"),
            (dict(architecture="topk"), "says architecture='topk'"),
            (dict(hook=after), "reads model.layers.1.post_feedforward_layernorm.output; of Hugging Face's modules"),
            (dict(hook="model.layers.1.self_attn.o_proj.input"), "o_proj.input; of Hugging Face's modules"),
            (dict(hf_hook_point_out=after), "a transcoder, from model.layers.1.output to model.layers.1.post"),
            (dict(width=7), "says width=7, and params.safetensors has 50 features"),
            (dict(input_scale=2.0), "states input_scale=2.0, which is unknown"),
        ]
    ):
        with pytest.raises(CheckpointError, match=message):
            el.load_sae(save_gemma_scope_2(tmp_path / str(i), weights, **stated))
    with pytest.raises(UnsupportedSAEError, match="layer=2, site=None were given, and .* reads model.layers.1.output"):
        el.load_sae(directory, layer=2)
    with pytest.raises(UnsupportedSAEError, match="scale=2.0 was given; params.safetensors of Gemma Scope has none"):
        el.load_sae(directory, scale=2.0)
    (directory / "config.json").unlink()
    with pytest.raises(CheckpointError, match="has params.safetensors and no config.json"):
        el.load_sae(directory)


def test_dictionaries_of_other_libraries_are_named(tmp_path):
    (tmp_path / "layers.3").mkdir()
    (tmp_path / "layers.3" / "cfg.json").write_text(json.dumps({"d_in": 24, "num_latents": 50, "k": 4}))
    (tmp_path / "layers.3" / "sae.safetensors").write_bytes(b"")
    with pytest.raises(
        UnsupportedSAEError, match="holds sae.safetensors of EleutherAI's sparsify, .* with its encoder"
    ):
        el.load_sae(tmp_path / "layers.3")
    for file, name in {"ae.pt": "dictionary_learning", "hyperparams.json": "Llama Scope"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(b"")
        with pytest.raises(UnsupportedSAEError, match=f"holds {file} of {name}, which can't be read. Build it by hand"):
            el.load_sae(tmp_path / name)
    both = save_sae_lens(tmp_path / "both", random_weights(), "blocks.1.hook_resid_post")
    np.savez(both / "params.npz", W_enc=np.zeros((2, 3)))
    with pytest.raises(CheckpointError, match=r"holds cfg.json and params.npz, of different SAEs. Give the file"):
        el.load_sae(both)
    assert el.load_sae(both / "cfg.json").layer == 1


def test_what_an_sae_is_can_be_told_apart(tmp_path):
    weights, hook = random_weights(), "blocks.1.hook_resid_post"
    sae = el.load_sae(save_sae_lens(tmp_path / "sae", weights, hook, architecture="jumprelu"))
    assert json.loads(json.dumps(sae.settings)) == {
        "activation": "jumprelu",
        "layer": 1,
        "site": "resid",
        "k": None,
        "normalize": "none",
        "centred": False,
        "takes_off_offset": True,
        "prepend_bos": True,
        "hook": hook,
        "model_name": "gpt2",
    }
    assert set(sae.arrays) == {"encoder", "bias", "offset", "threshold"}
    for other in (dict(k=3), dict(centred=True), dict(normalize="layer_norm"), dict(layer=2), dict(threshold=None)):
        assert sae.replace(**other).settings != sae.settings
