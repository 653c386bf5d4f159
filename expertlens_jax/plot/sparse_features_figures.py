"""Experts among an autoencoder's features beside those among as many units, and among its random twins' features."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.lines import Line2D

from expertlens_jax.data.rows import each_row
from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import INK, PALE, Figure, colours, drawn

PANELS = {
    "alignment": ("Alignment with people", "Spearman's ρ"),
    "detection": ("Detection by the best one", "Average precision, other sentences"),
    "stability": ("Stability of experts", "Jaccard, two sentence sets"),
}


@drawn
def plot_sparse_features(table: pd.DataFrame) -> Figure:
    """Draw a row per source; panels for alignment, detection and stability, with 95% intervals.

    Args:
      table: of sparse_features.csv: source, units, selection, statistic, sentences, ratings, value, ci_low, ci_high,
        subsets_low, subsets_high, chance. Expert sets by threshold are drawn, not those of a fixed size.

    >>> import expertlens_jax as el, pandas as pd
    >>> table = pd.DataFrame({"source": ["SAE features", "units, as many"], "value": [0.2, 0.4], "units": 1000})
    >>> of = {"statistic": "alignment", "selection": "τ = 0.5", "sentences": "facts", "ratings": "men", "chance": 0.0}
    >>> none = {"subsets_low": float("nan"), "subsets_high": float("nan")}
    >>> figure = el.plot.sparse_features(table.assign(ci_low=0.1, ci_high=0.5, **of, **none))
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['SAE features (1,000)', 'units, as many (1,000)']
    """
    require(table, "source", "units", "selection", "statistic", "sentences", "ratings", "value", "ci_low", "ci_high")
    require(table, "subsets_low", "subsets_high", "chance")
    table = table[~table["selection"].astype(str).str.startswith("top")]
    table = table.assign(ratings=table["ratings"].fillna(""))
    sources = list(dict.fromkeys(table["source"]))
    counts = table.groupby("source")["units"].first()
    shown = [name for name in PANELS if (table["statistic"] == name).any()]
    kinds = list(dict.fromkeys(_of(row) for row in each_row(table) if row.statistic == "alignment"))
    shade = colours(kinds)
    longest = max(len(name) for name in sources) + 8
    height = 0.17 * max(len(kinds), 2) * len(sources) + 1.2
    figure = Figure(figsize=(0.06 * longest + 2.1 * len(shown) + 0.3, height), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, statistic in zip(panels, shown, strict=True):
        rows = table[table["statistic"] == statistic]
        others = list(dict.fromkeys(_of(row) for row in each_row(rows)))
        for place in range(len(sources)):
            axes.axhline(place, color=PALE, linewidth=0.5, zorder=0)
        for row in each_row(rows):
            at = sources.index(row.source) + 0.7 / len(others) * (others.index(_of(row)) - (len(others) - 1) / 2)
            colour = shade.get(_of(row), INK)
            high = 0.35 / len(others)
            axes.plot([row.chance] * 2, [at - high, at + high], color=INK, linewidth=0.8, zorder=0)
            if pd.isna(row.value):
                axes.text(0, at, "none", color=colour, fontsize=6.5, style="italic", va="center")
                continue
            if not pd.isna(row.subsets_low):
                axes.plot([row.subsets_low, row.subsets_high], [at] * 2, color=colour, linewidth=4.5, alpha=0.22)
            axes.plot([row.ci_low, row.ci_high], [at] * 2, color=colour, linewidth=1, alpha=0.6)
            axes.plot(row.value, at, "o", color=colour, markersize=3.6, markeredgewidth=0)
        title, label = PANELS[statistic]
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_xlabel(label)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        if statistic != "alignment":
            axes.set_xlim(left=0)
    panels[0].set_yticks(range(len(sources)), [f"{name} ({counts[name]:,})" for name in sources])
    panels[0].set_ylim(len(sources) - 0.45, -0.55)
    marks = [Line2D([], [], marker="o", markersize=3.6, linewidth=1, color=shade[name], label=name) for name in kinds]
    marks.append(Line2D([], [], marker="|", markersize=6, linestyle="", color=INK, label="chance"))
    if table["subsets_low"].notna().any():
        marks.append(Line2D([], [], linewidth=4.5, alpha=0.22, color=INK, label="95% of the random subsets"))
    figure.legend(handles=marks, loc="outside upper right", ncols=min(len(marks), 3))
    return figure


def _of(row: Any) -> str:
    """Return what a row is of: its sentences, and the ratings."""
    return f"{row.sentences}, {row.ratings}" if row.ratings else row.sentences
