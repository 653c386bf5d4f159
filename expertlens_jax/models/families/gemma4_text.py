"""Gemma 4 (Gemma Team 2026), the text models of E2B, E4B and 31B; 26B-A4B, a mixture of experts, is refused.

- as Gemma 3, with norms that store their scale itself; scores aren't scaled, since queries, keys and values are normed
  within each head
- five layers of six see a window of tokens only. The others have wider heads, of which the channels of the highest
  frequencies turn; in 31B they have fewer key heads too, whose keys are the values as well
- in E2B and E4B the last layers take keys and values of the last layer of their kind that has its own, and E2B's have
  MLPs twice as wide; each token gives each layer a few channels by itself, which gate an addition to the stream
- the stream is multiplied by a number of the layer's behind each layer

The stack's layers are all as wide as the widest: what a layer doesn't have is 0 there, and no unit.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from expertlens_jax.errors import UnsupportedModelError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import layer_windows, norm_tensors, refuse
from expertlens_jax.models.families.rope import ROPE_FIELDS, read_rotary

if TYPE_CHECKING:
    from transformers import Gemma4TextConfig

FULL, SLIDING = "full_attention", "sliding_attention"


def gemma4_like(hf: Any, **options: Any) -> TransformerConfig:
    """Read what the configs of all Gemma 4 have in common; `options` are where one differs."""
    refuse(hf, "use_bidirectional_attention", "vision", "Gemma is read as a causal language model")
    windows = layer_windows(hf)
    (wide, few), (narrow, many) = layer_sizes(hf)
    shared = shared_layers(hf)
    own, doubled = hf.num_hidden_layers - shared, hf.use_double_wide_mlp and shared > 0
    return llama.llama_like(
        hf,
        rotary=read_rotary(hf, wide, layer_type=FULL, proportional=True),
        local_rotary=read_rotary(hf, narrow, layer_type=SLIDING, proportional=True) if windows else None,
        activation=hf.hidden_activation,
        embedding_scale=hf.hidden_size**0.5,
        norm_place="both",
        windows=windows,
        head_dim=wide,
        local_head_dim=narrow if narrow < wide else None,
        num_kv_heads=many,
        global_kv_heads=few if few < many else None,
        global_values_are_keys=bool(hf.attention_k_eq_v),
        shared_kv_layers=shared,
        d_mlp=hf.intermediate_size * (2 if doubled else 1),
        d_mlps=(hf.intermediate_size,) * own + (2 * hf.intermediate_size,) * shared if doubled else (),
        attention_scale=1.0,
        qk_norm="head",
        value_norm=True,
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        layer_scalars=True,
        logits_softcap=hf.final_logit_softcapping,
        **options,
    )


def translate(hf: Gemma4TextConfig) -> TransformerConfig:
    """Read a Gemma 4 text config."""
    refuse(hf, "enable_moe_block", False, "a layer of the stack has an MLP or a mixture of experts, not both")
    width = hf.hidden_size_per_layer_input or 0
    return gemma4_like(hf, per_layer_width=width, per_layer_vocab=hf.vocab_size_per_layer_input if width else 0)


SIZES = ("head_dim", "num_key_value_heads")
"""Fields in which layers of the two kinds may differ."""


def layer_sizes(hf: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return channels of a head and how many key-value heads there are, of layers without a window and of those with.

    Raises:
      UnsupportedModelError: layers differ in something else, or those of one kind differ; or those with a window have
        wider heads, or a number of key-value heads that isn't a multiple of the others'.
    """
    others = sorted(set(hf.per_layer_attributes or ()) - set(SIZES))
    if others:
        raise UnsupportedModelError(
            f"the per_layer_config of this {hf.model_type} config gives layers their own {' and '.join(others)}; "
            f"only {' and '.join(SIZES)} may differ by layer."
        )
    sizes: dict[str, dict[str, int]] = {}
    for layer, kind in enumerate(hf.layer_types):
        of_layer = hf.per_layer_config[layer]
        own = {field: getattr(of_layer, field) for field in SIZES}
        if sizes.setdefault(kind, own) != own:
            raise UnsupportedModelError(
                f"the per_layer_config of this {hf.model_type} config gives layer {layer} {own}, and other layers of "
                f"{kind} {sizes[kind]}; those of one kind are to be alike."
            )
    (wide, few), (narrow, many) = of_full, of_local = [tuple(sizes.get(kind, own).values()) for kind in (FULL, SLIDING)]
    if narrow > wide or many % few:
        raise UnsupportedModelError(
            f"this {hf.model_type} config's layers have heads of {narrow} channels, {many} of them of keys, where they "
            f"have a window, and {wide} channels and {few} heads elsewhere. Wanted are heads that are no wider where "
            "there is a window, and a multiple of the others' heads of keys."
        )
    return of_full, of_local


def shared_layers(hf: Any) -> int:
    """Return how many layers, the last, take keys and values of others.

    Raises:
      UnsupportedModelError: there is none of their kind before them that has its own.
    """
    shared = hf.num_kv_shared_layers or 0
    if not 0 <= shared <= hf.num_hidden_layers:
        raise UnsupportedModelError(
            f"this {hf.model_type} config says num_kv_shared_layers={shared}; wanted is a number from 0 to "
            f"{hf.num_hidden_layers}, that of its layers."
        )
    own, taken = (set(part) for part in (hf.layer_types[: hf.num_hidden_layers - shared], hf.layer_types))
    if shared and own != taken:
        raise UnsupportedModelError(
            f"this {hf.model_type} config says num_kv_shared_layers={shared}, and none of the layers before those is "
            f"of {' or '.join(sorted(taken - own))}, whose keys and values they take."
        )
    return shared


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return Llama's, the numbers of layers, and what each token gives each layer."""
    block = "layers.{layer}."
    named = llama.tensors(c) | {"layers/scalar": block + "layer_scalar"}
    if not c.per_layer_width:
        return named
    named |= {
        "embed/per_layer_token": "embed_tokens_per_layer.weight",
        "embed/per_layer/kernel": "per_layer_model_projection.weight",
        "layers/per_layer_gate/kernel": block + "per_layer_input_gate.weight",
        "layers/per_layer_out/kernel": block + "per_layer_projection.weight",
    }
    named |= norm_tensors("embed/per_layer_norm", "per_layer_projection_norm", bias=False)
    return named | norm_tensors("layers/per_layer_norm", block + "post_per_layer_input_norm", bias=False)


GEMMA4_LIKE = (
    *(field for field in llama.LLAMA_LIKE if field not in ("hidden_act", *ROPE_FIELDS)),
    *("rope_parameters", "max_position_embeddings"),  # by layer type, and nowhere else
    *("hidden_activation", "attention_bias", "use_bidirectional_attention", "final_logit_softcapping"),
    *("layer_types", "sliding_window", "global_head_dim", "num_global_key_value_heads", "per_layer_config"),
    *("attention_k_eq_v", "num_kv_shared_layers", "use_double_wide_mlp"),
)
"""Fields that `gemma4_like` reads, or the config's class for it."""

FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Gemma 4's text towers by themselves",
    examples=("google/gemma-4-E2B-it",),
    model_type="gemma4_text",
    translate=translate,
    tensors=tensors,
    fields=(
        *GEMMA4_LIKE,
        *("hidden_size_per_layer_input", "vocab_size_per_layer_input"),
        *("enable_moe_block", "num_experts", "top_k_experts", "moe_intermediate_size"),
    ),
)
