"""Which sentences a detector learns from: how many positives, which negatives, how many wrong labels."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Sequence

import numpy as np

from expertlens_jax.cards import counted
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import contrast_concepts
from expertlens_jax.errors import ConceptDataError, SelectionError, UnfitConceptsError
from expertlens_jax.experts.direction_fits import concept_key


@dataclasses.dataclass(frozen=True)
class Examples:
    """How many sentences there are to learn from, and how many of their labels are wrong."""

    positives: int
    label_noise: float = 0.0
    """The share of positives that are called negatives; as many negatives are called positives."""


def concept_labels(concepts: ConceptDataset) -> np.ndarray:
    """Return int8 `[concepts, sentences]`: 1 a positive, 0 a negative, -1 neither, as a mention of the concept is.

    Raises:
      ConceptDataError: a concept without a positive or without a negative; the message names it.
    """
    weights = contrast_concepts(concepts).weights()
    return np.where(concepts.labels, 1, np.where(weights > 0, 0, -1)).astype(np.int8)


def draw_examples(
    labels: np.ndarray, concepts: Sequence[str], examples: Examples, *, negatives: int, seed: int
) -> np.ndarray:
    """Return the labels to learn from, int8 `[concepts, sentences]`.

    Positives are drawn by the concept's name, fewer among more. Negatives are the first of one order of all sentences
    that the concept may have, so that concepts share almost all of theirs. Wrong labels are drawn by name too.

    Args:
      labels: from `concept_labels`.
      concepts: their names.
      examples: how many.
      negatives: of each concept, at most.
      seed: of the draws.

    Raises:
      ConceptDataError: a concept has fewer positives, or labels that can't be so wrong.
    """
    order = np.random.default_rng(seed).permutation(labels.shape[1])
    drawn = np.full(labels.shape, -1, np.int8)
    for concept, row, into in zip(concepts, labels, drawn, strict=True):
        rng = np.random.default_rng(concept_key(seed, concept))
        positives = rng.permutation(np.flatnonzero(row == 1))
        if len(positives) < examples.positives:
            raise ConceptDataError(
                f"{counted(examples.positives, 'positive was', 'positives were')} given, and the concept {concept!r} "
                f"has {len(positives)} to train on. Ask for fewer, or leave the concept out."
            )
        positives = positives[: examples.positives]
        chosen = order[row[order] == 0][:negatives]
        into[positives], into[chosen] = 1, 0
        wrong = round(examples.label_noise * len(positives))
        if wrong:
            if wrong > len(chosen):
                raise ConceptDataError(
                    f"{wrong} negatives of the concept {concept!r} were to be called positives, and it has "
                    f"{len(chosen)}. Ask for less label noise."
                )
            into[positives[:wrong]] = 0
            into[rng.choice(chosen, wrong, replace=False)] = 1
    return drawn


def check_examples(
    positives: Sequence[int] | None,
    negatives_per_positive: Sequence[float],
    label_noise: Sequence[float],
    negatives: int,
) -> None:
    """Refuse numbers that nothing can be drawn or measured with.

    Raises:
      SelectionError: the message names the setting.
    """
    for name, values in (
        ("positives", positives),
        ("negatives_per_positive", negatives_per_positive),
        ("label_noise", label_noise),
    ):
        if values is not None and (np.ndim(values) != 1 or len(set(values)) < len(values)):
            raise SelectionError(f"{name}={values!r}; wanted several numbers, each once, such as ({_TYPICAL[name]},).")
    for number in positives or ():
        if not isinstance(number, numbers.Integral) or isinstance(number, bool) or number < 1:
            raise SelectionError(f"positives holds {number!r}; wanted numbers of sentences, from 1 on.")
    if positives is not None and not len(positives):
        raise SelectionError("positives is empty; wanted one or more numbers of sentences.")
    if not len(negatives_per_positive):
        raise SelectionError("negatives_per_positive is empty; wanted one or more numbers above 0, such as (1, 10).")
    for ratio in negatives_per_positive:
        if not isinstance(ratio, numbers.Real) or not 0 < ratio < np.inf:
            raise SelectionError(f"negatives_per_positive holds {ratio!r}; wanted numbers above 0.")
    for share in label_noise:
        if not isinstance(share, numbers.Real) or not 0 < share < 0.5:
            raise SelectionError(
                f"label_noise holds {share!r}; wanted shares of wrong labels above 0 and below 0.5. Without noise is "
                "always measured."
            )
    if not isinstance(negatives, numbers.Integral) or isinstance(negatives, bool) or negatives < 1:
        raise SelectionError(f"training_negatives={negatives!r}; wanted a number of sentences, from 1 on.")


_TYPICAL = {"positives": "5, 40", "negatives_per_positive": "1, 10", "label_noise": "0.1, 0.25"}


def plan_examples(
    labels: np.ndarray,
    concepts: Sequence[str],
    positives: Sequence[int] | None,
    label_noise: Sequence[float],
    where: str,
) -> tuple[Examples, ...]:
    """Return what to learn from, the most positives without noise first.

    Args:
      labels: from `concept_labels`.
      concepts: their names.
      positives: numbers of them; None for 5, 10, 20 and 40, as far as all have so many, or the most they have.
      label_noise: at the most positives.
      where: what the sentences are called, for errors.

    Raises:
      UnfitConceptsError: a concept has fewer positives than asked for; or so few that no label of them can be wrong.
    """
    counts = (labels == 1).sum(axis=1)
    least, concept = int(counts.min()), concepts[int(counts.argmin())]
    if positives is None:
        positives = sorted({each for each in (5, 10, 20, 40) if each < least} | {min(least, 40)})
    most = max(positives)
    if most > least:
        raise UnfitConceptsError(
            f"positives holds {most}, and the concept {concept!r} has {counted(least, 'positive sentence')} to train "
            f"on in {where}. Ask for {least} at most, add sentences, or leave the concept out."
        )
    for share in label_noise:
        if round(share * most) == 0:
            raise UnfitConceptsError(
                f"label_noise holds {share:g}, which of {counted(most, 'positive')} a concept makes no label wrong. "
                "Ask for more noise or more positives, or for no noise: label_noise=()."
            )
    fewer = [Examples(each) for each in sorted(positives) if each < most]
    return (Examples(most), *fewer, *(Examples(most, share) for share in label_noise))
