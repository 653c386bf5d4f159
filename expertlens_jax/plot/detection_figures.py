"""How well detectors tell a concept's sentences from others: side by side, and by what they learned from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from expertlens_jax.data.rows import each_row
from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import FAINT, INK, PALE, PALETTE, Figure, drawn

TITLES = {"average_precision": "Average precision", "auroc": "AUROC", "f1": "F1"}
GROUPS = {"units": "Units", "stream": "Residual stream", "sae": "SAE", "embedding": "Embedding", "sentences": "Text"}
SHADES = dict(zip(GROUPS, (PALETTE[0], PALETTE[1], PALETTE[2], PALETTE[3], PALETTE[4]), strict=True))
MARKERS = ("o", "s", "D", "^", "v", "P")
_COLUMNS = ("train", "test", "detector", "reads", "positives", "label_noise", "measure", "negatives_per_positive")
_NUMBERS = ("value", "ci_low", "ci_high", "chance")


@drawn
def plot_detection(table: pd.DataFrame, reference: str = "top_experts") -> Figure:
    """Draw a row per detector, a panel per measure; marks are train and test sets, colours what is read.

    Args:
      table: `detection.csv`: train, test, detector, reads, positives, label_noise, measure, negatives_per_positive,
        value, ci_low, ci_high, chance. Drawn are the most positives without noise, and the number of negatives per
        positive nearest to 10.
      reference: the detector whose name stands out.

    >>> import expertlens_jax as el, pandas as pd
    >>> sets = {"train": "facts", "test": "stories", "positives": 40, "label_noise": 0.0, "chance": 0.09}
    >>> at = {"measure": "average_precision", "negatives_per_positive": 10.0, "ci_low": 0.7, "ci_high": 0.9}
    >>> table = pd.DataFrame({"detector": ["top_experts", "probe"], "reads": ["units", "stream"], "value": [0.8, 0.85]})
    >>> figure = el.plot.detection(table.assign(**sets, **at))
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['top experts', 'probe']
    """
    require(table, *_COLUMNS, *_NUMBERS)
    table = _most(table)
    ratio = _typical(table)
    table = table[(table["negatives_per_positive"] == ratio) | table["negatives_per_positive"].isna()]
    pairs = list(dict.fromkeys(zip(table["train"], table["test"], strict=True)))
    mean = table[table["measure"] == "average_precision"].groupby("detector")["value"].mean()
    reads = table.drop_duplicates("detector").set_index("detector")["reads"]
    place, at, headings = {}, 0.0, {}
    for group in GROUPS:
        own = [name for name in mean.sort_values(ascending=False).index if reads[name] == group]
        if own:
            headings[group] = at
            for name in own:
                at += 1
                place[name] = at
            at += 1.4
    longest = max(map(len, place))
    figure = Figure(figsize=(0.06 * longest + 6.0, 0.24 * at + 1.0 + 0.16 * len(pairs)), layout="constrained")
    measures = [name for name in TITLES if name in set(table["measure"])]
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, measure in zip(panels, measures, strict=True):
        rows = table[table["measure"] == measure]
        for y in place.values():
            axes.axhline(y, color=PALE, linewidth=0.5, zorder=0)
        axes.axvline(rows["chance"].iloc[0], color=INK, linewidth=0.7, linestyle=(0, (2, 2)), zorder=1)
        for row in each_row(rows):
            number = pairs.index((row.train, row.test))
            y = place[row.detector] + 0.7 * ((number + 0.5) / len(pairs) - 0.5)
            colour = SHADES[row.reads]
            axes.plot([row.ci_low, row.ci_high], [y, y], color=colour, linewidth=1, alpha=0.55)
            axes.plot(row.value, y, MARKERS[number % len(MARKERS)], color=colour, markersize=3.2, markeredgewidth=0)
        axes.set_title(TITLES[measure], loc="left", fontweight="bold")
        axes.set_xlim(min(0.0, rows["ci_low"].min()) if measure != "auroc" else min(0.45, rows["ci_low"].min()), 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(4, prune=None))
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(list(place.values()), [name.replace("_", " ") for name in place])
    panels[0].set_ylim(at - 0.9, -0.5)
    for label, name in zip(panels[0].get_yticklabels(), place, strict=True):
        label.set_fontweight("bold" if name == reference else "normal")
    for group, y in headings.items():
        panels[0].text(
            -0.02,
            y,
            GROUPS[group],
            color=SHADES[group],
            fontweight="bold",
            fontsize=7.5,
            ha="right",
            va="center",
            transform=panels[0].get_yaxis_transform(),
        )
    marks = [
        Line2D(
            [],
            [],
            marker=MARKERS[i % len(MARKERS)],
            linestyle="",
            color=FAINT,
            markersize=4,
            label=f"{a} → {b}".replace("_", " "),
        )
        for i, (a, b) in enumerate(pairs)
    ]
    marks.append(Line2D([], [], color=INK, linewidth=0.7, linestyle=(0, (2, 2)), label="chance"))
    most = int(table["positives"].max())
    figure.legend(
        handles=marks, loc="outside upper center", ncols=min(3, len(marks)),
        title=f"learned from {most} positives at most; {ratio:g} negatives per positive",
    )  # fmt: skip
    return figure


@drawn
def plot_detection_examples(table: pd.DataFrame, reference: str = "top_experts") -> Figure:
    """Draw average precision by positives, by negatives per positive, and by wrong labels: a line per detector.

    Args:
      table: as in `plot_detection`; lines are means over train and test sets that have all that an axis has.
      reference: the detector whose line is thicker.

    >>> import expertlens_jax as el, pandas as pd
    >>> sets = {"train": "facts", "test": "stories", "positives": 40, "label_noise": 0.0, "chance": 0.09}
    >>> at = {"measure": "average_precision", "negatives_per_positive": 10.0, "ci_low": 0.7, "ci_high": 0.9}
    >>> table = pd.DataFrame({"detector": ["top_experts", "probe"], "reads": ["units", "stream"], "value": [0.8, 0.85]})
    >>> figure = el.plot.detection_examples(table.assign(**sets, **at))
    >>> figure.axes[0].get_xlabel()
    'Positives to learn from'
    """
    require(table, *_COLUMNS, *_NUMBERS)
    rows = table[table["measure"] == "average_precision"]
    ratio, most = _typical(table), table["positives"].max()
    tried = rows.groupby(["train", "test"])["positives"].transform("nunique")
    rows = rows[tried == tried.max()]  # sets that more was tried on
    at_ratio = rows[rows["negatives_per_positive"] == ratio]
    clean, learned = at_ratio[at_ratio["label_noise"] == 0], rows[rows["positives"] == most]
    panels_of = (
        ("positives", "Positives to learn from", clean, True),
        ("negatives_per_positive", "Negatives per positive", learned[learned["label_noise"] == 0], True),
        ("label_noise", "Share of wrong labels", learned[learned["negatives_per_positive"] == ratio], False),
    )
    panels_of = [each for each in panels_of if len(set(each[2][each[0]])) > 1] or [panels_of[0]]
    names = list(dict.fromkeys(rows["detector"]))
    reads = rows.drop_duplicates("detector").set_index("detector")["reads"]
    figure = Figure(figsize=(1.5 + 2.3 * len(panels_of), 3.4), layout="constrained")
    styles: dict[str, dict[str, Any]] = {}
    for group in GROUPS:
        own = sorted((name for name in names if reads[name] == group), key=lambda name: name != reference)
        for i, name in enumerate(own):
            dashes = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)), (0, (2, 1)), (0, (6, 2)), (0, (1, 3)))
            styles[name] = {"color": SHADES[group], "linestyle": dashes[i % len(dashes)], "marker": MARKERS[i % 6]}
    for axes, (along, label, part, log) in zip(
        figure.subplots(1, len(panels_of), squeeze=False, sharey=True)[0], panels_of, strict=True
    ):
        places = sorted(part[along].unique())
        whole = part.groupby(["train", "test"])[along].nunique() == len(places)
        part = part.set_index(["train", "test"]).loc[whole[whole].index] if whole.any() else part
        for name in names:
            line = part[part["detector"] == name].groupby(along)["value"].mean()
            width = 2.2 if name == reference else 1
            axes.plot(line.index, line, markersize=2.8, linewidth=width, markeredgewidth=0, **styles[name])
        chance = part.groupby(along)["chance"].mean()
        axes.plot(chance.index, chance, color=INK, linewidth=0.7, linestyle=(0, (2, 2)))
        if log:
            axes.set_xscale("log")
        axes.set_xticks(places, [f"{each:g}" for each in places])
        axes.minorticks_off()
        axes.set_xlabel(label)
        axes.set_ylim(0, 1.02)
    figure.axes[0].set_ylabel("Average precision")
    handles = [
        Line2D([], [], label=name.replace("_", " "), markersize=2.8, linewidth=1.2, **styles[name]) for name in styles
    ]
    handles.append(Line2D([], [], color=INK, linewidth=0.7, linestyle=(0, (2, 2)), label="chance"))
    figure.legend(handles=handles, loc="outside right center")
    return figure


def _most(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the most positives of each pair of sets, without noise."""
    clean = table[table["label_noise"] == 0]
    return clean[clean["positives"] == clean.groupby(["train", "test"])["positives"].transform("max")]


def _typical(table: pd.DataFrame) -> float:
    ratios = table["negatives_per_positive"].dropna().unique()
    return float(ratios[np.argmin(np.abs(np.log(ratios / 10)))])
