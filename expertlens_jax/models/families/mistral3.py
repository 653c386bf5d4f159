"""Mistral Small 3.1 and 3.2, Ministral 3 and Devstral Small 2 (Mistral AI 2025), the text towers.

- as Mistral; the latter two as Ministral 3's text models
"""

from expertlens_jax.models.families import ministral3, mistral
from expertlens_jax.models.families.text_tower import text_tower

FAMILY = text_tower(
    mistral.FAMILY,
    ministral3.FAMILY,
    title="Mistral Small 3.1, 3.2; Ministral 3",
    examples=("mistralai/Mistral-Small-3.1-24B-Instruct-2503", "mistralai/Ministral-3-8B-Instruct-2512"),
    model_type="mistral3",
)
