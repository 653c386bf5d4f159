"""GPT-J (Wang and Komatsuzaki 2021).

- rotary positions on the first channels of each head, neighbouring channels paired
- attention and MLP read the same stream in parallel, through one layer norm
- attention without biases; plain MLP with GELU; a head of its own, with a bias
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families.family import Family, Linear, is_causal, norm_tensors
from expertlens_jax.models.rotary import Rotary

if TYPE_CHECKING:
    from transformers import GPTJConfig


def translate(hf: GPTJConfig) -> TransformerConfig:
    """Read a GPT-J config."""
    return TransformerConfig(
        vocab_size=hf.vocab_size,
        num_layers=hf.n_layer,
        d_model=hf.n_embd,
        num_heads=hf.n_head,
        num_kv_heads=hf.n_head,
        head_dim=hf.n_embd // hf.n_head,
        d_mlp=hf.n_inner or 4 * hf.n_embd,
        max_tokens=hf.n_positions,
        norm_eps=hf.layer_norm_epsilon,
        residual="parallel_shared_norm",
        causal=is_causal(hf),
        qkv_bias=False,
        attention_out_bias=False,
        rotary=Rotary(hf.rotary_dim, interleaved=True),
        activation=hf.activation_function,
        head="tied" if hf.tie_word_embeddings else "linear",
        head_bias=True,
        initializer_range=hf.initializer_range,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    block = "h.{layer}."
    return {
        "attn.q": Linear(block + "attn.q_proj"),
        "attn.k": Linear(block + "attn.k_proj"),
        "attn.v": Linear(block + "attn.v_proj"),
        "attn.out": Linear(block + "attn.out_proj"),
        "mlp.up": Linear(block + "mlp.fc_in"),
        "mlp.down": Linear(block + "mlp.fc_out"),
    }


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings, norms and head."""
    return {
        "embed/token": "wte.weight",
        **norm_tensors("layers/attn_norm", "h.{layer}.ln_1"),
        **norm_tensors("final_norm", "ln_f"),
        "head": "lm_head.weight",
        "head_bias": "lm_head.bias",
    }


FAMILY = Family(
    title="GPT-J",
    examples=("EleutherAI/gpt-j-6b",),
    model_type="gptj",
    translate=translate,
    linears=linears,
    tensors=tensors,
    block="h.{layer}",
    prefix="transformer.",
    fields=(
        *("vocab_size", "n_layer", "n_embd", "n_head", "n_inner", "n_positions"),
        *("layer_norm_epsilon", "activation_function", "tie_word_embeddings"),
        *("is_causal", "rotary_dim"),
    ),
)
