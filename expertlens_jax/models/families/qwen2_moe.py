"""Qwen1.5-MoE and Qwen2's mixture of experts (Qwen Team 2024).

- as Qwen2, with a mixture of small experts in each layer's MLP; models with plain MLPs between are refused
- every token has a shared expert beside its own, wider than these, times the sigmoid of a number
- the weights of a token's experts sum to one only if the config says so
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama, olmoe
from expertlens_jax.models.families.family import Linear, layer_windows, refuse
from expertlens_jax.models.families.mixtral import mixture

if TYPE_CHECKING:
    from transformers import Qwen2MoeConfig


def translate(hf: Qwen2MoeConfig) -> TransformerConfig:
    """Read the config of a Qwen2 mixture of experts."""
    refuse(hf, "decoder_sparse_step", 1, "every layer of the stack has a mixture of experts")
    refuse(hf, "mlp_only_layers", [], "every layer of the stack has a mixture of experts")
    return llama.llama_like(
        hf,
        d_mlp=hf.moe_intermediate_size,
        qkv_bias=hf.qkv_bias,
        windows=layer_windows(hf),
        **mixture(hf, hf.num_experts),
        router_norm=hf.norm_topk_prob,
        d_shared=hf.shared_expert_intermediate_size,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    mlp = "layers.{layer}.mlp."
    return olmoe.linears(c) | {
        "mlp.shared_router": Linear(mlp + "shared_expert_gate"),
        "mlp.shared_gate": Linear(mlp + "shared_expert.gate_proj"),
        "mlp.shared_up": Linear(mlp + "shared_expert.up_proj"),
        "mlp.shared_down": Linear(mlp + "shared_expert.down_proj"),
    }


FAMILY = dataclasses.replace(
    olmoe.FAMILY,
    title="Qwen1.5-MoE, Qwen2's mixture of experts",
    examples=("Qwen/Qwen1.5-MoE-A2.7B", "Qwen/Qwen2-57B-A14B"),
    model_type="qwen2_moe",
    translate=translate,
    linears=linears,
    fields=(
        *(*llama.LLAMA_LIKE, *llama.WINDOWS, "qkv_bias", "num_experts", "num_experts_per_tok", "norm_topk_prob"),
        *("moe_intermediate_size", "shared_expert_intermediate_size", "decoder_sparse_step", "mlp_only_layers"),
    ),
)
