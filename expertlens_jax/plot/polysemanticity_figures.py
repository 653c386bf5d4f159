"""How many concepts a unit serves, what shared experts are like, and experts beside equally active units."""

from __future__ import annotations

import numpy as np
import pandas as pd

from expertlens_jax.data.rows import each_row
from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import FAINT, PALE, PALETTE, Figure, colours, drawn

_DASHED = (0, (1, 1.5))


@drawn
def plot_services(spread: pd.DataFrame, gathering: pd.DataFrame) -> Figure:
    """Draw units by how many concepts and domains they serve, and domains by concepts; nulls as bands.

    Args:
      spread: a row per sentence set, kind ("concepts", "domains") and number: sentences, served, number, units,
        null_mean, null_low, null_high.
      gathering: a row per sentence set and number of concepts (0, all together, isn't drawn): sentences, concepts,
        units, domains, null_low, null_high. A number that fewer than 10 units serve isn't drawn.

    >>> import expertlens_jax as el, pandas as pd
    >>> null = {"sentences": "facts", "null_mean": 20.0, "null_low": 10.0, "null_high": 30.0}
    >>> rows = [("concepts", 1, 90), ("concepts", 2, 40), ("domains", 1, 130)]
    >>> spread = pd.DataFrame(rows, columns=["served", "number", "units"])
    >>> gathering = pd.DataFrame({"sentences": "facts", "concepts": [2], "units": 40, "domains": 1.1})
    >>> figure = el.plot.services(spread.assign(**null), gathering.assign(null_low=1.8, null_high=2.0))
    >>> [axes.get_xlabel() for axes in figure.axes][:2]
    ['Concepts that a unit serves', 'Domains that a unit serves']
    """
    require(spread, "sentences", "served", "number", "units", "null_mean", "null_low", "null_high")
    require(gathering, "sentences", "concepts", "units", "domains", "null_low", "null_high", rows=False)
    sets = list(dict.fromkeys(spread["sentences"]))
    shade = colours(sets)
    figure = Figure(figsize=(7.0, 2.5), layout="constrained")
    concepts, domains, gathered = figure.subplots(1, 3)
    for name in sets:
        for axes, kind in ((concepts, "concepts"), (domains, "domains")):
            here = spread[(spread["sentences"] == name) & (spread["served"] == kind)]
            seen = here[here["units"] > 0]
            axes.plot(seen["number"], seen["units"], color=shade[name], marker="o", markersize=2.5, label=name)
            null = here[here["null_high"] >= 1]
            axes.fill_between(
                null["number"],
                null["null_low"].clip(lower=0.5),
                null["null_high"],
                color=shade[name],
                alpha=0.2,
                linewidth=0,
            )
            null = null[null["null_mean"] >= 0.5]
            axes.plot(null["number"], null["null_mean"], color=shade[name], linestyle=_DASHED, linewidth=1)
            axes.set_yscale("log")
            axes.set_ylim(bottom=0.7)
            axes.set_xlabel(f"{kind.capitalize()} that a unit serves")
        here = gathering[(gathering["sentences"] == name) & (gathering["concepts"] > 0) & (gathering["units"] >= 10)]
        low, high = here["null_low"], here["null_high"]
        gathered.fill_between(here["concepts"], low, high, color=shade[name], alpha=0.2, linewidth=0)
        gathered.plot(here["concepts"], here["domains"], color=shade[name], marker="o", markersize=2.5)
    concepts.set_ylabel("Units")
    gathered.set_xlabel("Concepts that a unit serves")
    gathered.set_ylabel("Domains these are of (mean)")
    for axes in (concepts, domains, gathered):
        axes.xaxis.get_major_locator().set_params(integer=True)
    concepts.plot([], [], color=FAINT, linestyle=_DASHED, label="random experts (left), random domains (right)")
    concepts.fill_between([], [], color=FAINT, alpha=0.25, linewidth=0, label="95% of these")
    handles, labels = concepts.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


@drawn
def plot_shared(distributions: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Draw the average precision of shared and of unshared experts, by kind of pair and sentence set.

    Args:
      distributions: a row per sentence set, pair, experts ("shared", "unshared") and average_precision: share.
      summary: a row per sentence set and pair: sentences, pair, pairs, ks_median, small_p, difference, ci_low, ci_high.

    >>> import expertlens_jax as el, pandas as pd
    >>> pair = {"sentences": "facts", "pair": "same domain"}
    >>> rows = [("shared", 0.5, 0.2), ("shared", 0.7, 1.0), ("unshared", 0.5, 0.4), ("unshared", 0.7, 1.0)]
    >>> distributions = pd.DataFrame(rows, columns=["experts", "average_precision", "share"]).assign(**pair)
    >>> numbers = {"pairs": 12, "ks_median": 0.2, "small_p": 0.1, "difference": 0.01, "ci_low": 0.0, "ci_high": 0.02}
    >>> figure = el.plot.shared(distributions, pd.DataFrame([pair | numbers]))
    >>> figure.axes[0].get_title(loc="left"), figure.axes[0].texts[0].get_text().splitlines()[0]
    ('Pairs of the same domain', '12 pairs, median KS 0.20')
    """
    require(distributions, "sentences", "pair", "experts", "average_precision", "share")
    require(summary, "sentences", "pair", "pairs", "ks_median", "small_p", "difference", "ci_low", "ci_high")
    sets, kinds = list(dict.fromkeys(summary["sentences"])), list(dict.fromkeys(summary["pair"]))
    figure = Figure(figsize=(2.9 * len(kinds) + 0.4, 1.85 * len(sets) + 0.5), layout="constrained")
    panels = figure.subplots(len(sets), len(kinds), squeeze=False, sharex=True, sharey=True)
    for row in each_row(summary):
        axes = panels[sets.index(row.sentences), kinds.index(row.pair)]
        here = distributions[(distributions["sentences"] == row.sentences) & (distributions["pair"] == row.pair)]
        for name, colour, style in (("shared", PALETTE[0], "-"), ("unshared", PALETTE[1], (0, (4, 1.5)))):
            line = here[here["experts"] == name]
            axes.plot(line["average_precision"], 100 * line["share"], color=colour, linestyle=style, label=name)
        told = (
            f"{row.pairs} pairs, median KS {row.ks_median:.2f}\n{100 * row.small_p:.0f}% of them p < 0.05\n"
            f"shared less unshared: mean AP\n{row.difference:+.3f} [{row.ci_low:+.3f}, {row.ci_high:+.3f}]"
        )
        axes.text(0.98, 0.06, told, transform=axes.transAxes, ha="right", va="bottom", fontsize=7)
    for i, name in enumerate(sets):
        panels[i, 0].set_ylabel(f"{name}\nExperts with no more (%)")
    for axes, kind in zip(panels[0], kinds, strict=True):
        axes.set_title(f"Pairs of {'the ' if kind.startswith('same') else ''}{kind}", loc="left", fontweight="bold")
    for axes in panels[-1]:
        axes.set_xlabel("Average precision")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, [f"experts that the pair {_SHARES[each]}" for each in labels], loc="outside upper center", ncols=2
    )
    return figure


_SHARES = {"shared": "shares", "unshared": "doesn't share"}
_MATCHES = {"concept": "to the concept", "others": "to the others", "both": "to both"}
_MEASURES = {
    "ap": "Average precision,\nthese sentences",
    "held_out_ap": "Average precision,\nother sentences",
    "same_domain": "Other concepts served,\nof the concept's domain",
    "other_domains": "Concepts served,\nof other domains",
}


@drawn
def plot_matched(summary: pd.DataFrame) -> Figure:
    """Draw experts (filled) and non-experts that are as active (hollow), a panel per measure, a row per match and set.

    Args:
      summary: a row per sentence set, match and measure: sentences, match ("concept", "others", "both"), measure,
        experts, matched, difference, ci_low, ci_high (of the difference). NaN isn't drawn.

    >>> import expertlens_jax as el, pandas as pd
    >>> summary = pd.DataFrame({"match": ["concept", "others", "both"], "experts": 0.6, "matched": [0.3, 0.35, 0.4]})
    >>> summary = summary.assign(difference=summary["experts"] - summary["matched"], ci_low=0.1, ci_high=0.4)
    >>> figure = el.plot.matched(summary.assign(sentences="facts", measure="held_out_ap"))
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['to the concept', 'to the others', 'to both']
    """
    require(summary, "sentences", "match", "measure", "experts", "matched", "difference", "ci_low", "ci_high")
    summary = summary[summary["measure"].isin(_MEASURES)].dropna(subset="difference")
    measures = [name for name in _MEASURES if name in set(summary["measure"])]
    sets, matches = list(dict.fromkeys(summary["sentences"])), list(dict.fromkeys(summary["match"]))
    shade = colours(sets)
    figure = Figure(figsize=(1.55 * len(measures) + 0.8, 0.42 * len(matches) + 1.3), layout="constrained")
    panels = figure.subplots(1, max(1, len(measures)), squeeze=False, sharey=True)[0]
    for axes, measure in zip(panels, measures, strict=False):
        for row in each_row(summary[summary["measure"] == measure]):
            y = matches.index(row.match) + 0.26 * (sets.index(row.sentences) - (len(sets) - 1) / 2)
            colour = shade[row.sentences]
            axes.plot([row.matched, row.experts], [y, y], color=colour, linewidth=0.7, alpha=0.5)
            # The interval is of the difference: it stands at the experts, as they are from their matches.
            axes.plot(
                [row.matched + row.ci_low, row.matched + row.ci_high], [y, y], color=colour, linewidth=2.4, alpha=0.5
            )
            axes.plot(row.matched, y, "o", color=colour, markerfacecolor="white", markersize=3.6)
            axes.plot(row.experts, y, "o", color=colour, markersize=3.6)
        for y in range(len(matches)):
            axes.axhline(y, color=PALE, linewidth=0.5, zorder=0)
        axes.set_xlabel(_MEASURES[measure], fontsize=7.5)
        axes.set_xlim(left=0)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=4)
    panels[0].set_yticks(range(len(matches)), [_MATCHES[match] for match in matches])
    panels[0].set_ylim(len(matches) - 0.5, -0.5)
    panels[0].set_ylabel("Responds as strongly")
    for name in sets:
        panels[0].plot(np.nan, np.nan, color=shade[name], linewidth=2.4, label=name)
    panels[0].plot(np.nan, np.nan, "o", color=FAINT, markersize=3.6, label="experts")
    panels[0].plot(np.nan, np.nan, "o", color=FAINT, markerfacecolor="white", markersize=3.6, label="their matches")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure
