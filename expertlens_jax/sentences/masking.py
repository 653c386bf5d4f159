"""Sentences without the words that name their concepts: what is left for a model to know the concept by."""

import dataclasses

import numpy as np

from expertlens_jax.data.concepts import ConceptDataset


def mask_words(dataset: ConceptDataset, mask: str) -> ConceptDataset:
    """Return the same concepts and sentences, with each sentence's own concept, masked.

    Each form of the concept is replaced by `mask`.

    So it is in sentences that were given as a concept's negatives. Sentences that become alike by that stay one each,
    labelled with all their concepts; if one is of a concept's positives and its negatives, it is a positive.

    Args:
      dataset: its labels say which concepts a sentence is of.
      mask: what stands in their place, such as a tokenizer's mask token.

    Returns:
      A dataset called `NAME_masked`.

    Raises:
      UnfitConceptsError: a concept has no word to mask.
    """
    dataset.check_words("masked sentences")
    finders = dataset.mention_finders()
    of_concept = dataset.labels if dataset.own_negatives is None else dataset.labels | dataset.own_negatives
    masked = []
    for sentence, rows in zip(dataset.sentences, of_concept.T, strict=True):
        spans = sorted({span for row in np.flatnonzero(rows) for span in finders[row](sentence)})
        masked.append(_replace(sentence, spans, mask))
    unique = {sentence: place for place, sentence in enumerate(dict.fromkeys(masked))}
    place = np.array([unique[sentence] for sentence in masked])
    labels = np.zeros((len(dataset.concepts), len(unique)), bool)
    own_negatives = np.zeros_like(labels)
    pool = np.zeros(len(unique), bool)
    for column, to in enumerate(place):
        labels[:, to] |= dataset.labels[:, column]
        pool[to] |= dataset.negative_pool[column]
        if dataset.own_negatives is not None:
            own_negatives[:, to] |= dataset.own_negatives[:, column]
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}_masked",
        sentences=tuple(unique),
        labels=labels,
        negative_pool=pool,
        own_negatives=None if dataset.own_negatives is None else own_negatives & ~labels,
    )


def _replace(text: str, spans: list[tuple[int, int]], mask: str) -> str:
    """Text with `mask` for each of the spans, in order; one for those that overlap."""
    kept, end = [], 0
    for start, stop in spans:
        if start >= end:
            kept += [text[end:start], mask]
        end = max(end, stop)
    return "".join(kept) + text[end:]
