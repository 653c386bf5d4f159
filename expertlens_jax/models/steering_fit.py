"""Whether a steering fits a model: its units are there, its experts are the same ones, and it is of that very model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from expertlens_jax.errors import SelectionError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.provenance import Provenance, differences
from expertlens_jax.models.sites import SITES, check_no_summaries, layer_widths
from expertlens_jax.models.units import experts_of
from expertlens_jax.models.when import When

if TYPE_CHECKING:
    from expertlens_jax.models.steering import Steering


def check_fit(steering: Steering, config: TransformerConfig, model: str) -> None:
    """Refuse a steering whose units a model doesn't have.

    Args:
      steering: of any model.
      config: of the model.
      model: its name, for errors.

    Raises:
      SelectionError: a site or layer isn't there, or has other channels, or a mixture's other experts have them; or is
        a summary, see `sites.py`.
    """
    check_no_summaries(site for site, _ in steering.channels)
    own = config.site_channels()
    for site, width in steering.channels:
        highest = max((channel for _, of, channel in steering.units if of == site), default=-1)
        if site not in own or (own[site] != width if width is not None else highest >= own[site]):
            there = f"has {width} channels" if width is not None else f"has a channel {highest}"
            here = f"{own[site]}" if site in own else "no such site"
            raise SelectionError(
                f"this steering is of {steering.model} and doesn't fit {model}: {site} {there} there, "
                f"{here} here. Make it from an expertise table of {model}."
            )
    for layer, site, channel in steering.units if config.layers_differ else ():
        width = _width(layer, site, config)
        if layer < config.num_layers and channel >= width:
            raise SelectionError(
                f"this steering is of {steering.model} and doesn't fit {model}: it has the unit L{layer} {site} "
                f"{channel}, and that layer has {width} channels of {site} here. Make it from an expertise table of "
                f"{model}."
            )
    deepest = max((layer for layer, _, _ in steering.units), default=0)
    if deepest >= config.num_layers:
        raise SelectionError(
            f"this steering is of {steering.model} and doesn't fit {model}: it has units in layer {deepest}, and "
            f"{model} has layers 0 to {config.num_layers - 1}. Make it from an expertise table of {model}."
        )
    if steering.experts is not None:
        _check_same_experts(steering, config, model)
    for _, when in steering.stages:
        check_unit_there(when, config, model)


def _check_same_experts(steering: Steering, config: TransformerConfig, model: str) -> None:
    """Refuse a steering whose units are of other experts in a model than in its own."""
    given = steering.table
    own = experts_of(given, config)
    other = np.flatnonzero(given["expert"].to_numpy() != own)
    if other.size:
        first = int(other[0])
        layer, site, channel = steering.units[first]
        there, here = (f"expert {e}'s" if e >= 0 else "no expert's" for e in (given["expert"][first], own[first]))
        raise SelectionError(
            f"this steering is of {steering.model} and doesn't fit {model}: L{layer} {site} {channel} is {there} "
            f"there, and {here} here ({other.size} of {len(given)} units). Make it from an expertise table of {model}."
        )


def check_unit_there(when: When | None, config: TransformerConfig, model: str) -> None:
    """Refuse a condition by a unit that a model doesn't have.

    Args:
      when: of any steering; None for at every token.
      config: of the model.
      model: its name, for errors.

    Raises:
      SelectionError: there is no such layer, site or channel.
    """
    if when is None or when.unit is None:
        return
    own = config.site_channels()
    layer, site, channel = when.unit
    width = _width(layer, site, config)
    if channel >= width:
        there = f"{site} has the channels 0 to {own[site] - 1}" if site in own else f"its sites are {', '.join(own)}"
        only = f", of which layer {layer} has {width}" if layer < config.num_layers and width < own.get(site, 0) else ""
        raise SelectionError(
            f"a steering that applies only {when} doesn't fit {model}, which has no such unit: {there}, in layers 0 to "
            f"{config.num_layers - 1}{only}."
        )


def _width(layer: int, site: str, config: TransformerConfig) -> int:
    """Return how many channels a site has in a layer; 0 where there is no such layer or site."""
    known = site in SITES and 0 <= layer < config.num_layers
    return layer_widths(SITES[site], config)[layer] if known else 0


def why_other(steering: Steering, model: str, provenance: Provenance | None) -> str:
    """Return what shows that a steering is of another model, to end a sentence with.

    It is "" if it is of this one.
    """
    if steering.provenance is None or provenance is None:
        return "." if steering.model != model else ""
    if steering.provenance.same_model(provenance):
        return ""
    return f" ({differences(steering.provenance, provenance, model_only=True)})."
