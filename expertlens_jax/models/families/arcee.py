"""Arcee's foundation models (Arcee AI 2025).

- as Llama, with a plain MLP whose nonlinearity is the square of ReLU
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import Linear

if TYPE_CHECKING:
    from transformers import ArceeConfig


def translate(hf: ArceeConfig) -> TransformerConfig:
    """Read an Arcee config."""
    return llama.llama_like(
        hf,
        gated=False,
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        mlp_bias=hf.mlp_bias,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    return {site: linear for site, linear in llama.linears(c).items() if site != "mlp.gate"}


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Arcee AFM",
    examples=("arcee-ai/AFM-4.5B-Base", "arcee-ai/AFM-4.5B"),
    model_type="arcee",
    translate=translate,
    linears=linears,
    fields=(*llama.LLAMA_LIKE, "attention_bias", "mlp_bias"),
)
