"""BERT (Devlin et al. 2019), and the sentence encoders built on it.

- an encoder: every token sees every other; the last hidden state is the output
- learned positions and token types, a norm on the embeddings
- layer norm after each residual addition; plain MLP with GELU
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families.family import Family, Linear, norm_tensors, refuse

if TYPE_CHECKING:
    from transformers import BertConfig, ElectraConfig, RobertaConfig


def translate(hf: BertConfig | ElectraConfig | RobertaConfig) -> TransformerConfig:
    """Read a BERT config."""
    refuse(hf, "position_embedding_type", "absolute", "positions are a learned table")
    refuse(hf, "is_decoder", False, "every token sees every other")
    refuse(hf, "is_causal", False, "every token sees every other")
    return TransformerConfig(
        vocab_size=hf.vocab_size,
        num_layers=hf.num_hidden_layers,
        d_model=hf.hidden_size,
        num_heads=hf.num_attention_heads,
        num_kv_heads=hf.num_attention_heads,
        head_dim=hf.hidden_size // hf.num_attention_heads,
        d_mlp=hf.intermediate_size,
        max_tokens=hf.max_position_embeddings,
        learned_positions=True,
        token_types=hf.type_vocab_size,
        embedding_norm=True,
        norm_eps=hf.layer_norm_eps,
        norm_place="post",
        final_norm=False,
        causal=False,
        activation=hf.hidden_act,
        head=None,
        initializer_range=hf.initializer_range,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    block = "encoder.layer.{layer}."
    return {
        "attn.q": Linear(block + "attention.self.query"),
        "attn.k": Linear(block + "attention.self.key"),
        "attn.v": Linear(block + "attention.self.value"),
        "attn.out": Linear(block + "attention.output.dense"),
        "mlp.up": Linear(block + "intermediate.dense"),
        "mlp.down": Linear(block + "output.dense"),
    }


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings and norms."""
    return {
        "embed/token": "embeddings.word_embeddings.weight",
        "embed/position": "embeddings.position_embeddings.weight",
        "embed/type": "embeddings.token_type_embeddings.weight",
        **norm_tensors("embed/norm", "embeddings.LayerNorm"),
        **norm_tensors("layers/attn_norm", "encoder.layer.{layer}.attention.output.LayerNorm"),
        **norm_tensors("layers/mlp_norm", "encoder.layer.{layer}.output.LayerNorm"),
    }


FAMILY = Family(
    title="BERT",
    examples=("google-bert/bert-base-uncased", "sentence-transformers/all-MiniLM-L6-v2"),
    model_type="bert",
    translate=translate,
    linears=linears,
    tensors=tensors,
    block="encoder.layer.{layer}",
    prefix="bert.",
    encoder=True,
    ignored=r"pooler\..*|cls\..*|classifier\..*|qa_outputs\..*",
    fields=(
        *("vocab_size", "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size"),
        *("max_position_embeddings", "type_vocab_size", "layer_norm_eps", "hidden_act"),
        *("position_embedding_type", "is_decoder", "is_causal"),
    ),
)
