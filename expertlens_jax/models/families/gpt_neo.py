"""GPT-Neo (Black et al. 2021).

- as GPT-2, with q, k and v in a layer each and without biases
- every other layer sees a window of tokens only
- attention scores are not scaled
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families.family import Family, Linear, norm_tensors, refuse

if TYPE_CHECKING:
    from transformers import GPTNeoConfig


def translate(hf: GPTNeoConfig) -> TransformerConfig:
    """Read a GPT-Neo config."""
    refuse(hf, "is_causal", True, "transformers' GPT-Neo is causal whatever its config says")
    return TransformerConfig(
        vocab_size=hf.vocab_size,
        num_layers=hf.num_layers,
        d_model=hf.hidden_size,
        num_heads=hf.num_heads,
        num_kv_heads=hf.num_heads,
        head_dim=hf.hidden_size // hf.num_heads,
        d_mlp=hf.intermediate_size or 4 * hf.hidden_size,
        max_tokens=hf.max_position_embeddings,
        learned_positions=True,
        norm_eps=hf.layer_norm_epsilon,
        qkv_bias=False,
        attention_scale=1.0,
        windows=tuple(hf.window_size if kind == "local" else 0 for kind in hf.attention_layers),
        activation=hf.activation_function,
        head="tied" if hf.tie_word_embeddings else "linear",
        initializer_range=hf.initializer_range,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    block = "h.{layer}."
    return {
        "attn.q": Linear(block + "attn.attention.q_proj"),
        "attn.k": Linear(block + "attn.attention.k_proj"),
        "attn.v": Linear(block + "attn.attention.v_proj"),
        "attn.out": Linear(block + "attn.attention.out_proj"),
        "mlp.up": Linear(block + "mlp.c_fc"),
        "mlp.down": Linear(block + "mlp.c_proj"),
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
    title="GPT-Neo",
    examples=("EleutherAI/gpt-neo-125m", "roneneldan/TinyStories-33M"),
    model_type="gpt_neo",
    translate=translate,
    linears=linears,
    tensors=tensors,
    block="h.{layer}",
    prefix="transformer.",
    fields=(
        *("vocab_size", "num_layers", "hidden_size", "num_heads", "intermediate_size", "max_position_embeddings"),
        *("layer_norm_epsilon", "activation_function", "tie_word_embeddings"),
        *("is_causal", "attention_types", "attention_layers", "window_size"),
    ),
)
