"""Statistics of expert sets against a quantity on a log axis, a line per threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from expertlens_jax.report.figures.table import require
from expertlens_jax.report.style import COLORMAP, FAINT, INK, styled

LABELS = {
    "experts": "Experts per concept",
    "share": "Experts per concept\n(% of all units)",
    "overlap": "Overlap of concepts\n(mean Jaccard)",
    "alignment": "Alignment with {}\n(Spearman's ρ)",
    "final_overlap": "Overlap with the last\ncheckpoint's (Jaccard)",
    "final_overlap_held_out": "The same, its found with\nother sentences (Jaccard)",
}


@styled()
def plot_lines(
    table: pd.DataFrame, x: str, xlabel: str, statistics: Sequence[str], *, lines: str = "τ = {:g}", note: str = ""
) -> Figure:
    """A panel per statistic (across) and sentence set (down), a line per threshold with its 95% interval as a band.

    Args:
      table: rows of training.csv, scale.csv or negatives.csv: sentences, statistic, ratings, threshold, value, ci_low,
        ci_high, chance, and the column `x`. A NaN value leaves a gap, a NaN threshold the row.
      x: the quantity along the log axis; 0 stands apart at its left end, beyond a break.
      xlabel: what to call it.
      statistics: of `LABELS`, in order; alignment has a panel per ratings.
      lines: what to call a threshold's line.
      note: to stand below, of what dashed lines are.
    """
    require(table, "sentences", "statistic", "ratings", "threshold", "value", "ci_low", "ci_high", "chance", x)
    table = table[table["threshold"].notna()].assign(ratings=table["ratings"].fillna(""))
    shown = [
        (statistic, rated)
        for statistic in statistics
        for rated in dict.fromkeys(table.loc[table["statistic"] == statistic, "ratings"])
    ]
    sets, thresholds = list(dict.fromkeys(table["sentences"])), sorted(set(table["threshold"]))
    shade = dict(zip(thresholds, COLORMAP(np.linspace(0.3, 0.95, len(thresholds))), strict=True))
    figure = Figure(figsize=(1.95 * len(shown) + 0.2, 1.75 * len(sets) + 0.7), layout="constrained")
    panels = figure.subplots(len(sets), len(shown), squeeze=False, sharex=True, sharey="col")
    for across, (statistic, rated) in enumerate(shown):
        for down, sentences in enumerate(sets):
            axes = panels[down, across]
            where = (table["statistic"] == statistic) & (table["ratings"] == rated) & (table["sentences"] == sentences)
            for threshold, line in table[where].groupby("threshold"):
                _draw_line(axes, line.sort_values(x), x, table[x], shade[threshold], lines.format(threshold))
            if statistic == "alignment":
                axes.axhline(0, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
            mark_places(axes, table[x])
        top = panels[0, across]
        if statistic in ("experts", "share"):
            # Where some set is empty its logarithm is not there; the axis starts below the smallest that isn't.
            top.set_yscale("log")
        elif statistic.endswith(("overlap", "held_out")):
            top.set_ylim(bottom=0)
        label = LABELS[statistic].format(rated)
        for axes in panels[:, across]:
            axes.set_ylabel(label)
    for axes in panels[-1]:
        axes.set_xlabel(xlabel)
    for axes, sentences in zip(panels[:, 0], sets, strict=True):
        axes.set_title(sentences, loc="left", fontweight="bold")
    handles, labels = [], []
    for axes in panels.flat:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            if name not in labels:
                handles.append(handle)
                labels.append(name)
    order = np.argsort(labels)
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside upper center",
        ncols=len(labels),
        handlelength=1.4,
    )
    if note:
        figure.text(0.995, 0.005, note, color=FAINT, ha="right", va="bottom", fontsize=7)
        figure.get_layout_engine().set(rect=(0, 0.04, 1, 0.96))
    return figure


def _draw_line(axes: Axes, line: pd.DataFrame, x: str, every: pd.Series, colour: np.ndarray, label: str) -> None:
    """A line, its band, and its chance level dashed."""
    place = places(line[x], every)
    axes.fill_between(place, line["ci_low"], line["ci_high"], color=colour, alpha=0.13, linewidth=0)
    axes.plot(place, line["value"], color=colour, marker="o", markersize=2.5, label=label)
    if line["chance"].notna().any() and (line["chance"] != 0).any():
        axes.plot(place, line["chance"], color=colour, linewidth=0.7, linestyle=(0, (2, 2)))


def places(values: pd.Series, every: pd.Series) -> np.ndarray:
    """Where values stand on an axis of log10; 0 stands apart, left of the smallest of `every` above 0."""
    above = np.log10(every[every > 0].astype(float))
    zero = above.min() - max(0.22 * (above.max() - above.min()), 0.3)
    values = values.to_numpy(float)
    return np.where(values > 0, np.log10(np.where(values > 0, values, 1)), zero)


def mark_places(axes: Axes, every: pd.Series) -> None:
    """Names the values on the axis of `places`, the ones that fit, with a break after 0."""
    values = pd.Series(sorted(set(every)))
    at = places(values, every)
    span = max(at[-1] - at[0], 1e-9)
    kept: list[int] = []
    for i in reversed(range(len(at))):  # the last and the first are named before those between
        if not kept or at[kept[-1]] - at[i] > 0.14 * span:
            kept.append(i)
    axes.set_xticks(at[kept], [name_number(values[i]) for i in kept])
    axes.set_xticks(at, minor=True)
    margin = 0.05 * span if len(at) > 1 else 0.3
    axes.set_xlim(at[0] - margin, at[-1] + margin)
    if values.iloc[0] == 0 and len(at) > 1:
        middle = (at[0] + at[1]) / 2
        for shift in (-0.012 * span, 0.012 * span):
            axes.plot(
                [middle + shift - 0.01 * span, middle + shift + 0.01 * span],
                [-0.03, 0.03],
                transform=axes.get_xaxis_transform(),
                color=INK,
                linewidth=0.7,
                clip_on=False,
            )


def name_number(value: float) -> str:
    """A number in few characters: 512, 2.3k, 143k, 1.8M, 6.9B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}" if value < 10 * size else f"{value / size:.0f}{unit}"
    return f"{value:g}"
