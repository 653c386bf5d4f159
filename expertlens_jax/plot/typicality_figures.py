"""How typical people find concepts, against what these share with their category."""

from __future__ import annotations

import pandas as pd

from expertlens_jax.data.rows import each_row
from expertlens_jax.plot.columns import require
from expertlens_jax.plot.style import FAINT, PALETTE, Figure, drawn

_COLUMNS, _PANELS = 4, 12
"""Panels side by side, and how many there are at most."""


@drawn
def plot_typicality(concepts: pd.DataFrame, results: pd.DataFrame, *, quantity: str = "Similarity") -> Figure:
    """Draw similarity to a category against typicality, a panel per category; of many, those with most concepts.

    Args:
      concepts: a row per rating: concept, category, rating, similarity.
      results: a row per category, and others: scope, concepts, spearman (NaN: isn't drawn).
      quantity: what the similarity is, for the axis.

    >>> import expertlens_jax as el, pandas as pd
    >>> birds = {"concept": ["robin", "owl", "penguin"], "category": "bird", "rating": [6.9, 4.5, 2.6]}
    >>> results = pd.DataFrame({"scope": ["bird"], "concepts": [3], "spearman": [1.0]})
    >>> figure = el.plot.typicality(pd.DataFrame(birds | {"similarity": [0.3, 0.2, 0.1]}), results)
    >>> figure.axes[0].get_title(loc="left")
    'bird: ρ = 1.00'
    """
    require(concepts, "concept", "category", "rating", "similarity")
    require(results, "scope", "concepts", "spearman")
    drawn_ones = results[results["spearman"].notna() & results["scope"].isin(concepts["category"])]
    if drawn_ones.empty:  # each category has too few concepts: what there is, without a number
        found = concepts["category"].value_counts()
        drawn_ones = pd.DataFrame({"scope": found.index, "concepts": found.to_numpy(), "spearman": float("nan")})
    drawn_ones = drawn_ones.sort_values("concepts", ascending=False, kind="stable").head(_PANELS)
    columns = min(_COLUMNS, len(drawn_ones))
    rows = -(-len(drawn_ones) // columns)
    figure = Figure(figsize=(2.1 * columns + 0.4, 1.9 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, result in zip(panels, each_row(drawn_ones), strict=False):
        own = concepts[concepts["category"] == result.scope]
        axes.scatter(own["rating"], own["similarity"], s=14, color=PALETTE[0], linewidths=0, alpha=0.8)
        number = "" if pd.isna(result.spearman) else f": ρ = {result.spearman:.2f}"
        axes.set_title(f"{result.scope}{number}", loc="left", fontweight="bold")
        axes.margins(0.14)
        ends = own.sort_values("similarity").iloc[[0, -1]] if len(own) > 1 else own
        for concept in each_row(ends):
            right = concept.rating > own["rating"].mean()  # towards the middle, where there is room
            axes.annotate(
                str(concept.concept),
                (float(concept.rating), float(concept.similarity)),
                xytext=(-4 if right else 4, 4),
                textcoords="offset points",
                ha="right" if right else "left",
                fontsize=6.5,
                color=FAINT,
            )
    for axes in panels[len(drawn_ones) :]:
        axes.set_axis_off()
    figure.supxlabel("Typicality, as people rate it", fontsize=8)
    figure.supylabel(quantity, fontsize=8)
    return figure
