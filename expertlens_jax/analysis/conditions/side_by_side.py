"""Two tables of expertise side by side, concept by concept: of two models, revisions or settings."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.analysis.conditions.stability import cross_jaccard, random_jaccard, same_units
from expertlens_jax.analysis.statistics import bootstrap_mantel, bootstrap_mean, diagonal_p, mantel, spearman
from expertlens_jax.experts.overlap import jaccard
from expertlens_jax.experts.selection import average_precision, select_experts
from expertlens_jax.models.addresses import ADDRESS

_SHAPE = (
    *("num_layers", "d_model", "d_mlp", "num_heads", "num_kv_heads", "head_dim"),
    *("local_head_dim", "global_kv_heads", "global_values_are_keys", "shared_kv_layers", "d_mlps"),
)
"""Options of a network's config that say which units it has."""
_MEAN_OVERLAP = ("overlap", "overlap_low", "overlap_high")


def shared_units(first: xr.Dataset, second: xr.Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """Return where in each of two tables the units stand that both have, int64 `[units]` each; None if none are shared.

    Units are the same where networks of one shape have them at one address: two checkpoints, or a model and its
    fine-tune. So have two networks of one shape that were trained apart, whose units have nothing to do with one
    another: their experts then overlap as chance has it, see `stability.random_jaccard`.
    """
    if same_units(first, second) and _same_network(first, second):
        places = np.arange(first.sizes["unit"])
        return places, places
    if not _same_network(first, second) or not all(name in each.coords for each in (first, second) for name in ADDRESS):
        return None
    addresses = [pd.MultiIndex.from_arrays([each[name].values for name in ADDRESS]) for each in (first, second)]
    found = addresses[1].get_indexer(addresses[0])
    places = np.flatnonzero(found >= 0)
    return (places, found[places]) if len(places) else None


def _same_network(first: xr.Dataset, second: xr.Dataset) -> bool:
    """Return whether both tables are of networks of one shape, or of the same autoencoders.

    Tables that don't say count as such.
    """
    said = [each.attrs.get("config") for each in (first, second)]
    if first.attrs.get("saes", "") != second.attrs.get("saes", ""):
        return False
    if None in said:
        return same_units(first, second)
    shapes = [{name: json.loads(str(config)).get(name) for name in _SHAPE} for config in said]
    return shapes[0] == shapes[1]


def compare_concepts(first: xr.Dataset, second: xr.Dataset, threshold: float) -> tuple[pd.DataFrame, xr.Dataset]:
    """Compare two tables of the same concepts: how many experts each has, how good they are, how far they are the same.

    Args:
      first, second: tables of expertise with the same concepts in the same order.
      threshold: of average precision, in [0, 1].

    Returns:
      A table and a dataset. The table has a row per concept:

        `concept`: its name.
        `experts, other_experts`: how many units reach the threshold in the first and in the second.
        `best_ap, other_best_ap`: the highest average precision.
        `overlap`: Jaccard overlap of the two expert sets, among the units that both tables have; NaN without such.
        `chance`: what it would be of random sets as large.
        `neighbours`: Spearman's correlation of the concept's overlaps with all others in the first and in the second.

      The dataset has `overlap` and `other_overlap`, the two Jaccard matrices (concept, other), and, where there are
      shared units, `shared_overlap` (concept, other): of each concept's experts in the first with each one's in the
      second.

    Raises:
      SelectionError: these are no tables of expertise, or the threshold isn't in [0, 1].
    """
    sets = [select_experts(each, threshold=threshold) for each in (first, second)]
    overlaps = [jaccard(each) for each in sets]
    names = [str(name) for name in first["concept"].values]
    shared, crossed, chance = shared_units(first, second), None, np.full(len(names), np.nan)
    if shared is not None:
        values = [each.values[:, places] for each, places in zip(sets, shared, strict=True)]
        crossed = cross_jaccard(*values)
        chance = random_jaccard(values[0].sum(1), values[1].sum(1), len(shared[0]))
    table = pd.DataFrame(
        {
            "concept": names,
            "experts": sets[0].values.sum(1),
            "other_experts": sets[1].values.sum(1),
            "best_ap": average_precision(first).values.max(1),
            "other_best_ap": average_precision(second).values.max(1),
            "overlap": chance * np.nan if crossed is None else np.diag(crossed),
            "chance": chance,
            "neighbours": [
                spearman(np.delete(one, row), np.delete(other, row))
                for row, (one, other) in enumerate(zip(overlaps[0].values, overlaps[1].values, strict=True))
            ],
        }
    )
    dims = ("concept", "other")
    matrices = {"overlap": overlaps[0].values, "other_overlap": overlaps[1].values}
    matrices |= {} if crossed is None else {"shared_overlap": crossed}
    coordinates = {dim: np.array(names, object) for dim in dims}
    return table, xr.Dataset({name: (dims, values) for name, values in matrices.items()}, coordinates)


def measure_agreement(
    compared: tuple[pd.DataFrame, xr.Dataset], *, resamples: int = 2000, permutations: int = 10_000, seed: int = 0
) -> dict[str, float]:
    """Return how far two tables agree over all concepts, with 95% intervals from resampling concepts.

    Args:
      compared: from `compare_concepts`.
      resamples: of the intervals.
      permutations: of concepts, of the p-value.
      seed: of both.

    Returns:
      `pairs` of concepts; `spearman`, `ci_low`, `ci_high` and `p_value` of the two overlap matrices (Mantel's test);
      `overlap`, `overlap_low`, `overlap_high`: the mean over concepts of their two expert sets' overlap, NaN where no
      units are shared; `chance` of that; `overlap_p`: that it exceeds what different concepts share.
    """
    table, matrices = compared
    pair = matrices["overlap"].values, matrices["other_overlap"].values
    rho, p_value = mantel(*pair, permutations=permutations, seed=seed)
    low, high = bootstrap_mantel(*pair, resamples=resamples, seed=seed)
    told = {"pairs": len(table) * (len(table) - 1) // 2, "spearman": rho, "ci_low": low, "ci_high": high}
    told |= {"p_value": p_value} | dict.fromkeys((*_MEAN_OVERLAP, "chance", "overlap_p"), np.nan)
    if "shared_overlap" in matrices:
        mean = bootstrap_mean(table["overlap"].to_numpy()[:, None], resamples=resamples, seed=seed)
        told |= dict(zip(_MEAN_OVERLAP, mean, strict=True))
        told["chance"] = float(table["chance"].mean())
        told["overlap_p"] = diagonal_p(matrices["shared_overlap"].values, permutations, seed)
    return told
