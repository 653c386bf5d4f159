"""Granite 3 (Granite Team 2024), the dense models.

- as Llama, with a factor each on embeddings, attention scores, what branches add to the residual stream, and logits
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama

if TYPE_CHECKING:
    from transformers import GraniteConfig


def granite_like(hf: Any, **options: Any) -> TransformerConfig:
    """Read what the configs of all Granites have in common; `options` are where one differs."""
    return llama.llama_like(
        hf,
        embedding_scale=hf.embedding_multiplier,
        residual_scale=hf.residual_multiplier,
        attention_scale=hf.attention_multiplier,
        logits_scale=1 / hf.logits_scaling,
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        **options,
    )


def translate(hf: GraniteConfig) -> TransformerConfig:
    """Read a Granite config."""
    return granite_like(hf, mlp_bias=hf.mlp_bias)


GRANITE_LIKE = (
    *(*llama.LLAMA_LIKE, "attention_bias"),
    *("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"),
)
"""Fields that `granite_like` reads."""


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Granite 3",
    examples=("ibm-granite/granite-3.1-2b-base", "ibm-granite/granite-3.3-8b-instruct"),
    model_type="granite",
    translate=translate,
    fields=(*GRANITE_LIKE, "mlp_bias"),
)
