"""Qwen3-VL (Qwen Team 2025), the text towers of the dense models.

- as Qwen3; rotary positions are of time, height and width, which are all the same in text
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama, qwen3
from expertlens_jax.models.families.rope import read_rotary
from expertlens_jax.models.families.text_tower import text_tower

if TYPE_CHECKING:
    from transformers import Qwen3VLTextConfig


def translate(hf: Qwen3VLTextConfig) -> TransformerConfig:
    """Read a Qwen3-VL text config."""
    return llama.llama_like(
        hf,
        rotary=read_rotary(hf, llama.head_width(hf), of_images_too=True),
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        qk_norm="head",
    )


TEXT = dataclasses.replace(
    qwen3.FAMILY,
    model_type="qwen3_vl_text",
    translate=translate,
    fields=(*llama.LLAMA_LIKE, "attention_bias"),
)

FAMILY = text_tower(
    TEXT,
    title="Qwen3-VL",
    examples=("Qwen/Qwen3-VL-2B-Instruct", "Qwen/Qwen3-VL-8B-Instruct"),
    model_type="qwen3_vl",
)
