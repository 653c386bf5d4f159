"""What steering does: effects over units and strength, what they cost, and what else moves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from expertlens_jax.data.rows import each_group, each_row
from expertlens_jax.plot.columns import require, require_values
from expertlens_jax.plot.style import FAINT, INK, PALE, Figure, colours, drawn

ARMS = {
    "experts": "Experts",
    "random": "Random units",
    "matched": "Equally active non-experts",
    "another_concept": "Another concept's experts",
}
# What is drawn of each measure: its change or its value, the axis' label, and how it is brought to that.
_PANELS = (
    ("word_log_prob", "change", "Log-probability of\nthe word, change (nats)", lambda x: x),
    ("mention", "value", "Continuations that\nmention it (%)", lambda x: 100 * x),
    ("expert_response", "value", "Its experts' response\nto what was written", lambda x: x),
    ("surprise", "value", "Perplexity of steered\ntext, unsteered model", np.exp),
    ("held_out_surprise", "value", "Perplexity of held-out\ntext, steered model", np.exp),
    ("distinct_2", "value", "Distinct pairs\nof tokens (%)", lambda x: 100 * x),
)
# Axes of percentages reach at least so far, lest nothing looks like much.
_LIMITS = {"mention": (0, 5), "distinct_2": (95, 100)}


@drawn
def plot_steering(curves: pd.DataFrame) -> Figure:
    """Draw each measure (rows) against the number of steered units and against strength (columns), a line an arm.

    Args:
      curves: a row per arm, method, count, strength and measure: value, ci_low, ci_high, change, change_ci_low,
        change_ci_high. The arm "unsteered" is a dashed line.

    >>> import expertlens_jax as el, pandas as pd
    >>> rows = [("experts", 5, 1.0, 0.3), ("experts", 50, 1.0, 0.9), ("experts", 50, 0.5, 0.6), ("random", 50, 1.0, 0)]
    >>> curves = pd.DataFrame(rows, columns=["arm", "count", "strength", "change"]).assign(method="set_median")
    >>> curves = curves.assign(change_ci_low=curves["change"] - 0.1, change_ci_high=curves["change"] + 0.1)
    >>> measures = ["word_log_prob", "mention", "expert_response", "surprise", "held_out_surprise", "distinct_2"]
    >>> curves = curves.merge(pd.Series(measures, name="measure"), how="cross")
    >>> figure = el.plot.steering(curves.assign(value=0.5, ci_low=0.4, ci_high=0.6))
    >>> figure.axes[-2].get_xlabel(), figure.axes[-1].get_xlabel()
    ('Steered units (strength 1)', 'Strength (50 units)')
    """
    require(curves, "arm", "method", "count", "strength", "measure", "value", "ci_low", "change", "change_ci_low")
    require_values(curves, "measure", *(measure for measure, *_ in _PANELS))
    require_values(curves, "arm", "experts")
    method = curves.loc[curves["arm"] != "experts", "method"].replace("none", np.nan).dropna()
    method = method.iloc[0] if len(method) else curves.loc[curves["arm"] == "experts", "method"].iloc[0]
    arms = [arm for arm in ARMS if (curves["arm"] == arm).any()]
    shade = colours(arms)
    steered = curves[curves["method"] == method]
    counts = steered.groupby("strength")["count"].nunique()
    by_count = steered[steered["strength"] == counts.idxmax()]
    strengths = steered.groupby("count")["strength"].nunique()
    by_strength = steered[steered["count"] == strengths.idxmax()]
    figure = Figure(figsize=(5.6, 1.25 * len(_PANELS) + 0.6), layout="constrained")
    axes = figure.subplots(len(_PANELS), 2, sharex="col", sharey="row")
    for row, (measure, column, label, shown) in enumerate(_PANELS):
        plain = curves[(curves["arm"] == "unsteered") & (curves["measure"] == measure)]
        for panel, rows, x in zip(axes[row], (by_count, by_strength), ("count", "strength"), strict=True):
            for arm in reversed(arms):  # the experts last and thinner, so that none hides another that is the same
                line = rows[(rows["arm"] == arm) & (rows["measure"] == measure)].sort_values(x)
                _draw_line(panel, line, x, column, shown, shade[arm], ARMS[arm], 1.1 if arm == "experts" else 1.7)
            if len(plain):
                panel.axhline(shown(plain[column].iloc[0]), color=FAINT, linestyle=(0, (4, 3)), linewidth=0.8)
            if measure.endswith("surprise"):
                panel.set_yscale("log")
                panel.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
                panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                panel.yaxis.set_minor_formatter(NullFormatter())
        axes[row, 0].set_ylabel(label, fontsize=7)
        if measure in _LIMITS:
            low, high = axes[row, 0].get_ylim()
            least, most = _LIMITS[measure]
            span = max(high, most) - min(low, least)
            axes[row, 0].set_ylim(max(min(low, least), -0.04 * span), min(max(high, most), 100 + 0.04 * span))
    axes[-1, 0].set_xscale("log")
    ticks = sorted(set(by_count["count"]))
    axes[-1, 0].set_xticks(ticks, [str(tick) for tick in ticks])
    axes[-1, 0].minorticks_off()
    axes[-1, 0].set_xlabel(f"Steered units (strength {counts.idxmax():g})")
    axes[-1, 1].set_xlabel(f"Strength ({strengths.idxmax()} units)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=2)
    figure.align_ylabels(axes[:, 0])
    return figure


def _draw_line(
    axes: Axes,
    line: pd.DataFrame,
    x: str,
    column: str,
    shown: Callable[[pd.Series], pd.Series],
    colour: str,
    label: str,
    width: float,
) -> None:
    """Draw an arm's means and their interval."""
    prefix = "" if column == "value" else "change_"
    axes.plot(
        line[x], shown(line[column]), color=colour, marker="o", markersize=2.5 * width, linewidth=width, label=label
    )
    axes.fill_between(
        line[x], shown(line[f"{prefix}ci_low"]), shown(line[f"{prefix}ci_high"]), color=colour, alpha=0.15, linewidth=0
    )


@drawn
def plot_steering_cost(curves: pd.DataFrame) -> Figure:
    """Draw what each method gains and what it costs, a point a strength: the concept against held-out perplexity.

    Args:
      curves: as `plot_steering` takes them; rows of the arm "experts" and of "unsteered" are drawn.

    >>> import expertlens_jax as el, pandas as pd
    >>> rows = [("word_log_prob", 0.5, -5.0, 0.6), ("word_log_prob", 1.0, -4.0, 1.6)]
    >>> rows += [("held_out_surprise", 0.5, 3.1, 0.1), ("held_out_surprise", 1.0, 3.4, 0.4)]
    >>> curves = pd.DataFrame(rows, columns=["measure", "strength", "value", "change"])
    >>> for prefix, column in (("", "value"), ("change_", "change")):
    ...     curves[f"{prefix}ci_low"], curves[f"{prefix}ci_high"] = curves[column] - 0.1, curves[column] + 0.1
    >>> figure = el.plot.steering_cost(curves.assign(arm="experts", method="set_median", count=50))
    >>> figure.axes[0].get_xlabel().splitlines()[0]
    'Perplexity of held-out text, 50 units steered'
    """
    require(curves, "arm", "method", "count", "strength", "measure", "value", "ci_low", "change", "change_ci_low")
    require_values(curves, "arm", "experts")
    require_values(curves[curves["arm"] == "experts"], "measure", "word_log_prob", "held_out_surprise")
    experts = curves[curves["arm"] == "experts"]
    strengths = experts.groupby("count")["strength"].nunique()
    experts = experts[experts["count"] == strengths.idxmax()]
    gain, cost = (experts[experts["measure"] == name] for name in ("word_log_prob", "held_out_surprise"))
    both = gain.merge(cost, on=["method", "strength"], suffixes=("_gain", "_cost"), sort=False)
    plain = curves[(curves["arm"] == "unsteered") & (curves["measure"] == "held_out_surprise")]["value"]
    methods = list(dict.fromkeys(both["method"]))
    shade = colours(methods)
    figure = Figure(figsize=(3.8, 3.0), layout="constrained")
    axes = figure.subplots()
    for method in methods:
        line = both[both["method"] == method].sort_values("strength")
        x, y = np.exp(line["value_cost"]), line["change_gain"]
        x_reach = np.abs(np.exp(line[["ci_low_cost", "ci_high_cost"]].to_numpy().T) - x.to_numpy())
        y_reach = np.abs(line[["change_ci_low_gain", "change_ci_high_gain"]].to_numpy().T - y.to_numpy())
        axes.errorbar(x, y, y_reach, x_reach, fmt="none", ecolor=shade[method], elinewidth=0.6, alpha=0.35)
        start = ([np.exp(plain.iloc[0])], [0.0]) if len(plain) else ([], [])
        axes.plot([*start[0], *x], [*start[1], *y], color=shade[method], linewidth=0.9, label=method.replace("_", " "))
        axes.scatter(x, y, s=6 + 30 * line["strength"], color=shade[method], linewidth=0, zorder=3)
    if len(plain):
        axes.axvline(np.exp(plain.iloc[0]), color=FAINT, linestyle=(0, (4, 3)), linewidth=0.8)
    axes.axhline(0, color=PALE, zorder=0)
    axes.set_xlabel(f"Perplexity of held-out text, {strengths.idxmax()} units steered\n(larger points: stronger)")
    axes.set_ylabel("Log-probability of the word,\nchange (nats)")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


@drawn
def plot_steering_choice(table: pd.DataFrame, *, most_perplexity: float) -> Figure:
    """Draw what each candidate for steering gains and costs: a point each, the one that was chosen named.

    >>> import expertlens_jax as el, pandas as pd
    >>> rows = [("set_median", 20, 1.0, 0.1, 1.2, True), ("set_median", 50, 1.0, 0.3, 2.5, False)]
    >>> table = pd.DataFrame(rows, columns=["method", "top", "strength", "share", "perplexity", "chosen"])
    >>> figure = el.plot.steering_choice(table.assign(ci_low=0.0, ci_high=0.4, chance=0.02), most_perplexity=1.5)
    >>> figure.axes[0].get_ylabel()
    'Texts that name the concept'

    Args:
      table: of `el.choose_steering`: `method, top, strength, share, ci_low, ci_high, chance, perplexity, chosen`.
      most_perplexity: what a candidate may cost.
    """
    require(table, *("method", "top", "strength", "share", "ci_low", "ci_high", "chance", "perplexity", "chosen"))
    shade = colours(list(dict.fromkeys(table["method"])))
    figure = Figure(figsize=(4.4, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.axvspan(0, most_perplexity, color=PALE, alpha=0.45, zorder=0, linewidth=0)
    for method, rows in each_group(table, "method"):
        reach = np.abs(rows[["ci_low", "ci_high"]].to_numpy().T - rows["share"].to_numpy())
        axes.errorbar(
            rows["perplexity"], rows["share"], reach, fmt="none", ecolor=shade[method], elinewidth=0.6, alpha=0.35
        )
        size = 8 + 12 * np.log10(rows["top"].clip(lower=1))
        face = [shade[method] if strength == 1 else "white" for strength in rows["strength"]]
        axes.scatter(rows["perplexity"], rows["share"], s=size, color=face, edgecolor=shade[method], linewidth=0.9)
        axes.plot([], [], "o", color=shade[method], markersize=4, label=method.replace("_", " "))
    axes.axhline(table["chance"].iloc[0], color=FAINT, linestyle=(0, (4, 3)), linewidth=0.8)
    for row in each_row(table[table["chosen"]]):
        axes.annotate(
            f"chosen: {row.top:,} units",
            (row.perplexity, row.share),
            xytext=(0, 34),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": INK, "shrinkB": 4},
        )
    axes.set_xscale("log")
    axes.set_xlim(min(0.9, 0.95 * table["perplexity"].min()), 1.1 * max(table["perplexity"].max(), most_perplexity))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel(
        f"Perplexity, times that of unsteered text (shaded: up to {most_perplexity:g})\n"
        "(larger: more units; hollow: less than full strength; dashed: unsteered)"
    )
    axes.set_ylabel("Texts that name the concept")
    figure.legend(loc="outside upper center", ncols=4)
    return figure


@drawn
def plot_steered_away(away: pd.DataFrame, moved: pd.DataFrame) -> Figure:
    """Draw a concept removed, another spared: their words' probability, what is left of every concept's experts, and
    what moved on the map of overlaps.

    Args:
      away: a row per concept, spared, method, sparing (bool) and word: change, ci_low, ci_high.
      moved: a row per concept, spared and `of` (any concept): kept, from 0 to 1; its places x, y and, steered, x_after,
        y_after.

    >>> import expertlens_jax as el, pandas as pd
    >>> pair = {"concept": "cat", "spared": "dog"}
    >>> away = pd.DataFrame({"word": ["cat", "dog"], "change": [-2.0, -0.1]})
    >>> away = away.assign(ci_low=away["change"] - 0.5, ci_high=away["change"] + 0.5)
    >>> moved = pd.DataFrame({"of": ["cat", "dog"], "kept": [0.1, 0.9], "x": [0, 1], "y": 0.0, "x_after": [2, 1]})
    >>> moved = moved.assign(y_after=[1.0, 0.0], **pair)
    >>> figure = el.plot.steered_away(away.assign(method="set_median", sparing=True, **pair), moved)
    >>> figure.axes[0].get_yticklabels()[0].get_text()
    'set median, dog spared'
    """
    require(away, "concept", "spared", "method", "sparing", "word", "change", "ci_low", "ci_high", rows=False)
    require(moved, "concept", "spared", "of", "kept", "x", "y", "x_after", "y_after", rows=False)
    pairs = list(dict.fromkeys(zip(away["concept"], away["spared"], strict=True))) if len(away) else []
    if not pairs:
        figure = Figure(figsize=(3, 1), layout="constrained")
        figure.text(0.5, 0.5, "no concept was steered away from", ha="center", color=FAINT)
        return figure
    figure = Figure(figsize=(7.4, 0.6 + 1.9 * len(pairs)), layout="constrained")
    axes = figure.subplots(len(pairs), 3, squeeze=False, width_ratios=(1.2, 0.9, 1))
    for (words, experts, places), (concept, spared) in zip(axes, pairs, strict=True):
        shade = colours([concept, spared])
        _draw_words(words, away[(away["concept"] == concept) & (away["spared"] == spared)], shade, spared)
        here = moved[(moved["concept"] == concept) & (moved["spared"] == spared)]
        _draw_kept(experts, here.sort_values("kept"), shade)
        _draw_map(places, here, shade)
    for column in range(2):
        for axis in axes[:-1, column]:
            axis.sharex(axes[-1, column])
            axis.tick_params(labelbottom=False)
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(4))
    axes[-1, 0].set_xlabel("Log-probability of the word where it\nstands in held-out sentences, change (nats)")
    axes[-1, 1].set_xlabel("Concepts, least kept first")
    axes[-1, 2].set_xlabel("Map of overlaps,\nfrom before (·) to steered (•)")
    return figure


def _draw_words(axes: Axes, rows: pd.DataFrame, shade: dict[str, str], spared: str) -> None:
    """Draw what becomes of the words' probability: a line a way of steering, two points each."""
    ways = list(dict.fromkeys(zip(rows["method"], rows["sparing"], strict=True)))
    for offset, word in zip((-0.12, 0.12), (word for word in shade if word), strict=True):
        line = rows[rows["word"] == word]
        y = np.array([ways.index(way) for way in zip(line["method"], line["sparing"], strict=True)]) + offset
        reach = np.abs(line[["ci_low", "ci_high"]].to_numpy().T - line["change"].to_numpy())
        axes.errorbar(
            line["change"], y, xerr=reach, fmt="o", markersize=3.5, linewidth=1, color=shade[word], label=word
        )
    axes.axvline(0, color=FAINT, linewidth=0.7)
    axes.set_yticks(range(len(ways)), [f"{m.replace('_', ' ')}{f', {spared} spared' if by else ''}" for m, by in ways])
    axes.set_ylim(len(ways) - 0.5, -0.5)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)


def _draw_kept(axes: Axes, rows: pd.DataFrame, shade: dict[str, str]) -> None:
    """Draw the share of its experts that each concept keeps, in the rows' order."""
    axes.plot(np.arange(1, len(rows) + 1), 100 * rows["kept"], color=FAINT, linewidth=1)
    for word in filter(None, shade):
        for place in np.flatnonzero(rows["of"] == word):
            at = place + 1, 100 * rows["kept"].iloc[place]
            axes.plot(*at, "o", color=shade[word], markersize=4)
            side, offset = ("left", (4, -3)) if place < len(rows) / 2 else ("center", (0, -5))  # clear of the line
            axes.annotate(word, at, offset, textcoords="offset points", color=INK, fontsize=7, va="top", ha=side)
    axes.set_ylim(0, 103)
    axes.set_ylabel("Experts kept (%)")


def _draw_map(axes: Axes, rows: pd.DataFrame, shade: dict[str, str]) -> None:
    """Draw every concept's way on the map; the two named stand out."""
    for row in each_row(rows):
        colour, front = (shade[row.of], 3) if row.of in shade else (FAINT, 2)
        size = 1.7 if row.of in shade else 1
        axes.plot([row.x, row.x_after], [row.y, row.y_after], color=colour, linewidth=0.6 * size, zorder=front)
        axes.plot(row.x, row.y, ".", color=colour, markersize=2 * size, markeredgewidth=0, zorder=front)
        axes.plot(row.x_after, row.y_after, "o", color=colour, markersize=2.5 * size, markeredgewidth=0, zorder=front)
    for row in each_row(rows[rows["of"].isin([word for word in shade if word])]):
        offset, side = (4, "bottom") if row.y_after >= row.y else (-4, "top")  # beyond the end of its way
        axes.annotate(
            row.of,
            (row.x_after, row.y_after),
            (0, offset),
            textcoords="offset points",
            fontsize=7,
            ha="center",
            va=side,
        )
    axes.set_aspect("equal", "datalim")
    axes.set_xticks([])
    axes.set_yticks([])
