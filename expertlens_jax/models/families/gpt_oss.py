"""gpt-oss (OpenAI 2025, arXiv 2508.10925).

- as Llama with biases, rotary positions stretched by YaRN, every second layer with a window
- attention can look at a sink, a number a head that takes a share of the softmax and gives nothing
- a mixture of experts in each layer's MLP, with biases, and with a gated unit of its own, clamped on both sides
- all experts are stored together, gate and up in turns; quantised to MXFP4 in the hub's files
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import Linear, layer_windows, refuse
from expertlens_jax.models.families.mixtral import mixture

if TYPE_CHECKING:
    from transformers import GptOssConfig

EXPERT_LAYERS = ("gate_proj", "up_proj", "down_proj")
"""Names for an expert's layers; files have none."""


def translate(hf: GptOssConfig) -> TransformerConfig:
    """Read a gpt-oss config."""
    refuse(hf, "hidden_act", "silu", "transformers' gpt_oss models have one activation function, whatever this says")
    return llama.llama_like(
        hf,
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        attention_sinks=True,
        windows=layer_windows(hf),
        mlp_bias=True,
        clamped_gate=(hf.swiglu_alpha, hf.swiglu_limit),
        **mixture(hf, hf.num_local_experts),
        router_norm=True,  # a softmax over a token's experts alone is one over all, made to sum to one
        router_bias=True,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    expert = "layers.{layer}.mlp.experts.{expert}."
    gate, up, down = EXPERT_LAYERS
    return llama.linears(c) | {
        "mlp.router": Linear("layers.{layer}.mlp.router"),
        "mlp.gate": Linear("", stored=expert + gate),
        "mlp.up": Linear("", stored=expert + up),
        "mlp.down": Linear("layers.{layer}.mlp", stored=expert + down),
    }


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return Llama's, and the sinks."""
    return llama.tensors(c) | {"layers/attn/sinks": "layers.{layer}.self_attn.sinks"}


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="gpt-oss",
    examples=("openai/gpt-oss-20b", "openai/gpt-oss-120b"),
    model_type="gpt_oss",
    translate=translate,
    linears=linears,
    tensors=tensors,
    fields=(
        *(*llama.LLAMA_LIKE, "attention_bias", "layer_types", "sliding_window"),
        *("num_local_experts", "num_experts_per_tok", "swiglu_alpha", "swiglu_limit"),
    ),
    expert_layers=EXPERT_LAYERS,
    experts_together=True,
    experts_turned=True,
    experts_interleaved=True,
    quantised=("mxfp4",),
)
