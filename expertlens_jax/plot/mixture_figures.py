"""Which experts of a mixture hold the concepts' experts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import COLORMAP, FAINT, INK, MISSING, Figure, colours, drawn, ink_on, wrapped

_CHANCE: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 0}
_DOTTED = (0, (1, 1.5))


@drawn
def plot_mixture(places: pd.DataFrame) -> Figure:
    """Draw where in a mixture of experts the concepts' experts are: its experts across, layers down, totals above.

    Each layer's experts are sorted by how many they hold, since their numbers mean nothing from layer to layer: a row
    that is dark at its left alone has its concepts in few of them. Concepts are pooled; give the rows of one for its
    own.

    Args:
      places: a row per concept, layer and expert of the mixture: concept, layer, expert, units, experts (of the
        concept, among the units).

    >>> import expertlens_jax as el, pandas as pd
    >>> places = pd.DataFrame({"layer": [0, 0, 1, 1], "expert": [0, 1, 0, 1], "experts": [0, 4, 2, 2], "units": 8})
    >>> figure = el.plot.mixture(places.assign(concept="cat"))
    >>> [text.get_text() for text in figure.axes[0].texts]  # each layer's, most first
    ['1', '0', '0', '1']
    """
    require(places, "concept", "layer", "expert", "units", "experts")
    num_concepts = places["concept"].nunique()
    layers, numbers = sorted(set(places["layer"])), sorted(set(places["expert"]))
    summed = places.pivot_table(index="layer", columns="expert", values=["experts", "units"], aggfunc="sum")
    experts, units = (
        summed[name].reindex(index=layers, columns=numbers).to_numpy(float) for name in ("experts", "units")
    )
    share = 100 * experts / units
    order = np.argsort(-np.nan_to_num(share, nan=-1.0), axis=1, kind="stable")
    share, held = (np.take_along_axis(each, order, axis=1) for each in (share, experts / num_concepts))
    named = len(numbers) <= 16
    width = float(np.clip(0.36 * len(numbers), 2.4, 6.5))
    height = float(np.clip(0.24 * len(layers), 0.6, 5.0))
    figure = Figure(figsize=(width + 2.3, height + 1.9), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(width, 0.12), height_ratios=(0.8, height), wspace=0.02, hspace=0.02)
    axes = figure.add_subplot(grid[1, 0])
    above = figure.add_subplot(grid[0, 0], sharex=axes)
    axes.set_facecolor(MISSING)
    image = axes.imshow(share, cmap=COLORMAP, vmin=0, vmax=np.nanmax(share) or 1.0, aspect="auto", interpolation="none")
    if named:
        for i, j in np.argwhere(~np.isnan(share)):
            ink = ink_on(image.to_rgba(share[i, j]))
            axes.text(j, i, str(numbers[order[i, j]]), ha="center", va="center", fontsize=6.5, color=ink)
    step = max(1, int(np.ceil(len(layers) / 24)))
    axes.set_yticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    axes.set_xticks([])
    axes.set_xlabel("The mixture's experts" + (", by number" if named else "") + "; each layer's most first")
    axes.set_ylabel("Layer")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    above.bar(range(len(numbers)), np.nanmean(held, axis=0), width=0.72 if named else 1.0, color=FAINT)
    above.tick_params(axis="x", length=0, labelbottom=False)
    above.set_ylabel("Experts a concept\nand layer", fontsize=7)
    above.locator_params(axis="y", nbins=3)
    bar = figure.colorbar(image, cax=figure.add_subplot(grid[1, 1]))
    bar.set_label("Share of its units that are\na concept's experts, %", fontsize=7.5)
    bar.outline.set_visible(False)
    return figure


@drawn
def plot_together(together: pd.DataFrame, routers: pd.DataFrame | None = None) -> Figure:
    """Draw how many times as often as by chance two experts are in one of the mixture's, by layer and kind of pair.

    A panel a sentence set, on one axis: a line per kind of pair with its 95% interval, dotted for random weights (of
    the first kind alone). With `routers` a last panel has how far the router's logits for what holds a concept's
    experts are ahead of all others of their layers; hollow are random weights. Dashed is chance.

    Args:
      together: a row per sentence set, weights ("trained", or whose controls are dotted), layer and kind of pair:
        sentences, weights, layer, pair, times_chance, ci_low, ci_high. Rows of all layers together are left out.
      routers: a row per sentence set and weights: sentences, weights, lead, lead_ci_low, lead_ci_high.

    >>> import expertlens_jax as el, pandas as pd
    >>> rows = pd.DataFrame({"layer": [0, 1], "times_chance": [1.5, 3.0], "ci_low": 1.2, "ci_high": 3.5})
    >>> figure = el.plot.together(rows.assign(sentences="facts", weights="trained", pair="same concept"))
    >>> figure.axes[0].lines[0].get_ydata().tolist()
    [1.5, 3.0]
    """
    require(together, "sentences", "weights", "layer", "pair", "times_chance", "ci_low", "ci_high")
    together = together[together["layer"].astype(str) != "all"]
    require(together, "layer")
    together = together.assign(layer=together["layer"].astype(int))
    if routers is not None:
        require(routers, "sentences", "weights", "lead", "lead_ci_low", "lead_ci_high")
        routers = routers[routers["lead"].notna()]
    sets, kinds = list(dict.fromkeys(together["sentences"])), list(dict.fromkeys(together["pair"]))
    shade = colours(kinds)
    beside = routers is not None and len(routers) > 0
    width = max(4.0, 2.3 * len(sets) + (2.2 if beside else 0) + 0.5)
    figure = Figure(figsize=(width, 2.7), layout="constrained")
    grid = figure.add_gridspec(1, len(sets) + beside)
    panels = []
    for at, name in enumerate(sets):
        axes = figure.add_subplot(grid[0, at], sharey=panels[0] if panels else None)
        panels.append(axes)
        here = together[together["sentences"] == name]
        for (weights, pair), line in here.groupby(["weights", "pair"], sort=False):
            trained = weights == "trained"
            if not trained and pair != kinds[0]:
                continue
            line = line.sort_values("layer")
            label = pair if trained else f"{pair}, random weights"
            known = label in axes.get_legend_handles_labels()[1]
            style: dict[str, Any] = {"linestyle": "-" if trained else _DOTTED, "color": shade[pair], "markersize": 2.5}
            style |= {"marker": "o" if trained else "", "label": "_" if known else label}
            axes.plot(line["layer"], line["times_chance"], **style)
            if trained:
                low, high = line["ci_low"], line["ci_high"]
                axes.fill_between(line["layer"], low, high, color=shade[pair], alpha=0.15, linewidth=0)
        axes.axhline(1, label="chance", **_CHANCE)
        layers = sorted(set(here["layer"]))
        axes.set_xticks(layers[:: -(-len(layers) // 8)])
        axes.set_xlabel("Layer")
        axes.set_title(wrapped(name, 2.0, 8.5), loc="left", fontweight="bold")
        axes.tick_params(labelleft=at == 0)
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("Two experts in one of the\nmixture's, times chance")
    handles, labels = panels[0].get_legend_handles_labels()
    if beside:
        _draw_leads(figure.add_subplot(grid[0, len(sets)]), routers, sets)
    columns = min(len(labels), max(2, int(width / 1.4)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, handlelength=1.6, columnspacing=1.2)
    return figure


def _draw_leads(axes: Axes, routers: pd.DataFrame, sets: list[str]) -> None:
    """Draw each set's lead of the router, trained filled, random weights hollow beside it."""
    for at, name in enumerate(sets):
        here = routers[routers["sentences"] == name].reset_index(drop=True)
        for number, row in enumerate(here.to_dict("records")):
            x = at + 0.22 * (number - (len(here) - 1) / 2)
            trained = row["weights"] == "trained"
            axes.plot([x, x], [row["lead_ci_low"], row["lead_ci_high"]], color=INK, linewidth=1.2)
            face = INK if trained else "white"
            axes.plot(x, row["lead"], "o", color=INK, markerfacecolor=face, markersize=4.5)
    axes.axhline(0, **_CHANCE)
    axes.set_xlim(-0.6, len(sets) - 0.4)
    axes.set_xticks(range(len(sets)), [wrapped(name, 1.6 / len(sets), 7) for name in sets])
    axes.set_title("Router", loc="left", fontweight="bold")
    axes.set_ylabel("Lead of its logits\n(average precision)")
    axes.set_xlabel("hollow: random weights" if (routers["weights"] != "trained").any() else "")
    axes.locator_params(axis="y", nbins=5)
