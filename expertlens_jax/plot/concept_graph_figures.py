"""The graph of concepts in their domains: who shares experts with whom."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from expertlens_jax.data.rows import each_row
from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import FAINT, INK, PALETTE, Figure, drawn

_WIDEST = 4.5  # points


@drawn
def plot_concept_graph(edges: pd.DataFrame, concepts: pd.DataFrame, within: pd.DataFrame) -> Figure:
    """Draw concepts on a circle, domain by domain; edges as wide as the overlap, and how many stay within domains.

    An edge within a domain has the domain's colour, one between domains is grey, and one of two words that begin alike,
    whose overlap may be one of spelling, is dashed. The strip below holds the share of edges within domains against
    domains handed out at random to the same graph.

    Args:
      edges: a row per edge: concept_1, concept_2, overlap, same_domain, same_beginning.
      concepts: a row per concept, in the order of the circle: concept, domain.
      within: of the edges: statistic, edges, value, null_mean, null_low, null_high, p_value.

    >>> import expertlens_jax as el, pandas as pd
    >>> edges = pd.DataFrame({"concept_1": ["cat"], "concept_2": ["dog"], "overlap": [0.4], "same_domain": [True]})
    >>> concepts = pd.DataFrame({"concept": ["cat", "dog", "car"], "domain": ["animal", "animal", "vehicle"]})
    >>> within = pd.DataFrame({"statistic": ["edges"], "edges": "all", "value": 1.0, "null_mean": 0.3, "p_value": 0.1})
    >>> within = within.assign(null_low=0.0, null_high=1.0)
    >>> figure = el.plot.concept_graph(edges.assign(same_beginning=False), concepts, within)
    >>> sorted(text.get_text() for text in figure.axes[0].texts)
    ['car', 'cat', 'dog']
    """
    require(edges, "concept_1", "concept_2", "overlap", "same_domain", "same_beginning", rows=False)
    require(concepts, "concept", "domain")
    require(within, "statistic", "edges", "value", "null_mean", "null_low", "null_high", "p_value")
    domains = list(dict.fromkeys(concepts["domain"]))
    shade = {domain: PALETTE[i % len(PALETTE)] for i, domain in enumerate(domains)}
    number, gap = len(concepts), 0.8  # of a place, between domains
    slots = np.arange(number) + gap * concepts["domain"].map(domains.index).to_numpy()
    angles = np.pi / 2 - 2 * np.pi * slots / (number + gap * len(domains))
    at = dict(zip(concepts["concept"], np.column_stack([np.cos(angles), np.sin(angles)]), strict=True))
    of = dict(zip(concepts["concept"], concepts["domain"], strict=True))

    size = 7 if number <= 60 else 4.2
    side = float(np.clip(0.13 * number, 5.4, 8.5)) if number <= 60 else 9.0
    letters = max(max(map(len, map(str, concepts["concept"]))), 4)
    reach = 1.06 + 2 * 0.0085 * size * letters / side + 0.10
    figure = Figure(figsize=(side, side + 1.15), layout="constrained")
    axes, strip = figure.subplots(2, 1, height_ratios=(side, 0.75))
    largest = float(edges["overlap"].max()) if len(edges) else 1.0
    for row in each_row(edges.sort_values(["same_domain", "overlap"])):
        start, end = at[row.concept_1], at[row.concept_2]
        pull = 0.55 * np.linalg.norm(start - end) / 2  # far ones pass near the middle, near ones stay outside
        middle = (start + end) / 2 * (1 - min(pull, 0.75))
        axes.add_patch(
            PathPatch(
                Path([start, middle, end], [Path.MOVETO, Path.CURVE3, Path.CURVE3]),
                facecolor="none",
                edgecolor=shade[of[row.concept_1]] if row.same_domain else FAINT,
                linewidth=max(0.3, _WIDEST * row.overlap / largest),
                linestyle=(0, (1.5, 1)) if row.same_beginning else "-",
                alpha=0.75 if row.same_domain else 0.45,
                capstyle="butt",
            )
        )
    for name, angle in zip(concepts["concept"], angles, strict=True):
        x, y = at[name]
        axes.plot(x, y, "o", color=shade[of[name]], markersize=3.2, markeredgewidth=0, zorder=3)
        turned, left = np.degrees(angle), np.cos(angle) < -1e-9
        axes.text(
            *(1.035 * x, 1.035 * y, str(name)),
            rotation=turned + 180 if left else turned,
            rotation_mode="anchor",
            ha="right" if left else "left",
            va="center",
            fontsize=size,
            color=shade[of[name]],
        )
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    axes.axis("off")
    _strip(strip, within)
    keys = [
        Line2D([], [], color=PALETTE[0], linewidth=2, label="within a domain"),
        Line2D([], [], color=FAINT, linewidth=2, label="between domains"),
        Line2D([], [], color=INK, linewidth=2, linestyle=(0, (1.5, 1)), label="words that begin alike"),
        Line2D([], [], color=FAINT, linewidth=_WIDEST, label=f"overlap {largest:.2g}"),
        Line2D([], [], color=FAINT, linewidth=_WIDEST / 4, label=f"{largest / 4:.2g}"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=5, columnspacing=1, handlelength=1.8, fontsize=6.5)
    return figure


def _strip(axes: Axes, within: pd.DataFrame) -> None:
    """Draw the share of edges within domains, and its null, with and without the words that begin alike."""
    rows = within[within["statistic"] == "edges"].dropna(subset=["value"]).reset_index(drop=True)
    for row in each_row(rows):
        axes.plot(
            [row.null_low, row.null_high], [row.Index] * 2, color=FAINT, linewidth=4, alpha=0.5, solid_capstyle="butt"
        )
        axes.plot(row.null_mean, row.Index, "|", color=INK, markersize=7)
        axes.plot(row.value, row.Index, "o", color=PALETTE[0], markersize=5)
        axes.text(row.value, row.Index, f"   {row.value:.2f} (p = {row.p_value:.2g})", va="center", fontsize=7)
    axes.set_yticks(rows.index, [{"all": "all edges"}.get(name, f"words with {name}") for name in rows["edges"]])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.28)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_xlabel("Share of edges within domains (grey: domains handed out at random, 95%)")
    axes.tick_params(axis="y", length=0)
