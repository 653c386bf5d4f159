"""OLMo 3 (OLMo Team 2025).

- as OLMo 2; three layers of four see a window of tokens only, and have rotary positions of their own
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import layer_windows
from expertlens_jax.models.families.rope import read_rotary

if TYPE_CHECKING:
    from transformers import Olmo3Config


def translate(hf: Olmo3Config) -> TransformerConfig:
    """Read an OLMo 3 config."""
    head_dim = llama.head_width(hf)
    return llama.llama_like(
        hf,
        norm_place="output",
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        qk_norm="projection",
        windows=layer_windows(hf),
        rotary=read_rotary(hf, head_dim, layer_type="full_attention"),
        local_rotary=read_rotary(hf, head_dim, layer_type="sliding_attention"),
    )


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="OLMo 3",
    examples=("allenai/Olmo-3-1025-7B", "allenai/Olmo-3-7B-Instruct"),
    model_type="olmo3",
    translate=translate,
    fields=(*llama.LLAMA_LIKE, "attention_bias", "layer_types", "sliding_window"),
)
