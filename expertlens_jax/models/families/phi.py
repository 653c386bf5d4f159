"""Phi-1, Phi-1.5 and Phi-2 (Gunasekar et al. 2023).

- rotary positions on a part of each head's channels
- attention and MLP read the same stream in parallel, through one layer norm
- biases everywhere, the head's too; plain MLP with GELU
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import Family, Linear, is_causal, norm_tensors
from expertlens_jax.models.families.rope import ROPE_FIELDS, longest_context, read_rotary

if TYPE_CHECKING:
    from transformers import PhiConfig


def translate(hf: PhiConfig) -> TransformerConfig:
    """Read a Phi config."""
    head_dim = llama.head_width(hf)
    rotary = read_rotary(hf, head_dim, partial=True)
    return TransformerConfig(
        vocab_size=hf.vocab_size,
        num_layers=hf.num_hidden_layers,
        d_model=hf.hidden_size,
        num_heads=hf.num_attention_heads,
        num_kv_heads=hf.num_key_value_heads or hf.num_attention_heads,
        head_dim=head_dim,
        d_mlp=hf.intermediate_size,
        max_tokens=longest_context(hf, rotary),
        norm_eps=hf.layer_norm_eps,
        residual="parallel_shared_norm",
        causal=is_causal(hf),
        qk_norm="head" if hf.qk_layernorm else None,
        rotary=rotary,
        activation=hf.hidden_act,
        head="tied" if hf.tie_word_embeddings else "linear",
        head_bias=True,
        initializer_range=hf.initializer_range,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    block = "layers.{layer}."
    return {
        "attn.q": Linear(block + "self_attn.q_proj"),
        "attn.k": Linear(block + "self_attn.k_proj"),
        "attn.v": Linear(block + "self_attn.v_proj"),
        "attn.out": Linear(block + "self_attn.dense"),
        "mlp.up": Linear(block + "mlp.fc1"),
        "mlp.down": Linear(block + "mlp.fc2"),
    }


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings, norms and head."""
    return {
        "embed/token": "embed_tokens.weight",
        **norm_tensors("layers/attn_norm", "layers.{layer}.input_layernorm"),
        **norm_tensors("layers/attn/q_norm", "layers.{layer}.self_attn.q_layernorm"),
        **norm_tensors("layers/attn/k_norm", "layers.{layer}.self_attn.k_layernorm"),
        **norm_tensors("final_norm", "final_layernorm"),
        "head": "lm_head.weight",
        "head_bias": "lm_head.bias",
    }


FAMILY = Family(
    title="Phi-1 to Phi-2",
    examples=("microsoft/phi-1_5", "microsoft/phi-2"),
    model_type="phi",
    translate=translate,
    linears=linears,
    tensors=tensors,
    block="layers.{layer}",
    prefix="model.",
    fields=(
        *("vocab_size", "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
        *("intermediate_size", "layer_norm_eps", "hidden_act", "tie_word_embeddings", "qk_layernorm", "is_causal"),
        *ROPE_FIELDS,
    ),
)
