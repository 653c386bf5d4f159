"""Gemma 2 (Gemma Team 2024).

- as Gemma; norms before and after each branch
- every other layer sees a window of tokens only
- soft-caps on attention scores and logits; queries scaled by a number of the config's own
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import gemma, llama
from expertlens_jax.models.families.family import layer_windows

if TYPE_CHECKING:
    from transformers import Gemma2Config


def translate(hf: Gemma2Config) -> TransformerConfig:
    """Read a Gemma 2 config."""
    return gemma.gemma_like(
        hf,
        norm_place="both",
        attention_scale=hf.query_pre_attn_scalar**-0.5,
        attention_softcap=hf.attn_logit_softcapping,
        windows=layer_windows(hf),
        activation=hf.hidden_activation,
        logits_softcap=hf.final_logit_softcapping,
    )


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Gemma 2",
    examples=("google/gemma-2-2b", "google/gemma-2-9b-it"),
    model_type="gemma2",
    translate=translate,
    fields=(
        *(field for field in gemma.GEMMA_LIKE if field != "hidden_act"),
        *("hidden_activation", "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"),
        *("sliding_window", "layer_types"),
    ),
)
