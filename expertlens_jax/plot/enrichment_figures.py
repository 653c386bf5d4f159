"""Where experts are more, or fewer, than chance: over layers as the threshold rises, and by domain."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm

from expertlens_jax.models.sites import in_block_order
from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import COLORMAP, FAINT, INK, MISSING, Figure, colours, drawn, keep_free

# Blue, white, orange: fewer than chance, chance, more; ends as in the palette.
_AROUND_CHANCE = mpl.colors.LinearSegmentedColormap.from_list("around_chance", ["#0072B2", "#ffffff", "#D55E00"])


@drawn
def plot_enrichment(places: pd.DataFrame) -> Figure:
    """Draw enrichment against layer, a panel per site, a line per threshold with its 95% interval as a band.

    Args:
      places: a row per threshold, layer and site, of all concepts: threshold, layer, site, enrichment, ci_low,
        ci_high. Rows that pool layers or sites ("all") are left out; NaN leaves a gap.

    >>> import expertlens_jax as el, pandas as pd
    >>> places = pd.DataFrame({"layer": [0, 1, 2], "enrichment": [2.0, 0.7, 0.3], "site": "mlp.up", "threshold": 0.5})
    >>> places = places.assign(ci_low=places["enrichment"] - 0.2, ci_high=places["enrichment"] + 0.2)
    >>> figure = el.plot.enrichment(places)
    >>> figure.axes[0].get_title(loc="left"), figure.legends[0].get_texts()[0].get_text()
    ('mlp.up', 'τ = 0.5')
    """
    require(places, "threshold", "layer", "site", "enrichment", "ci_low", "ci_high")
    # "all" beside numbers makes a column of a CSV text.
    places = places[(places["layer"].astype(str) != "all") & (places["site"] != "all")]
    places = places.assign(layer=places["layer"].astype(int))
    sites = in_block_order(places["site"])
    thresholds = sorted(set(places["threshold"]))
    shade = dict(zip(thresholds, COLORMAP(np.linspace(0.3, 0.95, len(thresholds))), strict=True))
    columns = min(3, len(sites))
    rows = -(-len(sites) // columns)
    figure = Figure(figsize=(2.0 * columns + 0.5, 1.55 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, site in zip(panels.flat, sites, strict=False):
        axes.axhline(1, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        for threshold in thresholds:
            here = (places["site"] == site) & (places["threshold"] == threshold)
            line = places[here].sort_values("layer")
            axes.fill_between(
                line["layer"], line["ci_low"], line["ci_high"], color=shade[threshold], alpha=0.13, linewidth=0
            )
            axes.plot(
                line["layer"],
                line["enrichment"],
                color=shade[threshold],
                marker="o",
                markersize=2.5,
                label=f"τ = {threshold:g}",
            )
        axes.set_title(site, loc="left", fontweight="bold")
        layers = sorted(set(places["layer"]))
        axes.set_xticks(layers[:: -(-len(layers) // 8)])
    for axes in panels.flat[len(sites) :]:
        axes.set_visible(False)
    panels[0, 0].set_ylim(bottom=0)  # of all, once they know how high they reach
    for axes in panels[-1]:
        axes.set_xlabel("Layer")
    figure.supylabel("Enrichment (share of experts / share of units)", fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 7), handlelength=1.4)
    return figure


@drawn
def plot_depth(depths: pd.DataFrame) -> Figure:
    """Draw experts' depth, their share, and their bimodality against the threshold, a line per kind of block.

    Args:
      depths: a row per weights, block and threshold: weights ("trained", or whose controls are dotted), block,
        threshold, share, depth, ci_low, ci_high, even_depth, bimodality, bimodality_ci_low, bimodality_ci_high.
        The block "all" is left out.

    >>> import expertlens_jax as el, pandas as pd
    >>> depths = pd.DataFrame({"threshold": [0.3, 0.5], "depth": [0.5, 0.4], "share": [0.8, 0.9], "bimodality": 0.7})
    >>> intervals = {"ci_low": 0.3, "ci_high": 0.6, "bimodality_ci_low": 0.5, "bimodality_ci_high": 0.9}
    >>> figure = el.plot.depth(depths.assign(weights="trained", block="mlp", even_depth=0.5, **intervals))
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [0.5, 0.4]
    """
    require(depths, "weights", "block", "threshold", "share", "depth", "even_depth", "bimodality")
    depths = depths[depths["block"] != "all"]
    blocks = list(dict.fromkeys(depths["block"]))
    shade = colours(blocks)
    figure = Figure(figsize=(6.6, 2.5), layout="constrained")
    depth, share, modes = figure.subplots(1, 3)
    for (weights, block), line in depths.groupby(["weights", "block"], sort=False):
        trained = weights == "trained"
        style: dict[str, Any] = {"color": shade[block], "linestyle": "-" if trained else (0, (1, 1.5))}
        style |= {"marker": "o" if trained else "", "markersize": 2.5}
        label = block if trained else f"{block}, random weights"
        known = label in depth.get_legend_handles_labels()[1]
        depth.plot(line["threshold"], line["depth"], label="_" if known else label, **style)
        share.plot(line["threshold"], 100 * line["share"], **style)
        modes.plot(line["threshold"], line["bimodality"], **style)
        if trained:
            depth.fill_between(
                line["threshold"], line["ci_low"], line["ci_high"], color=shade[block], alpha=0.15, linewidth=0
            )
            low, high = line["bimodality_ci_low"], line["bimodality_ci_high"]
            modes.fill_between(line["threshold"], low, high, color=shade[block], alpha=0.15, linewidth=0)
    for axes, chance in ((depth, dict.fromkeys(depths["even_depth"].round(9))), (modes, [1.0])):
        for value in chance:
            axes.axhline(value, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    depth.set_ylim(0, 1)
    depth.set_ylabel("Mean depth of experts\n(0 first layer, 1 last)")
    share.set_ylim(0, 100)
    share.set_ylabel("Share of all experts (%)")
    modes.set_ylim(bottom=0)
    modes.set_ylabel("Bimodality (experts per unit,\npoorer end / middle)")
    for axes in (depth, share, modes):
        axes.set_xlabel("Threshold τ")
    handles, labels = depth.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    figure.supxlabel("dashed: all units, evenly", x=0.995, color=FAINT, ha="right", fontsize=7)
    keep_free(figure, 0.05)
    return figure


@drawn
def plot_domain_enrichment(places: pd.DataFrame) -> Figure:
    """Draw enrichment by domain (down) and by site and layer (across), as a logarithm around chance.

    Args:
      places: a row per domain, layer and site at one threshold: domain, layer, site, enrichment, ci_low, ci_high.
        Cells whose interval holds 1 have no dot. Rows that pool layers or sites are left out; NaN is grey.

    >>> import expertlens_jax as el, pandas as pd
    >>> cells = [("all", 0, 2.0), ("all", 1, 0.5), ("animal", 0, 4.0), ("animal", 1, 0.25)]
    >>> places = pd.DataFrame(cells, columns=["domain", "layer", "enrichment"]).assign(site="mlp.up")
    >>> places = places.assign(ci_low=places["enrichment"] / 1.5, ci_high=places["enrichment"] * 1.5)
    >>> figure = el.plot.domain_enrichment(places)
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['all concepts', 'animal']
    """
    require(places, "domain", "layer", "site", "enrichment", "ci_low", "ci_high")
    places = places[(places["layer"].astype(str) != "all") & (places["site"] != "all")]
    places = places.assign(layer=places["layer"].astype(int))
    sites, domains = in_block_order(places["site"]), list(dict.fromkeys(places["domain"]))
    layers = sorted(set(places["layer"]))
    columns = pd.MultiIndex.from_product([sites, layers])

    def grid(column: str) -> np.ndarray:
        table = places.pivot_table(index="domain", columns=["site", "layer"], values=column)
        return table.reindex(index=domains, columns=columns).to_numpy(float)

    enrichment, low, high = grid("enrichment"), grid("ci_low"), grid("ci_high")
    reach = 3.0  # doublings: from an eighth to eight times
    with np.errstate(divide="ignore"):
        doublings = np.clip(np.log2(enrichment), -reach, reach)
    width = float(np.clip(0.2 * len(columns), 3.0, 8.0))
    figure = Figure(figsize=(width + 1.6, 0.19 * len(domains) + 1.1), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor(MISSING)
    norm = TwoSlopeNorm(0, -reach, reach)
    image = axes.imshow(doublings, cmap=_AROUND_CHANCE, norm=norm, aspect="auto", interpolation="none")
    sure = np.argwhere((low > 1) | (high < 1))
    axes.plot(sure[:, 1], sure[:, 0], ".", color=INK, markersize=1.8, markeredgewidth=0)
    for edge in range(len(layers), len(columns), len(layers)):
        axes.axvline(edge - 0.5, color=INK, linewidth=0.6)
    axes.axhline(0.5, color=INK, linewidth=0.6) if domains[0] == "all" else None
    axes.set_yticks(range(len(domains)), ["all concepts" if name == "all" else name for name in domains])
    if len(columns) <= 60:
        axes.set_xticks(range(len(columns)), [str(layer) for _ in sites for layer in layers])
    else:
        axes.set_xticks([])
    axes.tick_params(length=0)
    top = axes.secondary_xaxis("top")
    top.set_xticks([len(layers) * (i + 0.5) - 0.5 for i in range(len(sites))], sites, fontweight="bold")
    top.tick_params(length=0)
    top.spines["top"].set_visible(False)
    axes.set_xlabel("Layer (· 95% interval leaves out 1)")
    ticks = np.arange(-3, 4)
    bar = figure.colorbar(image, ax=axes, ticks=ticks, pad=0.015, aspect=25)
    bar.ax.set_yticklabels(["⅛", "¼", "½", "1", "2", "4", "8"])
    bar.set_label("Enrichment, times chance", fontsize=7.5)
    bar.outline.set_visible(False)
    return figure
