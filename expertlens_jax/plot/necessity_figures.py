"""What a model loses without its experts, what they can do, and whether two scores choose the same ones."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import FAINT, INK, PALE, PALETTE, Figure, drawn

SHADES = {"average_precision": PALETTE[0], "attribution": PALETTE[1]}
_MARKS = {"average_precision": "o", "attribution": "D"}
_RANDOM = "random, placed as by "
_SILENCED = {"zero": "set to 0", "median": "set to their median"}


@drawn
def plot_necessity(table: pd.DataFrame, agreement: pd.DataFrame) -> Figure:
    """Draw what is lost by how many units are silenced, what the same units raise, and how far scores agree.

    Args:
      table: a row per set and measure: units, count, ablation, measure, value, ci_low, ci_high. Each ablation has a
        panel of its own, all with one axis of falls.
      agreement: a row per two scores, measure and count: first, second, measure, count, value, ci_low, ci_high, chance.

    >>> import expertlens_jax as el, pandas as pd
    >>> at = {"ablation": "zero", "units": "average_precision", "count": [1, 10], "ci_low": 0.1, "ci_high": 0.4}
    >>> falls = pd.DataFrame(at | {"value": 0.3, "measure": "own"})
    >>> pair = {"first": "average_precision", "second": "attribution", "measure": "shared", "count": [1, 10]}
    >>> agreed = pd.DataFrame(pair | {"value": 0.2, "ci_low": 0.1, "ci_high": 0.3, "chance": [0.001, 0.01]})
    >>> [axes.get_title(loc="left") for axes in el.plot.necessity(falls, agreed).axes]
    ['Necessary', 'Chosen alike']
    """
    require(table, "units", "count", "ablation", "measure", "value", "ci_low", "ci_high")
    require(agreement, "first", "second", "measure", "count", "value", "ci_low", "ci_high", "chance", rows=False)
    ablations = list(dict.fromkeys(table["ablation"]))
    scores = [name for name in dict.fromkeys(table["units"]) if not name.startswith(_RANDOM)]
    shades = {name: SHADES.get(name, PALETTE[(i + 2) % len(PALETTE)]) for i, name in enumerate(scores)}
    shared = agreement[agreement["measure"] == "shared"]
    # What units do when they speak doesn't depend on how they are silenced: each ablation's rows have the same.
    speaking = table[(table["measure"] == "sufficiency") & (table["ablation"] == ablations[0])]
    names = [*ablations, *(["sufficient"] if len(speaking) else []), *(["alike"] if len(shared) else [])]
    columns = len(names) if len(names) < 4 else 2
    rows = -(-len(names) // columns)
    figure = Figure(figsize=((2.35 if rows == 1 else 3.55) * columns + 0.3, 2.45 * rows + 0.65), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).flat
    panels = dict(zip(names, places, strict=False))
    for axes in list(figure.axes)[len(names) :]:
        axes.remove()
    for name in ablations[1:]:
        panels[name].sharey(panels[ablations[0]])

    counts = sorted(set(table["count"]))
    falls = {
        (name, measure): table[(table["ablation"] == name) & (table["measure"] == measure)]
        for name in ablations
        for measure in ("own", "others")
    }
    for (panel, measure), rows_of in (falls | {("sufficient", "sufficiency"): speaking}).items():
        style = (0, (1, 1.2)) if measure == "others" else "-"
        for number, name in enumerate(dict.fromkeys(rows_of["units"])):
            score = name.removeprefix(_RANDOM)
            random = name.startswith(_RANDOM)
            own = rows_of[rows_of["units"] == name].sort_values("count")
            place = own["count"] * 1.03 ** (number - 1.5)  # so that intervals stand beside each other
            colour = FAINT if random else shades[score]
            _line(panels[panel], place, own, colour, _MARKS.get(score, "s"), style, hollow=random)
    how = {name: f" ({_SILENCED.get(name, name)})" if len(ablations) > 1 else "" for name in ablations}
    titles = {name: f"Necessary{how[name]}" for name in ablations}
    titles |= {"sufficient": "Sufficient", "alike": "Chosen alike"}
    labels = {"sufficient": "Rise of log p of the word (nats)", "alike": "Share of the highest in common"}
    along = {"sufficient": "Units made to speak", "alike": "Highest units"}
    if "alike" in panels:
        axes, first = panels["alike"], shared[["first", "second"]].iloc[0]
        own = shared[(shared[["first", "second"]] == first).all(axis=1)].sort_values("count")
        _line(axes, own["count"], own, INK, "o", "-")
        axes.plot(own["count"], own["chance"], color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
        end = own.iloc[-1]
        top = max(1.05 * float(own["ci_high"].max()), 0.1)
        under = float(end["chance"]) > 0.2 * top  # else it would stand on the axis' numbers
        offset = {"xytext": (0, -12 if under else 3), "textcoords": "offset points", "va": "top" if under else "bottom"}
        axes.annotate("chance", (end["count"], end["chance"]), fontsize=7, color=INK, ha="right", **offset)
        axes.set_ylim(0, top)
    for name, axes in panels.items():
        axes.set_title(titles[name], loc="left", fontweight="bold")
        axes.set_ylabel(labels.get(name, "Fall of log p of the word (nats)"))
        axes.set_xscale("log")
        axes.set_xticks(counts, [f"{count:,}" for count in counts])
        axes.minorticks_off()
        axes.set_xlabel(along.get(name, "Units silenced"))
        axes.grid(axis="y", color=PALE, linewidth=0.5)
        axes.set_axisbelow(True)
        if name != "alike":
            axes.axhline(0, color=INK, linewidth=0.6)
    handles = [
        Line2D([], [], color=shades[name], marker=_MARKS.get(name, "s"), markersize=3.5, label=name.replace("_", " "))
        for name in scores
    ]
    handles += [
        Line2D(
            *([], []),
            **{"color": FAINT, "marker": "o", "markersize": 3.5, "markerfacecolor": "white"},
            label="random units of the same layers and sites",
        ),
        Line2D([], [], color=INK, linestyle="-", label="the concept's word"),
        Line2D([], [], color=INK, linestyle=(0, (1, 1.2)), label="other concepts' words"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, columnspacing=1.4)
    return figure


@drawn
def plot_learned_units(table: pd.DataFrame) -> Figure:
    """Draw which share of the units that learning changes is among the highest by each score, beside chance.

    Args:
      table: a row per score: score, shared, ci_low, ci_high, chance.

    >>> import expertlens_jax as el, pandas as pd
    >>> shares = {"score": ["average_precision"], "shared": 0.1, "ci_low": 0.05, "ci_high": 0.2, "chance": 0.08}
    >>> el.plot.learned_units(pd.DataFrame(shares)).axes[0].get_xlabel()
    'Share of learned units among the highest'
    """
    require(table, "score", "shared", "ci_low", "ci_high", "chance")
    figure = Figure(figsize=(4.4, 0.9 + 0.42 * len(table)), layout="constrained")
    axes = figure.subplots()
    places = range(len(table))
    axes.hlines(places, table["ci_low"], table["ci_high"], color=PALETTE[0], linewidth=1.2)
    axes.plot(table["shared"], places, "o", color=PALETTE[0], markersize=4.5, label="learned units")
    axes.plot(table["chance"], places, "|", color=INK, markersize=11, label="chance")
    axes.set_yticks(places, [str(score).replace("_", " ") for score in table["score"]])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlim(0, max(1.1 * float(table[["ci_high", "chance"]].max(axis=None)), 0.1))
    axes.set_xlabel("Share of learned units among the highest")
    axes.grid(axis="x", color=PALE, linewidth=0.5)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def _line(
    axes: Axes, place: pd.Series, rows: pd.DataFrame, colour: str, mark: str, style: Any, hollow: bool = False
) -> None:
    """Draw a line of means with their intervals."""
    axes.vlines(place, rows["ci_low"], rows["ci_high"], color=colour, linewidth=0.9, alpha=0.6)
    axes.plot(place, rows["value"], color=colour, linestyle=style, marker=mark, markersize=3, linewidth=1.1)
    if hollow:
        axes.lines[-1].set_markerfacecolor("white")
