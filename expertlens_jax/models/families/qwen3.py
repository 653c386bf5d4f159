"""Qwen3 (Yang et al. 2025), the dense models.

- as Llama; queries and keys normed within each head; no biases unless the config asks for them
- layers from `max_window_layers` on see a window of tokens only, if the config switches that on
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import layer_windows

if TYPE_CHECKING:
    from transformers import Qwen3Config


def translate(hf: Qwen3Config) -> TransformerConfig:
    """Read a Qwen3 config."""
    return llama.llama_like(
        hf,
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        qk_norm="head",
        windows=layer_windows(hf),
    )


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Qwen3",
    examples=("Qwen/Qwen3-0.6B", "Qwen/Qwen3-8B"),
    model_type="qwen3",
    translate=translate,
    fields=(*llama.LLAMA_LIKE, *llama.WINDOWS, "attention_bias"),
)
