"""Runs side by side: experts, their average precision, overlaps of concepts, the same experts, alignment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from expertlens_jax.cards import shortened
from expertlens_jax.data.rows import each_group, each_row
from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import FAINT, INK, PALE, Figure, colours, drawn

_NAMED = 3
"""Points that are named: those farthest from where both runs are alike."""

_PAPER = withStroke(linewidth=1.8, foreground="white")  # beneath text, so that it can be read over points


@drawn
def plot_runs(
    concepts: pd.DataFrame,
    pairs: pd.DataFrame,
    agreement: pd.DataFrame,
    alignment: pd.DataFrame,
    *,
    threshold: float,
) -> Figure:
    """Draw a row per sentence set: the first run across, the others up; where both are alike, points lie on the line.

    Args:
      concepts: a row per sentences, run, other and concept: experts, other_experts, best_ap, other_best_ap, overlap,
        chance.
      pairs: a row per sentences, other and pair of concepts: overlap, other_overlap.
      agreement: a row per sentences and other: spearman, ci_low, ci_high.
      alignment: a row per sentences, ratings and other: spearman, other_spearman; NaN where there is none.
      threshold: τ, for the labels.

    >>> import expertlens_jax as el, pandas as pd
    >>> two = {"sentences": "facts", "run": "seed 0", "other": "seed 1"}
    >>> concepts = pd.DataFrame({"concept": ["cat", "dog"], "experts": [9, 5], "other_experts": [8, 7], "best_ap": 0.9})
    >>> concepts = concepts.assign(other_best_ap=[0.8, 0.9], overlap=None, chance=None, **two)  # other units
    >>> pairs = pd.DataFrame({"overlap": [0.3], "other_overlap": 0.2}).assign(**two)
    >>> agreement = pd.DataFrame([two | {"spearman": 0.7, "ci_low": 0.4, "ci_high": 0.9}])
    >>> alignment = pd.DataFrame([two | {"ratings": "mine", "spearman": None, "other_spearman": None}])
    >>> figure = el.plot.runs(concepts, pairs, agreement, alignment, threshold=0.5)
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['Experts at τ = 0.5', 'Best unit of a concept', 'Pairs of concepts']
    """
    experts = ("experts", "other_experts", "best_ap", "other_best_ap", "overlap", "chance")
    require(concepts, "sentences", "run", "other", "concept", *experts)
    require(pairs, "sentences", "other", "overlap", "other_overlap", rows=False)
    require(agreement, "sentences", "other", "spearman", "ci_low", "ci_high")
    require(alignment, "sentences", "ratings", "other", "spearman", "other_spearman", rows=False)
    sets, first = list(dict.fromkeys(concepts["sentences"])), concepts["run"].iloc[0]
    others = list(dict.fromkeys(concepts["other"]))
    colour = colours(others)
    here, there = _short(first, "the first"), _short(others[0], "the other") if len(others) == 1 else "the others"
    shared, aligned = concepts["overlap"].notna().any(), alignment["spearman"].notna().any()
    number = 3 + shared + aligned
    figure = Figure(figsize=(2.35 * number + 0.3, 2.4 * len(sets) + 0.5), layout="constrained")
    for line, sentences in zip(figure.subplots(len(sets), number, squeeze=False), sets, strict=True):
        of_set, of_pairs, told, rated = (
            table[table["sentences"] == sentences] for table in (concepts, pairs, agreement, alignment)
        )
        panels = iter(line)
        axes = next(panels)
        _scatter(axes, of_set, "experts", colour, zero=True)
        axes.set(xlabel=f"Experts in {here}", ylabel=f"Experts in {there}")
        axes.set_title(f"Experts at τ = {threshold:g}", loc="left", fontweight="bold")
        axes = next(panels)
        _scatter(axes, of_set, "best_ap", colour)
        axes.set(xlabel=f"Best AP in {here}", ylabel=f"Best AP in {there}")
        axes.set_title("Best unit of a concept", loc="left", fontweight="bold")
        axes = next(panels)
        _scatter(axes, of_pairs, "overlap", colour, names=False)
        axes.set(xlabel=f"Overlap in {here}", ylabel=f"Overlap in {there}")
        axes.set_title("Pairs of concepts", loc="left", fontweight="bold")
        for place, row in enumerate(each_row(told)):
            text = "no correlation" if np.isnan(row.spearman) else _with_interval("ρ", row)
            axes.text(
                *(0.03, 0.97 - 0.09 * place, text),
                transform=axes.transAxes,
                va="top",
                fontsize=7,
                color=colour[row.other],
                path_effects=[_PAPER],
            )
        if shared:
            _same_experts(next(panels), of_set, colour)
        if aligned:
            _alignments(next(panels), rated, here, colour)
        if len(sets) > 1 or sentences:
            line[0].set_ylabel(f"{sentences}\n{line[0].get_ylabel()}")
    handles = [line[0].plot([], [], "o", color=shade, markersize=4)[0] for shade in map(colour.get, colour) if shade]
    named = {name: handle for name, handle in zip(colour, handles, strict=False) if name}
    figure.legend(named.values(), named, loc="outside upper right", ncols=min(3, len(named)), title=f"against {first}")
    return figure


def _short(name: str, instead: str) -> str:
    """Return a run's name where it fits along an axis; the legend has it whole."""
    return name if len(name) <= 20 else instead


def _with_interval(name: str, row: Any) -> str:
    if np.isnan(row.ci_low):
        return f"{name} = {row.spearman:.2f}"
    return f"{name} = {row.spearman:.2f} [{row.ci_low:.2f}, {row.ci_high:.2f}]"


def _scatter(
    axes: Axes, table: pd.DataFrame, column: str, colour: dict[str, str], *, zero: bool = False, names: bool = True
) -> None:
    """Draw one run's values against another's, with the line where they are the same."""
    both = table[[column, f"other_{column}"]].to_numpy(np.float64)
    low, high = (both.min(), both.max()) if both.size else (0.0, 1.0)
    if zero:  # counts run over orders of magnitude, and may be 0
        axes.set_xscale("symlog", linthresh=1)
        axes.set_yscale("symlog", linthresh=1)
        low, high = -0.2 if low == 0 else low / 1.3, max(high, 1) * 1.6
    elif not names:  # overlaps: many are near 0, and a square root gives these room
        for scale in (axes.set_xscale, axes.set_yscale):
            scale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
        low, high = 0.0, min(1.0, max(1.25 * high, 1e-2))
        ticks = [each for each in ((0, 0.01, 0.05, 0.1, 0.2) if high < 0.4 else (0, 0.05, 0.2, 0.5, 1)) if each <= high]
        axes.set_xticks(ticks, [f"{each:g}" for each in ticks])
        axes.set_yticks(ticks, [f"{each:g}" for each in ticks])
    else:
        margin = 0.06 * max(high - low, 1e-3)
        low, high = low - margin, high + margin
    axes.plot([low, high], [low, high], color=FAINT, linewidth=0.7, zorder=0)
    size = float(np.clip(40 / np.sqrt(max(len(table), 1)), 1.6, 4))
    for other, rows in each_group(table, "other"):
        axes.plot(
            *(rows[column], rows[f"other_{column}"], "o"),
            color=colour[other],
            markersize=size,
            alpha=0.6,
            markeredgewidth=0,
            clip_on=False,
        )
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_box_aspect(1)
    if not names or table.empty:
        return
    shown = np.log1p(np.maximum(both, 0)) if zero else both
    middle = (np.log1p([max(low, 0), high]) if zero else np.array([low, high])).mean()
    height = 0.07 * float(np.ptp(np.log1p([max(low, 0), high]) if zero else [low, high]))
    named: list[str] = []
    taken: list[np.ndarray] = []
    for row in np.argsort(-np.abs(shown[:, 1] - shown[:, 0]), kind="stable"):
        concept = str(table["concept"].iloc[row])
        near = any(abs(shown[row, 1] - each[1]) < height for each in taken)
        if shown[row, 1] == shown[row, 0] or len(named) == _NAMED:
            return
        if concept in named or near:
            continue
        named.append(concept)
        taken.append(shown[row])
        left = shown[row, 0] > middle
        axes.annotate(
            shortened(concept, 18),
            both[row],
            xytext=(-4 if left else 4, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=6.5,
            color=INK,
            path_effects=[_PAPER],
        )


def _same_experts(axes: Axes, table: pd.DataFrame, colour: dict[str, str]) -> None:
    """Of each concept, how far its experts are the same, the most alike first; chance as a line beneath."""
    for other, rows in each_group(table, "other"):
        if rows["overlap"].isna().all():
            continue
        rows = rows.sort_values("overlap", ascending=False, kind="stable")
        place = (np.arange(len(rows)) + 0.5) / len(rows)
        axes.plot(place, rows["overlap"], "o-", color=colour[other], markersize=2.6, linewidth=0.8, alpha=0.8)
        axes.plot(place, rows["chance"], color=colour[other], linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set(xlabel="Concepts, the most alike first", ylabel="Jaccard of their experts", xticks=[], xlim=(0, 1))
    axes.set_ylim(bottom=min(-0.02, axes.get_ylim()[0]))
    axes.set_title("The same experts? (dashed: chance)", loc="left", fontweight="bold")
    axes.set_box_aspect(1)


def _alignments(axes: Axes, table: pd.DataFrame, first: str, colour: dict[str, str]) -> None:
    """Both correlations with each ratings: a line from the first run's to the other's."""
    table = table.dropna(subset=["spearman"])
    rows = list(each_row(table))
    for place, row in enumerate(rows):
        axes.axhline(place, color=PALE, linewidth=0.5, zorder=0)
        axes.plot([row.spearman, row.other_spearman], [place] * 2, color=colour[row.other], linewidth=1)
        axes.plot(row.other_spearman, place, "o", color=colour[row.other], markersize=4.5, markeredgewidth=0)
        axes.plot(row.spearman, place, "o", color=INK, markersize=4.5, markerfacecolor="white", markeredgewidth=0.9)
    axes.axvline(0, color=FAINT, linewidth=0.6, zorder=0)
    axes.set_yticks(range(len(rows)), [row.ratings for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("ρ with people's ratings")
    axes.set_title(f"Alignment (open: {first})", loc="left", fontweight="bold")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
