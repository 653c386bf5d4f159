"""Detectors that learn from the same sentences and are tried on the same others: a number a concept, and means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from expertlens_jax.analysis.detecting import curves
from expertlens_jax.analysis.detecting.detectors import (
    DETECTORS,
    Training,
    experts_of,
    fit_detector,
    standardised_difference,
)
from expertlens_jax.analysis.statistics import bootstrap_mean, holm, least_p_of_signs, signed_ranks_p
from expertlens_jax.data.rows import each_group
from expertlens_jax.errors import ResponsesError

CONDITION = ["positives", "label_noise", "measure", "negatives_per_positive"]


def try_detectors(
    training: Mapping[str, Training], testing: Mapping[str, np.ndarray], labels: np.ndarray, names: Sequence[str],
    ratios: Sequence[float],
) -> pd.DataFrame:  # fmt: skip
    """Let detectors learn, score the test sentences, and measure how well they tell them apart.

    Args:
      training: by what is read of a sentence.
      testing: what is read of the test sentences.
      labels: of those, int8 `[concepts, test sentences]`, rows as in the training.
      names: of detectors.
      ratios: numbers of negatives per positive.

    Returns:
      A row per detector, measure, ratio (NaN for AUROC, which has none) and row of the labels: `detector`, `measure`,
      `negatives_per_positive`, `row`, `value`.

    Raises:
      ResponsesError: a detector's scores have another shape, or aren't finite.
    """
    parts = []
    for name in names:
        detector = DETECTORS[name]
        learned = training[detector.reads]
        score = fit_detector(detector, learned)
        found = []
        for values, wanted in ((learned.values, learned.labels), (testing[detector.reads], labels)):
            scores = np.asarray(score(values), np.float64)
            if scores.shape != wanted.shape or not np.isfinite(scores).all():
                raise ResponsesError(
                    f"the detector {name!r} returned scores of shape {list(scores.shape)}"
                    f"{'' if np.isfinite(scores).all() else ', some of them not finite'}; wanted finite numbers, a "
                    f"score for each of {wanted.shape[1]} sentences."
                )
            found.append(curves.count_curves(scores, wanted))
        known, tried = found
        measured = [("auroc", np.nan, curves.auroc(tried))]
        for ratio in ratios:
            measured.append(("average_precision", ratio, curves.average_precision(tried, ratio)))
            threshold = curves.best_threshold(known, ratio)
            measured.append(("f1", ratio, curves.f1_at(tried, threshold, ratio)))
        parts += [
            pd.DataFrame({"detector": name, "measure": measure, "negatives_per_positive": ratio, "value": values})
            .rename_axis("row")
            .reset_index()
            for measure, ratio, values in measured
        ]
    return pd.concat(parts, ignore_index=True)


def summarise_detectors(per_concept: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Return means over concepts with 95% intervals from resampling the concepts, beside chance.

    Args:
      per_concept: a row per detector, condition (`CONDITION`) and concept: `value`.
      resamples: draws of the bootstrap.
      seed: of those.
    """
    rows = []
    for (name, *condition), part in each_group(per_concept, ["detector", *CONDITION], dropna=False):
        value, low, high = bootstrap_mean(part["value"].to_numpy()[:, None], resamples, seed)
        positives, noise, measure, ratio = condition
        rows.append(
            {"detector": name, "reads": DETECTORS[name].reads, "positives": positives, "label_noise": noise}
            | {"measure": measure, "negatives_per_positive": ratio, "concepts": len(part), "value": value}
            | {"ci_low": low, "ci_high": high, "chance": curves.chance(measure, ratio)}
        )
    return pd.DataFrame(rows)


def compare_detectors(
    per_concept: pd.DataFrame, reference: str, *, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Return a detector against each other one, concept by concept, where most is learned from and no label is wrong.

    Args:
      per_concept: as in `summarise_detectors`, with `concept`.
      reference: the detector.
      resamples: draws of the bootstrap over concepts.
      seed: of those.

    Returns:
      A row per measure, ratio and other detector: `detector` (the reference), `other`, `concepts`, `value`,
      `other_value`, `difference` (first less second), its 95% interval `ci_low`, `ci_high`, `p_value` (Wilcoxon's
      signed ranks, two-sided), `p_holm` (over the others of a measure and ratio), `least_p` (of
      `p_holm`, that so few concepts could give).
    """
    most = per_concept[(per_concept["positives"] == per_concept["positives"].max()) & (per_concept["label_noise"] == 0)]
    rows = []
    for (measure, ratio), part in most.groupby(["measure", "negatives_per_positive"], sort=False, dropna=False):
        table = part.pivot_table(index="concept", columns="detector", values="value", sort=False)
        own, tests = table[reference].to_numpy(), []
        for other in dict.fromkeys(part["detector"]):
            if other == reference:
                continue
            differences = own - table[other].to_numpy()
            value, low, high = bootstrap_mean(differences[:, None], resamples, seed)
            tests.append(
                {"measure": measure, "negatives_per_positive": ratio, "detector": reference, "other": other}
                | {"concepts": len(own), "value": own.mean(), "other_value": table[other].mean()}
                | {"difference": value, "ci_low": low, "ci_high": high, "p_value": signed_ranks_p(differences)}
            )
        adjusted = holm([row["p_value"] for row in tests])
        least = min(1.0, least_p_of_signs(len(own)) * len(tests))
        rows += [row | {"p_holm": p, "least_p": least} for row, p in zip(tests, adjusted, strict=True)]
    return pd.DataFrame(rows)


def share_of_directions(training: Training, concepts: Sequence[str]) -> pd.DataFrame:
    """Return how much of the difference of means, over all units, lies in the experts.

    The difference is in deviations of each unit, and its share is of the squared length. Experts are units of average
    precision 0.5 or more in the same sentences, or the best one.

    Args:
      training: of units; its first rows are of the concepts.
      concepts: their names.

    Returns:
      A row per concept: `concept`, `experts`, `share_of_units` (what the share would be if all units were alike),
      `share_of_square`.
    """
    experts = experts_of(training)[: len(concepts)]
    squares = standardised_difference(training)[: len(concepts)] ** 2
    return pd.DataFrame(
        {
            "concept": list(concepts),
            "experts": experts.sum(axis=1),
            "share_of_units": experts.mean(axis=1),
            "share_of_square": np.where(experts, squares, 0).sum(axis=1) / squares.sum(axis=1),
        }
    )
