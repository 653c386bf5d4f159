"""Embeddings of words and sentences from the same model, to hold against its experts."""

from collections.abc import Sequence

import numpy as np

from expertlens_jax.experts.responses import record_responses
from expertlens_jax.models.model import Model
from expertlens_jax.models.tokens import tokenize


def input_embeddings(model: Model, words: Sequence[str]) -> np.ndarray:
    """Mean of the input embeddings of each word's tokens, float32 `[words, d_model]`.

    Words are tokenized as they stand within a sentence, after a space.
    """
    tokens = tokenize(model.tokenizer, _within_a_sentence(words), max_tokens=model.config.max_tokens)
    table = np.asarray(model.params["embed"]["token"], np.float32)
    return np.stack([table[ids[own]].mean(axis=0) for ids, own in zip(tokens.ids, tokens.in_pool, strict=True)])


def word_embeddings(model: Model, words: Sequence[str]) -> np.ndarray:
    """The word alone through the model: its tokens' mean in the last layer's residual stream.

    Returns:
      float32 `[words, d_model]`.
    """
    return sentence_embeddings(model, _within_a_sentence(words))


def sentence_embeddings(model: Model, sentences: Sequence[str], *, progress: bool = False) -> np.ndarray:
    """Mean over each sentence's tokens of the last layer's residual stream, float32 `[sentences, d_model]`."""
    responses = record_responses(model, sentences, sites=("resid",), pooling="mean", progress=progress)
    last = (responses.units["layer"] == model.config.num_layers - 1).to_numpy()
    return responses.values[:, last]


def _within_a_sentence(words: Sequence[str]) -> list[str]:
    """Byte-level vocabularies have another token for a word after a space, which is how it mostly occurs."""
    return [" " + word for word in words]
