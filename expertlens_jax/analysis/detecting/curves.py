"""How well scores tell positives from negatives: average precision, AUROC, F1, at any number of negatives per positive.

Scores are float `[rows, sentences]`, a row per concept; labels int8 of the same shape: 1 a positive, 0 a negative, -1
left out. Each positive weighs 1, and the negatives together `ratio` times as much as the positives: what scikit-learn
gives with these as `sample_weight`. One sort serves all ratios.
"""

from __future__ import annotations

import dataclasses

import numpy as np

MEASURES = ("average_precision", "auroc", "f1")


@dataclasses.dataclass(frozen=True, eq=False)
class Curves:
    """Each row's sentences from the highest score to the lowest, counted: what all the measures are sums over."""

    scores: np.ndarray
    """float64 `[rows, sentences]`, descending; NaN where left out."""
    positive: np.ndarray
    """bool `[rows, sentences]`, in that order."""
    positives_above: np.ndarray
    """int `[rows, sentences]`: positives of at least this score."""
    negatives_above: np.ndarray
    """Negatives of at least this score."""
    negatives_before: np.ndarray
    """Negatives of a higher score."""
    last_of_tie: np.ndarray
    """bool `[rows, sentences]`: the next one's score is lower, or there is none."""

    @property
    def num_positives(self) -> np.ndarray:
        """float64 `[rows, 1]`."""
        return self.positive.sum(axis=1, keepdims=True).astype(np.float64)

    @property
    def num_negatives(self) -> np.ndarray:
        """float64 `[rows, 1]`."""
        return self.negatives_above.max(axis=1, keepdims=True).astype(np.float64)

    def weighted_negatives(self, ratio: float) -> np.ndarray:
        """Return the weight of the negatives of at least this score."""
        return self.negatives_above * (ratio * self.num_positives / self.num_negatives)


def count_curves(scores: np.ndarray, labels: np.ndarray) -> Curves:
    """Return the counts along each row; every row has a positive and a negative."""
    values = np.where(labels >= 0, np.asarray(scores, np.float64), -np.inf)
    order = np.argsort(-values, axis=1, kind="stable")
    values, ordered = np.take_along_axis(values, order, 1), np.take_along_axis(labels, order, 1)
    last = np.ones(values.shape, bool)
    last[:, :-1] = values[:, 1:] < values[:, :-1]
    places = np.arange(values.shape[1])
    end = np.minimum.accumulate(np.where(last, places, values.shape[1])[:, ::-1], axis=1)[:, ::-1]
    negatives = np.cumsum(ordered == 0, axis=1)
    first = np.ones(values.shape, bool)
    first[:, 1:] = last[:, :-1]
    start = np.maximum.accumulate(np.where(first, places, 0), axis=1)
    return Curves(
        scores=np.where(ordered >= 0, values, np.nan),
        positive=ordered == 1,
        positives_above=np.take_along_axis(np.cumsum(ordered == 1, axis=1), end, 1),
        negatives_above=np.take_along_axis(negatives, end, 1),
        negatives_before=np.take_along_axis(negatives - (ordered == 0), start, 1),
        last_of_tie=last & (ordered >= 0),
    )


def average_precision(curves: Curves, ratio: float) -> np.ndarray:
    """Return float64 `[rows]`: `sklearn.metrics.average_precision_score`, ties and weights included."""
    above = np.maximum(curves.positives_above, 1)  # only where nothing is a positive is it 0, and that isn't summed
    precision = above / (above + curves.weighted_negatives(ratio))
    return np.where(curves.positive, precision, 0).sum(axis=1) / curves.num_positives[:, 0]


def auroc(curves: Curves) -> np.ndarray:
    """Return float64 `[rows]`: how often a positive's score is above a negative's, a half where they tie."""
    above = (curves.negatives_before + curves.negatives_above) / 2
    missed = np.where(curves.positive, above, 0).sum(axis=1) / (curves.num_positives * curves.num_negatives)[:, 0]
    return 1 - missed


def best_threshold(curves: Curves, ratio: float) -> np.ndarray:
    """Return float64 `[rows]`: the threshold of largest F1, half way down to the next lower score.

    Of equally good ones, the highest.
    """
    weight = curves.weighted_negatives(ratio)
    f1 = 2 * curves.positives_above / (curves.positives_above + weight + curves.num_positives)
    best = np.argmax(np.where(curves.last_of_tie & ~np.isnan(curves.scores), f1, -1), axis=1)[:, None]
    here = np.take_along_axis(curves.scores, best, 1)
    below = np.take_along_axis(curves.scores, np.minimum(best + 1, curves.scores.shape[1] - 1), 1)
    middle = np.where(np.isnan(below), here, (here + np.where(np.isnan(below), here, below)) / 2)
    return np.where(middle > below, middle, here)[:, 0]


def f1_at(curves: Curves, threshold: np.ndarray, ratio: float) -> np.ndarray:
    """Return float64 `[rows]`: the F1 of calling positive what scores at least the threshold `[rows]`."""
    called = curves.scores >= threshold[:, None]
    hits = (called & curves.positive).sum(axis=1)
    all_called = called.sum(axis=1)
    weight = ratio * curves.num_positives[:, 0] / curves.num_negatives[:, 0]
    return 2 * hits / (hits + (all_called - hits) * weight + curves.num_positives[:, 0])


def chance(measure: str, ratio: float) -> float:
    """Return what scores that know nothing come to: for F1, the best of it, which is to call everything positive."""
    rate = 1 / (1 + ratio)
    return {"average_precision": rate, "auroc": 0.5, "f1": 2 * rate / (1 + rate)}[measure]
