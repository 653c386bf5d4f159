"""The experts' alignment against everything else's: differences, and what controls leave of it."""

from __future__ import annotations

import pandas as pd

from expertlens_jax.data.rows import each_row
from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import FAINT, PALE, Figure, colours, drawn


@drawn
def plot_comparisons(compared: pd.DataFrame, partialled: pd.DataFrame) -> Figure:
    """Draw two panels a ratings: the difference from each measure, and the partial correlation given each control.

    Args:
      compared: a row per sentences, ratings and baseline: difference, ci_low, ci_high, p_holm.
      partialled: a row per sentences, ratings and control: partial_spearman, ci_low, ci_high, spearman.

    >>> import expertlens_jax as el, pandas as pd
    >>> row = {"sentences": "facts", "ratings": "mine", "ci_low": 0.05, "ci_high": 0.35}
    >>> compared = pd.DataFrame([row | {"baseline": "tfidf", "difference": 0.2, "p_holm": 0.01}])
    >>> partialled = pd.DataFrame([row | {"control": "tfidf", "partial_spearman": 0.2, "spearman": 0.5}])
    >>> figure = el.plot.comparisons(compared, partialled)
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['ρ of the experts less ρ of ...', 'ρ of the experts, given ...']
    """
    require(compared, "sentences", "ratings", "baseline", "difference", "ci_low", "ci_high", "p_holm")
    require(partialled, "sentences", "ratings", "control", "partial_spearman", "ci_low", "ci_high", "spearman")
    ratings = list(dict.fromkeys(compared["ratings"]))
    sets = list(dict.fromkeys(compared["sentences"]))
    shade = colours(sets)
    rows = (
        (
            "baseline",
            "difference",
            compared,
            "ρ of the experts less ρ of ...",
            list(dict.fromkeys(compared["baseline"])),
        ),
        (
            *("control", "partial_spearman", partialled, "ρ of the experts, given ..."),
            list(dict.fromkeys(partialled["control"])),
        ),
    )
    heights = [len(names) + 1.5 for *_, names in rows]
    longest = max(len(name) for *_, names in rows for name in names)
    figure = Figure(
        figsize=(0.06 * longest + 0.4 + 2.1 * len(ratings), 0.21 * sum(heights) + 0.9), layout="constrained"
    )
    panels = figure.subplots(2, len(ratings), squeeze=False, sharey="row", height_ratios=heights)
    for line, (kind, value, table, label, names) in zip(panels, rows, strict=True):
        for axes, rated in zip(line, ratings, strict=True):
            here = table[table["ratings"] == rated].dropna(subset=[value])
            axes.axvline(0, color=FAINT, linewidth=0.6, zorder=0)
            for place in range(len(names)):
                axes.axhline(place, color=PALE, linewidth=0.5, zorder=0)
            for row in each_row(here):
                offset = 0.26 * (sets.index(row.sentences) - (len(sets) - 1) / 2)
                place = names.index(getattr(row, kind)) + offset
                colour = shade[row.sentences]
                axes.plot([row.ci_low, row.ci_high], [place] * 2, color=colour, linewidth=1, alpha=0.55)
                sure = kind == "control" or row.p_holm < 0.05
                axes.plot(
                    *(getattr(row, value), place, "o"),
                    color=colour,
                    markersize=3.6,
                    markerfacecolor=colour if sure else "white",
                    markeredgewidth=0.8,
                )
            if here.empty:
                note = "no correlation\nto compare"
                axes.text(0.5, 0.5, note, transform=axes.transAxes, color=FAINT, ha="center", va="center", fontsize=7)
                axes.set_xticks([])
            axes.set_xlabel(label)
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.spines["left"].set_visible(False)
            axes.tick_params(axis="y", length=0)
        line[0].set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    for axes, rated in zip(panels[0], ratings, strict=True):
        axes.set_title(rated, loc="left", fontweight="bold")
    handles = [panels[0, 0].plot([], [], "o-", color=shade[name], markersize=3.6, linewidth=1)[0] for name in sets]
    figure.legend(handles, sets, loc="outside upper right", ncols=len(sets), title="filled above: p < 0.05, Holm")
    return figure
