"""Whether experts are of the concept or of the word."""

from __future__ import annotations

import numpy as np
import pandas as pd

from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import INK, PALE, Figure, colours, drawn, wrapped

_ORDER = ("same word, same sense", "other word, same sense", "same word, other sense", "neither")
_SENSE, _WORD = _ORDER[1], _ORDER[2]


@drawn
def plot_senses(kinds: pd.DataFrame, differences: pd.DataFrame, homographs: pd.DataFrame) -> Figure:
    """Draw similarity by kind of pair, and for each measure how many homographs are more alike by sense than by word.

    On the left the first measure (and its halves): a dot is the mean over homographs with its 95% interval, small dots
    are homographs. On the right each measure's share of homographs whose sense says more than their word; half is
    chance.

    Args:
      kinds: a row per measure and kind: measure, kind, overlap, ci_low, ci_high.
      differences: a row per measure and two kinds: measure, first, second, share, share_low, share_high.
      homographs: a row per measure, homograph and kind: measure, kind, overlap.

    >>> import expertlens_jax as el, pandas as pd
    >>> kinds = pd.DataFrame({"measure": "Jaccard", "kind": ["neither"], "overlap": 0.1, "ci_low": 0.0, "ci_high": 0.2})
    >>> asked = {"first": "other word, same sense", "second": "same word, other sense", "share": [0.5]}
    >>> asked = pd.DataFrame(asked | {"measure": "Jaccard", "share_low": 0.4, "share_high": 0.6})
    >>> [axes.get_title(loc="left") for axes in el.plot.senses(kinds, asked, kinds).axes]
    ['Kinds of pairs', 'Concept rather than word']
    """
    require(kinds, "measure", "kind", "overlap", "ci_low", "ci_high")
    require(differences, "measure", "first", "second", "share", "share_low", "share_high")
    require(homographs, "measure", "kind", "overlap")
    measures = list(dict.fromkeys(kinds["measure"]))
    drawn_measures = [name for name in measures if name.startswith(measures[0])][:2]
    names = [wrapped(name, 2.1, 7.5) for name in measures]
    lines = sum(name.count("\n") + 1 for name in names)
    figure = Figure(figsize=(7.2, max(2.9, 0.16 * lines + 0.12 * len(names) + 1.1)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))

    shade = colours(drawn_measures)
    rng = np.random.default_rng(0)  # of where small dots stand
    top = 0.0
    for number, measure in enumerate(drawn_measures):
        for at, kind in enumerate(_ORDER):
            row = kinds[(kinds["measure"] == measure) & (kinds["kind"] == kind)]
            if row.empty:
                continue
            y = at + (number - (len(drawn_measures) - 1) / 2) * 0.36
            each = homographs[(homographs["measure"] == measure) & (homographs["kind"] == kind)]["overlap"]
            spread = rng.uniform(-0.11, 0.11, len(each))
            left.plot(each, y + spread, "o", color=shade[measure], markersize=2, alpha=0.3, markeredgewidth=0)
            mean = row.iloc[0]
            left.plot([mean["ci_low"], mean["ci_high"]], [y, y], color=INK, linewidth=1.2)
            left.plot(mean["overlap"], y, "o", color=shade[measure], markersize=5.5, markeredgecolor=INK)
            top = max(top, float(mean["ci_high"]), float(each.max()))
    left.set_xlim(min(-0.02 * top, float(homographs["overlap"].min()) if top <= 0 else 0.0), 1.06 * top or 1)
    left.set_yticks(range(len(_ORDER)), [kind.replace(", ", ",\n") for kind in _ORDER])
    left.set_ylim(len(_ORDER) - 0.5, -0.5)
    left.set_xlabel(wrapped(measures[0], 3.2, 8))
    left.set_title("Kinds of pairs", loc="left", fontweight="bold")
    if len(drawn_measures) > 1:
        labels = ["experts of all sentences", "of one half with those of the other"]
        handles = [
            left.plot([], [], "o", color=shade[m], markersize=5.5, markeredgecolor=INK)[0] for m in drawn_measures
        ]
        figure.legend(handles, labels, loc="outside lower left", ncols=2, columnspacing=1)

    asked = differences[(differences["first"] == _SENSE) & (differences["second"] == _WORD)].set_index("measure")
    right.axvline(0.5, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    for at, measure in enumerate(measures):
        if measure in asked.index:
            row = asked.loc[measure]
            colour = shade.get(measure, INK)
            right.plot([row["share_low"], row["share_high"]], [at, at], color=colour, linewidth=1.4)
            right.plot(row["share"], at, "o", color=colour, markersize=5)
    right.set_yticks(range(len(measures)), names)
    right.set_ylim(len(measures) - 0.5, -0.5)
    right.set_xlim(-0.03, 1.03)
    right.set_xlabel("Share of words whose sense says\nmore than their form (dashed: chance)")
    right.set_title("Concept rather than word", loc="left", fontweight="bold")
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=PALE, linewidth=0.5)
        axes.set_axisbelow(True)
    return figure
