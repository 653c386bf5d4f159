"""Ministral 8B (Mistral AI 2024).

- as Mistral; some layers see a window of tokens only
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import layer_windows

if TYPE_CHECKING:
    from transformers import MinistralConfig


def translate(hf: MinistralConfig) -> TransformerConfig:
    """Read a Ministral config."""
    return llama.llama_like(hf, windows=layer_windows(hf))


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Ministral",
    examples=("mistralai/Ministral-8B-Instruct-2410",),
    model_type="ministral",
    translate=translate,
    fields=(*llama.LLAMA_LIKE, "sliding_window", "layer_types"),
)
