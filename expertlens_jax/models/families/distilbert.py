"""DistilBERT (Sanh et al. 2019).

- as BERT, with fewer layers and without token types
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import bert
from expertlens_jax.models.families.family import Linear, norm_tensors, refuse

if TYPE_CHECKING:
    from transformers import DistilBertConfig

NORM_EPS = 1e-12  # transformers' DistilBERT has it in its code


def translate(hf: DistilBertConfig) -> TransformerConfig:
    """Read a DistilBERT config."""
    refuse(hf, "is_decoder", False, "every token sees every other")
    refuse(hf, "is_causal", False, "every token sees every other")
    return TransformerConfig(
        vocab_size=hf.vocab_size,
        num_layers=hf.n_layers,
        d_model=hf.dim,
        num_heads=hf.n_heads,
        num_kv_heads=hf.n_heads,
        head_dim=hf.dim // hf.n_heads,
        d_mlp=hf.hidden_dim,
        max_tokens=hf.max_position_embeddings,
        learned_positions=True,
        embedding_norm=True,
        norm_eps=NORM_EPS,
        norm_place="post",
        final_norm=False,
        causal=False,
        activation=hf.activation,
        head=None,
        initializer_range=hf.initializer_range,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    block = "transformer.layer.{layer}."
    return {
        "attn.q": Linear(block + "attention.q_lin"),
        "attn.k": Linear(block + "attention.k_lin"),
        "attn.v": Linear(block + "attention.v_lin"),
        "attn.out": Linear(block + "attention.out_lin"),
        "mlp.up": Linear(block + "ffn.lin1"),
        "mlp.down": Linear(block + "ffn.lin2"),
    }


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings and norms."""
    return {
        "embed/token": "embeddings.word_embeddings.weight",
        "embed/position": "embeddings.position_embeddings.weight",
        **norm_tensors("embed/norm", "embeddings.LayerNorm"),
        **norm_tensors("layers/attn_norm", "transformer.layer.{layer}.sa_layer_norm"),
        **norm_tensors("layers/mlp_norm", "transformer.layer.{layer}.output_layer_norm"),
    }


FAMILY = dataclasses.replace(
    bert.FAMILY,
    title="DistilBERT",
    examples=("distilbert/distilbert-base-uncased", "distilbert/distilbert-base-multilingual-cased"),
    model_type="distilbert",
    translate=translate,
    linears=linears,
    tensors=tensors,
    block="transformer.layer.{layer}",
    prefix="distilbert.",
    ignored=r"vocab_(transform|layer_norm|projector)\..*|pre_classifier\..*|classifier\..*|qa_outputs\..*",
    fields=(
        *("vocab_size", "n_layers", "dim", "n_heads", "hidden_dim", "max_position_embeddings", "activation"),
        *("is_decoder", "is_causal"),
    ),
)
