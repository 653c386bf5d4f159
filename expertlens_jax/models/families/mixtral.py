"""Mixtral (Jiang et al. 2024, arXiv 2401.04088).

- as Mistral, with a mixture of experts in each layer's MLP
- the weights of a token's experts sum to one
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from expertlens_jax.errors import UnsupportedModelError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import llama
from expertlens_jax.models.families.family import Linear, window

if TYPE_CHECKING:
    from transformers import MixtralConfig

EXPERT_LAYERS = ("w1", "w3", "w2")
"""What files call an expert's gate, up and down."""


def translate(hf: MixtralConfig) -> TransformerConfig:
    """Read a Mixtral config."""
    return llama.llama_like(
        hf,
        windows=(window(hf),) * hf.num_hidden_layers,
        **mixture(hf, hf.num_local_experts),
        router_norm=True,
    )


def mixture(hf: Any, num_experts: int) -> dict[str, Any]:
    """Return how many experts a layer has, and how many of them a token.

    Raises:
      UnsupportedModelError: none at all, which transformers takes for a plain MLP of another width, or more for a token
        than there are.
    """
    if num_experts < 1:
        raise UnsupportedModelError(
            f"this {hf.model_type} config says num_experts={num_experts}; wanted 1 or more. A model without experts is "
            "of another family."
        )
    if not 1 <= hf.num_experts_per_tok <= num_experts:
        raise UnsupportedModelError(
            f"this {hf.model_type} config says num_experts_per_tok={hf.num_experts_per_tok}; wanted is a number "
            f"from 1 to that of experts, {num_experts}."
        )
    return {"num_experts": num_experts, "experts_per_token": hf.num_experts_per_tok}


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    return llama.linears(c) | expert_linears("layers.{layer}.block_sparse_moe", *EXPERT_LAYERS)


def expert_linears(stored: str, gate: str, up: str, down: str) -> dict[str, Linear]:
    """Return the sites of a mixture of experts, which transformers has at `mlp` whatever files call it.

    Args:
      stored: what files call it.
      gate, up, down: what they call an expert's layers.
    """
    expert = f"{stored}.experts.{{expert}}."
    return {
        "mlp.router": Linear("layers.{layer}.mlp.gate", stored=f"{stored}.gate"),
        "mlp.gate": Linear("", stored=expert + gate),
        "mlp.up": Linear("", stored=expert + up),
        "mlp.down": Linear("layers.{layer}.mlp", stored=expert + down),
    }


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Mixtral",
    examples=("mistralai/Mixtral-8x7B-v0.1", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
    model_type="mixtral",
    translate=translate,
    linears=linears,
    fields=(*llama.LLAMA_LIKE, "sliding_window", "num_local_experts", "num_experts_per_tok"),
    renamed=((r"(layers\.\d+)\.mlp\.(gate|experts)\.", r"\1.block_sparse_moe.\2."),),
    expert_layers=EXPERT_LAYERS,
)
