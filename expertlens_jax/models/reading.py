"""Reads chosen units at every token, gathered within the layer that has them: nothing else leaves the device."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import struct

from expertlens_jax.models.interventions import PlacedIntervention
from expertlens_jax.models.model import Model, at_path
from expertlens_jax.models.placed_steering import LaidOut
from expertlens_jax.models.sae import SAE
from expertlens_jax.models.sites import SITES, in_block_order, node_at
from expertlens_jax.models.streaming import program, run
from expertlens_jax.models.transformer import Transformer


@struct.dataclass
class ChosenUnits:
    """Units laid out for a model's forward pass: which they are is data, how many to a layer is program."""

    channels: Mapping[str, Any]
    """The collection `chosen`: int32 `[layers, chosen]` at each site's path, filled up with channel 0."""
    places: np.ndarray
    """int32 `[units]`: where each stands among all sites' `[layers, chosen]`, one site after the other; filled up."""
    sites: tuple[str, ...] = struct.field(pytree_node=False)


def choose_units(model: Model, units: pd.DataFrame) -> ChosenUnits:
    """Lay units out for `read_units`.

    Sizes are rounded up to powers of two, so that other units of the same sites mostly compile nothing new.

    Args:
      model: that has them.
      units: a table `layer, site, channel`.
    """
    sites = tuple(in_block_order(units["site"]))
    channels: dict[str, Any] = {}
    places = np.empty(len(units), np.int32)
    start = 0
    for site in sites:
        rows = np.flatnonzero((units["site"] == site).to_numpy())
        layers, of_layer = (units[name].to_numpy()[rows] for name in ("layer", "channel"))
        num_layers = model.config.num_layers
        if SITES[site].by_sae:  # whose layers are counted among those that are read
            read = [sae.layer for sae in model.saes]
            layers, num_layers = np.array([read.index(layer) for layer in layers]), len(read)
        slots = pd.Series(layers).groupby(layers).cumcount().to_numpy()
        width = _rounded_up(int(slots.max()) + 1)
        table = np.zeros((num_layers, width), np.int32)
        table[layers, slots] = of_layer
        node_at(channels, site)["channels"] = table
        places[rows] = start + layers * width + slots
        start += table.size
    return ChosenUnits(channels, np.resize(places, _rounded_up(len(places))), sites)


def _rounded_up(number: int) -> int:
    return 1 << (number - 1).bit_length()


@program()
def read_units(
    network: Transformer,
    params: Mapping[str, Any],
    token_ids: jax.Array,
    attention_mask: jax.Array,
    pool_mask: jax.Array,
    chosen: ChosenUnits,
    steering: LaidOut | None = None,
    saes: tuple[SAE, ...] = (),
    interventions: Sequence[PlacedIntervention] = (),
) -> jax.Array:
    """Run one jitted pass for chosen units at every token.

    It gives float32 `[batch, tokens, units]`, and what fills `places` up.

    Args:
      network: whose taps capture the chosen units' sites.
      params: of the model.
      token_ids: int `[batch, tokens]`.
      attention_mask: bool `[batch, tokens]`.
      pool_mask: bool `[batch, tokens]`, which interventions are given.
      chosen: from `choose_units`.
      steering: laid out, or none.
      saes: if features are among the units.
      interventions: laid out.
    """
    _, sown = run(
        network,
        params,
        token_ids,
        attention_mask,
        pool_mask,
        variables={"chosen": chosen.channels, "steering": steering},
        saes=saes,
        interventions=tuple(interventions),
        sown=["activations"],
    )
    parts = [
        at_path(sown["activations"], site)["activation"] for site in chosen.sites
    ]  # [layers, batch, tokens, chosen]
    flat = [part.astype(jnp.float32).transpose(1, 2, 0, 3).reshape(*part.shape[1:3], -1) for part in parts]
    return jnp.take(jnp.concatenate(flat, axis=-1), chosen.places, axis=-1, mode="clip")
