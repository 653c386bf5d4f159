"""StableLM 3B, Zephyr 3B and StableLM 2 1.6B (Bellagente et al. 2024).

- as Llama, with layer norms; rotary positions on a part of each head's channels; biases on q, k and v by config
- attention and MLP in parallel, through one layer norm, if the config says so

Not supported: StableLM 2 12B's norms of queries and keys, which have parameters of each head's own.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import norm_tensors, refuse
from expertlens_jax.models.families.rope import read_rotary

if TYPE_CHECKING:
    from transformers import StableLmConfig


def translate(hf: StableLmConfig) -> TransformerConfig:
    """Read a StableLM config."""
    refuse(hf, "qk_layernorm", False, "the stack's norms of queries and keys are the same for all heads")
    head_dim = hf.hidden_size // hf.num_attention_heads
    return llama.llama_like(
        hf,
        head_dim=head_dim,
        rotary=read_rotary(hf, head_dim, partial=True),
        norm="layer",
        norm_eps=hf.layer_norm_eps,
        residual="parallel_shared_norm" if hf.use_parallel_residual else "sequential",
        qkv_bias=hf.use_qkv_bias,
    )


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings, norms and head."""
    return {
        "embed/token": "embed_tokens.weight",
        **norm_tensors("layers/attn_norm", "layers.{layer}.input_layernorm"),
        **norm_tensors("layers/mlp_norm", "layers.{layer}.post_attention_layernorm"),
        **norm_tensors("final_norm", "norm"),
        "head": "lm_head.weight",
    }


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="StableLM",
    examples=("stabilityai/stablelm-2-1_6b", "stabilityai/stablelm-3b-4e1t"),
    model_type="stablelm",
    translate=translate,
    tensors=tensors,
    fields=(
        *(field for field in llama.LLAMA_LIKE if field not in ("rms_norm_eps", "head_dim")),
        *("layer_norm_eps", "qk_layernorm", "use_parallel_residual", "use_qkv_bias"),
    ),
)
