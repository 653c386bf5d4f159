"""Reads Hugging Face weight files tensor by tensor, and fills the stack's parameters from them."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util
from safetensors import SafetensorError, safe_open

from expertlens_jax.errors import CheckpointError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families.family import Family
from expertlens_jax.models.transformer import Transformer

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


@dataclasses.dataclass(frozen=True)
class WeightFiles:
    """A checkpoint's safetensors files, opened but not read."""

    files: Mapping[str, Any]
    """Tensor name to its open file."""
    where: str

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, without reading it."""
        return tuple(self.files[name].get_slice(name).get_shape())

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the dtype it is stored in."""
        return self.files[name].get_tensor(name)


def open_weights(directory: epath.Path) -> WeightFiles:
    """Opens a directory's safetensors: one file, or the shards that an index names.

    Raises:
      CheckpointError: there are none, or one is missing, truncated or damaged.
    """
    if (directory / INDEX_FILE).exists():
        index = json.loads((directory / INDEX_FILE).read_text())
        shards = sorted(set(index["weight_map"].values()))
    elif (directory / SINGLE_FILE).exists():
        shards = [SINGLE_FILE]
    else:
        raise CheckpointError(
            f"no weights in {directory}: looked for {SINGLE_FILE} and {INDEX_FILE}. "
            "Give a directory that save_pretrained wrote, with its weights as safetensors."
        )
    files: dict[str, Any] = {}
    for shard in shards:
        path = directory / shard
        if not path.exists():
            raise CheckpointError(
                f"{directory / INDEX_FILE} names the shard {shard}, which isn't there. Download it again."
            )
        try:
            file = safe_open(path, framework="numpy")
        except SafetensorError as error:
            raise CheckpointError(
                f"{path} ({path.stat().length:,} bytes) can't be read as safetensors: {error}. "
                "It is probably truncated; download it again."
            ) from error
        files |= dict.fromkeys(file.keys(), file)
    return WeightFiles(files, str(directory))


@dataclasses.dataclass(frozen=True)
class Source:
    """The tensor that a parameter comes from; one a layer, where its name holds `{layer}`."""

    tensor: str
    channels: np.ndarray | None = None
    """The rows to take, after any transposition to `[outputs, ...]`; None takes all."""
    stored_transposed: bool = False
    kernel: bool = False
    """Whether the parameter is a kernel, `[inputs, outputs]`."""

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """The parameter's shape that a stored tensor's shape makes."""
        rows_first = stored[::-1] if self.stored_transposed else stored
        taken = rows_first if self.channels is None else (len(self.channels), *rows_first[1:])
        # A fused layer is only as wide as it should be if its last channel exists.
        if self.channels is not None and rows_first and rows_first[0] <= self.channels.max():
            taken = rows_first
        return taken[::-1] if self.kernel else taken

    def take(self, stored: np.ndarray) -> np.ndarray:
        """The parameter's values out of the stored tensor."""
        rows_first = stored.T if self.stored_transposed else stored
        taken = rows_first if self.channels is None else rows_first[self.channels]
        return taken.T if self.kernel else taken


def parameter_sources(family: Family, config: TransformerConfig) -> dict[str, Source]:
    """Every parameter's source, by its path in the stack, with the names of the base model."""
    sources = {
        path: Source(tensor, kernel=path == "head") for path, tensor in family.tensors(config).items()
    }
    for site, linear in family.linears(config).items():
        path = "layers/" + site.replace(".", "/")
        sources[f"{path}/kernel"] = Source(
            f"{linear.module}.weight", linear.channels, linear.transposed, kernel=True
        )
        sources[f"{path}/bias"] = Source(f"{linear.module}.bias", linear.channels)
    return sources


def parameter_shapes(config: TransformerConfig, dtype: jnp.dtype) -> dict[str, jax.ShapeDtypeStruct]:
    """Every parameter of the stack by its path, as shape and dtype, without allocating any."""
    token = jnp.zeros((1, 1), jnp.int32)
    mask = jnp.ones((1, 1), bool)
    variables = jax.eval_shape(
        lambda key: Transformer(config, dtype=dtype).init(key, token, mask, mask), jax.random.key(0)
    )
    return traverse_util.flatten_dict(variables["params"], sep="/")


def read_parameters(
    weights: WeightFiles, family: Family, config: TransformerConfig, dtype: jnp.dtype
) -> dict[str, Any]:
    """Fills the stack's parameters from a checkpoint, one tensor at a time.

    Args:
      weights: the opened files.
      family: translates names.
      config: the translated config.
      dtype: of the parameters.

    Returns:
      The `params` collection; what is under `layers` is stacked `[layers, ...]`.

    Raises:
      CheckpointError: tensors are missing or unexpected (all are named), or one has another shape than the
        config asks for (named, with both shapes).
    """
    sources = parameter_sources(family, config)
    shapes = parameter_shapes(config, dtype)

    def stored_name(name: str) -> str:
        prefixed = family.prefix + name
        return prefixed if prefixed in weights.files else name

    plan = {}  # path to the stored names of its layers, or of itself
    for path in shapes:
        if path not in sources:
            raise CheckpointError(f"the {family.model_type} family states no tensor for the parameter {path}.")
        tensor = sources[path].tensor
        layers = range(config.num_layers) if path.startswith("layers/") else [0]
        plan[path] = [stored_name(tensor.format(layer=layer)) for layer in layers]
    _check_names(weights, family, {name for names in plan.values() for name in names}, config)

    params = {}
    for path, names in plan.items():
        source, wanted = sources[path], shapes[path].shape
        stacked = path.startswith("layers/")
        for name in names:
            found = source.shape(weights.shape(name))
            if found != (wanted[1:] if stacked else wanted):
                raise CheckpointError(
                    f"the tensor {name} in {weights.where} gives {path} the shape {list(found)}, "
                    f"but the config wants {list(wanted[1:] if stacked else wanted)}. "
                    "Do config.json and the weights belong to the same model?"
                )
        values = np.empty(wanted, dtype)
        for layer, name in enumerate(names):
            values[layer if stacked else ...] = source.take(weights.read(name))
        params[path] = jnp.asarray(values)
    return traverse_util.unflatten_dict(params, sep="/")


def _check_names(weights: WeightFiles, family: Family, wanted: set[str], config: TransformerConfig) -> None:
    """Every wanted tensor is there, and every tensor there is wanted or known not to be."""
    missing = sorted(wanted - weights.files.keys())
    ignored = re.compile(f"({re.escape(family.prefix)})?({family.ignored})")
    unexpected = sorted(
        name
        for name in weights.files.keys() - wanted
        if not ignored.fullmatch(name) and not (config.head == "tied" and name.startswith(family.head_names))
    )
    for kind, names in ("lacks", missing), ("has unexpected", unexpected):
        if names:
            shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise CheckpointError(
                f"the checkpoint in {weights.where} {kind} {len(names)} tensors for a "
                f"{family.model_type} model with this config: {shown}."
            )
