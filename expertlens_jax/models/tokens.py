"""Sentences to tokens, and tokens to batches of few shapes."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from expertlens_jax.errors import TokenizationError


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Tokenized sentences, ragged."""

    ids: tuple[np.ndarray, ...]
    """int32 `[tokens]` a sentence, with whatever the tokenizer adds."""
    in_pool: tuple[np.ndarray, ...]
    """bool `[tokens]` a sentence: False where the tokenizer added the token (CLS, SEP, BOS, EOS)."""
    offsets: tuple[np.ndarray, ...] | None = None
    """int `[tokens, 2]` a sentence, if asked for: where in the text each token starts and ends, in characters."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows padded on the right to one length; the last rows may be filler (`rows` is shorter then)."""

    rows: np.ndarray
    """int `[real rows]`: which sentences these are."""
    token_ids: np.ndarray
    """int32 `[batch, tokens]`."""
    attention_mask: np.ndarray
    """bool `[batch, tokens]`."""
    pool_mask: np.ndarray
    """bool `[batch, tokens]`."""


def tokenize(
    tokenizer: Any, sentences: Sequence[str], *, max_tokens: int, truncate: bool = False, offsets: bool = False
) -> Tokens:
    """Tokenizes sentences the way the tokenizer does by default, and marks the tokens it added.

    Args:
      tokenizer: a fast Hugging Face tokenizer.
      sentences: `[S]` texts.
      max_tokens: the model's context.
      truncate: cut what is longer than the context, rather than refuse it.
      offsets: also where in its sentence each token stands.

    Raises:
      TokenizationError: a sentence is longer than the context, or has no token of its own; or offsets are asked of a
        slow tokenizer, which doesn't know them.
    """
    if offsets and not getattr(tokenizer, "is_fast", False):
        raise TokenizationError(
            f"{type(tokenizer).__name__} doesn't tell where in a text its tokens stand; only a fast tokenizer does: "
            "save one (a tokenizer.json) beside the model."
        )
    encoded = tokenizer(
        list(sentences),
        padding=False,
        truncation=truncate,
        max_length=max_tokens if truncate else None,
        return_special_tokens_mask=True,
        return_attention_mask=False,
        return_offsets_mapping=offsets,
        verbose=False,
    )
    ids = tuple(np.asarray(row, np.int32) for row in encoded["input_ids"])
    in_pool = tuple(np.asarray(row) == 0 for row in encoded["special_tokens_mask"])
    too_long = [i for i, row in enumerate(ids) if len(row) > max_tokens]
    if too_long:
        first = too_long[0]
        raise TokenizationError(
            f"{len(too_long)} of {len(ids)} sentences are longer than the model's context of {max_tokens} tokens; "
            f"the first, number {first}, has {len(ids[first])}: {_shorten(sentences[first])!r}. "
            "Shorten them, or pass truncate=True to cut them."
        )
    empty = [i for i, row in enumerate(in_pool) if not row.any()]
    if empty:
        raise TokenizationError(
            f"{len(empty)} of {len(ids)} sentences have no token of their own; the first is number {empty[0]}: "
            f"{_shorten(sentences[empty[0]])!r}. Leave them out."
        )
    places = tuple(np.asarray(row, np.int64) for row in encoded["offset_mapping"]) if offsets else None
    return Tokens(ids, in_pool, places)


def padding_id(tokenizer: Any) -> int:
    """A token id to fill up rows with.

    Padding is masked everywhere, so any id would do; a tokenizer without a pad token (GPT-2's, Pythia's) lends
    its end-of-text token.

    Raises:
      TokenizationError: the tokenizer has neither.
    """
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return token_id
    raise TokenizationError(
        "the tokenizer has no pad token, and no end-of-text token to stand in for it, so sentences of "
        "different lengths can't be batched. Set tokenizer.pad_token to any token of its vocabulary, save it "
        "beside the model with tokenizer.save_pretrained, and load again."
    )


def batches(
    tokens: Tokens, *, pad_id: int, tokens_per_batch: int, shards: int = 1, rows_multiple: int = 1
) -> Iterator[Batch]:
    """Groups sentences of like length into batches of few shapes, so that little is padding and little compiles.

    How many rows a shard gets depends on their length alone: a sentence goes through a computation of the same
    shape on any number of devices, and its responses are the same to the last bit.

    Args:
      tokens: `[S]` sentences.
      pad_id: see `padding_id`.
      tokens_per_batch: about how many tokens each shard of a batch holds, padding included.
      shards: into how many equal parts the rows are split.
      rows_multiple: a shard's number of rows is a multiple of this.

    Yields:
      Batches, the longest first, so that too little memory shows at once.
    """
    lengths = np.array([len(row) for row in tokens.ids])
    padded = bucket_lengths(lengths)
    for length in np.unique(padded)[::-1]:
        members = np.flatnonzero(padded == length)
        num_rows = max(tokens_per_batch // int(length) // rows_multiple, 1) * rows_multiple * shards
        for start in range(0, len(members), num_rows):
            rows = members[start : start + num_rows]
            token_ids = np.full((num_rows, length), pad_id, np.int32)
            attention_mask = np.zeros((num_rows, length), bool)
            pool_mask = np.zeros((num_rows, length), bool)
            # Filler rows repeat the last sentence, so that no row is without a token.
            for i, row in enumerate(np.pad(rows, (0, num_rows - len(rows)), mode="edge")):
                token_ids[i, : lengths[row]] = tokens.ids[row]
                attention_mask[i, : lengths[row]] = True
                pool_mask[i, : lengths[row]] = tokens.in_pool[row]
            yield Batch(rows, token_ids, attention_mask, pool_mask)


def bucket_lengths(lengths: np.ndarray) -> np.ndarray:
    """The padded length of each length: the next multiple of 8 up to 64, of 32 up to 256, of 128 beyond."""
    step = np.select([lengths <= 64, lengths <= 256], [8, 32], 128)
    return -(-lengths // step) * step


def _shorten(sentence: str) -> str:
    return sentence if len(sentence) <= 80 else sentence[:77] + "..."
