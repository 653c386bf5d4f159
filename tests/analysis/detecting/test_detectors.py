"""Detectors, on made-up responses: what each is by hand, and a user's own among them."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import expertlens_jax as el
from expertlens_jax.analysis.detecting.contest import try_detectors
from expertlens_jax.analysis.detecting.detectors import (
    NEGATIVES_PER_POSITIVE,
    TOP,
    Training,
    check_detectors,
    contrast_of_labels,
    fit_detector,
)
from expertlens_jax.errors import ResponsesError, SelectionError
from expertlens_jax.experts.direction_fits import concept_key

WORDS = ("cat", "bread")
KEYS = tuple(concept_key(0, word) for word in WORDS)


@pytest.fixture(scope="module")
def training():
    """Two concepts, 90 sentences and 30 units, of which 5 are good at either; labels of all three kinds."""
    rng = np.random.default_rng(0)
    labels = np.zeros((2, 90), np.int8)
    labels[0, :20], labels[1, 20:40], labels[0, 50:55] = 1, 1, -1
    values = rng.normal(size=(90, 30))
    for concept in range(2):
        values[np.ix_(labels[concept] == 1, np.arange(5) + 10 * concept)] += [1, 1.5, 2, 2.5, 3]
    return Training(values.astype(np.float32), labels, KEYS)


def scores(name, training, others=None):
    return fit_detector(el.DETECTORS[name], training)(training.values if others is None else others)


def weighted_precision(training, concept):
    own = training.labels[concept] >= 0
    labels = training.labels[concept, own]
    weights = np.where(labels == 1, 1, NEGATIVES_PER_POSITIVE * (labels == 1).sum() / (labels == 0).sum())
    return [average_precision_score(labels, unit[own], sample_weight=weights) for unit in training.values.T]


def test_expertise_is_scikit_learns_average_precision_of_the_sentences_learned_from(training):
    for concept in range(2):
        np.testing.assert_allclose(training.expertise[concept], weighted_precision(training, concept), atol=2e-6)


def test_a_contrast_of_labels_has_the_labels_weights(training):
    contrast = contrast_of_labels(training.labels)
    weights = contrast.weights()
    np.testing.assert_array_equal(weights > 0, training.labels >= 0)
    np.testing.assert_allclose(contrast.base_rate, 1 / (1 + NEGATIVES_PER_POSITIVE), rtol=1e-6)


def test_the_best_expert_scores_by_its_response_and_the_top_ones_by_their_mean(training):
    found = scores("best_expert", training)
    for concept in range(2):
        precision = np.array(weighted_precision(training, concept))
        np.testing.assert_array_equal(found[concept], training.values[:, precision.argmax()])
        best = np.argsort(-precision)[:TOP]
        own = training.labels[concept]
        chosen = training.values[:, best].astype(np.float64)
        weights = np.where(own == 1, 0.5 / (own == 1).sum(), np.where(own == 0, 0.5 / (own == 0).sum(), 0))
        mean = weights @ chosen
        deviation = np.sqrt(weights @ (chosen - mean) ** 2)
        wanted = ((chosen - mean) / deviation).mean(axis=1)
        np.testing.assert_allclose(scores("top_experts", training)[concept], wanted, atol=1e-5)


def test_votes_are_shares_of_the_experts_nearer_to_the_positives(training):
    found = scores("expert_vote", training)
    for concept in range(2):
        experts = np.flatnonzero(np.array(weighted_precision(training, concept)) >= 0.5)
        own, values = training.labels[concept], training.values[:, experts]
        middle = (values[own == 1].mean(axis=0) + values[own == 0].mean(axis=0)) / 2
        np.testing.assert_allclose(found[concept], (values > middle).mean(axis=1))


def test_experts_and_others_are_parts_of_the_difference_over_all_units(training):
    whole, experts, others = (
        scores(name, training) for name in ("unit_difference", "expert_difference", "nonexpert_difference")
    )
    np.testing.assert_allclose(experts + others, whole, atol=1e-3)
    assert experts[0, :20].mean() - experts[0, 20:].mean() > others[0, :20].mean() - others[0, 20:].mean()


def test_random_units_are_drawn_by_the_concepts_name(training):
    swapped = Training(training.values, training.labels[::-1], KEYS[::-1])
    np.testing.assert_allclose(scores("random_units", training), scores("random_units", swapped)[::-1], atol=1e-6)


@pytest.mark.parametrize("name", sorted(el.DETECTORS.keys() - {"bag_of_words", "pca"}))  # pca draws from the negatives
def test_the_order_of_sentences_and_of_concepts_changes_no_score(training, name):
    order = np.random.default_rng(1).permutation(90)
    moved = Training(training.values[order], training.labels[::-1, order], KEYS[::-1])
    first, second = scores(name, training), scores(name, moved, training.values)[::-1]
    np.testing.assert_allclose(second, first, atol=2e-3 * np.abs(first).max())


def test_the_stream_is_scored_by_its_highest_token_and_learned_from_by_its_mean():
    rng = np.random.default_rng(2)
    stream = rng.normal(size=(40, 6, 5)).astype(np.float32)
    lengths = rng.integers(1, 7, 40)
    stream[np.arange(6) >= lengths[:, None]] = np.nan
    labels = np.tile([1, 0, 0, -1], 10).astype(np.int8)[None]
    learned = Training(stream, labels, KEYS[:1])
    means = np.stack([each[:length].mean(axis=0) for each, length in zip(stream, lengths, strict=True)])
    direction = means[labels[0] == 1].mean(axis=0) - means[labels[0] == 0].mean(axis=0)
    wanted = [(each[:length] @ direction).max() for each, length in zip(stream, lengths, strict=True)]
    np.testing.assert_allclose(scores("mean_difference", learned)[0], wanted, atol=1e-5)


def test_a_bag_of_words_finds_the_word():
    text = [f"the {word} is {thing}" for word in ("cat", "bread") for thing in ("here", "there", "gone", "lost")]
    text += [f"a {word} was {thing}" for word in ("dog", "car") for thing in ("here", "there", "gone", "lost")]
    labels = np.zeros((2, 16), np.int8)
    labels[0, :4], labels[1, 4:8] = 1, 1
    learned = Training(np.array(text, object), labels, KEYS)
    found = scores("bag_of_words", learned, np.array(["one cat sat", "some bread fell", "a dog ran"], object))
    assert found[0].argmax() == 0 and found[1].argmax() == 1


def test_a_detector_of_ones_own_stands_beside_the_others(training, monkeypatch):
    seen = []

    def loudest(values, labels, key):
        seen.append((values.shape, labels.dtype, np.random.default_rng(key).integers(100)))
        best = (values[labels].mean(axis=0) - values[~labels].mean(axis=0)).argmax()
        return lambda others: others[:, best]

    monkeypatch.setitem(el.DETECTORS, "loudest", el.Detector("loudest", loudest))
    found = try_detectors(
        {"units": training}, {"units": training.values}, training.labels, ("loudest", "best_expert"), (1, 10)
    )
    assert seen == [((85, 30), bool, seen[0][2]), ((90, 30), bool, seen[1][2])] and seen[0][2] != seen[1][2]
    table = found.groupby(["detector", "measure"])["value"].mean()
    assert table["loudest", "auroc"] > 0.9 and table["best_expert", "auroc"] > 0.9
    # 2 rows for AUROC, 2 x 2 for each of the others
    assert found.groupby(["detector", "measure"]).size().unstack().loc["loudest"].to_dict() == {
        "auroc": 2,
        "average_precision": 4,
        "f1": 4,
    }


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda others: others, r"'odd' returned scores of shape \[2, 90, 30\]; wanted finite numbers"),
        (lambda others: np.full(len(others), np.nan), "some of them not finite"),
    ],
)
def test_scores_of_no_use_are_refused_by_the_detectors_name(training, monkeypatch, score, message):
    monkeypatch.setitem(el.DETECTORS, "odd", el.Detector("odd", lambda values, labels, key: score))
    with pytest.raises(ResponsesError, match=message):
        try_detectors({"units": training}, {"units": training.values}, training.labels, ("odd",), (1,))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: check_detectors(("best_expert", "svm")), "Unknown detector 'svm'. Choose from: best_expert, top_exp"),
        (lambda: check_detectors("probe"), r"wanted several names, such as detectors=\('probe',\)"),
        (lambda: check_detectors(()), "wanted one or more, each once"),
        (lambda: check_detectors(("probe", "probe")), "wanted one or more, each once"),
        (lambda: el.Detector("mine", len, reads="logits"), "reads='logits'.: unknown. Choose from: units, stream"),
        (lambda: el.Detector("mine", 3), "was given a int; wanted a function of values, labels and key"),
    ],
)
def test_what_is_no_detector_is_refused(make, message):
    with pytest.raises(SelectionError, match=message):
        make()


def test_a_table_entry_that_is_no_detector_is_refused(monkeypatch):
    monkeypatch.setitem(el.DETECTORS, "mine", len)
    with pytest.raises(SelectionError, match=r"DETECTORS\['mine'\] is a builtin_function"):
        check_detectors(("mine",))
