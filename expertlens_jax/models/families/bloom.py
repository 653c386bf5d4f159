"""BLOOM (BigScience 2022).

- no positions but ALiBi's bias on attention scores; a norm on the embeddings
- layer norm before each branch, sequential residual; biases everywhere
- q, k and v fused in one layer, interleaved head by head
- plain MLP with tanh-approximated GELU; embeddings tied to the head
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertlens_jax.models.config import ALiBi, TransformerConfig
from expertlens_jax.models.families.family import Family, Linear, by_key_head, is_causal, norm_tensors, refuse

if TYPE_CHECKING:
    from transformers import BloomConfig

CONTEXT = 2048  # what it was trained on, where the config doesn't say


def translate(hf: BloomConfig) -> TransformerConfig:
    """Read a BLOOM config."""
    refuse(hf, "apply_residual_connection_post_layernorm", False, "the residual stream is what the norm reads")
    refuse(hf, "slow_but_exact", False, "transformers then leaves out biases")
    return TransformerConfig(
        vocab_size=hf.vocab_size,
        num_layers=hf.n_layer,
        d_model=hf.hidden_size,
        num_heads=hf.n_head,
        num_kv_heads=hf.n_head,
        head_dim=hf.hidden_size // hf.n_head,
        d_mlp=4 * hf.hidden_size,
        max_tokens=getattr(hf, "seq_length", None) or CONTEXT,
        embedding_norm=True,
        norm_eps=hf.layer_norm_epsilon,
        causal=is_causal(hf),
        alibi=ALiBi(),
        activation="gelu_new",
        head="tied" if hf.tie_word_embeddings else "linear",
        initializer_range=hf.initializer_range,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer, which are Falcon's too, where several heads may share a key."""
    block = "h.{layer}."
    q, k, v = by_key_head(c)
    return {
        "attn.q": Linear(block + "self_attention.query_key_value", q),
        "attn.k": Linear(block + "self_attention.query_key_value", k),
        "attn.v": Linear(block + "self_attention.query_key_value", v),
        "attn.out": Linear(block + "self_attention.dense"),
        "mlp.up": Linear(block + "mlp.dense_h_to_4h"),
        "mlp.down": Linear(block + "mlp.dense_4h_to_h"),
    }


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings, norms and head."""
    return {
        "embed/token": "word_embeddings.weight",
        **norm_tensors("embed/norm", "word_embeddings_layernorm"),
        **norm_tensors("layers/attn_norm", "h.{layer}.input_layernorm"),
        **norm_tensors("layers/mlp_norm", "h.{layer}.post_attention_layernorm"),
        **norm_tensors("final_norm", "ln_f"),
        "head": "lm_head.weight",
    }


FAMILY = Family(
    title="BLOOM",
    examples=("bigscience/bloom-560m", "bigscience/bloomz-7b1"),
    model_type="bloom",
    translate=translate,
    linears=linears,
    tensors=tensors,
    block="h.{layer}",
    prefix="transformer.",
    fields=(
        *("vocab_size", "n_layer", "hidden_size", "n_embed", "n_head", "layer_norm_epsilon", "seq_length"),
        *("tie_word_embeddings", "is_causal", "apply_residual_connection_post_layernorm", "slow_but_exact"),
    ),
)
