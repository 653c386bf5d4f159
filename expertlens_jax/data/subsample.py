"""Fewer sentences a concept: what a smaller set would have given."""

from __future__ import annotations

import numpy as np

from expertlens_jax.cards import counted
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import ConceptDataError


def draw_sentences(concepts: ConceptDataset, count: int, *, draw: int = 0, seed: int = 0) -> ConceptDataset:
    """Return the set with `count` sentences of each concept, drawn at random; the others are gone, as negatives too.

    Each concept's sentences are shuffled once, by seed and name, and cut into draws: draw 0 takes the first `count`,
    draw 1 the next. So draws share no sentence, and draw 0 of a larger count holds that of a smaller one. Sentences
    that are positives of none stay. Where concepts share sentences, one may be left with more than `count`.

    Args:
      concepts: the whole set.
      count: sentences a concept.
      draw: which of the disjoint draws.
      seed: of the shuffle.

    Raises:
      ConceptDataError: `count` is below 1, or a concept has too few sentences for the draw (the message names it).
    """
    if count < 1 or draw < 0:
        raise ConceptDataError(f"draw {draw} of {count} sentences was given; wanted 1 or more, of a draw from 0 on")
    keep = np.asarray(~concepts.labels.any(axis=0))  # negatives only
    for concept, labels in zip(concepts.concepts, concepts.labels, strict=True):
        mine = np.random.default_rng([seed, *concept.encode()]).permutation(np.flatnonzero(labels))
        if len(mine) < (draw + 1) * count:
            raise ConceptDataError(
                f"{concepts.name!r} has {counted(len(mine), 'sentence')} for {concept!r}, too few for {draw + 1} "
                f"draw{'s' * (draw > 0)} of {count}; ask for fewer sentences, or leave the concept out"
            )
        keep[mine[draw * count : (draw + 1) * count]] = True
    return concepts.keep_sentences(keep, f"{concepts.name}_{count}_draw{draw}")
