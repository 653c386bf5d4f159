"""Expert sets: the units whose expertise on a concept is high enough, or highest."""

import json
import numbers
from typing import Unpack

import numpy as np
import xarray as xr

from expertlens_jax.cards import counted
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.expertise import BY_NEGATIVES
from expertlens_jax.experts.fingerprints import OTHERS
from expertlens_jax.experts.scores import Sign, check_threshold, described, score_units
from expertlens_jax.models.provenance import differences, read_provenance
from expertlens_jax.run_directory import differing_settings
from expertlens_jax.settings import Negatives, PlainNegatives, settings_of


def select_experts(
    expertise: xr.Dataset,
    threshold: float | None = None,
    top: int | None = None,
    *,
    by: str = "average_precision",
    sign: Sign = "up",
) -> xr.DataArray:
    """Select each concept's experts.

    A threshold only has a meaning next to the base rate, 1 / (1 + negatives_per_positive), which stays among
    the attributes.

    Args:
      expertise: from `measure_expertise`.
      threshold: selects units with a score >= threshold, compared in the table's float32.
      top: selects the `top` units of highest score of each concept; of equal ones at the edge,
        those that come first in the units' order. With both, a unit must satisfy both.
      by: the score, a name in `SCORES`: "average_precision", "auroc", "cohens_d", "attribution",
        or one of your own.
      sign: "up" selects units that say a concept by a higher response, "down" by a lower one, "both" either.

    Returns:
      bool (concept, unit), with the coordinates of the expertise.

    Raises:
      SelectionError: neither was given, or one that no unit could meet or miss; an unknown score, or one that the
        table doesn't have.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> expertise = xr.Dataset(
    ...     {"average_precision": (("concept", "unit"), np.array([[0.9, 0.8, 0.2], [0.7, 0.3, 0.2]], np.float32))},
    ...     {"concept": ["cat", "dog"]},
    ... )
    >>> el.select_experts(expertise, threshold=0.5).values.tolist()
    [[True, True, False], [True, False, False]]
    >>> el.select_experts(expertise, top=1).sum("unit").values.tolist()
    [1, 1]
    """
    scores = score_units(expertise, by, sign)
    if threshold is None and top is None:
        raise SelectionError(
            "neither a threshold nor top was given; wanted at least one. "
            "Try select_experts(expertise, threshold=0.5) or select_experts(expertise, top=50)."
        )
    values = scores.values
    chosen = np.ones(values.shape, bool)
    settings: dict[str, object] = {} if by == "average_precision" else {"by": by}
    settings |= {} if sign == "up" else {"sign": sign}
    if threshold is not None:
        settings["threshold"] = check_threshold(threshold, by)
        chosen &= values >= settings["threshold"]
    if top is not None:
        settings["top"] = _check_top(top, values.shape[1])
        for row, row_chosen in zip(values, chosen, strict=True):
            row_chosen &= _highest(row, settings["top"])
    return xr.DataArray(chosen, coords=scores.coords, dims=scores.dims, name="experts", attrs=scores.attrs | settings)


def select_negatives(
    expertise: xr.Dataset, negatives: Negatives | None = None, **settings: Unpack[PlainNegatives]
) -> xr.Dataset:
    """Select one of the negatives that a table of expertise was measured with.

    A table of `find_experts(..., negatives_per_positive=[2.5, 5])`, or of another list of negatives, has them all along
    the dimension `negatives` of `average_precision_by_negatives`. All else in it is of the first.

    Args:
      expertise: from `find_experts`.
      negatives: which.
      **settings: those of its fields that tell it from the others, as plain keywords: `negatives_per_positive`,
        `exclude_mentions`, `sampled`, `seed`.

    Returns:
      A table over (concept, unit) with its `average_precision`, base rates and counts, and its settings as attributes;
      of the first, with all that was measured.

    Raises:
      SelectionError: the table has none such, or several.
      SettingError: an unknown setting, or negatives beside plain ones.

    >>> import expertlens_jax as el, tempfile
    >>> model, run = el.load_model("lenslet-2m"), tempfile.mkdtemp()
    >>> concepts = el.load_concepts("facts").subset(["cat", "dog", "tiger"])
    >>> both = {"sites": "attn.v", "permutations": 0, "negatives_per_positive": [2.5, 1]}
    >>> expertise = el.find_experts(model, concepts, run, **both)
    >>> el.select_negatives(expertise, negatives_per_positive=1)["base_rate"].values.round(2).tolist()
    [0.5, 0.5, 0.5]
    """
    if negatives is not None or not settings:
        (negatives,) = settings_of("select_negatives", settings, {"negatives": (Negatives, negatives)})
        wanted = negatives.attributes()
    else:
        settings_of("select_negatives", settings, {"negatives": (Negatives, None)})
        wanted = dict(settings)
    measured = negatives_of(expertise)
    matching = [i for i, each in enumerate(measured) if all(each.attributes()[name] == wanted[name] for name in wanted)]
    if len(matching) != 1:
        raise SelectionError(
            f"this table of expertise was measured with {len(matching) or 'none'} such "
            f"({', '.join(f'{name}={value}' for name, value in wanted.items())}). It has "
            f"{'; '.join(map(str, measured))}. Say which of them, or measure others with el.find_experts."
        )
    (chosen,) = matching
    by_negatives = [name for name in (*expertise.data_vars, *expertise.coords) if "negatives" in expertise[name].dims]
    alone = expertise.drop_vars(by_negatives)
    alone.attrs.pop(OTHERS, None)
    if chosen == 0:
        return alone
    stated = json.loads(expertise.attrs[OTHERS])[chosen - 1]
    of_it = expertise.isel(negatives=chosen)
    coordinates = {field: of_it[name].reset_coords(drop=True) for name, field in BY_NEGATIVES.items()}
    return (
        alone.drop_vars(alone.data_vars)
        .drop_dims([dim for dim in alone.dims if dim not in ("concept", "unit")])
        .assign(average_precision=of_it["average_precision_by_negatives"].reset_coords(drop=True))
        .assign_coords(coordinates)
        .assign_attrs(alone.attrs | stated)
    )


def negatives_of(expertise: xr.Dataset) -> list[Negatives]:
    """Return the negatives that a table of expertise was measured with, the first, if there are several.

    Raises:
      SelectionError: the table doesn't say.
    """
    others = json.loads(expertise.attrs.get(OTHERS, "[]"))
    return [Negatives.of_attributes(each) for each in (expertise.attrs, *others)]


def average_precision(expertise: xr.Dataset) -> xr.DataArray:
    """Return the average precision in a table of expertise, (concept, unit), with the table's attributes.

    Raises:
      SelectionError: it is something else, such as expert sets.
    """
    return score_units(expertise)


def expert_sets(experts: xr.DataArray) -> xr.DataArray:
    """Return the expert sets, bool (concept, unit), as they were given.

    Raises:
      SelectionError: they are something else, such as a table of expertise.
    """
    if isinstance(experts, xr.DataArray) and experts.dtype == bool and {*experts.dims} == {"concept", "unit"}:
        return experts.transpose("concept", "unit")
    raise SelectionError(
        f"{described(experts)} was given where expert sets are wanted, bool over (concept, unit). "
        "Call select_experts(expertise, threshold=0.5) first, and give its result."
    )


def check_same_table(expertise: xr.Dataset, experts: xr.DataArray) -> None:
    """Refuse expert sets that aren't of this table of expertise.

    Args:
      expertise: the table.
      experts: bool (concept, unit).

    Raises:
      SelectionError: they are of other concepts or units, or of responses of another network, or read otherwise. What
        one of the two doesn't say isn't compared.
    """
    precision, sets = average_precision(expertise), expert_sets(experts)
    concepts = [list(map(str, each["concept"].values)) for each in (precision, sets)]
    same_units = precision.sizes["unit"] == sets.sizes["unit"] and all(
        np.array_equal(precision[name].values, sets[name].values)
        for name in ("layer", "site", "channel")
        if name in precision.coords and name in sets.coords
    )
    of_table, of_sets = (read_provenance(each.attrs) for each in (precision, sets))
    why = "" if of_table is None or of_sets is None else differences(of_table, of_sets)
    settings = ("concepts_sha256", *Negatives.plain, "contrast_sha256")
    if not why:
        said = [{name: each.attrs[name] for name in settings if name in each.attrs} for each in (precision, sets)]
        both = said[0].keys() & said[1].keys()
        found = differing_settings(*({name: each[name] for name in settings if name in both} for each in said))
        why = "; ".join(f"{name}: {one} and {other}" for name, (one, other) in found.items())
    if concepts[0] != concepts[1]:
        why = f"{len(concepts[0])} and {len(concepts[1])} concepts that differ or stand in another order"
    if not same_units:
        why = f"{precision.sizes['unit']} and {sets.sizes['unit']} units, which aren't the same"
    if why:
        names = [each.attrs.get("model", "an unnamed model") for each in (precision, sets)]
        raise SelectionError(
            f"the table of expertise is of {names[0]}, the expert sets of {names[1]}, and not of the same table "
            f"({why}). Select them from this one: select_experts(expertise, threshold=0.5)."
        )


def _check_top(top: int, num_units: int) -> int:
    if not isinstance(top, numbers.Integral) or isinstance(top, bool) or top < 1:
        raise SelectionError(f"top={top!r}; wanted a number of units, an integer of at least 1.")
    if top > num_units:
        raise SelectionError(f"top={top}, but there are only {counted(num_units, 'unit')}; wanted at most that many.")
    return int(top)


def _highest(values: np.ndarray, top: int) -> np.ndarray:
    """Return the `top` highest of [units], the first of equals first: bool [units]."""
    edge = np.partition(values, -top)[-top]
    chosen = values > edge
    chosen[np.flatnonzero(values == edge)[: top - chosen.sum()]] = True
    return chosen
