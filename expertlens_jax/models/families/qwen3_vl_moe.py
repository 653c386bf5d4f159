"""Qwen3-VL (Qwen Team 2025), the text towers of the mixtures of experts.

- as Qwen3's mixtures of experts; rotary positions are of time, height and width, which are all the same in text
- the weights of a token's experts sum to one
- files have all experts of a layer in one tensor, inputs before outputs or after them
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama, olmoe
from expertlens_jax.models.families.family import refuse
from expertlens_jax.models.families.mixtral import mixture
from expertlens_jax.models.families.rope import read_rotary
from expertlens_jax.models.families.text_tower import text_tower

if TYPE_CHECKING:
    from transformers import Qwen3VLMoeTextConfig


def translate(hf: Qwen3VLMoeTextConfig) -> TransformerConfig:
    """Read the text config of a Qwen3-VL mixture of experts."""
    refuse(hf, "decoder_sparse_step", 1, "every layer of the stack has a mixture of experts")
    refuse(hf, "mlp_only_layers", [], "every layer of the stack has a mixture of experts")
    return llama.llama_like(
        hf,
        rotary=read_rotary(hf, llama.head_width(hf), of_images_too=True),
        d_mlp=hf.moe_intermediate_size,
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        qk_norm="head",
        **mixture(hf, hf.num_experts),
        router_norm=True,
    )


TEXT = dataclasses.replace(
    olmoe.FAMILY,
    model_type="qwen3_vl_moe_text",
    translate=translate,
    fields=(
        *(*llama.LLAMA_LIKE, "attention_bias", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size"),
        *("decoder_sparse_step", "mlp_only_layers"),
    ),
    experts_together=True,
    quantised=(),  # formats are of matrices, not of all experts in one
)

FAMILY = text_tower(
    TEXT,
    title="Qwen3-VL, mixtures of experts",
    examples=("Qwen/Qwen3-VL-30B-A3B-Instruct",),
    model_type="qwen3_vl_moe",
)
