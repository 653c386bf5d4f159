"""RoBERTa (Liu et al. 2019): BERT's architecture, trained longer and on more.

- as BERT; the position table starts with rows that no token uses, one more than the padding token's id
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from expertlens_jax.errors import UnsupportedModelError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import bert

if TYPE_CHECKING:
    from transformers import RobertaConfig


def translate(hf: RobertaConfig) -> TransformerConfig:
    """Read a RoBERTa config.

    Raises:
      UnsupportedModelError: the config names no padding token.
    """
    if hf.pad_token_id is None:
        raise UnsupportedModelError(
            f"this {hf.model_type} config says pad_token_id=None, and positions are counted from the padding token's "
            "id. Set it to the tokenizer's, as in the config of the model that this one was made from."
        )
    offset = hf.pad_token_id + 1
    return dataclasses.replace(
        bert.translate(hf), position_offset=offset, max_tokens=hf.max_position_embeddings - offset
    )


FAMILY = dataclasses.replace(
    bert.FAMILY,
    title="RoBERTa",
    examples=("FacebookAI/roberta-base", "distilbert/distilroberta-base"),
    model_type="roberta",
    translate=translate,
    prefix="roberta.",
    ignored=r"pooler\..*|lm_head\..*|classifier\..*|qa_outputs\..*",
    fields=(*bert.FAMILY.fields, "pad_token_id"),
)
