"""How many experts there are at each threshold, how many could be chance, and whether they hold in other sentences."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import FAINT, PALETTE, Figure, drawn

_COUNTS = {"experts": "all", "significant": "q ≤ 0.05", "familywise": "family-wise p ≤ 0.05"}


@drawn
def plot_significance(counts: pd.DataFrame) -> Figure:
    """Draw experts per concept by threshold, all and significant; and the AP of experts chosen in the other half.

    Args:
      counts: a row per concept and threshold: concept, threshold, experts; and, where they were measured,
        significant and familywise (of these experts), held_out (average precision).

    >>> import expertlens_jax as el, pandas as pd
    >>> counts = pd.DataFrame({"threshold": [0.3, 0.5], "experts": [100, 20], "significant": [60, 20]})
    >>> figure = el.plot.significance(counts.assign(concept="cat"))
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['all', 'q ≤ 0.05']
    """
    require(counts, "concept", "threshold", "experts")
    has_halves = "held_out" in counts
    figure = Figure(figsize=(3.1 * (1 + has_halves), 2.5), layout="constrained")
    axes = figure.subplots(1, 1 + has_halves, squeeze=False)[0]
    for (column, label), colour in zip(_COUNTS.items(), PALETTE, strict=False):
        if column in counts:
            _band(axes[0], counts, column, label, colour)
    axes[0].set_yscale("symlog", linthresh=1)
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("Experts per concept\n(median, and half of the concepts)")
    axes[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, handlelength=1.2, columnspacing=1)
    if has_halves:
        _band(axes[1], counts, "held_out", "", PALETTE[0])
        ends = counts["threshold"].min(), counts["threshold"].max()
        axes[1].plot(ends, ends, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
        axes[1].text(0.98, 0.04, "dashed: the threshold itself", color=FAINT, ha="right", transform=axes[1].transAxes)
        axes[1].set_ylabel("Average precision in one half\nof experts chosen in the other")
    for each in axes:
        each.set_xlabel("Threshold τ")
    return figure


def _band(axes: Axes, counts: pd.DataFrame, column: str, label: str, colour: str) -> None:
    """Draw the median over concepts as a line, the quartiles as a band."""
    by_threshold = counts.groupby("threshold")[column]
    quartiles = pd.DataFrame({q: by_threshold.quantile(q) for q in (0.25, 0.5, 0.75)})
    axes.fill_between(quartiles.index, quartiles[0.25], quartiles[0.75], color=colour, alpha=0.15, linewidth=0)
    axes.plot(quartiles.index, quartiles[0.5], color=colour, label=label, marker="o", markersize=2.5)
