"""Gemma 4 12B (Gemma Team 2026), the text model.

- as Gemma 4's other text models, without what each token gives each layer
"""

import dataclasses

from expertlens_jax.models.families import gemma4_text

FAMILY = dataclasses.replace(
    gemma4_text.FAMILY,
    title="Gemma 4 12B's text tower by itself",
    examples=("google/gemma-4-12B-it",),
    model_type="gemma4_unified_text",
    translate=gemma4_text.gemma4_like,
    fields=gemma4_text.GEMMA4_LIKE,
)
