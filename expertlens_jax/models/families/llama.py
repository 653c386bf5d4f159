"""Llama 1 to 3.2 (Touvron et al. 2023, Dubey et al. 2024), and what the families after its pattern share.

- rotary positions, stretched by any of the known scalings (Llama 3.1: llama3)
- RMS norm before each branch; no biases unless the config asks for them
- gated MLP with SiLU; grouped keys and values; embeddings tied to the head in the small models only
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families.family import Family, Linear, is_causal, norm_tensors
from expertlens_jax.models.families.rope import ROPE_FIELDS, longest_context, read_rotary
from expertlens_jax.models.rotary import Rotary

if TYPE_CHECKING:
    from transformers import LlamaConfig


def head_width(hf: Any) -> int:
    """Return the channels of a head.

    It is the config's own number, which its class may not have as a field, or equal shares.
    """
    return getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads


def llama_like(
    hf: Any,
    *,
    rotary: Rotary | None = None,
    activation: str | None = None,
    norm_eps: float | None = None,
    head_dim: int | None = None,
    num_kv_heads: int | None = None,
    **options: Any,
) -> TransformerConfig:
    """Read what the configs of Llama's pattern have in common.

    Args:
      hf: the Hugging Face config.
      rotary: default, what `rope_parameters` say.
      activation: default, `hidden_act`.
      norm_eps: default, `rms_norm_eps`.
      head_dim: default, `head_width`.
      num_kv_heads: default, `num_key_value_heads`.
      **options: fields of `TransformerConfig` in which a family differs.
    """
    head_dim = head_dim or head_width(hf)
    rotary = rotary or read_rotary(hf, head_dim)
    shared: dict[str, Any] = dict(
        vocab_size=hf.vocab_size,
        num_layers=hf.num_hidden_layers,
        d_model=hf.hidden_size,
        num_heads=hf.num_attention_heads,
        num_kv_heads=num_kv_heads or hf.num_key_value_heads,
        head_dim=head_dim,
        d_mlp=hf.intermediate_size,
        max_tokens=longest_context(hf, rotary),
        norm="rms",
        norm_eps=hf.rms_norm_eps if norm_eps is None else norm_eps,
        causal=is_causal(hf),
        qkv_bias=False,
        attention_out_bias=False,
        rotary=rotary,
        gated=True,
        activation=activation or hf.hidden_act,
        mlp_bias=False,
        head="tied" if getattr(hf, "tie_word_embeddings", False) else "linear",  # which text towers' don't say
        initializer_range=hf.initializer_range,
    )
    return TransformerConfig(**shared | options)


def translate(hf: LlamaConfig) -> TransformerConfig:
    """Read a Llama config."""
    return llama_like(hf, qkv_bias=hf.attention_bias, attention_out_bias=hf.attention_bias, mlp_bias=hf.mlp_bias)


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    block = "layers.{layer}."
    return {
        "attn.q": Linear(block + "self_attn.q_proj"),
        "attn.k": Linear(block + "self_attn.k_proj"),
        "attn.v": Linear(block + "self_attn.v_proj"),
        "attn.out": Linear(block + "self_attn.o_proj"),
        "mlp.gate": Linear(block + "mlp.gate_proj"),
        "mlp.up": Linear(block + "mlp.up_proj"),
        "mlp.down": Linear(block + "mlp.down_proj"),
    }


NORMS = {
    "pre": {"attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"},
    "output": {"attn_out_norm": "post_attention_layernorm", "mlp_out_norm": "post_feedforward_layernorm"},
    "both": {
        "attn_norm": "input_layernorm",
        "attn_out_norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "mlp_out_norm": "post_feedforward_layernorm",
    },
}
"""A layer's norms by their place; `post_attention_layernorm` is another one in each."""


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings, norms and head."""
    norms = dict(NORMS[c.norm_place])
    if c.qk_norm is not None:
        norms |= {"attn/q_norm": "self_attn.q_norm", "attn/k_norm": "self_attn.k_norm"}
    named = {"embed/token": "embed_tokens.weight", "head": "lm_head.weight"}
    for path, name in norms.items():
        named |= norm_tensors(f"layers/{path}", f"layers.{{layer}}.{name}", bias=False)
    return named | norm_tensors("final_norm", "norm", bias=False)


LLAMA_LIKE = (
    *("vocab_size", "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"),
    *("intermediate_size", "rms_norm_eps", "hidden_act", "tie_word_embeddings", "is_causal", *ROPE_FIELDS),
)
"""Fields that `llama_like` reads."""

WINDOWS = ("layer_types", "sliding_window", "use_sliding_window", "max_window_layers")
"""Fields that `layer_windows` reads, or the config's class for it."""

FAMILY = Family(
    title="Llama 1 to 3.2",
    examples=("meta-llama/Llama-3.2-1B", "HuggingFaceTB/SmolLM2-135M"),
    model_type="llama",
    translate=translate,
    linears=linears,
    tensors=tensors,
    block="layers.{layer}",
    prefix="model.",
    fields=(*LLAMA_LIKE, "attention_bias", "mlp_bias"),
)
