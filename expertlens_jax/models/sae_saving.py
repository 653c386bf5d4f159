"""Writes a sparse autoencoder as a directory of SAELens: what `sae_files.py` reads, bit for bit, and SAELens too.

Names of tensors and settings are those of SAELens 6 (github.com/decoderesearch/SAELens, `sae_lens/saes`). Where
TransformerLens has a hook point for a site, it is named; and since it has none for some, and means something else by
others in some families, the site is stated besides, under this package's own names, and those count when it is read.
"""

import json
import pathlib

import numpy as np
import safetensors.numpy

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families.family import Family
from expertlens_jax.models.sae import SAE
from expertlens_jax.models.sae_files import CONFIG, WEIGHTS
from expertlens_jax.models.sae_settings import OWN_LAYER, OWN_SITE
from expertlens_jax.models.sites import SITES
from expertlens_jax.models.units import address

HOOKS = {
    "resid.pre": "hook_resid_pre",
    "attn.q": "attn.hook_q",
    "attn.k": "attn.hook_k",
    "attn.v": "attn.hook_v",
    "attn.z": "attn.hook_z",
    "attn.out": "hook_attn_out",
    "mlp.gate": "mlp.hook_pre",
    "mlp.act": "mlp.hook_post",
    "mlp.down": "hook_mlp_out",
    "resid": "hook_resid_post",
}
"""Our sites, and TransformerLens's hook points within `blocks.N.`; `mlp.up` is the gate's in a model without one."""


def save_sae(
    directory: pathlib.Path,
    sae: SAE,
    decoder: np.ndarray,
    *,
    family: Family,
    config: TransformerConfig,
    context: int,
) -> None:
    """Write `cfg.json` and `sae_weights.safetensors`.

    Args:
      directory: is made; what it holds under these names is replaced.
      sae: the encoder, with an offset, which the decoder adds again; not normalized, not centred.
      decoder: float32 `[features, channels]`.
      family: of the model that it was trained on.
      config: of that model.
      context: tokens of the texts that it was trained on.
    """
    kind = "topk" if sae.k is not None else "standard" if sae.threshold is None else "jumprelu"
    hook = hook_name(sae.site, sae.layer, family, config)
    settings = {
        "architecture": kind,
        "d_in": int(sae.encoder.shape[0]),
        "d_sae": sae.num_features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if hook.endswith("hook_z") else "none",
        **({} if sae.k is None else {"k": int(sae.k), "rescale_acts_by_decoder_norm": False}),
        "metadata": {
            "model_name": sae.model_name,
            "model_class_name": "HookedTransformer" if hook.startswith("blocks.") else "AutoModelForCausalLM",
            "hook_name": hook,
            "hook_head_index": None,
            "prepend_bos": sae.prepend_bos,
            "context_size": context,
            "model_from_pretrained_kwargs": {"center_writing_weights": False},
            OWN_LAYER: int(sae.layer),
            OWN_SITE: sae.site,
        },
    }
    tensors = {"W_enc": sae.encoder, "b_enc": sae.bias, "W_dec": decoder, "b_dec": sae.offset}
    tensors |= {"threshold": sae.threshold} if kind == "jumprelu" else {}
    directory.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(np.asarray(tensor, np.float32)) for name, tensor in tensors.items()}
    safetensors.numpy.save_file(arrays, directory / WEIGHTS)
    (directory / CONFIG).write_text(json.dumps(settings, indent=2) + "\n")


def hook_name(site: str, layer: int, family: Family, config: TransformerConfig) -> str:
    """Return what SAELens is told is read: TransformerLens's hook point, or Hugging Face's module where that differs.

    A branch's output is taken by TransformerLens after the norm that some families put on it; here, as in Hugging
    Face's module, it is what the linear layer gives. After a block with norms at its end, the stream has another name.
    """
    if site in ("attn.out", "mlp.down") and config.norm_place in ("output", "both"):
        return family.hf_module(address(SITES[site], family, config).module.format(layer=layer))
    if site == "resid" and config.norm_place == "post":
        return f"blocks.{layer}.hook_normalized_resid_post"
    if site == "mlp.up":
        return f"blocks.{layer}.mlp.{'hook_pre_linear' if config.gated else 'hook_pre'}"
    return f"blocks.{layer}.{HOOKS[site]}"
