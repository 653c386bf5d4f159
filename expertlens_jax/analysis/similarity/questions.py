"""Do people find alike what experts say is alike? Questions to similarities, each answered by a `Result`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import xarray as xr
from etils import epath

from expertlens_jax import plot
from expertlens_jax.analysis.given import SET, given_ratings, given_similarity
from expertlens_jax.analysis.result import Result, interval
from expertlens_jax.analysis.similarity.alignment import align
from expertlens_jax.analysis.similarity.comparison import compare_alignments, partial_alignments
from expertlens_jax.analysis.similarity.typicality import align_typicality
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.data.typicality import Typicality, load_typicality
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.scores import Sign

if TYPE_CHECKING:
    from expertlens_jax.plot.style import Figure


def alignment(
    x: xr.Dataset | xr.DataArray,
    ratings: Ratings | str | Sequence[Ratings | str],
    *,
    method: str = "jaccard",
    threshold: float | None = None,
    by: str = "average_precision",
    sign: Sign = "up",
    permutations: int = 10_000,
    seed: int = 0,
) -> Result:
    """Ask whether concepts whose experts overlap are concepts that people call alike.

    Args:
      x: a table of expertise, expert sets, or a similarity (concept, other) that is compared already.
      ratings: human ratings, or the name or file of some, or several of them.
      method: of `overlap`, if `x` is no similarity yet.
      threshold: for that.
      by: the score by which experts are selected, a name in `el.SCORES`.
      sign: of it: "up", "down" or "both", see `select_experts`.
      permutations: draws of the p-value.
      seed: of the draws.

    Returns:
      A `Result`. Its table has a row per ratings: `ratings`, `pairs`, `spearman`, `ci_low`, `ci_high` (95%, over
      concepts), `chance` (0), `p_value` (concepts permuted), `missing` (rated words that are no concepts), `note` (why
      there is no number). Its figure draws rating against similarity; `tables["pairs"]` holds the pairs.

    Raises:
      SelectionError, ExpertLensError, RatingsError: as `overlap`, `align` and `load_ratings`.

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> names = [f"word{i}" for i in range(6)]
    >>> close = 1 / (1 + np.abs(np.subtract.outer(np.arange(6), np.arange(6))))
    >>> similarity = xr.DataArray(close, dims=("concept", "other"), coords={"concept": names, "other": names})
    >>> pairs = [(names[i], names[j]) for i in range(6) for j in range(i)]
    >>> rated = el.Ratings("mine", tuple(pairs), tuple(10.0 - abs(int(a[4]) - int(b[4])) for a, b in pairs))
    >>> result = el.analysis.alignment(similarity, rated, permutations=99)
    >>> result.table[["ratings", "pairs", "spearman"]].values.tolist()
    [['mine', 15, 1.0]]
    """
    similarity, quantity = given_similarity(x, method, threshold, by, sign)
    rows, pairs = [], []
    for rated in given_ratings(ratings):
        found = align(similarity, rated, permutations=permutations, seed=seed)
        pairs.append(found.table.assign(ratings=rated.name))
        rows.append(
            {name: getattr(found, name) for name in ("ratings", "pairs", "spearman", "ci_low", "ci_high")}
            | {"chance": 0.0, "p_value": found.p_value, "missing": len(found.missing), "note": found.note}
        )
    table, drawn = pd.DataFrame(rows), pd.concat(pairs, ignore_index=True)
    sentences = [
        f"{row['ratings']}: Spearman's correlation with people's ratings is {interval(row, 'spearman')} "
        f"(chance 0, p = {row['p_value']:.2g}), over {row['pairs']} pairs."
        if not row["note"]
        else f"{row['ratings']}: there is no correlation: {row['note']}."
        for row in rows
    ]
    figure = functools.partial(
        plot.alignment, drawn.assign(sentences=SET), table.assign(sentences=SET), quantity=quantity
    )
    return Result("alignment", table, tuple(sentences), {"alignment": figure}, {"pairs": drawn})


def typicality(
    x: xr.Dataset | xr.DataArray,
    ratings: Typicality | epath.PathLike,
    *,
    shared_with: str = "members",
    method: str = "jaccard",
    threshold: float | None = None,
    by: str = "average_precision",
    sign: Sign = "up",
    permutations: int = 10_000,
    resamples: int = 2000,
    seed: int = 0,
) -> Result:
    """Ask whether a concept shares more with its category, the more typical of it people find it.

    Args:
      x: a table of expertise, expert sets, or a similarity (concept, other).
      ratings: of typicality, or their file: a concept, its category and a number a line.
      shared_with: what the concept's similarity is to: the category's other rated "members", averaged, or the
        category's own "word", which must be a concept.
      method: of `overlap`, if `x` is no similarity yet.
      threshold: for that.
      by: the score by which experts are selected, a name in `el.SCORES`.
      sign: of it: "up", "down" or "both", see `select_experts`.
      permutations: draws of p, of ratings within each category.
      resamples: draws of the intervals, of concepts within each category.
      seed: of both.

    Returns:
      A `Result`. Its table has a row per category, then "mean" (over categories) and "pooled": `scope`, `concepts`,
      `spearman`, `ci_low`, `ci_high`, `chance` (0), `p_value`, `note` (why there is no number).
      `tables["concepts"]` holds each rating and similarity. Figure: "typicality".

    Raises:
      SelectionError, ExpertLensError, RatingsError: as `overlap`, `align_typicality` and `load_typicality`.

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> birds = ["bird", "robin", "sparrow", "eagle", "owl", "penguin"]
    >>> near = np.exp(-np.abs(np.subtract.outer(np.arange(6.0), np.arange(6))))
    >>> similarity = xr.DataArray(near, {"concept": birds, "other": birds}, ("concept", "other"))
    >>> rated = el.Typicality("mine", tuple(birds[1:]), ("bird",) * 5, np.array([6.9, 6.5, 5.0, 4.5, 2.6]))
    >>> found = el.analysis.typicality(similarity, rated, shared_with="word", permutations=99)
    >>> found.table.query("scope == 'mean'")["spearman"].round(2).tolist()
    [1.0]
    """
    rated = ratings if isinstance(ratings, Typicality) else load_typicality(ratings)
    similarity, quantity = given_similarity(x, method, threshold, by, sign)
    draws = {"permutations": permutations, "resamples": resamples, "seed": seed}
    table, concepts = align_typicality(similarity, rated, shared_with=shared_with, **draws)
    to = {"members": "the other members of the category", "word": "the category's word"}[shared_with]
    sentences = []
    for row in table[table["scope"].isin(("mean", "pooled"))].to_dict("records"):
        categories = int(table["spearman"][~table["scope"].isin(("mean", "pooled"))].notna().sum())
        within = "one category" if categories == 1 else f"{categories} categories, averaged"
        scope = f"within {within}" if row["scope"] == "mean" else "over all, pooled"
        sentences.append(
            f"{rated.name}, {scope}: there is no correlation: {row['note']}."
            if row["note"]
            else f"{rated.name}, {scope}: Spearman's correlation of typicality with the similarity to {to} "
            f"({quantity}) is {interval(row, 'spearman')} (chance 0, p = {row['p_value']:.2g}), over {row['concepts']} "
            "ratings."
        )
    figure = functools.partial(plot.typicality, concepts, table, quantity=quantity)
    return Result("typicality", table, tuple(sentences), {"typicality": figure}, {"concepts": concepts})


def baselines(
    x: xr.Dataset | xr.DataArray,
    others: Mapping[str, xr.Dataset | xr.DataArray],
    ratings: Ratings | str | Sequence[Ratings | str],
    *,
    method: str = "jaccard",
    threshold: float | None = None,
    by: str = "average_precision",
    sign: Sign = "up",
    seed: int = 0,
) -> Result:
    """Ask whether experts go with people's ratings better than other similarities of the same concepts do.

    Args:
      x: a table of expertise, expert sets, or a similarity (concept, other).
      others: the baselines by name: similarities, such as TF-IDF of the sentences, or tables of expertise (of a
        network with random weights, say), which are compared as `x` is.
      ratings: human ratings, or the name or file of some, or several of them.
      method: of `overlap`, for all that are no similarities yet.
      threshold: for that.
      by: the score by which experts are selected, a name in `el.SCORES`.
      sign: of it: "up", "down" or "both", see `select_experts`.
      seed: of the draws.

    Returns:
      A `Result`. Its table has a row per ratings and baseline: `ratings`, `baseline`, `pairs`, `spearman`,
      `baseline_spearman`, `difference`, `ci_low`, `ci_high`, `p_value`, `p_holm`, `note`. Figures: "comparisons" (the
      differences, and what is left when each is partialled out).

    Raises:
      SelectionError, ExpertLensError, RatingsError: as `overlap`, `compare_alignments` and `load_ratings`.

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> names, rng = [f"word{i}" for i in range(6)], np.random.default_rng(0)
    >>> def similarity(values):
    ...     return xr.DataArray(values + values.T, dims=("concept", "other"), coords={"concept": names, "other": names})
    >>> ours, theirs = similarity(rng.random((6, 6))), similarity(rng.random((6, 6)))
    >>> pairs = tuple((names[i], names[j]) for i in range(6) for j in range(i))
    >>> rated = el.Ratings("mine", pairs, tuple(float(ours.sel(concept=a, other=b)) for a, b in pairs))
    >>> el.analysis.baselines(ours, {"noise": theirs}, rated).table["spearman"].tolist()
    [1.0]
    """
    compared, partialled = _against(x, others, ratings, seed, method=method, threshold=threshold, by=by, sign=sign)
    sentences = [
        f"{row['ratings']}: ρ = {row['spearman']:.3g} against {row['baseline_spearman']:.3g} of {row['baseline']}; "
        f"the difference is {interval(row, 'difference')} (chance 0, p = {row['p_holm']:.2g} after Holm)."
        if not row["note"]
        else f"{row['ratings']}, {row['baseline']}: there is no number: {row['note']}."
        for row in compared.to_dict("records")
    ]
    figures = {"comparisons": functools.partial(_comparisons, compared, partialled)}
    return Result("baselines", compared, tuple(sentences), figures, {"partial": partialled})


def controls(
    x: xr.Dataset | xr.DataArray,
    others: Mapping[str, xr.Dataset | xr.DataArray],
    ratings: Ratings | str | Sequence[Ratings | str],
    *,
    method: str = "jaccard",
    threshold: float | None = None,
    by: str = "average_precision",
    sign: Sign = "up",
    seed: int = 0,
) -> Result:
    """Ask what is left of an alignment when a control is held constant.

    Args:
      x, ratings, method, threshold, by, sign, seed: as in `baselines`.
      others: the controls by name, like the baselines there: TF-IDF of the sentences, a network with random weights,
        sentences whose word is masked.

    Returns:
      A `Result`. Its table has a row per ratings and control, and one for all together: `ratings`, `control`, `pairs`,
      `spearman`, `partial_spearman`, `ci_low`, `ci_high`, `p_value`, `share_left`, `note`. Figure: "comparisons".

    Raises:
      SelectionError, ExpertLensError, RatingsError: as `overlap`, `partial_alignments` and `load_ratings`.

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> names, rng = [f"word{i}" for i in range(6)], np.random.default_rng(0)
    >>> def similarity(values):
    ...     return xr.DataArray(values + values.T, dims=("concept", "other"), coords={"concept": names, "other": names})
    >>> ours, theirs = similarity(rng.random((6, 6))), similarity(rng.random((6, 6)))
    >>> pairs = tuple((names[i], names[j]) for i in range(6) for j in range(i))
    >>> rated = el.Ratings("mine", pairs, tuple(float(ours.sel(concept=a, other=b)) for a, b in pairs))
    >>> el.analysis.controls(ours, {"noise": theirs}, rated).table["partial_spearman"].round(3).tolist()
    [1.0]
    """
    compared, partialled = _against(x, others, ratings, seed, method=method, threshold=threshold, by=by, sign=sign)
    sentences = [
        f"{row['ratings']}: ρ = {row['spearman']:.3g}; with {row['control']} partialled out it is "
        f"{interval(row, 'partial_spearman')} (chance 0, p = {row['p_value']:.2g})."
        if not row["note"]
        else f"{row['ratings']}, {row['control']}: there is no number: {row['note']}."
        for row in partialled.to_dict("records")
    ]
    figures = {"comparisons": functools.partial(_comparisons, compared, partialled)}
    return Result("controls", partialled, tuple(sentences), figures, {"comparisons": compared})


def _against(
    x: xr.Dataset | xr.DataArray,
    others: Mapping[str, xr.Dataset | xr.DataArray],
    ratings: Ratings | str | Sequence[Ratings | str],
    seed: int,
    *,
    method: str,
    threshold: float | None,
    by: str,
    sign: Sign,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the comparisons of an alignment with others', and what is left of it beside them, for each ratings."""
    if not isinstance(others, Mapping) or isinstance(others, xr.Dataset) or not others:
        given = "an empty dict" if others == {} else f"a {type(others).__name__}"
        raise SelectionError(f"others is {given}; wanted a dict of names and similarities: {{'tfidf': ...}}.")

    def compared(each: xr.Dataset | xr.DataArray) -> xr.DataArray:
        ready = isinstance(each, xr.DataArray) and each.dims == ("concept", "other")
        return given_similarity(each, method, None if ready else threshold, by, sign)[0]

    ours = given_similarity(x, method, threshold, by, sign)[0]
    theirs = {name: compared(each) for name, each in others.items()}
    tables: tuple[list, list] = ([], [])
    for rated in given_ratings(ratings):
        for parts, function in zip(tables, (compare_alignments, partial_alignments), strict=True):
            parts.append(function(ours, theirs, rated, seed=seed).assign(ratings=rated.name))
    joined = (pd.concat(parts, ignore_index=True) for parts in tables)
    first, second = (each[["ratings", *(name for name in each if name != "ratings")]] for each in joined)
    return first, second


def _comparisons(compared: pd.DataFrame, partialled: pd.DataFrame) -> Figure:
    return plot.comparisons(compared.assign(sentences=SET), partialled.assign(sentences=SET))
