"""Llama 4 (Meta 2025), the text towers of the models that read images: Scout.

- as Llama 4's text models; Maverick, whose mixtures alternate with plain MLPs, is refused
"""

from expertlens_jax.models.families import llama4_text
from expertlens_jax.models.families.text_tower import text_tower

FAMILY = text_tower(
    llama4_text.FAMILY,
    title="Llama 4 Scout",
    examples=("meta-llama/Llama-4-Scout-17B-16E", "meta-llama/Llama-4-Scout-17B-16E-Instruct"),
    model_type="llama4",
    prefix="language_model.model.",
    head_prefix="language_model.",
    head_by_tower=True,
)
