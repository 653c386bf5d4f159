"""Responses of a concept's own word, or of all around it: which tokens of a sentence are pooled over.

A unit may tell sentences with "cat" apart because it speaks at the word itself, or because it speaks at what stands
around it. Pooled over the word's tokens alone, or over all the others, a response says one and not the other.
"""

import dataclasses
from typing import Any, Literal, cast, get_args

import numpy as np

from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import ConceptDataError, SelectionError
from expertlens_jax.models.tokens import Tokens, holds_any, tokenize
from expertlens_jax.settings import Chat

PoolOver = Literal["all", "concept", "others"]
SomeTokens = Literal["concept", "others"]
POOLED_OVER: tuple[str, ...] = get_args(PoolOver)


def check_pool_over(pool_over: str) -> PoolOver:
    """Return which tokens are pooled over.

    Raises:
      SelectionError: they are none of `POOLED_OVER`.
    """
    if pool_over not in POOLED_OVER:
        raise SelectionError(f"pool_over {pool_over!r} was given; wanted one of {', '.join(POOLED_OVER)}.")
    return cast(PoolOver, pool_over)


def pool_over_words(
    tokenizer: Any,
    concepts: ConceptDataset,
    pool_over: SomeTokens,
    *,
    max_tokens: int,
    truncate: bool = False,
    chat: Chat | None = None,
) -> Tokens:
    """Tokenize a dataset's sentences, with the tokens of their concepts' words, or all but those, in the pool.

    A sentence of several concepts has all their words for its own. A token is a word's if it holds any character of
    an occurrence (the concept in any of its forms, see `data.words`): so a byte-level token is that of the letters in
    it, whatever space stands before them, and a token that the word shares with its neighbour is the word's.

    Args:
      tokenizer: a fast Hugging Face tokenizer.
      concepts: labels bool [concepts, sentences]. A sentence of no concept has no word of its own: all its tokens
        are others.
      pool_over: "concept" or "others".
      max_tokens: as in `tokenize`, like `truncate`.
      truncate: what is too long; a word that is cut off is not there.
      chat: the conversation that each sentence stands in, which is neither its word nor the others.

    Returns:
      Tokens, with the same ids as without this.

    Raises:
      UnfitConceptsError: a concept has no word at all.
      ConceptDataError: a sentence lacks the word of a concept of its own, or holds nothing else, or is of no concept
        where the word's tokens are wanted. The message names concept and sentence, and counts such sentences.
      TokenizationError: see `tokenize`.
    """
    concepts.check_words(f"responses with pool_over={pool_over!r}")
    tokens = tokenize(tokenizer, concepts.sentences, max_tokens=max_tokens, truncate=truncate, offsets=True, chat=chat)
    assert tokens.offsets is not None  # since they were asked for
    in_pool, refused = [], []
    for column, (own, places) in enumerate(zip(tokens.in_pool, tokens.offsets, strict=True)):
        of_words = np.zeros(len(own), bool)
        rows = np.flatnonzero(concepts.labels[:, column]).tolist()
        for row in rows:
            of_word = own & holds_any(places, concepts.own_places[row, column])
            if not of_word.any():
                cut = " within the model's context" if truncate and len(own) == max_tokens else ""
                refused.append((column, f"lacks the word of its concept {concepts.concepts[row]!r}{cut}"))
            of_words |= of_word
        pooled = of_words if pool_over == "concept" else own & ~of_words
        if not rows and pool_over == "concept":
            refused.append((column, "is of no concept, and so has no word of its own"))
        elif rows and of_words.any() and not pooled.any():
            named = " and ".join(repr(concepts.concepts[row]) for row in rows)
            refused.append((column, f"holds no token but those of its concept {named}"))
        in_pool.append(pooled)
    if refused:
        column, why = refused[0]
        raise ConceptDataError(
            f"pool_over={pool_over!r} can't be met by {len({column for column, _ in refused})} of "
            f"{len(concepts.sentences)} sentences of {concepts.name!r}; the first, number {column}, {why}: "
            f"{concepts.sentences[column]!r}. Mend these sentences, leave them out, or pool over all tokens."
        )
    return dataclasses.replace(tokens, in_pool=tuple(in_pool))
