"""ELECTRA (Clark et al. 2020), discriminators and generators.

- as BERT; embeddings may be narrower than the residual stream, which a linear layer then makes of them
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import bert

if TYPE_CHECKING:
    from transformers import ElectraConfig


def translate(hf: ElectraConfig) -> TransformerConfig:
    """Read an ELECTRA config."""
    width = None if hf.embedding_size == hf.hidden_size else hf.embedding_size
    return dataclasses.replace(bert.translate(hf), embedding_width=width)


def tensors(c: TransformerConfig) -> dict[str, str]:
    """Return the embeddings and norms."""
    projection = {
        "embed/projection/kernel": "embeddings_project.weight",
        "embed/projection/bias": "embeddings_project.bias",
    }
    return bert.tensors(c) | projection


FAMILY = dataclasses.replace(
    bert.FAMILY,
    title="ELECTRA",
    examples=("google/electra-small-discriminator", "google/electra-base-discriminator"),
    model_type="electra",
    translate=translate,
    tensors=tensors,
    prefix="electra.",
    ignored=r"(discriminator|generator)_(predictions|lm_head)\..*|sequence_summary\..*|classifier\..*|qa_outputs\..*",
    fields=(*bert.FAMILY.fields, "embedding_size"),
)
