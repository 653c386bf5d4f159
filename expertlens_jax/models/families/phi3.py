"""Phi-3, Phi-3.5 and Phi-4 (Abdin et al. 2024), the dense models.

- as Llama, with q, k and v fused in one layer and gate and up in another, each concatenated
- rotary positions on all or a part of each head's channels, stretched by LongRoPE in the long-context models
- layers see a window of tokens only, if the config states one
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import Linear, concatenated, window
from expertlens_jax.models.families.rope import read_rotary

if TYPE_CHECKING:
    from transformers import Phi3Config


def translate(hf: Phi3Config) -> TransformerConfig:
    """Read a Phi-3 config."""
    return llama.llama_like(
        hf,
        rotary=read_rotary(hf, llama.head_width(hf), partial=True),
        windows=(window(hf),) * hf.num_hidden_layers,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    block = "layers.{layer}."
    keys = c.num_kv_heads * c.head_dim
    q, k, v = concatenated(c.num_heads * c.head_dim, keys, keys)
    gate, up = concatenated(c.d_mlp, c.d_mlp)
    return {
        "attn.q": Linear(block + "self_attn.qkv_proj", q),
        "attn.k": Linear(block + "self_attn.qkv_proj", k),
        "attn.v": Linear(block + "self_attn.qkv_proj", v),
        "attn.out": Linear(block + "self_attn.o_proj"),
        "mlp.gate": Linear(block + "mlp.gate_up_proj", gate),
        "mlp.up": Linear(block + "mlp.gate_up_proj", up),
        "mlp.down": Linear(block + "mlp.down_proj"),
    }


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Phi-3 to Phi-4",
    examples=("microsoft/Phi-3-mini-4k-instruct", "microsoft/phi-4"),
    model_type="phi3",
    translate=translate,
    linears=linears,
    fields=(*llama.LLAMA_LIKE, "sliding_window", "original_max_position_embeddings"),
)
