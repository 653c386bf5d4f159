"""SmolLM3 (Hugging Face 2025).

- as Llama; every fourth layer has no positions at all
- layers without positions see a window of tokens only, if the config switches that on
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import layer_windows

if TYPE_CHECKING:
    from transformers import SmolLM3Config


def translate(hf: SmolLM3Config) -> TransformerConfig:
    """Read a SmolLM3 config."""
    return llama.llama_like(
        hf,
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        windows=layer_windows(hf),
        # no_rope_layers is 1 where a layer does turn.
        unrotated_layers=tuple(layer for layer, turns in enumerate(hf.no_rope_layers or ()) if not turns),
        mlp_bias=hf.mlp_bias,
    )


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="SmolLM3",
    examples=("HuggingFaceTB/SmolLM3-3B",),
    model_type="smollm3",
    translate=translate,
    fields=(
        *llama.LLAMA_LIKE,
        *llama.WINDOWS,
        *("attention_bias", "mlp_bias", "no_rope_layers", "no_rope_layer_interval"),
    ),
)
