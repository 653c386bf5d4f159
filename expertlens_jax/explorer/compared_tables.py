"""What the page shows of several runs side by side: their settings, the experts that they share, their verdicts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from etils import epath

from expertlens_jax.analysis.conditions.side_by_side import shared_units
from expertlens_jax.analysis.conditions.stability import random_jaccard
from expertlens_jax.experts.selection import average_precision
from expertlens_jax.explorer.chunks import packed, rounded, rows_of, write_chunk
from expertlens_jax.explorer.comparing import compare_settings, compare_verdicts
from expertlens_jax.explorer.counting import threshold_levels
from expertlens_jax.explorer.runs import Run, Table

_UNITS = 1 << 16


def write_compared(
    site: epath.Path,
    runs: Mapping[str, Run],
    groups: Mapping[str, Mapping[str, Table]],
    common: Mapping[str, Sequence[str]],
    ids: Mapping[int, str],
) -> dict[str, Any]:
    """Write how many experts each concept shares with itself in the other runs, and return the comparison's index.

    Args:
      site: the folder of the page.
      runs: by name; all are compared with the first.
      groups: by sentence set, each run's table.
      common: by sentence set, the concepts that all have.
      ids: the tables' ids in the page, by `id(table)`.
    """
    pairs = []
    for sentences, tables in groups.items():
        (first, table), *others = tables.items()
        for name, other in others:
            chunk = f"compared/{len(pairs)}"
            told = shared_experts(table.expertise, other.expertise, list(common[sentences]))
            write_chunk(site, chunk, told)
            pairs.append(
                {
                    "sentences": sentences,
                    "runs": [first, name],
                    "tables": [ids[id(table)], ids[id(other)]],
                    "concepts": list(common[sentences]),
                    "chunk": chunk,
                    "sharesUnits": told["units"] > 0,
                }
            )
    return {
        "runs": list(runs),
        "pairs": pairs,
        "settings": rows_of(compare_settings(runs, groups)),
        "verdicts": rows_of(compare_verdicts(runs)),
    }


def shared_experts(first: xr.Dataset, second: xr.Dataset, concepts: Sequence[str]) -> dict[str, Any]:
    """Return, at each level of τ, how many units are a concept's experts in both tables, and in either of them.

    Args:
      first, second: tables of expertise that have these concepts.
      concepts: their names.

    Returns:
      `levels` of the first table; `units` that both have, 0 if they are of different networks; and then `both` and
      `either`, packed int `[levels, concepts]`, and `chance`, the Jaccard overlap of random sets as large, flat, in
      the same order.
    """
    levels = threshold_levels(first["base_rate"].values)
    places = shared_units(first, second)
    if places is None:
        return {"levels": levels.tolist(), "units": 0}
    tables = [average_precision(each).sel(concept=list(concepts)) for each in (first, second)]
    sizes = np.zeros((4, len(concepts), len(levels) + 1), np.int64)  # of both, either, the first, the second
    for start in range(0, len(places[0]), _UNITS):
        values = [each.isel(unit=of[start : start + _UNITS]).values for each, of in zip(tables, places, strict=True)]
        for counts, precision in zip(sizes, (np.minimum(*values), np.maximum(*values), *values), strict=True):
            reached = np.searchsorted(levels.astype(np.float32), precision, side="right")
            for row, of_concept in enumerate(reached):
                counts[row] += np.bincount(of_concept, minlength=counts.shape[1])
    both, either, *own = (counts[:, ::-1].cumsum(1)[:, ::-1][:, 1:].T for counts in sizes)
    chance = random_jaccard(own[0].ravel(), own[1].ravel(), len(places[0]))
    return {
        "levels": levels.tolist(),
        "units": len(places[0]),
        "both": packed(both),
        "either": packed(either),
        "chance": rounded(chance, 3),
    }
