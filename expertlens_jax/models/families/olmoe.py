"""OLMoE (Muennighoff et al. 2024, arXiv 2409.02060).

- as Llama, with a mixture of many small experts in each layer's MLP
- queries and keys normed over the whole projection; with values clipped, if the config says so
- the weights of a token's experts sum to one only if the config says so
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import Linear, refuse
from expertlens_jax.models.families.mixtral import expert_linears, mixture

if TYPE_CHECKING:
    from transformers import OlmoeConfig

EXPERT_LAYERS = ("gate_proj", "up_proj", "down_proj")
"""What files call an expert's gate, up and down."""


def translate(hf: OlmoeConfig) -> TransformerConfig:
    """Read an OLMoE config."""
    equal = hf.hidden_size // hf.num_attention_heads
    refuse(hf, "head_dim", equal, "transformers' norms of queries and keys are as wide as equal shares of hidden_size")
    return llama.llama_like(
        hf,
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        qk_norm="projection",
        qkv_clip=hf.clip_qkv,
        **mixture(hf, hf.num_experts),
        router_norm=hf.norm_topk_prob,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    return llama.linears(c) | expert_linears("layers.{layer}.mlp", *EXPERT_LAYERS)


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="OLMoE",
    examples=("allenai/OLMoE-1B-7B-0924", "allenai/OLMoE-1B-7B-0125-Instruct"),
    model_type="olmoe",
    translate=translate,
    linears=linears,
    fields=(
        *(*llama.LLAMA_LIKE, "attention_bias", "clip_qkv"),
        *("num_experts", "num_experts_per_tok", "norm_topk_prob"),
    ),
    expert_layers=EXPERT_LAYERS,
)
