"""Tables of expertise that ask what a trained model adds: without its training, its layers, or the concept's word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from expertlens_jax.analysis.similarity.embeddings import embedding_responses
from expertlens_jax.analysis.tables import FindExperts
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import UnfitConceptsError
from expertlens_jax.experts.expertise import measure_expertise
from expertlens_jax.experts.token_masks import SomeTokens, pool_over_words
from expertlens_jax.models.loading import randomize_weights
from expertlens_jax.models.model import Model
from expertlens_jax.sentences.masking import mask_words

OWN_TOKENS: dict[str, SomeTokens] = {"own_tokens": "concept", "other_tokens": "others"}
"""Controls by the tokens that a response is pooled over: of the concept's own word, or all others."""


def control_tables(
    model: Model,
    concepts: ConceptDataset,
    find: FindExperts,
    *,
    random_weights: Sequence[int] = (0,),
    embedding: bool = True,
    mask: str = "something",
    own_tokens: bool = True,
    truncate: bool = False,
    negatives: Mapping[str, Any] | None = None,
) -> Iterator[tuple[str, xr.Dataset]]:
    """Find the experts that there would be without what a model has learned, or without the word in the sentence.

    Args:
      model: whose experts are compared with these.
      concepts: the sentences.
      find: finds experts.
      random_weights: seeds of networks of the same shape with random weights.
      embedding: whether channels of the input embedding are a control.
      mask: what stands for the concept's word in masked sentences, if the tokenizer has no mask; "" for no masking.
      own_tokens: whether responses over the tokens of the concept's own word, and over all others, are controls.
      truncate: cut sentences that are longer than the model's context.
      negatives: of the embedding's experts, as arguments of `measure_expertise`; `find` has its own.

    Yields:
      The control's name, and its table.
    """
    for seed in random_weights:
        yield f"random_weights_{seed}", find(randomize_weights(model, seed), concepts)
    if embedding:
        responses = embedding_responses(model, concepts.sentences, truncate=truncate)
        # Nothing is steered with it, so that its slopes of the transport would be for nobody.
        yield "input_embedding", measure_expertise(responses, concepts, transport=False, **(negatives or {}))
    if mask:
        yield "masked", find(model, mask_words(concepts, model.tokenizer.mask_token or mask))
    if own_tokens:
        for name, pool_over in OWN_TOKENS.items():
            yield name, find(model, concepts, pool_over=pool_over)


def check_words_present(concepts: ConceptDataset) -> None:
    """Check that each sentence has its concept's word, which the controls by own tokens want.

    Raises:
      UnfitConceptsError: the message counts the sentences without, and shows the first; or names concepts that have
        no word.
    """
    concepts.check_words("the controls by own_tokens")
    lacking = concepts.labels & ~concepts.mentions()
    rows, columns = np.nonzero(lacking)
    if len(columns):
        first = columns.argmin()
        raise UnfitConceptsError(
            f"the controls by own_tokens can't be made of {lacking.any(0).sum()} of {len(concepts.sentences)} "
            f"sentences of {concepts.name!r}; the first, number {columns[first]}, lacks the word of its concept "
            f"{concepts.concepts[rows[first]]!r}: {concepts.sentences[columns[first]]!r}. Mend these sentences, or "
            "leave the controls out."
        )


def check_own_tokens(model: Model, concepts: ConceptDataset, *, truncate: bool = False) -> None:
    """Check that a tokenizer tells the concept's own word from the rest of each sentence.

    Raises:
      ConceptDataError: see `pool_over_words`.
    """
    for pool_over in OWN_TOKENS.values():
        pool_over_words(model.tokenizer, concepts, pool_over, max_tokens=model.config.max_tokens, truncate=truncate)
