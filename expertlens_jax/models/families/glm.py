"""GLM-4 and GLM-Edge (GLM Team 2024).

- as GLM-4-0414, without norms after the branches
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import glm4, llama

if TYPE_CHECKING:
    from transformers import GlmConfig


def translate(hf: GlmConfig) -> TransformerConfig:
    """Read a GLM config."""
    return glm4.glm_like(hf)


FAMILY = dataclasses.replace(
    glm4.FAMILY,
    title="GLM-4, GLM-Edge",
    examples=("zai-org/glm-4-9b-chat-hf", "zai-org/glm-edge-1.5b-chat"),
    model_type="glm",
    translate=translate,
    tensors=llama.tensors,
)
