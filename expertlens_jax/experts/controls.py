"""Units to compare experts with: what steering by experts does is theirs only if these don't do it."""

from typing import Any

import numpy as np
import pandas as pd
import scipy.optimize
import xarray as xr
from jaxtyping import Bool, Integer, Real

from expertlens_jax.cards import counted
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.selection import average_precision


def random_units(expertise: xr.Dataset, experts: np.ndarray, seed: int) -> np.ndarray:
    """Return as many units as there are experts, drawn from all the others.

    Args:
      expertise: the table.
      experts: values of its `unit` coordinate.
      seed: of the draw.

    Returns:
      Values of the `unit` coordinate, ascending.

    Raises:
      SelectionError: there are fewer others than experts.
    """
    others = np.setdiff1d(expertise["unit"].values, experts)
    if len(others) < len(experts):
        raise SelectionError(
            f"{counted(len(experts), 'unit was', 'units were')} chosen, and only "
            f"{counted(len(others), 'other is', 'others are')} left to draw from."
        )
    return np.sort(np.random.default_rng(seed).choice(others, len(experts), replace=False))


def matched_units(expertise: xr.Dataset, concept: str, experts: np.ndarray) -> np.ndarray:
    """Find for each expert a unit that says as much at the concept's sentences without knowing the concept.

    Of the units in the same layer and site whose average precision is below the median of that site's, each expert
    gets one of its own with nearly the same median response to the concept's sentences: the assignment of least total
    difference.

    Args:
      expertise: the table.
      concept: one of its concepts.
      experts: values of its `unit` coordinate.

    Returns:
      Values of the `unit` coordinate, ascending; as many as experts.

    Raises:
      SelectionError: a site has fewer such units than experts.
    """
    row = expertise.sel(concept=concept)
    precision, median = average_precision(expertise).sel(concept=concept).values, row["positive_median"].values
    is_expert = np.isin(row["unit"].values, experts)
    ignorant = np.zeros_like(is_expert)
    for (layer, site), here in units_by_place(row).items():
        ignorant[here] = ~is_expert[here] & (precision[here] < np.median(precision[here]))
        if ignorant[here].sum() < is_expert[here].sum():
            raise SelectionError(
                f"layer {layer}, {site} has {counted(is_expert[here].sum(), 'expert')} on {concept!r}, and "
                f"{ignorant[here].sum()} units that know little of it to hold against them. Choose fewer experts."
            )
    _, matched = match_by_activity(row, median[:, None], is_expert, ignorant)
    return np.sort(row["unit"].values[matched])


def match_by_activity(
    row: xr.Dataset,
    activity: Real[np.ndarray, "units measures"],
    experts: Bool[np.ndarray, " units"],
    others: Bool[np.ndarray, " units"],
    *,
    standardised: bool = False,
) -> tuple[Integer[np.ndarray, " pairs"], Integer[np.ndarray, " pairs"]]:
    """Give each expert another unit of the same layer and site that is as active.

    Within a layer and site it is the assignment of least total distance (`scipy.optimize.linear_sum_assignment`).
    Where there are fewer others than experts, some experts go without.

    Args:
      row: with `layer` and `site` of the units.
      activity: float [units, kinds], what should be alike.
      experts: bool [units].
      others: bool [units], the units to match them with.
      standardised: divides each kind of activity by its standard deviation within the layer and site.

    Returns:
      Positions of experts and of their matches among the units, int [pairs] each.
    """
    ours, theirs = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for here in units_by_place(row).values():
        mine, candidates = here[experts[here]], here[others[here]]
        if not len(mine) or not len(candidates):
            continue
        scale = activity[here].std(axis=0) if standardised else np.ones_like(activity[0])
        scale[scale == 0] = 1
        distance = np.linalg.norm((activity[mine][:, None] - activity[candidates]) / scale, axis=2)
        pairs = scipy.optimize.linear_sum_assignment(distance)
        ours.append(mine[pairs[0]])
        theirs.append(candidates[pairs[1]])
    return np.concatenate(ours), np.concatenate(theirs)


def units_by_place(row: xr.Dataset) -> dict[tuple[int, str], np.ndarray]:
    """Return the positions of the units of each layer and site, in the table's order."""
    places = pd.DataFrame({"layer": row["layer"].values, "site": [str(site) for site in row["site"].values]})
    by_place: Any = places.groupby(["layer", "site"], sort=False).indices
    return by_place


def place_matched_units(expertise: xr.Dataset, experts: np.ndarray, seed: int) -> np.ndarray:
    """Draw as many units as there are experts, from the others of each expert's layer and site.

    Where a layer and site has fewer others than experts, the rest is drawn from all units that are left.

    Args:
      expertise: the table.
      experts: values of its `unit` coordinate.
      seed: of the draw.

    Returns:
      Values of the `unit` coordinate, ascending.

    Raises:
      SelectionError: there are fewer others than experts in the whole table.
    """
    is_expert = np.isin(expertise["unit"].values, experts)
    wanted = int(is_expert.sum())
    if 2 * wanted > len(is_expert):
        raise SelectionError(
            f"{counted(wanted, 'unit was', 'units were')} chosen, and only "
            f"{counted(len(is_expert) - wanted, 'other is', 'others are')} left to draw from."
        )
    rng = np.random.default_rng(seed)
    drawn = np.zeros_like(is_expert)
    for here in units_by_place(expertise).values():
        others = here[~is_expert[here]]
        drawn[rng.choice(others, min(int(is_expert[here].sum()), len(others)), replace=False)] = True
    left = np.flatnonzero(~is_expert & ~drawn)
    drawn[rng.choice(left, wanted - int(drawn.sum()), replace=False)] = True
    return np.sort(expertise["unit"].values[drawn])
