"""CamemBERT (Martin et al. 2020): RoBERTa for French.

- as RoBERTa
"""

from __future__ import annotations

import dataclasses

from expertlens_jax.models.families import roberta

FAMILY = dataclasses.replace(
    roberta.FAMILY,
    title="CamemBERT",
    examples=("almanach/camembert-base", "almanach/camembert-large"),
    model_type="camembert",
)
