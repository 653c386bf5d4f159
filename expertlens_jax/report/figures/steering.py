"""What steering does: effects over units and strength, what they cost, and what else moves."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from expertlens_jax.report.figures.table import require
from expertlens_jax.report.style import FAINT, INK, PALE, colours, styled

ARMS = {
    "experts": "Experts",
    "random": "Random units",
    "equally_active": "Equally active non-experts",
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


@styled()
def plot_steering(curves: pd.DataFrame) -> Figure:
    """Each measure (rows) against the number of steered units and against strength (columns), a line an arm.

    Args:
      curves: a row per arm, method, count, strength and measure: value, ci_low, ci_high, change, change_ci_low,
        change_ci_high. The arm "unsteered" is a dashed line.
    """
    require(curves, "arm", "method", "count", "strength", "measure", "value", "ci_low", "change", "change_ci_low")
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
            for arm in arms:
                line = rows[(rows["arm"] == arm) & (rows["measure"] == measure)].sort_values(x)
                _draw_line(panel, line, x, column, shown, shade[arm], ARMS[arm])
            if len(plain):
                panel.axhline(shown(plain[column].iloc[0]), color=FAINT, linestyle=(0, (4, 3)), linewidth=0.8)
            if measure.endswith("surprise"):
                panel.set_yscale("log")
                panel.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
                panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                panel.yaxis.set_minor_formatter(NullFormatter())
        axes[row, 0].set_ylabel(label, fontsize=7)
    axes[-1, 0].set_xscale("log")
    ticks = sorted(set(by_count["count"]))
    axes[-1, 0].set_xticks(ticks, [str(tick) for tick in ticks])
    axes[-1, 0].minorticks_off()
    axes[-1, 0].set_xlabel(f"Steered units (strength {counts.idxmax():g})")
    axes[-1, 1].set_xlabel(f"Strength ({strengths.idxmax()} units)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    figure.align_ylabels(axes[:, 0])
    return figure


def _draw_line(axes: Axes, line: pd.DataFrame, x: str, column: str, shown, colour: str, label: str) -> None:  # noqa: ANN001
    """An arm's means and their interval."""
    prefix = "" if column == "value" else "change_"
    axes.plot(line[x], shown(line[column]), color=colour, marker="o", markersize=2.5, label=label)
    axes.fill_between(
        line[x], shown(line[f"{prefix}ci_low"]), shown(line[f"{prefix}ci_high"]), color=colour, alpha=0.15, linewidth=0
    )


@styled()
def plot_steering_cost(curves: pd.DataFrame) -> Figure:
    """What each method gains and what it costs, a point a strength: the concept against held-out perplexity.

    Args:
      curves: as `plot_steering` takes them; rows of the arm "experts" and of "unsteered" are drawn.
    """
    require(curves, "arm", "method", "count", "strength", "measure", "value", "change")
    experts = curves[curves["arm"] == "experts"]
    strengths = experts.groupby("count")["strength"].nunique()
    experts = experts[experts["count"] == strengths.idxmax()]
    wide = experts.pivot_table(
        index=["method", "strength"], columns="measure", values=["value", "change"], sort=False
    ).reset_index()
    methods = list(dict.fromkeys(wide["method"]))
    shade = colours(methods)
    figure = Figure(figsize=(3.6, 2.9), layout="constrained")
    axes = figure.subplots()
    for method in methods:
        line = wide[wide["method"] == method].sort_values("strength")
        x, y = np.exp(line["value", "held_out_surprise"]), line["change", "word_log_prob"]
        axes.plot(x, y, color=shade[method], linewidth=0.9, label=method.replace("_", " "))
        axes.scatter(x, y, s=6 + 30 * line["strength"], color=shade[method], linewidth=0)
    plain = curves[(curves["arm"] == "unsteered") & (curves["measure"] == "held_out_surprise")]
    if len(plain):
        axes.axvline(np.exp(plain["value"].iloc[0]), color=FAINT, linestyle=(0, (4, 3)), linewidth=0.8)
    axes.axhline(0, color=PALE, zorder=0)
    axes.set_xlabel(f"Perplexity of held-out text, {strengths.idxmax()} units steered\n(larger points: stronger)")
    axes.set_ylabel("Log-probability of the word,\nchange (nats)")
    axes.legend()
    return figure


@styled()
def plot_steered_away(away: pd.DataFrame, moved: pd.DataFrame) -> Figure:
    """A concept removed, another spared: their words' probability, and what is left of every concept's experts.

    Args:
      away: a row per concept, spared, method, sparing (bool) and word: change, ci_low, ci_high.
      moved: a row per concept, spared and `of` (any concept): kept, from 0 to 1.
    """
    require(away, "concept", "spared", "method", "sparing", "word", "change", "ci_low", "ci_high", rows=False)
    require(moved, "concept", "spared", "of", "kept", rows=False)
    pairs = list(dict.fromkeys(zip(away["concept"], away["spared"], strict=True)))
    if not pairs:
        figure = Figure(figsize=(3, 1), layout="constrained")
        figure.text(0.5, 0.5, "no concept was steered away from", ha="center", color=FAINT)
        return figure
    figure = Figure(figsize=(6.2, 0.5 + 1.7 * len(pairs)), layout="constrained")
    axes = figure.subplots(len(pairs), 2, squeeze=False, width_ratios=(1.1, 1), sharex="col")
    for (words, experts), (concept, spared) in zip(axes, pairs, strict=True):
        rows = away[(away["concept"] == concept) & (away["spared"] == spared)]
        ways = list(dict.fromkeys(zip(rows["method"], rows["sparing"], strict=True)))
        shade = colours([concept, spared])
        for offset, word in ((-0.12, concept), (0.12, spared)):
            line = rows[rows["word"] == word]
            y = np.array([ways.index(way) for way in zip(line["method"], line["sparing"], strict=True)]) + offset
            reach = np.abs(line[["ci_low", "ci_high"]].to_numpy().T - line["change"].to_numpy())
            words.errorbar(
                line["change"], y, xerr=reach, fmt="o", markersize=3.5, linewidth=1, color=shade[word], label=word
            )
        words.axvline(0, color=FAINT, linewidth=0.7)
        words.set_yticks(
            range(len(ways)), [f"{m.replace('_', ' ')}{f', {spared} spared' if by else ''}" for m, by in ways]
        )
        words.set_ylim(len(ways) - 0.5, -0.5)
        words.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
        here = moved[(moved["concept"] == concept) & (moved["spared"] == spared)].sort_values("kept")
        experts.plot(np.arange(1, len(here) + 1), 100 * here["kept"], color=FAINT, linewidth=1)
        for word in (concept, spared):
            place = np.flatnonzero(here["of"] == word)
            if len(place):
                at = place[0] + 1, 100 * here["kept"].iloc[place[0]]
                experts.plot(*at, "o", color=shade[word], markersize=4)
                experts.annotate(f" {word}", at, color=INK, fontsize=7, va="top")
        experts.set_ylim(0, 103)
        experts.set_ylabel("Experts kept (%)")
    axes[-1, 0].set_xlabel("Log-probability of the word where it\nstands in held-out sentences, change (nats)")
    axes[-1, 1].set_xlabel("Concepts, in order")
    return figure
