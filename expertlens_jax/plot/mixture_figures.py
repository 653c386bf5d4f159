"""Which experts of a mixture hold the concepts' experts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import COLORMAP, FAINT, MISSING, Figure, drawn, ink_on


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
