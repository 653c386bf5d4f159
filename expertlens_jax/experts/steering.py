"""From a table of expertise to a steering: which units, and what affine map each is given."""

import difflib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from expertlens_jax.cards import counted
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.directions import is_directions
from expertlens_jax.experts.scores import Sign, check_score, described
from expertlens_jax.experts.selection import average_precision, select_experts
from expertlens_jax.models.provenance import read_provenance
from expertlens_jax.models.sites import SITES, check_no_summaries, each_of
from expertlens_jax.models.steering import Steering
from expertlens_jax.models.when import When, check_when


class Method(NamedTuple):
    """One way to steer: what it reads of the table, and the map it makes of that."""

    needs: tuple[str, ...]
    affine: Callable[..., tuple[np.ndarray, np.ndarray]]
    """From the needed variables, float64 [units] each in this order, to scale and shift [units]."""


def _set_to(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros_like(value), value


def _ablate(precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros_like(precision), np.zeros_like(precision)


def _damp(area: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gini = 2 * (area - 0.5)
    return 1 - np.clip(gini, 0, 1), np.zeros_like(area)


def _damp_by_precision(precision: np.ndarray, base_rate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    above = (precision - base_rate) / (1 - base_rate)
    return 1 - np.clip(above, 0, 1), np.zeros_like(precision)


def _move(positive_mean: np.ndarray, negative_mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ones_like(positive_mean), positive_mean - negative_mean


def _transport(
    slope: np.ndarray, positive_mean: np.ndarray, negative_mean: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    return slope, positive_mean - slope * negative_mean


METHODS = {
    # Suau et al. 2022: the unit says what it says at a typical positive sentence, or at a strong one.
    "set_median": Method(("positive_median",), _set_to),
    "set_p90": Method(("positive_p90",), _set_to),
    # Suau et al. 2024, Det-0: the unit says nothing.
    "zero": Method(("average_precision",), _ablate),
    # Suau et al. 2024, AurA: damped by the Gini coefficient of the unit as a detector, 2 (AUROC - 1/2), where that
    # is above zero; and the same idea with average precision, from its base rate (0) to 1.
    "aura": Method(("auroc",), _damp),
    "aura_ap": Method(("average_precision", "base_rate"), _damp_by_precision),
    # Contrastive activation addition (Rimsky et al. 2024), unit by unit.
    "mean_shift": Method(("positive_mean", "negative_mean"), _move),
    # Rodriguez et al. 2025, Linear-AcT: the affine map nearest to optimal transport from negatives to positives.
    "linear_ot": Method(("transport_slope", "positive_mean", "negative_mean"), _transport),
}
_DISTRIBUTIONS = ("auroc", "transport_slope")
_DAMPING = ("aura", "aura_ap")


def steer(
    expertise: xr.Dataset,
    concept: str | Sequence[str],
    *,
    top: int | None = None,
    threshold: float | None = None,
    method: str = "set_median",
    strength: float = 1.0,
    sparing: Sequence[str] = (),
    sites: Sequence[str] | None = None,
    units: np.ndarray | Sequence[int] | None = None,
    by: str = "average_precision",
    sign: Sign = "up",
    layers: Sequence[int] | int | None = None,
    experts: Sequence[int] | int | None = None,
    when: When | None = None,
) -> Steering:
    """Make a steering of a concept's experts, or along its direction.

        el.generate(model, "Once upon a time", steering=el.steer(expertise, "cat", top=50))

    What becomes of a unit's activation x, by method:

      `set_median`: the median of its responses to the concept's sentences (Suau et al. 2022).
      `set_p90`: their 90th percentile.
      `zero`: 0 (Det-0; Suau et al. 2024).
      `aura`: a x, with a = 1 - 2 (AUROC - 1/2), and 1 for an AUROC below a half (AurA; Suau et al. 2024).
      `aura_ap`: a x, with a = 1 - (AP - base rate) / (1 - base rate), and at most 1.
      `mean_shift`: x + mean of positive responses - mean of negative ones (unit by unit what CAA does; Rimsky 2024).
      `linear_ot`: slope x + offset, nearest to the transport of negatives to positives (Linear-AcT; Rodriguez 2025).

    All of them read the table's responses as they were pooled. Suau et al. take the maximum over tokens, as is the
    default here; Rodriguez et al. take the mean, which a table has that was recorded with `pooling="mean"`.

    Directions, from `find_directions`, are added to the residual stream at every token of a layer:

        el.generate(model, "Once upon a time", steering=el.steer(directions, "cat", layers=2))

    Args:
      expertise: from `measure_expertise` or `find_experts`; for `linear_ot`, not without `transport`. Or directions at
        a site that writes to the residual stream ("resid", "resid.pre", "attn.out", "mlp.down"); what chooses units is
        then left out, and `strength` may be above 1, or below 0.
      concept: a concept of the table, or several: their steerings one after the other, so that where two set the
        same unit, the later stands.
      top: steer the `top` units of highest average precision, or other score.
      threshold: steer the units with average precision, or another score, >= threshold; with both, a unit must satisfy
        both. `aura` and `aura_ap` go without either: all units are damped as they deserve.
      method: see above.
      strength: from 0 (nothing) to 1; of `mean_shift` any, also below 0; see `Steering.at_strength`.
      sparing: concepts that should stay as they are: units that the same `top` and `threshold` make experts on one
        of them are left alone.
      sites: choose among the units at these sites only, such as `["mlp.up", "mlp.down"]`; default all of the table's.
      units: steer these instead of the experts, as values of the table's `unit` coordinate: for controls.
      by: the score that units are chosen by, as in `select_experts`; damping goes by the method's own.
      sign: "up", "down" or "both", see `select_experts`.
      layers: choose among the units of these layers only, from 0; default all of the table's. Directions of several
        layers add up in the stream, so of these one or more must be named, unless the table has a single one.
      experts: of a mixture of experts: choose among the units of these only, by their number, as in the column `expert`
        of the table of units, with their logits of the router if it has these; default all units, also those that are
        no expert's.
      when: at which tokens it applies, such as `el.When(part="continuation")`; default all.

    Returns:
      A `Steering`, which any call of the model takes, with the table's provenance: given to another model it warns, see
      `Steering.transfer`.

    Raises:
      SelectionError: a concept that isn't in the table or is given twice, a site that wasn't recorded, an expert that
        the table doesn't have, an unknown method, no choice of units or an empty one, or a table without what the
        method needs; directions at another site, or without a layer; units that the model computes before the one that
        `when` goes by.

    >>> import expertlens_jax as el
    >>> concepts = el.load_concepts("facts").subset(["cat", "rain"])
    >>> responses = el.record_responses(el.load_model("lenslet-2m"), concepts.sentences, sites="attn.v")
    >>> expertise = el.measure_expertise(responses, concepts)
    >>> el.steer(expertise, "cat", top=5)
    Steering of lenslet-2m: cat, set_median; 5 units (5 at attn.v)
    """
    if when is not None:
        check_when(when)
    if is_directions(expertise):
        asked: dict[str, Any] = {"top": top, "threshold": threshold, "units": units, "sparing": tuple(sparing) or None}
        asked |= {"experts": experts}
        asked |= {"method": None if method == "set_median" else method, "by": None if by == "average_precision" else by}
        along = _steer_along(
            expertise, concept, strength, sites, layers, asked | {"sign": None if sign == "up" else sign}
        )
        return along if when is None else along.only(when)
    if method not in METHODS:
        raise SelectionError(f"method {method!r} was given; wanted one of {', '.join(METHODS)}.")
    concepts = (concept,) if isinstance(concept, str) else tuple(concept)
    spared = (sparing,) if isinstance(sparing, str) else tuple(sparing)
    if not concepts:
        raise SelectionError("no concept was given; give one of the table's, or several.")
    if len(set(concepts)) < len(concepts):
        raise SelectionError(f"a concept is given twice among {', '.join(map(repr, concepts))}; steer each once.")
    check_score(by, sign)
    precision = average_precision(expertise)
    check_known_concepts(expertise, (*concepts, *spared))
    check_no_summaries(expertise["site"].values)
    channels = _site_channels(expertise)
    if sites is not None:
        expertise = _at_sites(expertise, (sites,) if isinstance(sites, str) else tuple(sites))
        precision = average_precision(expertise)
        channels = tuple(each for each in channels if each[0] in expertise["site"].values)
    if layers is not None:
        expertise = _in_layers(expertise, layers)
        precision = average_precision(expertise)
    if experts is not None:
        expertise = _of_experts(expertise, experts)
        precision = average_precision(expertise)
    if units is None and top is None and threshold is None and method not in _DAMPING:
        raise SelectionError(
            f'steering needs a choice of units: el.steer(expertise, "{concepts[0]}", top=50), or threshold=0.5.'
        )

    if units is not None:
        chosen = np.isin(precision["unit"].values, np.asarray(units))
        if chosen.sum() != len(set(np.asarray(units).tolist())):
            raise SelectionError(
                f"{counted(len(units), 'unit was', 'units were')} given, and only {chosen.sum()} of them are in the "
                "table."
            )
        sets = xr.DataArray(np.tile(chosen, (len(concepts), 1)), {"concept": list(concepts)}, ("concept", "unit"))
    elif top is None and threshold is None:
        sets = xr.ones_like(precision.sel(concept=list(concepts)), dtype=bool)
    else:
        sets = select_experts(
            expertise.sel(concept=list(dict.fromkeys((*concepts, *spared)))), threshold, top, by=by, sign=sign
        )
    steerings = []
    for name in concepts:
        chosen = sets.sel(concept=name).values.copy()
        for other in spared if units is None else ():
            chosen &= ~sets.sel(concept=other).values
        if not chosen.any():
            raise SelectionError(
                f"no unit is left to steer {name!r} with: of top={top}, threshold={threshold}, sparing "
                f"{', '.join(spared) or 'none'}. Choose more units."
            )
        steerings.append(_steer_units(expertise, name, np.flatnonzero(chosen), method, channels))
    steering = functools.reduce(Steering.then, steerings).at_strength(strength)
    return steering if when is None else steering.only(when)


def _site_channels(expertise: xr.Dataset) -> tuple[tuple[str, int | None], ...]:
    """(site, channels) of each of the table's sites; None for a site that the table holds some units of."""
    layers, sites, channels = (expertise[name].values for name in ("layer", "site", "channel"))
    widths = []
    for site in dict.fromkeys(sites):
        here = sites == site
        width = int(channels[here].max()) + 1
        whole = here.sum() == width * len(set(layers[here].tolist()))
        widths.append((str(site), width if whole else None))
    return tuple(widths)


def _at_sites(expertise: xr.Dataset, sites: Sequence[str]) -> xr.Dataset:
    """Return the table of the units at some sites.

    Raises:
      SelectionError: a site that the table doesn't have.
    """
    of_unit = [str(site) for site in expertise["site"].values]
    recorded = list(dict.fromkeys(of_unit))
    absent = [site for site in sites if site not in recorded]
    if absent or not sites:
        raise SelectionError(
            f"sites {', '.join(map(str, absent)) or 'of no name'} were given, and this table of expertise has "
            f"{', '.join(recorded)}. Record others with el.record_responses(model, sentences, sites=...)."
        )
    return expertise.isel(unit=np.flatnonzero([site in sites for site in of_unit]))


def _in_layers(table: xr.Dataset, layers: Sequence[int] | int) -> xr.Dataset:
    """Return the table of the units in some layers.

    Raises:
      SelectionError: a layer that the table doesn't have.
    """
    wanted = each_of(layers)
    there = sorted({int(each) for each in table["layer"].values})
    absent = [layer for layer in wanted if layer not in there]
    if absent or not wanted:
        raise SelectionError(f"layers={layers!r} were given, and this table has layers {', '.join(map(str, there))}.")
    return table.isel(unit=np.flatnonzero(np.isin(table["layer"].values, wanted)))


def _of_experts(expertise: xr.Dataset, experts: Sequence[int] | int) -> xr.Dataset:
    """Return the table of the units of some of a mixture's experts.

    Raises:
      SelectionError: the table has no such expert, or is of no mixture.
    """
    there = sorted({int(each) for each in expertise["expert"].values} - {-1}) if "expert" in expertise.coords else []
    wanted = [] if np.ndim(experts) > 1 else each_of(experts)  # expert sets have two dimensions
    absent = [expert for expert in wanted if expert not in there]
    if absent or not wanted:
        has = f"has the experts {', '.join(map(str, there))}" if there else "has no units of a mixture's experts"
        given = repr(experts) if np.ndim(experts) < 2 else described(experts)
        raise SelectionError(
            f"experts={given} were given, for a mixture's experts by their number, and this table {has}. Expert sets, "
            "of units, come of top= and threshold=."
        )
    return expertise.isel(unit=np.flatnonzero(np.isin(expertise["expert"].values, wanted)))


def _steer_along(
    directions: xr.Dataset,
    concept: str | Sequence[str],
    strength: float,
    sites: Sequence[str] | None,
    layers: Sequence[int] | int | None,
    asked: dict[str, object],
) -> Steering:
    """Return the steering that adds a concept's direction to the stream, or those of several concepts together."""
    given = [name for name, value in asked.items() if value is not None]
    if given:
        raise SelectionError(
            f"{', '.join(given)} choose units and what they say, and directions were given, which move all channels "
            "together. Leave them out; mask directions with el.mask_directions(directions, experts)."
        )
    concepts = (concept,) if isinstance(concept, str) else tuple(concept)
    if not concepts or len(set(concepts)) < len(concepts):
        raise SelectionError(f"concept={concept!r}; wanted one of the table's, or several, each once.")
    check_known_concepts(directions, concepts)
    channels = _site_channels(directions)
    if sites is not None:
        directions = _at_sites(directions, (sites,) if isinstance(sites, str) else tuple(sites))
        channels = tuple(each for each in channels if each[0] in directions["site"].values)
    inside = [name for name, _ in channels if name not in SITES or not SITES[name].in_stream]
    if inside:
        writing = ", ".join(name for name, site in SITES.items() if site.in_stream)
        raise SelectionError(
            f"these directions are at {', '.join(inside)}, which isn't written to the residual stream as it is, so "
            f"nothing moves along them there. Find directions at one of {writing}, or steer units: el.steer(expertise, "
            f"{concepts[0]!r}, top=50)."
        )
    there = sorted({int(each) for each in directions["layer"].values})
    if layers is None and len(there) > 1:
        raise SelectionError(
            f"these directions are of layers {', '.join(map(str, there))}, and would add up in the residual stream. "
            f"Name one or more: el.steer(directions, {concepts[0]!r}, layers={there[len(there) // 2]})."
        )
    if layers is not None:
        directions = _in_layers(directions, layers)
    shift = directions["step"].sel(concept=list(concepts)).sum("concept").values
    columns = (directions[name].values.tolist() for name in ("layer", "site", "channel"))
    steering = Steering(
        scale=np.ones(len(shift), np.float32),
        shift=shift.astype(np.float32),
        units=tuple((int(layer), str(site), int(channel)) for layer, site, channel in zip(*columns, strict=True)),
        channels=channels,
        model=str(directions.attrs.get("model", "an unnamed model")),
        label=f"{', '.join(concepts)}, along {directions.attrs.get('method', 'a direction')}",
        provenance=read_provenance(directions.attrs),
        experts=_experts(directions),
    )
    return steering.at_strength(strength)


def _steer_units(
    expertise: xr.Dataset,
    concept: str,
    places: np.ndarray,
    method: str,
    site_channels: tuple[tuple[str, int | None], ...],
) -> Steering:
    """Return the method's steering of the units at these places of the table."""
    needs, affine = METHODS[method]
    row = expertise.sel(concept=concept).isel(unit=places)
    values = []
    for name in needs:
        if name not in row:
            why = (
                "expertise = el.measure_distributions(expertise, responses, concepts) adds it; el.measure_expertise "
                "and el.find_experts measure it from the start, unless told transport=False."
                if name in _DISTRIBUTIONS
                else "It was written by an older version: measure it again."
            )
            raise SelectionError(f"method {method!r} needs {name}, which this table of expertise doesn't have. {why}")
        value = np.broadcast_to(np.asarray(row[name].values, np.float64), len(places))
        if np.isnan(value).any():
            raise SelectionError(
                f"method {method!r} needs {name}, and the table has it for {(~np.isnan(value)).sum()} of the "
                f"{counted(len(places), 'unit')} that steer {concept!r}. Raise top= of el.measure_distributions."
            )
        values.append(value)
    scale, shift = affine(*values)
    layers, sites, channels = (expertise[name].values for name in ("layer", "site", "channel"))
    return Steering(
        scale=scale.astype(np.float32),
        shift=shift.astype(np.float32),
        units=tuple((int(layers[i]), str(sites[i]), int(channels[i])) for i in places),
        channels=site_channels,
        model=str(expertise.attrs.get("model", "an unnamed model")),
        label=f"{concept}, {method}",
        provenance=read_provenance(expertise.attrs),
        experts=_experts(row),
    )


def _experts(table: xr.Dataset) -> tuple[int, ...] | None:
    """Return which expert of a mixture each unit of a table is of; None if it is of no mixture."""
    return tuple(table["expert"].values.tolist()) if "expert" in table.coords else None


def share_expertise(expertise: xr.Dataset, domain: str, *, share: float = 0.5, name: str | None = None) -> xr.Dataset:
    """Return what a domain's members have in common, as a table with the domain for its one concept.

        el.steer(el.share_expertise(expertise, "animal"), "animal", top=50)

    A unit's average precision is then the one that `share` of the members reach, so that no member alone makes an
    expert; what steering sets it to is the mean over members. The domain's own word is no member.

    Args:
      expertise: with the `domain` coordinate of packaged or domained concepts.
      domain: its name.
      share: of the members, above 0 and up to 1; 0.5 is the median, 1 the least of all.
      name: of the concept in the table returned; default the domain's.

    Returns:
      Variables over (concept, unit) with a single concept.

    Raises:
      SelectionError: a domain without members in the table, or a share out of its range.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> precision = np.array([[0.75, 0.5], [0.5, 0.25], [0.25, 0.75]], np.float32)
    >>> animals = {"concept": ["cat", "dog", "cow"], "domain": ("concept", ["animal"] * 3)}
    >>> expertise = xr.Dataset({"average_precision": (("concept", "unit"), precision)}, animals)
    >>> expertise = expertise.assign_coords(base_rate=("concept", [0.3] * 3))
    >>> shared = el.share_expertise(expertise, "animal")
    >>> shared["concept"].values.tolist(), shared["average_precision"].values.tolist()
    (['animal'], [[0.5, 0.5]])
    """
    if not 0 < share <= 1:
        raise SelectionError(f"share={share!r}; wanted a part of the domain's members, above 0 and up to 1.")
    of_concept = expertise["domain"].values if "domain" in expertise.coords else [""] * expertise.sizes["concept"]
    domains = np.array([str(name) for name in of_concept], object)
    members = (domains == domain) & (expertise["concept"].values != domain)
    if not members.any():
        known = ", ".join(sorted(set(domains) - {""})) or "none"
        raise SelectionError(f"the table has no concepts of a domain {domain!r}; its domains are {known}.")
    of_members = expertise.isel(concept=members)
    means = of_members[[key for key, var in of_members.data_vars.items() if var.dims == ("concept", "unit")]]
    shared = means.mean("concept", skipna=False).assign(
        average_precision=of_members["average_precision"]
        .quantile(1 - share, "concept", method="higher")
        .drop_vars("quantile")
    )
    shared = shared.astype(np.float32).expand_dims(concept=np.array([name or domain], object))
    return shared.assign_coords(
        domain=("concept", np.array([domain], object)),
        base_rate=("concept", [float(of_members["base_rate"].mean())]),
    ).assign_attrs(expertise.attrs | {"members": [str(member) for member in of_members["concept"].values]})


def check_known_concepts(expertise: xr.Dataset, concepts: Sequence[str]) -> None:
    """Raise SelectionError if one isn't in the table, with those that are spelt like it."""
    known = [str(name) for name in expertise["concept"].values]
    for concept in concepts:
        if concept not in known:
            near = difflib.get_close_matches(str(concept), known, n=3)
            meant = (
                f" Did you mean {' or '.join(map(repr, near))}?"
                if near
                else f" It has {len(known)}, such as {known[0]!r}."
            )
            raise SelectionError(f"the concept {concept!r} isn't in this table of expertise.{meant}")
