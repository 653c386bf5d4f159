"""Embeddings of words and sentences from the same model, to compare with its experts."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.analysis.similarity.baselines import mean_sentence_embedding
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.experts.directions import find_directions
from expertlens_jax.experts.labelled_responses import Responses
from expertlens_jax.experts.poolings import record_poolings
from expertlens_jax.experts.response_store import ResponseStore
from expertlens_jax.experts.responses import record_responses
from expertlens_jax.models.digests import digest_json, digest_tokenizer, digest_tokens
from expertlens_jax.models.model import Model
from expertlens_jax.models.tokens import Tokens, check_token_ids, tokenize
from expertlens_jax.settings import Negatives, Recording

SITE = "resid"
EMBEDDED = ((SITE, "mean"), (SITE, "last"))
"""What `embed_concepts` reads of sentences: sites and poolings, which a store may keep beside other responses."""


def input_embeddings(model: Model, words: Sequence[str]) -> np.ndarray:
    """Return the mean of the input embeddings of each word's tokens, float32 `[words, d_model]`.

    Words are tokenized as they stand within a sentence, after a space.
    """
    tokens = _tokenize(model, _within_a_sentence(words))
    table = np.asarray(model.params["embed"]["token"], np.float32)
    return np.stack([table[ids[own]].mean(axis=0) for ids, own in zip(tokens.ids, tokens.in_pool, strict=True)])


def word_embeddings(model: Model, words: Sequence[str]) -> np.ndarray:
    """Return the word alone through the model: its tokens' mean in the last layer's residual stream.

    Returns:
      float32 `[words, d_model]`.
    """
    return sentence_embeddings(model, _within_a_sentence(words))


def sentence_embeddings(
    model: Model,
    sentences: Sequence[str],
    *,
    pooling: Literal["mean", "last"] = "mean",
    truncate: bool = False,
    tokens_per_batch: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Return the last layer's residual stream, as the mean over each sentence's tokens, or at its last token.

    It is what a causal model's final norm reads; a last token has all the sentence behind it. What the tokenizer adds
    (CLS, SEP) is no token of the sentence.

    Args:
      model: of any family.
      sentences: `[S]` texts.
      pooling: "mean" or "last".
      truncate: cut what is longer than the model's context, rather than refuse it.
      tokens_per_batch: as in `record_responses`.
      progress: shows a bar.

    Returns:
      float32 `[S, d_model]`.
    """
    responses = record_responses(
        model,
        sentences,
        sites=("resid",),
        pooling=pooling,
        truncate=truncate,
        tokens_per_batch=tokens_per_batch,
        progress=progress,
    )
    last = (responses.units["layer"] == model.config.num_layers - 1).to_numpy()
    return responses.values[:, last]


def concept_embeddings(
    model: Model,
    concepts: ConceptDataset,
    *,
    truncate: bool = False,
    tokens_per_batch: int | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Return the mean over a concept's sentences, and over their tokens, of the residual stream after each layer.

    Returns:
      float64 `[layers, concepts, d_model]`.
    """
    reading = {"truncate": truncate, "tokens_per_batch": tokens_per_batch, "progress": progress}
    return _by_layer(_mean_stream(model, concepts, **reading).values, model, concepts)


def _mean_stream(model: Model, concepts: ConceptDataset, **reading: Any) -> Responses:
    """Return the mean over a sentence's tokens of the residual stream after each layer."""
    return record_responses(model, concepts.sentences, sites=("resid",), pooling="mean", **reading)


def _by_layer(values: np.ndarray, model: Model, concepts: ConceptDataset) -> np.ndarray:
    """Means over a concept's sentences, float64 `[layers, concepts, d_model]`."""
    means = mean_sentence_embedding(values, concepts)
    return means.reshape(len(concepts.concepts), model.config.num_layers, -1).transpose(1, 0, 2)


def embed_concepts(
    model: Model,
    concepts: ConceptDataset,
    *,
    truncate: bool = False,
    tokens_per_batch: int | None = None,
    progress: bool = False,
    negatives: Negatives | None = None,
    store: ResponseStore | None = None,
) -> xr.Dataset:
    """Embed the concepts by their sentences, in the ways that are baselines of their experts.

    The sentences are read once, or not at all where a store holds what is `EMBEDDED` of them.

    Returns:
      float64 `mean` over (layer, concept, channel), see `concept_embeddings`; `last_token` over (concept, channel), the
      mean over a concept's sentences of what the last layer holds at their last token; and `direction` over (concept,
      unit), the difference of means of `find_directions`, of length 1 at each layer.
    """
    recording = Recording(truncate=truncate, tokens_per_batch=tokens_per_batch)
    (stream, last) = record_poolings(
        model,
        concepts.sentences,
        SITE,
        [pooling for _, pooling in EMBEDDED],
        recording=recording,
        store=store,
        progress=progress,
    )
    in_last_layer = (last.units["layer"] == model.config.num_layers - 1).to_numpy()
    return xr.Dataset(
        {
            "mean": (("layer", "concept", "channel"), _by_layer(stream.values, model, concepts)),
            "last_token": (
                ("concept", "channel"),
                mean_sentence_embedding(last.values[:, in_last_layer], concepts),
            ),
            "direction": (
                ("concept", "unit"),
                find_directions(stream, concepts, negatives=negatives)["direction"].values,
            ),
        }
    )


def embedding_responses(model: Model, sentences: Sequence[str], *, truncate: bool = False) -> Responses:
    """Return the responses of the channels of the input embedding.

    They are what a sentence's words say before any layer has read them.

    Args:
      model: its token embeddings are read, without positions.
      sentences: `[S]` texts.
      truncate: cut what is longer than the model's context, rather than refuse it.

    Returns:
      Responses `[S, d_model]`, max-pooled over tokens, of a site called `embed` in layer 0.
    """
    tokens = _tokenize(model, sentences, truncate=truncate)
    table = np.asarray(model.params["embed"]["token"], np.float32)
    values = np.stack([table[ids[own]].max(axis=0) for ids, own in zip(tokens.ids, tokens.in_pool, strict=True)])
    channels = np.arange(table.shape[1])
    units = pd.DataFrame(
        {"layer": 0, "site": "embed", "channel": channels, "hf_module": "input embedding", "hf_channel": channels}
    )
    provenance = dataclasses.replace(
        model.provenance,
        tokenizer=digest_tokenizer(model.tokenizer),
        sites=("embed",),
        pooling="max",
        truncate=bool(truncate),
        sentences_sha256=digest_json(list(sentences)),
        tokens_sha256=digest_tokens(tokens),
    )
    return Responses.of(values, units, model.name, sentences, provenance)


def _tokenize(model: Model, texts: Sequence[str], *, truncate: bool = False) -> Tokens:
    """Tokens that the model has an embedding for."""
    tokens = tokenize(model.tokenizer, texts, max_tokens=model.config.max_tokens, truncate=truncate)
    limits = {"vocab_size": model.config.vocab_size, "model": model.name}
    check_token_ids(tokens.ids, **limits, tokenizer=model.tokenizer, texts=texts)
    return tokens


def _within_a_sentence(words: Sequence[str]) -> list[str]:
    """Byte-level vocabularies have another token for a word after a space, which is how it mostly occurs."""
    return [" " + word for word in words]
