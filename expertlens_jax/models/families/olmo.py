"""OLMo 1 and 1.7 (Groeneveld et al. 2024).

- as Llama, with layer norms that have no parameters
- queries, keys and values clipped, if the config says so (OLMo 1.7)
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama

if TYPE_CHECKING:
    from transformers import OlmoConfig

NORM_EPS = 1e-5  # transformers' OLMo has it in its code


def translate(hf: OlmoConfig) -> TransformerConfig:
    """Read an OLMo config."""
    return llama.llama_like(
        hf,
        norm="layer",
        norm_eps=NORM_EPS,
        norm_parameters=False,
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        qkv_clip=hf.clip_qkv,
    )


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings and head."""
    return {"embed/token": "embed_tokens.weight", "head": "lm_head.weight"}


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="OLMo 1, 1.7",
    examples=("allenai/OLMo-1B-hf", "allenai/OLMo-1.7-7B-hf"),
    model_type="olmo",
    translate=translate,
    tensors=tensors,
    fields=(*(field for field in llama.LLAMA_LIKE if field != "rms_norm_eps"), "attention_bias", "clip_qkv"),
)
