"""Mistral Small 3.1 and 3.2 (Mistral AI 2025), the text towers.

- as Mistral
"""

from expertlens_jax.models.families import mistral
from expertlens_jax.models.families.text_tower import text_tower

FAMILY = text_tower(
    mistral.FAMILY,
    title="Mistral Small 3.1, 3.2",
    examples=("mistralai/Mistral-Small-3.1-24B-Instruct-2503",),
    model_type="mistral3",
)
