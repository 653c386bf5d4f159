"""Generates text: the prompts fill a cache of keys and values, then every row grows by a token at a time.

Prompts are padded on the left, so that all rows' next tokens go into the same slot of the cache. Rows and
slots are rounded up to few sizes, so that other prompts, seeds or temperatures compile nothing new.
"""

import dataclasses
import functools
import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from expertlens_jax import parallel
from expertlens_jax.cards import counted, shortened
from expertlens_jax.errors import SelectionError
from expertlens_jax.models.causal import check_predicts
from expertlens_jax.models.chat import end_of_turn
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.decoding import Request, State, decode, prefill, refill, start_state, step
from expertlens_jax.models.interventions import Intervention
from expertlens_jax.models.model import Model
from expertlens_jax.models.placed_steering import LaidOut
from expertlens_jax.models.prompts import (
    Prompt,
    as_conversations,
    continuation,
    each_prompt,
    pad_left,
    tokenize_prompts,
)
from expertlens_jax.models.sampling import Sampling
from expertlens_jax.models.steering import Steering
from expertlens_jax.models.tokens import bucket_lengths
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.models.when import ReadText
from expertlens_jax.settings import Chat, check_chat

_WHOLE, _ROWS = 5, 20
"""Up to so many texts are shown whole; of more, so many and shortened."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Generations:
    """Prompts and how a model continued them; prints as text.

    >>> import expertlens_jax as el
    >>> model = el.load_model("lenslet-2m")
    >>> written = el.generate(model, ["The dog", "The cat"], max_new_tokens=4, temperature=0)
    >>> written.prompts, [len(ids) for ids in written.token_ids]
    (('The dog', 'The cat'), [4, 4])
    """

    prompts: tuple[str, ...]
    """`[prompts]`, as given; the text of those given as token ids."""
    texts: tuple[str, ...]
    """`[prompts]` continuations, without the prompt and without special tokens."""
    token_ids: tuple[np.ndarray, ...]
    """int32 `[new tokens]` a prompt; ends with an end token where one was reached."""
    log_probs: tuple[np.ndarray, ...]
    """float32 `[new tokens]` a prompt: natural log of the probability that the model, steered if it is, gives
    each token, before temperature, top-k and top-p."""

    def __repr__(self) -> str:
        whole = len(self.prompts) <= _WHOLE
        rows = [f"{prompt} ▸{text}" for prompt, text in zip(self.prompts, self.texts, strict=True)]
        shown = rows if whole else [shortened(row, 200) for row in rows[:_ROWS]]
        lines = [row.replace("\n", "\n    ") for row in shown]
        return "\n".join(lines if whole else [*lines, self._more])

    @property
    def _more(self) -> str:
        left = len(self.prompts) - _ROWS
        cut = f"{counted(left, 'more text')}; " if left > 0 else ""
        return f"... {cut}whole in .texts"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<li style="white-space:pre-wrap"><span style="opacity:0.6">{html.escape(prompt)}</span>'
            f"<b>{html.escape(text if len(self.prompts) <= _WHOLE else shortened(text, 400))}</b></li>"
            for prompt, text in zip(self.prompts[:_ROWS], self.texts[:_ROWS], strict=True)
        )
        more = "" if len(self.prompts) <= _WHOLE else f"<p><i>{html.escape(self._more)}</i></p>"
        return f'<div><ol style="padding-left:1.5em">{rows}</ol>{more}</div>'


def generate(
    model: Model,
    prompts: Prompt | Sequence[Prompt],
    *,
    chat: Chat | bool | None = None,
    max_new_tokens: int = 32,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    draws: Sequence[int] | np.ndarray | None = None,
    steering: Steering | Sequence[Steering | None] | None = None,
    interventions: Sequence[Intervention] | Intervention = (),
    on_token: Callable[[int, int, str], None] | None = None,
    tokens_per_batch: int = 16384,
) -> Generations:
    """Continue each prompt until a token that ends texts (`Model.end_ids`), or by `max_new_tokens`.

    Chat models answer conversations, by the template that their tokenizer has, up to the end of their turn:

        el.generate(model, "Tell me of the sea.", chat=True)  # or chat=el.Chat(system="Answer as a sailor.")
        el.generate(model, [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello, I"}])

    Of the text of a template the model would see two BOS, since the tokenizer adds one: give a conversation, or ids.

    Each draw's key is folded from the seed, the prompt's place among the prompts (or its number among `draws`), and the
    token's place in the continuation. So a text depends neither on the other prompts nor on the number of devices that
    share the rows: up to rounding, and except for rotary scalings that go by a batch's longest row, as in transformers
    (dynamic NTK, LongRoPE).

    Several steerings share batches, each writing what it would write by itself:

        el.generate(model, prompts * 2, steering=[cat] * len(prompts) + [dog] * len(prompts),
                    draws=[*range(len(prompts))] * 2)

    Args:
      model: a causal language model.
      prompts: `[prompts]` texts, or one, tokenized as the tokenizer does by default; or token ids, int `[tokens]` a
        prompt, taken as they are; or conversations, `{"role": ..., "content": ...}` a turn. One whose last turn is the
        assistant's goes on with that turn, others with a new one.
      chat: True, or `el.Chat`: texts are what the user says in a conversation, or with `turn="assistant"` the beginning
        of the answer.
      max_new_tokens: the most tokens to add to a prompt.
      temperature: what logits are divided by. At 0 the most probable token is always taken (greedy), and
        `top_k`, `top_p` and `seed` change nothing.
      top_k: draw only from the `top_k` most probable tokens.
      top_p: draw only from the most probable tokens that together reach this probability, see `keep_top_p`.
      seed: of the draws.
      draws: int `[prompts]`, from 0: which draws each prompt is given; those with the same number are given the same.
        Default its place among the prompts.
      steering: from `el.steer` or `el.steer_units`; applies to the tokens of the prompt and the generated ones alike,
        unless its `when` says otherwise: `el.When(part="continuation")`. Or a list, `[prompts]`, with one, or None, for
        each.
      interventions: from `el.intervene`, applied after the steering. A function sees a batch's prompts at once, padded
        on the left, and then one token of each row at a time; `at.positions` counts on.
      on_token: called with `(row, token_id, text)` for every token as soon as it is known. A row's texts, put
        together, are its continuation; a character that takes several tokens comes with the last of them.
      tokens_per_batch: about how many tokens, padding included, the cache holds; more prompts than fit are
        continued one batch after the other.

    Raises:
      SelectionError: an option out of its range, another model's steering, steerings or draws of another number than
        prompts, or an intervention that doesn't fit.
      SettingError: `chat` is no chat, or is given beside conversations, which say all of it.
      TokenizationError: a conversation that the tokenizer's template can't write; an empty prompt, one that with
        `max_new_tokens` exceeds the model's context, or one with a token that the model has no embedding for.
      UnsupportedModelError: the model is an encoder.

    Warns:
      ExpertLensWarning: a prompt's text begins with the BOS, or ends with the EOS, that the tokenizer adds too.

    >>> import expertlens_jax as el
    >>> model = el.load_model("lenslet-2m")
    >>> written = el.generate(model, ["The dog", "The cat"], max_new_tokens=4, temperature=0)
    >>> print(written)
    The dog ▸ had been a little
    The cat ▸hedral, and
    """
    _check_options(model, max_new_tokens, temperature, top_k, top_p)
    prompts, chats = as_conversations(model, each_prompt(prompts), check_chat(chat))
    prompt_ids = tokenize_prompts(model, prompts, max_new_tokens)
    draw_of = _check_draws(draws, len(prompts))
    lengths = [len(ids) for ids in prompt_ids]
    text = ReadText(model.tokenizer, prompt_ids, lengths, goes_on=True, texts=prompts)
    placed = model.place_rows(steering, len(prompts), text)
    mesh, params = parallel.place(model.params)
    prompt_slots = _bucket(max(lengths))
    slots = _bucket(prompt_slots + max_new_tokens)
    network = Transformer(model.config, dtype=jnp.dtype(model.dtype), keeps=True)
    ends: list[int | None] = [model.tokenizer.eos_token_id] if model.end_ids is None else [*model.end_ids]
    ends += [end_of_turn(model.tokenizer)] if chats else []
    end_ids = np.array([end for end in ends if end is not None], np.int32)
    sampling = Sampling(
        key=jax.random.key(seed),
        temperature=temperature or None,
        top_p=top_p,
        top_k=None if top_k is None else min(top_k, model.config.vocab_size),
    )

    generated: list[tuple[np.ndarray, np.ndarray]] = []
    num_rows = _num_rows(len(prompts), tokens_per_batch // slots, mesh.shape[parallel.DATA])
    seen = [(num_rows, prompt_slots), (num_rows, 1)]  # what a call of an intervention's function is given
    acting = model.place_interventions(interventions, seen, mesh)
    for start in range(0, len(prompts), num_rows):
        batch = prompt_ids[start : start + num_rows]
        rows = np.minimum(start + np.arange(num_rows), len(prompts) - 1)  # fillers repeat the last prompt
        token_ids, mask = parallel.split_rows(pad_left([prompt_ids[row] for row in rows], prompt_slots, slots), mesh)
        real = parallel.split_rows(np.arange(num_rows) < len(batch), mesh)
        numbers, of_row = np.unique(draw_of[rows], return_inverse=True)
        if len(numbers) >= len(batch):
            numbers, of_row = parallel.split_rows(draw_of[rows], mesh), None
        else:
            of_row = parallel.split_rows(of_row.astype(np.int32), mesh)
        request = Request(numbers, token_ids, mask, end_ids, sampling, acting, of_row)
        run = network, params, placed.of(rows, prompt_slots), request
        state = prefill(*run, start_state(real, slots - prompt_slots))
        refill_at = _refill_at(model.config, max(len(ids) for ids in batch), max_new_tokens)
        if on_token is not None:
            text_of = functools.partial(continuation, model.tokenizer, end_ids=end_ids)
            state = _stream(run, state, refill_at, max_new_tokens, text_of, batch, start, on_token)
        else:
            if refill_at is not None:
                state = refill(*run, decode(*run, state, refill_at), refill_at)
            state = decode(*run, state, max_new_tokens)
        lengths = np.asarray(state.lengths)
        ids, log_probs = np.asarray(state.token_ids), np.asarray(state.log_probs)
        generated += [(ids[i, : lengths[i]], log_probs[i, : lengths[i]]) for i in range(len(batch))]
    texts = tuple(
        continuation(model.tokenizer, prompt, ids, end_ids)
        for prompt, (ids, _) in zip(prompt_ids, generated, strict=True)
    )
    shown = tuple(prompt if isinstance(prompt, str) else model.tokenizer.decode(prompt) for prompt in prompts)
    return Generations(shown, texts, *zip(*generated, strict=True))


def _stream(
    run: tuple[Transformer, Mapping[str, Any], LaidOut | None, Request],
    state: State,
    refill_at: int | None,
    max_new_tokens: int,
    text_of: Callable[[np.ndarray, np.ndarray], str],
    prompt_ids: Sequence[np.ndarray],
    first_row: int,
    on_token: Callable[[int, int, str], None],
) -> State:
    """`decode` step by step, telling every row's tokens and text to `on_token` on the way."""
    told = np.zeros(len(prompt_ids), int)  # characters of each row
    going = np.ones(len(prompt_ids), bool)
    while True:
        # Copies, since the state's buffers are given away to the next step.
        token_ids = np.array(state.token_ids)[:, : int(state.steps)]
        last = np.array(state.done)[: len(going)] | (token_ids.shape[1] == max_new_tokens)
        for i in np.flatnonzero(going):
            text = text_of(prompt_ids[i], token_ids[i])[told[i] :]
            if text.endswith("\ufffd") and not last[i]:
                text = ""  # some bytes of a character, the others to come
            told[i] += len(text)
            on_token(first_row + int(i), int(token_ids[i, -1]), text)
        going &= ~last
        if not going.any():
            return state
        state = refill(*run, state, refill_at) if state.steps == refill_at else step(*run, state)


def _check_options(
    model: Model, max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None
) -> None:
    """Refuses encoders and options out of their range."""
    check_predicts(model, "and predicts no next token", "Generate with a causal language model.")
    if max_new_tokens < 1:
        raise SelectionError(f"max_new_tokens is {max_new_tokens}; it should be at least 1.")
    if not 0 <= temperature < math.inf:
        raise SelectionError(
            f"temperature is {temperature}; it should be a finite number above 0, or 0 for greedy decoding."
        )
    if top_k is not None and top_k < 1:
        raise SelectionError(f"top_k is {top_k}; it should be at least 1, or None to draw from all tokens.")
    if top_p is not None and not 0 < top_p <= 1:
        raise SelectionError(f"top_p is {top_p}; it should be above 0 and at most 1, or None to draw from all tokens.")


def _check_draws(draws: Sequence[int] | np.ndarray | None, num_prompts: int) -> np.ndarray:
    """Return the number of each prompt's draws, int32 `[prompts]`."""
    if draws is None:
        return np.arange(num_prompts, dtype=np.int32)
    given = np.asarray(draws)
    if given.shape != (num_prompts,):
        raise SelectionError(
            f"draws has shape {list(given.shape)}; wanted a number for each of {num_prompts} prompts, [{num_prompts}]."
        )
    if given.dtype.kind not in "iu" or (given < 0).any() or (given > np.iinfo(np.int32).max).any():
        raise SelectionError(
            f"draws holds {given.dtype} such as {given.min()}; wanted whole numbers from 0 to {np.iinfo(np.int32).max}."
        )
    return given.astype(np.int32)


def _refill_at(config: TransformerConfig, longest: int, max_new_tokens: int) -> int | None:
    """After how many new tokens the cache must be made anew, if ever.

    Beyond the original context LongRoPE turns by other frequencies, earlier tokens' keys too. So these are
    computed again once the batch's longest row gets there, as transformers does.
    """
    if config.rotary is None or config.rotary.scaling != "longrope":
        return None
    count = config.rotary.original_max_tokens + 1 - longest
    return count if 0 < count < max_new_tokens else None


def _bucket(length: int) -> int:
    return int(bucket_lengths(np.array(length)))


def _num_rows(wanted: int, most: int, multiple: int) -> int:
    """Rows of a batch: 1, 2, 4, 8, from there four sizes an octave; or as many as fit; a multiple of the devices."""
    power = 1 << (wanted - 1).bit_length()
    grain = power if power <= 8 else power // 8
    rounded = -(-wanted // grain) * grain
    return min(-(-rounded // multiple), max(most // multiple, 1)) * multiple
