"""What a question was given, made into what it is answered from: similarities, expert sets, thresholds, ratings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from expertlens_jax.data.ratings import Ratings, load_ratings
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.overlap import overlap
from expertlens_jax.experts.scores import Sign, check_threshold
from expertlens_jax.experts.selection import select_experts

SET = "concepts"
"""What a figure calls a sentence set that has no name here."""


def given_similarity(
    x: xr.Dataset | xr.DataArray,
    method: str,
    threshold: float | None,
    by: str = "average_precision",
    sign: Sign = "up",
) -> tuple[xr.DataArray, str]:
    """Return a similarity of concepts, compared now if need be; and what it is, for a figure."""
    if isinstance(x, xr.DataArray) and x.dims == ("concept", "other"):
        if threshold is not None:
            raise SelectionError(
                f"a similarity (concept, other) was given, which is compared already, and threshold={threshold}. "
                "Leave the threshold out, or give the table of expertise."
            )
        return x, str(x.name or "Similarity").replace("_", " ")
    similarity = overlap(x, method, threshold=threshold, **_scored(by, sign))
    threshold = similarity.attrs.get("threshold")
    at = "" if threshold is None else f", τ = {threshold:g}"
    return similarity, f"Overlap of experts ({method.replace('_', ' ')}{at})"


def given_experts(
    x: xr.Dataset | xr.DataArray, threshold: float | None, by: str = "average_precision", sign: Sign = "up"
) -> xr.DataArray:
    """Return the expert sets, selected now if need be."""
    if isinstance(x, xr.Dataset):
        return select_experts(x, threshold, by=by, sign=sign)
    if threshold is not None:
        raise SelectionError(
            f"expert sets were given, which are selected already, and threshold={threshold}. Leave the threshold out, "
            "or give tables of expertise."
        )
    return x


def _scored(by: str, sign: Sign) -> dict[str, Any]:
    """Return what tells an overlap its score; nothing of the default, which methods without a score take too."""
    default = {"by": "average_precision", "sign": "up"}
    return {name: value for name, value in {"by": by, "sign": sign}.items() if value != default[name]}


def given_thresholds(question: str, thresholds: float | Sequence[float], by: str = "average_precision") -> list[float]:
    """Return one or several thresholds, as a list."""
    several = [check_threshold(each, by) for each in np.atleast_1d(thresholds).tolist()]
    if not several:
        raise SelectionError(f"{question} was given no threshold. Give one or more, such as thresholds=(0.5, 0.6).")
    return several


def given_ratings(
    ratings: Ratings | str | os.PathLike[str] | Sequence[Ratings | str | os.PathLike[str]],
) -> list[Ratings]:
    """Return ratings, read where they are named."""
    several = [ratings] if isinstance(ratings, Ratings | str | os.PathLike) else list(ratings)
    if not several:
        raise SelectionError("no ratings were given. Give some, such as el.load_ratings('wordsim353').")
    return [each if isinstance(each, Ratings) else load_ratings(each) for each in several]
