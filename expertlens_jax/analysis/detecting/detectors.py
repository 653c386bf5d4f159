"""Detectors as data: each learns from labelled sentences, and scores others by how much they are of the concept.

`DETECTORS` holds them by name. One of your own is one more entry, `el.DETECTORS["mine"] = el.Detector("mine", fit)`,
and then stands in every table beside the others.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from expertlens_jax.data.contrast import Contrast
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts import direction_fits
from expertlens_jax.experts.ranking import rank_units

READINGS = ("units", "stream", "embedding", "sae", "sentences")
"""What a detector may read of a sentence: pooled responses of units; the residual stream at every token; an embedding;
pooled features of sparse autoencoders; or its text."""

NEGATIVES_PER_POSITIVE = 2.5  # that experts are ranked with, as everywhere
TOP = 10  # experts that are asked together, and as many random units
THRESHOLD = 0.5  # on average precision, of the experts that vote
Score = Callable[[np.ndarray], np.ndarray]


def top_channels(expertise: np.ndarray, number: int) -> np.ndarray:
    """Return the channels of highest average precision, the best first; of equal ones the first.

    Args:
      expertise: float `[concepts, channels]`.
      number: of channels; all if there are fewer.

    Returns:
      int `[concepts, number]`.
    """
    return np.argsort(-expertise, axis=1, kind="stable")[:, : min(number, expertise.shape[1])]


def precision_elsewhere(chosen_on: np.ndarray, tried_on: np.ndarray) -> np.ndarray:
    """Return how well the best unit of each concept in some sentences detects it in others: float `[concepts]`.

    It is the detector `best_expert`, where average precision is measured already in both.

    Args:
      chosen_on: float `[concepts, units]`, average precision in the sentences that the unit is chosen by.
      tried_on: the same units' in the others.
    """
    return np.take_along_axis(tried_on, top_channels(chosen_on, 1), axis=1)[:, 0]


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """Sentences to learn from, for several concepts at once."""

    values: np.ndarray
    """What is read of each: float32 `[sentences, channels]`; of the stream `[sentences, tokens, channels]`, NaN where a
    sentence has no token; or `[sentences]` of text."""
    labels: np.ndarray
    """int8 `[concepts, sentences]`: 1 a positive, 0 a negative, -1 not to be learned from."""
    keys: tuple[np.random.SeedSequence, ...]
    """Of each concept's draws, for `np.random.default_rng`."""

    @functools.cached_property
    def expertise(self) -> np.ndarray:
        """float32 `[concepts, channels]`: average precision, as `el.measure_expertise` defines it; all by one sort."""
        used = (self.labels >= 0).any(axis=0)
        contrast = contrast_of_labels(self.labels[:, used])
        ranking = rank_units(np.ascontiguousarray(self.values[used]), contrast, transport=False)
        return np.asarray(ranking.average_precision)

    @functools.cached_property
    def means(self) -> np.ndarray:
        """float32 `[sentences, channels]`: of the stream, means over tokens; else the values."""
        return self.values if self.values.ndim < 3 else np.nanmean(self.values, axis=1)

    @functools.cached_property
    def spread(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of each channel `[concepts, channels]`, see `direction_fits.class_spread`."""
        return direction_fits.class_spread(self.means, self.labels)

    def top(self, number: int) -> np.ndarray:
        """Return int `[concepts, number]`: the channels of highest average precision, the best first."""
        return top_channels(self.expertise, number)


@dataclasses.dataclass(frozen=True)
class Detector:
    """A way to tell a concept's sentences from others.

    >>> import expertlens_jax as el
    >>> def loudest(values, labels, key):
    ...     best = (values[labels].mean(0) - values[~labels].mean(0)).argmax()
    ...     return lambda others: others[:, best]
    >>> el.Detector("loudest", loudest, reads="embedding").reads
    'embedding'
    """

    name: str
    fit: Callable
    """`fit(values, labels, key)` takes what is read of one concept's sentences (`Training.values`), bool `[sentences]`,
    and a key for `np.random.default_rng`. It returns a function from what is read of other sentences to their scores
    `[others]`, larger where they are more of the concept."""
    reads: str = "units"
    """One of `READINGS`."""
    together: bool = False
    """`fit` takes a `Training` of all concepts instead, and its function returns scores `[concepts, others]`."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
          SelectionError: it reads nothing that can be read, or `fit` can't be called.
        """
        if self.reads not in READINGS:
            raise SelectionError(f"Detector(reads={self.reads!r}): unknown. Choose from: {', '.join(READINGS)}.")
        if not callable(self.fit):
            raise SelectionError(
                f"Detector(fit=...) was given a {type(self.fit).__name__}; wanted a function of values, labels and key."
            )


def fit_detector(detector: Detector, training: Training) -> Score:
    """Return a function from other sentences' values to scores, float64 `[concepts, others]`."""
    if detector.together:
        return detector.fit(training)
    functions = []
    for row, key in zip(training.labels, training.keys, strict=True):
        own = row >= 0
        functions.append(detector.fit(training.values[own], row[own] == 1, key))
    return lambda others: np.stack([np.asarray(function(others), np.float64) for function in functions])


def contrast_of_labels(labels: np.ndarray) -> Contrast:
    """Return the contrast that labels int8 `[concepts, sentences]` stand for, at the usual base rate."""
    positive, negative = labels == 1, labels == 0
    pool = 2 * negative.sum(axis=0) > len(labels)
    differ = negative.astype(np.int8) - pool
    counts = positive.sum(axis=1), negative.sum(axis=1)
    positives, corrected = _padded(positive), _padded(differ != 0)
    found = np.take_along_axis(differ, np.maximum(corrected, 0), 1)
    return Contrast(
        positives=positives,
        pool=pool,
        corrected=corrected,
        corrections=np.where(corrected >= 0, found, 0).astype(np.float32),
        negative_weight=(NEGATIVES_PER_POSITIVE * counts[0] / counts[1]).astype(np.float32),
    )


def _padded(members: np.ndarray) -> np.ndarray:
    """bool `[rows, n]` to int32 `[rows, most]`: places, ascending, padded with -1."""
    padded = np.full((len(members), int(members.sum(axis=1).max(initial=0))), -1, np.int32)
    for row, own in zip(padded, members, strict=True):
        row[: own.sum()] = np.flatnonzero(own)
    return padded


def _best_expert(training: Training) -> Score:
    best = training.top(1)[:, 0]
    return lambda others: others[:, best].T.astype(np.float64)


def _mean_of(training: Training, channels: np.ndarray) -> Score:
    """Return the mean of some channels of each concept `[concepts, number]`, each standardised."""
    mean, deviation = (np.take_along_axis(each, channels, 1) for each in training.spread)

    def score(others: np.ndarray) -> np.ndarray:
        rows = zip(channels, mean, deviation, strict=True)
        return np.stack([((others[:, own] - centre) / scale).mean(axis=1) for own, centre, scale in rows])

    return score


def _top_experts(training: Training) -> Score:
    return _mean_of(training, training.top(TOP))


def _random_units(training: Training) -> Score:
    width = training.values.shape[1]
    drawn = [np.random.default_rng(key).permutation(width)[:TOP] for key in training.keys]
    return _mean_of(training, np.array(drawn))


def _expert_vote(training: Training) -> Score:
    """Return each expert is for a sentence if its response is nearer to the positives' mean than to the negatives'."""
    experts = [
        np.flatnonzero(row >= THRESHOLD) if (row >= THRESHOLD).any() else [int(row.argmax())]
        for row in training.expertise
    ]
    middle = training.spread[0]  # half way between the two means, since either kind weighs a half
    return lambda others: np.stack(
        [(others[:, own] > centre[own]).mean(axis=1) for own, centre in zip(experts, middle, strict=True)]
    )


def _along(directions: np.ndarray) -> Score:
    """Return what sentences have in the direction of each concept `[concepts, channels]`.

    Of the stream it is the most at any token.

    The maximum over tokens is what units are pooled by, and how AxBench's detectors score (arXiv 2501.17148).
    """
    weights = directions.T.astype(np.float32)

    def score(others: np.ndarray) -> np.ndarray:
        if others.ndim < 3:
            return (others @ weights).T.astype(np.float64)
        there = ~np.isnan(others[:, :, 0])
        first = np.cumsum(there.sum(axis=1)) - there.sum(axis=1)
        return np.maximum.reduceat(others[there] @ weights, first, axis=0).T.astype(np.float64)

    return score


def _direction(name: str) -> Callable[[Training], Score]:
    return lambda training: _along(direction_fits.FITS[name](training.means, training.labels, training.keys))


def standardised_difference(training: Training) -> np.ndarray:
    """Return the difference of the means in deviations of each channel, float64 `[concepts, channels]`."""
    return direction_fits.mean_difference(training.means, training.labels) / training.spread[1]


def experts_of(training: Training) -> np.ndarray:
    """Return bool `[concepts, channels]`: average precision of `THRESHOLD` or more, and at least the best."""
    experts = training.expertise >= THRESHOLD
    experts[np.arange(len(experts)), training.expertise.argmax(axis=1)] = True
    return experts


def _scaled_difference(part: str) -> Callable[[Training], Score]:
    """Return the standardised difference of means on standardised channels.

    The channels are all, the experts, or all others.
    """

    def fit(training: Training) -> Score:
        weights = standardised_difference(training) / training.spread[1]
        if part != "all":
            experts = experts_of(training)
            weights = np.where(experts if part == "experts" else ~experts, weights, 0)
        return _along(weights)

    return fit


def _bag_of_words(training: Training) -> Score:
    """TF-IDF as in the control of alignments (`tfidf_similarity`), and a logistic regression on it."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    used = (training.labels >= 0).any(axis=0)
    vectorizer = TfidfVectorizer(sublinear_tf=True).fit(training.values[used].tolist())
    words = vectorizer.transform(training.values.tolist())
    regressions = [
        LogisticRegression(C=10.0, class_weight="balanced", solver="liblinear").fit(words[row >= 0], row[row >= 0])
        for row in training.labels
    ]

    def score(others: np.ndarray) -> np.ndarray:
        transformed = vectorizer.transform(others.tolist())
        return np.stack([each.decision_function(transformed) for each in regressions])

    return score


DETECTORS: dict[str, Detector] = {
    name: Detector(name, fit, reads, together=True)
    for name, fit, reads in (
        ("best_expert", _best_expert, "units"),
        ("top_experts", _top_experts, "units"),
        ("expert_vote", _expert_vote, "units"),
        ("random_units", _random_units, "units"),
        ("unit_difference", _scaled_difference("all"), "units"),
        ("expert_difference", _scaled_difference("experts"), "units"),
        ("nonexpert_difference", _scaled_difference("others"), "units"),
        ("mean_difference", _direction("mean_difference"), "stream"),
        ("scaled_difference", _scaled_difference("all"), "stream"),
        ("pca", _direction("pca"), "stream"),
        ("probe", _direction("probe"), "stream"),
        ("embedding_probe", _direction("probe"), "embedding"),
        ("bag_of_words", _bag_of_words, "sentences"),
        ("sae_feature", _best_expert, "sae"),
    )
}
"""The detectors by name. Add your own: it can then be named wherever these can."""


def check_detectors(names: Sequence[str]) -> None:
    """Refuse a name that isn't in `DETECTORS`, or one that is there twice.

    Raises:
      SelectionError: the message names the detectors there are.
    """
    if isinstance(names, str):
        raise SelectionError(f"detectors={names!r}; wanted several names, such as detectors=({names!r},).")
    for name in names:
        if name not in DETECTORS:
            raise SelectionError(f"Unknown detector {name!r}. Choose from: {', '.join(DETECTORS)}.")
        if not isinstance(DETECTORS[name], Detector):
            raise SelectionError(
                f"DETECTORS[{name!r}] is a {type(DETECTORS[name]).__name__}; wanted an el.Detector({name!r}, fit)."
            )
    if not names or len(set(names)) < len(names):
        raise SelectionError(f"detectors={tuple(names)}; wanted one or more, each once.")
