"""Granite 3 (Granite Team 2024), the dense models.

- as Llama, with a factor each on embeddings, attention scores, what branches add to the residual stream, and logits
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama

if TYPE_CHECKING:
    from transformers import GraniteConfig


def translate(hf: GraniteConfig) -> TransformerConfig:
    """Read a Granite config."""
    return llama.llama_like(
        hf,
        embedding_scale=hf.embedding_multiplier,
        residual_scale=hf.residual_multiplier,
        attention_scale=hf.attention_multiplier,
        logits_scale=1 / hf.logits_scaling,
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        mlp_bias=hf.mlp_bias,
    )


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Granite 3",
    examples=("ibm-granite/granite-3.1-2b-base", "ibm-granite/granite-3.3-8b-instruct"),
    model_type="granite",
    translate=translate,
    fields=(
        *llama.LLAMA_LIKE,
        *("attention_bias", "mlp_bias"),
        *("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"),
    ),
)
