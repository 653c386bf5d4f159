"""The ways of comparing concepts, side by side: ExpertLens' own, embeddings of the same model, and controls."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from expertlens_jax.analysis.similarity import embeddings
from expertlens_jax.analysis.similarity.baselines import cosine_of_embeddings, tfidf_similarity
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.overlap import cosine, jaccard, js, kl, overlap_coefficient, weighted_jaccard
from expertlens_jax.experts.selection import select_experts
from expertlens_jax.models.model import Model

_OF_SETS = {"jaccard": jaccard, "overlap_coefficient": overlap_coefficient}
_OF_PRECISION = {
    "cosine": functools.partial(cosine, centred=False),
    "cosine_centred": functools.partial(cosine, centred=True),
    "kl": functools.partial(kl, centred=False),
    "kl_centred": functools.partial(kl, centred=True),
    "js": js,
}
THRESHOLDED = (*_OF_SETS, "weighted_jaccard")
UNTHRESHOLDED = tuple(_OF_PRECISION)


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


def check_measures(names: Sequence[str], thresholds: Sequence[float]) -> None:
    """Refuses what `expert_measures` can't do, before the work whose result it would compare.

    Raises:
      SelectionError: an unknown name, or a thresholded measure without a threshold.
    """
    unknown = set(names) - {*THRESHOLDED, *UNTHRESHOLDED}
    if unknown:
        raise SelectionError(
            f"measures {', '.join(sorted(unknown))} were asked for; there are "
            f"{', '.join((*THRESHOLDED, *UNTHRESHOLDED))}."
        )
    if set(names) & set(THRESHOLDED) and not thresholds:
        raise SelectionError(f"{', '.join(THRESHOLDED)} need at least one threshold; none was given.")


def expert_measures(
    expertise: xr.Dataset,
    names: Sequence[str],
    thresholds: Sequence[float],
    *,
    group: str = "ExpertLens",
    suffix: str = "",
) -> list[Measure]:
    """Compares concepts by their experts.

    Args:
      expertise: from `measure_expertise`.
      names: of `THRESHOLDED` (one measure for each threshold) and `UNTHRESHOLDED`.
      thresholds: on AP.
      group: to put the measures in.
      suffix: to add to their names.

    Raises:
      SelectionError: an unknown name, or a thresholded measure without a threshold.
    """
    check_measures(names, thresholds)
    ratio = float(expertise.attrs.get("negatives_per_positive", math.nan))
    measures = []
    for threshold in thresholds:
        experts = select_experts(expertise, threshold=threshold)
        median = float(np.median(experts.sum("unit")))
        for name in names:
            if name in THRESHOLDED:
                similarity = _OF_SETS[name](experts) if name in _OF_SETS else weighted_jaccard(expertise, threshold)
                measures.append(Measure(group, name + suffix, similarity, threshold, median, ratio))
    for name in names:
        if name in UNTHRESHOLDED:
            similarity = _OF_PRECISION[name](expertise)
            measures.append(Measure(group, name + suffix, similarity, negatives_per_positive=ratio))
    return measures


def word_measures(model: Model, concepts: ConceptDataset) -> list[Measure]:
    """Baselines that need the concepts' words only: their input embeddings, and the word alone in the model."""
    inputs = embeddings.input_embeddings(model, concepts.concepts)
    alone = embeddings.word_embeddings(model, concepts.concepts)
    return [
        Measure("Baselines", "input_embedding", cosine_of_embeddings(inputs, concepts)),
        Measure("Baselines", "single_word", cosine_of_embeddings(alone, concepts)),
    ]


def sentence_measures(
    by_layer: np.ndarray, last_token: np.ndarray, concepts: ConceptDataset, *, every_layer: bool = False
) -> list[Measure]:
    """What the sentences give without experts: their mean embeddings, over all tokens or the last, and their TF-IDF.

    Args:
      by_layer: float `[layers, concepts, d_model]`, see `embeddings.concept_embeddings`.
      last_token: float `[concepts, d_model]`, the mean over a concept's sentences of what the last layer holds at
        their last token, see `embeddings.sentence_embeddings`.
      concepts: the sentences.
      every_layer: the mean embedding at every layer, and not at the last only.
    """
    layers = [
        Measure("Baselines", f"mean_sentence_layer_{layer}", cosine_of_embeddings(mean, concepts))
        for layer, mean in enumerate(by_layer[:-1] if every_layer else ())
    ]
    return [
        *layers,
        Measure("Baselines", "mean_sentence", cosine_of_embeddings(by_layer[-1], concepts)),
        Measure("Baselines", "last_token", cosine_of_embeddings(last_token, concepts)),
        Measure("Controls", "tfidf", tfidf_similarity(concepts)),
    ]
