"""How well a unit tells a concept's sentences apart, as a number: the scores that units are selected and compared by.

Average precision is the default. Of 18 metrics of how well a unit explains a concept, it is one of five that pass both
sanity checks of NeuronEval (Oikarinen, Yan & Weng, ICML 2025, arXiv 2506.05774): a score has to fall when labels of the
concept are taken away, and when wrong ones are added, however rare the concept is. AUROC fails them.

A unit may say a concept by going down. Its average precision is then that of its responses with their signs turned,
which the same sort gives.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Literal

import xarray as xr

from expertlens_jax.errors import SelectionError
from expertlens_jax.settings import MORE_SCORES

Sign = Literal["up", "down", "both"]
SIGNS = ("up", "down", "both")


@dataclasses.dataclass(frozen=True)
class Score:
    """A score of units, larger where a unit tells a concept's sentences better.

    A score of your own is one more entry: `el.SCORES["mine"] = el.Score("mine", up)`, where `up` takes a table of
    expertise and returns numbers over (concept, unit).

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> expertise = xr.Dataset(
    ...     {"average_precision": (("concept", "unit"), np.array([[0.75, 0.25]], np.float32))},
    ...     {"concept": ["cat"], "base_rate": ("concept", [0.25])},
    ... )
    >>> el.SCORES["lift"] = el.Score("lift", up=lambda table: table["average_precision"] / table["base_rate"])
    >>> el.score_units(expertise, by="lift").values.tolist()
    [[3.0, 1.0]]
    >>> del el.SCORES["lift"]
    """

    name: str
    up: Callable[[xr.Dataset], xr.DataArray]
    """Of units that say a concept by going up."""
    down: Callable[[xr.Dataset], xr.DataArray] | None = None
    """The same of responses with their signs turned; None where there is no such score."""
    needs: tuple[str, ...] = ()
    """The table's variables that `up` reads."""
    needs_down: tuple[str, ...] = ()
    """Those that `down` reads."""
    bounds: tuple[float, float] = (-math.inf, math.inf)
    """The smallest and the largest score there can be."""


def _column(name: str) -> Callable[[xr.Dataset], xr.DataArray]:
    return lambda table: table[name]


SCORES: dict[str, Score] = {
    "average_precision": Score(
        "average_precision",
        up=_column("average_precision"),
        down=_column("average_precision_down"),
        needs=("average_precision",),
        needs_down=("average_precision_down",),
        bounds=(0.0, 1.0),
    ),
    "auroc": Score(
        "auroc",
        up=_column("auroc"),
        down=lambda table: 1 - table["auroc"],
        needs=("auroc",),
        needs_down=("auroc",),
        bounds=(0.0, 1.0),
    ),
    "cohens_d": Score(
        "cohens_d",
        up=_column("cohens_d"),
        down=lambda table: -table["cohens_d"],
        needs=("cohens_d",),
        needs_down=("cohens_d",),
    ),
    "attribution": Score(
        "attribution",
        up=_column("attribution"),
        down=lambda table: -table["attribution"],
        needs=("attribution",),
        needs_down=("attribution",),
    ),
}
"""The scores by name. Add your own: it can then be named wherever these can."""


def score_units(expertise: xr.Dataset, by: str = "average_precision", sign: Sign = "up") -> xr.DataArray:
    """Return the score of every unit for every concept.

    Args:
      expertise: from `measure_expertise` or `find_experts`; for "attribution", from `attribute`.
      by: a name in `SCORES`: "average_precision", "auroc", "cohens_d", "attribution", or one of your own.
      sign: "up" for units that say a concept by a higher response, "down" by a lower one, "both" for the better of the
        two.

    Returns:
      float (concept, unit), named after the score, with the table's attributes.

    Raises:
      SelectionError: no table of expertise, an unknown score or sign, or a table that wasn't measured with it.

    >>> import expertlens_jax as el, xarray as xr
    >>> table = xr.Dataset(
    ...     {"average_precision": (("concept", "unit"), [[0.9, 0.2]]), "auroc": (("concept", "unit"), [[0.95, 0.1]])}
    ... )
    >>> el.score_units(table, by="auroc", sign="both").values.tolist()
    [[0.95, 0.9]]
    """
    check_score(by, sign)
    score = SCORES[by]
    needed = (score.needs if sign != "down" else ()) + (score.needs_down if sign != "up" else ())
    attributed = isinstance(expertise, xr.Dataset) and {*needed} == {"attribution"} <= {*expertise.data_vars}
    if not attributed and (not isinstance(expertise, xr.Dataset) or "average_precision" not in expertise):
        raise SelectionError(
            f"{described(expertise)} was given where a table of expertise is wanted. "
            "Give the dataset that measure_expertise(responses, concepts) returns."
        )
    lacking = [name for name in dict.fromkeys(needed) if name not in expertise]
    if lacking:
        raise SelectionError(
            f"by={by!r}, sign={sign!r} needs {' and '.join(lacking)}, which this table of expertise doesn't have. "
            f"{_how_to_measure(lacking)}"
        )
    sides = [side(expertise) for side in _sides(score, sign)]
    best = sides[0] if len(sides) == 1 else xr.where(sides[0] >= sides[1], sides[0], sides[1], keep_attrs=False)
    return best.transpose("concept", "unit").rename(by).assign_attrs(expertise.attrs)


def _how_to_measure(lacking: list[str]) -> str:
    if lacking == ["attribution"]:
        return "Attribute the words' probabilities to its units: el.attribute(model, concepts, expertise=expertise)."
    more = [name for name in lacking if name in MORE_SCORES]
    how = f"with scores={more}" if more == lacking else "again, since an older version wrote it"
    return f"Measure it {how}: el.measure_expertise(responses, concepts, ...), or el.find_experts."


def _sides(score: Score, sign: Sign) -> list[Callable[[xr.Dataset], xr.DataArray]]:
    wanted = {"up": [score.up], "down": [score.down], "both": [score.up, score.down]}[sign]
    return [side for side in wanted if side is not None]  # which `check_score` has made sure of


def check_score(by: str, sign: Sign = "up") -> None:
    """Refuse a score that isn't in `SCORES`, or a sign that it hasn't got.

    Raises:
      SelectionError: the message names those there are.
    """
    if by not in SCORES:
        raise SelectionError(f"Unknown score {by!r}. Choose from: {', '.join(SCORES)}.")
    if sign not in SIGNS:
        raise SelectionError(f"Unknown sign {sign!r}. Choose from: {', '.join(SIGNS)}.")
    if sign != "up" and SCORES[by].down is None:
        raise SelectionError(f"the score {by!r} has no sign {sign!r}: its Score has no `down`. Choose from: up.")


def check_threshold(threshold: float, by: str = "average_precision") -> float:
    """Return the threshold as a float.

    Raises:
      SelectionError: it isn't a number within the score's bounds.
    """
    low, high = SCORES[by].bounds
    if not isinstance(threshold, numbers.Real) or not low <= threshold <= high:
        what = {"average_precision": "an average precision"}.get(by, f"a value of {by}")
        within = f", a number from {low:g} to {high:g}" if math.isfinite(high - low) else ", a number"
        raise SelectionError(f"threshold={threshold!r}; wanted {what}{within}.")
    return float(threshold)


def described(given: object) -> str:
    """Say what was given in place of a table of expertise, or of expert sets."""
    if isinstance(given, xr.Dataset):
        return f"a dataset of {', '.join(map(str, given.data_vars)) or 'nothing'}"
    if isinstance(given, xr.DataArray):
        return f"an array of {given.dtype} over ({', '.join(map(str, given.dims))})"
    return f"a {type(given).__name__}"
