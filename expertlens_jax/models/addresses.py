"""Which units someone means: rows of a table, or addresses such as `(3, "mlp.up", 417)` and "L3 mlp.up 417"."""

import difflib
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from expertlens_jax.errors import ExpertLensWarning, SelectionError
from expertlens_jax.models.model import Model
from expertlens_jax.models.provenance import differences, read_provenance
from expertlens_jax.models.sites import SITES, block_sites
from expertlens_jax.models.units import site_units, unit_experts

ADDRESS = ("layer", "site", "channel")
Address = tuple[int, str, int]
Units = pd.DataFrame | pd.Series | str | Address | Sequence[str | Address]
"""Rows of a table with the columns `layer, site, channel`, one row of one, an address, or several."""
_WANTED = 'rows of a table with the columns layer, site, channel; or addresses: (3, "mlp.up", 417), "L3 mlp.up 417"'


def format_address(address: Address) -> str:
    """Return an address as people write it, and as `read_address` reads it: "L3 mlp.up 417"."""
    layer, site, channel = address
    return f"L{layer} {site} {channel}"


def read_address(given: Any) -> Address:
    """Return (layer, site, channel) of an address in any of its forms.

    Raises:
      SelectionError: it is none.
    """
    if isinstance(given, str):
        match = re.fullmatch(r"\s*L?(\d+)[\s,/]+([a-z]+(?:\.[a-z]+)?)[\s,/]+(\d+)\s*", given, re.IGNORECASE)
        given = match.groups() if match else (given,)
        if match:
            return int(given[0]), given[1].lower(), int(given[2])
    elif isinstance(given, Mapping | pd.Series):
        given = tuple(given.get(name) for name in ADDRESS)
    elif isinstance(given, Sequence | np.ndarray):
        given = tuple(given)
    else:
        given = (given,)
    if len(given) == 3 and isinstance(given[1], str) and _is_count(given[0]) and _is_count(given[2]):
        return int(given[0]), str(given[1]), int(given[2])
    shown = given[0] if len(given) == 1 else given
    raise SelectionError(f"{shown!r} was given for a unit; wanted {_WANTED}.")


def locate_units(model: Model, units: Units) -> pd.DataFrame:
    """Return a model's own rows for the units that someone means, in their order.

    Args:
      model: whose units they are.
      units: rows of a units table, such as `el.top_experts` or `model.units` gives, a row, or an address, or several.

    Returns:
      A table `layer, site, channel, hf_module, hf_channel`, a row per unit; of a table's rows, with its index. Of a
      mixture of experts with `expert`, as in `model.units`.

    Raises:
      SelectionError: none were given, or what names no unit; or the model has no such layer, site or channel, or has it
        under another Hugging Face address than the table says.

    Warns:
      ExpertLensWarning: the table is another model's, whose units stand at the same places.
    """
    units = as_rows_of_table(units)
    places: dict[str, dict[int, tuple[str, np.ndarray]]] = {}
    rows = [_row(model, address, places) for address in read_addresses(units)]
    found = pd.DataFrame(rows, columns=[*ADDRESS, "hf_module", "hf_channel"])
    if model.config.num_experts and not (found["site"] == "sae").any():
        of_site = {site: unit_experts(SITES[site], model.config) for site in found["site"].unique()}
        experts = [int(of_site[site][channel]) for site, channel in zip(found["site"], found["channel"], strict=True)]
        found.insert(len(ADDRESS), "expert", experts)
    if isinstance(units, pd.DataFrame):
        found.index = units.index
        check_same_places(units, found, model.name)
        _warn_of_other_model(model, units.attrs)
    return found


def as_rows_of_table(units: Units) -> Units:
    """Return one row of a table as a table, and all else as it is."""
    return units.to_frame().T if isinstance(units, pd.Series) else units


def one_address(unit: Units) -> Address:
    """Return (layer, site, channel) of the one unit that someone means.

    Raises:
      SelectionError: several were given, or none, or what names no unit.
    """
    addresses = read_addresses(unit)
    if len(addresses) > 1:
        raise SelectionError(
            f"{len(addresses)} units were given; wanted one, such as {format_address(addresses[0])!r}."
        )
    return addresses[0]


def read_addresses(units: Units) -> list[Address]:
    """Return (layer, site, channel) of each unit that someone means, of whatever model.

    Raises:
      SelectionError: none were given, or what names no unit.
    """
    if isinstance(units, pd.DataFrame):
        absent = [name for name in ADDRESS if name not in units]
        if absent:
            raise SelectionError(
                f"a table without {', '.join(absent)} was given for units (it has "
                f"{', '.join(map(str, units)) or 'none'}); wanted {_WANTED}."
            )
        given: Iterable[Any] = units[list(ADDRESS)].itertuples(index=False, name=None)
    elif isinstance(units, str | Mapping | pd.Series) or (
        isinstance(units, tuple) and len(units) == 3 and _is_count(units[0])
    ):
        given = [units]
    elif isinstance(units, Iterable):
        given = list(units)
    else:
        given = [units]
    addresses = [read_address(each) for each in given]
    if not addresses:
        raise SelectionError(f"no units were given; wanted {_WANTED}.")
    return addresses


def _is_count(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool | np.bool_) and number >= 0


def _row(
    model: Model, address: Address, places: dict[str, dict[int, tuple[str, np.ndarray]]]
) -> tuple[int, str, int, str, int]:
    """Return the unit's row of the units table; `places` keeps each site's modules and their channels, by layer."""
    layer, site, channel = address
    known = {**block_sites(model.config), **({"sae": SITES["sae"]} if model.saes else {})}
    unit = f"the unit {format_address(address)} was given"
    if site == "sae" and not model.saes:
        raise SelectionError(
            f"{unit}, and {model.name} carries no sparse autoencoder. Give it one: model.with_sae(el.load_sae(PATH))."
        )
    if site not in known:
        near = difflib.get_close_matches(site, known, n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise SelectionError(f"{unit}; {model.name} has the sites {', '.join(known)}.{meant}")
    if site not in places:
        parts = site_units(known[site], model.family, model.config, model.saes)
        places[site] = {of_layer: (module, channels) for of_layer, _, module, channels in parts}
    there = places[site]
    if layer not in there:
        layers = sorted(there)
        named = f"0 to {layers[-1]}" if len(layers) == layers[-1] + 1 else ", ".join(map(str, layers))
        raise SelectionError(f"{unit}; {model.name} has {site} in layer{'s' * (named != '0 to 0')} {named}.")
    module, channels = there[layer]
    if channel >= len(channels):
        raise SelectionError(f"{unit}; in {model.name} {site} has the channels 0 to {len(channels) - 1}.")
    return layer, site, channel, module, int(channels[channel])


def check_same_places(given: pd.DataFrame, found: pd.DataFrame, model: str) -> None:
    """Check that a table's units stand in Hugging Face's model where this model's do.

    Args:
      given: rows that someone gave, with or without the columns `hf_module, hf_channel`.
      found: the model's own rows at the same layers, sites and channels.
      model: its name.

    Raises:
      SelectionError: so they do.
    """
    for name in ("hf_module", "hf_channel"):
        if name not in given:
            continue
        other = np.flatnonzero(given[name].to_numpy() != found[name].to_numpy())
        if other.size:
            first = int(other[0])
            unit = format_address(tuple(found.iloc[first][list(ADDRESS)]))
            raise SelectionError(
                f"{other.size} of {len(found)} units are another model's: {unit} is {name} {given[name].iloc[first]!r} "
                f"in the table given, and {found[name].iloc[first]!r} in {model}. Give this model's units: rows of "
                "model.units, or of el.top_experts of its own table of expertise."
            )


def _warn_of_other_model(model: Model, attributes: Mapping[Any, Any]) -> None:
    """Warns if a table says that it is of another model."""
    provenance = read_provenance(attributes)
    if provenance is None:
        named = attributes.get("model", model.name)
        why = "" if named == model.name else "."
    else:
        named = provenance.model
        own = model.provenance
        why = "" if provenance.same_model(own) else f" ({differences(provenance, own, model_only=True)})."
    if why:
        warnings.warn(
            ExpertLensWarning(
                f"these units are of {named} and are read in {model.name}, whose units are others that stand at the "
                f"same places{why} If that is meant, give their addresses: "
                "units[['layer', 'site', 'channel']].values.tolist()."
            ),
            stacklevel=4,
        )
