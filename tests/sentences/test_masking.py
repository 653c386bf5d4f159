"""Masked sentences: the word goes, everything else stays."""

import numpy as np

import expertlens_jax as el
from expertlens_jax.sentences.masking import mask_words


def test_the_concept_and_its_plural_are_masked_and_nothing_else():
    sentences = ("A cat and Cats' eyes.", "The category of dogs", "Ice-cream and a dog", "No one.")
    labels = np.array([[True, False, False, False], [False, True, True, False], [False, False, True, False]])
    made = el.ConceptDataset("made", sentences, ("cat", "dog", "ice cream"), ("", "", ""), labels, np.ones(4, bool))
    masked = mask_words(made, "[MASK]")
    assert masked.sentences == (
        *("A [MASK] and [MASK]' eyes.", "The category of [MASK]", "[MASK] and a [MASK]", "No one."),
    )
    np.testing.assert_array_equal(masked.labels, labels)
    assert masked.name == "made_masked"


def test_sentences_that_become_alike_are_one_with_all_their_labels():
    made = el.ConceptDataset(
        "made", ("A cat.", "A dog."), ("cat", "dog"), ("", ""), np.eye(2, dtype=bool), np.ones(2, bool)
    )
    masked = mask_words(made, "x")
    assert masked.sentences == ("A x.",) and masked.labels.tolist() == [[True], [True]]


def test_no_packaged_sentence_keeps_its_word():
    concepts = el.load_concepts("stories").subset(["cat", "foot", "church", "ship"])
    masked = mask_words(concepts, "something")
    assert concepts.mentions()[concepts.labels].all()
    assert not masked.mentions()[masked.labels].any()
    assert len(masked.sentences) == len(concepts.sentences)
