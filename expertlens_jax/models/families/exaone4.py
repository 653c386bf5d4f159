"""EXAONE 4.0 (LG AI Research 2025).

- as OLMo 2, with queries and keys normed within each head
- in models whose config states a window, layers that see all tokens have no positions at all
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import layer_windows

if TYPE_CHECKING:
    from transformers import Exaone4Config


def translate(hf: Exaone4Config) -> TransformerConfig:
    """Read an EXAONE 4.0 config."""
    everywhere = hf.sliding_window is None
    unrotated = (layer for layer, kind in enumerate(hf.layer_types or ()) if kind != "sliding_attention")
    return llama.llama_like(
        hf,
        norm_place="output",
        qk_norm="head",
        windows=layer_windows(hf),
        unrotated_layers=() if everywhere else tuple(unrotated),
    )


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="EXAONE 4.0",
    examples=("LGAI-EXAONE/EXAONE-4.0-1.2B", "LGAI-EXAONE/EXAONE-4.0-32B"),
    model_type="exaone4",
    translate=translate,
    fields=(*llama.LLAMA_LIKE, "sliding_window", "layer_types", "sliding_window_pattern"),
)
