"""The ways of comparing concepts, side by side: ExpertLens' own, embeddings of the same model, and controls."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from etils import epath

from expertlens_jax.analysis.similarity import embeddings
from expertlens_jax.analysis.similarity.baselines import (
    cosine_of_embeddings,
    mean_sentence_embedding,
    tfidf_similarity,
)
from expertlens_jax.analysis.similarity.word_vectors import word_vector_similarity
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.overlap import OVERLAPS, overlap
from expertlens_jax.experts.selection import select_experts
from expertlens_jax.models.model import Model

_CENTRED = "_centred"


@dataclasses.dataclass(frozen=True, eq=False)
class Measure:
    """A similarity of concepts, and how it came about."""

    group: str
    """"ExpertLens", "Baselines" or "Controls"."""
    name: str
    similarity: xr.DataArray
    """float64 (concept, other), larger = more alike."""
    threshold: float = math.nan
    """On AP, where the measure has one."""
    experts_median: float = math.nan
    """Median over concepts of the number of experts, where there is a threshold."""
    negatives_per_positive: float = math.nan
    """With which the experts were found, where there are any."""


def measure_names() -> dict[str, bool]:
    """Return the names of measures of experts, and whether each needs a threshold.

    They are the methods in `OVERLAPS`. One that may centre is there twice, and the name says which: "cosine" is
    without, "cosine_centred" with.
    """
    names = {}
    for name, each in OVERLAPS.items():
        names[name] = each.takes == "experts" or each.thresholded
        if each.centred is not None:
            names[name + _CENTRED] = names[name]
    return names


def _overlap_named(expertise: xr.Dataset | xr.DataArray, name: str, threshold: float | None = None) -> xr.DataArray:
    """Return the overlap that a name of `measure_names` stands for."""
    method = name if name in OVERLAPS else name.removesuffix(_CENTRED)
    options: dict[str, Any] = {} if OVERLAPS[method].centred is None else {"centred": method != name}
    return overlap(expertise, method, threshold=threshold, **options)


def check_measures(names: Sequence[str], thresholds: Sequence[float]) -> None:
    """Refuse what `expert_measures` can't do, before the work whose result it would compare.

    Raises:
      SelectionError: an unknown name, or a thresholded measure without a threshold.
    """
    known = measure_names()
    unknown = set(names) - known.keys()
    if unknown:
        raise SelectionError(f"Unknown measures {', '.join(sorted(unknown))}. Choose from: {', '.join(known)}.")
    without = [name for name in names if known[name]]
    if without and not thresholds:
        raise SelectionError(f"measures {', '.join(without)} need at least one threshold; none was given.")


def expert_measures(
    expertise: xr.Dataset,
    names: Sequence[str],
    thresholds: Sequence[float],
    *,
    group: str = "ExpertLens",
    suffix: str = "",
) -> list[Measure]:
    """Compare concepts by their experts.

    Args:
      expertise: from `measure_expertise`.
      names: of `measure_names`; those that need a threshold give one measure for each.
      thresholds: on AP.
      group: to put the measures in.
      suffix: to add to their names.

    Raises:
      SelectionError: an unknown name, or a thresholded measure without a threshold.
    """
    check_measures(names, thresholds)
    ratio = float(expertise.attrs.get("negatives_per_positive", math.nan))
    measures, thresholded = [], measure_names()
    for threshold in thresholds:
        experts = select_experts(expertise, threshold=threshold)
        median = float(np.median(experts.sum("unit")))
        for name in names:
            if thresholded[name]:
                similarity = _overlap_named(expertise, name, threshold)
                measures.append(Measure(group, name + suffix, similarity, threshold, median, ratio))
    for name in names:
        if not thresholded[name]:
            similarity = _overlap_named(expertise, name)
            measures.append(Measure(group, name + suffix, similarity, negatives_per_positive=ratio))
    return measures


def named_measures(
    tables: Iterable[tuple[str, xr.Dataset]], names: Sequence[str], threshold: float, group: str
) -> list[Measure]:
    """Compare concepts by the experts in tables that have names, at one threshold.

    Args:
      tables: names and tables; may be a generator, so that one table is in memory at a time.
      names: of `measure_names`.
      threshold: on AP.
      group: to put the measures in.
    """
    return [
        measure
        for name, table in tables
        for measure in expert_measures(table, names, [threshold], group=group, suffix=f"_{name}")
    ]


def word_measures(model: Model, concepts: ConceptDataset) -> list[Measure]:
    """Return baselines that need the concepts' words only: their input embeddings, and the word alone in the model."""
    inputs = embeddings.input_embeddings(model, concepts.concepts)
    alone = embeddings.word_embeddings(model, concepts.concepts)
    return [
        Measure("Baselines", "input_embedding", cosine_of_embeddings(inputs, concepts)),
        Measure("Baselines", "single_word", cosine_of_embeddings(alone, concepts)),
    ]


def sentence_measures(
    by_layer: np.ndarray,
    last_token: np.ndarray,
    concepts: ConceptDataset,
    *,
    directions: np.ndarray | None = None,
    every_layer: bool = False,
) -> list[Measure]:
    """Return what the sentences give without experts.

    That is their mean embeddings, over all tokens or the last, and their TF-IDF.

    Args:
      by_layer: float `[layers, concepts, d_model]`, see `embeddings.concept_embeddings`.
      last_token: float `[concepts, d_model]`, the mean over a concept's sentences of what the last layer holds at
        their last token, see `embeddings.sentence_embeddings`.
      concepts: the sentences.
      directions: float `[concepts, channels]`, where a concept's sentences lie from the others, see `find_directions`;
        compared by their cosine.
      every_layer: the mean embedding at every layer, and not at the last only.
    """
    found = [] if directions is None else [("mean_difference", directions)]
    layers = [
        Measure("Baselines", f"mean_sentence_layer_{layer}", cosine_of_embeddings(mean, concepts))
        for layer, mean in enumerate(by_layer[:-1] if every_layer else ())
    ]
    return [
        *layers,
        Measure("Baselines", "mean_sentence", cosine_of_embeddings(by_layer[-1], concepts)),
        Measure("Baselines", "last_token", cosine_of_embeddings(last_token, concepts)),
        *(Measure("Baselines", name, cosine_of_embeddings(each, concepts)) for name, each in found),
        Measure("Controls", "tfidf", tfidf_similarity(concepts)),
    ]


def vector_measures(files: Mapping[str, epath.PathLike], concepts: ConceptDataset) -> list[Measure]:
    """Compare concepts by their words' vectors, of each of several files, by name."""
    return [Measure("Baselines", name, word_vector_similarity(path, concepts)) for name, path in files.items()]


def model_measure(
    name: str, model: Model, concepts: ConceptDataset, *, tokens_per_batch: int | None = None, progress: bool = False
) -> Measure:
    """Compare concepts by another model's mean sentence embeddings."""
    sentences = embeddings.sentence_embeddings(
        model, concepts.sentences, tokens_per_batch=tokens_per_batch, progress=progress
    )
    return Measure("Baselines", name, cosine_of_embeddings(mean_sentence_embedding(sentences, concepts), concepts))
