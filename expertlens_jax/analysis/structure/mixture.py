"""Which experts of a mixture hold a concept: where the units that know it are, and whether the router knows it."""

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.ratio import ratio
from expertlens_jax.experts.scores import Sign, score_units
from expertlens_jax.experts.selection import select_experts
from expertlens_jax.models.sites import SITES

ROUTER = "mlp.router"


def locate_in_mixture(
    expertise: xr.Dataset, threshold: float, *, by: str = "average_precision", sign: Sign = "up"
) -> pd.DataFrame:
    """Count each concept's experts within each expert of a mixture, a layer's MLP that the router chooses.

    Enrichment is the share of the concept's experts that are there, of those that are within any, over the share of
    units: 1 is an even spread.

    Args:
      expertise: from `measure_expertise` or `find_experts`, of a mixture of experts.
      threshold: on the score.
      by: the score by which experts are selected, a name in `el.SCORES`.
      sign: of it: "up", "down" or "both", see `select_experts`.

    Returns:
      A row per concept, layer and expert of the mixture: `concept`, `layer`, `expert` (its number), `units` (that it
      has in the table, at all sites together), `experts` (how many of these are the concept's), `share` (of its units),
      `enrichment` (NaN for a concept without experts there), and `router`, the score of the router's logit for it; NaN
      where the table doesn't have `mlp.router`.

    Raises:
      SelectionError: the table has no units of a mixture's experts; an unknown score or a threshold without meaning.
    """
    scores = score_units(expertise, by, sign)
    chosen = select_experts(expertise, threshold, by=by, sign=sign).transpose("concept", "unit").values
    within, logits = units_of_mixture(expertise)
    layers, numbers = (expertise[name].values.astype(int) for name in ("layer", "expert"))
    there, place = np.unique(np.stack([layers[within], numbers[within]], axis=1), axis=0, return_inverse=True)
    units = np.bincount(place.ravel(), minlength=len(there))
    counts = np.stack([np.bincount(place.ravel(), own, len(there)) for own in chosen[:, within]]).astype(int)
    of_router = {(layers[unit], numbers[unit]): unit for unit in np.flatnonzero(logits)}
    columns = [of_router.get((layer, number), -1) for layer, number in there]
    router = np.where(np.array(columns) >= 0, scores.transpose("concept", "unit").values[:, columns], np.nan)
    names = [str(name) for name in expertise["concept"].values]
    held = ratio(counts, counts.sum(axis=1, keepdims=True), empty=np.nan)
    return pd.DataFrame(
        {
            "concept": np.repeat(np.array(names, object), len(there)),
            "layer": np.tile(there[:, 0], len(names)),
            "expert": np.tile(there[:, 1], len(names)),
            "units": np.tile(units, len(names)),
            "experts": counts.ravel(),
            "share": (counts / units).ravel(),
            "enrichment": (held / (units / units.sum())).ravel(),
            "router": router.ravel(),
        }
    )


def units_of_mixture(expertise: xr.Dataset | xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    """Return which units are within a mixture's experts, and which are its router's logits, bool `[units]` each.

    Raises:
      SelectionError: none are within.
    """
    if "expert" not in expertise.coords:
        raise SelectionError(
            f"this table of expertise, of {expertise.attrs.get('model', 'an unnamed model')}, has no column expert: it "
            "is of no mixture of experts, or was written by an older version, and is measured again by el.find_experts."
        )
    sites = [str(site) for site in expertise["site"].values]
    within = np.array([site in SITES and SITES[site].by_expert for site in sites]) & (expertise["expert"].values >= 0)
    if not within.any():
        inner = ", ".join(name for name, site in SITES.items() if site.by_expert)
        raise SelectionError(
            f"this table of expertise is of {', '.join(dict.fromkeys(sites))}, and none is within a mixture's experts. "
            f"Find experts at one or more of {inner}."
        )
    return within, np.array([site == ROUTER for site in sites])
