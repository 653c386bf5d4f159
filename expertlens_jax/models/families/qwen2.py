"""Qwen2 and Qwen2.5 (Yang et al. 2024).

- as Llama, with biases on q, k and v
- layers from `max_window_layers` on see a window of tokens only, if the config switches that on
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import layer_windows

if TYPE_CHECKING:
    from transformers import Qwen2Config


def translate(hf: Qwen2Config) -> TransformerConfig:
    """Read a Qwen2 config."""
    return llama.llama_like(hf, qkv_bias=True, windows=layer_windows(hf))


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Qwen2, Qwen2.5",
    examples=("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2-7B"),
    model_type="qwen2",
    translate=translate,
    fields=(*llama.LLAMA_LIKE, *llama.WINDOWS),
)
