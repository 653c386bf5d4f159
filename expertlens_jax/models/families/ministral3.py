"""Ministral 3 and Devstral 2 (Mistral AI 2025), the text models.

- as Mistral, with rotary positions stretched by YaRN
- queries grow by the position, beyond the context that the model was first trained on
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from expertlens_jax.errors import UnsupportedModelError
from expertlens_jax.models.config import QueryScale, TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import window
from expertlens_jax.models.families.rope import read_rotary

if TYPE_CHECKING:
    from transformers import Ministral3Config

GROWTH, CONTEXT = "llama_4_scaling_beta", "original_max_position_embeddings"


def translate(hf: Ministral3Config) -> TransformerConfig:
    """Read a Ministral 3 config.

    Raises:
      UnsupportedModelError: `rope_parameters` don't say how queries grow, or from which position on.
    """
    return llama.llama_like(
        hf,
        rotary=read_rotary(hf, llama.head_width(hf), others=(GROWTH, "max_position_embeddings", CONTEXT)),
        windows=(window(hf),) * hf.num_hidden_layers,
        query_scale=read_query_scale(hf),
    )


def read_query_scale(hf: Any) -> QueryScale:
    """Return how queries grow, which `rope_parameters` say whatever their `rope_type`."""
    beta, context = (hf.rope_parameters.get(name) for name in (GROWTH, CONTEXT))
    if beta is None or not context:
        raise UnsupportedModelError(
            f"the rope_parameters of this {hf.model_type} config say {GROWTH}={beta!r} and {CONTEXT}={context!r}; "
            f"wanted are two numbers: queries grow by the position divided by the second. With {GROWTH}=0 they don't."
        )
    return QueryScale(float(beta), int(context))


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Ministral 3, Devstral 2, text models",
    examples=("mistralai/Devstral-2-123B-Instruct-2512",),
    model_type="ministral3",
    translate=translate,
    fields=(*llama.LLAMA_LIKE, "sliding_window"),
)
