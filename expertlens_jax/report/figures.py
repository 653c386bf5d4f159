"""The figures: each takes a table that can be read back from its CSV, and returns a matplotlib `Figure`.

Nothing is computed here that a claim could rest on: correlations, intervals and shares come in as columns.
Figures are built without pyplot, so they need no display and leave nothing behind.
"""

from __future__ import annotations

import io
import os

import numpy as np
import pandas as pd
import scipy.cluster.hierarchy as hierarchy
import xarray as xr
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import blended_transform_factory
from scipy.spatial.distance import squareform

from expertlens_jax.errors import ExpertLensError
from expertlens_jax.report.style import COLORMAP, FAINT, INK, MISSING, PALE, STYLE, colours, styled

# The sites of a block from its input to its output; sites of other names follow.
SITES = ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.gate", "mlp.up", "mlp.act", "mlp.down", "resid")


def save_figure(figure: Figure, path: os.PathLike | str) -> tuple[epath.Path, epath.Path]:
    """Write `path`.png (200 dpi) and `path`.svg (text as text); the same figure gives the same bytes.

    Args:
        figure: what to write.
        path: without a suffix; may be in a bucket. Its directory is made if need be.

    Returns:
        The two paths written.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, options in (("png", {"dpi": 200}), ("svg", {"metadata": {"Date": None}})):
        file = io.BytesIO()
        with styled():
            figure.savefig(file, format=suffix, facecolor="white", **options)
        written.append(path.parent / f"{path.name}.{suffix}")
        written[-1].write_bytes(file.getvalue())
    return tuple(written)


# --- Alignment: pairs ---------------------------------------------------------------------------------------


@styled()
def plot_alignment(tables: pd.DataFrame, results: pd.DataFrame, *, quantity: str = "Overlap") -> Figure:
    """Human rating against similarity, a panel per sentence set (rows) and ratings (columns).

    The line joins the medians of equally many pairs each. Named are the pairs furthest from a perfect rank
    correlation, on both sides.

    Args:
        tables: a row per rated pair: sentences, ratings, word_1, word_2, rating, similarity.
        results: a row per panel: sentences, ratings, spearman, ci_low, ci_high, pairs, and note where
            spearman is NaN.
        quantity: what the similarity is, for the axis.
    """
    _require(tables, "sentences", "ratings", "word_1", "word_2", "rating", "similarity", rows=False)
    _require(results, "sentences", "ratings", "spearman", "ci_low", "ci_high", "pairs")
    rows, columns = list(dict.fromkeys(results["sentences"])), list(dict.fromkeys(results["ratings"]))
    colour = colours(rows)
    width, height = 2.35, 2.15  # of a panel, in inches
    figure = Figure(figsize=(width * len(columns) + 0.5, height * len(rows) + 0.4), layout="constrained")
    panels = figure.subplots(len(rows), len(columns), squeeze=False, sharex="col", sharey=True)
    # Limits first, with room above the points for the panel's numbers: names are placed by what is free.
    highest, lowest = tables["similarity"].max(), min(0.0, tables["similarity"].min())
    if not len(tables) or highest == lowest:
        highest = lowest + 1
    panels[0, 0].set_ylim(lowest - 0.04 * (highest - lowest), highest + 0.22 * (highest - lowest))
    for j, ratings in enumerate(columns):
        rated = tables.loc[tables["ratings"] == ratings, "rating"]
        if len(rated):
            margin = 0.05 * (np.ptp(rated) or 1)
            panels[0, j].set_xlim(rated.min() - margin, rated.max() + margin)
    for i, sentences in enumerate(rows):
        for j, ratings in enumerate(columns):
            axes: Axes = panels[i, j]
            here = (tables["sentences"] == sentences) & (tables["ratings"] == ratings)
            result = results[(results["sentences"] == sentences) & (results["ratings"] == ratings)]
            if len(result) != 1:
                raise ExpertLensError(
                    f"results has {len(result)} rows for sentences {sentences!r} and ratings {ratings!r}; "
                    "a panel wants exactly one"
                )
            _pairs_panel(axes, tables[here], colour[sentences], width, height)
            axes.text(0.03, 0.985, _result_text(result.iloc[0]), transform=axes.transAxes, va="top", fontsize=7.5)
            if i == 0:
                axes.set_title(ratings, loc="left", fontweight="bold")
            if i == len(rows) - 1:
                axes.set_xlabel("Human rating")
            if j == 0:
                axes.set_ylabel(sentences, fontweight="bold")
    figure.supylabel(quantity, fontsize=STYLE["axes.labelsize"])
    return figure


def _result_text(result: pd.Series) -> str:
    if np.isnan(result["spearman"]):
        return f"no correlation, {result['pairs']:.0f} pairs"
    interval = f"[{result['ci_low']:.2f}, {result['ci_high']:.2f}]"
    return f"ρ = {result['spearman']:.2f} {interval}\n{result['pairs']:.0f} pairs"


def _pairs_panel(axes: Axes, pairs: pd.DataFrame, colour: str, width: float, height: float) -> None:
    """Points, binned medians, and the names of a few pairs off the trend, where there is room."""
    if pairs.empty:
        return
    x, y = pairs["rating"].to_numpy(), pairs["similarity"].to_numpy()
    axes.plot(
        x,
        y,
        "o",
        color=colour,
        markersize=np.clip(30 / np.sqrt(len(x)), 1.6, 3.2),
        alpha=float(np.clip(8 / np.sqrt(len(x)), 0.25, 0.6)),
        markeredgewidth=0,
        gid="pairs",
        clip_on=False,
    )
    bins = np.array_split(np.argsort(x, kind="stable"), np.clip(len(x) // 8, 1, 8))
    if len(bins) > 1:
        medians = np.array([(np.median(x[b]), np.median(y[b])) for b in bins]).T
        axes.plot(*medians, "-", color=INK, linewidth=1.4, gid="medians")

    off = pd.Series(y).rank().to_numpy() - pd.Series(x).rank().to_numpy()
    order = np.argsort(off, kind="stable")
    wanted = np.stack([order[::-1], order], axis=1).ravel()[:24]  # from both sides in turn
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    points = np.stack([(x - left) / (right - left), (y - bottom) / (top - bottom)], axis=1)
    obstacles = points
    if len(bins) > 1:  # the line counts as a row of points
        line_x = np.linspace(*medians[0, [0, -1]], 60)
        line = np.stack([line_x, np.interp(line_x, *medians)], axis=1)
        obstacles = np.concatenate([points, (line - [left, bottom]) / [right - left, top - bottom]])
    # A panel's data area is about its size less the axis labels; 7 pt letters are some 0.55 of that wide.
    letter, height = 0.55 * 7 / 72 / (width - 0.4), 9 / 72 / (height - 0.35)
    taken = [(0.0, 0.83, 0.8, 1.0)]  # the panel's numbers
    for k in wanted:
        if len(taken) == 5:
            break
        text = f"{pairs['word_1'].iloc[k]}, {pairs['word_2'].iloc[k]}"
        place = _free_place(points[k], obstacles, letter * len(text), height, taken)
        if place is None:
            continue
        box, across, down = place
        taken.append(box)
        axes.plot(x[k], y[k], "o", color=INK, markersize=2.4, markeredgewidth=0, clip_on=False, zorder=4)
        axes.text(
            {"left": box[0], "center": (box[0] + box[2]) / 2, "right": box[2]}[across],
            {"bottom": box[1], "center": (box[1] + box[3]) / 2, "top": box[3]}[down],
            text,
            transform=axes.transAxes,
            ha=across,
            va=down,
            fontsize=7,
            zorder=5,
        )


def _free_place(
    point: np.ndarray, obstacles: np.ndarray, width: float, height: float, taken: list[tuple[float, ...]]
) -> tuple[tuple[float, ...], str, str] | None:
    """Where a name fits beside its point: box (left, bottom, right, top) in axes coordinates, and alignment.

    None if it would leave the panel, touch another name, or hide more than one point wherever it stands.
    """
    x, y = point
    gap = 0.022
    places = {
        ("left", "center"): (x + gap, y - height / 2),
        ("right", "center"): (x - gap - width, y - height / 2),
        ("center", "bottom"): (x - width / 2, y + gap / 2),
        ("center", "top"): (x - width / 2, y - gap / 2 - height),
        ("left", "bottom"): (x, y + gap / 2),
        ("right", "bottom"): (x - width, y + gap / 2),
        ("left", "top"): (x, y - gap / 2 - height),
        ("right", "top"): (x - width, y - gap / 2 - height),
    }
    best, fewest = None, 2
    for (across, down), (left, bottom) in places.items():
        box = (left, bottom, left + width, bottom + height)
        if left < 0 or bottom < 0 or box[2] > 1.03 or box[3] > 1:
            continue
        if any(left < t[2] and t[0] < box[2] and bottom < t[3] and t[1] < box[3] for t in taken):
            continue
        hidden = np.all((obstacles > box[:2]) & (obstacles < box[2:]), axis=1).sum()
        if hidden < fewest:
            best, fewest = (box, across, down), hidden
    return best


# --- Alignment: measures ------------------------------------------------------------------------------------


@styled()
def plot_measures(table: pd.DataFrame) -> Figure:
    """Alignment of every measure with its 95% interval: a row per measure, a panel per ratings.

    Args:
        table: rows of alignment.csv: group ("ExpertLens", "Baselines", "Controls" or others, drawn apart in
            the order of the table), measure, sentences ("" for a measure that needs none), ratings, spearman,
            ci_low, ci_high, pairs. A NaN spearman shows as "none".
    """
    _require(table, "group", "measure", "sentences", "ratings", "spearman", "ci_low", "ci_high", "pairs")
    table = table.assign(sentences=table["sentences"].fillna(""))  # an empty field of a CSV reads as NaN
    groups = list(dict.fromkeys(table["group"]))
    panels_of = list(dict.fromkeys(table["ratings"]))
    sets = list(dict.fromkeys(table["sentences"]))
    colour = colours(sets)

    position, headings, y = {}, {}, 0.0
    for group in groups:
        headings[group] = y
        for measure in dict.fromkeys(table.loc[table["group"] == group, "measure"]):
            y += 1
            position[group, measure] = y
        y += 1.6
    longest = max(len(measure) for _, measure in position)
    figure = Figure(figsize=(0.062 * longest + 0.5 + 2.0 * len(panels_of), 0.24 * y + 0.8), layout="constrained")
    panels = figure.subplots(1, len(panels_of), squeeze=False, sharey=True)[0]
    for axes, ratings in zip(panels, panels_of, strict=True):
        rows = table[table["ratings"] == ratings]
        axes.axvline(0, color=FAINT, linewidth=0.6, zorder=0)
        for place in position.values():
            axes.axhline(place, color=PALE, linewidth=0.5, zorder=0)
        for (group, measure), some in rows.groupby(["group", "measure"], sort=False):
            # The sentence sets of one measure stand beside one another, in the order of the legend.
            shown = [name for name in sets if name in set(some["sentences"])]
            for row in some.itertuples():
                place = position[group, measure] + 0.26 * (shown.index(row.sentences) - (len(shown) - 1) / 2)
                if np.isnan(row.spearman):
                    offset = 3 + 24 * shown.index(row.sentences)
                    axes.annotate(
                        "none",
                        (0, position[group, measure]),
                        xytext=(offset, 0),
                        textcoords="offset points",
                        va="center",
                        color=colour[row.sentences],
                        fontsize=7,
                        style="italic",
                    )
                    continue
                axes.plot(
                    [row.ci_low, row.ci_high],
                    [place] * 2,
                    color=colour[row.sentences],
                    linewidth=1,
                    alpha=0.55,
                )
                axes.plot(row.spearman, place, "o", color=colour[row.sentences], markersize=3.6, markeredgewidth=0)
        pairs = sorted(set(rows["pairs"].astype(int)))
        count = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
        axes.set_title(f"{ratings}, {count} pairs", loc="left", fontweight="bold")
        axes.set_xlabel("Spearman's ρ, 95% interval")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
    low = min(0.0, np.nanmin([*table["ci_low"], *table["spearman"], 0.0]))
    for axes in panels:
        axes.set_xlim(max(-1.02, low - 0.03), 1.02)
    axes = panels[0]
    axes.set_yticks(list(position.values()), [measure for _, measure in position])
    axes.set_ylim(y - 1.1, -0.6)
    for group, place in headings.items():
        axes.text(
            -0.03,
            place,
            group,
            transform=blended_transform_factory(axes.transAxes, axes.transData),
            ha="right",
            va="center",
            fontweight="bold",
            fontsize=8,
        )
    if sets != [""]:
        labels = [(name or "no sentences needed", colour[name]) for name in sorted(sets, key=lambda n: n == "")]
        figure.legend(
            handles=[Line2D([], [], marker="o", color=c, markersize=3.6, linewidth=1, label=n) for n, c in labels],
            loc="outside upper right",
            ncols=len(labels),
        )
    return figure


# --- Overlap ------------------------------------------------------------------------------------------------


def order_concepts(overlap: xr.DataArray) -> tuple[np.ndarray, list[str], np.ndarray | None]:
    """An order of the concepts in which the like stand together, domain by domain.

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
    """The similarity at distance 0: 1, as of a set with itself, or the largest if that is more."""
    return max(1.0, float(values.max()))


@styled()
def plot_overlap(overlap: xr.DataArray, *, quantity: str = "Overlap") -> Figure:
    """The overlap of all concepts, ordered by domain, under the tree of the domains.

    Two branches of the tree meet at the mean overlap between their domains. The colour scale ends at the 99th
    percentile of the overlaps of different concepts; the diagonal is left grey. Without domains all concepts
    are ordered together, and named where their names fit.

    Args:
        overlap: [concept, other], as for `order_concepts`, which gives the order.
        quantity: what it is, for the colour bar.
    """
    values = np.asarray(overlap.values, np.float64)
    different = values[~np.eye(len(values), dtype=bool)]
    if len(different) == 0 or not np.isfinite(different).all():
        raise ExpertLensError(
            f"the overlap of {len(values)} concepts can't be drawn: a figure wants two or more, and a finite "
            "number for every two"
        )
    order, domains, linkage = order_concepts(overlap)
    values = values[np.ix_(order, order)]
    concepts = [str(overlap["concept"].to_numpy()[i]) for i in order]
    high = float(np.percentile(different, 99))
    low = 0.0 if different.min() >= 0 else float(np.percentile(different, 1))
    if high <= low:
        high = low + 1.0

    # Laid out in inches, so that cells are square and the tree stands exactly over them.
    named = len(domains) < 2 and len(concepts) <= 65
    labels = concepts if named else []
    if len(domains) > 1:
        labels = [domain or "(no domain)" for domain in domains]
    side = float(np.clip(len(concepts) * 8.5 / 72, 2.6, 7.7)) if named else max(5.6, 0.13 * len(domains))
    margin = 0.15 + 0.62 * (8 if len(domains) > 1 else 7) / 72 * max(map(len, labels), default=0)
    left = max(margin, 0.75)  # at least room for the tree's axis
    below = 0.1 + (0.75 if len(domains) > 1 else 1.0) * margin if labels else 0.4
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
        axes.set_yticks(middles, labels, fontsize=8)
        axes.set_xticks(middles, labels, fontsize=8, rotation=45, ha="right", rotation_mode="anchor")
        place = (left / width, (below + side + 0.08) / height, side / width, 0.85 / height)
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
    """The tree over the domains' blocks; its height is the mean overlap at which branches meet."""
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


# --- Localisation -------------------------------------------------------------------------------------------


@styled()
def plot_localisation(counts: pd.DataFrame) -> Figure:
    """Where in the model the experts are: layers across, sites down, and totals along both margins.

    Args:
        counts: a row per layer and site: layer, site, experts_per_concept (mean over concepts), share (of the
            site's units that are experts for an average concept, 0 to 1). Combinations the model doesn't have
            are left out of the table and stay grey.
    """
    _require(counts, "layer", "site", "experts_per_concept", "share")
    sites = list(dict.fromkeys(counts["site"]))
    sites.sort(key=lambda site: SITES.index(site) if site in SITES else len(SITES))
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
            red, green, blue, _ = image.to_rgba(share[i, j])
            ink = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.55 else INK
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
    """A percentage in at most four characters."""
    if percent == 0:
        return "0"
    return f"{percent:.2f}" if percent < 0.995 else f"{percent:.1f}" if percent < 9.95 else f"{percent:.0f}"


def _require(table: pd.DataFrame, *columns: str, rows: bool = True) -> None:
    """Refuse a table that lacks a column, or, where `rows` are needed, has none."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ExpertLensError(
            f"the table lacks the columns {missing}; it has {list(table.columns)}, and the figure wants {list(columns)}"
        )
    if rows and table.empty:
        raise ExpertLensError(f"the table of {list(columns)} has no rows: there is nothing to draw")
