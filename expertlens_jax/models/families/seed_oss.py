"""Seed-OSS (ByteDance Seed Team 2025).

- as Llama, with biases on q, k and v but not on the output
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama

if TYPE_CHECKING:
    from transformers import SeedOssConfig


def translate(hf: SeedOssConfig) -> TransformerConfig:
    """Read a Seed-OSS config."""
    return llama.llama_like(
        hf, qkv_bias=hf.attention_bias, attention_out_bias=hf.attention_out_bias, mlp_bias=hf.mlp_bias
    )


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Seed-OSS",
    examples=("ByteDance-Seed/Seed-OSS-36B-Base", "ByteDance-Seed/Seed-OSS-36B-Instruct"),
    model_type="seed_oss",
    translate=translate,
    fields=(*llama.LLAMA_LIKE, "attention_bias", "attention_out_bias", "mlp_bias"),
)
