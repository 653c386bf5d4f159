"""Statistics of expert sets against a quantity on a log axis, a line per threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import COLORMAP, FAINT, INK, Figure, drawn, keep_free

TITLES = {
    "experts": ("Experts per concept", "Units"),
    "share": ("Experts per concept, of all units", "%"),
    "overlap": ("Overlap of different concepts", "Mean Jaccard"),
    "alignment": ("Alignment with {}", "Spearman's ρ"),
    "final_overlap": ("Overlap with the last checkpoint", "Mean Jaccard"),
    "final_overlap_held_out": ("The same, last one's by other sentences", "Mean Jaccard"),
}
"""Of each statistic: the panel's title, and the axis."""
LOGARITHMIC = ("experts", "share", "overlap")


@drawn
def plot_lines(
    table: pd.DataFrame, x: str, xlabel: str, statistics: Sequence[str], *, lines: str = "τ = {:g}", note: str = ""
) -> Figure:
    """Draw a panel per statistic (down) and sentence set (across), a line per threshold with a band, its 95% interval.

    Rows with the same `x`, such as seeds of a model, are a dot each; the line goes through their mean.

    Args:
      table: rows of training.csv, scale.csv or negatives.csv: sentences, statistic, ratings, threshold, value, ci_low,
        ci_high, chance, and the column `x`. A NaN value leaves a gap, a NaN threshold leaves out the row.
      x: the quantity along the log axis; 0 stands apart at its left end, beyond a break.
      xlabel: what to call it.
      statistics: of `TITLES`, in order; alignment has a panel per ratings. One that has no value has no panel.
      lines: what to call a threshold's line.
      note: to stand below, of what dashed lines are.

    >>> import expertlens_jax as el, pandas as pd
    >>> table = pd.DataFrame({"step": [0, 100, 1000], "value": [3.0, 40.0, 55.0]})
    >>> table = table.assign(ci_low=table["value"] / 2, ci_high=table["value"] * 2, threshold=0.5, chance=None)
    >>> table = table.assign(sentences="facts", statistic="experts", ratings="")
    >>> figure = el.plot.lines(table, "step", "Training step", ["experts", "overlap"])
    >>> [axes.get_title(loc="left") for axes in figure.axes]  # no panel for what the table doesn't have
    ['Experts per concept']
    """
    require(table, "sentences", "statistic", "ratings", "threshold", "value", "ci_low", "ci_high", "chance", x)
    table = table[table["threshold"].notna()].assign(ratings=table["ratings"].fillna(""))
    known = table[table["value"].notna()]
    shown = [
        (statistic, rated)
        for statistic in statistics
        for rated in dict.fromkeys(known.loc[known["statistic"] == statistic, "ratings"])
    ]
    sets, thresholds = list(dict.fromkeys(table["sentences"])), sorted(set(table["threshold"]))
    shade = dict(zip(thresholds, COLORMAP(np.linspace(0.3, 0.95, len(thresholds))), strict=True))
    figure = Figure(figsize=(2.3 * len(sets) + 0.5, 1.4 * len(shown) + 0.8), layout="constrained")
    panels = figure.subplots(len(shown), len(sets), squeeze=False, sharex=True, sharey="row")
    for down, (statistic, rated) in enumerate(shown):
        title, ylabel = TITLES[statistic]
        above = known[(known["statistic"] == statistic) & (known["value"] > 0)]["value"]
        logarithmic = statistic in LOGARITHMIC and len(above) > 0  # all zeros are shown as zeros
        if logarithmic:
            panels[down, 0].set_yscale("log")
        for axes, sentences in zip(panels[down], sets, strict=True):
            where = (table["statistic"] == statistic) & (table["ratings"] == rated) & (table["sentences"] == sentences)
            for threshold, line in table[where].groupby("threshold"):
                _draw_line(axes, line.sort_values(x), x, table[x], shade[threshold], lines.format(threshold))
            if statistic == "alignment":
                axes.axhline(0, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
            mark_places(axes, table[x])
            axes.set_title(title.format(rated), loc="left", fontsize=7.5)
        panels[down, 0].set_ylabel(ylabel)
        if logarithmic:
            # A value of 0, and an interval that holds it, lie below what the axis shows.
            panels[down, 0].set_ylim(above.min() / 1.8, above.max() * 1.8)
            panels[down, 0].yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=7))
            panels[down, 0].yaxis.set_major_formatter("{x:g}")
            panels[down, 0].yaxis.set_minor_locator(NullLocator())
        elif statistic.startswith("final_overlap"):
            panels[down, 0].set_ylim(bottom=0)
    for axes, sentences in zip(panels[0], sets, strict=True):
        axes.annotate(
            sentences, (0, 1), (0, 20), "axes fraction", textcoords="offset points", fontweight="bold", fontsize=8.5
        )
    for axes in panels[-1]:
        axes.set_xlabel(xlabel)
    handles = [
        Line2D([], [], color=shade[threshold], marker="o", markersize=2.5, label=lines.format(threshold))
        for threshold in thresholds
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5), handlelength=1.4)
    if note:
        figure.supxlabel(note, x=0.995, color=FAINT, ha="right", fontsize=7)
        keep_free(figure, 0.16 / figure.get_figheight())
    return figure


def _draw_line(axes: Axes, line: pd.DataFrame, x: str, every: pd.Series, colour: np.ndarray, label: str) -> None:
    """Draw a dot per row, the line, its band, and its chance level dashed."""
    if axes.get_yscale() == "log":  # where 0 has no place
        line = line.assign(
            value=line["value"].where(line["value"] > 0), chance=line["chance"].where(line["chance"] > 0)
        )
    place = places(line[x], every)
    axes.scatter(place, line["value"], s=6, color=colour, zorder=3)
    # Several at one place, such as seeds of one size: the line goes through their mean, the band holds all intervals.
    together = line.groupby(x, as_index=False).agg(
        {"value": "mean", "ci_low": "min", "ci_high": "max", "chance": "mean"}
    )
    place = places(together[x], every)
    axes.fill_between(place, together["ci_low"], together["ci_high"], color=colour, alpha=0.1, linewidth=0)
    axes.plot(place, together["value"], color=colour, label=label)
    if together["chance"].notna().any() and (together["chance"] != 0).any():
        axes.plot(place, together["chance"], color=colour, linewidth=0.7, linestyle=(0, (2, 2)))


def places(values: pd.Series, every: pd.Series) -> np.ndarray:
    """Return where values stand on an axis of log10; 0 stands apart, left of the smallest of `every` above 0."""
    above = np.log10(every[every > 0].astype(float))
    zero = above.min() - max(0.22 * (above.max() - above.min()), 0.3)
    numbers = values.to_numpy(float)
    return np.where(numbers > 0, np.log10(np.where(numbers > 0, numbers, 1)), zero)


def mark_places(axes: Axes, every: pd.Series) -> None:
    """Name the values on the axis of `places`, the ones that fit, with a break after 0."""
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
    """Return a number in few characters: 2304, 143k, 1.8M, 6.9B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            size = min(size, 10.0 ** (3 * int(np.log10(size) // 3)))
            return f"{value / size:.2g}{unit}" if value < 10 * size else f"{value / size:.0f}{unit}"
    return f"{value:g}"
