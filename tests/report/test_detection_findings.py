"""What detectors say of the claims, of tables made by hand: held, not held with the losses first, or not testable."""

import pandas as pd
import pytest

from expertlens_jax.report.detection_findings import conclude, first_line, tell

OTHERS = ("random_units", "mean_difference", "scaled_difference", "probe", "bag_of_words")


def tables(values, *, p=0.001, concepts=12, masked=True, others=OTHERS):
    """Tables of one pair of sets, and of the same masked; `values` are the other detectors', the experts' is 0.8."""
    detection, comparisons = [], []
    for kind, test in (("sets", "stories"), *((("masked", "stories_masked"),) if masked else ())):
        sets = {"kind": kind, "train": "facts", "test": test, "measure": "average_precision"}
        sets |= {"negatives_per_positive": 10.0}
        for name in ("top_experts", *others):
            value = 0.8 if name == "top_experts" else values.get(name, 0.1)
            row = sets | {"detector": name, "positives": 40, "label_noise": 0.0, "value": value, "chance": 1 / 11}
            detection += [row | {"ci_low": value - 0.1, "ci_high": value + 0.1}]
            detection += [
                row | {"positives": 5, "value": 0.0, "ci_low": 0.0, "ci_high": 0.0}
            ]  # not what is concluded of
            if name != "top_experts":
                comparisons.append(
                    sets
                    | {"detector": "top_experts", "other": name, "concepts": concepts, "other_value": value}
                    | {"difference": 0.8 - value, "p_holm": p, "least_p": 2.0 ** (1 - concepts)}
                )
    shares = pd.DataFrame([{"train": "facts", "concept": "cat", "share_of_units": 0.02, "share_of_square": 0.3}])
    return {"detection": pd.DataFrame(detection), "comparisons": pd.DataFrame(comparisons), "shares": shares}


@pytest.mark.parametrize(
    ("values", "settings", "verdicts"),
    [
        ({}, {}, ("held",) * 4),
        ({"mean_difference": 0.9}, {}, ("held", "not held", "held", "held")),
        ({"scaled_difference": 0.9}, {}, ("held", "not held", "held", "held")),
        ({"bag_of_words": 0.95}, {}, ("held", "held", "not held", "held")),
        ({"random_units": 0.9}, {}, ("not held", "held", "held", "not held")),
        ({}, {"p": 0.2}, ("not held",) * 4),
        ({}, {"p": 0.5, "concepts": 4}, ("not testable",) * 4),
        ({}, {"masked": False}, ("held", "held", "held", "not testable")),
        ({}, {"others": ("random_units", "probe")}, ("held", "not testable", "not testable", "held")),
    ],
)
def test_verdicts(values, settings, verdicts):
    found = conclude(tables(values, **settings))
    assert tuple(each.verdict.value for each in found) == verdicts
    for each in found:
        assert bool(each.reason) == (each.verdict == "not testable")
        assert each.figure == "detection"


def test_what_units_lose_against_stands_first():
    lost = conclude(tables({"mean_difference": 0.9}))[1]
    assert lost.found.startswith("Units lose against mean difference (facts to stories). Average precision at 10")
    assert "0.800 (0.700 to 0.900), chance 0.091, against 0.900 of mean difference (p = 0.001)" in lost.found
    assert first_line(tables({"probe": 0.9, "bag_of_words": 1.0})) == (
        "Experts lose against probe, bag of words (facts to stories); "
        "Experts win against random units, mean difference, scaled difference (facts to stories)."
    )
    assert tell(tables({"probe": 0.9})).startswith("Experts lose against probe (facts to stories)")


def test_a_reason_is_told_of_what_is_not_testable():
    reasons = [each.reason for each in conclude(tables({}, concepts=4, masked=False, others=("random_units",)))]
    assert reasons[0] == "facts to stories: 4 concepts give a least p of 0.12"
    assert reasons[1] == (
        "facts to stories: mean difference was not tried; facts to stories: scaled difference was not tried"
    )
    assert reasons[3] == "there are no such sentences to try on"


def test_a_terminal_is_told_every_detector_beside_chance():
    said = tell(tables({}))
    assert "(chance 0.091)" in said and "facts → stories_masked" in said
    assert all(name in said for name in OTHERS) and "facts: 2% of the units hold 30%" in said
