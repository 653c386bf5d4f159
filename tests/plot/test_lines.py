"""Figures of lines along a log axis, and of agreement: what they draw, and where 0 stands."""

import warnings

import numpy as np
import pandas as pd
import pytest

from expertlens_jax import plot
from expertlens_jax.errors import ExpertLensError
from expertlens_jax.plot.lines_figures import name_number, places


def lines():
    rows = [
        {"sentences": s, "statistic": statistic, "ratings": ratings, "threshold": t, "step": step, "value": value}
        for s in ("facts", "stories")
        for statistic, ratings in (("experts", ""), ("alignment", "mine"), ("alignment", "unknown"))
        for t in (0.4, 0.6)
        for step, value in ((0, 1.0), (16, 2.0), (2304, 3.0))
    ]
    table = pd.DataFrame(rows).assign(ci_low=0.5, ci_high=4.0, chance=np.nan)
    table.loc[table["ratings"] == "unknown", "value"] = np.nan
    return table


def test_0_stands_apart_and_the_others_by_their_logarithm():
    values = pd.Series([0, 10, 1000])
    at = places(values, values)
    assert at[1:].tolist() == [1, 3] and at[0] < 1 - 0.3
    assert places(pd.Series([10]), pd.Series([10])).tolist() == [1]  # one place only


@pytest.mark.parametrize(
    ("value", "name"),
    [(0, "0"), (2.5, "2.5"), (2304, "2304"), (143000, "143k"), (1_841_920, "1.8M"), (6.9e9, "6.9B"), (12e9, "12B")],
)
def test_numbers_are_short(value, name):
    assert name_number(value) == name


def test_a_panel_per_statistic_that_has_a_value_and_per_sentence_set():
    figure = plot.lines(lines(), "step", "Training step", ("experts", "alignment"))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        *["Experts per concept"] * 2,
        *["Alignment with mine"] * 2,
    ]
    bottom = figure.axes[2]
    assert [label.get_text() for label in bottom.get_xticklabels()] == ["2304", "16", "0"]
    drawn = [line for line in bottom.lines if len(line.get_xdata()) == 3]
    assert len(drawn) == 2 and drawn[0].get_ydata().tolist() == [1, 2, 3]


def test_seeds_are_dots_and_the_line_goes_through_their_mean():
    table = lines()
    seed = table[table["step"] == 16].assign(value=6.0, ci_low=0.1, ci_high=7.0)
    figure = plot.lines(pd.concat([table, seed]), "step", "Training step", ("experts",))
    axes = figure.axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines if len(line.get_xdata()) == 3] == [[1, 4, 3]] * 2
    dots, band = (next(each for each in axes.collections if (each.get_offsets().size > 2) == many) for many in (1, 0))
    assert sorted(dots.get_offsets()[:, 1].tolist()) == [1, 2, 3, 6]
    assert band.get_paths()[0].vertices[:, 1].min() == 0.1 and band.get_paths()[0].vertices[:, 1].max() == 7


def test_a_panel_of_zeros_shows_them_on_a_linear_axis():
    """No concept has an expert: a logarithmic axis would be empty, and matplotlib would warn."""
    none = lines().assign(value=0.0, ci_low=0.0, ci_high=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plot.lines(none, "step", "Training step", ("experts",))
    axes = figure.axes[0]
    assert axes.get_yscale() == "linear"
    assert [line.get_ydata().tolist() for line in axes.lines if len(line.get_xdata()) == 3] == [[0, 0, 0]] * 2


def test_a_table_without_its_axis_is_refused():
    with pytest.raises(ExpertLensError, match="lacks the columns"):
        plot.lines(lines(), "parameters", "Parameters", ("experts",))


def agreement():
    return pd.DataFrame(
        [
            {"kind": kind, "first": first, "second": second, "count": count, "threshold": t, "statistic": s, "value": v}
            for kind, first, second, count in (
                ("sentences", "facts", "stories", 40),
                ("fewer", "facts, draw 1", "facts, draw 2", 10),
                ("fewer", "facts", "stories", 10),
                ("models", "facts, a", "facts, b", 40),
            )
            for t in (0.4, 0.5)
            for s, v in (
                ("overlap_correlation", 0.7),
                ("jaccard_same", 0.4),
                ("jaccard_different", 0.1),
                ("retrieval", 0.9),
            )
            if kind != "models" or s == "overlap_correlation"
        ]
    ).assign(ci_low=0.05, ci_high=0.95, chance=0.05)


def test_agreement_has_a_row_per_comparison():
    table = agreement()
    figure = plot.stability(table[table["threshold"] == 0.4])
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    fewer = ["facts: draw 1 / draw 2, 10 sentences", "facts / stories, 10 sentences"]
    assert names == ["facts / stories", *fewer, "facts: a / b"]
    figure = plot.stability_thresholds(table)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Overlap matrices", "Expert sets", "Retrieval"]
    figure = plot.fewer(table[table["kind"] != "models"])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["10", "40"]
