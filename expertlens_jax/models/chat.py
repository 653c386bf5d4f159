"""Conversations: a sentence as a turn of one, as the model's own chat template writes it, and where it stands there."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from expertlens_jax.errors import TokenizationError
from expertlens_jax.settings import Chat

_MARKS = "\ue000a\ue001", "\ue000b\ue001"
"""Texts that no template holds (letters of private use), to find where it puts what it is given."""

Message = Mapping[str, Any]
"""`{"role": "user", "content": "Hello."}`, as transformers has it."""


@dataclasses.dataclass(frozen=True)
class Content:
    """Where a sentence stands in the text of its conversation."""

    start: int
    stop: int
    cut: int
    """How many characters of white space the template took off the sentence's beginning."""


def messages_of(sentence: str, chat: Chat) -> list[Message]:
    """Return the conversation that a sentence is the last turn of."""
    before = [("system", chat.system)] * bool(chat.system) + [("user", chat.asked)] * (chat.turn == "assistant")
    return [{"role": role, "content": text} for role, text in (*before, (chat.turn, sentence))]


def in_conversation(tokenizer: Any, sentences: Sequence[str], chat: Chat) -> tuple[list[str], list[Content]]:
    """Write each sentence as a turn of a conversation.

    The template is asked once for a mark in the sentence's place: what it writes before and after it, it writes before
    and after each sentence, which is checked. So a sentence is found even if its words are in the template too.

    Args:
      tokenizer: has a chat template.
      sentences: `[S]` texts.
      chat: whose turn they are, and what stands before.

    Returns:
      The text of each conversation, and where in it the sentence is.

    Raises:
      TokenizationError: the tokenizer has no chat template; the template refuses the conversation, as some do with a
        system prompt; or it writes a sentence otherwise than it was given.
    """
    written = render(tokenizer, messages_of(_MARKS[0], chat))
    before, mark, after = written.partition(_MARKS[0])
    if not mark:
        raise TokenizationError(
            f"the chat template of {_name(tokenizer)} doesn't write what the {chat.turn} says, but {written[:200]!r}. "
            'Choose another turn, el.Chat(turn="user"), or mend the template.'
        )
    texts, contents = [], []
    for number, sentence in enumerate(sentences):
        text = render(tokenizer, messages_of(sentence, chat))
        inner = text[len(before) : len(text) - len(after)]
        fits = text.startswith(before) and text.endswith(after) and len(text) >= len(before) + len(after)
        cut = len(sentence) - len(sentence.lstrip())
        if not fits or inner not in (sentence, sentence.strip()):
            raise TokenizationError(
                f"the chat template of {_name(tokenizer)} writes sentence {number}, {sentence[:80]!r}, otherwise than "
                f"it is given: {text[:200]!r}. Leave the sentence out, or mend the template."
            )
        texts.append(text)
        contents.append(Content(len(before), len(before) + len(inner), 0 if inner == sentence else cut))
    return texts, contents


def render(tokenizer: Any, messages: Sequence[Message], *, answer: bool = False) -> str:
    """Return a conversation as the template writes it.

    Args:
      tokenizer: has a chat template.
      messages: the turns.
      answer: end where the assistant's words go on: with the beginning of its turn, or, if the last turn is its own,
        without the end of that.

    Raises:
      TokenizationError: see `in_conversation`.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise TokenizationError(
            f"{_name(tokenizer)} has no chat template, so it can't write a conversation: base models have none. Leave "
            "chat out, load the model's instruction-tuned sibling, or set model.tokenizer.chat_template."
        )
    goes_on = answer and bool(messages) and messages[-1].get("role") == "assistant"
    try:
        return tokenizer.apply_chat_template(
            list(messages),
            tokenize=False,
            add_generation_prompt=answer and not goes_on,
            continue_final_message=goes_on,
        )
    except (jinja2.TemplateError, ValueError, KeyError, TypeError) as error:
        roles = ", ".join(str(each.get("role")) for each in messages)
        raise TokenizationError(
            f"the chat template of {_name(tokenizer)} refuses a conversation of {roles}: "
            f"{type(error).__name__}: {error}. Give roles that it knows, in its order; a system prompt that it doesn't "
            "take can stand at the beginning of the user's turn."
        ) from error


def conversation_ids(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return the token ids of a conversation up to where the assistant's words go on."""
    return tokenizer(render(tokenizer, messages, answer=True), add_special_tokens=False, verbose=False)["input_ids"]


def end_of_turn(tokenizer: Any) -> int | None:
    """Return the token that the template writes after an answer, as `<|im_end|>`; None if that isn't a special token.

    Raises:
      TokenizationError: see `in_conversation`.
    """
    turns = [{"role": "user", "content": _MARKS[0]}, {"role": "assistant", "content": _MARKS[1]}]
    after = render(tokenizer, turns).rpartition(_MARKS[1])[2]
    ids = tokenizer(after, add_special_tokens=False, verbose=False)["input_ids"]
    special = {place for place, token in tokenizer.added_tokens_decoder.items() if token.special}
    return next((int(each) for each in ids[:1] if each in special), None)


def is_conversation(prompt: Any) -> bool:
    """Return whether a prompt is a sequence of messages."""
    return (
        isinstance(prompt, Sequence)
        and not isinstance(prompt, str)
        and len(prompt) > 0
        and all(isinstance(each, Mapping) for each in prompt)
    )


def _name(tokenizer: Any) -> str:
    return getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
