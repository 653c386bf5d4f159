"""A concept's word where it stands in the concept's own sentences, and what stands before it."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from expertlens_jax.cards import counted, listed
from expertlens_jax.data.concept_dataset import ConceptDataset
from expertlens_jax.errors import ConceptDataError


@dataclasses.dataclass(frozen=True)
class WordsInPlace:
    """The words of some concepts, in sentences of their own: a row per sentence that has its word after another one."""

    beginnings: tuple[str, ...]
    """`[rows]`: what stands before the word, without the space between."""
    words: tuple[str, ...]
    """`[rows]`: the word as it stands there, with the space before it."""
    concept: np.ndarray
    """int `[rows]`: whose it is, by its place among the concepts that were asked for."""


def find_words_in_place(dataset: ConceptDataset, concepts: Sequence[str] | None = None) -> WordsInPlace:
    """Return each concept's word where its own sentences first mention it, and what stands before it there.

    Args:
      dataset: has the concepts.
      concepts: whose words are found, in the form and case they have there; None for all. Sentences that start with
        the word are left out.

    Raises:
      ConceptDataError: there is no such concept, or no sentence of one has its word after another one; all such are
        named.
      UnfitConceptsError: a concept has no word.
    """
    concepts = tuple(dataset.concepts) if concepts is None else tuple(concepts)
    for concept in concepts:
        if concept not in dataset.concepts:
            raise ConceptDataError(
                f"{dataset.name!r} has no concept {concept!r}; it has {counted(len(dataset.concepts), 'other')}."
            )
    dataset.check_words("the probability of a concept's word in its sentences", concepts)
    finders = dataset.mention_finders()
    beginnings, words, numbers = [], [], []
    for number, concept in enumerate(concepts):
        row = dataset.concepts.index(concept)
        for sentence in (dataset.sentences[i] for i in np.flatnonzero(dataset.labels[row])):
            for start, end in finders[row](sentence):
                if re.search(r"\S $", sentence[:start]):
                    beginnings.append(sentence[: start - 1])
                    words.append(sentence[start - 1 : end])
                    numbers.append(number)
                    break
    lacking = [concept for number, concept in enumerate(concepts) if number not in set(numbers)]
    if lacking:
        raise ConceptDataError(
            f"no sentence of {listed(map(repr, lacking))} in {dataset.name!r} has its word after another word. Leave "
            "these concepts out, or give sentences that have."
        )
    return WordsInPlace(tuple(beginnings), tuple(words), np.array(numbers))


def find_in_place(dataset: ConceptDataset, concept: str) -> tuple[list[str], list[str]]:
    """Return a concept's word where its own sentences first mention it, and what stands before it there.

    Args:
      dataset: has the concept.
      concept: see `find_words_in_place`.

    Returns:
      The beginnings `[sentences]` and the words `[sentences]`, each with the space before it.

    Raises:
      ConceptDataError, UnfitConceptsError: see `find_words_in_place`.
    """
    found = find_words_in_place(dataset, [concept])
    return list(found.beginnings), list(found.words)
