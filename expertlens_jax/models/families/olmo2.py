"""OLMo 2 (OLMo Team 2025).

- as Llama; RMS norm on each branch's output instead of its input
- queries and keys normed over the whole projection
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama

if TYPE_CHECKING:
    from transformers import Olmo2Config


def translate(hf: Olmo2Config) -> TransformerConfig:
    """Read an OLMo 2 config."""
    return llama.llama_like(
        hf,
        norm_place="output",
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        qk_norm="projection",
    )


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="OLMo 2",
    examples=("allenai/OLMo-2-0425-1B", "allenai/OLMo-2-1124-7B"),
    model_type="olmo2",
    translate=translate,
    fields=(*llama.LLAMA_LIKE, "attention_bias"),
)
