"""Contrasts made of a contrast: that ranking them gives what ranking their parts gives."""

import functools

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import Contrast, contrast_concepts
from expertlens_jax.data.resampling import (
    join_contrasts,
    permuted_labels,
    permuted_sizes,
    restrict_contrast,
    split_halves,
)
from expertlens_jax.errors import ConceptDataError
from expertlens_jax.experts.ranking import rank_units

WORDS = ("cat", "dog", "owl")
S, U = 30, 4


def is_negative(contrast):
    """bool [concepts, sentences]."""
    weights = contrast.weights()
    for row, mine in enumerate(contrast.positives):
        weights[row, mine[mine >= 0]] = 0
    return weights > 0


def made(seed, separate_pool, sampled, ratio=0.5):
    """Three concepts of 2 to 6 sentences, weighted or sampled, with a pool of all, or of the others only."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((3, S), bool)
    for row in labels:
        row[rng.permutation(S)[: rng.integers(2, 7)]] = True
    pool = ~labels.any(axis=0) if separate_pool else np.ones(S, bool)
    mention = rng.choice(WORDS, S)
    sentences = tuple(f"{i} {word}" if i % 4 == 0 else str(i) for i, word in enumerate(mention))
    dataset = ConceptDataset("made", sentences, WORDS, ("",) * 3, labels, pool)
    return contrast_concepts(dataset, negatives_per_positive=ratio, sampled=sampled, seed=1)


contrasts = functools.partial(
    st.builds, made, st.integers(0, 2**32 - 1), st.booleans(), st.booleans(), st.sampled_from([0.5, 1.1])
)


def is_positive(contrast):
    """bool [concepts, sentences]."""
    return np.array([np.isin(np.arange(contrast.pool.size), mine) for mine in contrast.positives])


def responses(seed):
    return np.random.default_rng(seed).integers(-4, 5, size=(S, U)).astype(np.float32)


def assert_well_formed(contrast):
    for rows in (contrast.positives, contrast.corrected):
        assert rows.dtype == np.int32
        for row in rows:
            real = row[row >= 0]
            assert (row[: real.size] == real).all()
            assert (np.diff(real) > 0).all()
    assert contrast.corrections.dtype == contrast.negative_weight.dtype == np.float32
    assert (contrast.corrections[contrast.corrected < 0] == 0).all()
    negatives = is_negative(contrast)
    np.testing.assert_array_equal(negatives.sum(axis=1), contrast.num_negatives)
    for row, weight in zip(contrast.weights(), contrast.negative_weight, strict=True):
        assert np.isin(row, [0, 1, weight]).all()


# Joined.


@settings(max_examples=30, deadline=None)
@given(contrasts(), contrasts())
def test_joint_weights_are_those_of_both(first, second):
    joint = join_contrasts(first, second)
    assert_well_formed(joint)
    np.testing.assert_array_equal(joint.weights(), np.concatenate([first.weights(), second.weights()]))


def test_ranking_a_joint_contrast_is_ranking_both():
    first, second = made(1, False, False), made(2, True, True)
    values = responses(1)
    parts = rank_units(values, first), rank_units(values, second)
    for name, table in rank_units(values, join_contrasts(first, second)).measured().items():
        apart = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_allclose(table, apart, rtol=1e-6, atol=1e-5 if name == "negative_mean" else 0)


def test_contrasts_over_other_sentences_do_not_join():
    contrast = Contrast(
        np.zeros((1, 1), np.int32), np.ones(5, bool), *np.zeros((2, 1, 0), np.int32), np.ones(1, np.float32)
    )
    keep = np.arange(5) < 4
    with pytest.raises(ConceptDataError, match="over 5 and over 4 sentences can't be joined"):
        join_contrasts(contrast, restrict_contrast(contrast, keep))


# Restricted.


@pytest.mark.parametrize(("seed", "separate_pool", "sampled"), [(0, False, False), (1, True, False), (4, False, True)])
def test_ranking_on_kept_sentences_equals_scikit_learn(seed, separate_pool, sampled):
    contrast = made(seed, separate_pool, sampled, 1.1)
    keep = np.random.default_rng(seed).random(S) < 0.8
    truths, negatives = is_positive(contrast), is_negative(contrast)
    restricted = restrict_contrast(contrast, keep)
    assert_well_formed(restricted)
    np.testing.assert_allclose(restricted.base_rate, contrast.base_rate, rtol=1e-6)
    values = responses(seed)
    table = rank_units(values[keep], restricted).average_precision
    for row, (truth, negative) in enumerate(zip(truths, negatives, strict=True)):
        mine, others = truth & keep, negative & keep
        weight = mine + others * mine.sum() * (1 / contrast.base_rate[row] - 1) / others.sum()
        want = [average_precision_score(truth[keep], z[keep], sample_weight=weight[keep]) for z in values.T]
        np.testing.assert_allclose(table[row], want, atol=1e-5)


@given(contrasts(), st.integers(0, 1000))
def test_restricted_weights_keep_the_base_rate(contrast, seed):
    keep = np.random.default_rng(seed).random(S) < 0.8
    try:
        restricted = restrict_contrast(contrast, keep)
    except ConceptDataError:
        reject()
    assert_well_formed(restricted)
    np.testing.assert_allclose(restricted.base_rate, contrast.base_rate, rtol=1e-6)
    np.testing.assert_array_equal(is_negative(restricted), is_negative(contrast)[:, keep])
    np.testing.assert_array_equal(is_positive(restricted), is_positive(contrast)[:, keep])


@given(contrasts())
def test_keeping_everything_changes_nothing(contrast):
    same = restrict_contrast(contrast, np.ones(S, bool))
    np.testing.assert_allclose(same.weights(), contrast.weights(), rtol=1e-6)


def small():
    labels = np.zeros((2, 8), bool)
    labels[0, :2] = labels[1, 2:4] = True
    dataset = ConceptDataset("made", tuple("abcdefgh"), ("cat", "dog"), ("", ""), labels, np.arange(8) > 3)
    return contrast_concepts(dataset, negatives_per_positive=1)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ([0, 1, 0, 0, 1, 1, 1, 1], r"concept 1 has none of its 2 positive sentences among the 5 kept of 8.*\(1 of 2"),
        ([1, 1, 1, 1, 0, 0, 0, 0], r"concept 0 has none of its 4 negative sentences among the 4 kept.*\(2 of 2"),
    ],
)
def test_a_concept_left_without_sentences_is_named(keep, message):
    with pytest.raises(ConceptDataError, match=message):
        restrict_contrast(small(), np.array(keep, bool))


@pytest.mark.parametrize("keep", [np.ones(7, bool), np.arange(8)])
def test_what_to_keep_must_fit(keep):
    with pytest.raises(ConceptDataError, match=r"keep must be bool \[8\]"):
        restrict_contrast(small(), keep)


# Halves.


@settings(max_examples=60)
@given(contrasts(), st.integers(0, 1000))
def test_halves_are_a_partition_with_every_concept_in_both(contrast, seed):
    halves = split_halves(contrast, seed=seed)
    assert halves.dtype == bool
    assert halves.shape == (2, S)
    assert (halves.sum(axis=0) == 1).all()
    rows = [row[row >= 0] for row in contrast.positives]
    shared = np.bincount(np.concatenate(rows), minlength=S) > 1
    for mine in rows:
        counts = halves[:, mine].sum(axis=1)
        assert counts.min() >= 1
        if not shared[mine].any():
            assert abs(counts[0] - counts[1]) == mine.size % 2
    of_none = np.setdiff1d(np.arange(S), np.concatenate(rows))
    assert abs(np.subtract(*halves[:, of_none].sum(axis=1))) == of_none.size % 2
    np.testing.assert_array_equal(halves, split_halves(contrast, seed=seed))


def test_odd_sentences_go_to_either_half():
    contrast = Contrast(
        np.arange(3, dtype=np.int32)[None], np.arange(8) > 2, *np.zeros((2, 1, 0), np.int32), np.ones(1, np.float32)
    )
    halves = np.array([split_halves(contrast, seed=seed) for seed in range(200)])
    for sentences in (slice(0, 3), slice(3, 8)):
        size = sentences.stop - sentences.start
        in_first = halves[:, 0, sentences].sum(axis=1)
        assert set(in_first.tolist()) == {size // 2, size // 2 + 1}
        assert 60 < (in_first == size // 2).sum() < 140
    assert (np.abs(halves[:, 0].mean(axis=0) - 0.5) < 0.15).all()  # every sentence is as often in either


def shared_pairs(pairs, num_sentences=8):
    """Concepts of these sentences, negatives the last two."""
    pool = np.arange(num_sentences) >= num_sentences - 2
    return Contrast(
        np.array(pairs, np.int32), pool, *np.zeros((2, len(pairs), 0), np.int32), np.ones(len(pairs), np.float32)
    )


def test_shared_sentences_are_moved_until_both_halves_have_one():
    chain = [(0, 1), (2, 3), (4, 5), (1, 2), (3, 4)]  # only two splits do: the even and the odd ones
    contrast = shared_pairs(chain)
    split = [seed for seed in range(40) if not _fails(contrast, seed)]
    for seed in split:
        halves = split_halves(contrast, seed=seed)
        assert (halves[:, np.array(chain)].sum(axis=2) == 1).all()
    assert split


def _fails(contrast, seed):
    try:
        split_halves(contrast, seed=seed)
    except ConceptDataError:
        return True
    return False


def test_a_split_that_cannot_be_is_an_error():
    triangle = shared_pairs([(0, 1), (1, 2), (0, 2)])
    with pytest.raises(ConceptDataError, match=r"the 2 positive sentences of concept \d are shared"):
        split_halves(triangle, seed=0)


# Permuted.


@settings(max_examples=40)
@given(contrasts(), st.integers(1, 5), st.integers(0, 1000))
def test_permuted_concepts_are_like_the_real_ones(contrast, permutations, seed):
    permuted = permuted_labels(contrast, permutations, seed=seed)
    assert_well_formed(permuted)
    sizes, size_of_concept = permuted_sizes(contrast)
    np.testing.assert_array_equal(permuted.num_positives, np.repeat(sizes, permutations))
    np.testing.assert_array_equal(permuted.pool, contrast.pool)
    np.testing.assert_allclose(permuted.base_rate, contrast.base_rate[0], rtol=1e-5)
    np.testing.assert_array_equal(sizes[size_of_concept], contrast.num_positives)
    eligible = contrast.pool | is_negative(contrast).any(axis=0)
    eligible[contrast.positives[contrast.positives >= 0]] = True
    negatives = is_negative(permuted)
    for row, mine in enumerate(permuted.positives):
        mine = mine[mine >= 0]
        assert eligible[mine].all()
        assert not negatives[row, mine].any()
        if contrast.pool.any():
            np.testing.assert_array_equal(negatives[row], contrast.pool & ~np.isin(np.arange(S), mine))
        else:
            assert (eligible | ~negatives[row]).all()
            assert permuted.num_negatives[row] == contrast.num_negatives[size_of_concept == row // permutations].min()


def test_more_permutations_begin_with_the_same():
    few, many = (permuted_labels(small(), permutations, seed=3) for permutations in (4, 9))
    np.testing.assert_array_equal(few.positives, many.positives[:4])
    assert len(np.unique(many.positives, axis=0)) > 4
    assert permuted_labels(small(), 4, seed=4).positives.tolist() != few.positives.tolist()


@given(st.lists(st.integers(1, 60), min_size=1, max_size=50))
def test_sizes_are_few_and_rounded_down(counts):
    positives = np.where(np.arange(max(counts)) < np.array(counts)[:, None], np.arange(max(counts)), -1)
    contrast = Contrast(
        positives.astype(np.int32),
        np.arange(max(counts) + 3) >= max(counts),
        *np.zeros((2, len(counts), 0), np.int32),
        np.ones(len(counts), np.float32),
    )
    sizes, size_of_concept = permuted_sizes(contrast)
    assert sizes.size <= 5
    assert sizes[0] == min(counts)
    assert (sizes[size_of_concept] <= counts).all()
    if len(set(counts)) <= 5:
        np.testing.assert_array_equal(sizes[size_of_concept], counts)
    larger = np.append(sizes, np.inf)[size_of_concept + 1]
    assert (larger > counts).all()  # no size nearer from below


def test_base_rates_that_differ_give_the_highest():
    labels = np.zeros((2, 8), bool)
    labels[0, :2] = labels[1, 2:4] = True
    contrast = Contrast(
        small().positives,
        small().pool,
        *np.zeros((2, 2, 0), np.int32),
        np.array([0.5, 2], np.float32),
    )
    permuted = permuted_labels(contrast, 3, seed=0)
    np.testing.assert_allclose(permuted.base_rate, contrast.base_rate[0], rtol=1e-6)


def test_permutations_that_cannot_be_are_refused():
    with pytest.raises(ConceptDataError, match="permutations must be 1 or above, not 0"):
        permuted_labels(small(), 0, seed=0)
    labels = np.array([[1, 1, 1, 0]], bool)
    dataset = ConceptDataset("made", tuple("abcd"), ("cat",), ("",), labels, np.arange(4) > 2)
    with pytest.raises(ConceptDataError, match="a random set of 3 sentences leaves none as negatives: 4 sentences"):
        permuted_labels(contrast_concepts(dataset), 50, seed=0)
