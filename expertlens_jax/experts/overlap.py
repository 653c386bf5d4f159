"""How alike concepts are to a model: how far their experts, or their units' expertise, overlap.

Every function compares all pairs of concepts and returns float64 ("concept", "other"), larger where more
alike, symmetric and free of NaN. Units are taken a block at a time, so memory holds a block and a [concepts,
concepts] matrix, whatever the number of units; a table opened from disk is read as it goes.

`overlap` is the one door to all of them; `OVERLAPS` is the table of its methods.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import scipy.special
import xarray as xr

from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.directions import is_directions
from expertlens_jax.experts.ratio import ratio
from expertlens_jax.experts.scores import Sign, check_threshold, score_units
from expertlens_jax.experts.selection import expert_sets, select_experts

# Values of [concepts, units] in a block: 64 MB in float64, and sums of so many ones are exact in float32.
_BLOCK_VALUES = 2**23
_SCORING = ("by", "sign")


def jaccard(experts: xr.DataArray) -> xr.DataArray:
    """Measure the Jaccard overlap of expert sets: shared experts over experts of either, in [0, 1].

    Two concepts without experts share nothing, and have overlap 0; so has a concept without experts with
    itself.

    Args:
      experts: bool (concept, unit), from `select_experts`.

    Raises:
      SelectionError: these aren't expert sets.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> sets = np.array([[1, 1, 0], [1, 1, 1]], bool)
    >>> experts = xr.DataArray(sets, dims=("concept", "unit"), coords={"concept": ["cat", "dog"]})
    >>> el.jaccard(experts).round(2).values.tolist()
    [[1.0, 0.67], [0.67, 1.0]]
    """
    experts = expert_sets(experts)
    shared = sum((ones @ ones.T).astype(np.float64) for ones in _blocks(experts, np.float32))
    sizes = np.diag(shared)
    either = sizes[:, None] + sizes - shared
    return _similarity(ratio(shared, either, empty=0), experts, "jaccard")


def overlap_coefficient(experts: xr.DataArray) -> xr.DataArray:
    """Measure the overlap coefficient (Szymkiewicz-Simpson) of expert sets: shared experts over the smaller set.

    It is 1 where one set holds the other, which Jaccard punishes if the sets differ in size; 0 where a concept has no
    experts.

    Args:
      experts: bool (concept, unit), from `select_experts`.

    Raises:
      SelectionError: these aren't expert sets.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> sets = np.array([[1, 1, 0], [1, 1, 1]], bool)
    >>> experts = xr.DataArray(sets, dims=("concept", "unit"), coords={"concept": ["cat", "dog"]})
    >>> el.overlap_coefficient(experts).sel(concept="cat", other="dog").item()
    1.0
    """
    experts = expert_sets(experts)
    shared = sum((ones @ ones.T).astype(np.float64) for ones in _blocks(experts, np.float32))
    sizes = np.diag(shared)
    return _similarity(ratio(shared, np.minimum.outer(sizes, sizes), empty=0), experts, "overlap_coefficient")


def weighted_jaccard(
    expertise: xr.Dataset, threshold: float, *, by: str = "average_precision", sign: Sign = "up"
) -> xr.DataArray:
    """Measure weighted Jaccard (Ruzicka) overlap: sum of the smaller AP over sum of the larger, in [0, 1].

    AP below the threshold counts as 0, so experts count by how expert they are. Without experts the overlap
    is 0, as in `jaccard`.

    Args:
      expertise: from `measure_expertise`.
      threshold: in [0, 1].
      by: another score in place of average precision, see `select_experts`.
      sign: of it, see `select_experts`.

    Raises:
      SelectionError: this isn't a table of expertise, or the threshold isn't in [0, 1].

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> expertise = xr.Dataset(
    ...     {"average_precision": (("concept", "unit"), np.array([[0.9, 0.8, 0.2], [0.7, 0.3, 0.2]], np.float32))},
    ...     {"concept": ["cat", "dog"]},
    ... )
    >>> el.weighted_jaccard(expertise, threshold=0.5).sel(concept="cat", other="dog").round(2).item()  # 0.7 / 1.7
    0.41
    """
    precision = score_units(expertise, by, sign)
    threshold = check_threshold(threshold, by)
    if threshold < 0:
        raise SelectionError(f"threshold={threshold!r}; a weighted overlap wants scores above 0, so at least 0.")
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


def cosine(
    expertise: xr.Dataset, centred: bool = True, *, by: str = "average_precision", sign: Sign = "up"
) -> xr.DataArray:
    """Measure the cosine of the concepts' AP over all units, in [-1, 1]; or of their directions.

    Args:
      expertise: from `measure_expertise`; or directions, from `find_directions`, which weigh alike at each layer and
        site.
      centred: first subtracts each unit's mean AP over the concepts. Some units are good at any concept, and
        without this they make all concepts alike. A concept that is nothing but the mean has cosine 0 with
        any.
      by: another score in place of average precision, see `select_experts`.
      sign: of it, see `select_experts`.

    Raises:
      SelectionError: this isn't a table of expertise, or there is only one concept to centre.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> expertise = xr.Dataset(
    ...     {"average_precision": (("concept", "unit"), np.array([[0.9, 0.8, 0.2], [0.7, 0.3, 0.2]], np.float32))},
    ...     {"concept": ["cat", "dog"]},
    ... )
    >>> el.cosine(expertise, centred=False).sel(concept="cat", other="dog").round(2).item()
    0.95
    """
    if is_directions(expertise):
        if (by, sign) != ("average_precision", "up"):
            raise SelectionError(f"by={by!r}, sign={sign!r} are of scores, and directions were given. Leave them out.")
        precision = expertise["direction"].transpose("concept", "unit").assign_attrs(expertise.attrs)
    else:
        precision = score_units(expertise, by, sign)
    _check_concepts(precision, centred)
    products = sum(
        block @ block.T
        for block in (values - values.mean(axis=0) if centred else values for values in _blocks(precision, np.float64))
    )
    lengths = np.sqrt(np.diag(products))
    similarity = np.clip(ratio(products, np.outer(lengths, lengths), empty=0), -1, 1)
    np.fill_diagonal(similarity, lengths > 0)
    return _similarity(similarity, precision, "cosine", centred=centred)


def kl(
    expertise: xr.Dataset, centred: bool = False, *, by: str = "average_precision", sign: Sign = "up"
) -> xr.DataArray:
    """Measure minus the symmetrised Kullback-Leibler divergence of the concepts' AP over units, at most 0.

    Each concept's AP, divided by its sum, is a distribution p over units, and the similarity of two concepts
    is -(KL(p, q) + KL(q, p)) / 2, half of Jeffreys' divergence, in nats.

    Args:
      expertise: from `measure_expertise`.
      centred: first divides each unit's AP by its geometric mean over the concepts, which centres its
        logarithm.
      by: another score in place of average precision, see `select_experts`.
      sign: of it, see `select_experts`.

    Raises:
      SelectionError: this isn't a table of expertise, some AP is 0, or there is only one concept to centre.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> expertise = xr.Dataset(
    ...     {"average_precision": (("concept", "unit"), np.array([[0.9, 0.8, 0.2], [0.7, 0.3, 0.2]], np.float32))},
    ...     {"concept": ["cat", "dog"]},
    ... )
    >>> el.kl(expertise).sel(concept="cat", other="dog").round(2).item()
    -0.07
    """
    precision = score_units(expertise, by, sign)
    _check_concepts(precision, centred)
    # KL(p, q) + KL(q, p) = sum over units of (p - q) (log p - log q). What is the same for all units or for
    # all concepts drops out of it: so the logarithms are centred, centred or not, and need no normalising.
    num_concepts = precision.sizes["concept"]
    sums, products = np.zeros(num_concepts), np.zeros((num_concepts, num_concepts))
    for block in _blocks(precision, np.float64):
        if not (block > 0).all():
            if by != "average_precision":
                raise SelectionError(f"some {by} is 0 or below, which is no share of a whole. Use cosine.")
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


def js(expertise: xr.Dataset, *, by: str = "average_precision", sign: Sign = "up") -> xr.DataArray:
    """Measure minus the Jensen-Shannon divergence of the concepts' AP over units, in [-ln 2, 0].

    Each concept's AP, divided by its sum, is a distribution p over units; the divergence is
    H((p + q) / 2) - (H(p) + H(q)) / 2 in nats (Lin, IEEE Trans. Inf. Theory 37, 1991).

    Args:
      expertise: from `measure_expertise`.
      by: another score in place of average precision, see `select_experts`.
      sign: of it, see `select_experts`.

    Raises:
      SelectionError: this isn't a table of expertise, or a score is below 0.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> expertise = xr.Dataset(
    ...     {"average_precision": (("concept", "unit"), np.array([[0.9, 0.8, 0.2], [0.7, 0.3, 0.2]], np.float32))},
    ...     {"concept": ["cat", "dog"]},
    ... )
    >>> el.js(expertise).sel(concept="cat", other="dog").round(2).item()
    -0.02
    """
    precision = score_units(expertise, by, sign)
    if any((block < 0).any() for block in _blocks(precision, np.float64)):
        raise SelectionError(f"some {by} is below 0, which is no share of a whole. Use cosine.")
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


@dataclasses.dataclass(frozen=True)
class Overlap:
    """A way to compare concepts: a method of `overlap`.

    A method of your own is one more entry of the table: `el.OVERLAPS["dice"] = el.Overlap("dice", dice, "experts")`.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> sets = np.array([[1, 1, 0], [1, 1, 1]], bool)
    >>> experts = xr.DataArray(sets, dims=("concept", "unit"), coords={"concept": ["cat", "dog"]})
    >>> def dice(experts):
    ...     jaccard = el.jaccard(experts)
    ...     return 2 * jaccard / (1 + jaccard)
    >>> el.OVERLAPS["dice"] = el.Overlap("dice", dice, takes="experts")
    >>> el.overlap(experts, method="dice").sel(concept="cat", other="dog").round(2).item()
    0.8
    >>> del el.OVERLAPS["dice"]
    """

    name: str
    function: Callable[..., xr.DataArray]
    """Takes expert sets or a table of expertise, and returns float (concept, other), larger = more alike."""
    takes: Literal["experts", "expertise"]
    """What the function's first argument is: expert sets, bool (concept, unit), or the table that they come from."""
    bounds: tuple[float, float] = (0.0, 1.0)
    """The smallest and the largest value there can be."""
    thresholded: bool = False
    """The function takes a table of expertise and a `threshold` on AP. Expert sets always come from one."""
    centred: bool | None = None
    """Whether each unit's mean over the concepts is taken off first, by default; None where that is no option."""

    def __post_init__(self) -> None:
        if self.takes not in ("experts", "expertise"):
            raise SelectionError(f"Overlap(takes={self.takes!r}): unknown. Choose from: 'experts', 'expertise'.")
        if self.takes == "experts" and self.thresholded:
            raise SelectionError(
                "Overlap(takes='experts', thresholded=True): expert sets come from a threshold already. "
                "Leave thresholded out, or take 'expertise'."
            )

    @property
    def options(self) -> tuple[str, ...]:
        """The names of what the function takes beside its first argument, and beside a threshold of its own."""
        names = [each.name for each in inspect.signature(self.function).parameters.values()][1:]
        return tuple(name for name in names if not (self.thresholded and name == "threshold") and name not in _SCORING)

    @property
    def scored(self) -> bool:
        """Whether it can go by another score than average precision: expert sets can, and a function with `by`."""
        return self.takes == "experts" or {*_SCORING} <= {*inspect.signature(self.function).parameters}


OVERLAPS: dict[str, Overlap] = {
    each.name: each
    for each in (
        Overlap("jaccard", jaccard, "experts"),
        Overlap("overlap_coefficient", overlap_coefficient, "experts"),
        Overlap("weighted_jaccard", weighted_jaccard, "expertise", thresholded=True),
        Overlap("cosine", cosine, "expertise", bounds=(-1.0, 1.0), centred=True),
        Overlap("kl", kl, "expertise", bounds=(-np.inf, 0.0), centred=False),
        Overlap("js", js, "expertise", bounds=(-np.log(2.0), 0.0)),
    )
}
"""The methods of `overlap` by name. Add your own: it can then be named wherever these can."""


def overlap(
    x: xr.Dataset | xr.DataArray,
    method: str = "jaccard",
    *,
    threshold: float | None = None,
    top: int | None = None,
    by: str = "average_precision",
    sign: Sign = "up",
    **options: object,
) -> xr.DataArray:
    """Compare all concepts by their experts: one signature for every method in `OVERLAPS`.

    Args:
      x: a table of expertise, from `measure_expertise` or `find_experts`; or expert sets, from `select_experts`, for
        methods that compare sets ("jaccard", "overlap_coefficient").
      method: a name in `OVERLAPS`: "jaccard", "overlap_coefficient", "weighted_jaccard", "cosine", "kl", "js", or one
        of your own. `overlap(x, method="cosine")` is `cosine(x)`, and so on.
      threshold: on average precision; for methods that compare sets, if `x` is a table, and for "weighted_jaccard".
      top: the number of experts per concept, in place of a threshold or beside it; for methods that compare sets.
      by: the score that experts are selected, or concepts compared, by: see `select_experts`.
      sign: "up", "down" or "both", see `select_experts`.
      **options: of the method, such as `centred=False` for "cosine".

    Returns:
      float64 (concept, other), larger = more alike, symmetric; within the method's `bounds`.

    Raises:
      SelectionError: an unknown method or option; a threshold that the method doesn't take, or that is missing; or
        expert sets where the method compares average precision.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> expertise = xr.Dataset(
    ...     {"average_precision": (("concept", "unit"), np.array([[0.9, 0.8, 0.2], [0.7, 0.3, 0.2]], np.float32))},
    ...     {"concept": ["cat", "dog"]},
    ... )
    >>> el.overlap(expertise, method="jaccard", threshold=0.5).sel(concept="cat", other="dog").item()
    0.5
    >>> el.overlap(expertise, method="cosine", centred=False).round(2).values.tolist()
    [[1.0, 0.95], [0.95, 1.0]]
    """
    chosen = _chosen(method)
    given: dict[str, Any] = {
        name: value for name, value in (("threshold", threshold), ("top", top)) if value is not None
    }
    unknown = [name for name in options if name not in chosen.options]
    if unknown:
        takes = f"takes {', '.join(chosen.options)}" if chosen.options else "takes none"
        raise SelectionError(f"overlap(method={method!r}): unknown option {', '.join(unknown)}; this method {takes}.")
    scoring: dict[str, Any] = {
        name: value
        for name, value, default in (("by", by, "average_precision"), ("sign", sign, "up"))
        if value != default
    }
    if scoring and not chosen.scored:
        raise SelectionError(
            f"overlap(method={method!r}) compares average precision: its function takes no by and no sign. Leave "
            f"{' and '.join(scoring)} out, or give the function both."
        )
    if chosen.takes == "experts":
        if isinstance(x, xr.Dataset):
            x = select_experts(x, **given, **scoring)
        elif given := given | scoring:
            raise SelectionError(
                f"overlap(method={method!r}) was given expert sets, which are selected already, and "
                f"{' and '.join(given)}. Leave that out, or give the table of expertise in place of the sets."
            )
        similarity = chosen.function(x, **options)
    else:
        refused = [name for name in given if not (chosen.thresholded and name == "threshold")]
        if refused:
            raise SelectionError(
                f"overlap(method={method!r}) compares average precision, and takes no {' and no '.join(refused)}. "
                f"Leave that out, or choose from: {', '.join(_names_that_take(refused))}."
            )
        if chosen.thresholded and threshold is None:
            raise SelectionError(f"overlap(method={method!r}): no threshold was given. Add one, such as threshold=0.5.")
        similarity = chosen.function(x, **given, **scoring, **options)
    if not isinstance(similarity, xr.DataArray) or similarity.dims != ("concept", "other"):
        raise SelectionError(
            f"overlap(method={method!r}): its function returned {_described(similarity)}. Return an xarray.DataArray "
            "with dims ('concept', 'other')."
        )
    return similarity


def check_method(method: str) -> None:
    """Refuse a name that isn't in `OVERLAPS`, before the work whose result it would compare.

    Raises:
      SelectionError: the message names the methods there are.
    """
    _chosen(method)


def _chosen(method: str) -> Overlap:
    chosen = OVERLAPS.get(method) if isinstance(method, str) else None
    if chosen is None:
        raise SelectionError(f"Unknown method of overlap {method!r}. Choose from: {', '.join(OVERLAPS)}.")
    if not isinstance(chosen, Overlap):
        raise SelectionError(
            f"OVERLAPS[{method!r}] is a {type(chosen).__name__}; wanted an Overlap, such as "
            f"el.Overlap({method!r}, function, takes='experts')."
        )
    return chosen


def _names_that_take(settings: list[str]) -> list[str]:
    """Methods that take a threshold, or, if `top` is among the settings, that compare sets."""
    return [
        name
        for name, each in OVERLAPS.items()
        if each.takes == "experts" or (each.thresholded and settings == ["threshold"])
    ]


def _described(found: object) -> str:
    return f"an array over {found.dims}" if isinstance(found, xr.DataArray) else f"a {type(found).__name__}"


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
