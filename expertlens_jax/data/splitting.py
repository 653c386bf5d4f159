"""Sentences drawn into parts, so that each concept has its share of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from expertlens_jax.cards import counted
from expertlens_jax.errors import ConceptDataError

if TYPE_CHECKING:
    from expertlens_jax.data.concept_dataset import ConceptDataset


def split_sentences(dataset: ConceptDataset, parts: int, *, seed: int, minimum_sentences: int) -> np.ndarray:
    """Draw sentences into parts, those that serve the same concepts evenly.

    Returns:
      int `[sentences]`, the part of each, from 0 on.

    Raises:
      ConceptDataError: see `ConceptDataset.split`.
    """
    if parts < 2 or minimum_sentences < 0:
        raise ConceptDataError(
            f"{counted(parts, 'part')} with at least {counted(minimum_sentences, 'sentence')} were asked for; "
            "wanted 2 parts or more, and a number that isn't below 0"
        )
    own = dataset.own_negatives
    serves = dataset.labels if own is None else np.concatenate([dataset.labels, own])
    serves = np.concatenate([serves, dataset.negative_pool[None] & ~serves.any(0)])
    # Sentences that serve the same are dealt round; what is left over goes where their concepts have least.
    patterns, group_of = np.unique(np.packbits(serves, axis=0), axis=1, return_inverse=True)
    group_of = group_of.ravel()
    generator = np.random.default_rng(seed)
    part_of = np.zeros(len(dataset.sentences), int)
    shuffled = generator.permutation(len(dataset.sentences))
    shuffled = shuffled[np.argsort(group_of[shuffled], kind="stable")]
    ends = np.cumsum(np.bincount(group_of, minlength=patterns.shape[1]))
    groups = np.split(shuffled, ends[:-1]) if len(shuffled) else []
    has = np.zeros((parts, len(serves)), int)
    for members in sorted(groups, key=len, reverse=True):
        of_group = np.flatnonzero(serves[:, members[0]])
        order = np.lexsort((generator.permutation(parts), has[:, of_group].sum(1)))
        part_of[members] = order[np.arange(len(members)) % parts]
        has[:, of_group] += np.bincount(part_of[members], minlength=parts)[:, None]
    few = [
        f"{concept!r} has {row.sum()}"
        for concept, row, counts in zip(dataset.concepts, dataset.labels, has.T, strict=False)
        if counts.min() < minimum_sentences
    ]
    if few:
        raise ConceptDataError(
            f"{dataset.name!r} can't be split into {parts} parts with at least "
            f"{counted(minimum_sentences, 'sentence')} of each concept: "
            f"{', '.join(few[:10])}{' ...' if len(few) > 10 else ''}; add sentences, leave these concepts out, or "
            "lower minimum_sentences"
        )
    return part_of
