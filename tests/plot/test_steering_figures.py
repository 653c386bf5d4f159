"""Figures of steering: what they draw, and that nothing hides behind anything."""

import numpy as np
import pandas as pd
import pytest

from expertlens_jax import plot
from expertlens_jax.errors import ExpertLensError

MEASURES = ("word_log_prob", "mention", "expert_response", "surprise", "held_out_surprise", "distinct_2")


def curves():
    rows = [{"arm": "unsteered", "method": "none", "count": 0, "strength": 0.0, "value": 0.5, "change": 0.0}]
    for arm in ("experts", "random", "another_concept"):
        for count, strength in ((5, 1.0), (20, 1.0), (20, 0.5)):
            value = 0.6 + count / 100 * strength * (arm != "random")
            rows.append({"arm": arm, "method": "set_median", "count": count, "strength": strength, "value": value})
    for strength in (0.5, 1.0):
        rows.append({"arm": "experts", "method": "linear_ot", "count": 20, "strength": strength, "value": 0.7})
    table = pd.DataFrame([row | {"measure": measure} for row in rows for measure in MEASURES])
    table["change"] = table["change"].fillna(table["value"] - 0.5)
    for prefix, column in (("", "value"), ("change_", "change")):
        table[f"{prefix}ci_low"], table[f"{prefix}ci_high"] = table[column] - 0.1, table[column] + 0.1
    table.loc[table["measure"] == "mention", ["value", "ci_low", "ci_high"]] = 0.0
    return table


def test_a_line_an_arm_and_the_experts_on_top_of_others_that_are_the_same():
    figure = plot.steering(curves())
    panel = figure.axes[0]
    drawn = [line.get_label() for line in panel.lines if not line.get_label().startswith("_")]
    assert drawn == ["Another concept's experts", "Random units", "Experts"]
    assert panel.lines[0].get_linewidth() > panel.lines[2].get_linewidth()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == drawn[::-1]
    np.testing.assert_allclose(panel.lines[2].get_ydata(), [0.15, 0.3])
    mention = figure.axes[2]
    assert mention.get_ylim()[0] > -1 and mention.get_ylim()[1] == 5  # no axis of a thousandth around nothing


@pytest.mark.parametrize("measure", MEASURES)
def test_a_table_without_a_measure_is_refused_by_its_name(measure):
    table = curves()
    said = f"no rows whose measure is '{measure}'"
    with pytest.raises(ExpertLensError, match=said):
        plot.steering(table[table["measure"] != measure])
    if measure in ("word_log_prob", "held_out_surprise"):
        with pytest.raises(ExpertLensError, match=said):
            plot.steering_cost(table[table["measure"] != measure])


@pytest.mark.parametrize("figure", ["steering", "steering_cost"])
def test_a_table_without_experts_is_refused(figure):
    table = curves()
    with pytest.raises(ExpertLensError, match="no rows whose arm is 'experts'; there are 'unsteered', 'random'"):
        getattr(plot, figure)(table[table["arm"] != "experts"])


def test_what_a_method_costs_starts_at_the_plain_model():
    axes = plot.steering_cost(curves()).axes[0]
    lines = {line.get_label(): line for line in axes.lines if line.get_label() in ("set median", "linear ot")}
    np.testing.assert_allclose(lines["set median"].get_xdata(), np.exp([0.5, 0.7, 0.8]))
    np.testing.assert_allclose(lines["set median"].get_ydata(), [0, 0.2, 0.3])
    assert lines["linear ot"].get_xdata()[0] == pytest.approx(np.exp(0.5))


def test_the_map_of_what_moved():
    words = {"concept": "cat", "spared": "dog", "method": "zero", "change": 0.1, "ci_low": 0.0, "ci_high": 0.2}
    away = pd.DataFrame([words | {"sparing": by, "word": word} for by in (False, True) for word in ("cat", "dog")])
    moved = pd.DataFrame({"of": ["car", "dog", "cat"], "kept": [0.9, 0.8, 0.1], "x": [0, 1, 2], "y": [0, 1, 0]})
    moved = moved.assign(concept="cat", spared="dog", x_after=moved["x"] + [0, 0, 1], y_after=moved["y"])
    words_axes, kept, places = plot.steered_away(away, moved).axes
    assert [label.get_text() for label in words_axes.get_yticklabels()] == ["zero", "zero, dog spared"]
    assert kept.lines[0].get_ydata().tolist() == pytest.approx([10, 80, 90])
    ways = [line.get_xdata() for line in places.lines if len(line.get_xdata()) == 2]
    assert [list(way) for way in ways] == [[0, 0], [1, 1], [2, 3]]
    assert {text.get_text() for text in places.texts} == {"cat", "dog"}
    assert "no concept was steered" in plot.steered_away(away[:0], moved[:0]).texts[0].get_text()
    with pytest.raises(ExpertLensError, match="lacks the columns"):
        plot.steered_away(away, moved.drop(columns="x_after"))
