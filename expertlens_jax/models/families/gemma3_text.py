"""Gemma 3 (Gemma Team 2025), the text models.

- as Gemma 2, without soft-caps by default; queries and keys normed within each head
- five layers of six see a window of tokens only, and have rotary positions of their own
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import gemma, llama
from expertlens_jax.models.families.family import layer_windows, refuse
from expertlens_jax.models.families.rope import read_rotary

if TYPE_CHECKING:
    from transformers import Gemma3TextConfig


def translate(hf: Gemma3TextConfig) -> TransformerConfig:
    """Read a Gemma 3 text config."""
    refuse(hf, "attn_logit_softcapping", None, "transformers' Gemma 3 ignores it")
    return gemma.gemma_like(
        hf,
        norm_place="both",
        qk_norm="head",
        attention_scale=hf.query_pre_attn_scalar**-0.5,
        windows=layer_windows(hf),
        rotary=read_rotary(hf, hf.head_dim, layer_type="full_attention"),
        local_rotary=read_rotary(hf, hf.head_dim, layer_type="sliding_attention"),
        activation=hf.hidden_activation,
        logits_softcap=hf.final_logit_softcapping,
    )


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Gemma 3, text models",
    examples=("google/gemma-3-270m", "google/gemma-3-1b-pt"),
    model_type="gemma3_text",
    translate=translate,
    fields=(
        *(field for field in gemma.GEMMA_LIKE if field != "hidden_act"),
        *("hidden_activation", "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"),
        *("sliding_window", "layer_types", "sliding_window_pattern", "_sliding_window_pattern", "rope_local_base_freq"),
    ),
)
