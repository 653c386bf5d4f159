"""Fills the stack's parameters from a checkpoint's tensors, one at a time, each device its own part."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

from expertlens_jax import parallel
from expertlens_jax.errors import CheckpointError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families.family import Family
from expertlens_jax.models.sharding import layer_sharding, parameter_sharding
from expertlens_jax.models.streaming import Offload, StreamedLayers, streamed_layers
from expertlens_jax.models.tensor_names import Named, by_base_name, wrapper_prefix
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.models.weights import DTYPES, StoredTensor, Weights


@dataclasses.dataclass(frozen=True)
class Source:
    """The tensor that a parameter comes from; one a layer, where its name holds `{layer}`."""

    tensor: str
    channels: np.ndarray | None = None
    """The rows to take, after any transposition to `[outputs, ...]`; None takes all."""
    stored_transposed: bool = False
    kernel: bool = False
    """Whether the parameter is a kernel, `[inputs, outputs]`."""
    by_expert: bool = False
    """Whether the parameter is `[experts, ...]`, and its tensors' name holds `{expert}`; all else is said of one."""

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the parameter's shape that a stored tensor's shape makes."""
        rows_first = stored[::-1] if self.stored_transposed else stored
        taken = rows_first if self.channels is None else (len(self.channels), *rows_first[1:])
        # A fused layer is only as wide as it should be if its last channel exists.
        if self.channels is not None and rows_first and rows_first[0] <= self.channels.max():
            taken = rows_first
        return taken[::-1] if self.kernel else taken

    def read(self, stored: StoredTensor, index: tuple[slice, ...]) -> np.ndarray:
        """Return the part of the parameter at `index`, a slice for each dimension, in the dtype it is stored in.

        Of the file only the rows between the first and the last that are wanted are read.
        """
        rows, *others = index[::-1] if self.kernel else index
        wanted = None
        if self.channels is not None:
            wanted = self.channels[rows]
            rows = slice(int(wanted.min()), int(wanted.max()) + 1)
        stored_index = (rows, *others)
        part = stored.read(stored_index[::-1] if self.stored_transposed else stored_index)
        part = part.T if self.stored_transposed else part
        if wanted is not None and not np.array_equal(wanted, np.arange(rows.start, rows.stop)):
            part = part[wanted - rows.start]
        return part.T if self.kernel else part


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of the stack, and where its values come from."""

    path: str
    shape: tuple[int, ...]
    """`[layers, ...]` for what is under `layers`."""
    source: Source
    tensors: tuple[str, ...]
    """The base model's names of the tensors, one for each layer, or just one; within a layer one for each expert. ""
    for a layer that doesn't use the parameter."""
    own_shapes: tuple[tuple[int, ...], ...] = ()
    """Of each tensor, where layers differ in width: the parameter has 0 beyond. () where they are alike."""

    @property
    def stacked(self) -> bool:
        """Whether the first dimension is layers."""
        return self.path.startswith("layers/")

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """The shape of the part that a tensor gives, or that its values stand at the beginning of."""
        return self.shape[self.stacked + self.source.by_expert :]

    def own_shape(self, place: int) -> tuple[int, ...]:
        """Return the shape that a tensor has, by its place among `tensors`."""
        return self.own_shapes[place] if self.own_shapes else self.tensor_shape

    def read(self, tensor: Callable[[str], StoredTensor], layer: int, index: tuple[slice, ...]) -> np.ndarray:
        """Return a layer's part of the parameter at `index`, a slice for each dimension, from its tensors by name."""
        if not self.source.by_expert:
            own = self.own_shape(layer)
            within = tuple(slice(each.start, min(each.stop, size)) for each, size in zip(index, own, strict=True))
            if within == index:
                return self.source.read(tensor(self.tensors[layer]), index)
            values = np.zeros([each.stop - each.start for each in index], np.float32)
            if all(each.start < each.stop for each in within):
                part = self.source.read(tensor(self.tensors[layer]), within)
                values = values.astype(part.dtype)
                values[tuple(slice(0, size) for size in part.shape)] = part
            return values
        experts, *within = index
        names = self.tensors[layer * self.shape[1] :][experts]
        parts = (self.source.read(tensor(name), tuple(within)) for name in names)
        first = next(parts)
        values = np.empty((len(names), *first.shape), first.dtype)
        for expert, part in enumerate(itertools.chain([first], parts)):
            values[expert] = _copy(part, part.dtype)
        return values


Plan = Mapping[str, Parameter]
"""Every parameter of a stack by its path."""

_AT_ONCE = 2**22
"""Parameters of at most so many numbers are placed whole, which compiles nothing; larger ones a layer at a time."""


def parameter_sources(family: Family, config: TransformerConfig) -> dict[str, Source]:
    """Return every parameter's source, by its path in the stack, with the names of the base model."""
    kernels = ("head", "kernel")
    sources = {
        path: Source(tensor, kernel=path.rpartition("/")[2] in kernels)
        for path, tensor in family.tensors(config).items()
    }
    for site, linear in family.linears(config).items():
        path = "layers/" + site.replace(".", "/")
        name, by_expert = linear.in_files, "{expert}" in linear.in_files
        kernel, bias = ("kernels", "biases") if by_expert else ("kernel", "bias")
        sources[f"{path}/{kernel}"] = Source(
            f"{name}.weight", linear.channels, linear.transposed, kernel=True, by_expert=by_expert
        )
        sources[f"{path}/{bias}"] = Source(f"{name}.bias", linear.channels, by_expert=by_expert)
    return sources


def plan_parameters(family: Family, config: TransformerConfig) -> Plan:
    """Return what to read for every parameter of the stack, known without the weights."""
    sources = parameter_sources(family, config)
    plan = {}
    for path, shape in parameter_shapes(config).items():
        if path not in sources:
            raise CheckpointError(f"the {family.model_type} family states no tensor for the parameter {path}.")
        tensor = sources[path].tensor
        layers = range(config.num_layers) if path.startswith("layers/") else [0]
        experts = range(config.num_experts) if sources[path].by_expert else [0]
        unused = set(config.unnormed_layers if path.startswith("layers/attn_norm/") else ())
        own: tuple[tuple[int, ...], ...] = ()
        if config.layers_differ and path.startswith("layers/") and not sources[path].by_expert:
            each = [parameter_shapes(config.of_layer(layer)).get(path) for layer in layers]
            unused |= {layer for layer, found in enumerate(each) if found is None}
            own = tuple(shape[1:] if found is None else found[1:] for found in each)
        names = tuple(
            "" if layer in unused else tensor.format(layer=layer, expert=expert)
            for layer in layers
            for expert in experts
        )
        plan[path] = Parameter(path, shape, sources[path], names, () if set(own) <= {shape[1:]} else own)
    return plan


def zero_beyond(params: Mapping[str, Any], config: TransformerConfig) -> dict[str, Any]:
    """Return parameters with 0 beyond what each layer has, as a checkpoint's are read, where layers differ in width."""
    if not config.layers_differ:
        return dict(params)
    by_layer = [parameter_shapes(config.of_layer(layer)) for layer in range(config.num_layers)]

    def kept(path: str, values: jax.Array) -> jax.Array:
        absent = values.shape if path.endswith("/scale") else (0,) * values.ndim  # norms that no layer reads are ones
        shapes = [shapes.get(path, absent) for shapes in by_layer]
        if not path.startswith("layers/") or {shape[1:] for shape in shapes} == {values.shape[1:]}:
            return values
        for axis in range(1, values.ndim):
            own = jnp.array([shape[axis] for shape in shapes])
            within = jnp.arange(values.shape[axis]) < own[:, None]  # [layers, channels]
            around = [other for other in range(1, values.ndim) if other != axis]
            values = jnp.where(jnp.expand_dims(within, around), values, 0)
        return values

    flat = traverse_util.flatten_dict(dict(params), sep="/")
    return traverse_util.unflatten_dict({path: kept(path, values) for path, values in flat.items()}, sep="/")


def first_layers(params: Mapping[str, Any], config: TransformerConfig) -> dict[str, Any]:
    """Return the parameters of a network's first layers, of `TransformerConfig.first_layers`, from those of all."""
    flat = traverse_util.flatten_dict(dict(params), sep="/")
    parts = {}
    for path, shape in parameter_shapes(config).items():
        whole = flat[path]
        parts[path] = whole if whole.shape == shape else whole[tuple(slice(0, size) for size in shape)]
    return traverse_util.unflatten_dict(parts, sep="/")


def up_to_layer(
    config: TransformerConfig, params: Mapping[str, Any], layer: int, *, most_bytes: int
) -> tuple[TransformerConfig, Mapping[str, Any]]:
    """Return a network's config and parameters up to a layer, where those above needn't run.

    The lower layers are copied, unless they are streamed: then they come one by one, and no others.

    Args:
      config: of the network.
      params: of the network, on the devices.
      layer: the last one that runs.
      most_bytes: that the copy may take on a device. The whole network is returned where it would take more, and where
        several hosts hold parts of it.
    """
    lower = config.first_layers(layer + 1)
    if streamed_layers(params) is not None:
        return lower, params
    if layer + 1 == config.num_layers or jax.process_count() > 1:
        return config, params
    shapes, whole = parameter_shapes(lower), traverse_util.flatten_dict(dict(params), sep="/")
    copied = sum(math.prod(shape) * whole[path].dtype.itemsize for path, shape in shapes.items() if "layers/" in path)
    if copied > most_bytes * (parallel.num_devices(params) or 1):
        return config, params
    return lower, first_layers(params, lower)


@lru_cache(maxsize=64)
def parameter_shapes(config: TransformerConfig) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of every parameter of the stack, by its path."""
    token, mask = np.zeros((1, 1), np.int32), np.ones((1, 1), bool)
    variables = jax.eval_shape(lambda key: Transformer(config).init(key, token, mask, mask), jax.random.key(0))
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(variables["params"], sep="/").items()}


Read = Callable[[Parameter, int, tuple[slice, ...]], np.ndarray]
"""Gives a parameter's values in a layer (0 for what isn't of a layer) at an index, a slice for each dimension of that
layer's values."""


def read_parameters(
    weights: Weights,
    family: Family,
    config: TransformerConfig,
    dtype: jnp.dtype,
    mesh: Mesh | None = None,
    offload: Offload | None = None,
) -> dict[str, Any]:
    """Convert a checkpoint into the stack's parameters; see `fill_parameters` for `dtype` and `mesh`.

    Args:
      weights: the opened files.
      family: translates names.
      config: the translated config, with the head that `tensor_names.settle_head` found.
      dtype: of the parameters.
      mesh: `(data, model)` or None.
      offload: where layers stay; None puts them on the devices.

    Returns:
      The `params` collection.

    Raises:
      CheckpointError: tensors are missing or unexpected (named), or one has another shape than the config
        asks for (named, with both shapes) or a dtype that isn't floating point, or two are the same one and
        differ. All before parameters are read.
    """
    plan = plan_parameters(family, config)
    named = by_base_name(weights, family, config)
    _check_names(weights, family, config, plan, named)
    for parameter in plan.values():
        for place, name in enumerate(parameter.tensors):
            if name:
                _check_tensor(weights, named[name], parameter, parameter.own_shape(place))

    def read(parameter: Parameter, layer: int, index: tuple[slice, ...]) -> np.ndarray:
        if not parameter.tensors[layer]:
            of_norm = parameter.path.endswith("/scale")
            return np.full([part.stop - part.start for part in index], float(of_norm), np.float32)
        return parameter.read(lambda name: named[name].tensor, layer, index)

    if offload is None:
        return fill_parameters(plan, read, dtype, mesh)
    others = {path: parameter for path, parameter in plan.items() if not parameter.stacked}
    return {**fill_parameters(others, read, dtype, mesh), "layers": stream_layers(plan, read, dtype, offload)}


def stream_layers(plan: Plan, read: Read, dtype: jnp.dtype, offload: Offload) -> StreamedLayers:
    """Return the layers among parameters as what gives one of them at a time, from where they are to stay.

    In the host's memory all are there at once from now on, one copy of each, pinned where the device has such memory;
    out of files each is read again whenever it is asked for.

    Args:
      plan: the parameters.
      read: gives their values, as for `fill_parameters`.
      dtype: of the parameters.
      offload: where they stay.
    """
    stacked = {path.removeprefix("layers/"): each for path, each in plan.items() if each.stacked}

    def read_layer(layer: int) -> dict[str, Any]:
        values = {
            path: np.asarray(read(parameter, layer, tuple(slice(0, size) for size in parameter.shape[1:])), dtype)
            for path, parameter in stacked.items()
        }
        return traverse_util.unflatten_dict(values, sep="/")

    shapes = {path: jax.ShapeDtypeStruct(parameter.shape, dtype) for path, parameter in stacked.items()}
    num_layers = next(iter(shapes.values())).shape[0]
    by_path = traverse_util.unflatten_dict(shapes, sep="/")
    if offload == "disk":
        return StreamedLayers(by_path, read_layer, offload)
    pinned = SingleDeviceSharding(jax.local_devices()[0], memory_kind="pinned_host")
    kept = [jax.block_until_ready(jax.device_put(read_layer(layer), pinned)) for layer in range(num_layers)]
    return StreamedLayers(by_path, kept.__getitem__, offload)


def fill_parameters(
    plan: Plan,
    read: Read,
    dtype: jnp.dtype,
    mesh: Mesh | None,
) -> dict[str, Any]:
    """Make parameters from parts that are read one layer of one parameter at a time; small ones all layers at once.

    On the host there is never more than one such layer, or one small parameter (on a mesh, of its parts that
    this host's devices hold): as it was read, and in the target dtype. Where devices share the host's memory
    (CPU), the peak is therefore the parameters in the target dtype and twice the largest tensor;
    `benchmarks/loading_memory.py` measures it.

    Args:
      plan: the parameters.
      read: gives their values.
      dtype: of the parameters.
      mesh: `(data, model)`: each device gets its own part (see `sharding.py`); None puts all on jax's default
        device.

    Returns:
      The `params` collection; what is under `layers` is stacked `[layers, ...]`.
    """
    params = {}
    for path, parameter in plan.items():
        sharding = parameter_sharding(path, parameter.shape, mesh)
        if not parameter.stacked:
            params[path] = _place(partial(read, parameter, 0), parameter.shape, dtype, sharding)
            continue
        if math.prod(parameter.shape) <= _AT_ONCE:
            params[path] = _place(partial(_read_layers, read, parameter), parameter.shape, dtype, sharding)
            continue
        values = jnp.zeros(parameter.shape, dtype, device=sharding)
        for layer in range(parameter.shape[0]):
            part = _place(partial(read, parameter, layer), parameter.shape[1:], dtype, layer_sharding(sharding))
            # Waiting keeps the next part from being read while this one is still held.
            values = jax.block_until_ready(_set_layer(values, part, layer))
        params[path] = values
    return traverse_util.unflatten_dict(params, sep="/")


def _read_layers(
    read: Callable[[Parameter, int, tuple[slice, ...]], np.ndarray], parameter: Parameter, index: tuple[slice, ...]
) -> np.ndarray:
    """Return the part of a parameter `[layers, ...]` at `index`; the first slice is of layers."""
    return np.stack([read(parameter, layer, index[1:]) for layer in range(parameter.shape[0])[index[0]]])


@partial(jax.jit, donate_argnums=0)
def _set_layer(values: jax.Array, part: jax.Array, layer: int) -> jax.Array:
    """Write one layer's `part` `[...]` into `values` `[layers, ...]`, in place since these are donated."""
    return jax.lax.dynamic_update_index_in_dim(values, part, layer, axis=0)


def _place(
    read: Callable[[tuple[slice, ...]], np.ndarray],
    shape: tuple[int, ...],
    dtype: jnp.dtype,
    sharding: Sharding,
) -> jax.Array:
    """Return an array `shape` on its devices; each part is read once."""
    parts: dict[tuple, np.ndarray] = {}  # devices along `data` hold the same

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        bounds = tuple(each.indices(size)[:2] for each, size in zip(index or (), shape, strict=True))
        if bounds not in parts:
            parts[bounds] = _copy(read(tuple(slice(*bound) for bound in bounds)), dtype)
        return parts[bounds]

    return jax.block_until_ready(jax.make_array_from_callback(shape, sharding, part))


def _copy(values: np.ndarray, dtype: jnp.dtype, columns: int = 16) -> np.ndarray:
    """Return the values in row-major order and `dtype`; a copy, unless they are that and nobody else's memory.

    A transposed view is copied a few columns at a time, each a row of what is stored: several times faster
    than at once, because every cache line is then filled before it leaves the cache.
    """
    if values.dtype == dtype and values.flags.c_contiguous and values.flags.owndata:
        return values
    if values.ndim < 2 or values.strides[-1] == values.itemsize:
        return np.array(values, dtype, order="C")
    copy = np.empty(values.shape, dtype)
    for start in range(0, values.shape[1], columns):
        copy[:, start : start + columns] = values[:, start : start + columns]
    return copy


def _check_tensor(weights: Weights, named: Named, parameter: Parameter, wanted: tuple[int, ...]) -> None:
    """Check that a tensor is floating point and makes the shape that the parameter wants."""
    name, stored = named.name, named.tensor
    found = parameter.source.shape(stored.shape)
    if found != wanted:
        raise CheckpointError(
            f"the tensor {name} in {weights.where}, stored as {list(stored.shape)}, gives {parameter.path} "
            f"the shape {list(found)}, but the config wants {list(wanted)}. "
            "Do config.json and the weights belong to the same model?"
        )
    if stored.dtype not in DTYPES:
        raise CheckpointError(
            f"the tensor {name} in {weights.where} is stored as {stored.dtype}; parameters are read from "
            "floating-point tensors of 16 to 64 bits. Give the original weights, not quantised ones."
        )


def _check_names(
    weights: Weights, family: Family, config: TransformerConfig, plan: Plan, named: Mapping[str, Named]
) -> None:
    """Check that every wanted tensor is there, and every tensor there is wanted or known not to be."""
    wanted = {name for parameter in plan.values() for name in parameter.tensors if name}
    tied = {parameter_sources(family, config)["head"].tensor} if config.head == "tied" else set()
    has_prefix = any(name.startswith(family.prefix) for name in weights.tensors)

    def as_stored(name: str) -> str:
        """Return a missing tensor's name as it would stand there."""
        return family.stored_name(name) if has_prefix else name

    missing = sorted(wanted - named.keys())
    unexpected = sorted(named[name].name for name in named.keys() - wanted - tied - _unread(family, config))
    problems = [
        f"{kind} {_listed(names)}"
        for kind, names in (("lacks", sorted(map(as_stored, missing))), ("has unexpected", unexpected))
        if names
    ]
    if not problems:
        return
    advice = ""
    if wrapper := wrapper_prefix(family, missing, weights.tensors):
        advice = f" The names begin with {wrapper}, which a wrapper put there: save the model inside it."
    elif missing and all(name.startswith(family.head_names) for name in missing):
        advice = (
            " Is the head the embedding, say tie_word_embeddings=true in config.json; PyTorch would draw it at random."
        )
    elif any(name.endswith(".qweight") for name in unexpected):
        advice = (
            " It is quantised by GPTQ or AWQ, and config.json doesn't say how: put what quantize_config.json (or "
            "quant_config.json) holds into it, as its quantization_config."
        )
    elif config.head is None and any(name.startswith(family.head_names) for name in unexpected):
        advice = " Its architectures name a model without a language head; if it has one, name that with it there."
    raise CheckpointError(
        f"the checkpoint in {weights.where} isn't the {family.model_type} model that its config.json "
        f"describes: it {'; and it '.join(problems)}.{advice}"
    )


def _unread(family: Family, config: TransformerConfig) -> set[str]:
    """Return the names of keys' and values' tensors of layers that take others', which files of Gemma 4 hold too."""
    layers = range(config.num_layers - config.shared_kv_layers, config.num_layers)
    sources = parameter_sources(family, config).items() if layers else ()
    of_keys = [source.tensor for path, source in sources if path.startswith(("layers/attn/k", "layers/attn/v"))]
    return {tensor.format(layer=layer) for tensor in of_keys for layer in layers}


def _listed(names: list[str], most: int = 40) -> str:
    """Name for an error, with their number; beyond `most` of them only the number."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} tensor{'s' * (len(names) != 1)} ({', '.join(names[:most])}{more})"
