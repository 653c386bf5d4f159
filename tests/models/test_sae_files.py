"""Files of sparse autoencoders: read as they are, and refused by what is wrong with them."""

import numpy as np
import pytest
from sae_files import random_weights, save_gemma_scope, save_sae_lens

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError


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
        dict(site="attn.q"),
        "site='attn.q' was given for .*; SAEs can read attn.out, mlp.down, resid",
    ),
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
    with pytest.raises(CheckpointError, match="W_enc in .* holds 1 values that are NaN"):
        el.load_sae(save_sae_lens(tmp_path / "nan", weights | {"W_enc": broken}, hook))
    with pytest.raises(CheckpointError, match="is stored as I64; wanted floating point"):
        el.load_sae(save_sae_lens(tmp_path / "whole", weights | {"W_enc": broken.nan_to_num().long()}, hook))
    scope = save_gemma_scope(tmp_path / "scope", weights)
    with pytest.raises(CheckpointError, match=r"doesn't say which layer it reads. Give it"):
        el.load_sae(scope)
    (scope / "params.npz").write_bytes((scope / "params.npz").read_bytes()[:300])
    with pytest.raises(CheckpointError, match="can't be read: .* truncated"):
        el.load_sae(scope, layer=1)
