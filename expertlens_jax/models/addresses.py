"""Which units someone means: rows of a table, or addresses such as `(3, "mlp.up", 417)` and "L3 mlp.up 417".

Of a mixture of experts, an address may name the expert too: `(3, "mlp.up", 2, 17)` is channel 17 of expert 2. All else
counts channels from the site's first on, as the table of units does, so that both say the same in one column.
"""

import difflib
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from expertlens_jax.cards import counted
from expertlens_jax.errors import ExpertLensWarning, SelectionError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.model import Model
from expertlens_jax.models.provenance import differences, read_provenance
from expertlens_jax.models.sites import SITES, block_sites
from expertlens_jax.models.units import check_experts, experts_of, site_units

ADDRESS = ("layer", "site", "channel")
Address = tuple[int, str, int]
OfExpert = tuple[int, str, int, int]
"""(layer, site, expert, channel): the channel is counted within the expert."""
Units = pd.DataFrame | pd.Series | str | Address | OfExpert | Sequence[str | Address | OfExpert]
"""Rows of a table with the columns `layer, site, channel`, one row of one, an address, or several."""
_WANTED = 'rows of a table with the columns layer, site, channel; or addresses: (3, "mlp.up", 417), "L3 mlp.up 417"'


def format_address(address: Address) -> str:
    """Return an address as people write it, and as `read_address` reads it: "L3 mlp.up 417"."""
    layer, site, channel = address
    return f"L{layer} {site} {channel}"


def read_address(given: Any, config: TransformerConfig | None = None) -> Address:
    """Return (layer, site, channel) of an address in any of its forms.

    Args:
      given: the address.
      config: of the model whose unit it is, which alone tells where an expert's channels begin.

    Raises:
      SelectionError: it is none; or it names an expert that the model doesn't have, or no model is known.
    """
    if isinstance(given, str):
        match = re.fullmatch(r"\s*L?(\d+)[\s,/]+([a-z]+(?:\.[a-z_]+)?)((?:[\s,/]+\d+){1,2})\s*", given, re.IGNORECASE)
        numbers = re.findall(r"\d+", match[3]) if match else ()
        given = (int(match[1]), match[2].lower(), *map(int, numbers)) if match else (given,)
    elif isinstance(given, Mapping | pd.Series):
        given = tuple(given.get(name) for name in ADDRESS)
    elif isinstance(given, Sequence | np.ndarray):
        given = tuple(given)
    else:
        given = (given,)
    if len(given) in (3, 4) and isinstance(given[1], str) and all(map(_is_count, (given[0], *given[2:]))):
        layer, site, *numbers = int(given[0]), str(given[1]), *map(int, given[2:])
        return layer, site, numbers[0] if len(numbers) == 1 else _channel_of_expert(layer, site, *numbers, config)
    shown = given[0] if len(given) == 1 else given
    raise SelectionError(f"{shown!r} was given for a unit; wanted {_WANTED}.")


def _channel_of_expert(layer: int, site: str, expert: int, channel: int, config: TransformerConfig | None) -> int:
    """Return which of a site's channels an expert's is.

    The channel may also be the site's, as in a table's column, where no expert has so many: then it has to be of this
    expert.
    """
    unit = f"the unit {(layer, site, expert, channel)} was given, by layer, site, expert and channel"
    if config is None:
        raise SelectionError(
            f"{unit}; no model is known here, which tells where an expert's channels begin. Give (layer, site, "
            "channel), with the channel that the table of units has: el.trace(model, sentences, unit).units."
        )
    by_expert = [name for name, each in block_sites(config).items() if each.by_expert and config.num_experts]
    if site not in by_expert:
        within = f"{site} isn't within its experts, as {', '.join(by_expert)} are"
        raise SelectionError(
            f"{unit}; {within if by_expert else 'this model is no mixture of experts'}. Give (layer, site, channel)."
        )
    width = config.d_mlp
    if expert >= config.num_experts:
        raise SelectionError(f"{unit}; this model has the experts 0 to {config.num_experts - 1}.")
    if channel >= width and channel // width != expert:
        raise SelectionError(
            f"{unit}; an expert has the channels 0 to {width - 1}, and expert {expert} those from {expert * width} to "
            f"{(expert + 1) * width - 1} of the site's."
        )
    return channel if channel >= width else expert * width + channel


def locate_units(model: Model, units: Units) -> pd.DataFrame:
    """Return a model's own rows for the units that someone means, in their order.

    Args:
      model: whose units they are.
      units: rows of a units table, such as `el.top_experts` or `model.units` gives, a row, or an address, or several;
        of a mixture's experts also (layer, site, expert, channel), with the channel counted within the expert.

    Returns:
      A table `layer, site, channel, hf_module, hf_channel`, a row per unit; of a table's rows, with its index. Of a
      mixture of experts with `expert`, as in `model.units`.

    Raises:
      SelectionError: none were given, or what names no unit; or the model has no such layer, site, expert or channel,
        or has it under another Hugging Face address, or in another expert, than the table says.

    Warns:
      ExpertLensWarning: the table is another model's, whose units stand at the same places.
    """
    units = as_rows_of_table(units)
    places: dict[str, dict[int, tuple[str, np.ndarray]]] = {}
    rows = [_row(model, address, places) for address in read_addresses(units, model.config)]
    found = pd.DataFrame(rows, columns=[*ADDRESS, "hf_module", "hf_channel"])
    if model.config.num_experts and not (found["site"] == "sae").any():
        found.insert(len(ADDRESS), "expert", experts_of(found, model.config))
    if isinstance(units, pd.DataFrame):
        found.index = units.index
        check_same_places(units, found, model.name)
        _warn_of_other_model(model, units.attrs)
    return found


def as_rows_of_table(units: Units) -> Units:
    """Return one row of a table as a table, and all else as it is."""
    return units.to_frame().T if isinstance(units, pd.Series) else units


def one_address(unit: Units, config: TransformerConfig | None = None) -> Address:
    """Return (layer, site, channel) of the one unit that someone means.

    Raises:
      SelectionError: several were given, or none, or what names no unit.
    """
    addresses = read_addresses(unit, config)
    if len(addresses) > 1:
        raise SelectionError(
            f"{counted(len(addresses), 'unit was', 'units were')} given; wanted one, such as "
            f"{format_address(addresses[0])!r}."
        )
    return addresses[0]


def read_addresses(units: Units, config: TransformerConfig | None = None) -> list[Address]:
    """Return (layer, site, channel) of each unit that someone means.

    Args:
      units: of whatever model.
      config: of the model, if it is known.

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
        isinstance(units, tuple) and len(units) in (3, 4) and _is_count(units[0])
    ):
        given = [units]
    elif isinstance(units, Iterable):
        given = list(units)
    else:
        given = [units]
    addresses = [read_address(each, config) for each in given]
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
      SelectionError: they don't; or a mixture's experts have other units.
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
    check_experts(given, found, model)


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
