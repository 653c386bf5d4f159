"""ERNIE 4.5 (Baidu ERNIE Team 2025), the dense models.

- as Llama, with rotary positions in pairs of neighbours, and biases everywhere if the config asks for them
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.rope import read_rotary

if TYPE_CHECKING:
    from transformers import Ernie4_5Config


def translate(hf: Ernie4_5Config) -> TransformerConfig:
    """Read an ERNIE 4.5 config."""
    biases = bool(hf.use_bias)
    return llama.llama_like(
        hf,
        rotary=dataclasses.replace(read_rotary(hf, llama.head_width(hf)), interleaved=True),
        qkv_bias=biases,
        attention_out_bias=biases,
        mlp_bias=biases,
    )


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="ERNIE 4.5",
    examples=("baidu/ERNIE-4.5-0.3B-PT", "baidu/ERNIE-4.5-0.3B-Base-PT"),
    model_type="ernie4_5",
    translate=translate,
    fields=(*llama.LLAMA_LIKE, "use_bias"),
)
