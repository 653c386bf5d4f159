"""Comparisons of alignments: is one similarity nearer to people than another, and what is left of it beside a control.

Two similarities are correlated with the same ratings of the same pairs, so what is odd about a pair or a concept moves
both their correlations; the difference is therefore estimated as one number, whose interval and p leave out (or
resample) concepts for both at once (`statistics.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.analysis.similarity.alignment import (
    RatedPairs,
    check_interval,
    concepts_along,
    estimate_over_concepts,
    similarity_of_pairs,
    why_no_correlation,
)
from expertlens_jax.analysis.statistics import holm, spearman, weighted_partial_spearman, weighted_spearman
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.errors import ExpertLensError


def compare_alignments(
    similarity: xr.DataArray,
    baselines: Mapping[str, xr.DataArray],
    ratings: Ratings,
    *,
    interval: Literal["jackknife", "bootstrap"] = "jackknife",
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Test a similarity's alignment with human ratings against each baseline's, on the pairs that both have.

    Args:
      similarity: [concept, other], as for `align`.
      baselines: names, and similarities of the same kind; concepts that only one of the two has are left out.
      ratings: human ratings.
      interval: how interval and p are made: "jackknife" over concepts, whose p is uniform where nothing differs, or
        "bootstrap" over concepts, which finds less; see `statistics.py`.
      resamples: draws of the bootstrap; the jackknife draws nothing.
      seed: of the draws.

    Returns:
      A row for each baseline: baseline, pairs, spearman and baseline_spearman on those pairs, difference (the first
      less the second), ci_low and ci_high (95%), p_value (two-sided), p_holm (corrected by Holm's method for all
      baselines of this call), and note: "", or why there is no number.

    Raises:
      ExpertLensError: as `align`, naming the baseline; or no baselines.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> names = [f"word{i}" for i in range(6)]
    >>> near = -np.abs(np.subtract.outer(np.arange(6.0), np.arange(6)))
    >>> similarity = xr.DataArray(near, dims=("concept", "other"), coords={"concept": names, "other": names})
    >>> pairs = tuple((names[i], names[j]) for i in range(6) for j in range(i))
    >>> ratings = el.Ratings("mine", pairs, near[np.tril_indices(6, -1)])
    >>> noise = similarity.copy(data=np.cos(np.multiply.outer(np.arange(6), np.arange(6))))
    >>> table = el.compare_alignments(similarity, {"noise": noise}, ratings)
    >>> table["baseline"].tolist(), table["spearman"].round(2).tolist(), bool(table["difference"][0] > 0)
    (['noise'], [1.0], True)
    """
    check_interval(interval)
    rows = []
    for name, baseline in _named(baselines, "baselines").items():
        rated, (ours, theirs), note = _on_shared_pairs(similarity, {name: baseline}, ratings)
        row: dict[str, Any] = {"baseline": name, "pairs": len(rated.scores), "note": note}
        if not note:
            estimate = estimate_over_concepts(
                lambda weights, ours=ours, theirs=theirs, scores=rated.scores: (
                    weighted_spearman(ours, scores, weights) - weighted_spearman(theirs, scores, weights)
                ),
                rated,
                interval=interval,
                resamples=resamples,
                seed=seed,
                correlation=False,
            )
            row |= {
                "spearman": spearman(ours, rated.scores),
                "baseline_spearman": spearman(theirs, rated.scores),
                "difference": estimate.value,
                "ci_low": estimate.low,
                "ci_high": estimate.high,
                "p_value": estimate.p_value,
            }
        rows.append(row)
    columns = ["baseline", "pairs", "spearman", "baseline_spearman", "difference", "ci_low", "ci_high", "p_value"]
    table = pd.DataFrame(rows, columns=[*columns, "note"])
    table.insert(len(columns), "p_holm", holm(table["p_value"].astype(float)))
    return table


def partial_alignments(
    similarity: xr.DataArray,
    controls: Mapping[str, xr.DataArray],
    ratings: Ratings,
    *,
    interval: Literal["jackknife", "bootstrap"] = "jackknife",
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure what is left of a similarity's alignment with human ratings when a control is partialled out.

    Args:
      similarity: [concept, other], as for `align`.
      controls: names, and similarities of the same kind, such as TF-IDF of the sentences; concepts that the
        similarity or the control lacks are left out.
      ratings: human ratings.
      interval: "jackknife" or "bootstrap" over concepts, as for `align`.
      resamples: draws of the bootstrap; the jackknife draws nothing.
      seed: of the draws.

    Returns:
      A row for each control, and, if there are several, one for "all together": control, pairs, spearman on those
      pairs, partial_spearman (`statistics.partial_spearman`) with ci_low, ci_high (95%) and p_value (two-sided),
      share_left = partial_spearman / spearman, and note: "", or why there is no number. The share is above 1 where
      the control hid some of the alignment, and says little where the alignment itself is near 0.

    Raises:
      ExpertLensError: as `align`, naming the control; or no controls.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> names = [f"word{i}" for i in range(6)]
    >>> near = -np.abs(np.subtract.outer(np.arange(6.0), np.arange(6)))
    >>> similarity = xr.DataArray(near, dims=("concept", "other"), coords={"concept": names, "other": names})
    >>> pairs = tuple((names[i], names[j]) for i in range(6) for j in range(i))
    >>> ratings = el.Ratings("mine", pairs, near[np.tril_indices(6, -1)])
    >>> noise = similarity.copy(data=np.cos(np.multiply.outer(np.arange(6), np.arange(6))))
    >>> table = el.partial_alignments(similarity, {"noise": noise}, ratings)
    >>> table[["control", "pairs"]].values.tolist(), table["partial_spearman"].round(2).tolist()
    ([['noise', 15]], [1.0])
    """
    check_interval(interval)
    alone = {name: {name: control} for name, control in _named(controls, "controls").items()}
    rows = []
    for name, chosen in (alone | ({"all together": controls} if len(controls) > 1 else {})).items():
        rated, (ours, *theirs), note = _on_shared_pairs(similarity, chosen, ratings)
        row: dict[str, Any] = {"control": name, "pairs": len(rated.scores), "note": note}
        if not note:
            estimate = estimate_over_concepts(
                lambda weights, ours=ours, theirs=theirs, scores=rated.scores: weighted_partial_spearman(
                    ours, scores, np.stack(theirs), weights
                ),
                rated,
                interval=interval,
                resamples=resamples,
                seed=seed,
            )
            plain = spearman(ours, rated.scores)
            row |= {
                "spearman": plain,
                "partial_spearman": estimate.value,
                "ci_low": estimate.low,
                "ci_high": estimate.high,
                "p_value": estimate.p_value,
                "share_left": estimate.value / plain if plain else float("nan"),
            }
        rows.append(row)
    columns = ["control", "pairs", "spearman", "partial_spearman", "ci_low", "ci_high", "p_value", "share_left", "note"]
    return pd.DataFrame(rows, columns=columns)


def _named(similarities: Mapping[str, xr.DataArray], what: str) -> Mapping[str, xr.DataArray]:
    if not isinstance(similarities, Mapping) or not similarities:
        given = "an empty one" if isinstance(similarities, Mapping) else f"a {type(similarities).__name__}"
        raise ExpertLensError(f"{what} must be a dict of names and similarities, such as {{'tfidf': ...}}, not {given}")
    return similarities


def _on_shared_pairs(
    similarity: xr.DataArray, others: Mapping[str, xr.DataArray], ratings: Ratings
) -> tuple[RatedPairs, Sequence[np.ndarray], str]:
    """Return the rated pairs of concepts that all have, the similarities' values for them, and a note.

    Values are [pairs] of each similarity; the note says why there are none.
    """
    named = {"the similarity": similarity, **others}
    for name, each in named.items():
        with _naming(name):
            concepts_along(each)
    shared = [
        concept
        for concept in similarity["concept"].to_numpy()
        if all(concept in other["concept"].to_numpy() for other in others.values())
    ]
    values = []
    for name, each in named.items():
        with _naming(name):
            rated, of_pairs = similarity_of_pairs(each.sel(concept=shared, other=shared), ratings)
        values.append(of_pairs)
    notes = {
        name: why_no_correlation(each, rated, ratings, len(shared)) for name, each in zip(named, values, strict=True)
    }
    note = next((f"{name}: {note}" for name, note in notes.items() if note), "")
    return rated, values, note


@contextlib.contextmanager
def _naming(name: str) -> Generator[None]:
    """Say which of several similarities an error is about."""
    try:
        yield
    except ExpertLensError as error:
        raise ExpertLensError(f"{name}: {error}") from error
