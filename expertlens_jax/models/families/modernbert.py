"""ModernBERT (Warner et al. 2024).

- an encoder with rotary positions; two layers of three see a window of tokens only, with rotary positions of their own
- layer norms without a bias before each branch, except the first layer's attention; a norm on the embeddings
- q, k and v fused in one layer, gate and up in another, each concatenated; gated MLP with GELU
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families.family import Family, Linear, concatenated, layer_windows, norm_tensors, refuse
from expertlens_jax.models.families.rope import ROPE_FIELDS, longest_context, read_rotary

if TYPE_CHECKING:
    from transformers import ModernBertConfig


def translate(hf: ModernBertConfig) -> TransformerConfig:
    """Read a ModernBERT config."""
    refuse(hf, "is_decoder", False, "every token sees every other")
    refuse(hf, "is_causal", False, "every token sees every other")
    refuse(hf, "layer_norm_eps", hf.norm_eps, "the norms' is norm_eps")
    head_dim = hf.hidden_size // hf.num_attention_heads
    rotary = read_rotary(hf, head_dim, layer_type="full_attention")
    return TransformerConfig(
        vocab_size=hf.vocab_size,
        num_layers=hf.num_hidden_layers,
        d_model=hf.hidden_size,
        num_heads=hf.num_attention_heads,
        num_kv_heads=hf.num_attention_heads,
        head_dim=head_dim,
        d_mlp=hf.intermediate_size,
        max_tokens=longest_context(hf, rotary),
        embedding_norm=True,
        norm_eps=hf.norm_eps,
        norm_bias=hf.norm_bias,
        unnormed_layers=(0,),
        causal=False,
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        windows=layer_windows(hf, causal=False),
        rotary=rotary,
        local_rotary=read_rotary(hf, head_dim, layer_type="sliding_attention"),
        gated=True,
        activation=hf.hidden_activation,
        mlp_bias=hf.mlp_bias,
        head=None,
        initializer_range=hf.initializer_range,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer. What transformers calls gate is what the activation is multiplied with: up, here."""
    block = "layers.{layer}."
    q, k, v = concatenated(c.d_model, c.d_model, c.d_model)
    gate, up = concatenated(c.d_mlp, c.d_mlp)
    return {
        "attn.q": Linear(block + "attn.Wqkv", q),
        "attn.k": Linear(block + "attn.Wqkv", k),
        "attn.v": Linear(block + "attn.Wqkv", v),
        "attn.out": Linear(block + "attn.Wo"),
        "mlp.gate": Linear(block + "mlp.Wi", gate),
        "mlp.up": Linear(block + "mlp.Wi", up),
        "mlp.down": Linear(block + "mlp.Wo"),
    }


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings and norms."""
    return {
        "embed/token": "embeddings.tok_embeddings.weight",
        **norm_tensors("embed/norm", "embeddings.norm"),
        **norm_tensors("layers/attn_norm", "layers.{layer}.attn_norm"),
        **norm_tensors("layers/mlp_norm", "layers.{layer}.mlp_norm"),
        **norm_tensors("final_norm", "final_norm"),
    }


FAMILY = Family(
    title="ModernBERT",
    examples=("answerdotai/ModernBERT-base", "answerdotai/ModernBERT-large"),
    model_type="modernbert",
    translate=translate,
    linears=linears,
    tensors=tensors,
    block="layers.{layer}",
    prefix="model.",
    encoder=True,
    ignored=r"head\..*|decoder\..*|classifier\..*",
    fields=(
        *("vocab_size", "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size"),
        *("norm_eps", "layer_norm_eps", "norm_bias", "attention_bias", "mlp_bias", "hidden_activation"),
        *(
            "layer_types",
            "local_attention",
            "sliding_window",
            "global_attn_every_n_layers",
            "global_rope_theta",
            "local_rope_theta",
        ),
        *("is_decoder", "is_causal"),
        *(field for field in ROPE_FIELDS if field != "rope_theta"),
    ),
)
