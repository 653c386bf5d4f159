"""Qwen3's mixtures of experts (Yang et al. 2025, arXiv 2505.09388).

- as Qwen3, with a mixture of many small experts in each layer's MLP; models with plain MLPs between are refused
- the weights of a token's experts sum to one only if the config says so
- all layers see a window of tokens only, if the config switches that on
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama, olmoe
from expertlens_jax.models.families.family import refuse, window
from expertlens_jax.models.families.mixtral import mixture

if TYPE_CHECKING:
    from transformers import Qwen3MoeConfig


def translate(hf: Qwen3MoeConfig) -> TransformerConfig:
    """Read the config of a Qwen3 mixture of experts."""
    refuse(hf, "decoder_sparse_step", 1, "every layer of the stack has a mixture of experts")
    refuse(hf, "mlp_only_layers", [], "every layer of the stack has a mixture of experts")
    return llama.llama_like(
        hf,
        d_mlp=hf.moe_intermediate_size,
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        qk_norm="head",
        windows=(window(hf),) * hf.num_hidden_layers,
        **mixture(hf, hf.num_experts),
        router_norm=hf.norm_topk_prob,
    )


FAMILY = dataclasses.replace(
    olmoe.FAMILY,
    title="Qwen3, mixtures of experts",
    examples=("Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-Coder-30B-A3B-Instruct"),
    model_type="qwen3_moe",
    translate=translate,
    fields=(
        *(*llama.LLAMA_LIKE, "attention_bias", "sliding_window", "use_sliding_window"),
        *("num_local_experts", "num_experts_per_tok", "norm_topk_prob", "moe_intermediate_size"),
        *("decoder_sparse_step", "mlp_only_layers"),
    ),
)
