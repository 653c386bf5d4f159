"""Prompts of a generation: from texts, conversations or token ids to rows of tokens, and from new tokens to text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expertlens_jax.cards import counted
from expertlens_jax.errors import SettingError, TokenizationError
from expertlens_jax.models.chat import Message, conversation_ids, is_conversation, messages_of
from expertlens_jax.models.model import Model
from expertlens_jax.models.tokens import check_token_ids, warn_of_doubles
from expertlens_jax.settings import Chat

Prompt = str | Sequence[int] | np.ndarray | Sequence[Message]
"""A text, its token ids, or a conversation."""


def as_conversations(
    model: Model, prompts: Sequence[Any], chat: Chat | None
) -> tuple[tuple[str | np.ndarray, ...], bool]:
    """Return prompts with each conversation as its token ids, and whether there is any.

    Args:
      model: has the tokenizer, whose template writes conversations.
      prompts: texts, conversations and token ids, as `each_prompt` gives them.
      chat: the conversation that each text stands in; None for plain text.

    Raises:
      SettingError: `chat` beside a conversation.
      TokenizationError: a conversation that the template can't write.
    """
    written, any_chat = [], False
    for prompt in prompts:
        talks = is_conversation(prompt)
        if talks and chat is not None:
            raise SettingError(
                f"chat={chat!r} was given beside a conversation, which says by itself who speaks. Give one of them."
            )
        turns = None
        if talks:
            turns = list(prompt)
        elif isinstance(prompt, str) and chat is not None:
            turns = messages_of(prompt, chat)
        any_chat |= turns is not None
        written.append(prompt if turns is None else np.asarray(conversation_ids(model.tokenizer, turns), np.int64))
    return tuple(written), any_chat


def each_prompt(prompts: Any) -> tuple[Any, ...]:
    """Return prompts one by one: texts, conversations, and token ids as int64 `[tokens]`.

    Raises:
      TokenizationError: what is given is none of these.
    """
    if isinstance(prompts, str) or is_conversation(prompts):
        return (prompts,)
    if isinstance(prompts, Mapping):
        raise TokenizationError(
            f"a mapping with {', '.join(map(str, prompts))} was given for prompts. Give the ids it holds: "
            'generate(model, encoded["input_ids"]).'
        )
    prompts = list(prompts)
    if prompts and all(np.ndim(each) == 0 and not isinstance(each, str) for each in prompts):
        prompts = [prompts]  # one prompt's ids
    return tuple(
        each if isinstance(each, str) or is_conversation(each) else _prompt_ids(number, each)
        for number, each in enumerate(prompts)
    )


def _prompt_ids(number: int, prompt: Any) -> np.ndarray:
    """Return a prompt's ids as an array; an empty list has no type of its own."""
    ids = np.asarray(prompt)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise TokenizationError(
            f"prompt {number} is neither a text nor the token ids of one: {ids.dtype} of shape {list(ids.shape)} was "
            "given, and ids are integers, [tokens]."
        )
    return ids.astype(np.int64)


def tokenize_prompts(model: Model, prompts: Sequence[str | np.ndarray], max_new_tokens: int) -> list[np.ndarray]:
    """Return the token ids of each prompt, int32 `[tokens]`, that leave room for the new tokens.

    Raises:
      TokenizationError: no prompts, one without a token, too long a one, or a token without an embedding.

    Warns:
      ExpertLensWarning: a text begins or ends with what the tokenizer adds too.
    """
    if not prompts:
        raise TokenizationError("no prompts were given; give one or more.")
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    encoded = {"input_ids": [], "special_tokens_mask": []}
    if texts:
        encoded = model.tokenizer(
            texts, padding=False, truncation=False, return_special_tokens_mask=True, verbose=False
        )
    own = [np.asarray(mask) == 0 for mask in encoded["special_tokens_mask"]]
    remedy = "Take it off the text, or give its token ids: model.tokenizer(text, add_special_tokens=False)"
    warn_of_doubles(model.tokenizer, texts, [np.asarray(ids) for ids in encoded["input_ids"]], own, remedy)
    of_texts = iter(encoded["input_ids"])
    prompt_ids = [np.asarray(next(of_texts) if isinstance(prompt, str) else prompt) for prompt in prompts]
    check_token_ids(
        prompt_ids,
        vocab_size=model.config.vocab_size,
        model=model.name,
        tokenizer=model.tokenizer,
        texts=[prompt if isinstance(prompt, str) else f"ids {prompt.tolist()}" for prompt in prompts],
    )
    prompt_ids = [ids.astype(np.int32) for ids in prompt_ids]
    lengths = np.array([len(ids) for ids in prompt_ids])
    if not lengths.all():
        empty = int(lengths.argmin())
        text = model.tokenizer.bos_token or model.tokenizer.eos_token
        start = f"such as {text!r}, which stands between texts" if text else "any word"
        raise TokenizationError(
            f"prompt {empty} is {prompts[empty]!r}, without a single token, and this "
            f"tokenizer puts none before a text (BOS). The model needs one to start from, {start}."
        )
    room = model.config.max_tokens - int(lengths.max())
    if room < max_new_tokens:
        raise TokenizationError(
            f"prompt {lengths.argmax()} has {counted(lengths.max(), 'token')}; with max_new_tokens={max_new_tokens} "
            f"it is {max_new_tokens - room} more than {model.name}'s context of {model.config.max_tokens}. "
            + (f"Shorten it, or ask for at most {counted(room, 'new token')}." if room > 0 else "Shorten it.")
        )
    return prompt_ids


def pad_left(prompt_ids: Sequence[np.ndarray], prompt_slots: int, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a request's prompts, int32 `[rows, prompt_slots]`, and mask, bool `[rows, slots]`."""
    token_ids = np.zeros((len(prompt_ids), prompt_slots), np.int32)
    mask = np.ones((len(prompt_ids), slots), bool)
    for i, ids in enumerate(prompt_ids):
        token_ids[i, prompt_slots - len(ids) :] = ids
        mask[i, : prompt_slots - len(ids)] = False
    return token_ids, mask


def continuation(
    tokenizer: Any, prompt_ids: np.ndarray, token_ids: np.ndarray, end_ids: np.ndarray | Sequence[int] = ()
) -> str:
    """Return the text that tokens add to a prompt's, without special ones and the one that ends it.

    Both are decoded together, since a tokenizer may drop the space before the first word of what it is given.
    """
    if len(token_ids) and token_ids[-1] in end_ids:
        token_ids = token_ids[:-1]

    def text(ids: np.ndarray) -> str:
        return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    return text(np.concatenate([prompt_ids, token_ids]))[len(text(prompt_ids)) :]
