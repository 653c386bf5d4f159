"""Average precision, AUROC and F1 of scores are scikit-learn's, whatever ties, weights and left-out sentences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from expertlens_jax.analysis.detecting import curves


@st.composite
def scored(draw):
    """Scores with many ties, and labels of all three kinds, [1, sentences]."""
    size = draw(st.integers(2, 40))
    labels = draw(st.lists(st.sampled_from([1, 0, 0, -1]), min_size=size, max_size=size))
    scores = draw(st.lists(st.integers(-4, 4), min_size=size + 2, max_size=size + 2))
    return np.array([scores], float) / 3, np.array([[*labels, 1, 0]], np.int8)


def weights_of(labels, ratio):
    own = labels[labels >= 0]
    return own, np.where(own == 1, 1.0, ratio * (own == 1).sum() / (own == 0).sum())


@settings(max_examples=40, deadline=None)
@given(scored(), st.sampled_from([0.5, 1, 10, 100]))
def test_measures_are_those_of_scikit_learn(case, ratio):
    scores, labels = case
    found = curves.count_curves(scores, labels)
    own, weights = weights_of(labels[0], ratio)
    values = scores[0][labels[0] >= 0]
    wanted = average_precision_score(own, values, sample_weight=weights)
    assert curves.average_precision(found, ratio)[0] == pytest.approx(wanted, abs=1e-12)
    assert curves.auroc(found)[0] == pytest.approx(roc_auc_score(own, values), abs=1e-12)
    for threshold in (-1.0, 0.0, 1 / 3, 0.5):
        wanted = f1_score(own, values >= threshold, sample_weight=weights)
        assert curves.f1_at(found, np.array([threshold]), ratio)[0] == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(scored(), st.sampled_from([0.5, 1, 10]))
def test_the_threshold_is_the_best_there_is(case, ratio):
    scores, labels = case
    found = curves.count_curves(scores, labels)
    own, weights = weights_of(labels[0], ratio)
    values = scores[0][labels[0] >= 0]
    best = max(f1_score(own, values >= each, sample_weight=weights) for each in values)
    threshold = curves.best_threshold(found, ratio)
    assert f1_score(own, values >= threshold[0], sample_weight=weights) == pytest.approx(best, abs=1e-12)
    assert not np.isin(threshold, values).any() or threshold[0] == values.min()  # half way to the next lower score


@settings(max_examples=25, deadline=None)
@given(scored(), st.integers(0, 2**16))
def test_the_order_of_sentences_changes_nothing(case, seed):
    scores, labels = case
    order = np.random.default_rng(seed).permutation(scores.shape[1])
    first, second = curves.count_curves(scores, labels), curves.count_curves(scores[:, order], labels[:, order])
    assert curves.average_precision(first, 10) == pytest.approx(curves.average_precision(second, 10), abs=1e-12)
    assert curves.auroc(first) == pytest.approx(curves.auroc(second), abs=1e-12)
    assert curves.best_threshold(first, 10) == curves.best_threshold(second, 10)


def test_rows_are_apart_and_chance_is_what_constant_scores_come_to():
    labels = np.array([[1, 0, 0, 1, 0, -1], [0, 1, 0, 0, 0, 0]], np.int8)
    found = curves.count_curves(np.zeros((2, 6)), labels)
    for ratio in (1, 10, 100):
        np.testing.assert_allclose(curves.average_precision(found, ratio), curves.chance("average_precision", ratio))
        threshold = curves.best_threshold(found, ratio)
        np.testing.assert_allclose(curves.f1_at(found, threshold, ratio), curves.chance("f1", ratio))
    np.testing.assert_allclose(curves.auroc(found), curves.chance("auroc", 1))
