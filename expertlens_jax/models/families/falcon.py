"""Falcon (Almazrouei et al. 2023), 1B to 180B, of the old and the new decoder architecture.

- rotary positions, or ALiBi (Falcon-RW)
- attention and MLP in parallel: through one layer norm (7B, 11B) or a norm each (40B, 180B); or in sequence (RW)
- q, k and v fused in one layer: each key head's queries, then its key and its value
- plain MLP with GELU; embeddings tied to the head
"""

from __future__ import annotations

from typing import Any

from expertlens_jax.models.config import ALiBi, Residual, TransformerConfig
from expertlens_jax.models.families import bloom
from expertlens_jax.models.families.family import Family, is_causal, norm_tensors, refuse
from expertlens_jax.models.families.rope import ROPE_FIELDS, longest_context, read_rotary


def translate(hf: Any) -> TransformerConfig:
    """Read a Falcon config, a `transformers.FalconConfig`."""
    head_dim = hf.hidden_size // hf.num_attention_heads
    rotary = read_rotary(hf, head_dim)
    return TransformerConfig(
        vocab_size=hf.vocab_size,
        num_layers=hf.num_hidden_layers,
        d_model=hf.hidden_size,
        num_heads=hf.num_attention_heads,
        num_kv_heads=_key_heads(hf),
        head_dim=head_dim,
        d_mlp=hf.ffn_hidden_size,
        max_tokens=longest_context(hf, rotary),
        norm_eps=hf.layer_norm_epsilon,
        residual=_residual(hf),
        causal=is_causal(hf),
        qkv_bias=bool(hf.bias),
        attention_out_bias=bool(hf.bias),
        alibi=ALiBi(scaled=True, in_bfloat16=True) if hf.alibi else None,
        rotary=None if hf.alibi else rotary,
        activation=hf.activation,
        mlp_bias=bool(hf.bias),
        head="tied" if hf.tie_word_embeddings else "linear",
        initializer_range=hf.initializer_range,
    )


def _key_heads(hf: Any) -> int:
    """Heads of keys: the new architecture's own number, or one, or as many as of queries."""
    if hf.new_decoder_architecture:
        return hf.num_kv_heads
    if hf.multi_query:
        return 1
    refuse(hf, "num_kv_heads", hf.num_attention_heads, "without multi_query, the old architecture has equally many")
    return hf.num_attention_heads


def _residual(hf: Any) -> Residual:
    """Return how attention and MLP stand to each other; combinations that transformers can't run are refused."""
    if not hf.new_decoder_architecture:
        refuse(hf, "num_ln_in_parallel_attn", 1, "the old decoder architecture has one norm for both branches")
        return "parallel_shared_norm" if hf.parallel_attn else "sequential"
    refuse(hf, "parallel_attn", True, "the new decoder architecture is parallel always")
    if hf.num_ln_in_parallel_attn == 1:
        return "parallel_shared_norm"
    refuse(hf, "num_ln_in_parallel_attn", 2, "a norm for each branch, or 1 for both")
    return "parallel"


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings, norms and head."""
    one, two = ("ln_attn", "ln_mlp") if c.residual == "parallel" else ("input_layernorm", "post_attention_layernorm")
    return {
        "embed/token": "word_embeddings.weight",
        **norm_tensors("layers/attn_norm", f"h.{{layer}}.{one}"),
        **norm_tensors("layers/mlp_norm", f"h.{{layer}}.{two}"),
        **norm_tensors("final_norm", "ln_f"),
        "head": "lm_head.weight",
    }


FAMILY = Family(
    title="Falcon",
    examples=("tiiuae/falcon-7b", "tiiuae/falcon-11B"),
    model_type="falcon",
    translate=translate,
    linears=bloom.linears,
    tensors=tensors,
    block="h.{layer}",
    prefix="transformer.",
    fields=(
        *("vocab_size", "num_hidden_layers", "hidden_size", "n_embed", "num_attention_heads", "num_kv_heads"),
        *("ffn_hidden_size", "layer_norm_epsilon", "activation", "bias", "tie_word_embeddings", "is_causal", "alibi"),
        *("new_decoder_architecture", "multi_query", "parallel_attn", "num_ln_in_parallel_attn", *ROPE_FIELDS),
    ),
)
