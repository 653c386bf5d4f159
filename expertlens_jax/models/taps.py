"""What happens at a site: steer its units, intervene, then sow their pooled response.

Three collections mirror each other by path: the parameters of the site `attn.q` are at
`params/layers/attn/q`, its responses at `responses/layers/attn/q/response` `[layers, batch, channels]`, and
its steering at `steering/layers/attn/q/{scale,shift}` `[layers, channels]`, or where rows are steered one by one
`[layers, batch, 1, channels]`. So do activations, where they are captured:
`activations/layers/attn/q/activation` `[layers, batch, tokens, channels]`, of all channels, or of those that are chosen
at `chosen/layers/attn/q/channels` `[layers, chosen]`. `sites.py` has every site's path.
"""

import dataclasses
from typing import Literal, cast, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from expertlens_jax.errors import SelectionError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.declaring import parameter
from expertlens_jax.models.gated_maps import GatedMap
from expertlens_jax.models.interventions import At, PlacedIntervention
from expertlens_jax.models.sites import SITES

Pooling = Literal["max", "mean", "last", "min"]
POOLINGS: tuple[str, ...] = get_args(Pooling)


def check_pooling(pooling: str) -> Pooling:
    """Return the pooling of that name.

    Raises:
      SelectionError: the message lists those there are.
    """
    if pooling not in POOLINGS:
        raise SelectionError(f"pooling {pooling!r} was given; wanted one of {', '.join(POOLINGS)}.")
    return cast(Pooling, pooling)


@dataclasses.dataclass(frozen=True)
class Taps:
    """Which sites sow their responses, and how these are pooled over a sentence's tokens.

    The site `sae` is sown by the stack, not by a block: see `transformer.py`.
    """

    sites: tuple[str, ...] = ()
    pooling: Pooling = "max"
    captured: tuple[str, ...] = ()
    """Which sites sow what they hold at every token."""
    beside: tuple[tuple[str, Pooling], ...] = ()
    """Which sites sow responses that are pooled otherwise too, in the same pass; not the site `sae`."""

    def poolings(self, site: str) -> dict[str, Pooling]:
        """Return how the responses that a site sows are pooled, by the names that they are sown under."""
        own: dict[str, Pooling] = {"response": self.pooling} if site in self.sites else {}
        return own | {response_name(pooling): pooling for name, pooling in self.beside if name == site}


def response_name(pooling: Pooling) -> str:
    """Return what responses of `Taps.beside` are sown under."""
    return f"response_{pooling}"


def response_over(number: int) -> str:
    """Return what responses are sown under that are pooled over one of `LayerInputs.other_pools`."""
    return f"response_over_{number}"


@struct.dataclass
class LayerInputs:
    """What every layer needs to know of the tokens it is given, as opposed to what stands at them."""

    positions: jax.Array
    """int32 `[batch, tokens]`, counted from the sequence's first real token."""
    pool_mask: jax.Array
    """bool `[batch, tokens]`: enters the pooled response."""
    key_mask: jax.Array
    """bool `[batch, keys]`: may be attended to. Keys are the tokens, or a cache's slots and theirs among them."""
    first_slot: jax.Array
    """int32 scalar: the slot of the first token among the keys; 0 without a cache."""
    key_positions: jax.Array | None = None
    """int32 `[batch, keys]`, counted as `positions`; None unless the model's attention asks for it (ALiBi, chunks)."""
    other_pools: tuple[jax.Array, ...] = ()
    """As `pool_mask`, of further responses of the taps' sites, pooled in the same way over other tokens."""
    interventions: tuple[PlacedIntervention | GatedMap, ...] = ()
    """And before them what is steered at some tokens only."""
    token_ids: jax.Array | None = None
    """int32 `[batch, tokens]`; None without interventions, which alone ask for it."""
    layer: jax.Array | None = None
    """int32 scalar: the same, and within a layer."""
    local: jax.Array | None = None
    """bool scalar, within a layer: it has a window; None where all layers are alike."""
    features: jax.Array | None = None
    """int32 `[saes, chosen]`: which features of each SAE are captured; None where none are, or all are pooled."""
    held: dict[str, jax.Array] | None = struct.field(pytree_node=False, default=None)
    """Within a layer that SAEs may read: what each site holds, `[batch, tokens, channels]`, filled in as it is tapped;
    None where no SAE is asked for."""
    fired: dict[int, jax.Array] | None = struct.field(pytree_node=False, default=None)
    """Within a layer: of each of `interventions` that goes by a unit, whether that fires, `[batch, tokens]`, as far as
    it is known, filled in as sites are tapped; None where none does."""

    shared: dict[str, jax.Array] | None = struct.field(pytree_node=False, default=None)
    """Within a layer: the keys and values that layers without their own take, `[2, batch, tokens, kv_heads, head_dim]`
    each, of the last layer that had its own without a window and with one; None where all have their own."""

    def at(self) -> At:
        """Return where these tokens stand, as interventions are told."""
        assert self.layer is not None and self.token_ids is not None  # which are there wherever interventions are
        mask = jax.lax.dynamic_slice_in_dim(self.key_mask, self.first_slot, self.positions.shape[1], axis=1)
        return At(self.layer, self.token_ids, self.positions, mask, self.pool_mask)


def pool(activations: jax.Array, mask: jax.Array, pooling: Pooling) -> jax.Array:
    """Pool activations over tokens.

    Args:
      activations: `[batch, tokens, channels]`.
      mask: bool `[batch, tokens]`, True for the tokens that enter the pool; at least one a row.
      pooling: "max", "min", "mean", or "last" (the last token of the mask).

    Returns:
      float32 `[batch, channels]`.
    """
    match pooling:
        case "max":
            lowest = jnp.asarray(-jnp.inf, activations.dtype)
            return jnp.where(mask[..., None], activations, lowest).max(axis=1).astype(jnp.float32)
        case "min":
            highest = jnp.asarray(jnp.inf, activations.dtype)
            return jnp.where(mask[..., None], activations, highest).min(axis=1).astype(jnp.float32)
        case "mean":
            total = jnp.where(mask[..., None], activations.astype(jnp.float32), 0.0).sum(axis=1)
            return total / mask.sum(axis=1, keepdims=True)
        case "last":
            last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
            return jnp.take_along_axis(activations, last[:, None, None], axis=1)[:, 0].astype(jnp.float32)
    raise ValueError(f"unknown pooling {pooling!r}; there are {', '.join(POOLINGS)}")


def keep_reached(activations: jax.Array, reached: jax.Array | None) -> jax.Array:
    """Return the activations of experts `[batch, tokens, experts * channels]`.

    They are 0 at tokens that aren't routed to the expert.

    Args:
      activations: as they were computed, at whatever tokens.
      reached: bool `[batch, tokens, experts]`; None where channels are of no experts, and nothing is changed.
    """
    if reached is None:
        return activations
    by_expert = activations.reshape(*reached.shape, -1)
    return jnp.where(reached[..., None], by_expert, 0).reshape(activations.shape)


def pool_by_expert(
    activations: jax.Array, mask: jax.Array, pooling: Pooling, reached: jax.Array | None = None
) -> jax.Array:
    """Pool activations over tokens, each expert's over those tokens that are routed to it.

    A sentence none of whose tokens is gives 0, by any pooling. That is what the expert adds to the sum of all, and what
    its `mlp.act`, `mlp.up` and `mlp.gate` would have to be for it to add as much (without biases there); and it is
    finite, so that sentences stay ranked: below those that excite the unit, above those that inhibit it, level with
    each other.

    Args:
      activations: `[batch, tokens, channels]`, 0 at tokens that aren't routed to the channel's expert.
      mask: bool `[batch, tokens]`, as `pool` takes it.
      pooling: see `pool`.
      reached: bool `[batch, tokens, experts]`; None where channels are of no experts.

    Returns:
      float32 `[batch, channels]`.
    """
    if reached is None:
        return pool(activations, mask, pooling)
    own = reached & mask[..., None]
    any_token = own.any(axis=1)
    own |= ~any_token[:, None]  # a mean over no token would be NaN, and its gradient
    by_expert = activations.reshape(*reached.shape, -1)
    pooled = jax.vmap(lambda values, tokens: pool(values, tokens, pooling), in_axes=2, out_axes=1)(by_expert, own)
    return jnp.where(any_token[..., None], pooled, 0.0).reshape(len(pooled), -1)


def tap(
    module: nn.Module,
    site: str,
    activations: jax.Array,
    inputs: LayerInputs,
    config: TransformerConfig,
    taps: Taps,
    reached: jax.Array | None = None,
) -> jax.Array:
    """Steer a site's activations, intervene on them, and sow what is asked for into `module`'s own scope.

    A `steering` collection, an intervention or an asked-for site that isn't there costs nothing: the branches are
    decided while tracing.

    Args:
      module: the module that stands for the site; its path names it in every collection.
      site: the site's name, as in `Taps.sites`.
      activations: `[batch, tokens, channels]`.
      inputs: of the layer: the tokens that enter the pool, and interventions.
      config: of the model.
      taps: what to sow.
      reached: bool `[batch, tokens, experts]`, where channels are those of experts: which of them each token is routed
        to. See `keep_reached` and `pool_by_expert`.

    Returns:
      The activations, steered (`activations * scale + shift`) and then intervened on, as the network goes on with them.
    """
    activations = keep_reached(activations, reached)
    if module.has_variable("steering", "scale"):
        scale = module.get_variable("steering", "scale").astype(activations.dtype)
        shift = module.get_variable("steering", "shift").astype(activations.dtype)
        activations = activations * scale + shift
    for place, change in enumerate(inputs.interventions):
        if isinstance(change, GatedMap):
            fired = {} if inputs.fired is None else inputs.fired
            activations = change.act(site, activations, inputs.at(), fired, place)
        elif change.site == site:
            activations = change(activations, inputs.at())
    activations = keep_reached(activations, reached)
    for name in dict.fromkeys((*taps.sites, *taps.captured, *(beside for beside, _ in taps.beside))):
        row = SITES[name]
        if site not in (name, row.summary_of):
            continue
        values = activations if row.summarize is None else row.summarize(activations, config, inputs.local)
        if poolings := taps.poolings(name):
            pooled = {
                what: pool_by_expert(values, inputs.pool_mask, pooling, reached) for what, pooling in poolings.items()
            }
            for number, mask in enumerate(inputs.other_pools if name in taps.sites else ()):
                pooled[response_over(number)] = pool_by_expert(values, mask, taps.pooling, reached)
            sow_last(module, "responses", name, pooled)
        if name in taps.captured:
            captured = take_channels(values, chosen_channels(module, name), reached)
            sow_last(module, "activations", name, {"activation": captured})
    if inputs.held is not None:
        inputs.held[site] = activations
    return activations


def chosen_channels(module: nn.Module, site: str) -> jax.Array | None:
    """Return which channels of a site are captured, int32 `[chosen]`, if a call chooses any; None for all."""
    within = _within_module(site)
    if not module.has_variable("chosen", within[0] if within else "channels"):
        return None
    node = module.get_variable("chosen", within[0] if within else "channels")
    return node["channels"] if within else node


def take_channels(values: jax.Array, channels: jax.Array | None, reached: jax.Array | None = None) -> jax.Array:
    """Return the chosen channels of `[batch, tokens, channels]`, which there are; all of them for None.

    Chosen ones that are an expert's hold NaN at tokens that aren't routed to it, so that whoever reads them can tell.
    """
    if channels is None:
        return values
    taken = jnp.take(values, channels, axis=-1, mode="clip")
    if reached is None:
        return taken
    experts = channels // (values.shape[-1] // reached.shape[-1])
    return jnp.where(jnp.take(reached, experts, axis=-1, mode="clip"), taken, jnp.nan)


def sow_last(module: nn.Module, collection: str, site: str, values: dict[str, jax.Array]) -> None:
    """Sow values by their names, in the place of any before, so that they stand at the site's path in a collection.

    A site that is a summary of another has a node of its own below the module's.
    """
    within = _within_module(site)
    named: dict[str, jax.Array | dict[str, jax.Array]] = {within[0]: values} if within else {**values}
    for name, sown in named.items():
        module.sow(collection, name, sown, reduce_fn=lambda _, new: new, init_fn=lambda: None)


def _within_module(site: str) -> tuple[str, ...]:
    """Return the name of a site's node below the module that sows it; none for a site that is a module by itself."""
    path = SITES[site].path
    return path[len(path) - (SITES[site].summary_of is not None) :]


class Tap(nn.Module):
    """A site without parameters of its own, such as an activation function's output."""

    site: str
    config: TransformerConfig
    taps: Taps

    def __call__(self, activations: jax.Array, inputs: LayerInputs, reached: jax.Array | None = None) -> jax.Array:
        """Steers, intervenes and sows; see `tap`."""
        return tap(self, self.site, activations, inputs, self.config, self.taps, reached)


class TappedLinear(nn.Module):
    """A linear layer whose output channels are the units of a site.

    Parameters: `kernel` `[inputs, channels]` and, with `use_bias`, `bias` `[channels]`.
    """

    site: str
    config: TransformerConfig
    use_bias: bool
    taps: Taps
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, inputs: LayerInputs) -> jax.Array:
        """Map `[batch, tokens, inputs]` to `[batch, tokens, channels]`, steered, intervened on and sown."""
        init = nn.initializers.normal(self.config.initializer_range)
        channels = SITES[self.site].channels(self.config)
        kernel = parameter(self, "kernel", init, (x.shape[-1], channels), self.dtype)
        # Summed and shifted in float32, rounded once: in bfloat16 a sum rounded before its bias is off by more.
        outputs = jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
        if self.use_bias:
            outputs += parameter(self, "bias", nn.initializers.zeros, (channels,), self.dtype)
        outputs = outputs.astype(x.dtype)
        return tap(self, self.site, outputs, inputs, self.config, self.taps)
