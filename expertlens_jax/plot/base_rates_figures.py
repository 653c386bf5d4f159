"""How well expert sets align, over the threshold and the base rate that their meaning rests on together."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from expertlens_jax.data.rows import each_row
from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import COLORMAP, FAINT, INK, PALE, Figure, drawn, wrapped


@drawn
def plot_base_rates(table: pd.DataFrame, *, drawn: tuple[float, float] | None = None) -> Figure:
    """Draw Spearman's correlation by threshold (down) and negatives per positive (across), with the number of experts.

    A panel per sentence set (rows) and ratings (columns). A cell says the correlation and, below it, the median over
    concepts of the number of experts; where there is no correlation (all rated pairs overlap alike: no concept has
    experts to share, or all have all units) it is hatched.

    Args:
      table: rows of alignment.csv of one measure: sentences, threshold, negatives_per_positive, ratings,
        experts_median, spearman; one row a cell.
      drawn: threshold and negatives per positive of a cell to frame.

    >>> import expertlens_jax as el, pandas as pd
    >>> cells = [(0.3, 1.0, 40, 0.5), (0.3, 2.5, 20, 0.6), (0.5, 1.0, 9, 0.4), (0.5, 2.5, 0, None)]
    >>> table = pd.DataFrame(cells, columns=["threshold", "negatives_per_positive", "experts_median", "spearman"])
    >>> figure = el.plot.base_rates(table.assign(sentences="facts", ratings="mine", pairs=30), drawn=(0.3, 2.5))
    >>> [label.get_text().split() for label in figure.axes[0].get_xticklabels()]  # negatives per positive, base rate
    [['1', '50%'], ['2.5', '29%']]
    """
    require(
        table, *("sentences", "threshold", "negatives_per_positive", "ratings", "experts_median", "spearman", "pairs")
    )
    rows, columns = list(dict.fromkeys(table["sentences"])), list(dict.fromkeys(table["ratings"]))
    thresholds, ratios = sorted(set(table["threshold"])), sorted(set(table["negatives_per_positive"]))
    width, height = 0.42 * len(ratios), 0.29 * len(thresholds)
    # However few cells there are, the labels below and beside them want some room.
    across, upward = max((width + 0.2) * len(columns), 1.6) + 1.3, max((height + 0.3) * len(rows), 1.6) + 0.9
    figure = Figure(figsize=(across, upward), layout="constrained")
    panels = figure.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
    highest = 1.25 * np.nanmax([*table["spearman"], 0.1])  # short of the map's black, where no frame would show
    for down, sentences in zip(panels, rows, strict=True):
        for axes, ratings in zip(down, columns, strict=True):
            here = table[(table["sentences"] == sentences) & (table["ratings"] == ratings)]
            grid, experts = np.full((2, len(thresholds), len(ratios)), np.nan)
            for row in each_row(here):
                place = thresholds.index(row.threshold), ratios.index(row.negatives_per_positive)
                grid[place], experts[place] = row.spearman, row.experts_median
            image = axes.imshow(grid, cmap=COLORMAP, vmin=0, vmax=highest, origin="lower", aspect="auto")
            for (i, j), value in np.ndenumerate(grid):
                _cell(axes, j, i, value, experts[i, j], dark=value > 0.42 * highest)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            if drawn and drawn[0] in thresholds and drawn[1] in ratios:
                corner = (ratios.index(drawn[1]) - 0.5, thresholds.index(drawn[0]) - 0.5)
                frame = Rectangle(corner, 1, 1, fill=False, edgecolor=INK, linewidth=1.2, clip_on=False)
                frame.set_path_effects([withStroke(linewidth=3, foreground="white")])
                axes.add_patch(frame)
            if axes in panels[0]:
                pairs = f"{here['pairs'].max():.0f} pair{'' if here['pairs'].max() == 1 else 's'}"
                axes.set_title(f"{ratings}\n{pairs}", loc="left", fontweight="bold")
    for axes, sentences in zip(panels[:, 0], rows, strict=True):
        axes.set_ylabel(sentences, fontweight="bold")
        axes.set_yticks(range(len(thresholds)), [f"{threshold:g}" for threshold in thresholds])
    for axes in panels[-1]:
        axes.set_xticks(range(len(ratios)), [f"{ratio:g}\n{1 / (1 + ratio):.0%}" for ratio in ratios])
    figure.supxlabel(wrapped("Negatives per positive, and the base rate that they make", across - 0.3), fontsize=8)
    figure.supylabel(wrapped("Threshold τ on average precision", upward - 0.8), fontsize=8)
    bar = figure.colorbar(image, ax=panels, aspect=30, pad=0.02)
    bar.set_label(wrapped("Spearman's ρ, white from 0 down; in small, experts per concept", upward - 0.9))
    bar.ax.set_ylim(0, min(highest, 1))
    bar.outline.set_visible(False)
    return figure


def _cell(axes: Axes, x: int, y: int, value: float, experts: float, *, dark: bool) -> None:
    """Write the numbers of a cell; hatched where there is no correlation."""
    if np.isnan(value):
        axes.add_patch(
            Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="white", edgecolor=PALE, hatch="/////", linewidth=0)
        )
    else:
        ink = "white" if dark else INK
        axes.text(x, y + 0.2, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", fontsize=7, color=ink)
    if not np.isnan(experts):
        ink = FAINT if np.isnan(value) else "white" if dark else INK
        place = y if np.isnan(value) else y - 0.22
        axes.text(x, place, f"{experts:,.0f}", ha="center", va="center", fontsize=5.5, color=ink)
