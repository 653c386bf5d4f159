"""Human rating against similarity, pair by pair."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from expertlens_jax.cards import counted
from expertlens_jax.errors import ExpertLensError
from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import INK, STYLE, Figure, colours, drawn


@drawn
def plot_alignment(tables: pd.DataFrame, results: pd.DataFrame, *, quantity: str = "Overlap") -> Figure:
    """Draw human rating against similarity, a panel per sentence set (rows) and ratings (columns).

    The line joins the medians of equally many pairs each. Named are the pairs furthest from a perfect rank
    correlation, on both sides.

    Args:
      tables: a row per rated pair: sentences, ratings, word_1, word_2, rating, similarity.
      results: a row per panel: sentences, ratings, spearman, ci_low, ci_high, pairs, and note where
        spearman is NaN.
      quantity: what the similarity is, for the axis.

    >>> import expertlens_jax as el, pandas as pd
    >>> panel = {"sentences": "facts", "ratings": "mine"}
    >>> pairs = [("cat", "dog", 9.0, 0.6), ("cat", "car", 1.5, 0.1), ("dog", "car", 2.0, 0.2)]
    >>> tables = pd.DataFrame(pairs, columns=["word_1", "word_2", "rating", "similarity"]).assign(**panel)
    >>> results = pd.DataFrame([panel | {"spearman": 1.0, "ci_low": 0.5, "ci_high": 1.0, "pairs": 3, "note": ""}])
    >>> figure = el.plot.alignment(tables, results)
    >>> print(figure.axes[0].texts[-1].get_text())
    ρ = 1.00 [0.50, 1.00]
    3 pairs
    """
    require(tables, "sentences", "ratings", "word_1", "word_2", "rating", "similarity", rows=False)
    require(results, "sentences", "ratings", "spearman", "ci_low", "ci_high", "pairs")
    rows, columns = list(dict.fromkeys(results["sentences"])), list(dict.fromkeys(results["ratings"]))
    colour = colours(rows)
    width, height = 2.35, 2.15  # of a panel, in inches
    figure = Figure(figsize=(width * len(columns) + 0.5, height * len(rows) + 0.4), layout="constrained")
    panels = figure.subplots(len(rows), len(columns), squeeze=False, sharex="col", sharey=True)
    # Limits first, with room above the points for the panel's numbers: names are placed by what is free.
    highest, lowest = tables["similarity"].max(), min(0.0, tables["similarity"].min())
    if not len(tables) or highest == lowest:
        highest = lowest + 1
    panels[0, 0].set_ylim(lowest - 0.04 * (highest - lowest), highest + 0.22 * (highest - lowest))
    for j, ratings in enumerate(columns):
        rated = tables.loc[tables["ratings"] == ratings, "rating"]
        if len(rated):
            margin = 0.05 * (np.ptp(rated) or 1)
            panels[0, j].set_xlim(rated.min() - margin, rated.max() + margin)
    for i, sentences in enumerate(rows):
        for j, ratings in enumerate(columns):
            axes: Axes = panels[i, j]
            here = (tables["sentences"] == sentences) & (tables["ratings"] == ratings)
            result = results[(results["sentences"] == sentences) & (results["ratings"] == ratings)]
            if len(result) != 1:
                raise ExpertLensError(
                    f"results has {counted(len(result), 'row')} for sentences {sentences!r} and ratings {ratings!r}; "
                    "a panel wants exactly one"
                )
            _pairs_panel(axes, tables[here], colour[sentences], width, height)
            axes.text(0.03, 0.985, _result_text(result.iloc[0]), transform=axes.transAxes, va="top", fontsize=7.5)
            if i == 0:
                axes.set_title(ratings, loc="left", fontweight="bold")
            if i == len(rows) - 1:
                axes.set_xlabel("Human rating")
            if j == 0:
                axes.set_ylabel(sentences, fontweight="bold")
    figure.supylabel(quantity, fontsize=STYLE["axes.labelsize"])
    return figure


def _result_text(result: pd.Series) -> str:
    if np.isnan(result["spearman"]):
        return f"no correlation, {_count(result['pairs'])}"
    interval = f"[{result['ci_low']:.2f}, {result['ci_high']:.2f}]"
    return f"ρ = {result['spearman']:.2f} {interval}\n{_count(result['pairs'])}"


def _count(pairs: float) -> str:
    return f"{pairs:.0f} pair{'' if pairs == 1 else 's'}"


def _pairs_panel(axes: Axes, pairs: pd.DataFrame, colour: str, width: float, height: float) -> None:
    """Points, binned medians, and the names of a few pairs off the trend, where there is room."""
    if pairs.empty:
        return
    x, y = pairs["rating"].to_numpy(), pairs["similarity"].to_numpy()
    axes.plot(
        x,
        y,
        "o",
        color=colour,
        markersize=np.clip(30 / np.sqrt(len(x)), 1.6, 3.2),
        alpha=float(np.clip(8 / np.sqrt(len(x)), 0.25, 0.6)),
        markeredgewidth=0,
        gid="pairs",
        clip_on=False,
    )
    bins = np.array_split(np.argsort(x, kind="stable"), np.clip(len(x) // 8, 1, 8))
    if len(bins) > 1:
        medians = np.array([(np.median(x[b]), np.median(y[b])) for b in bins]).T
        axes.plot(*medians, "-", color=INK, linewidth=1.4, gid="medians")

    off = pd.Series(y).rank().to_numpy() - pd.Series(x).rank().to_numpy()
    order = np.argsort(off, kind="stable")
    both = np.stack([order[::-1], order], axis=1).ravel()  # from both sides in turn, which meet where pairs are few
    wanted = list(dict.fromkeys(both.tolist()))[:24]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    points = np.stack([(x - left) / (right - left), (y - bottom) / (top - bottom)], axis=1)
    obstacles = points
    if len(bins) > 1:  # the line counts as a row of points
        line_x = np.linspace(*medians[0, [0, -1]], 60)
        line = np.stack([line_x, np.interp(line_x, *medians)], axis=1)
        obstacles = np.concatenate([points, (line - [left, bottom]) / [right - left, top - bottom]])
    # A panel's data area is about its size less the axis labels; 7 pt letters are some 0.55 of that wide.
    letter, height = 0.55 * 7 / 72 / (width - 0.4), 9 / 72 / (height - 0.35)
    taken = [(0.0, 0.83, 0.8, 1.0)]  # the panel's numbers
    for k in wanted:
        if len(taken) == 5:
            break
        text = f"{pairs['word_1'].iloc[k]}, {pairs['word_2'].iloc[k]}"
        place = _free_place(points[k], obstacles, letter * len(text), height, taken)
        if place is None:
            continue
        box, across, down = place
        taken.append(box)
        axes.plot(x[k], y[k], "o", color=INK, markersize=2.4, markeredgewidth=0, clip_on=False, zorder=4)
        axes.text(
            {"left": box[0], "center": (box[0] + box[2]) / 2, "right": box[2]}[across],
            {"bottom": box[1], "center": (box[1] + box[3]) / 2, "top": box[3]}[down],
            text,
            transform=axes.transAxes,
            ha=across,
            va=down,
            fontsize=7,
            zorder=5,
        )


def _free_place(
    point: np.ndarray, obstacles: np.ndarray, width: float, height: float, taken: list[tuple[float, ...]]
) -> tuple[tuple[float, ...], str, str] | None:
    """Return where a name fits beside its point: box (left, bottom, right, top) in axes coordinates, and alignment.

    None if it would leave the panel, touch another name, or hide more than one point wherever it stands.
    """
    x, y = point
    gap = 0.022
    places = {
        ("left", "center"): (x + gap, y - height / 2),
        ("right", "center"): (x - gap - width, y - height / 2),
        ("center", "bottom"): (x - width / 2, y + gap / 2),
        ("center", "top"): (x - width / 2, y - gap / 2 - height),
        ("left", "bottom"): (x, y + gap / 2),
        ("right", "bottom"): (x - width, y + gap / 2),
        ("left", "top"): (x, y - gap / 2 - height),
        ("right", "top"): (x - width, y - gap / 2 - height),
    }
    best, fewest = None, 2
    for (across, down), (left, bottom) in places.items():
        box = (left, bottom, left + width, bottom + height)
        if left < 0 or bottom < 0 or box[2] > 1.03 or box[3] > 1:
            continue
        if any(left < t[2] and t[0] < box[2] and bottom < t[3] and t[1] < box[3] for t in taken):
            continue
        hidden = np.all((obstacles > box[:2]) & (obstacles < box[2:]), axis=1).sum()
        if hidden < fewest:
            best, fewest = (box, across, down), hidden
    return best
