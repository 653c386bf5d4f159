"""Granite 3 (Granite Team 2024), the mixtures of experts.

- as Granite, with a mixture of small experts in each layer's MLP
- the weights of a token's experts sum to one
- files have all experts of a layer in one tensor
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import granite, llama
from expertlens_jax.models.families.family import Linear
from expertlens_jax.models.families.mixtral import mixture

if TYPE_CHECKING:
    from transformers import GraniteMoeConfig

EXPERT_LAYERS = ("gate_proj", "up_proj", "down_proj")
"""What an expert's gate, up and down are called here: files have them in one."""


def translate(hf: GraniteMoeConfig) -> TransformerConfig:
    """Read the config of a Granite mixture of experts."""
    return granite.granite_like(hf, **mixture(hf, hf.num_local_experts or 0), router_norm=True)


def linears(c: TransformerConfig) -> dict[str, Linear]:
    """Return every site's layer."""
    mlp, (gate, up, down) = "layers.{layer}.block_sparse_moe", EXPERT_LAYERS
    expert = mlp + ".experts.{expert}."
    return llama.linears(c) | {
        "mlp.router": Linear(f"{mlp}.router"),
        "mlp.gate": Linear("", stored=expert + gate),
        "mlp.up": Linear("", stored=expert + up),
        "mlp.down": Linear(mlp, stored=expert + down),
    }


FAMILY = dataclasses.replace(
    llama.FAMILY,
    title="Granite 3, mixtures of experts",
    examples=("ibm-granite/granite-3.1-1b-a400m-base", "ibm-granite/granite-3.1-3b-a800m-instruct"),
    model_type="granitemoe",
    translate=translate,
    linears=linears,
    fields=(*granite.GRANITE_LIKE, "num_local_experts", "num_experts_per_tok"),
    renamed=(
        (r"(block_sparse_moe)\.input_linear\.weight", r"\1.experts.gate_up_proj"),
        (r"(block_sparse_moe)\.output_linear\.weight", r"\1.experts.down_proj"),
        (r"(block_sparse_moe\.router)\.layer\.", r"\1."),
    ),
    expert_layers=EXPERT_LAYERS,
    experts_together=True,
    quantised=(),  # formats are of matrices, not of all experts in one
)
