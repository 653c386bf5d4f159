"""What a steering is learned for, as a loss of the maps that it gives its units: two objectives, and their batches.

A unit's map is told on the unit's own scale, by a change of its scale `a` and a shift `b`, both 0 where nothing is
done:

    x  ->  mean + (1 + a) (x - mean) + b spread

with the mean and the spread of what the unit says at other sentences. So one learning rate, and one price of being
changed, fits units of any size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh

from expertlens_jax import parallel
from expertlens_jax.models.model import at_path
from expertlens_jax.models.sites import node_at
from expertlens_jax.models.transformer import Transformer

Array = jax.Array | np.ndarray
Maps = Mapping[str, tuple[Array, Array]]
"""By site: `a` and `b`, float32 `[layers, channels]` each."""


@struct.dataclass
class Learnable:
    """The units that may be changed, by site: arrays `[layers, channels]`."""

    chosen: dict[str, Array]
    """bool: which may be."""
    mean: dict[str, Array]
    spread: dict[str, Array]

    def collection(self, maps: Maps) -> dict[str, Any]:
        """Lay maps out as the `steering` collection, see `taps.py`; other units are left as they are."""
        collection: dict[str, Any] = {}
        for site, (change, shift) in maps.items():
            change, shift = (jnp.where(self.chosen[site], each, 0) for each in (change, shift))
            node = node_at(collection, site)
            node["scale"] = 1 + change
            node["shift"] = shift * self.spread[site] - change * self.mean[site]
        return collection


@struct.dataclass
class WordBatch:
    """Beginnings of sentences, with the concept's word put after each."""

    token_ids: Array
    """int32 `[rows, tokens]`."""
    attention_mask: Array
    """bool, like the others of the same shape."""
    before: Array
    """The tokens after which the word might come: those before it."""
    rest: Array
    """The word's tokens but for its first."""
    last: Array
    """The word's last token."""
    first_id: Array
    """int32 scalar: the id of the word's first token."""

    def laid_out(self, mesh: Mesh) -> WordBatch:
        """Return it with its rows split over devices."""
        rows = (self.token_ids, self.attention_mask, self.before, self.rest, self.last)
        return WordBatch(*parallel.split_rows(rows, mesh), parallel.replicate(self.first_id, mesh))


def word_loss(
    network: Transformer,
    params: Mapping[str, Any],
    steering: Mapping[str, Any],
    batch: WordBatch,
    fluency: Array | float,
) -> jax.Array:
    r"""Return the loss of a steering that should have a model write a word, and still write well.

    With p the model's distribution of the next token, q the steered model's, and t the tokens of a beginning:

    \[ -\log \operatorname{mean}_t q_t(w_1) - \sum_{i>1} \log q(w_i) + f \operatorname{mean}_t D_{KL}(q_t \| p_t) \]

    as a mean over sentences. A sentence is free to make room for the word where that costs least: the logarithm is of
    the mean. The divergence is taken after the word as well, so that it isn't said again and again.

    Args:
      network: with a causal head.
      params: of the network.
      steering: the collection.
      batch: sentences.
      fluency: f, the price of a nat a token of divergence, in nats of the word's log-probability.
    """
    inputs = network, params, batch.token_ids, batch.attention_mask
    steered, plain = _log_probs(*inputs, steering), _log_probs(*inputs, None)
    first = jnp.where(batch.before, jnp.take(steered, batch.first_id, axis=-1), -jnp.inf)
    word = jax.nn.logsumexp(first, axis=1) - jnp.log(batch.before.sum(axis=1))
    each = jnp.take_along_axis(steered[:, :-1], batch.token_ids[:, 1:, None], axis=-1)[..., 0]
    word += jnp.where(batch.rest[:, 1:], each, 0).sum(axis=1)
    compared = batch.before | batch.last
    divergence = (jnp.exp(steered) * (steered - plain)).sum(axis=-1)
    divergence = jnp.where(compared, divergence, 0).sum() / compared.sum()
    return jnp.asarray(fluency) * divergence - word.mean()


def _log_probs(
    network: Transformer,
    params: Mapping[str, Any],
    token_ids: Array,
    attention_mask: Array,
    steering: Mapping[str, Any] | None,
) -> jax.Array:
    """Return the log-probabilities of the next token, float32 `[rows, tokens, vocabulary]`."""
    variables = {"params": params} | ({"steering": steering} if steering else {})
    logits = cast(jax.Array, network.apply(variables, token_ids, attention_mask, attention_mask))
    return jax.nn.log_softmax(logits.astype(jnp.float32))


@struct.dataclass
class TextBatch:
    """As many sentences of a concept as others, right-padded to one length."""

    token_ids: Array
    """int32 `[rows, 2, tokens]`: others, then the concept's."""
    attention_mask: Array
    """bool, like the next."""
    pool_mask: Array

    def laid_out(self, mesh: Mesh) -> TextBatch:
        """Return it with its rows split over devices."""
        return parallel.split_rows(self, mesh)


def distribution_loss(
    network: Transformer,
    params: Mapping[str, Any],
    steering: Mapping[str, Any],
    batch: TextBatch,
    units: Learnable,
) -> jax.Array:
    """Return how far other sentences' responses, steered, are from the concept's, unit by unit.

    The sum over units of the squared Wasserstein distance of two sets of means over tokens, in one dimension: the mean
    square of the differences of both, each in order (LinEAS: Rodriguez et al. 2025, arXiv 2503.10679, eq. 4). Here
    each unit is measured by its own spread.
    """

    def pooled(which: int, collection: Mapping[str, Any] | None) -> Mapping[str, Any]:
        variables = {"params": params} | ({"steering": collection} if collection else {})
        inputs = (each[:, which] for each in (batch.token_ids, batch.attention_mask, batch.pool_mask))
        _, sown = network.apply(variables, *inputs, mutable=["responses"])
        return cast(Mapping[str, Any], sown["responses"])

    others, own = pooled(0, steering), pooled(1, None)
    total = jnp.zeros(())
    for site, chosen in units.chosen.items():
        moved, wanted = (at_path(each, site)["response"] for each in (others, own))  # [layers, rows, channels]
        apart = jnp.sort(moved, axis=1) - jax.lax.stop_gradient(jnp.sort(wanted, axis=1))
        known = chosen & (units.spread[site] > 0)
        square = jnp.square(apart / jnp.where(known, units.spread[site], 1)[:, None]).mean(axis=1)
        total += jnp.where(known, square, 0).sum()
    return total


def shrink(maps: Maps, by: Maps) -> Maps:
    """Return maps drawn towards doing nothing, by so much each number: those nearer than that do nothing.

    The proximal step of a lasso.
    """
    return jax.tree.map(lambda values, price: jnp.sign(values) * jnp.maximum(jnp.abs(values) - price, 0), maps, by)
