"""Llama 4 (Meta 2025), the text models.

- as Llama, with a mixture of experts and a shared one in each layer's MLP; models with plain MLPs between are refused
- an expert reads its token times the sigmoid of the router's logit, and what experts give is added as it is
- three layers of four have rotary positions, of neighbouring channels, with queries and keys normed after they are
  turned, and see the tokens of their own chunk; the fourth sees all tokens and has no positions, and its queries grow
  by their position. That is counted from a text's first token; transformers counts padding before it, too.
- files have all experts of a layer in one tensor, inputs before outputs
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from expertlens_jax.errors import UnsupportedModelError
from expertlens_jax.models.config import QueryScale, TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import Linear, refuse
from expertlens_jax.models.families.mixtral import mixture
from expertlens_jax.models.families.rope import read_rotary

if TYPE_CHECKING:
    from transformers import Llama4TextConfig

EXPERT_LAYERS = ("gate_proj", "up_proj", "down_proj")
"""Names for an expert's layers; files have none."""


def translate(hf: Llama4TextConfig) -> TransformerConfig:
    """Read a Llama 4 text config."""
    refuse(
        hf,
        "moe_layers",
        list(range(hf.num_hidden_layers)),
        f"every layer of the stack has a mixture of experts (interleave_moe_layer_step={hf.interleave_moe_layer_step})",
    )
    refuse(hf, "is_causal", True, "transformers' Llama 4 is causal within chunks whatever its config says")
    turned = hf.no_rope_layers or ()  # 1 where a layer does turn
    grows = hf.attn_temperature_tuning
    return llama.llama_like(
        hf,
        rotary=dataclasses.replace(read_rotary(hf, llama.head_width(hf)), interleaved=True),
        unrotated_layers=tuple(layer for layer, turns in enumerate(turned[: hf.num_hidden_layers]) if not turns),
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        qk_norm="rotated" if hf.use_qk_norm else None,
        query_scale=QueryScale(hf.attn_scale, hf.floor_scale, first=1, unrotated_only=True) if grows else None,
        chunks=layer_chunks(hf),
        **mixture(hf, hf.num_local_experts),
        weighted_inputs=True,
        d_shared=hf.intermediate_size,
        shared_router=False,
    )


def layer_chunks(hf: Any) -> tuple[int, ...]:
    """Return how many tokens a chunk of each layer has, 0 where it sees all.

    Raises:
      UnsupportedModelError: a layer is of another type than full or chunked attention, or chunks have no size.
    """
    unknown = sorted(set(hf.layer_types) - {"full_attention", "chunked_attention"})
    if unknown:
        raise UnsupportedModelError(
            f"the layer_types of this {hf.model_type} config hold {', '.join(unknown)}; only full_attention and "
            "chunked_attention are supported."
        )
    if not hf.attention_chunk_size or hf.attention_chunk_size < 1:
        raise UnsupportedModelError(
            f"this {hf.model_type} config says attention_chunk_size={hf.attention_chunk_size!r}; wanted is a number of "
            "tokens, without which transformers doesn't run the model either."
        )
    return tuple(hf.attention_chunk_size if kind == "chunked_attention" else 0 for kind in hf.layer_types)


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    mlp = "layers.{layer}.feed_forward."
    gate, up, down = (f"{mlp}experts.{{expert}}.{layer}" for layer in EXPERT_LAYERS)
    return llama.linears(c) | {
        "mlp.router": Linear(mlp + "router"),
        "mlp.gate": Linear("", stored=gate),
        "mlp.up": Linear("", stored=up),
        "mlp.down": Linear("layers.{layer}.feed_forward", stored=down),
        "mlp.shared_gate": Linear(mlp + "shared_expert.gate_proj"),
        "mlp.shared_up": Linear(mlp + "shared_expert.up_proj"),
        "mlp.shared_down": Linear(mlp + "shared_expert.down_proj"),
    }


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return Llama's; the norms of queries and keys have no parameters."""
    return llama.tensors(dataclasses.replace(c, qk_norm=None))


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Llama 4 Scout's text tower by itself",
    examples=("meta-llama/Llama-4-Scout-17B-16E",),
    model_type="llama4_text",
    translate=translate,
    linears=linears,
    tensors=tensors,
    fields=(
        *(*llama.LLAMA_LIKE, "attention_bias", "num_local_experts", "num_experts_per_tok", "use_qk_norm"),
        *("moe_layers", "interleave_moe_layer_step", "no_rope_layers", "no_rope_layer_interval", "layer_types"),
        *("attention_chunk_size", "attn_temperature_tuning", "floor_scale", "attn_scale", "intermediate_size_mlp"),
    ),
    expert_layers=EXPERT_LAYERS,
    experts_together=True,
    experts_turned=True,
    quantised=(),  # formats are of matrices, not of all experts in one
)
