"""Sentences without the words that name their concepts: what is left for a model to know the concept by."""

import dataclasses
import re

import numpy as np

from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.words import word_forms


def mask_words(dataset: ConceptDataset, mask: str) -> ConceptDataset:
    """The same concepts and sentences, with each sentence's own concept (and its plural) replaced by `mask`.

    Sentences that become alike by that stay one each, labelled with all their concepts.

    Args:
      dataset: its labels say which concepts a sentence is of.
      mask: what stands in their place, such as a tokenizer's mask token.

    Returns:
      A dataset called `NAME_masked`.
    """
    patterns = [word_pattern(concept) for concept in dataset.concepts]
    masked = []
    for column, sentence in enumerate(dataset.sentences):
        for row in np.flatnonzero(dataset.labels[:, column]):
            sentence = patterns[row].sub(lambda _: mask, sentence)
        masked.append(sentence)
    unique = {sentence: place for place, sentence in enumerate(dict.fromkeys(masked))}
    place = np.array([unique[sentence] for sentence in masked])
    labels = np.zeros((len(dataset.concepts), len(unique)), bool)
    pool = np.zeros(len(unique), bool)
    for column, to in enumerate(place):
        labels[:, to] |= dataset.labels[:, column]
        pool[to] |= dataset.negative_pool[column]
    return dataclasses.replace(
        dataset, name=f"{dataset.name}_masked", sentences=tuple(unique), labels=labels, negative_pool=pool
    )


def word_pattern(concept: str) -> re.Pattern[str]:
    """The concept's words and their plurals, whole, whatever their case, with any spaces or hyphens between them."""
    forms = sorted(word_forms(concept), key=lambda form: -len(" ".join(form)))
    return re.compile(
        r"(?<!\w)(?:" + "|".join(r"[\s_-]+".join(map(re.escape, form)) for form in forms) + r")(?!\w)", re.I
    )
