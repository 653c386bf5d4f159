"""What a token says, for people: in its sentence, or by itself."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers.convert_slow_tokenizer import bytes_to_unicode


def texts_in_sentence(
    tokenizer: Any, sentence: str, token_ids: np.ndarray, own: np.ndarray, spans: np.ndarray
) -> list[str]:
    """Return the text of each token of a sentence, so that the sentence's own tokens put together read as it does.

    A token's text is the sentence's own up to the token's end, with the white space before it, whatever the tokenizer
    makes of case and spaces. What the tokenizer adds, and a part of a character, is as `text_of_token` says.

    Args:
      tokenizer: the model's.
      sentence: the text.
      token_ids: int `[tokens]`.
      own: bool `[tokens]`: False for what the tokenizer adds.
      spans: int `[tokens, 2]`: from which character up to which.
    """
    texts, end = [], 0
    for place, (token_id, (start, stop)) in enumerate(zip(token_ids, spans, strict=True)):
        is_part = any(
            0 <= other < len(spans) and own[other] and start < spans[other, 1] and spans[other, 0] < stop
            for other in (place - 1, place + 1)
        )
        if not own[place] or start == stop or is_part:
            texts.append(text_of_token(tokenizer, int(token_id)))
        else:
            before = sentence[end:start]
            texts.append((before if before.isspace() else "") + sentence[start:stop])
        if own[place]:
            end = max(end, int(stop))
    return texts


def text_of_token(tokenizer: Any, token_id: int) -> str:
    """Return a token of the vocabulary as text: with its leading space, and bytes that are no character as `\\xf0`."""
    token = tokenizer.convert_ids_to_tokens(token_id)
    if token is None:
        return f"<token {token_id}>"
    codes = _bytes_of_letters()
    if is_byte_level(tokenizer) and all(letter in codes for letter in token):
        return bytes(codes[letter] for letter in token).decode("utf-8", "backslashreplace")
    return token.replace("▁", " ")  # SentencePiece's mark of a space


def texts_of_tokens(tokenizer: Any, token_ids: Sequence[int]) -> list[str]:
    """Return `text_of_token` of each."""
    return [text_of_token(tokenizer, int(token_id)) for token_id in token_ids]


def is_byte_level(tokenizer: Any) -> bool:
    """Return whether a tokenizer's tokens are bytes, written as letters (GPT-2's way)."""
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    return decoder is not None and "ByteLevel" in str(decoder)


@functools.cache
def _bytes_of_letters() -> dict[str, int]:
    return {letter: byte for byte, letter in bytes_to_unicode().items()}
