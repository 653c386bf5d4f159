"""From what was measured of many steerings to tables: effects with intervals, curves over concepts, and the claim."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from expertlens_jax.analysis.statistics import bootstrap_mean
from expertlens_jax.experts.ratio import ratio


@dataclasses.dataclass(frozen=True)
class Trial:
    """One steering that is measured."""

    concept: str
    arm: str
    """Whose units: "experts", a control's name, "shared" (a domain's), or "unsteered"."""
    method: str
    count: int
    strength: float

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.concept.replace(' ', '_')}_{self.arm}_{self.method}_{self.count}_{self.strength:g}"


def unsteered(concept: str) -> Trial:
    """Return the trial that a concept's steerings are compared with."""
    return Trial(concept, "unsteered", "none", 0, 0.0)


def interval_over_prompts(values: np.ndarray, resamples: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean of `[prompts, seeds]` measures and its 95% interval from resampling the prompts.

    Each prompt is drawn with all its continuations (Davison & Hinkley 1997, section 3.8): these are of one prompt's
    own draws, and have nothing in common with those of another prompt that stand in the same column. A single
    prompt's interval is over its continuations.

    Args:
      values: float `[prompts, seeds]`; NaN where there is no value. A change is paired cell by cell before.
      resamples: how often to draw.
      seed: of the draws.

    Returns:
      (mean of the prompts' means, low, high); NaN if there is no value at all.
    """
    values = np.asarray(values, np.float64)
    if len(values) > 1:
        there = ~np.isnan(values)
        count = there.sum(axis=1, keepdims=True)
        total = np.where(there, values, 0.0).sum(axis=1, keepdims=True)
        values = ratio(total, count, empty=np.nan)
    return bootstrap_mean(values, resamples, seed)


def describe_effects(measured: Mapping[Trial, Mapping[str, Any]], resamples: int, seed: int) -> pd.DataFrame:
    """Return a row per trial and measure: its mean and interval, and those of its change from the unsteered model.

    Args:
      measured: a trial to its `measures`, a name to `[rows, columns]`, None where there is no value; of each concept
        also `unsteered(concept)`, whose cells are paired with the others'.
      resamples: of the intervals.
      seed: of the draws.
    """
    rows = []
    for trial, result in measured.items():
        plain = measured[unsteered(trial.concept)]["measures"]
        for name, values in result["measures"].items():
            values, before = (np.array(each, np.float64) for each in (values, plain[name]))
            value, low, high = interval_over_prompts(values, resamples, seed)
            change, change_low, change_high = interval_over_prompts(values - before, resamples, seed)
            rows.append(
                {
                    **dataclasses.asdict(trial),
                    "measure": name,
                    **{"value": value, "ci_low": low, "ci_high": high},
                    **{"change": change, "change_ci_low": change_low, "change_ci_high": change_high},
                }
            )
    return pd.DataFrame(rows)


def describe_curves(effects: pd.DataFrame, concepts: Sequence[str], resamples: int, seed: int) -> pd.DataFrame:
    """Return the means over these concepts, with intervals over them.

    There is a row per arm, method, count, strength and measure.
    """
    effects = effects[effects["concept"].isin(list(concepts))]
    rows = []
    for key, group in effects.groupby(["arm", "method", "count", "strength", "measure"], sort=False):
        row = dict(zip(["arm", "method", "count", "strength", "measure"], key, strict=True))
        for column, prefix in (("value", ""), ("change", "change_")):
            mean, low, high = bootstrap_mean(group[[column]].to_numpy(), resamples, seed)
            row |= {column: mean, f"{prefix}ci_low": low, f"{prefix}ci_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def describe_claim(
    effects: pd.DataFrame, method: str, count: int, controls: Sequence[str], resamples: int, seed: int
) -> pd.DataFrame:
    """Compare experts with each control at one method and count and full strength.

    A row has the difference of their effects, and its p.

    Concepts are paired, and intervals are over them. p is Wilcoxon's signed-rank test over concepts, two-sided.
    """
    drawn = effects[(effects["method"] == method) & (effects["count"] == count) & (effects["strength"] == 1)]
    rows = []
    for name in ("word_log_prob", "mention", "expert_response"):
        by_arm = drawn[drawn["measure"] == name].pivot_table(index="concept", columns="arm", values="change")
        experts = by_arm["experts"].dropna()
        for control in ("unsteered", *controls):
            difference = experts if control == "unsteered" else experts - by_arm.loc[experts.index, control]
            mean, low, high = bootstrap_mean(difference.to_numpy()[:, None], resamples, seed)
            moved = difference[difference != 0]
            p = scipy.stats.wilcoxon(moved).pvalue if len(moved) else 1.0
            rows.append(
                {
                    **{"measure": name, "control": control, "concepts": len(difference)},
                    **{"difference": mean, "ci_low": low, "ci_high": high, "p_value": p},
                }
            )
    return pd.DataFrame(rows)


def list_samples(measured: Mapping[Trial, Mapping[str, Any]], prompts: Sequence[str]) -> pd.DataFrame:
    """Return the first continuation of each prompt: a row per trial and prompt.

    Args:
      measured: a trial to its `texts` `[prompts, seeds]` and `words`, see `trials.measure_trials`.
      prompts: of the texts.
    """
    rows = [
        {**dataclasses.asdict(trial), "prompt": prompt, "text": texts[0], "words": ", ".join(result["words"])}
        for trial, result in measured.items()
        for prompt, texts in zip(prompts, result["texts"], strict=True)
    ]
    return pd.DataFrame(rows)
