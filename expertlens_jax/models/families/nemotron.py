"""Nemotron-4 and Minitron (NVIDIA 2024).

- as Arcee, with layer norms that store their scale less one
- rotary positions on half of each head's channels
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import arcee, llama, stablelm
from expertlens_jax.models.families.rope import read_rotary

if TYPE_CHECKING:
    from transformers import NemotronConfig


def translate(hf: NemotronConfig) -> TransformerConfig:
    """Read a Nemotron config."""
    return llama.llama_like(
        hf,
        rotary=read_rotary(hf, llama.head_width(hf), partial=True),
        num_kv_heads=hf.num_key_value_heads or hf.num_attention_heads,
        norm="layer",
        norm_eps=hf.norm_eps,
        norm_plus_one=True,
        gated=False,
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        mlp_bias=hf.mlp_bias,
    )


FAMILY = dataclasses.replace(
    arcee.FAMILY,
    title="Nemotron-4, Minitron",
    examples=("nvidia/Minitron-4B-Base", "nvidia/Nemotron-Mini-4B-Instruct"),
    model_type="nemotron",
    translate=translate,
    tensors=stablelm.tensors,
    fields=(
        *(field for field in llama.LLAMA_LIKE if field != "rms_norm_eps"),
        *("norm_eps", "attention_bias", "mlp_bias"),
    ),
)
