"""Directions from responses and labels: where a concept's sentences lie from the others, in all channels at once.

Pure functions of arrays: responses float `[sentences, channels]`, and labels int8 `[concepts, sentences]`, 1 where a
sentence is a positive of the concept, 0 where it is a negative, -1 where it is neither. Each returns float64
`[concepts, channels]`, which points to the positives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from expertlens_jax.errors import SelectionError

Fit = Callable[[np.ndarray, np.ndarray, Sequence[np.random.SeedSequence]], np.ndarray]
REGULARISATION = 0.01
"""scikit-learn's C of the probe, on standardised channels."""


def class_means(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of the positives' and of the negatives' responses, float64 `[concepts, channels]` each."""
    means = []
    for label in (1, 0):
        members = (labels == label).astype(np.float32)
        means.append((members @ values).astype(np.float64) / members.sum(axis=1, keepdims=True, dtype=np.float64))
    return means[0], means[1]


def class_spread(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel over a concept's sentences, either kind weighing a half.

    A channel that is constant has the deviation 1, and standardises to 0.

    Returns:
      float64 `[concepts, channels]` each.
    """
    centre = values.mean(axis=0, dtype=np.float64).astype(np.float32)  # squares of small numbers keep their digits
    moved = values - centre
    first, second = class_means(moved, labels), class_means(moved**2, labels)
    mean = (first[0] + first[1]) / 2
    deviation = np.sqrt(np.maximum((second[0] + second[1]) / 2 - mean**2, 0))
    return mean + centre, np.where(deviation > 1e-6 * (1e-30 + np.abs(mean + centre)), deviation, 1.0)


def mean_difference(values: np.ndarray, labels: np.ndarray, keys: Sequence[np.random.SeedSequence] = ()) -> np.ndarray:
    """Return the mean of the positives less that of the negatives.

    "DiffMean" of AxBench (Wu et al., arXiv 2501.17148); what contrastive activation addition adds (Rimsky et al. 2024).
    """
    del keys
    positive, negative = class_means(values, labels)
    return positive - negative


def first_component(values: np.ndarray, labels: np.ndarray, keys: Sequence[np.random.SeedSequence]) -> np.ndarray:
    """Return the first principal component of differences between each positive and a negative drawn for it.

    Linear artificial tomography (Zou et al., "Representation engineering", arXiv 2310.01405), which turns half of the
    differences round and so has their mean at 0: it is the direction of their largest square. Its sign is the one that
    most differences agree with on average.
    """
    directions = []
    for row, key in zip(labels, keys, strict=True):
        positives, negatives = np.flatnonzero(row == 1), np.flatnonzero(row == 0)
        drawn = np.random.default_rng(key).choice(negatives, positives.size, replace=positives.size > negatives.size)
        differences = values[positives].astype(np.float64) - values[drawn]
        direction = np.linalg.svd(differences, full_matrices=False)[2][0]
        directions.append(direction * (1 if (differences @ direction).sum() >= 0 else -1))
    return np.array(directions)


def probe(values: np.ndarray, labels: np.ndarray, keys: Sequence[np.random.SeedSequence] = ()) -> np.ndarray:
    """Return the weights of a logistic regression, as scikit-learn fits it.

    Channels are standardised (`class_spread`), positives and negatives weigh alike in sum, and the penalty is L2 with
    `C = REGULARISATION`. The weights are those of the channels as they are.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    del keys
    weights = []
    for row in labels:
        own = row >= 0
        centre, scale = class_spread(values[own], row[None, own])
        standardised = (values[own] - centre) / scale
        regression = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=1000)
        with threadpool_limits(1):  # so small a problem only waits for other threads
            weights.append(regression.fit(standardised, row[own]).coef_[0] / scale[0])
    return np.array(weights)


FITS: dict[str, Fit] = {"mean_difference": mean_difference, "pca": first_component, "probe": probe}
"""The ways to find a direction, by name."""


def check_fit(method: str) -> None:
    """Refuse a name that isn't in `FITS`.

    Raises:
      SelectionError: the message names those there are.
    """
    if method not in FITS:
        raise SelectionError(f"Unknown method of directions {method!r}. Choose from: {', '.join(FITS)}.")


def concept_key(seed: int, concept: str) -> np.random.SeedSequence:
    """Return the key of a concept's draws: by its name, so that concepts before it don't matter."""
    return np.random.SeedSequence([seed, *concept.encode()])
