"""Units to hold experts against: what steering by experts does is theirs only if these don't do it."""

import numpy as np
import scipy.optimize
import xarray as xr

from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.selection import average_precision


def random_units(expertise: xr.Dataset, experts: np.ndarray, seed: int) -> np.ndarray:
    """As many units as there are experts, drawn from all the others.

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
        raise SelectionError(f"{len(experts)} units were chosen, and only {len(others)} others are left to draw from.")
    return np.sort(np.random.default_rng(seed).choice(others, len(experts), replace=False))


def equally_active_units(expertise: xr.Dataset, concept: str, experts: np.ndarray) -> np.ndarray:
    """For each expert a unit that says as much at the concept's sentences without knowing the concept.

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
    layers, sites, units = row["layer"].values, row["site"].values, row["unit"].values
    is_expert = np.isin(units, experts)
    matched = []
    for layer, site in sorted(set(zip(layers[is_expert].tolist(), sites[is_expert].tolist(), strict=True))):
        here = (layers == layer) & (sites == site)
        mine = np.flatnonzero(here & is_expert)
        others = np.flatnonzero(here & ~is_expert & (precision < np.median(precision[here])))
        if len(others) < len(mine):
            raise SelectionError(
                f"layer {layer}, {site} has {len(mine)} experts on {concept!r}, and {len(others)} units that know "
                "little of it to hold against them. Choose fewer experts."
            )
        difference = np.abs(median[mine][:, None] - median[others])
        matched.extend(units[others[scipy.optimize.linear_sum_assignment(difference)[1]]])
    return np.sort(np.array(matched))
