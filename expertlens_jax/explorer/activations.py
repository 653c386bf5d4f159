"""What a concept's best units say at each token, and how their responses are spread: read with the model itself.

Only a few units of each concept are read, over all sentences of the set: sentences go through the model in groups, and
of each unit only the sentences that are shown are kept.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.experts.tracing import pool_reached, trace
from expertlens_jax.explorer.chunks import packed, rounded
from expertlens_jax.models.model import Model
from expertlens_jax.settings import Chat

SENTENCES_PER_GROUP = 512
BINS = 24
Reader = Callable[[Sequence[str], pd.DataFrame], tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]]
"""From sentences and units to, of each sentence, spans `[tokens, 2]`, activations `[tokens, units]`, and which tokens
are its own, bool `[tokens]`. An expert's unit has NaN at tokens that aren't routed to it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Spoken:
    """What some units say: of each the sentences to show, and its responses to all."""

    responses: np.ndarray
    """float32 `[sentences, units]`, pooled as the table's were."""
    lowest: np.ndarray
    """float32 `[units]`: the least activation at any token."""
    highest: np.ndarray
    middle: np.ndarray
    """float32 `[units]`: about the median activation over tokens (of each sentence's median, the median)."""
    tokens: Mapping[int, list[str]]
    """Of each sentence that is shown, its text cut at its tokens: put together, the pieces are the sentence."""
    at_tokens: Mapping[tuple[int, int], np.ndarray]
    """By sentence and unit, float32 `[tokens]`; for those that are shown."""
    most: np.ndarray
    """int `[units, shown]`: sentences by the highest activation at a token, the highest first."""
    least: np.ndarray
    """int `[units, shown]`: sentences by the lowest activation at a token, the lowest first."""


def reader_of(model: Model, expertise: xr.Dataset) -> Reader:
    """Return what reads, with `el.trace`, as the table's responses were read."""
    truncate = bool(expertise.attrs.get("truncate", False))
    chat = Chat.of_attribute(str(expertise.attrs.get("chat", "")))

    def read(sentences: Sequence[str], units: pd.DataFrame) -> tuple[list, list, list]:
        seen = trace(model, list(sentences), units, truncate=truncate, chat=chat)
        activations = seen.activations
        if seen.reached is not None:
            activations = [np.where(*each, np.nan) for each in zip(seen.reached, activations, strict=True)]
        return seen.spans, activations, seen.in_pool

    return read


def listen(
    read: Reader,
    concepts: ConceptDataset,
    units: pd.DataFrame,
    shown: Mapping[int, Sequence[int]],
    *,
    pooling: str,
    num_shown: int,
    progress: bool = False,
) -> Spoken:
    """Read units over all sentences of a set, some sentences at a time.

    Args:
      read: see `Reader`.
      concepts: the sentences.
      units: `[units]`, a row each.
      shown: by sentence, the units (places in `units`) whose tokens are kept whatever they say.
      pooling: of a sentence's tokens: "max", "mean" or "last".
      num_shown: how many sentences to keep at which a unit says most, and least.
      progress: show a bar.
    """
    number = len(units)
    responses = np.empty((len(concepts.sentences), number), np.float32)
    medians = np.empty((len(concepts.sentences), number), np.float32)
    ends = np.empty((2, len(concepts.sentences), number), np.float32)  # least and most at a token
    extremes = [np.zeros((number, 0), np.int64)] * 2  # sentences by their least, and by minus their most
    tokens: dict[int, list[str]] = {}
    at_tokens: dict[tuple[int, int], np.ndarray] = {}
    pool = {"max": lambda x: x.max(0), "mean": lambda x: x.mean(0), "last": lambda x: x[-1]}[pooling]
    for start in tqdm(
        range(0, len(concepts.sentences), SENTENCES_PER_GROUP), desc="reading tokens", disable=not progress
    ):
        group = concepts.sentences[start : start + SENTENCES_PER_GROUP]
        read_now = list(zip(*read(group, units), strict=True))
        for i, (_, values, own) in enumerate(read_now, start):
            values = values[own]
            unheard = np.isnan(values)
            responses[i] = pool_reached(pool, values, ~unheard) if unheard.any() else pool(values)
            values = np.where(unheard, 0, values)
            medians[i] = np.median(values, axis=0)
            ends[:, i] = values.min(0), values.max(0)
        picked = {(i, unit) for i in range(start, start + len(group)) for unit in shown.get(i, ())}
        signed = (ends[0], -ends[1])
        extremes = [_lowest(each, known, start, num_shown) for each, known in zip(signed, extremes, strict=True)]
        for so_far in extremes:  # whatever a later group brings, only these of this group may be shown
            picked |= {(int(i), unit) for unit, row in enumerate(so_far) for i in row[row >= start]}
        for i, unit in sorted(picked):
            spans, values, own = read_now[i - start]
            tokens.setdefault(i, cut(concepts.sentences[i], spans[own]))
            at_tokens[i, unit] = np.nan_to_num(values[own, unit])
    least, most = extremes
    kept = {(i, u) for i, us in shown.items() for u in us}
    kept |= {(int(i), unit) for table in (least, most) for unit in range(number) for i in table[unit]}
    return Spoken(
        responses=responses,
        lowest=ends[0].min(0),
        highest=ends[1].max(0),
        middle=np.median(medians, axis=0),
        tokens={i: tokens[i] for i in sorted({i for i, _ in kept})},
        at_tokens={pair: at_tokens[pair] for pair in sorted(kept)},
        most=most,
        least=least,
    )


def _lowest(ends: np.ndarray, so_far: np.ndarray, start: int, number: int) -> np.ndarray:
    """Of each unit, the sentences with the lowest `ends [sentences, units]`: of those so far, and the group's."""
    stop = start + SENTENCES_PER_GROUP
    later = np.broadcast_to(np.arange(start, min(stop, len(ends))), (len(so_far), min(stop, len(ends)) - start))
    candidates = np.concatenate([so_far, later], axis=1)
    values = np.take_along_axis(ends.T, candidates, axis=1)
    order = np.argsort(values, axis=1, kind="stable")[:, :number]
    return np.take_along_axis(candidates, order, axis=1)


def cut(sentence: str, spans: np.ndarray) -> list[str]:
    """Return a sentence cut at its tokens; what lies between two goes to the later one, what is left to the last.

    Args:
      sentence: the text.
      spans: int `[tokens, 2]`, ascending; of tokens that share a character, the later ones are empty.
    """
    pieces, done = [], 0
    for number, (_, stop) in enumerate(spans, start=1):
        stop = len(sentence) if number == len(spans) else max(int(stop), done)
        pieces.append(sentence[done:stop])
        done = stop
    return pieces


def quantised(values: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """Return activations as uint8, 0 for the lowest and 255 for the highest."""
    width = max(float(highest) - float(lowest), 1e-12)
    return np.clip(np.round((values - lowest) / width * 255), 0, 255).astype(np.uint8)


def spoken_tokens(spoken: Spoken, sentence: int, units: Sequence[int]) -> dict[str, Any]:
    """Return a sentence with what some units say at its tokens, for the page: activations uint8 `[units, tokens]`."""
    coded = [quantised(spoken.at_tokens[sentence, unit], spoken.lowest[unit], spoken.highest[unit]) for unit in units]
    return {"sentence": int(sentence), "tokens": spoken.tokens[sentence], "activations": packed(np.stack(coded))}


def scales(spoken: Spoken, units: Sequence[int]) -> list[list[float | None]]:
    """Return, of each unit, its lowest, middle and highest activation at a token."""
    return [rounded([spoken.lowest[unit], spoken.middle[unit], spoken.highest[unit]], 6) for unit in units]


def histogram(responses: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> dict[str, Any]:
    """Return how a unit's responses to a concept's positives and negatives are spread, over the same bins.

    Args:
      responses: float32 `[sentences]`.
      positive, negative: bool `[sentences]`.
    """
    both = responses[positive | negative]
    edges = np.linspace(both.min(), max(both.max(), both.min() + 1e-6), BINS + 1)
    return {
        "edges": rounded(edges),
        "positive": np.histogram(responses[positive], edges)[0].tolist(),
        "negative": np.histogram(responses[negative], edges)[0].tolist(),
    }
