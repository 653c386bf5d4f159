"""Gemma 4 12B (Gemma Team 2026), the text tower of the model that reads images and sound without towers of theirs.

- as Gemma 4 12B's text model
"""

from expertlens_jax.models.families import gemma4_unified_text
from expertlens_jax.models.families.text_tower import text_tower

FAMILY = text_tower(
    gemma4_unified_text.FAMILY,
    title="Gemma 4 12B",
    examples=("google/gemma-4-12B", "google/gemma-4-12B-it"),
    model_type="gemma4_unified",
)
