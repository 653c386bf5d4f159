"""Directions from arrays are what numpy's closed forms and scikit-learn give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from expertlens_jax.errors import SelectionError
from expertlens_jax.experts import direction_fits as fits

KEYS = (np.random.SeedSequence(3), np.random.SeedSequence(4))


def made(seed=0, sentences=60, channels=7):
    """Responses that lean to one side at positives, and labels of two concepts, some of neither kind."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([1, 0, 0, -1], (2, sentences)).astype(np.int8)
    labels[:, :2] = [[1, 0], [0, 1]]
    values = rng.normal(size=(sentences, channels)) * np.arange(1, channels + 1)
    values[labels[0] == 1, 2] += 4
    return values.astype(np.float32), labels


def test_the_difference_of_means_is_that():
    values, labels = made()
    wanted = [values[row == 1].mean(axis=0) - values[row == 0].mean(axis=0) for row in labels]
    np.testing.assert_allclose(fits.mean_difference(values, labels), wanted, atol=2e-5)


def test_the_probe_is_scikit_learns_on_balanced_channels():
    values, labels = made()
    found = fits.probe(values, labels)
    for row, direction in zip(labels, found, strict=True):
        own = row >= 0
        weights = np.where(row[own] == 1, 1 / (row == 1).sum(), 1 / (row == 0).sum())
        scaler = StandardScaler().fit(values[own].astype(np.float64), sample_weight=weights)
        regression = LogisticRegression(C=fits.REGULARISATION, class_weight="balanced", max_iter=1000)
        wanted = regression.fit(scaler.transform(values[own].astype(np.float64)), row[own]).coef_[0] / scaler.scale_
        np.testing.assert_allclose(direction, wanted, rtol=2e-3, atol=1e-6)


def test_the_component_is_scikit_learns_of_the_same_differences_and_points_to_the_positives():
    values, labels = made()
    found = fits.first_component(values, labels, KEYS)
    for row, key, direction in zip(labels, KEYS, found, strict=True):
        positives, negatives = np.flatnonzero(row == 1), np.flatnonzero(row == 0)
        drawn = np.random.default_rng(key).choice(negatives, positives.size, replace=False)
        differences = values[positives].astype(np.float64) - values[drawn]
        wanted = TruncatedSVD(1, algorithm="arpack").fit(differences).components_[0]
        assert abs(direction @ wanted) == pytest.approx(1, abs=1e-6)
        assert (differences @ direction).mean() >= 0


def test_one_dimension_apart_is_found_by_all():
    values, labels = made()
    values[:, 2] *= 3
    for fit in fits.FITS.values():
        weighed = fit(values, labels, KEYS)[0] * values.std(axis=0)  # what a sentence's score changes by
        assert np.abs(weighed).argmax() == 2


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**16), st.sampled_from(["mean_difference", "probe"]))
def test_the_order_of_sentences_and_other_concepts_change_nothing(seed, method):
    values, labels = made(seed)
    order = np.random.default_rng(seed).permutation(len(values))
    found = fits.FITS[method](values, labels, KEYS)
    again = fits.FITS[method](values[order], labels[:1, order], KEYS[:1])
    np.testing.assert_allclose(again[0], found[0], atol=1e-3 * np.abs(found[0]).max())


def test_a_constant_channel_is_no_direction():
    values, labels = made()
    values[:, 4] = 1234.5
    mean, deviation = fits.class_spread(values, labels)
    assert (mean[:, 4], deviation[:, 4]) == (pytest.approx([1234.5] * 2), pytest.approx([1, 1]))
    assert np.isfinite(fits.probe(values, labels)).all() and np.abs(fits.probe(values, labels)[:, 4]).max() < 1e-6


def test_an_unknown_method_is_refused_by_name():
    with pytest.raises(SelectionError, match="'median'. Choose from: mean_difference, pca, probe"):
        fits.check_fit("median")
