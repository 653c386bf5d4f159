"""Baselines against scikit-learn, and TF-IDF against what a prototype measured on the packaged sentences."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from expertlens_jax.analysis.similarity.alignment import align
from expertlens_jax.analysis.similarity.baselines import cosine_of_embeddings, mean_sentence_embedding, tfidf_similarity
from expertlens_jax.data.concepts import ConceptDataset, load_concepts
from expertlens_jax.data.ratings import load_ratings
from expertlens_jax.errors import ConceptDataError, ExpertLensError


def small_dataset(sentences=("The cat sat.", "A cat ran.", "The dog ran.", "One old car.")):
    labels = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], bool)
    return ConceptDataset(
        name="small",
        sentences=tuple(sentences),
        concepts=("cat", "dog", "car"),
        domains=("animal", "animal", ""),
        labels=labels,
        negative_pool=np.ones(4, bool),
    )


def test_cosine_is_sklearns_and_carries_the_concepts():
    embeddings = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    similarity = cosine_of_embeddings(embeddings, small_dataset())
    assert similarity.dims == ("concept", "other")
    assert similarity.dtype == np.float64
    np.testing.assert_allclose(similarity.values, cosine_similarity(embeddings.astype(float)), rtol=0, atol=1e-12)
    assert list(similarity["concept"].values) == list(similarity["other"].values) == ["cat", "dog", "car"]
    assert similarity["domain"].dims == ("concept",)
    assert list(similarity["domain"].values) == ["animal", "animal", ""]
    assert np.array_equal(similarity.values, similarity.values.T)


def test_mean_sentence_embedding_is_the_mean_over_positives():
    embeddings = np.arange(8.0).reshape(4, 2)
    means = mean_sentence_embedding(embeddings, small_dataset())
    np.testing.assert_array_equal(means, [embeddings[:2].mean(axis=0), embeddings[2], embeddings[3]])


def test_embeddings_that_do_not_fit_are_refused():
    with pytest.raises(ExpertLensError, match=r"shape \[4, 2\]; 'small' has 3 concepts, so \[3, d\] is wanted"):
        cosine_of_embeddings(np.ones((4, 2)), small_dataset())
    with pytest.raises(ExpertLensError, match=r"shape \[3, 2\]; 'small' has 4 sentences, so \[4, d\] is wanted"):
        mean_sentence_embedding(np.ones((3, 2)), small_dataset())
    with pytest.raises(ExpertLensError, match="embedding of 'dog' is all zeros"):
        cosine_of_embeddings(np.array([[1, 2], [0, 0], [1, 1]]), small_dataset())
    with pytest.raises(ExpertLensError, match="embedding of 'car' holds NaN or infinity"):
        cosine_of_embeddings(np.array([[1, 2], [3, 0], [1, np.nan]]), small_dataset())
    with pytest.raises(ExpertLensError, match=r"the sentence 'The dog ran\.' holds NaN or infinity"):
        mean_sentence_embedding(np.array([[1, 2], [3, 0], [1, np.inf], [0, 0]]), small_dataset())


def test_tfidf_by_hand():
    # idf = ln(4 / (1 + documents with the word)) + 1; cat: the, sat, ran once each (ln 1 + 1 = 1), cat twice.
    similarity = tfidf_similarity(small_dataset())
    rare, shared = np.log(4 / 2) + 1, np.log(4 / 3) + 1
    cat = {"cat": (np.log(2) + 1) * rare, "the": shared, "sat": rare, "ran": shared}
    dog = {"the": shared, "dog": rare, "ran": shared}
    dot = sum(cat[word] * dog.get(word, 0) for word in cat)
    norms = np.linalg.norm(list(cat.values())) * np.linalg.norm(list(dog.values()))
    assert float(similarity.sel(concept="cat", other="dog")) == pytest.approx(dot / norms, abs=1e-12)
    assert float(similarity.sel(concept="cat", other="car")) == 0


def test_tfidf_without_words_is_an_error():
    with pytest.raises(ConceptDataError, match="no words to compare in the sentences of 'small'"):
        tfidf_similarity(small_dataset(["a b", "c d", "e f", "g h"]))


@pytest.mark.parametrize(("sentences", "wordsim", "simlex"), [("facts", 0.624, 0.213), ("stories", 0.300, 0.047)])
def test_tfidf_aligns_as_the_prototype_did(sentences, wordsim, simlex):
    similarity = tfidf_similarity(load_concepts(sentences))
    for name, pairs, expected in (("wordsim353", 29, wordsim), ("simlex999", 72, simlex)):
        result = align(similarity, load_ratings(name), resamples=10, permutations=10)
        assert result.pairs == pairs
        assert result.spearman == pytest.approx(expected, abs=0.001)
