"""Gemma 3 (Gemma Team 2025), the text towers of the models that read images: 4B, 12B and 27B.

- as Gemma 3's text models
"""

from expertlens_jax.models.families import gemma3_text
from expertlens_jax.models.families.text_tower import text_tower

FAMILY = text_tower(
    gemma3_text.FAMILY,
    title="Gemma 3, 4B to 27B",
    examples=("google/gemma-3-4b-it", "google/gemma-3-27b-pt"),
    model_type="gemma3",
    unread=("final_logit_softcapping",),
)
