"""How far expert sets agree between two conditions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory

from expertlens_jax.data.rows import each_row
from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import COLORMAP, FAINT, INK, PALE, Figure, colours, drawn

TITLES = {
    "overlap_correlation": "Overlap matrices",
    "jaccard": "Expert sets",
    "retrieval": "Retrieval",
}
XLABELS = {
    "overlap_correlation": "Spearman's ρ",
    "jaccard": "Jaccard",
    "retrieval": "Share of concepts found",
}
OTHERS = "#E69F00"  # different concepts, beside the same


@drawn
def plot_stability(table: pd.DataFrame) -> Figure:
    """Draw a row per comparison with its 95% intervals; panels for overlap matrices, the sets themselves, retrieval.

    Args:
      table: rows of stability.csv at one threshold: kind, first, second, count, statistic, value, ci_low, ci_high,
        chance.

    >>> import expertlens_jax as el, pandas as pd
    >>> rows = [("overlap_correlation", 0.8, 0.0), ("jaccard_same", 0.5, 0.05), ("retrieval", 0.9, 0.1)]
    >>> table = pd.DataFrame(rows, columns=["statistic", "value", "chance"]).assign(first="facts", second="stories")
    >>> table = table.assign(ci_low=table["value"] - 0.1, ci_high=table["value"] + 0.1, kind="sentences", count=40)
    >>> figure = el.plot.stability(table)
    >>> [axes.get_title(loc="left") for axes in figure.axes], figure.axes[0].get_yticklabels()[0].get_text()
    (['Overlap matrices', 'Expert sets', 'Retrieval'], 'facts / stories')
    """
    require(table, "kind", "first", "second", "count", "statistic", "value", "ci_low", "ci_high", "chance")
    table = table.assign(row=[_name(row) for row in each_row(table)])
    place, headings, y = {}, {}, 0.0
    for kind in dict.fromkeys(table["kind"]):
        headings[kind] = y
        for name in dict.fromkeys(table.loc[table["kind"] == kind, "row"]):
            y += 1
            place[kind, name] = y
        y += 1.5
    longest = max(len(name) for _, name in place)
    figure = Figure(figsize=(0.055 * longest + 5.0, 0.19 * y + 0.9), layout="constrained")
    panels = dict(zip(TITLES, figure.subplots(1, 3, sharey=True), strict=True))
    for panel, axes in panels.items():
        for at in place.values():
            axes.axhline(at, color=PALE, linewidth=0.5, zorder=0)
        for row in each_row(table[table["statistic"].str.startswith(panel)]):
            at = place[row.kind, row.row]
            colour = OTHERS if row.statistic == "jaccard_different" else colours(["same"])["same"]
            axes.plot([row.ci_low, row.ci_high], [at] * 2, color=colour, linewidth=1, alpha=0.6)
            axes.plot(row.value, at, "o", color=colour, markersize=3.4, markeredgewidth=0)
            if not np.isnan(row.chance):
                axes.plot([row.chance] * 2, [at - 0.35, at + 0.35], color=INK, linewidth=0.8)
        axes.set_title(TITLES[panel], loc="left", fontweight="bold")
        axes.set_xlabel(XLABELS[panel])
        low = table.loc[table["statistic"].str.startswith(panel), "ci_low"].min()
        axes.set_xlim(min(-0.03, (0 if np.isnan(low) else low) - 0.03), 1.03)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    axes = panels["overlap_correlation"]
    axes.set_yticks(list(place.values()), [name for _, name in place])
    axes.set_ylim(y - 1.0, -0.6)
    for kind, at in headings.items():
        axes.text(
            -0.03,
            at,
            kind.capitalize(),
            transform=blended_transform_factory(axes.transAxes, axes.transData),
            ha="right",
            va="center",
            fontweight="bold",
            fontsize=7.5,
        )
    marks = [
        Line2D([], [], marker="o", markersize=3.4, linewidth=1, color=colours(["same"])["same"], label="same concept"),
        Line2D([], [], marker="o", markersize=3.4, linewidth=1, color=OTHERS, label="different concepts"),
        Line2D([], [], marker="|", markersize=6, linestyle="", color=INK, label="chance"),
    ]
    figure.legend(handles=marks, loc="outside upper right", ncols=3)
    return figure


@drawn
def plot_stability_thresholds(table: pd.DataFrame) -> Figure:
    """Draw each statistic against the threshold, a line per kind of comparison: its mean, in a band from least to most.

    Args:
      table: rows of stability.csv: kind, threshold, statistic, value.

    >>> import expertlens_jax as el, pandas as pd
    >>> rows = [(0.3, "retrieval", 0.9), (0.3, "retrieval", 0.7), (0.5, "retrieval", 0.4), (0.3, "jaccard_same", 0.5)]
    >>> table = pd.DataFrame(rows, columns=["threshold", "statistic", "value"]).assign(kind="sentences")
    >>> figure = el.plot.stability_thresholds(table)
    >>> figure.axes[2].lines[0].get_ydata().round(2).tolist()
    [0.8, 0.4]
    """
    require(table, "kind", "threshold", "statistic", "value")
    kinds = list(dict.fromkeys(table["kind"]))
    shade = colours(kinds)
    figure = Figure(figsize=(6.6, 2.4), layout="constrained")
    panels = figure.subplots(1, 3, sharex=True)
    for axes, statistic in zip(panels, TITLES, strict=True):
        for kind in kinds:
            for name, style in ((statistic, "-"), (f"{statistic}_same", "-"), (f"{statistic}_different", (0, (2, 2)))):
                rows = table[(table["kind"] == kind) & (table["statistic"] == name)]
                if rows.empty:
                    continue
                line = rows.groupby("threshold")["value"].agg(["mean", "min", "max"])
                axes.fill_between(line.index, line["min"], line["max"], color=shade[kind], alpha=0.13, linewidth=0)
                axes.plot(line.index, line["mean"], color=shade[kind], linestyle=style, marker="o", markersize=2.5)
        axes.set_title(TITLES[statistic], loc="left", fontweight="bold")
        axes.set_xlabel("Threshold τ")
        axes.set_ylabel(XLABELS[statistic])
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.02)
    handles = [Line2D([], [], color=shade[kind], marker="o", markersize=2.5, label=kind) for kind in kinds]
    handles.append(Line2D([], [], color=FAINT, linestyle=(0, (2, 2)), label="different concepts"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), handlelength=1.5)
    return figure


@drawn
def plot_fewer(table: pd.DataFrame) -> Figure:
    """Draw each statistic against the number of sentences a concept, a line per threshold.

    Args:
      table: the rows of kinds "fewer" and "sentences" (all there are) of stability.csv: first, second, count,
        threshold, statistic, value, ci_low, ci_high. Draws of one set are dotted; lines are means over sets.

    >>> import expertlens_jax as el, pandas as pd
    >>> rows = [(name, count, count / 50) for name in ("overlap_correlation", "jaccard_same") for count in (5, 40)]
    >>> table = pd.DataFrame(rows, columns=["statistic", "count", "value"]).assign(first="facts", second="stories")
    >>> table = table.assign(ci_low=table["value"] - 0.1, ci_high=table["value"] + 0.1, threshold=0.5)
    >>> figure = el.plot.fewer(table)
    >>> figure.axes[0].get_xlabel(), [label.get_text() for label in figure.axes[0].get_xticklabels()]
    ('Sentences per concept', ['5', '40'])
    """
    require(table, "first", "second", "count", "threshold", "statistic", "value")
    thresholds = sorted(set(table["threshold"]))
    shade = dict(zip(thresholds, COLORMAP(np.linspace(0.3, 0.95, len(thresholds))), strict=True))
    table = table.assign(within=table["first"].str.contains(", draw"))
    figure = Figure(figsize=(6.6, 2.4), layout="constrained")
    panels = figure.subplots(1, 3, sharex=True)
    shown = ("overlap_correlation", "jaccard_same", "retrieval")
    for axes, panel, statistic in zip(panels, TITLES, shown, strict=True):
        for threshold in thresholds:
            for within, style in ((False, "-"), (True, (0, (1, 1.5)))):
                where = (table["statistic"] == statistic) & (table["threshold"] == threshold)
                line = (
                    table[where & (table["within"] == within)].groupby("count")[["value", "ci_low", "ci_high"]].mean()
                )
                if not within:
                    axes.fill_between(
                        line.index, line["ci_low"], line["ci_high"], color=shade[threshold], alpha=0.13, linewidth=0
                    )
                axes.plot(
                    line.index, line["value"], color=shade[threshold], linestyle=style, marker="o", markersize=2.5
                )
        axes.set_title(TITLES[panel], loc="left", fontweight="bold")
        axes.set_xscale("log")
        counts = sorted(set(table["count"]))
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_xlabel("Sentences per concept")
        axes.set_ylabel(XLABELS[panel])
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.02)
    handles = [
        Line2D([], [], color=shade[threshold], marker="o", markersize=2.5, label=f"τ = {threshold:g}")
        for threshold in thresholds
    ]
    handles += [
        Line2D([], [], color=INK, label="two sets"),
        Line2D([], [], color=INK, linestyle=(0, (1, 1.5)), label="one set, other sentences"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), handlelength=1.5, columnspacing=1.2)
    return figure


@drawn
def plot_grid(table: pd.DataFrame) -> Figure:
    """Draw a panel a statistic: sizes of the positive set down, of the negative set across, with each cell's interval.

    Args:
      table: rows of grid.csv at one threshold: positives, negatives, statistic, value, ci_low, ci_high.

    >>> import expertlens_jax as el, pandas as pd
    >>> table = pd.DataFrame({"statistic": ["overlap_correlation", "jaccard_same", "retrieval"], "value": 0.5})
    >>> table = table.assign(positives=5, negatives=100, ci_low=0.4, ci_high=0.6)
    >>> [axes.get_title(loc="left").splitlines()[0] for axes in el.plot.grid(table).axes]
    ['Overlap matrices', 'Expert sets', 'Retrieval']
    """
    require(table, "positives", "negatives", "statistic", "value", "ci_low", "ci_high")
    rows, columns = sorted(set(table["positives"])), sorted(set(table["negatives"]))
    shown = ("overlap_correlation", "jaccard_same", "retrieval")
    figure = Figure(figsize=(1.2 + 3 * (0.3 + 0.62 * len(columns)), 1.15 + 0.42 * len(rows)), layout="constrained")
    for axes, panel, statistic in zip(figure.subplots(1, 3, sharey=True), TITLES, shown, strict=True):
        cells = table[table["statistic"] == statistic].set_index(["positives", "negatives"])
        values = np.array([[cells["value"].get((row, column), np.nan) for column in columns] for row in rows])
        axes.imshow(values, cmap=COLORMAP, vmin=0, vmax=1, aspect="auto")
        axes.set_facecolor(PALE)
        for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
            if not np.isnan(values[i, j]):
                cell = cells.loc[(row, column)]
                colour = "white" if values[i, j] > 0.55 else INK
                axes.text(j, i - 0.12, f"{cell['value']:.2f}", ha="center", va="center", color=colour, fontsize=7.5)
                interval = f"{cell['ci_low']:.2f} to {cell['ci_high']:.2f}"
                axes.text(j, i + 0.24, interval, ha="center", va="center", color=colour, fontsize=5)
        axes.set_xticks(range(len(columns)), [str(column) for column in columns])
        axes.set_yticks(range(len(rows)), [str(row) for row in rows])
        axes.set_xlabel("Negative sentences")
        axes.set_title(f"{TITLES[panel]}\n{XLABELS[panel]}", loc="left", fontsize=8)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.label_outer()
    figure.axes[0].set_ylabel("Positive sentences\nof a concept")
    return figure


def _name(row: Any) -> str:
    """Return a comparison in a few words: what both have in common is said once."""
    common, _, first = row.first.rpartition(", ")
    other, _, second = row.second.rpartition(", ")
    name = f"{common}: {first} / {second}" if common and common == other else f"{row.first} / {row.second}"
    return f"{name}, {row.count} sentences" if row.kind == "fewer" else name
