"""The overlap of all concepts, ordered so that the like stand together."""

from __future__ import annotations

import numpy as np
import scipy.cluster.hierarchy as hierarchy
import xarray as xr
from matplotlib.axes import Axes
from scipy.spatial.distance import squareform

from expertlens_jax.cards import counted
from expertlens_jax.errors import ExpertLensError
from expertlens_jax.plot.style import COLORMAP, FAINT, INK, MISSING, Figure, drawn


def order_concepts(overlap: xr.DataArray) -> tuple[np.ndarray, list[str], np.ndarray | None]:
    """Return an order of the concepts in which the like stand together, domain by domain.

    Concepts within a domain, and domains by their concepts' mean overlap, are ordered by average linkage with
    the leaves turned so that neighbours are alike (Bar-Joseph, Gifford & Jaakkola, "Fast optimal leaf
    ordering for hierarchical clustering", Bioinformatics 17, 2001).

    Args:
      overlap: [concept, other], larger = more alike, with `domain` on concept or without.

    Returns:
      order: int [concepts].
      domains: the domains in that order; [] if there are none (or all "").
      linkage: scipy's linkage [domains - 1, 4] of the domains in order of first appearance, with 1 - mean
        overlap as distance (should an overlap exceed 1, it less the mean); None with fewer than two
        domains.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> sets = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 0]], bool)
    >>> names = {"concept": ["cat", "rice", "dog"], "domain": ("concept", ["animal", "food", "animal"])}
    >>> overlap = el.jaccard(xr.DataArray(sets, dims=("concept", "unit"), coords=names))
    >>> order, domains, linkage = el.plot.order_concepts(overlap)
    >>> sorted(order[:2].tolist()), order[2].item(), domains
    ([0, 2], 1, ['animal', 'food'])
    """
    values = np.asarray(overlap.values, np.float64)
    names = [str(name) for name in overlap["domain"].to_numpy()] if "domain" in overlap.coords else [""]
    ceiling = _ceiling(values)
    if not any(names):
        return _leaves(values, ceiling)[0], [], None
    domains = list(dict.fromkeys(names))
    member = np.array([[name == domain for name in names] for domain in domains], np.float64)
    between = member @ values @ member.T / np.outer(member.sum(axis=1), member.sum(axis=1))
    of_domains, linkage = _leaves(between, ceiling)
    blocks = []
    for d in of_domains:
        members = np.flatnonzero(member[d])
        blocks.append(members[_leaves(values[np.ix_(members, members)], ceiling)[0]])
    return np.concatenate(blocks), [domains[d] for d in of_domains], linkage


def _leaves(values: np.ndarray, ceiling: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Optimal order of the rows of a similarity, and the linkage behind it."""
    if len(values) < 2:
        return np.arange(len(values)), None
    distance = squareform(ceiling - (values + values.T) / 2, checks=False)
    linkage = hierarchy.linkage(distance, "average", optimal_ordering=True)
    return hierarchy.leaves_list(linkage), linkage


def _ceiling(values: np.ndarray) -> float:
    """Return the similarity at distance 0: 1, as of a set with itself, or the largest if that is more."""
    return max(1.0, float(values.max()))


_NAMED = 65  # concepts at most whose names can still be read


@drawn
def plot_overlap(overlap: xr.DataArray, *, quantity: str = "Overlap") -> Figure:
    """Draw the overlap of all concepts, ordered by domain, under the tree of the domains.

    Two branches of the tree meet at the mean overlap between their domains. The colour scale ends at the 99th
    percentile of the overlaps of different concepts; the diagonal is left grey. Up to 65 concepts are named: down
    the side, with the domains below; without domains on both sides, and all are ordered together. Of more, only the
    domains are named.

    Args:
      overlap: [concept, other], as for `order_concepts`, which gives the order.
      quantity: what it is, for the colour bar.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> sets = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]], bool)
    >>> overlap = el.jaccard(xr.DataArray(sets, dims=("concept", "unit"), coords={"concept": ["cat", "dog", "rice"]}))
    >>> figure = el.plot.overlap(overlap, quantity="Jaccard overlap")
    >>> sorted(label.get_text() for label in figure.axes[0].get_yticklabels())
    ['cat', 'dog', 'rice']
    """
    values = np.asarray(overlap.values, np.float64)
    different = values[~np.eye(len(values), dtype=bool)]
    if len(different) == 0 or not np.isfinite(different).all():
        raise ExpertLensError(
            f"the overlap of {counted(len(values), 'concept')} can't be drawn: a figure wants two or more, and a "
            "finite number for every two"
        )
    order, domains, linkage = order_concepts(overlap)
    values = values[np.ix_(order, order)]
    concepts = [str(overlap["concept"].to_numpy()[i]) for i in order]
    high = float(np.percentile(different, 99))
    low = 0.0 if different.min() >= 0 else float(np.percentile(different, 1))
    if high <= low:
        high = low + 1.0

    # Laid out in inches, so that cells are square and the tree stands exactly over them.
    named = len(concepts) <= _NAMED
    of_domains = [domain or "(no domain)" for domain in domains] if len(domains) > 1 else []
    down = concepts if named else of_domains
    across = of_domains or down
    side = float(np.clip(len(concepts) * 8.5 / 72, 2.6, 7.7))
    if of_domains:  # tilted labels want room
        side = max(side, 0.17 * len(domains)) if named else max(5.6, 0.13 * len(domains))

    def room(labels: list[str], size: int) -> float:
        return 0.15 + 0.62 * size / 72 * max(map(len, labels), default=0)

    left = max(room(down, 7 if named else 8), 0.75)  # at least room for the tree's axis
    below = 0.1 + (0.75 * room(across, 8) if of_domains else room(across, 7)) if across else 0.4
    above = 1.05 if len(domains) > 1 else 0.3
    width, height = left + side + 1.25, below + side + above
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, below / height, side / width, side / height))
    shown = np.where(np.eye(len(values), dtype=bool), np.nan, values)
    axes.set_facecolor(MISSING)
    image = axes.imshow(shown, cmap=COLORMAP, vmin=low, vmax=high, interpolation="none", aspect="auto")
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_linewidth(0.5)
    axes.tick_params(length=0)

    if len(domains) >= 2:
        of = [str(overlap["domain"].to_numpy()[i]) for i in order]
        sizes = np.array([of.count(domain) for domain in domains])
        edges = np.concatenate([[0], np.cumsum(sizes)]) - 0.5
        middles = (edges[:-1] + edges[1:]) / 2
        for edge in edges[1:-1]:
            axes.axhline(edge, color=FAINT, linewidth=0.35)
            axes.axvline(edge, color=FAINT, linewidth=0.35)
        if named:
            axes.set_yticks(range(len(concepts)), concepts, fontsize=7)
        else:
            axes.set_yticks(middles, of_domains, fontsize=8)
        axes.set_xticks(middles, of_domains, fontsize=8, rotation=45, ha="right", rotation_mode="anchor")
        place = (left / width, (below + side + 0.08) / height, side / width, 0.85 / height)
        assert linkage is not None  # as of several domains there is
        _domain_tree(figure.add_axes(place, sharex=axes), linkage, middles, _ceiling(overlap.values))
    elif named:
        axes.set_yticks(range(len(concepts)), concepts, fontsize=7)
        axes.set_xticks(range(len(concepts)), concepts, fontsize=7, rotation=90)
    else:
        axes.set_yticks([])
        axes.set_xticks([])
        axes.set_xlabel(f"{len(concepts)} concepts, in the order of their clustering")
    if len(domains) == 1:
        axes.set_title(domains[0], loc="left", fontweight="bold")

    ends = {(0, 0): "neither", (0, 1): "max", (1, 0): "min", (1, 1): "both"}[
        different.min() < low, different.max() > high
    ]
    tall = min(side, 3.2)
    place = ((left + side + 0.15) / width, (below + side - tall) / height, 0.11 / width, tall / height)
    bar = figure.colorbar(image, cax=figure.add_axes(place), extend=ends)
    capped = f"(colours end at the 99th percentile\nof different concepts, {high:.2g})"
    if different.min() < low:
        capped = f"(colours end at the 1st and 99th percentile\nof different concepts, {low:.2g} and {high:.2g})"
    bar.set_label(f"{quantity}\n{capped}", fontsize=7.5)
    bar.outline.set_linewidth(0.5)
    return figure


def _domain_tree(axes: Axes, linkage: np.ndarray, middles: np.ndarray, ceiling: float) -> None:
    """Draw the tree over the domains' blocks; its height is the mean overlap at which branches meet."""
    tree = hierarchy.dendrogram(linkage, no_plot=True)
    leaves = 5 + 10 * np.arange(len(middles))  # where scipy puts them
    tips = ceiling - linkage[:, 2].min()
    root = ceiling - linkage[:, 2].max()
    reach = (tips - root) or 1.0
    for across, up in zip(tree["icoord"], tree["dcoord"], strict=True):
        heights = np.minimum(ceiling - np.array(up), tips + 0.25 * reach)  # leaves hang a little below the first pair
        axes.plot(np.interp(across, leaves, middles), heights, color=INK, linewidth=0.9, solid_joinstyle="miter")
    axes.set_ylim(tips + 0.25 * reach, root - 0.06 * reach)
    axes.tick_params(axis="x", length=0, labelbottom=False)
    axes.spines["bottom"].set_visible(False)
    axes.locator_params(axis="y", nbins=4)
    axes.set_ylabel("Mean overlap\nof branches", fontsize=7)
