"""How probable a model, steered or not, finds given text: log-probabilities of continuations, token by token."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from expertlens_jax import parallel
from expertlens_jax.cards import counted
from expertlens_jax.errors import TokenizationError
from expertlens_jax.models.causal import check_predicts
from expertlens_jax.models.interventions import Intervention, PlacedIntervention
from expertlens_jax.models.model import Model
from expertlens_jax.models.placed_steering import LaidOut, check_row_steerings
from expertlens_jax.models.steering import Steering
from expertlens_jax.models.streaming import program, run
from expertlens_jax.models.tokens import (
    Tokens,
    batches,
    bucket_lengths,
    check_token_ids,
    padding_id,
    row_shapes,
    tokens_per_batch_of,
    warn_of_doubles,
)
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.models.when import ReadText

_MOST_TOKENS = 4096  # of a batch of a device: each has a number for every token of the vocabulary


@dataclasses.dataclass(frozen=True)
class Continued:
    """Prompts and their continuations, tokenized together: see `tokenize_continuations`."""

    tokens: Tokens
    first: tuple[int, ...]
    """`[rows]`: which token of a row is the first of its continuation."""
    texts: tuple[str, ...] | None = None
    """`[rows]`: the texts that these tokens are the beginnings of; None if they aren't known."""

    def take(self, rows: Sequence[int] | np.ndarray) -> "Continued":
        """Return some of the rows, in this order."""
        ids, in_pool = (tuple(each[row] for row in rows) for each in (self.tokens.ids, self.tokens.in_pool))
        texts = None if self.texts is None else tuple(self.texts[row] for row in rows)
        return Continued(Tokens(ids, in_pool), tuple(self.first[row] for row in rows), texts)

    def first_tokens(self) -> "Continued":
        """Return the rows up to the first token of each continuation."""
        ends = [first + 1 for first in self.first]
        ids, in_pool = (
            tuple(row[:end] for row, end in zip(each, ends, strict=True))
            for each in (self.tokens.ids, self.tokens.in_pool)
        )
        return Continued(Tokens(ids, in_pool), self.first, self.texts)


def tokenize_continuations(model: Model, prompts: Sequence[str], continuations: Sequence[str]) -> Continued:
    """Return the tokens of prompts and their continuations, and where the continuations begin.

    Args:
      model: a causal language model.
      prompts: as in `score_continuations`, like `continuations`.
      continuations: `[rows]`.

    Raises:
      TokenizationError, UnsupportedModelError: see `score_continuations`.

    Warns:
      ExpertLensWarning: see `place_steering`.
    """
    check_predicts(model, "and gives text no probability", "Score with a causal language model.")
    if len(prompts) != len(continuations):
        raise TokenizationError(
            f"{counted(len(prompts), 'prompt')} and {counted(len(continuations), 'continuation')} were given."
        )
    token_ids, own, first = [], [], []
    for row, (prompt, continuation) in enumerate(zip(prompts, continuations, strict=True)):
        alone = _token_ids(model.tokenizer, prompt)[0] if prompt else []
        together, of_text = _token_ids(model.tokenizer, prompt + continuation)
        shared = next((i for i, pair in enumerate(zip(alone, together, strict=False)) if pair[0] != pair[1]), None)
        start = max(1, min(len(alone), len(together)) if shared is None else shared)
        if len(together) <= start:
            raise TokenizationError(f"row {row} has no token to score: {continuation!r} after {prompt!r}.")
        if len(together) > model.config.max_tokens:
            raise TokenizationError(
                f"row {row} has {counted(len(together), 'token')}; {model.name} has positions for "
                f"{model.config.max_tokens}."
            )
        token_ids.append(np.asarray(together, np.int32))
        own.append(of_text)
        first.append(start)
    texts = [prompt + continuation for prompt, continuation in zip(prompts, continuations, strict=True)]
    limits = {"vocab_size": model.config.vocab_size, "model": model.name}
    check_token_ids(token_ids, **limits, tokenizer=model.tokenizer, texts=texts)
    warn_of_doubles(model.tokenizer, texts, token_ids, own, "Take it off the prompts")
    whole = tuple(np.ones(len(ids), bool) for ids in token_ids)
    return Continued(Tokens(tuple(token_ids), whole), tuple(first), tuple(texts))


def score_continuations(
    model: Model,
    prompts: Sequence[str],
    continuations: Sequence[str],
    *,
    steering: Steering | Sequence[Steering | None] | None = None,
    interventions: Sequence[Intervention] | Intervention = (),
    tokens_per_batch: int | None = None,
) -> list[np.ndarray]:
    """Return the log-probability of each token of a continuation, given its prompt and the tokens before it.

    Args:
      model: a causal language model.
      prompts: `[rows]` texts; an empty one leaves the continuation's first token unscored.
      continuations: `[rows]` texts, put after the prompts as they are: with their leading space.
      steering: of the model while it reads; default none. One with a `when` by words sees all of a row: the map at a
        token may follow from the rest of its word, which comes after it. Or a list, `[rows]`, with one, or None, for
        each.
      interventions: from `el.intervene`, applied after the steering; default none. Rows are read in any order and
        batches, so a function has to take any row.
      tokens_per_batch: about how many tokens, padding included, each device takes at a time; None for as many as
        recording takes on this kind of device, at most 4,096, or as many as these rows have, rounded up to a power of
        two.

    Returns:
      float32 `[tokens]` a row: natural logs. The tokens are those that the prompt and its continuation have, tokenized
      together, beyond those they share with the prompt alone.

    Raises:
      TokenizationError: other numbers of prompts and continuations; or a row without a token to score, longer than
        the model's context, or with a token that the model has no embedding for.
      SelectionError: another model's steering, as many steerings as there aren't rows, or an intervention that doesn't
        fit.
      UnsupportedModelError: the model is an encoder.

    Warns:
      ExpertLensWarning: a prompt begins with the BOS that the tokenizer adds too.
    """
    continued = tokenize_continuations(model, prompts, continuations)
    given = {"steering": steering, "interventions": interventions, "tokens_per_batch": tokens_per_batch}
    return score_tokens(model, continued, **given)


def score_tokens(
    model: Model,
    continued: Continued,
    *,
    steering: Steering | Sequence[Steering | None] | None = None,
    interventions: Sequence[Intervention] | Intervention = (),
    tokens_per_batch: int | None = None,
) -> list[np.ndarray]:
    """Return what `score_continuations` does, of rows that are tokenized already: for many steerings of one text.

    Args:
      model: that they are tokenized for.
      continued: from `tokenize_continuations`.
      steering: as in `score_continuations`, like `interventions` and `tokens_per_batch`.
      interventions: applied after it.
      tokens_per_batch: of each device.

    Raises:
      SelectionError: see `score_continuations`.
    """
    token_ids, first = continued.tokens.ids, continued.first
    text = ReadText(model.tokenizer, token_ids, first, texts=continued.texts)
    placed = model.place_rows(steering, len(token_ids), text)
    mesh, params = parallel.place(model.params)
    network = Transformer(model.config, dtype=jnp.dtype(model.dtype))
    scored: list[np.ndarray] = [np.zeros(0, np.float32)] * len(token_ids)
    if tokens_per_batch is None:
        read = tokens_per_batch_of(mesh.devices.flat[0].platform)
        tokens_per_batch = min(_MOST_TOKENS, read, _tokens_of_one_length(token_ids))
    all_batches = functools.partial(
        batches,
        continued.tokens,
        pad_id=padding_id(model.tokenizer, model.config.vocab_size),
        tokens_per_batch=tokens_per_batch,
        shards=mesh.shape[parallel.DATA],
        rows_multiple=mesh.shape.get(parallel.MODEL, 1),
    )
    acting = model.place_interventions(interventions, row_shapes(all_batches()) if interventions else (), mesh)
    for batch in all_batches():
        arrays = parallel.split_rows((batch.token_ids, batch.attention_mask), mesh)
        rows = np.pad(batch.rows, (0, len(batch.token_ids) - len(batch.rows)), mode="edge")
        steered = placed.of(rows, batch.token_ids.shape[1])
        log_probs = np.asarray(next_log_probs(network, params, *arrays, steered, acting))
        for place, row in enumerate(batch.rows):
            scored[row] = log_probs[place, first[row] - 1 : len(token_ids[row]) - 1]
    return scored


def _tokens_of_one_length(token_ids: Sequence[np.ndarray]) -> int:
    """Return the most tokens, padding included, that rows of one padded length have, up to the next power of two."""
    padded = bucket_lengths(np.array([len(row) for row in token_ids], int))
    lengths, rows = np.unique(padded, return_counts=True)
    return 1 << max(int((lengths * rows).max(initial=1)) - 1, 0).bit_length()


def score_words(
    model: Model,
    prompts: Sequence[str],
    words: Sequence[str] | Sequence[Sequence[str]],
    *,
    steering: Steering | Sequence[Steering | None] | None = None,
    interventions: Sequence[Intervention] | Intervention = (),
    tokens_per_batch: int | None = None,
) -> np.ndarray:
    """Return the log-probability that the next word after each prompt is one of `words`.

    Args:
      model: a causal language model.
      prompts: `[prompts]`, without a space at their end.
      words: each is scored with a space before it, token by token, and their probabilities are added up. A longer
        word that starts with the same tokens counts too, and once: where "cats" is " cat" and "s", what is said of
        " cat" has it already. Or a list of words for each prompt.
      steering: of the model while it reads; default none. Or a list, `[prompts]`, with one, or None, for each.
      interventions: as in `score_continuations`.
      tokens_per_batch: as in `score_continuations`.

    Returns:
      float64 `[prompts]`.

    Raises:
      TokenizationError, SelectionError, UnsupportedModelError: see `score_continuations`.
    """
    by_prompt = check_row_steerings(steering, len(prompts))
    texts = [isinstance(word, str) for word in words]
    alike = all(texts)
    if not alike and (any(texts) or len(words) != len(prompts)):
        given = "words and lists of words" if any(texts) else f"{len(words)} lists of words"
        raise TokenizationError(
            f"{given} were given for {counted(len(prompts), 'prompt')}. Give words, or a list for each prompt."
        )
    rows = []
    for place, prompt in enumerate(prompts):
        own = words if alike else words[place]
        together = {tuple(_token_ids(model.tokenizer, f"{prompt} {word}")[0]): word for word in own}
        rows += [
            (place, prompt, word)
            for ids, word in together.items()
            if not any(ids[:end] in together for end in range(1, len(ids)))
        ]
    scored = score_continuations(
        model,
        [prompt for _, prompt, _ in rows],
        [" " + word for _, _, word in rows],
        steering=steering if by_prompt is None else [by_prompt[place] for place, _, _ in rows],
        interventions=interventions,
        tokens_per_batch=tokens_per_batch,
    )
    total = np.full(len(prompts), -np.inf)
    np.logaddexp.at(total, [place for place, _, _ in rows], [row.sum(dtype=np.float64) for row in scored])
    return total


def _token_ids(tokenizer: Any, text: str) -> tuple[list[int], np.ndarray]:
    """Return as generation tokenizes a prompt, but without what the tokenizer puts after a text to close it (EOS, SEP).

    Beside the ids, bool `[tokens]`: which of them are the text's own.
    """
    encoded = tokenizer(text, return_special_tokens_mask=True, verbose=False)
    ids, own = encoded["input_ids"], np.asarray(encoded["special_tokens_mask"]) == 0
    end = len(ids)
    while end and not own[end - 1]:
        end -= 1
    return ids[:end], own[:end]


@program()
def next_log_probs(
    network: Transformer,
    params: Mapping[str, Any],
    token_ids: jax.Array,
    attention_mask: jax.Array,
    steering: LaidOut | None,
    interventions: tuple[PlacedIntervention, ...] = (),
) -> jax.Array:
    """Return what each token but the first had for a log-probability: float32 `[batch, tokens - 1]`."""
    logits, _ = run(
        network,
        params,
        token_ids,
        attention_mask,
        attention_mask,
        variables={"steering": steering},
        interventions=interventions,
    )
    return _log_probs_of_next(logits, token_ids)


@jax.jit
def _log_probs_of_next(logits: jax.Array, token_ids: jax.Array) -> jax.Array:
    logits = logits[:, :-1]
    chosen = jnp.take_along_axis(logits, token_ids[:, 1:, None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)
