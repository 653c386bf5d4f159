"""Gemma 4 (Gemma Team 2026), the text towers of the models that read images and sound.

- as Gemma 4's text models
"""

from expertlens_jax.models.families import gemma4_text
from expertlens_jax.models.families.text_tower import text_tower

FAMILY = text_tower(
    gemma4_text.FAMILY,
    title="Gemma 4",
    examples=("google/gemma-4-E2B-it", "google/gemma-4-31B-it"),
    model_type="gemma4",
)
