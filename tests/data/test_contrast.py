import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertlens_jax.data.concepts import ConceptDataset, load_concepts
from expertlens_jax.data.contrast import contrast_concepts
from expertlens_jax.errors import ConceptDataError

WORDS = ("cat", "dog", "owl", "ice cream")


@st.composite
def datasets(draw, most=12):
    """Draws 1 to 4 concepts of 1 to 3 sentences, which may mention other concepts, with or without a pool."""
    concepts = WORDS[: draw(st.integers(1, len(WORDS)))]
    sentences, owners = [], []
    for row, concept in enumerate(concepts):
        for _ in range(draw(st.integers(1, 3))):
            others = draw(st.lists(st.sampled_from(WORDS), max_size=2))
            sentences.append(" and ".join([f"{len(sentences)} {concept}s", *others]))
            owners.append(row)
    positives = len(sentences)
    # Each draw has enough sentences that mention nothing.
    plain = draw(st.integers(most, 2 * most))
    sentences += [f"{i} mentions nothing" for i in range(plain)]
    labels = np.zeros((len(concepts), len(sentences)), bool)
    labels[owners, np.arange(positives)] = True
    pool = np.ones(len(sentences), bool)
    if draw(st.booleans()):
        pool[:positives] = False
    return ConceptDataset("drawn", tuple(sentences), concepts, ("",) * len(concepts), labels, pool)


@given(datasets(), st.floats(0.01, 4), st.booleans(), st.booleans(), st.integers(0, 2**40))
def test_weights_are_what_was_asked_for(dataset, ratio, exclude_mentions, sampled, seed):
    contrast = contrast_concepts(
        dataset,
        negatives_per_positive=ratio,
        exclude_mentions=exclude_mentions,
        sampled=sampled,
        seed=seed,
    )
    weights, labels, mentions = contrast.weights(), dataset.labels, dataset.mentions()
    assert weights.dtype == contrast.negative_weight.dtype == contrast.corrections.dtype == np.float32
    assert contrast.positives.dtype == contrast.corrected.dtype == np.int32
    assert (weights[labels] == 1).all()
    allowed = dataset.negative_pool & ~labels
    if exclude_mentions:
        allowed &= ~mentions
    negatives = np.where(labels, 0, weights)
    assert (negatives[~allowed] == 0).all()
    if sampled:
        assert not contrast.pool.any()
        np.testing.assert_array_equal(contrast.num_negatives, [max(1, round(ratio * p)) for p in labels.sum(1)])
    else:
        np.testing.assert_array_equal(negatives > 0, allowed)
    np.testing.assert_array_equal(contrast.num_positives, labels.sum(1))
    np.testing.assert_array_equal(contrast.num_negatives, (negatives > 0).sum(1))
    # Exact up to the rounding of one float32.
    np.testing.assert_allclose(negatives.sum(1, dtype=float), ratio * labels.sum(1), rtol=2**-23)
    np.testing.assert_allclose(contrast.base_rate, 1 / (1 + ratio), rtol=2**-23)


@given(datasets(), st.integers(0, 5))
def test_padding_is_at_the_end_and_weighs_nothing(dataset, seed):
    for sampled in (False, True):
        contrast = contrast_concepts(dataset, sampled=sampled, seed=seed)
        assert (contrast.corrections[contrast.corrected < 0] == 0).all()
        assert (contrast.corrections[contrast.corrected >= 0] == (1 if sampled else -1)).all()
        for rows in (contrast.positives, contrast.corrected):
            for row in rows:
                real = row[row >= 0]
                assert (row[: len(real)] == real).all()
                assert (np.diff(real) > 0).all()


@given(datasets(), st.integers(0, 5))
def test_a_sample_is_reproducible_and_each_concept_its_own(dataset, seed):
    # With a pool of its own, what a concept is told apart from doesn't change when other concepts go.
    pool = ~dataset.labels.any(0)
    dataset = dataclasses.replace(dataset, negative_pool=pool)
    contrast = contrast_concepts(dataset, sampled=True, seed=seed)
    again = contrast_concepts(dataset, sampled=True, seed=seed)
    np.testing.assert_array_equal(contrast.weights(), again.weights())
    for row, concept in enumerate(dataset.concepts):
        alone = contrast_concepts(dataset.subset([concept]), sampled=True, seed=seed)
        np.testing.assert_array_equal(contrast.weights()[row, pool], alone.weights()[0, alone.positives.shape[1] :])


def test_samples_differ_by_seed_and_concept():
    dataset = load_concepts("facts").subset(["cat", "dog", "horse"])
    dataset = dataclasses.replace(dataset, negative_pool=np.ones(120, bool))
    draws = [
        frozenset(row)
        for seed in (0, 1)
        for row in contrast_concepts(dataset, negatives_per_positive=1, sampled=True, seed=seed).corrected.tolist()
    ]
    assert len(set(draws)) == 6


def test_packaged_set_in_numbers():
    dataset = load_concepts("facts")
    contrast = contrast_concepts(dataset)
    excluded = (dataset.mentions() & ~dataset.labels).sum(1)
    np.testing.assert_array_equal(contrast.num_positives, 40)
    np.testing.assert_array_equal(contrast.num_negatives, 7000 - excluded)
    np.testing.assert_array_equal(contrast.negative_weight, (100 / (7000 - excluded)).astype(np.float32))
    assert contrast.corrected.shape == (176, 40 + excluded.max())
    everything = contrast_concepts(dataset, exclude_mentions=False)
    np.testing.assert_array_equal(everything.num_negatives, 7000)
    sample = contrast_concepts(dataset, sampled=True)
    np.testing.assert_array_equal(sample.num_negatives, 100)
    np.testing.assert_array_equal(sample.negative_weight, 1)


def tiny(sentences, labels, pool=None):
    labels = np.array(labels, bool)
    pool = np.ones(len(sentences), bool) if pool is None else np.array(pool, bool)
    return ConceptDataset("tiny", tuple(sentences), WORDS[: len(labels)], ("",) * len(labels), labels, pool)


def test_mentions_count_against_a_concept_only_when_asked():
    dataset = tiny(["a cat", "a dog", "a dog and a cat", "nothing"], [[1, 0, 0, 0], [0, 1, 1, 0]])
    np.testing.assert_array_equal(
        contrast_concepts(dataset, negatives_per_positive=2).weights(), [[1, 1, 0, 1], [2, 1, 1, 2]]
    )
    np.testing.assert_allclose(
        contrast_concepts(dataset, negatives_per_positive=2, exclude_mentions=False).weights(),
        [[1, 2 / 3, 2 / 3, 2 / 3], [2, 1, 1, 2]],
        rtol=1e-7,
    )


def test_a_pool_of_its_own_needs_no_correction():
    dataset = tiny(["a cat", "b", "c"], [[1, 0, 0]], pool=[0, 1, 1])
    contrast = contrast_concepts(dataset)
    assert contrast.corrected.shape == contrast.corrections.shape == (1, 0)
    np.testing.assert_array_equal(contrast.weights(), [[1, 1.25, 1.25]])


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (tiny(["a cat"], [[1]]), {}, "concept 'cat' needs at least 1 negative sentence and has 0: of 1 in"),
        (tiny(["a cat", "cats"], [[1, 0]]), {}, "concept 'cat' needs .* 2 are its positives or mention it"),
        (
            tiny(["a cat", "a", "b"], [[1, 0, 0]]),
            {"sampled": True, "negatives_per_positive": 3},
            "concept 'cat' needs at least 3 negative sentences and has 2: .* or lower negatives_per_positive",
        ),
        (tiny(["a cat", "b"], [[1, 0], [0, 0]]), {}, "concept 'dog' has no positive sentences"),
        (tiny(["a cat", "b"], [[1, 0]]), {"negatives_per_positive": 0}, "number above 0, not 0"),
        (tiny(["a cat", "b"], [[1, 0]]), {"negatives_per_positive": -2.5}, "number above 0, not -2.5"),
        (tiny(["a cat", "b"], [[1, 0]]), {"negatives_per_positive": float("nan")}, "number above 0, not nan"),
        (tiny(["a cat", "b"], [[1, 0]]), {"negatives_per_positive": float("inf")}, "number above 0, not inf"),
        (tiny(["a cat", "b"], [[1, 0]]), {"seed": -1}, "seed must be 0 or above, not -1"),
    ],
)
def test_what_cannot_be_contrasted(dataset, options, message):
    with pytest.raises(ConceptDataError, match=message):
        contrast_concepts(dataset, **options)
