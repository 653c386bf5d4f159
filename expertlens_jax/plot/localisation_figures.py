"""Where in the model the experts are."""

from __future__ import annotations

import numpy as np
import pandas as pd

from expertlens_jax.models.sites import in_block_order
from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import COLORMAP, FAINT, MISSING, Figure, drawn, ink_on


@drawn
def plot_localisation(counts: pd.DataFrame) -> Figure:
    """Draw where in the model the experts are: layers across, sites down, and totals along both margins.

    Args:
      counts: a row per layer and site: layer, site, experts_per_concept (mean over concepts), share (of the
        site's units that are experts for an average concept, 0 to 1). Combinations the model doesn't have
        are left out of the table and stay grey.

    >>> import expertlens_jax as el, pandas as pd
    >>> counts = pd.DataFrame({"layer": [0, 1], "experts_per_concept": [3.0, 9.0], "share": [0.01, 0.03]})
    >>> figure = el.plot.localisation(counts.assign(site="mlp.up"))
    >>> [text.get_text() for text in figure.axes[0].texts]  # per cent of the site's units
    ['1.0', '3.0']
    """
    require(counts, "layer", "site", "experts_per_concept", "share")
    sites = in_block_order(counts["site"])
    layers = sorted(set(counts["layer"]))

    def grid_of(column: str) -> np.ndarray:
        table = counts.pivot_table(index="site", columns="layer", values=column, sort=False)
        return table.reindex(index=sites, columns=layers).to_numpy()

    share, experts = 100 * grid_of("share"), grid_of("experts_per_concept")
    numbers = len(layers) <= 16
    width = float(np.clip(0.42 * len(layers), 2.4, 7.0)) if numbers else 7.0
    height = 0.32 * len(sites)
    figure = Figure(figsize=(width + 2.9, height + 1.75), layout="constrained")
    grid = figure.add_gridspec(
        2,
        3,
        width_ratios=(width, 0.9, 0.12),
        height_ratios=(0.75, max(height, 0.6)),
        wspace=0.02,
        hspace=0.02,
    )
    axes = figure.add_subplot(grid[1, 0])
    by_layer = figure.add_subplot(grid[0, 0], sharex=axes)
    by_site = figure.add_subplot(grid[1, 1], sharey=axes)

    axes.set_facecolor(MISSING)
    high = np.nanmax(share) or 1.0
    image = axes.imshow(share, cmap=COLORMAP, vmin=0, vmax=high, aspect="auto", interpolation="none")
    axes.set_yticks(range(len(sites)), sites)
    step = 1 if numbers else int(np.ceil(len(layers) / 24))
    axes.set_xticks(range(0, len(layers), step), [str(layer) for layer in layers[::step]])
    axes.set_xlabel("Layer")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if numbers:
        for i, j in np.argwhere(~np.isnan(share)):
            ink = ink_on(image.to_rgba(share[i, j]))
            axes.text(j, i, _short(share[i, j]), ha="center", va="center", fontsize=7, color=ink)

    by_layer.bar(range(len(layers)), np.nansum(experts, axis=0), width=0.72, color=FAINT)
    by_layer.tick_params(axis="x", length=0, labelbottom=False)
    by_layer.set_ylabel("Experts per\nconcept", fontsize=7)
    by_layer.locator_params(axis="y", nbins=3)
    by_site.barh(range(len(sites)), np.nansum(experts, axis=1), height=0.72, color=FAINT)
    by_site.tick_params(axis="y", length=0, labelleft=False)
    by_site.set_xlabel("Experts per\nconcept", fontsize=7)
    by_site.locator_params(axis="x", nbins=3)
    bar = figure.colorbar(image, cax=figure.add_subplot(grid[1, 2]))
    bar.set_label("Share of the site's\nunits, %", fontsize=7.5)
    bar.outline.set_visible(False)
    return figure


def _short(percent: float) -> str:
    """Return a percentage in at most four characters."""
    if percent == 0:
        return "0"
    return f"{percent:.2f}" if percent < 0.995 else f"{percent:.1f}" if percent < 9.95 else f"{percent:.0f}"
