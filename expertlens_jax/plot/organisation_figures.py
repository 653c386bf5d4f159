"""How overlap arranges the concepts: the tree of all of them, a map, and the graph of their domains."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.cluster.hierarchy as hierarchy
import xarray as xr
from matplotlib.lines import Line2D

from expertlens_jax.cards import counted
from expertlens_jax.data.rows import each_row
from expertlens_jax.errors import ExpertLensError
from expertlens_jax.experts.concept_tree import concept_domains, link_concepts
from expertlens_jax.plot.columns import require
from expertlens_jax.plot.overlap_figures import order_concepts
from expertlens_jax.plot.style import COLORMAP, INK, MISSING, PALE, PALETTE, Figure, colours, drawn, wrapped


@drawn
def plot_tree(overlap: xr.DataArray, *, quantity: str = "Overlap") -> Figure:
    """Draw the tree of all concepts, made without their domains; their overlap in its order; where each domain's are.

    A domain that the overlap recovers is one unbroken run of ticks in its column; columns stand in the order of their
    domains' middle ticks. Up to 60 concepts are named.

    Args:
      overlap: (concept, other), larger = more alike, with `domain`.
      quantity: what it is, for the colour bar.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> sets = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 0]], bool)
    >>> names = {"concept": ["cat", "rice", "dog"], "domain": ("concept", ["animal", "food", "animal"])}
    >>> overlap = el.jaccard(xr.DataArray(sets, dims=("concept", "unit"), coords=names))
    >>> figure = el.plot.tree(overlap)
    >>> sorted(label.get_text() for label in figure.axes[2].get_xticklabels())
    ['animal', 'food']
    """
    if len(overlap) < 2 or not np.isfinite(overlap.values).all():
        raise ExpertLensError(
            f"the overlap of {counted(len(overlap), 'concept')} can't be drawn as a tree: wanted two or more concepts, "
            "and a finite number for every two"
        )
    domains, linkage = concept_domains(overlap), link_concepts(overlap)
    tree = hierarchy.dendrogram(linkage, no_plot=True)
    order = np.array(tree["leaves"])
    values = np.asarray(overlap.values, np.float64)[np.ix_(order, order)]
    different = values[~np.eye(len(values), dtype=bool)]
    low, high = min(0.0, float(different.min())), float(np.percentile(different, 99))
    places = pd.Series(np.arange(len(order))).groupby(domains[order]).median().sort_values()
    named = len(order) <= 60

    side = 4.0 if not named else float(np.clip(len(order) * 8.5 / 72, 2.4, 7))
    beside = 0.13 * len(places) + (0.8 if named else 0)
    # Longer names than most want more room, so that they don't take it from the cells.
    longer = max(0.0, 0.062 * max(map(len, map(str, overlap["concept"].values))) - 0.8) if named else 0.0
    above = max(0.0, 0.062 * max(map(len, places.index)) - 0.5)
    figure = Figure(figsize=(0.9 + side + beside + longer, side + 1.15 + above), layout="constrained")
    ratios = (0.9, side, beside)
    branches, cells, ticks = figure.subplots(1, 3, width_ratios=ratios, sharey=True)
    for up, across in zip(tree["dcoord"], tree["icoord"], strict=True):
        branches.plot(1 - np.array(up), (np.array(across) - 5) / 10, color=INK, linewidth=0.5)
    # Most branches meet at small overlaps: a root scale (of either sign) gives them room.
    branches.set_xscale("function", functions=(lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2))
    branches.set_xlim(min(0.0, 1 - linkage[:, 2].max()), 1)
    branches.set_xticks([0, 0.1, 0.5, 1], ["0", ".1", ".5", "1"])
    branches.set_xlabel("Mean overlap\nof branches", fontsize=7)
    branches.spines["left"].set_visible(False)

    cells.set_facecolor(MISSING)
    shown = np.where(np.eye(len(values), dtype=bool), np.nan, values)
    image = cells.imshow(
        shown, cmap=COLORMAP, vmin=low, vmax=high if high > low else low + 1, interpolation="none", aspect="auto"
    )
    cells.set_xticks([])
    cells.set_xlabel(f"{len(order)} concepts, in the order of the tree")
    ticks.set_xlim(-0.6, len(places) - 0.4)
    for column, domain in enumerate(places.index):
        at = np.flatnonzero(domains[order] == domain)
        ticks.axvspan(column - 0.42, column + 0.42, color=PALE, alpha=0.5, linewidth=0)
        ticks.hlines(at, column - 0.42, column + 0.42, color=INK, linewidth=1.2 if not named else 3)
    ticks.set_xticks(range(len(places)), places.index, rotation=90)
    ticks.xaxis.tick_top()
    for axes in (branches, cells, ticks):
        axes.tick_params(axis="y", length=0, labelleft=False)
    ticks.tick_params(axis="x", length=0)
    for axes in (cells, ticks):
        for spine in axes.spines.values():
            spine.set_visible(False)
    if named:
        names = [str(overlap["concept"].values[i]) for i in order]
        ticks.set_yticks(range(len(names)), names)
        ticks.tick_params(axis="y", labelright=True, labelleft=False)
    bar = figure.colorbar(image, ax=cells, location="bottom", shrink=0.8, aspect=40, pad=0.02, extend="max")
    bar.set_label(f"{quantity} \n(colours end at the 99th percentile, {high:.2g})", fontsize=7.5)
    bar.outline.set_linewidth(0.5)
    return figure


@drawn
def plot_map(places: pd.DataFrame, *, title: str = "") -> Figure:
    """Draw a map of concepts, a colour and a shape for each domain; concepts are named where there is room.

    Args:
      places: a row per concept: concept, domain, x, y. Axes have no unit, and directions no meaning.
      title: what the map is, and how far to trust it.

    >>> import expertlens_jax as el, pandas as pd
    >>> places = pd.DataFrame({"concept": ["cat", "dog", "rice"], "x": [0.0, 0.3, 1.0], "y": [0.0, 0.2, 0.9]})
    >>> figure = el.plot.map(places.assign(domain=["animal", "animal", "food"]), title="facts")
    >>> [text.get_text() for text in figure.axes[0].texts]
    ['cat', 'dog', 'rice']
    """
    require(places, "concept", "domain", "x", "y")
    domains = list(dict.fromkeys(places["domain"]))
    shade = colours(domains)
    shape = {domain: "osDv^P"[i // len(PALETTE) % 6] for i, domain in enumerate(domains)}
    points = places[["x", "y"]].to_numpy(float, copy=True)
    points -= points.min(axis=0)
    spread = points.max(axis=0)
    width, margin = float(np.clip(0.5 * np.sqrt(len(places)), 3.4, 6.6)), 0.35  # in inches
    column = max(0.3 + 0.062 * max(map(len, domains)), 0.82)  # a sign and its domain's name
    width = max(width, column)
    columns = int(width / column)
    title = wrapped(title, width - 0.1, 8.5)
    above = 0.04 + 0.15 * (title.count("\n") + 1)
    head = above + 0.13 + 0.15 * -(-len(domains) // columns)
    scale = (width - 2 * margin) / (max(spread[0], spread[1] / 1.2) or 1.0)  # one for both axes
    points = points * scale + margin
    height = scale * spread[1] + 2 * margin
    figure = Figure(figsize=(width, height + head))
    axes = figure.add_axes((0, 0, 1, height / (height + head)))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    of = places["domain"].to_numpy()
    for domain in domains:
        x, y = points[of == domain].T
        axes.plot(x, y, shape[domain], color=shade[domain], markersize=3.4, markeredgewidth=0, label=domain)
    for row, place in zip(each_row(places), _places_of_names(places["concept"], points, width, height), strict=True):
        if place is not None:
            x, y, align = place
            axes.text(x, y, row.concept, fontsize=7, color=shade[row.domain], ha=align, va="center")
    axes.axis("off")
    top = height + head
    figure.suptitle(title, x=0.01, y=1 - 0.04 / top, ha="left", va="top", fontsize=8.5)
    place = (0.5, 1 - above / top)
    figure.legend(loc="upper center", bbox_to_anchor=place, ncols=columns, columnspacing=1, handletextpad=0.1)
    return figure


def _places_of_names(
    names: pd.Series, points: np.ndarray, width: float, height: float
) -> list[tuple[float, float, str] | None]:
    """Return where each name stands beside its point [names, 2] in inches.

    That is place and alignment, or None without room.
    """
    letter, tall, gap = 0.056, 0.105, 0.045  # of 7 pt type
    boxes = [(x - 0.02, y - 0.02, x + 0.02, y + 0.02) for x, y in points]
    places: list[tuple[float, float, str] | None] = [None] * len(points)
    # The lonely first: they are named in any case, and the crowded share what is left.
    apart = np.sort(np.linalg.norm(points[:, None] - points, axis=2), axis=1)[:, min(3, len(points) - 1)]
    for i in np.argsort(-apart, kind="stable"):
        x, y = points[i]
        long = letter * len(names.iloc[i])
        for at, middle, align, left in (
            (x + gap, y, "left", x + gap),
            (x - gap, y, "right", x - gap - long),
            (x, y + 0.03 + tall / 2, "center", x - long / 2),
            (x, y - 0.03 - tall / 2, "center", x - long / 2),
        ):
            box = (left, middle - tall / 2, left + long, middle + tall / 2)
            inside = box[0] > 0 and box[1] > 0 and box[2] < width and box[3] < height
            if inside and not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes):
                boxes.append(box)
                places[i] = (at, middle, align)
                break
    return places


@drawn
def plot_domain_graph(domains: pd.DataFrame) -> Figure:
    """Draw the domains as a graph: an edge where two overlap more than domains handed out at random would.

    The domains stand on a circle in the order of their clustering; a disc's area is the overlap within its domain, an
    edge's width and darkness the overlap between two, both as multiples of chance. Edges are those with q ≤ 0.05; a
    disc is filled if its own q is.

    Args:
      domains: a row per two domains, and per domain with itself: domain_1, domain_2, overlap, ratio, q_value.

    >>> import expertlens_jax as el, pandas as pd
    >>> pairs = [("animal", "animal", 0.4, 3.0, 0.01), ("animal", "food", 0.1, 0.7, 0.9), ("food", "food", 0.3, 2.2, 0)]
    >>> domains = pd.DataFrame(pairs, columns=["domain_1", "domain_2", "overlap", "ratio", "q_value"])
    >>> figure = el.plot.domain_graph(domains)
    >>> sorted(text.get_text() for text in figure.axes[0].texts)  # the overlap within each, times chance
    ['animal 3.0×', 'food 2.2×']
    """
    require(domains, "domain_1", "domain_2", "overlap", "ratio", "q_value")
    names = list(dict.fromkeys([*domains["domain_1"], *domains["domain_2"]]))
    matrix = pd.DataFrame(np.nan, index=names, columns=names)
    for row in each_row(domains):
        matrix.loc[row.domain_1, row.domain_2] = matrix.loc[row.domain_2, row.domain_1] = row.overlap
    overlap = xr.DataArray(matrix.fillna(0.0).to_numpy(), dims=("concept", "other"), coords={"concept": names})
    order = [names[i] for i in order_concepts(overlap)[0]]
    angle = dict(zip(order, np.pi / 2 - 2 * np.pi * np.arange(len(order)) / len(order), strict=True))
    at = {name: (np.cos(a), np.sin(a)) for name, a in angle.items()}
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    between = domains[(domains["domain_1"] != domains["domain_2"]) & (domains["q_value"] <= 0.05)]
    for row in each_row(between.sort_values("ratio")):
        strength = np.clip((row.ratio - 1) / 2, 0.1, 1)  # full at three times chance
        (x1, y1), (x2, y2) = at[row.domain_1], at[row.domain_2]
        axes.plot([x1, x2], [y1, y2], color=COLORMAP(0.25 + 0.6 * strength), linewidth=0.4 + 3.2 * strength, zorder=1)
    within = domains[domains["domain_1"] == domains["domain_2"]].set_index("domain_1")
    for name, (x, y) in at.items():
        own = within.loc[name]
        area = 22 * max(float(np.nan_to_num(own["ratio"])), 0.1)
        face = INK if own["q_value"] <= 0.05 else "white"
        axes.scatter(x, y, s=area, facecolor=face, edgecolor=INK, linewidth=0.8, zorder=3)
        turned = np.degrees(angle[name])
        left = np.cos(angle[name]) < -1e-9
        axes.text(
            1.11 * x,
            1.11 * y,
            f"{name} {own['ratio']:.1f}×",
            rotation=turned + 180 if left else turned,
            rotation_mode="anchor",
            ha="right" if left else "left",
            va="center",
        )
    axes.set_xlim(-1.75, 1.75)
    axes.set_ylim(-1.75, 1.75)
    axes.set_aspect("equal")
    axes.axis("off")
    keys = [(f"{ratio:g}× chance", np.clip((ratio - 1) / 2, 0.1, 1)) for ratio in (1.5, 2, 3)]
    handles = [
        Line2D([], [], color=COLORMAP(0.25 + 0.6 * s), linewidth=0.4 + 3.2 * s, label=label) for label, s in keys
    ]
    handles.append(Line2D([], [], marker="o", linestyle="", color=INK, label="within (filled: q ≤ 0.05)"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, columnspacing=1, handlelength=1.5)
    return figure
