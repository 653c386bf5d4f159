"""XLM-RoBERTa (Conneau et al. 2020): RoBERTa for a hundred languages, and the sentence encoders built on it.

- as RoBERTa
"""

from __future__ import annotations

import dataclasses

from expertlens_jax.models.families import roberta

FAMILY = dataclasses.replace(
    roberta.FAMILY,
    title="XLM-RoBERTa",
    examples=("FacebookAI/xlm-roberta-base", "intfloat/multilingual-e5-base"),
    model_type="xlm-roberta",
)
