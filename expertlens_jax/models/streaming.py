"""Runs models whose layers their devices don't hold: a layer at a time, the next on its way while one computes.

The layers' weights stay in the host's memory, or in the checkpoint's files. One compiled program runs a layer; it is
called once for each, with that layer's weights. So a device holds two layers at most, and what isn't of layers.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, Literal, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from expertlens_jax import parallel
from expertlens_jax.errors import SelectionError
from expertlens_jax.models.digests import bit_sums, digest_arrays, digest_sums
from expertlens_jax.models.gated_maps import GatedMap
from expertlens_jax.models.interventions import PlacedIntervention
from expertlens_jax.models.layers import LayerOptions
from expertlens_jax.models.sae import SAE
from expertlens_jax.models.taps import LayerInputs
from expertlens_jax.models.transformer import Block, Carry, Entrance, Exit, Transformer

Offload = Literal["host", "disk"]
"""Where layers' weights stay: in the host's memory, or in the checkpoint's files."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class StreamedLayers:
    """What stands at `layers` among the parameters of a model whose devices don't hold them.

    To jax it is a node without leaves: whatever is done to all parameters is done to the others alone.
    """

    shapes: Mapping[str, Any]
    """As the parameters would be: a pytree of `jax.ShapeDtypeStruct`, `[layers, ...]` each."""
    read: Callable[[int], Mapping[str, Any]]
    """Gives a layer's parameters on the host, `[...]` each."""
    offload: Offload

    @property
    def place(self) -> str:
        """Where they are, as messages say it."""
        return {"host": "the host's memory", "disk": "the checkpoint's files"}[self.offload]


def streamed_layers(params: Mapping[str, Any]) -> StreamedLayers | None:
    """Return the layers among parameters, if they are streamed."""
    layers = params.get("layers")
    return layers if isinstance(layers, StreamedLayers) else None


def whole_shapes(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return parameters with, for layers that are streamed, what has their shapes and dtypes."""
    layers = streamed_layers(params)
    return params if layers is None else {**params, "layers": layers.shapes}


def layer_parameters(params: Mapping[str, Any], layer: int) -> Mapping[str, Any]:
    """Return one layer's parameters, `[...]` each, wherever they are."""
    layers = streamed_layers(params)
    if layers is not None:
        return put_layer(layers, layer, params)
    return jax.tree.map(lambda leaf: leaf[layer], params["layers"])


def digest_parameters(params: Mapping[str, Any]) -> str:
    """Return `digest_arrays` of parameters, the same wherever their layers are; those that are streamed are read."""
    layers = streamed_layers(params)
    if layers is None:
        return digest_arrays(params)
    outside = {name: each for name, each in params.items() if name != "layers"}
    of_others, structure = jax.tree.flatten(outside)
    sums = structure.unflatten(bit_sums(of_others))
    shapes, structure = jax.tree.flatten(layers.shapes)
    totals = [0] * len(shapes)
    for layer in range(shapes[0].shape[0]):
        of_layer = bit_sums(jax.tree.leaves(put_layer(layers, layer, params)), np.uint32(layer))
        totals = [(total + int(each)) % 2**32 for total, each in zip(totals, of_layer, strict=True)]
    sums["layers"] = structure.unflatten(totals)
    return digest_sums(whole_shapes(params), jax.tree.leaves(sums))


def check_loaded(params: Mapping[str, Any], model: str, what: str) -> None:
    """Refuse what can't be done with layers that come one at a time.

    Args:
      params: of the model.
      model: its name.
      what: is to be done, as in "attribution".

    Raises:
      SelectionError: they are streamed.
    """
    layers = streamed_layers(params)
    if layers is not None:
        raise SelectionError(
            f"{what} needs all layers of {model} on its devices at once, and they are streamed from {layers.place}. "
            f"Load it without offload={layers.offload!r}; or what the devices can't hold, over several: mesh=."
        )


R = TypeVar("R")


@dataclasses.dataclass(eq=False)
class Program(Generic[R]):
    """A function of `(network, params, ...)` that is compiled whole, or runs layer by layer where these are streamed.

    Within it, `run` runs the network.
    """

    function: Callable[..., R]
    compiled: Any

    def __call__(self, network: Transformer, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> R:
        """Run it."""
        chosen = self.compiled if streamed_layers(params) is None else self.function
        return chosen(_told_devices(network, params), params, *args, **kwargs)

    def trace(self, network: Transformer, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> jax.stages.Traced:
        """Return what would be compiled, traced for these parameters or for what has their shapes and places."""
        return self.compiled.trace(_told_devices(network, params), params, *args, **kwargs)

    def lower(self, network: Transformer, params: Mapping[str, Any], *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        """Return the same, lowered."""
        return self.trace(network, params, *args, **kwargs).lower()

    def __getattr__(self, name: str) -> Any:
        """Return what the compiled function has beside its call, `trace` and `lower`."""
        return getattr(self.compiled, name)


def _told_devices(network: Transformer, params: Mapping[str, Any]) -> Transformer:
    """Return the network told over how many devices it runs, if that matters to it and wasn't told: a mixture."""
    if not network.config.num_experts or network.devices is not None:
        return network
    return network.clone(devices=parallel.num_devices(params))


def program(*, static: Collection[str] = (), donate: Collection[str] = ()) -> Callable[[Callable[..., R]], Program[R]]:
    """Make a `Program` of a function, as a decorator; `static` and `donate` name arguments, besides `network`."""

    def decorate(function: Callable[..., R]) -> Program[R]:
        compiled = jax.jit(function, static_argnames=("network", *static), donate_argnames=tuple(donate))
        made = Program(function, compiled)
        functools.update_wrapper(made, function)
        return made

    return decorate


def run(
    network: Transformer,
    params: Mapping[str, Any],
    token_ids: jax.Array,
    attention_mask: jax.Array,
    pool_mask: jax.Array,
    first_slot: jax.Array | int = 0,
    *,
    variables: Mapping[str, Any] | None = None,
    saes: tuple[SAE, ...] = (),
    interventions: tuple[PlacedIntervention, ...] = (),
    sown: Collection[str] = (),
) -> tuple[jax.Array, Mapping[str, Any]]:
    """Run a network, wherever its layers' weights are.

    Args:
      network: with its taps.
      params: of the network.
      token_ids: see `Transformer.__call__`, as of `attention_mask`, `pool_mask`, `first_slot`, `saes`, `interventions`.
      attention_mask: of the tokens.
      pool_mask: of the tokens.
      first_slot: of the tokens.
      variables: further collections (chosen units, a cache); those that are None are left out. Of `steering` the
        collection, or gated maps, which are applied before the interventions.
      saes: that read.
      interventions: laid out.
      sown: names of the collections that are to be kept.

    Returns:
      What the network gives, and the collections.
    """
    given = {name: each for name, each in (variables or {}).items() if each}
    changes: tuple[PlacedIntervention | GatedMap, ...] = interventions
    if isinstance(given.get("steering"), tuple):
        changes = (*given.pop("steering"), *interventions)
    inputs = token_ids, attention_mask, pool_mask, first_slot
    layers = streamed_layers(params)
    if layers is not None:
        return _run_streamed(network, params, layers, inputs, given, saes, changes, tuple(sown))
    kept = list(sown) if sown else False
    result = network.apply({"params": params, **given}, *inputs, saes, changes, mutable=kept)
    return cast(tuple[jax.Array, Mapping[str, Any]], result if sown else (result, {}))


def _run_streamed(
    network: Transformer,
    params: Mapping[str, Any],
    layers: StreamedLayers,
    inputs: tuple[Any, ...],
    variables: Mapping[str, Any],
    saes: tuple[SAE, ...],
    interventions: tuple[PlacedIntervention | GatedMap, ...],
    sown: tuple[str, ...],
) -> tuple[jax.Array, Mapping[str, Any]]:
    """Run a network a layer at a time."""
    outside = {name: each for name, each in params.items() if name != "layers"}
    within = {name: each["layers"] for name, each in variables.items() if "layers" in each}
    beside = {name: {key: part for key, part in each.items() if key != "layers"} for name, each in variables.items()}
    carry, of_tokens, options = _enter(network, outside, beside, *inputs, saes, interventions)
    kept = []
    coming = put_layer(layers, 0, params)
    for layer in range(network.config.num_layers):
        here = coming
        carry, of_layer = _run_layer(network, here, within, np.int32(layer), carry, options, of_tokens, saes, sown=sown)
        kept.append(of_layer)
        if layer + 1 < network.config.num_layers:
            coming = put_layer(layers, layer + 1, params)  # while the device is at work
        jax.block_until_ready(carry)  # else all layers would be on their way before the first is done
    output, last = _leave(network, outside, beside, carry, of_tokens, sown=sown)
    by_layer = jax.tree.map(lambda *each: jnp.stack(each), *kept)
    collections = {
        name: {**last.get(name, {})} | ({"layers": by_layer[name]} if name in by_layer else {}) for name in sown
    }
    return output, collections


def put_layer(layers: StreamedLayers, layer: int, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Start a layer's way to the devices where the other parameters are, and return its arrays."""
    mesh = parallel.mesh_of(params)
    if mesh is not None:
        return parallel.replicate(layers.read(layer), mesh)
    return jax.device_put(layers.read(layer), params["embed"]["token"].sharding)


@functools.partial(jax.jit, static_argnames="network")
def _enter(
    network: Transformer,
    params: Mapping[str, Any],
    variables: Mapping[str, Any],
    token_ids: jax.Array,
    attention_mask: jax.Array,
    pool_mask: jax.Array,
    first_slot: jax.Array | int,
    saes: tuple[SAE, ...],
    interventions: tuple[PlacedIntervention | GatedMap, ...],
) -> tuple[Carry, LayerInputs, LayerOptions]:
    entrance = Entrance(*_fields(network))
    inputs = token_ids, attention_mask, pool_mask, first_slot, saes, interventions
    return cast(Any, entrance.apply({"params": params, **variables}, *inputs))


@functools.partial(jax.jit, static_argnames=("network", "sown"))
def _run_layer(
    network: Transformer,
    params: Mapping[str, Any],
    variables: Mapping[str, Any],
    layer: jax.Array,
    carry: Carry,
    options: LayerOptions,
    inputs: LayerInputs,
    saes: tuple[SAE, ...],
    *,
    sown: tuple[str, ...],
) -> tuple[Carry, Mapping[str, Any]]:
    """Run the block of a layer, whose number is data, so that one program serves all."""
    variables, options = jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False), (variables, options)
    )
    block = Block(*_fields(network))
    applied = block.apply({"params": params, **variables}, carry, options, inputs, saes, mutable=list(sown))
    (carry, _), kept = cast(Any, applied)
    return carry, kept


@functools.partial(jax.jit, static_argnames=("network", "sown"))
def _leave(
    network: Transformer,
    params: Mapping[str, Any],
    variables: Mapping[str, Any],
    carry: Carry,
    inputs: LayerInputs,
    *,
    sown: tuple[str, ...],
) -> tuple[jax.Array, Mapping[str, Any]]:
    exit_ = Exit(*_fields(network))
    return cast(Any, exit_.apply({"params": params, **variables}, carry, inputs, mutable=list(sown)))


def _fields(network: Transformer) -> tuple[Any, ...]:
    return network.config, network.taps, network.dtype, network.keeps, network.mesh, network.devices
