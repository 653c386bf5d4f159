"""GPT-NeoX (Black et al. 2022) and Pythia (Biderman et al. 2023).

- rotary positions on a part of each head's channels
- layer norm before each branch; attention and MLP read the same stream in parallel, through a norm each
- q, k and v fused in one layer, interleaved head by head
- plain MLP with GELU; a head of its own
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families.family import Family, Linear, by_key_head, is_causal, norm_tensors
from expertlens_jax.models.families.rope import longest_context, read_rotary

if TYPE_CHECKING:
    from transformers import GPTNeoXConfig


def translate(hf: GPTNeoXConfig) -> TransformerConfig:
    """Read a GPT-NeoX config."""
    head_dim = hf.hidden_size // hf.num_attention_heads
    rotary = read_rotary(hf, head_dim, partial=True)
    return TransformerConfig(
        vocab_size=hf.vocab_size,
        num_layers=hf.num_hidden_layers,
        d_model=hf.hidden_size,
        num_heads=hf.num_attention_heads,
        num_kv_heads=hf.num_attention_heads,
        head_dim=head_dim,
        d_mlp=hf.intermediate_size,
        max_tokens=longest_context(hf, rotary),
        norm_eps=hf.layer_norm_eps,
        residual="parallel" if hf.use_parallel_residual else "sequential",
        causal=is_causal(hf),
        qkv_bias=hf.attention_bias,
        attention_out_bias=hf.attention_bias,
        rotary=rotary,
        activation=hf.hidden_act,
        head="tied" if hf.tie_word_embeddings else "linear",
        initializer_range=hf.initializer_range,
    )


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    block = "layers.{layer}."
    q, k, v = by_key_head(c)
    return {
        "attn.q": Linear(block + "attention.query_key_value", q),
        "attn.k": Linear(block + "attention.query_key_value", k),
        "attn.v": Linear(block + "attention.query_key_value", v),
        "attn.out": Linear(block + "attention.dense"),
        "mlp.up": Linear(block + "mlp.dense_h_to_4h"),
        "mlp.down": Linear(block + "mlp.dense_4h_to_h"),
    }


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings, norms and head."""
    return {
        "embed/token": "embed_in.weight",
        **norm_tensors("layers/attn_norm", "layers.{layer}.input_layernorm"),
        **norm_tensors("layers/mlp_norm", "layers.{layer}.post_attention_layernorm"),
        **norm_tensors("final_norm", "final_layer_norm"),
        "head": "embed_out.weight",
    }


FAMILY = Family(
    title="GPT-NeoX, Pythia",
    examples=("EleutherAI/pythia-70m-deduped", "EleutherAI/gpt-neox-20b"),
    model_type="gpt_neox",
    translate=translate,
    linears=linears,
    tensors=tensors,
    block="layers.{layer}",
    prefix="gpt_neox.",
    head_names=("embed_out.", "lm_head."),
    fields=(
        *("vocab_size", "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size"),
        *("layer_norm_eps", "hidden_act", "tie_word_embeddings", "attention_bias", "use_parallel_residual"),
        *("is_causal", "rotary_pct", "rotary_emb_base", "rope_parameters", "rope_scaling"),
        *("max_position_embeddings", "original_max_position_embeddings"),
    ),
)
