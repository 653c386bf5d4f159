"""OPT (Zhang et al. 2022).

- learned positions, in a table whose first two rows no token uses
- layer norm before each branch; or, with `do_layer_norm_before` false, after each addition and not at the end
- plain MLP with ReLU; embeddings tied to the head
- OPT-350m's token embeddings are narrower than the residual stream: a linear layer widens them before positions are
  added, and another narrows the last hidden state, which the head then reads
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families.family import Family, Linear, is_causal, norm_tensors, refuse

if TYPE_CHECKING:
    from transformers import OPTConfig


def translate(hf: OPTConfig) -> TransformerConfig:
    """Read an OPT config."""
    refuse(hf, "layer_norm_elementwise_affine", True, "the stack's norms have a scale and a bias")
    pre = hf.do_layer_norm_before
    return TransformerConfig(
        vocab_size=hf.vocab_size,
        num_layers=hf.num_hidden_layers,
        d_model=hf.hidden_size,
        num_heads=hf.num_attention_heads,
        num_kv_heads=hf.num_attention_heads,
        head_dim=hf.hidden_size // hf.num_attention_heads,
        d_mlp=hf.ffn_dim,
        max_tokens=hf.max_position_embeddings,
        learned_positions=True,
        position_offset=2,
        token_width=None if hf.word_embed_proj_dim in (None, hf.hidden_size) else hf.word_embed_proj_dim,
        norm_place="pre" if pre else "post",
        final_norm=pre and not hf._remove_final_layer_norm,
        causal=is_causal(hf),
        qkv_bias=hf.enable_bias,
        attention_out_bias=hf.enable_bias,
        activation=hf.activation_function,
        mlp_bias=hf.enable_bias,
        head="tied" if hf.tie_word_embeddings else "linear",
        initializer_range=hf.init_std,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    block = "decoder.layers.{layer}."
    return {
        "attn.q": Linear(block + "self_attn.q_proj"),
        "attn.k": Linear(block + "self_attn.k_proj"),
        "attn.v": Linear(block + "self_attn.v_proj"),
        "attn.out": Linear(block + "self_attn.out_proj"),
        "mlp.up": Linear(block + "fc1"),
        "mlp.down": Linear(block + "fc2"),
    }


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings, norms and head."""
    return {
        "embed/token": "decoder.embed_tokens.weight",
        "embed/position": "decoder.embed_positions.weight",
        "embed/project_in": "decoder.project_in.weight",
        "embed/project_out": "decoder.project_out.weight",
        **norm_tensors("layers/attn_norm", "decoder.layers.{layer}.self_attn_layer_norm"),
        **norm_tensors("layers/mlp_norm", "decoder.layers.{layer}.final_layer_norm"),
        **norm_tensors("final_norm", "decoder.final_layer_norm"),
        "head": "lm_head.weight",
    }


FAMILY = Family(
    title="OPT",
    examples=("facebook/opt-125m", "facebook/opt-350m", "facebook/opt-6.7b"),
    model_type="opt",
    translate=translate,
    linears=linears,
    tensors=tensors,
    block="decoder.layers.{layer}",
    prefix="model.",
    fields=(
        *("vocab_size", "num_hidden_layers", "hidden_size", "num_attention_heads", "ffn_dim"),
        *("max_position_embeddings", "word_embed_proj_dim", "activation_function", "tie_word_embeddings"),
        *("do_layer_norm_before", "_remove_final_layer_norm", "layer_norm_elementwise_affine", "enable_bias"),
        "is_causal",
    ),
)
