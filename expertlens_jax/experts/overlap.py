"""How alike concepts are to a model: how far their experts, or their units' expertise, overlap.

Every function compares all pairs of concepts and returns float64 ("concept", "other"), larger where more
alike, symmetric and free of NaN. Units are taken a block at a time, so memory holds a block and a [concepts,
concepts] matrix, whatever the number of units; a table opened from disk is read as it goes.
"""

from collections.abc import Iterator

import numpy as np
import scipy.special
import xarray as xr

from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.ratio import ratio
from expertlens_jax.experts.selection import average_precision, check_threshold, expert_sets

# Values of [concepts, units] in a block: 64 MB in float64, and sums of so many ones are exact in float32.
_BLOCK_VALUES = 2**23


def jaccard(experts: xr.DataArray) -> xr.DataArray:
    """Jaccard overlap of expert sets: shared experts over experts of either, in [0, 1].

    Two concepts without experts share nothing, and have overlap 0; so has a concept without experts with
    itself.

    Args:
      experts: bool (concept, unit), from `select_experts`.

    Raises:
      SelectionError: these aren't expert sets.
    """
    experts = expert_sets(experts)
    shared = sum((ones @ ones.T).astype(np.float64) for ones in _blocks(experts, np.float32))
    sizes = np.diag(shared)
    either = sizes[:, None] + sizes - shared
    return _similarity(ratio(shared, either, empty=0), experts, "jaccard")


def overlap_coefficient(experts: xr.DataArray) -> xr.DataArray:
    """Overlap coefficient (Szymkiewicz-Simpson) of expert sets: shared experts over those of the smaller set.

    It is 1 where one set holds the other, which Jaccard punishes if the sets differ in size; 0 where a concept has no
    experts.

    Args:
      experts: bool (concept, unit), from `select_experts`.

    Raises:
      SelectionError: these aren't expert sets.
    """
    experts = expert_sets(experts)
    shared = sum((ones @ ones.T).astype(np.float64) for ones in _blocks(experts, np.float32))
    sizes = np.diag(shared)
    return _similarity(ratio(shared, np.minimum.outer(sizes, sizes), empty=0), experts, "overlap_coefficient")


def weighted_jaccard(expertise: xr.Dataset, threshold: float) -> xr.DataArray:
    """Weighted Jaccard (Ruzicka) overlap: sum of the smaller AP over sum of the larger, in [0, 1].

    AP below the threshold counts as 0, so experts count by how expert they are. Without experts the overlap
    is 0, as in `jaccard`.

    Args:
      expertise: from `measure_expertise`.
      threshold: in [0, 1].

    Raises:
      SelectionError: this isn't a table of expertise, or the threshold isn't in [0, 1].
    """
    threshold = check_threshold(threshold)
    precision = average_precision(expertise)
    smaller = np.zeros((precision.sizes["concept"],) * 2)
    for block in _blocks(precision, np.float32):
        # Below the threshold both sums ignore a unit, so units that are nobody's expert are left out first.
        expert = block >= threshold
        block = np.where(expert, block, 0)[:, expert.any(axis=0)].astype(np.float64)
        for row, values in enumerate(block):
            smaller[row, row:] += np.minimum(values, block[row:]).sum(axis=1)
    smaller = np.triu(smaller) + np.triu(smaller, 1).T
    sums = np.diag(smaller)
    larger = sums[:, None] + sums - smaller
    return _similarity(ratio(smaller, larger, empty=0), precision, "weighted_jaccard", threshold=threshold)


def cosine(expertise: xr.Dataset, centred: bool = True) -> xr.DataArray:
    """Cosine of the concepts' AP over all units, in [-1, 1].

    Args:
      expertise: from `measure_expertise`.
      centred: first subtracts each unit's mean AP over the concepts. Some units are good at any concept, and
        without this they make all concepts alike. A concept that is nothing but the mean has cosine 0 with
        any.

    Raises:
      SelectionError: this isn't a table of expertise, or there is only one concept to centre.
    """
    precision = average_precision(expertise)
    _check_concepts(precision, centred)
    products = sum(
        block @ block.T
        for block in (values - values.mean(axis=0) if centred else values for values in _blocks(precision, np.float64))
    )
    lengths = np.sqrt(np.diag(products))
    similarity = np.clip(ratio(products, np.outer(lengths, lengths), empty=0), -1, 1)
    np.fill_diagonal(similarity, lengths > 0)
    return _similarity(similarity, precision, "cosine", centred=centred)


def kl(expertise: xr.Dataset, centred: bool = False) -> xr.DataArray:
    """Minus the symmetrised Kullback-Leibler divergence of the concepts' AP over units, at most 0.

    Each concept's AP, divided by its sum, is a distribution p over units, and the similarity of two concepts
    is -(KL(p, q) + KL(q, p)) / 2, half of Jeffreys' divergence, in nats.

    Args:
      expertise: from `measure_expertise`.
      centred: first divides each unit's AP by its geometric mean over the concepts, which centres its
        logarithm.

    Raises:
      SelectionError: this isn't a table of expertise, some AP is 0, or there is only one concept to centre.
    """
    precision = average_precision(expertise)
    _check_concepts(precision, centred)
    # KL(p, q) + KL(q, p) = sum over units of (p - q) (log p - log q). What is the same for all units or for
    # all concepts drops out of it: so the logarithms are centred, centred or not, and need no normalising.
    sums, products = 0.0, 0.0
    for block in _blocks(precision, np.float64):
        if not (block > 0).all():
            raise SelectionError(
                "some average precision is 0, where the divergence is infinite; measure_expertise never "
                "gives that. Give its table as it was returned, or use cosine."
            )
        logs = np.log(block)
        logs -= logs.mean(axis=0)
        masses = np.exp(logs) if centred else block
        sums += masses.sum(axis=1)
        products += masses @ logs.T
    crossed = products / sums[:, None]  # sum over units of p log q
    own = np.diag(crossed)
    divergence = (own[:, None] + own - crossed - crossed.T) / 2
    return _similarity(-np.maximum(divergence, 0) + 0.0, precision, "kl", centred=centred)


def js(expertise: xr.Dataset) -> xr.DataArray:
    """Minus the Jensen-Shannon divergence of the concepts' AP over units, in [-ln 2, 0].

    Each concept's AP, divided by its sum, is a distribution p over units; the divergence is
    H((p + q) / 2) - (H(p) + H(q)) / 2 in nats (Lin, IEEE Trans. Inf. Theory 37, 1991).

    Args:
      expertise: from `measure_expertise`.

    Raises:
      SelectionError: this isn't a table of expertise.
    """
    precision = average_precision(expertise)
    sums = sum(block.sum(axis=1) for block in _blocks(precision, np.float64))
    crossed = np.zeros((len(sums), len(sums)))  # sum over units of m log m, m = (p + q) / 2
    for block in _blocks(precision, np.float64):
        block = block / sums[:, None]
        for row, values in enumerate(block):
            mixture = (values + block[row:]) / 2
            crossed[row, row:] += scipy.special.xlogy(mixture, mixture).sum(axis=1)
    crossed = np.triu(crossed) + np.triu(crossed, 1).T
    own = np.diag(crossed)
    divergence = (own[:, None] + own) / 2 - crossed
    return _similarity(-np.clip(divergence, 0, np.log(2)) + 0.0, precision, "js")


def _blocks(values: xr.DataArray, dtype: type) -> Iterator[np.ndarray]:
    """Values (concept, unit) in order, as arrays [concepts, some units]."""
    step = max(1, _BLOCK_VALUES // max(1, values.sizes["concept"]))
    for start in range(0, values.sizes["unit"], step):
        yield values.isel(unit=slice(start, start + step)).values.astype(dtype)


def _check_concepts(precision: xr.DataArray, centred: bool) -> None:
    if centred and precision.sizes["concept"] < 2:
        raise SelectionError(
            "centring compares each concept with the mean of all, and this table has one. "
            "Measure more concepts, or set centred=False."
        )


def _similarity(matrix: np.ndarray, source: xr.DataArray, name: str, **settings: object) -> xr.DataArray:
    concepts = source["concept"].values
    coords = {"concept": concepts, "other": concepts}
    if "domain" in source.coords:
        coords["domain"] = ("concept", source["domain"].values)
    return xr.DataArray(matrix, coords=coords, dims=("concept", "other"), name=name, attrs=source.attrs | settings)
