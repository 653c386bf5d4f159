"""What a page needs of a whole table of expertise, counted in one pass over its units, whatever their number."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import scipy.linalg
import xarray as xr

STEP = 0.025
HIGHEST = 0.95
LEAST_ABOVE_BASE_RATE = 0.1  # a τ nearer to the base rate selects units that know nothing
VALUES_PER_BLOCK = 1 << 24


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """Of every concept, how many experts there are, where, which are best, and how many each pair shares."""

    levels: np.ndarray
    """float64 `[levels]`: the values of τ, ascending."""
    layers: np.ndarray
    """int `[layers]`: those that there are, ascending."""
    sites: tuple[str, ...]
    """Those that there are, in the order of their first unit."""
    per_place: np.ndarray
    """int64 `[concepts, levels, layers, sites]`: experts with AP >= τ."""
    units_per_place: np.ndarray
    """int64 `[layers, sites]`."""
    shared: np.ndarray
    """int64 `[levels, concepts, concepts]`: experts of both; of a concept with itself, its experts."""
    best: np.ndarray
    """int64 `[concepts, best]`: positions of the units with the highest AP, the highest first, the first of equals
    first."""

    @property
    def experts(self) -> np.ndarray:
        """int64 `[concepts, levels]`."""
        return self.per_place.sum((2, 3))

    def overlap(self, level: int) -> np.ndarray:
        """Return the Jaccard overlap float64 `[concepts, concepts]` at a level; 0 where neither has experts."""
        shared = self.shared[level].astype(np.float64)
        sizes = np.diag(shared)
        either = sizes[:, None] + sizes - shared
        return np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)


def threshold_levels(base_rates: np.ndarray) -> np.ndarray:
    """Return the values of τ that the page's slider has, float64 `[levels]`.

    Steps of 0.025 up to 0.95, from a tenth above the base rates on.
    """
    lowest = min(float(np.max(base_rates)) + LEAST_ABOVE_BASE_RATE, HIGHEST)
    first = int(np.ceil(round(lowest / STEP, 6)))
    return np.arange(first, round(HIGHEST / STEP) + 1) * 25 / 1000


def count(expertise: xr.Dataset, levels: np.ndarray, num_best: int) -> Counts:
    """Count experts at every level in one pass over the units.

    Args:
      expertise: over (concept, unit), read in blocks of units.
      levels: float64 `[levels]`, ascending.
      num_best: how many of each concept's best units to name; all, if there are fewer.
    """
    layers = np.unique(expertise["layer"].values)
    site_of_unit = expertise["site"].values.astype(object)
    sites = tuple(dict.fromkeys(site_of_unit.tolist()))
    column = {site: i for i, site in enumerate(sites)}
    place = np.searchsorted(layers, expertise["layer"].values) * len(sites)
    place = place + np.array([column[site] for site in site_of_unit])
    num_concepts, num_places, num_levels = expertise.sizes["concept"], len(layers) * len(sites), len(levels)
    reached = np.zeros(num_concepts * num_places * (num_levels + 1), np.int64)
    shared = np.zeros((num_levels, num_concepts, num_concepts))
    thresholds = levels.astype(np.float32)  # as `select_experts` compares them with a table's float32
    times_itself = scipy.linalg.get_blas_funcs("syrk", dtype=np.float32)
    best = [(np.zeros(0, np.int64), np.zeros(0, np.float32))] * num_concepts
    for start, values in precision_blocks(expertise):
        passed = np.searchsorted(thresholds, values, side="right").astype(np.uint8)  # how many levels each AP reaches
        cell = np.arange(num_concepts)[:, None] * num_places + place[start : start + values.shape[1]]
        reached += np.bincount((cell * (num_levels + 1) + passed).ravel(), minlength=len(reached))
        remaining = passed
        for level in range(num_levels):
            remaining = remaining[:, remaining.max(0) > level]  # fewer units at each level: most reach none
            if not remaining.size:
                break
            shared[level] += times_itself(1.0, (remaining > level).astype(np.float32))
        best = [
            _merge(kept, np.arange(start, start + values.shape[1]), row, num_best)
            for kept, row in zip(best, values, strict=True)
        ]
    shared = np.triu(shared) + np.triu(shared, 1).transpose(0, 2, 1)  # of a symmetric product the upper half was made
    by_level = reached.reshape(num_concepts, num_places, num_levels + 1)
    at_least = by_level[:, :, ::-1].cumsum(axis=2)[:, :, ::-1][:, :, 1:]
    return Counts(
        levels=levels,
        layers=layers,
        sites=sites,
        per_place=at_least.transpose(0, 2, 1).reshape(num_concepts, num_levels, len(layers), len(sites)),
        units_per_place=np.bincount(place, minlength=num_places).reshape(len(layers), len(sites)),
        shared=shared.round().astype(np.int64),
        best=np.array([units for units, _ in best]),
    )


def precision_blocks(expertise: xr.Dataset, name: str = "average_precision") -> Iterator[tuple[int, np.ndarray]]:
    """Yield a table's values block by block: the first unit's position, and float32 `[concepts, units]`."""
    precision = expertise[name].transpose("concept", "unit")
    width = max(1, VALUES_PER_BLOCK // precision.sizes["concept"])
    width = max(8192, width // 8192 * 8192)  # whole chunks of the store
    for start in range(0, precision.sizes["unit"], width):
        yield start, np.asarray(precision[:, start : start + width].values, np.float32)


def _merge(
    kept: tuple[np.ndarray, np.ndarray], units: np.ndarray, values: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best of those kept and of some further units."""
    if len(kept[1]) == number:
        better = values > kept[1][-1]
        units, values = units[better], values[better]
    units, values = np.concatenate([kept[0], units]), np.concatenate([kept[1], values])
    order = np.argsort(-values, kind="stable")[:number]
    return units[order], values[order]
