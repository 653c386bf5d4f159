"""Command R7B and Command A (Cohere 2024, 2025).

- as Command R; three layers of four see a window of tokens only, and the fourth has no positions at all
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import cohere
from expertlens_jax.models.families.family import layer_windows, refuse

if TYPE_CHECKING:
    from transformers import Cohere2Config

STATED = {
    "position_embedding_type": "rope_gptj",
    "rotary_pct": 1.0,
    "order_of_interleaved_layers": "local_attn_first",
    "use_parallel_block": True,
    "use_gated_activation": True,
}
"""What Cohere's own files say of the architecture, and transformers has in its code."""


def translate(hf: Cohere2Config) -> TransformerConfig:
    """Read a Command R7B config."""
    for field, value in STATED.items():
        refuse(hf, field, value, "transformers' cohere2 models are so whatever the config says")
    refuse(hf, "use_embedding_sharing", hf.tie_word_embeddings, "tie_word_embeddings says whether the head is shared")
    unrotated = tuple(layer for layer, kind in enumerate(hf.layer_types or ()) if kind != "sliding_attention")
    refuse(
        hf, "layer_switch", unrotated[0] + 1 if unrotated else None, "so many layers there are to one without a window"
    )
    return cohere.cohere_like(hf, windows=layer_windows(hf), unrotated_layers=unrotated)


FAMILY = dataclasses.replace(
    cohere.FAMILY,
    title="Command R7B, Command A",
    examples=("CohereLabs/c4ai-command-r7b-12-2024", "CohereLabs/c4ai-command-a-03-2025"),
    model_type="cohere2",
    translate=translate,
    fields=(
        *cohere.COHERE_LIKE,
        "sliding_window",
        "layer_types",
        "sliding_window_pattern",
        "layer_switch",
        *STATED,
        "use_embedding_sharing",
    ),
)
