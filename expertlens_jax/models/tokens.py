"""Sentences to tokens, and tokens to batches of few shapes."""

import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from expertlens_jax.errors import ExpertLensWarning, TokenizationError
from expertlens_jax.models.chat import Content, in_conversation
from expertlens_jax.settings import Chat

TOKENS_PER_BATCH = {"cpu": 1024, "tpu": 2048}
"""Of each device. On a CPU what a layer hands on then stays in its caches, and few sentences need little filler; on a
TPU it stays in the cores' own memory, which libtpu's estimates prefer to twice as many (see benchmarks/README.md)."""
_TOKENS_ELSEWHERE = 8192  # a GPU's kernels are told one by one, so each should have more to do


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Tokenized sentences, ragged."""

    ids: tuple[np.ndarray, ...]
    """int32 `[tokens]` a sentence, with whatever the tokenizer adds."""
    in_pool: tuple[np.ndarray, ...]
    """bool `[tokens]` a sentence: False where the tokenizer added the token (CLS, SEP, BOS, EOS). A special token that
    the sentence itself has in its text, as chat templates write them, is a token of the sentence."""
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
    tokenizer: Any,
    sentences: Sequence[str],
    *,
    max_tokens: int,
    truncate: bool = False,
    offsets: bool = False,
    chat: Chat | None = None,
) -> Tokens:
    """Tokenize sentences the way the tokenizer does by default, and mark the tokens it added.

    Args:
      tokenizer: a fast Hugging Face tokenizer.
      sentences: `[S]` texts.
      max_tokens: the model's context.
      truncate: cut what is longer than the context, rather than refuse it.
      offsets: also where in its sentence each token stands.
      chat: the conversation that each sentence stands in. What the template writes is no token of the sentence, but
        for one that holds a character of it; its offsets are 0.

    Raises:
      TokenizationError: a sentence is longer than the context, or has no token of its own; or offsets are asked of a
        slow tokenizer, which doesn't know them, and which chats need; or see `chat.in_conversation`.

    Warns:
      ExpertLensWarning: sentences begin or end with a token that the tokenizer adds once more, or begin with BOS, which
        then is pooled over.
    """
    if (offsets or chat) and not getattr(tokenizer, "is_fast", False):
        raise TokenizationError(
            f"{type(tokenizer).__name__} doesn't tell where in a text its tokens stand; only a fast tokenizer does: "
            "save one (a tokenizer.json) beside the model."
        )
    texts, contents = in_conversation(tokenizer, sentences, chat) if chat else (list(sentences), None)
    encoded = tokenizer(
        texts,
        add_special_tokens=contents is None,  # a template writes BOS by itself
        padding=False,
        truncation=truncate,
        max_length=max_tokens if truncate else None,
        return_special_tokens_mask=True,
        return_attention_mask=False,
        return_offsets_mapping=offsets or chat is not None,
        verbose=False,
    )
    ids = tuple(np.asarray(row, np.int32) for row in encoded["input_ids"])
    places = None
    if contents is None:
        in_pool = tuple(np.asarray(row) == 0 for row in encoded["special_tokens_mask"])
        if offsets:
            places = tuple(np.asarray(row, np.int64) for row in encoded["offset_mapping"])
    else:
        found = map(_within, encoded["offset_mapping"], contents)
        in_pool, places = zip(*found, strict=True) if len(contents) else ((), ())
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
    if contents is None:
        warn_of_doubles(tokenizer, sentences, ids, in_pool, "Take it off the sentences")
        _warn_of_pooled_start(tokenizer, sentences, ids, in_pool)
    return Tokens(ids, in_pool, places if offsets else None)


def _within(places: Sequence[tuple[int, int]], content: Content) -> tuple[np.ndarray, np.ndarray]:
    """Return which tokens of a conversation hold a character of the sentence, and where in the sentence they stand."""
    spans = np.asarray(places, np.int64).reshape(-1, 2)
    own = (spans[:, 0] < content.stop) & (spans[:, 1] > content.start) & (spans[:, 0] < spans[:, 1])
    moved = np.clip(spans, content.start, content.stop) - content.start + content.cut
    return own, np.where(own[:, None], moved, 0)


def holds_any(places: np.ndarray, spans: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return which tokens hold a character of any span, bool `[tokens]`.

    Args:
      places: int `[tokens, 2]`: from which character up to which each stands. One without characters (an empty one that
        a tokenizer puts before the first word) holds none.
      spans: (start, end) in the same text.
    """
    holds = np.zeros(len(places), bool)
    for start, end in spans:
        holds |= (places[:, 0] < end) & (places[:, 1] > start) & (places[:, 0] < places[:, 1])
    return holds


def warn_of_doubles(
    tokenizer: Any, texts: Sequence[str], ids: Sequence[np.ndarray], own: Sequence[np.ndarray], remedy: str
) -> None:
    """Warn of texts that begin or end with a token that the tokenizer puts there as well, as BOS of a chat template.

    A model sees two, as it did nowhere in its training.

    Args:
      tokenizer: names the token.
      texts: `[texts]`.
      ids: int `[tokens]` a text.
      own: bool `[tokens]` a text, False where the tokenizer added the token.
      remedy: what to do.
    """
    found = []
    for number, (row, mine) in enumerate(zip(ids, own, strict=True)):
        places = np.flatnonzero(mine)
        if not places.size:
            continue
        first, last = places[[0, -1]]
        if row[first] in row[:first]:
            found.append((number, int(row[first]), "begins"))
        elif row[last] in row[last + 1 :]:
            found.append((number, int(row[last]), "ends"))
    if found:
        number, token_id, does = found[0]
        token = tokenizer.convert_ids_to_tokens(token_id)
        name = "BOS" if token_id == tokenizer.bos_token_id else "EOS" if token_id == tokenizer.eos_token_id else "token"
        message = (
            f"{len(found)} of {len(ids)} texts have a {name} of their own where the tokenizer adds one, and so two; "
            f"the first, number {number}, {does} with {token!r}: {_shorten(texts[number])!r}. {remedy}."
        )
        warnings.warn(ExpertLensWarning(message), stacklevel=3)


def _warn_of_pooled_start(
    tokenizer: Any, sentences: Sequence[str], ids: Sequence[np.ndarray], in_pool: Sequence[np.ndarray]
) -> None:
    """Warns of sentences that begin with BOS by themselves."""
    bos = getattr(tokenizer, "bos_token_id", None)
    own = [i for i, (row, mine) in enumerate(zip(ids, in_pool, strict=True)) if row[0] == bos and mine[0]]
    if own:
        message = (
            f"{len(own)} of {len(ids)} sentences begin with BOS, {tokenizer.bos_token!r}, which as a part of their "
            f"text is pooled over; the first is number {own[0]}: {_shorten(sentences[own[0]])!r}. Units respond to BOS "
            "unlike to any word. Take it off, and let the tokenizer add it, as Model.with_sae shows; then it stays out "
            "of the pool."
        )
        warnings.warn(ExpertLensWarning(message), stacklevel=3)


def check_token_ids(
    rows: Sequence[np.ndarray],
    *,
    vocab_size: int,
    model: str,
    tokenizer: Any = None,
    texts: Sequence[str] | None = None,
) -> None:
    """Refuse token ids that the model has no embedding for.

    PyTorch stops at them; JAX would read another row of the table, and give a finished result. Whatever feeds ids to a
    model, or looks up its embedding, calls this.

    Args:
      rows: int `[tokens]` a row: its real tokens, without padding.
      vocab_size: rows of the embedding.
      model: its name.
      tokenizer: says what the token is.
      texts: `[rows]`, what the rows were made of.

    Raises:
      TokenizationError: an id below 0 or beyond the embedding; names the first row, its token and id.
    """
    outside = [i for i, row in enumerate(rows) if len(row) and not (0 <= row.min() and row.max() < vocab_size)]
    if not outside:
        return
    first = outside[0]
    token_id = int(next(each for each in rows[first] if not 0 <= each < vocab_size))
    token = tokenizer.convert_ids_to_tokens(token_id) if tokenizer is not None and token_id >= 0 else None
    real = np.concatenate(rows)
    raise TokenizationError(
        f"{len(outside)} of {len(rows)} rows of tokens have ids that {model} has no embedding for; the first, number "
        f"{first}{'' if texts is None else f' ({_shorten(texts[first])!r})'}, has {token_id}"
        f"{'' if token is None else f', the token {token!r}'}. Token ids run from {real.min()} to {real.max()}; the "
        f"vocabulary of {model} has {vocab_size}, 0 to {vocab_size - 1}. Use the tokenizer that the model was trained "
        "with. If tokens were added to it since, the model needs rows for them: in transformers, "
        "model.resize_token_embeddings(len(tokenizer)), then train them, and save both."
    )


def as_rows(token_ids: Any, attention_mask: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Return token ids and mask as arrays; rows of different lengths, as a tokenizer gives them, padded on the right.

    Args:
      token_ids: int `[batch, tokens]`, or a sequence of `[tokens]` of any lengths.
      attention_mask: of the same shape, or lengths, nonzero at tokens; default all tokens.

    Returns:
      int32 and bool `[batch, tokens]`; ids are 0 where the mask is False, so that what padding holds can do no harm.

    Raises:
      TokenizationError: they have other shapes, or ids that aren't integers.
    """
    if isinstance(token_ids, Mapping):
        raise TokenizationError(
            f"a mapping with {', '.join(map(str, token_ids))} was given for token ids. Give what it holds: "
            'model(encoded["input_ids"], encoded["attention_mask"]).'
        )
    rows, real = _right_padded(token_ids)
    if rows.dtype.kind not in "iu":
        raise TokenizationError(
            f"token ids should be integers; {rows.dtype} was given, such as {rows.flat[0] if rows.size else rows!r}."
        )
    mask = real if attention_mask is None else _right_padded(attention_mask)[0].astype(bool)
    if rows.ndim != 2 or mask.shape != rows.shape:
        raise TokenizationError(
            f"token ids have shape {list(rows.shape)} and the mask {list(mask.shape)}; both should be [batch, tokens]."
        )
    mask = mask & real
    bounds = np.iinfo(np.int32)  # what is outside them is outside any vocabulary
    return np.where(mask, np.clip(rows.astype(np.int64), bounds.min, bounds.max), 0).astype(np.int32), mask


def _right_padded(rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows as an array, and bool of its shape: False where it was filled up with zeros."""
    if isinstance(rows, (list, tuple)) and len({np.shape(row) for row in rows}) > 1:
        parts = [np.asarray(row) for row in rows]
        if all(part.ndim == 1 for part in parts):
            real = np.arange(max(map(len, parts))) < np.array([len(part) for part in parts])[:, None]
            kinds = [part.dtype for part in parts if part.size]  # an empty list would be of floats
            filled = np.zeros(real.shape, np.result_type(*kinds))
            filled[real] = np.concatenate(parts)
            return filled, real
        raise TokenizationError(
            f"rows of shapes {', '.join(str(list(part.shape)) for part in parts[:3])} ... were given for token ids; "
            "each row should be [tokens]."
        )
    array = np.asarray(rows)
    return array, np.ones(array.shape, bool)


def padding_id(tokenizer: Any, vocab_size: int | None = None) -> int:
    """Return a token id to fill up rows with.

    Padding is masked everywhere, so any id would do; a tokenizer without a pad token (GPT-2's, Pythia's) lends
    its end-of-text token. One that a model of `vocab_size` tokens has no embedding for is replaced by 0.

    Raises:
      TokenizationError: the tokenizer has neither.
    """
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return token_id if vocab_size is None or token_id < vocab_size else 0
    raise TokenizationError(
        "the tokenizer has no pad token, and no end-of-text token to stand in for it, so sentences of "
        "different lengths can't be batched. Set tokenizer.pad_token to any token of its vocabulary, save it "
        "beside the model with tokenizer.save_pretrained, and load again."
    )


def tokens_per_batch_of(platform: str) -> int:
    """Return about how many tokens each device of a platform ("cpu", "tpu", ...) should read at a time.

    A function of the kind of device alone, so that no response depends on their number or on what else they hold.
    """
    return TOKENS_PER_BATCH.get(platform, _TOKENS_ELSEWHERE)


def batches(
    tokens: Tokens,
    *,
    pad_id: int,
    tokens_per_batch: int,
    shards: int = 1,
    rows_multiple: int = 1,
    least_length: int = 1,
) -> Iterator[Batch]:
    """Group sentences of like length into batches of few shapes, so that little is padding and little compiles.

    How many rows a shard gets depends on their length alone: a sentence goes through a computation of the same
    shape on any number of devices, and its responses are the same to the last bit.

    Args:
      tokens: `[S]` sentences.
      pad_id: see `padding_id`.
      tokens_per_batch: about how many tokens each shard of a batch holds, padding included.
      shards: into how many equal parts the rows are split.
      rows_multiple: a shard's number of rows is a multiple of this.
      least_length: what shorter sentences are padded to.

    Yields:
      Batches, the longest first, so that too little memory shows in the first batch.
    """
    lengths = np.array([len(row) for row in tokens.ids])
    padded = bucket_lengths(np.maximum(lengths, least_length))
    for length in np.unique(padded)[::-1]:
        members = np.flatnonzero(padded == length)
        num_rows = max(tokens_per_batch // int(length) // rows_multiple, 1) * rows_multiple * shards
        for start in range(0, len(members), num_rows):
            rows = members[start : start + num_rows]
            token_ids = np.full((num_rows, length), pad_id, np.int32)
            attention_mask = np.zeros((num_rows, length), bool)
            for i, row in enumerate(_filled_up(rows, num_rows)):
                token_ids[i, : lengths[row]] = tokens.ids[row]
                attention_mask[i, : lengths[row]] = True
            yield Batch(rows, token_ids, attention_mask, pool_mask_of(tokens, rows, token_ids.shape))


def pool_mask_of(tokens: Tokens, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return which tokens of a batch enter the pool, bool `[batch, tokens]` of this shape.

    Args:
      tokens: `[S]` sentences.
      rows: which of them the batch begins with.
      shape: of the batch.
    """
    mask = np.zeros(shape, bool)
    for i, row in enumerate(_filled_up(rows, len(mask))):
        mask[i, : len(tokens.in_pool[row])] = tokens.in_pool[row]
    return mask


def _filled_up(rows: np.ndarray, num_rows: int) -> np.ndarray:
    """Return so many rows: filler repeats the last sentence, so that none is without a token."""
    return np.pad(rows, (0, num_rows - len(rows)), mode="edge")


def row_shapes(found: Iterable[Batch]) -> list[tuple[int, int]]:
    """Return the (rows, tokens) of batches, and those of a single row of each.

    Who can take both can take a row in any batch.
    """
    shapes = dict.fromkeys(batch.token_ids.shape for batch in found)
    return [*shapes, *dict.fromkeys((1, length) for _, length in shapes)]


def bucket_lengths(lengths: np.ndarray) -> np.ndarray:
    """Return the padded length of each length: the next multiple of 8 up to 64, of 32 up to 256, of 128 beyond."""
    step = np.select([lengths <= 64, lengths <= 256], [8, 32], 128)
    return -(-lengths // step) * step


def _shorten(sentence: str) -> str:
    return sentence if len(sentence) <= 80 else sentence[:77] + "..."
