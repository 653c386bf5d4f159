"""What detectors read of sentences: from a model, or from a user's own function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from expertlens_jax import parallel
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import ResponsesError
from expertlens_jax.experts.responses import prepare_recording, record_responses
from expertlens_jax.models.model import Model, capture
from expertlens_jax.models.taps import Taps
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.settings import Recording

Read = Callable[[Sequence[str], Sequence[str]], Mapping[str, np.ndarray]]
"""`read(sentences, readings)` returns an array for each of `readings`, see `detectors.READINGS`."""
MOST_LAYERS = 4  # of the stream, which is held at every token


def read_model(
    model: Model,
    sentences: Sequence[str],
    readings: Sequence[str],
    *,
    recording: Recording | None = None,
    embedder: Model | None = None,
    progress: bool = False,
) -> dict[str, np.ndarray]:
    """Return what a model says of sentences, as detectors read it.

    "units" are pooled over tokens, by maximum unless the recording says otherwise, and so are features of an "sae".
    "stream" is the residual stream at every token of the sentence, after each of at most four layers, evenly spaced,
    side by side: `[sentences, tokens, channels]`. "embedding" is the mean over tokens of the last layer's stream.
    These two are never rounded, whatever the recording's `significant_bits`.

    Args:
      model: from `load_model`.
      sentences: `[S]` texts.
      readings: of "units", "stream", "embedding" and "sae".
      recording: how sentences are read, and which sites' units.
      embedder: whose embedding it is; None for the model's own.
      progress: show bars.
    """
    recording = recording or Recording()
    found = {}
    if "units" in readings:
        found["units"] = record_responses(model, sentences, recording=recording, progress=progress).values
    if "stream" in readings:
        found["stream"] = read_stream(model, sentences, dataclasses.replace(recording, sites="resid"))
    if "sae" in readings:
        features = dataclasses.replace(recording, sites="sae")
        found["sae"] = record_responses(model, sentences, recording=features, progress=progress).values
    if "embedding" in readings and embedder is None and "stream" in found:
        found["embedding"] = np.nanmean(found["stream"][:, :, -model.config.d_model :], axis=1)
    elif "embedding" in readings:
        other = embedder or model
        means = dataclasses.replace(recording, sites="resid", pooling="mean", significant_bits=None)
        if embedder is not None:
            means = dataclasses.replace(means, chat=None)
        stream = record_responses(other, sentences, recording=means, progress=progress)
        found["embedding"] = stream.values[:, stream["layer"].values == other.config.num_layers - 1]
    return found


def read_stream(model: Model, sentences: Sequence[str], recording: Recording) -> np.ndarray:
    """Return the residual stream at each of a sentence's own tokens, float32 `[sentences, tokens, channels]`.

    Channels are those of at most four layers, evenly spaced up to the last. There is NaN beyond a sentence's tokens.
    """
    prepared = prepare_recording(model, sentences, recording)
    network = Transformer(model.config, Taps(captured=("resid",)), jnp.dtype(model.dtype), mesh=prepared.network.mesh)
    count = model.config.num_layers
    layers = np.unique(np.linspace(0, count - 1, min(count, MOST_LAYERS)).round().astype(int))
    longest = max(int(own.sum()) for own in prepared.tokens.in_pool)
    stream = np.full((len(sentences), longest, len(layers) * model.config.d_model), np.nan, np.float32)
    for batch in prepared.batches():
        arrays = parallel.split_rows((batch.token_ids, batch.attention_mask), prepared.mesh)
        (captured,) = capture(network, prepared.params, *arrays, None)  # [layers, batch, tokens, channels]
        values = np.asarray(captured[layers], np.float32).transpose(1, 2, 0, 3)
        for row, by_token, own in zip(batch.rows, values, np.asarray(batch.pool_mask), strict=False):
            stream[row, : own.sum()] = by_token[own].reshape(own.sum(), -1)
    return stream


def read_all(read: Read, sentences: Sequence[str], readings: Sequence[str]) -> dict[str, np.ndarray]:
    """Return each of the readings, text among them, checked.

    Raises:
      ResponsesError: `read` lacks one, or it has other rows than sentences, or isn't finite.
    """
    numeric = tuple(name for name in readings if name != "sentences")
    found = dict(read(tuple(sentences), numeric)) if numeric else {}
    for name in numeric:
        if name not in found:
            raise ResponsesError(f"read(sentences, {numeric}) returned {', '.join(found) or 'nothing'}, and no {name}.")
        values = found[name] = np.asarray(found[name], np.float32)
        axes = ("tokens", "channels") if name == "stream" else ("channels",)
        real = values if name != "stream" or values.ndim != 3 else values[~np.isnan(values).all(axis=2)]
        lacking = name == "stream" and values.ndim == 3 and np.isnan(values).all(axis=(1, 2)).any()
        if values.ndim != 1 + len(axes) or len(values) != len(sentences) or not np.isfinite(real).all() or lacking:
            raise ResponsesError(
                f"what was read as {name!r} has shape {list(values.shape)}; wanted [{len(sentences)}, "
                f"{', '.join(axes)}], finite, a row for each sentence"
                f"{', and NaN where a sentence has no more tokens' if name == 'stream' else ''}."
            )
    text = {"sentences": np.array(sentences, dtype=object)} if "sentences" in readings else {}
    return {name: found[name] for name in numeric} | text


def read_once(model: Model, datasets: Sequence[ConceptDataset], **reading: Any) -> Read:
    """Return a function that reads any of these sets' sentences, and runs the model on each of them once.

    Args:
      model: that is read.
      datasets: all that will be read.
      **reading: of `read_model`.
    """
    sentences = tuple(dict.fromkeys(sentence for each in datasets for sentence in each.sentences))
    row_of = {sentence: row for row, sentence in enumerate(sentences)}
    kept: dict[str, np.ndarray] = {}

    def read(wanted: Sequence[str], readings: Sequence[str]) -> dict[str, np.ndarray]:
        new = [name for name in readings if name not in kept]
        if new:
            kept.update(read_model(model, sentences, new, **reading))
        rows = np.array([row_of[sentence] for sentence in wanted])
        return {name: kept[name][rows] for name in readings}

    return read
