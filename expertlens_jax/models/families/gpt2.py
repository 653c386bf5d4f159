"""GPT-2 (Radford et al. 2019).

- learned positions, layer norm before each branch, sequential residual
- q, k and v fused in one layer, concatenated; kernels stored [inputs, outputs]
- plain MLP with tanh-approximated GELU; embeddings tied to the head
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families.family import (
    Family,
    Linear,
    concatenated,
    is_causal,
    norm_tensors,
    refuse,
)

if TYPE_CHECKING:
    from transformers import GPT2Config


def translate(hf: GPT2Config) -> TransformerConfig:
    """Read a GPT-2 config."""
    refuse(hf, "add_cross_attention", False, "there is no encoder to attend to")
    head_dim = hf.n_embd // hf.n_head
    return TransformerConfig(
        vocab_size=hf.vocab_size,
        num_layers=hf.n_layer,
        d_model=hf.n_embd,
        num_heads=hf.n_head,
        num_kv_heads=hf.n_head,
        head_dim=head_dim,
        d_mlp=hf.n_inner or 4 * hf.n_embd,
        max_tokens=hf.n_positions,
        learned_positions=True,
        norm_eps=hf.layer_norm_epsilon,
        causal=is_causal(hf),
        attention_scale=head_dim**-0.5 if hf.scale_attn_weights else 1.0,
        attention_scale_by_layer=hf.scale_attn_by_inverse_layer_idx,
        activation=hf.activation_function,
        head="tied" if hf.tie_word_embeddings else "linear",
        initializer_range=hf.initializer_range,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    block = "h.{layer}."
    q, k, v = concatenated(c.d_model, c.d_model, c.d_model)
    return {
        "attn.q": Linear(block + "attn.c_attn", q, transposed=True),
        "attn.k": Linear(block + "attn.c_attn", k, transposed=True),
        "attn.v": Linear(block + "attn.c_attn", v, transposed=True),
        "attn.out": Linear(block + "attn.c_proj", transposed=True),
        "mlp.up": Linear(block + "mlp.c_fc", transposed=True),
        "mlp.down": Linear(block + "mlp.c_proj", transposed=True),
    }


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings, norms and head."""
    return {
        "embed/token": "wte.weight",
        "embed/position": "wpe.weight",
        **norm_tensors("layers/attn_norm", "h.{layer}.ln_1"),
        **norm_tensors("layers/mlp_norm", "h.{layer}.ln_2"),
        **norm_tensors("final_norm", "ln_f"),
        "head": "lm_head.weight",
    }


FAMILY = Family(
    title="GPT-2",
    examples=("openai-community/gpt2", "distilbert/distilgpt2"),
    model_type="gpt2",
    translate=translate,
    linears=linears,
    tensors=tensors,
    block="h.{layer}",
    prefix="transformer.",
    fields=(
        *("vocab_size", "n_layer", "n_embd", "n_head", "n_inner", "n_positions"),
        *("layer_norm_epsilon", "activation_function", "tie_word_embeddings"),
        *("is_causal", "add_cross_attention", "scale_attn_weights", "scale_attn_by_inverse_layer_idx"),
    ),
    quantised=(),  # formats differ in how they have layers that are stored transposed
)
