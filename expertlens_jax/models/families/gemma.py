"""Gemma (Gemma Team 2024).

- as Llama, with GELU in the gated MLP and heads wider than d_model / heads
- embeddings scaled by the square root of d_model, and tied to the head
- norms store their scale less one
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import refuse

if TYPE_CHECKING:
    from transformers import GemmaConfig


def gemma_like(hf: Any, **options: Any) -> TransformerConfig:
    """Read what the configs of all Gemmas have in common; `options` are where one differs."""
    refuse(hf, "use_bidirectional_attention", False, "Gemma is read as a causal language model")
    return llama.llama_like(
        hf,
        embedding_scale=hf.hidden_size**0.5,
        norm_plus_one=True,
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        **options,
    )


def translate(hf: GemmaConfig) -> TransformerConfig:
    """Read a Gemma config."""
    return gemma_like(hf)


GEMMA_LIKE = (*llama.LLAMA_LIKE, "attention_bias", "use_bidirectional_attention")
"""Fields that `gemma_like` reads."""

FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Gemma",
    examples=("google/gemma-2b", "google/gemma-2b-it"),
    model_type="gemma",
    translate=translate,
    fields=GEMMA_LIKE,
)
