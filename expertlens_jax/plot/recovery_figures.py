"""Whether domains come out of the overlap, and whether a domain's word stands above its members."""

from __future__ import annotations

import pandas as pd

from expertlens_jax.data.rows import each_row
from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import FAINT, PALE, Figure, colours, drawn

_STATISTICS = {
    "ari": "Adjusted Rand index",
    "ami": "Adjusted mutual information",
    "nmi": "Normalised mutual information",
    "purity": "Purity",
    "silhouette": "Silhouette of domains",
    "knn_accuracy": "Nearest neighbours' accuracy",
}


@drawn
def plot_recovery(recovery: pd.DataFrame) -> Figure:
    """Draw the recovery of domains, a panel per statistic: a dot per measure and sentence set, its null as a grey bar.

    Args:
      recovery: a row per sentence set, measure and statistic: sentences, measure (as people read it), statistic,
        value, null_low, null_high (95% of the permutation null), domains, clusters. A dot is hollow where the
        tree couldn't be cut into as many clusters as there are domains.

    >>> import expertlens_jax as el, pandas as pd
    >>> recovery = pd.DataFrame({"statistic": ["ari", "purity"], "value": [0.7, 0.8], "null_low": 0, "null_high": 0.3})
    >>> figure = el.plot.recovery(recovery.assign(sentences="facts", measure="Jaccard", domains=16, clusters=16))
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['Adjusted Rand index', 'Purity']
    """
    require(recovery, "sentences", "measure", "statistic", "value", "null_low", "null_high", "domains", "clusters")
    statistics = [name for name in _STATISTICS if name in set(recovery["statistic"])]
    measures, sets = list(dict.fromkeys(recovery["measure"])), list(dict.fromkeys(recovery["sentences"]))
    shade = colours(sets)
    columns = min(3, len(statistics))
    rows = -(-len(statistics) // columns)
    figure = Figure(
        figsize=(0.06 * max(map(len, measures)) + 1.9 * columns + 0.3, rows * (0.21 * len(measures) + 0.5) + 0.4),
        layout="constrained",
    )
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes, statistic in zip(panels.flat, statistics, strict=False):
        here = recovery[recovery["statistic"] == statistic]
        for row in each_row(here):
            spread = 0.24 * (sets.index(row.sentences) - (len(sets) - 1) / 2)
            y = measures.index(row.measure) + spread
            axes.plot(
                [row.null_low, row.null_high], [y, y], color=FAINT, linewidth=2.2, alpha=0.5, solid_capstyle="butt"
            )
            whole = row.clusters == row.domains or statistic in ("silhouette", "knn_accuracy")
            face = shade[row.sentences] if whole else "white"
            axes.plot(row.value, y, "o", color=shade[row.sentences], markerfacecolor=face, markersize=3.4)
        for y in range(len(measures)):
            axes.axhline(y, color=PALE, linewidth=0.5, zorder=0)
        axes.axvline(0, color=FAINT, linewidth=0.6, zorder=0)
        axes.set_title(_STATISTICS[statistic], loc="left", fontweight="bold", fontsize=7.5)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=4)
    for axes in panels.flat[len(statistics) :]:
        axes.set_visible(False)
    panels[0, 0].set_yticks(range(len(measures)), measures)
    panels[0, 0].set_ylim(len(measures) - 0.5, -0.5)
    for name in sets:
        panels[0, 0].plot([], [], "o", color=shade[name], markersize=3.6, label=name)
    if (recovery["clusters"] < recovery["domains"]).any():
        panels[0, 0].plot([], [], "o", color=FAINT, markerfacecolor="white", markersize=3.4, label="too few clusters")
    panels[0, 0].plot([], [], color=FAINT, linewidth=2.2, alpha=0.5, label="95% of permuted domains")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


@drawn
def plot_hierarchy(summary: pd.DataFrame, sharing: pd.DataFrame) -> Figure:
    """Draw how far a domain's word and its members hold one another, and who is expert on what members share.

    Args:
      summary: a row per sentence set, statistic (a_in_b, b_in_a, lift) and pair: sentences, statistic, pair, mean,
        ci_low, ci_high.
      sharing: a row per sentence set and k: sentences, members, units, own, own_ci_low, own_ci_high, others. Of
        fewer than 20 units, a share isn't drawn.

    >>> import expertlens_jax as el, pandas as pd
    >>> rows = [("a_in_b", 0.5), ("b_in_a", 0.2), ("lift", 8.0)]
    >>> summary = pd.DataFrame(rows, columns=["statistic", "mean"]).assign(sentences="facts", pair="own word")
    >>> summary = summary.assign(ci_low=summary["mean"] / 2, ci_high=summary["mean"] * 2)
    >>> sharing = pd.DataFrame({"members": [1, 2], "units": [100, 40], "own": [0.2, 0.5], "others": [0.1, 0.1]})
    >>> sharing = sharing.assign(sentences="facts", own_ci_low=0.1, own_ci_high=0.6)
    >>> [axes.get_ylabel() for axes in el.plot.hierarchy(summary, sharing).axes][:2]
    ['Inclusion (%)', 'Shared experts, times chance']
    """
    require(summary, "sentences", "statistic", "pair", "mean", "ci_low", "ci_high")
    require(sharing, "sentences", "members", "units", "own", "own_ci_low", "own_ci_high", "others", rows=False)
    sets, pairs = list(dict.fromkeys(summary["sentences"])), list(dict.fromkeys(summary["pair"]))
    shade = colours(sets)
    figure = Figure(figsize=(7.0, 2.6), layout="constrained")
    inclusion, lift, curve = figure.subplots(1, 3, width_ratios=(1.35, 0.85, 1.5))
    labels = {"a_in_b": "A's experts\nthat are B's", "b_in_a": "B's experts\nthat are A's"}
    for axes, statistics in ((inclusion, ("a_in_b", "b_in_a")), (lift, ("lift",))):
        for row in each_row(summary[summary["statistic"].isin(statistics)]):
            scale = 1 if row.statistic == "lift" else 100
            x = statistics.index(row.statistic) + 0.25 * (pairs.index(row.pair) - 1)
            x += 0.07 * (sets.index(row.sentences) - (len(sets) - 1) / 2)
            axes.plot(
                [x, x], [scale * row.ci_low, scale * row.ci_high], color=shade[row.sentences], linewidth=1, alpha=0.6
            )
            marker = "osD"[pairs.index(row.pair)]
            face = shade[row.sentences] if row.pair == pairs[0] else "white"
            axes.plot(x, scale * row.mean, marker, color=shade[row.sentences], markerfacecolor=face, markersize=3.8)
        axes.set_ylim(bottom=0)
        axes.set_xlim(-0.5, len(statistics) - 0.5)
        axes.set_xticks(range(len(statistics)), [labels.get(name, "") for name in statistics])
        axes.tick_params(axis="x", length=0)
    inclusion.set_ylabel("Inclusion (%)")
    lift.axhline(1, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    lift.set_ylabel("Shared experts, times chance")
    for name in sets:
        here = sharing[(sharing["sentences"] == name) & (sharing["units"] >= 20)]
        for column, line in (("own", "-"), ("others", (0, (1, 1.5)))):
            curve.plot(
                here["members"], 100 * here[column], linestyle=line, color=shade[name], marker="o", markersize=2.5
            )
        low, high = 100 * here["own_ci_low"], 100 * here["own_ci_high"]
        curve.fill_between(here["members"], low, high, color=shade[name], alpha=0.13, linewidth=0)
    curve.set_ylim(bottom=0)
    curve.set_xlabel("Members that share a unit, at least")
    curve.set_ylabel("Units that are experts\non a domain's word (%)")
    curve.xaxis.get_major_locator().set_params(integer=True)
    for line, label in (("-", "the members' domain"), ((0, (1, 1.5)), "other domains (mean)")):
        curve.plot([], [], linestyle=line, color=FAINT, label=label)
    curve.legend(loc="upper left", fontsize=7)
    for i, pair in enumerate(pairs):
        face = FAINT if i == 0 else "white"
        inclusion.plot(
            [], [], "osD"[i], color=FAINT, markerfacecolor=face, markersize=3.8, label=f"A, B: {_LEGEND[pair]}"
        )
    for name in sets:
        inclusion.plot([], [], color=shade[name], label=name)
    handles, texts = inclusion.get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=len(texts), columnspacing=1.2, fontsize=7)
    return figure


_LEGEND = {
    "own word": "domain's word, member",
    "two members": "two members",
    "another domain's word": "other domain's word, member",
}
