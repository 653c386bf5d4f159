"""What an audit of sentences found."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import COLORMAP, INK, PALE, Figure, drawn

_SHADES = {"high": COLORMAP(0.95), "medium": COLORMAP(0.6), "low": COLORMAP(0.25)}
_SHOWN = 14  # concepts


@drawn
def plot_audit(table: pd.DataFrame, sentences: Mapping[str, int], *, title: str = "") -> Figure:
    """Draw how many sentences have which problem, by severity, and the concepts with the largest share of them.

    Args:
      table: a row per sentence and problem: concept, sentence, problem, severity.
      sentences: of each concept, how many it has.
      title: what was audited.

    >>> import expertlens_jax as el, pandas as pd
    >>> table = pd.DataFrame({"concept": ["cat"], "sentence": ["It ran."], "problem": ["lacks its word"]})
    >>> figure = el.plot.audit(table.assign(severity="high"), {"cat": 4, "dog": 4}, title="mine")
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['mine: problems', 'Concepts with most']
    """
    require(table, "concept", "sentence", "problem", "severity", rows=False)
    problems = list(dict.fromkeys(table["problem"]))
    problems.sort(key=lambda name: -(table["problem"] == name).sum())
    grave = table[table["severity"] != "low"]
    counts = grave.groupby("concept")["sentence"].nunique()
    share = (counts / pd.Series(dict(sentences), dtype=float)).dropna().sort_values(ascending=False, kind="stable")
    worst = list(share.index[:_SHOWN])
    rows = max(len(problems), len(worst), 3)
    longest = max(map(len, [*problems, ""])) + max(map(len, [*worst, ""]))
    figure = Figure(figsize=(4.4 + 0.06 * longest, 0.22 * rows + 1.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    _stack(left, [table[table["problem"] == name] for name in problems], problems, None)
    left.set_xlabel("Sentences")
    left.set_title(f"{title}: problems" if title else "Problems", loc="left", fontweight="bold")
    _stack(right, [grave[grave["concept"] == name] for name in worst], worst, [sentences[name] for name in worst])
    right.set_xlabel("Share of a concept's sentences")
    right.set_title("Concepts with most", loc="left", fontweight="bold")
    right.set_xlim(0, max(0.1, 1.05 * float(share.max()) if len(share) else 1.0))
    handles = [Line2D([], [], color=shade, linewidth=6, label=name) for name, shade in _SHADES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=0.8)
    return figure


def _stack(axes: Axes, parts: list[pd.DataFrame], names: list[str], sizes: list[int] | None) -> None:
    """Bars of sentences, each counted once at its worst severity; of a size, if there are sizes."""
    for at, part in enumerate(parts):
        start = 0.0
        left = set(part["sentence"])
        for severity, shade in _SHADES.items():
            own = left & set(part.loc[part["severity"] == severity, "sentence"])
            left -= own
            width = len(own) / (sizes[at] if sizes else 1)
            axes.barh(at, width, left=start, height=0.7, color=shade, linewidth=0)
            start += width
        axes.text(start, at, f" {start:.0%}" if sizes else f" {start:.0f}", va="center", fontsize=7, color=INK)
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(max(len(names), 3) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=PALE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.margins(x=0.15)
