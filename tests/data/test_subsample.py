"""Draws of fewer sentences: how many, that they are disjoint and nested, and what is refused."""

import numpy as np
import pytest

from expertlens_jax.data.concepts import load_concepts
from expertlens_jax.data.contrast import contrast_concepts
from expertlens_jax.data.subsample import draw_sentences
from expertlens_jax.errors import ConceptDataError


@pytest.fixture(scope="module")
def concepts():
    return load_concepts("stories").subset(("cat", "dog", "bread"))


def test_each_concept_has_so_many_and_draws_share_none(concepts):
    first, second = (draw_sentences(concepts, 15, draw=draw) for draw in (0, 1))
    assert (first.labels.sum(1) == 15).all() and first.concepts == concepts.concepts
    assert len(first.sentences) == 45 and not set(first.sentences) & set(second.sentences)
    assert first.name == "stories_15_draw0"
    label_of = dict(zip(concepts.sentences, concepts.labels.T.tolist(), strict=True))
    assert [label_of[sentence] for sentence in first.sentences] == first.labels.T.tolist()
    assert np.allclose(contrast_concepts(first).base_rate, 1 / 3.5)


def test_draws_are_nested_seeded_and_of_the_concept_alone(concepts):
    assert set(draw_sentences(concepts, 5).sentences) < set(draw_sentences(concepts, 15).sentences)
    assert draw_sentences(concepts, 5).sentences == draw_sentences(concepts, 5).sentences
    assert draw_sentences(concepts, 5, seed=1).sentences != draw_sentences(concepts, 5).sentences
    alone = draw_sentences(concepts.subset(("dog",)), 5)
    assert set(alone.sentences) < set(draw_sentences(concepts, 5).sentences)


def test_too_few_sentences_are_refused(concepts):
    assert len(draw_sentences(concepts, 40).sentences) == 120
    with pytest.raises(ConceptDataError, match="has 40 sentences for 'cat', too few for 2 draws of 25"):
        draw_sentences(concepts, 25, draw=1)
    with pytest.raises(ConceptDataError, match="draw 0 of 0 sentences"):
        draw_sentences(concepts, 0)
