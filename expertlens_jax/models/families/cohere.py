"""Command R (Cohere 2024).

- as Llama, with attention and MLP in parallel, through one layer norm that has no bias
- rotary positions in pairs of neighbours; a factor on the logits

Not supported: Command R+'s norms of queries and keys, which have parameters of each head's own.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import norm_tensors, refuse
from expertlens_jax.models.families.rope import read_rotary

if TYPE_CHECKING:
    from transformers import CohereConfig


def cohere_like(hf: Any, **options: Any) -> TransformerConfig:
    """Read what the configs of all Command models have in common; `options` are where one differs."""
    return llama.llama_like(
        hf,
        rotary=dataclasses.replace(read_rotary(hf, llama.head_width(hf)), interleaved=True),
        norm="layer",
        norm_eps=hf.layer_norm_eps,
        norm_bias=False,
        residual="parallel_shared_norm",
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        logits_scale=hf.logit_scale,
        **options,
    )


def translate(hf: CohereConfig) -> TransformerConfig:
    """Read a Command R config."""
    refuse(hf, "use_qk_norm", False, "the stack's norms of queries and keys are the same for all heads")
    return cohere_like(hf)


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings, norms and head."""
    return {
        "embed/token": "embed_tokens.weight",
        **norm_tensors("layers/attn_norm", "layers.{layer}.input_layernorm", bias=False),
        **norm_tensors("final_norm", "norm", bias=False),
        "head": "lm_head.weight",
    }


COHERE_LIKE = (
    *(field for field in llama.LLAMA_LIKE if field != "rms_norm_eps"),
    *("layer_norm_eps", "attention_bias", "logit_scale"),
)
"""Fields that `cohere_like` reads."""

FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Command R",
    examples=("CohereLabs/c4ai-command-r-v01", "CohereLabs/aya-23-8B"),
    model_type="cohere",
    translate=translate,
    tensors=tensors,
    fields=(*COHERE_LIKE, "use_qk_norm"),
)
