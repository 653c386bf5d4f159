"""Mistral 7B (Jiang et al. 2023).

- as Llama, without biases; the first version's layers see a window of tokens only
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import refuse, window

if TYPE_CHECKING:
    from transformers import MistralConfig


def translate(hf: MistralConfig) -> TransformerConfig:
    """Read a Mistral config."""
    refuse(hf, "layer_types", None, "models that alternate are of model_type 'ministral'")
    return llama.llama_like(hf, windows=(window(hf),) * hf.num_hidden_layers)


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Mistral",
    examples=("mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-Instruct-v0.3"),
    model_type="mistral",
    translate=translate,
    fields=(*llama.LLAMA_LIKE, "sliding_window", "layer_types"),
)
