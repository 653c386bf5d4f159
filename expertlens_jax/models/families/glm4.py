"""GLM-4-0414 (GLM Team 2025), the dense models.

- as Llama; norms before and after each branch; gate and up fused in one layer, concatenated; biases on q, k and v
- rotary positions on half of each head's channels, in pairs of neighbours
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import Linear, concatenated, norm_tensors
from expertlens_jax.models.families.rope import read_rotary

if TYPE_CHECKING:
    from transformers import Glm4Config


def glm_like(hf: Any, **options: Any) -> TransformerConfig:
    """Read what the configs of all dense GLMs have in common; `options` are where one differs."""
    rotary = read_rotary(hf, llama.head_width(hf), partial=True)
    return llama.llama_like(
        hf, rotary=dataclasses.replace(rotary, interleaved=True), qkv_bias=hf.attention_bias, **options
    )


def translate(hf: Glm4Config) -> TransformerConfig:
    """Read a GLM-4 config."""
    return glm_like(hf, norm_place="both")


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    gate, up = concatenated(c.d_mlp, c.d_mlp)
    fused = "layers.{layer}.mlp.gate_up_proj"
    return {**llama.linears(c), "mlp.gate": Linear(fused, gate), "mlp.up": Linear(fused, up)}


NORMS = {
    "attn_norm": "input_layernorm",
    "attn_out_norm": "post_self_attn_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "mlp_out_norm": "post_mlp_layernorm",
}


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings, norms and head."""
    named = {"embed/token": "embed_tokens.weight", "head": "lm_head.weight"}
    for path, name in NORMS.items():
        named |= norm_tensors(f"layers/{path}", f"layers.{{layer}}.{name}", bias=False)
    return named | norm_tensors("final_norm", "norm", bias=False)


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="GLM-4-0414",
    examples=("zai-org/GLM-4-9B-0414", "zai-org/GLM-4-32B-0414"),
    model_type="glm4",
    translate=translate,
    linears=linears,
    tensors=tensors,
    fields=(*llama.LLAMA_LIKE, "attention_bias"),
)
