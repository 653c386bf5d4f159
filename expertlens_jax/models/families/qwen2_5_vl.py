"""Qwen2.5-VL (Bai et al. 2025), the text towers.

- as Qwen2; rotary positions are of time, height and width, which are all the same in text
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama, qwen2
from expertlens_jax.models.families.family import layer_windows
from expertlens_jax.models.families.rope import read_rotary
from expertlens_jax.models.families.text_tower import text_tower

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLTextConfig


def translate(hf: Qwen2_5_VLTextConfig) -> TransformerConfig:
    """Read a Qwen2.5-VL text config."""
    rotary = read_rotary(hf, llama.head_width(hf), of_images_too=True)
    return llama.llama_like(hf, rotary=rotary, qkv_bias=True, windows=layer_windows(hf))


TEXT = dataclasses.replace(qwen2.FAMILY, model_type="qwen2_5_vl_text", translate=translate)

FAMILY = text_tower(
    TEXT,
    title="Qwen2.5-VL",
    examples=("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"),
    model_type="qwen2_5_vl",
)
