"""Tables of steerings: intervals that hold what they say, changes that are paired, and the claim's differences."""

import numpy as np
import pytest

from expertlens_jax.analysis.statistics import bootstrap_mean
from expertlens_jax.analysis.steering.summary import (
    Trial,
    describe_claim,
    describe_curves,
    describe_effects,
    interval_over_prompts,
    unsteered,
)


@pytest.mark.parametrize("of_prompt", [0.0, 1.0])
def test_intervals_over_prompts_hold_the_mean_as_often_as_they_say(of_prompt):
    """Continuations of a prompt have nothing in common with those of another. To resample columns too is too wide."""
    rng = np.random.default_rng(0)
    covered, narrower = [], []
    for _ in range(300):
        table = of_prompt * rng.normal(size=(20, 1)) + rng.normal(size=(20, 8))
        mean, low, high = interval_over_prompts(table, resamples=300, seed=1)
        assert mean == pytest.approx(table.mean())
        covered.append(low <= 0 <= high)
        crossed = bootstrap_mean(table, resamples=300, seed=1)
        narrower.append((high - low) / (crossed[2] - crossed[1]))
    assert 0.88 <= np.mean(covered) <= 0.975
    assert np.mean(narrower) < (0.75 if of_prompt == 0 else 1)


def test_intervals_where_values_are_missing_or_of_one_prompt():
    values = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan], [4.0, 4.0, 4.0]])
    mean, low, high = interval_over_prompts(values, 200)
    assert (mean, low, high) == (3, 2, 4)  # the mean of the prompts' means
    assert interval_over_prompts(values[:1], 200)[1:] == (1, 3)  # over its continuations
    assert np.isnan(interval_over_prompts(np.full((2, 2), np.nan))).all()


def test_changes_are_paired_and_the_claim_is_their_difference():
    """Prompts differ much, a steering adds the same to each: the change is known exactly, the value isn't."""
    prompts = np.random.default_rng(1).normal(0, 10, size=(6, 2))
    added = {"unsteered": 0.0, "experts": 2.0, "random": 0.5}
    measured = {}
    for concept, more in (("cat", 0.0), ("dog", 1.0), ("cow", 0.0)):
        for arm, change in added.items():
            trial = unsteered(concept) if arm == "unsteered" else Trial(concept, arm, "set_median", 10, 1.0)
            values = (prompts + change + more * (arm == "experts")).tolist()
            measured[trial] = {"measures": dict.fromkeys(("word_log_prob", "mention", "expert_response"), values)}
    measured[unsteered("cat")]["measures"]["mention"] = [[None, *row[1:]] for row in prompts.tolist()]
    effects = describe_effects(measured, 200, 0)
    rows = effects.set_index(["concept", "arm", "measure"]).sort_index()
    row = rows.loc[("dog", "experts", "word_log_prob")]
    np.testing.assert_allclose(row[["change", "change_ci_low", "change_ci_high"]].astype(float), 3)
    assert row["ci_high"] - row["ci_low"] > 5
    assert rows.loc[("cat", "experts", "mention"), "change"] == pytest.approx(2)  # of what both have
    curves = describe_curves(effects, ["cat", "dog"], 200, 0).set_index(["arm", "measure"])
    assert curves.loc[("experts", "word_log_prob"), "change"] == pytest.approx(2.5)
    claim = describe_claim(effects, "set_median", 10, ("random",), 200, 0).set_index(["measure", "control"])
    row = claim.loc[("word_log_prob", "random")]
    assert row["difference"] == pytest.approx((1.5 + 2.5 + 1.5) / 3) and row["concepts"] == 3
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((1.5, 2.5)) and row["p_value"] == pytest.approx(0.25)
    assert claim.loc[("word_log_prob", "unsteered"), "difference"] == pytest.approx(7 / 3)
