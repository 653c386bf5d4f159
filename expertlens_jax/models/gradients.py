"""Gradient times activation of every unit, row by row: what a text's probability owes to it.

Steering multiplies each unit's activations by a scale. The derivative of a row's log-probability by that scale, where
it is 1, is the sum over tokens of activation times gradient. So a scale of its own for each row, laid out as the
`steering` collection that the taps read, gives what is attributed to all units of all rows in one backward pass, and no
`[tokens, units]` ever leaves it.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from expertlens_jax.models.model import take_columns
from expertlens_jax.models.scoring import next_log_probs
from expertlens_jax.models.sites import node_at, own_columns
from expertlens_jax.models.transformer import Transformer


@functools.partial(jax.jit, static_argnames=("network", "sites"))
def attribute_rows(
    network: Transformer,
    params: Mapping[str, Any],
    token_ids: jax.Array,
    attention_mask: jax.Array,
    targets: jax.Array,
    sites: tuple[str, ...],
) -> tuple[jax.Array, jax.Array]:
    """Return each row's log-probability of some of its tokens, and what of it is attributed to each unit.

    Args:
      network: with a causal head.
      params: of the network.
      token_ids: int32 `[batch, tokens]`.
      attention_mask: bool `[batch, tokens]`.
      targets: bool `[batch, tokens]`, the tokens whose log-probabilities are summed, given those before them; never
        the first of a row.
      sites: that hold activations, in the order of the units table.

    Returns:
      float32 `[batch]`, and float32 `[batch, units]` by layer, then site, then channel: the sum over tokens of each
      unit's activation times the gradient of the row's log-probability by it.
    """
    config = network.config
    widths = config.site_channels()
    scales = {
        site: jnp.ones((config.num_layers, token_ids.shape[0], 1, widths[site]), jnp.float32)  # 1: alike at all tokens
        for site in sites
    }

    def total(scales: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        log_probs = next_log_probs(network, params, token_ids, attention_mask, _by_path(scales))
        rows = jnp.where(targets[:, 1:], log_probs, 0).sum(axis=1)
        return rows.sum(), rows  # rows don't see each other, so that the sum's gradient is each row's own

    gradients, rows = jax.grad(total, has_aux=True)(scales)
    by_layer = jnp.concatenate([gradients[site][:, :, 0] for site in sites], axis=-1)
    columns = by_layer.transpose(1, 0, 2).reshape(by_layer.shape[1], -1)
    return rows, take_columns(columns, own_columns(config, sites))


def _by_path(scales: Mapping[str, jax.Array]) -> dict[str, Any]:
    """Lay scales by site out as the `steering` collection."""
    collection: dict[str, Any] = {}
    for site, scale in scales.items():
        node = node_at(collection, site)
        node["scale"], node["shift"] = scale, jnp.zeros_like(scale)
    return collection
