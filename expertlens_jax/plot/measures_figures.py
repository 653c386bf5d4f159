"""How well every measure aligns, side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator
from matplotlib.transforms import blended_transform_factory

from expertlens_jax.data.rows import each_row
from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import FAINT, PALE, Figure, colours, drawn


@drawn
def plot_measures(table: pd.DataFrame) -> Figure:
    """Draw the alignment of every measure with its 95% interval: a row per measure, a panel per ratings.

    Args:
      table: rows of alignment.csv: group ("ExpertLens", "Baselines", "Controls" or others, drawn apart in
        the order of the table), measure, sentences ("" for a measure that needs none), ratings, spearman,
        ci_low, ci_high, pairs. A NaN spearman shows as "none". With a column `ceiling`, the published agreement
        between people on each ratings, where there is one, is a dashed line.

    >>> import expertlens_jax as el, pandas as pd
    >>> rows = [("ExpertLens", "Jaccard", 0.6), ("Baselines", "TF-IDF", 0.3)]
    >>> table = pd.DataFrame(rows, columns=["group", "measure", "spearman"]).assign(sentences="facts", ratings="mine")
    >>> table = table.assign(ci_low=table["spearman"] - 0.1, ci_high=table["spearman"] + 0.1, pairs=30, ceiling=0.8)
    >>> figure = el.plot.measures(table)
    >>> figure.axes[0].get_title(loc="left"), [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ('mine, 30 pairs', ['Jaccard', 'TF-IDF'])
    """
    require(table, "group", "measure", "sentences", "ratings", "spearman", "ci_low", "ci_high", "pairs")
    table = table.assign(sentences=table["sentences"].fillna(""))  # an empty field of a CSV reads as NaN
    groups = list(dict.fromkeys(table["group"]))
    panels_of = list(dict.fromkeys(table["ratings"]))
    sets = list(dict.fromkeys(table["sentences"]))
    colour = colours(sets)

    position, headings, y = {}, {}, 0.0
    for group in groups:
        headings[group] = y
        for measure in dict.fromkeys(table.loc[table["group"] == group, "measure"]):
            y += 1
            position[group, measure] = y
        y += 1.6
    longest = max(len(measure) for _, measure in position)
    figure = Figure(figsize=(0.062 * longest + 0.5 + 2.0 * len(panels_of), 0.24 * y + 0.8), layout="constrained")
    panels = figure.subplots(1, len(panels_of), squeeze=False, sharey=True)[0]
    for axes, ratings in zip(panels, panels_of, strict=True):
        rows = table[table["ratings"] == ratings]
        axes.axvline(0, color=FAINT, linewidth=0.6, zorder=0)
        ceilings = rows["ceiling"].dropna().unique() if "ceiling" in rows else ()
        for ceiling in ceilings:
            axes.axvline(ceiling, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
            axes.text(ceiling, -0.55, "people", color=FAINT, fontsize=6.5, ha="center", va="bottom")
        for place in position.values():
            axes.axhline(place, color=PALE, linewidth=0.5, zorder=0)
        for (group, measure), some in rows.groupby(["group", "measure"], sort=False):
            # The sentence sets of one measure stand beside one another, in the order of the legend.
            shown = [name for name in sets if name in set(some["sentences"])]
            for row in each_row(some):
                place = position[group, measure] + 0.26 * (shown.index(row.sentences) - (len(shown) - 1) / 2)
                if np.isnan(row.spearman):
                    offset = 3 + 24 * shown.index(row.sentences)
                    axes.annotate(
                        "none",
                        (0, position[group, measure]),
                        xytext=(offset, 0),
                        textcoords="offset points",
                        va="center",
                        color=colour[row.sentences],
                        fontsize=7,
                        style="italic",
                    )
                    continue
                axes.plot(
                    [row.ci_low, row.ci_high],
                    [place] * 2,
                    color=colour[row.sentences],
                    linewidth=1,
                    alpha=0.55,
                )
                axes.plot(row.spearman, place, "o", color=colour[row.sentences], markersize=3.6, markeredgewidth=0)
        pairs = sorted(set(rows["pairs"].astype(int)))
        count = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
        # Above the word "people", which a long title would run into.
        axes.set_title(f"{ratings}, {count} pairs", loc="left", fontweight="bold", pad=12 if len(ceilings) else None)
        axes.set_xlabel("Spearman's ρ, 95% interval")
        axes.xaxis.set_major_locator(MultipleLocator(0.5))
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    low = min(0.0, np.nanmin([*table["ci_low"], *table["spearman"], 0.0]))
    for axes in panels:
        axes.set_xlim(max(-1.02, low - 0.03), 1.02)
    axes = panels[0]
    axes.set_yticks(list(position.values()), [measure for _, measure in position])
    axes.set_ylim(y - 1.1, -0.6)
    for group, place in headings.items():
        axes.text(
            -0.03,
            place,
            group,
            transform=blended_transform_factory(axes.transAxes, axes.transData),
            ha="right",
            va="center",
            fontweight="bold",
            fontsize=8,
        )
    if sets != [""]:
        labels = [(name or "no sentences needed", colour[name]) for name in sorted(sets, key=lambda n: n == "")]
        figure.legend(
            handles=[Line2D([], [], marker="o", color=c, markersize=3.6, linewidth=1, label=n) for n, c in labels],
            loc="outside upper right",
            ncols=len(labels),
        )
    return figure
