"""How parameters are split over a mesh's `model` axis, a rule for each kind, and what is computed with them.

Where a pass is told its mesh, the residual stream is split by its channels, and gathered once for all that read it; the
sums of what writes to it are scattered. Without being told, the compiler gathers it for each reader anew.
"""

import re

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from expertlens_jax.parallel import DATA, MODEL

RULES: tuple[tuple[str, tuple[int, ...]], ...] = (
    # Path of the parameter (see `transformer.py`), and its dimensions in the order in which to try them.
    # Those of a layer's parameter are counted without the leading [layers], which is never split.
    (
        r"embed/(token|position|type|per_layer_token)",
        (0, 1),
    ),  # [vocabulary, d_model]: by vocabulary, or else by channels
    (r"head", (1, 0)),  # [d_model, vocabulary]
    (r"head_bias", (0,)),
    # What reads the residual stream is split by its outputs, so that each device computes its own channels
    # ...
    (r"layers/(attn/[qkv]|mlp/(shared_)?(gate|up)|per_layer_gate)/kernel", (1, 0)),
    (r"embed/per_layer/kernel", (1, 0)),
    (r"layers/(attn/[qkv]|mlp/(shared_)?(gate|up))/bias", (0,)),
    # ... and what writes to it by its inputs, so that these channels needn't be gathered first, only the
    # sums.
    (r"layers/(attn/out|mlp/(shared_)?down|per_layer_out)/kernel", (0, 1)),
    # An expert's MLP stays on one device, where the axis divides the experts; [experts, inputs, outputs].
    (r"layers/mlp/(gate|up)/kernels", (0, 2, 1)),
    (r"layers/mlp/(gate|up)/biases", (0, 1)),
    (r"layers/mlp/down/kernels", (0, 1, 2)),
    (r"layers/mlp/down/biases", (0,)),
    (
        r".*",
        (),
    ),  # norms, routers, numbers of layers, and biases of what writes to the residual stream: whole everywhere
)


def partition(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Return how one parameter is split over the mesh's `model` axis.

    Args:
      path: of the parameter, as `layers/attn/q/kernel`.
      shape: its full shape, `[layers, ...]` for those of layers.
      mesh: with the axis `model`.

    Returns:
      A spec that splits the first dimension of the parameter's rule that the axis divides; if there is none,
      the parameter is whole on every device.
    """
    stacked = int(path.startswith("layers/"))
    dimensions = next(dimensions for pattern, dimensions in RULES if re.fullmatch(pattern, path))
    for dimension in dimensions:
        if shape[stacked + dimension] % mesh.shape[MODEL] == 0:
            return PartitionSpec(*(None,) * (stacked + dimension), MODEL)
    return PartitionSpec()


def parameter_sharding(path: str, shape: tuple[int, ...], mesh: Mesh | None) -> Sharding:
    """Return where one parameter goes: split over the mesh by its rule, or, without one, on jax's default device."""
    if mesh is None:
        return jnp.zeros(()).sharding
    return NamedSharding(mesh, partition(path, shape, mesh))


def layer_sharding(sharding: Sharding) -> Sharding:
    """Return the sharding of one layer of parameters `[layers, ...]`, given the sharding of them all."""
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    return sharding


def split_channels(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Have the channels of activations `[batch, tokens, channels]` split over the `model` axis, if it divides them."""
    return _laid_out(x, mesh, DATA, None, MODEL)


def gather_channels(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Have the channels of activations `[batch, tokens, channels]` whole on every device of the `model` axis."""
    return _laid_out(x, mesh, DATA, None, None)


def split_heads(x: jax.Array, mesh: Mesh | None, num_kv_heads: int) -> jax.Array:
    """Have queries, keys or values `[batch, tokens, heads * head_dim]` split so that no device has a part of a head.

    By channels, where the `model` axis divides the heads of keys and with them those of queries; else by rows.
    """
    if mesh is None or num_kv_heads % mesh.shape[MODEL] == 0:
        return split_channels(x, mesh)
    return split_rows(x, mesh)


def split_rows(x: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Have the first axis of an array split over all devices of the mesh, if they divide it."""
    return _laid_out(x, mesh, (DATA, MODEL), *[None] * (x.ndim - 1))


def _laid_out(x: jax.Array, mesh: Mesh | None, *axes: str | tuple[str, ...] | None) -> jax.Array:
    """Lay an array out over the mesh, unless there is none, or an axis doesn't divide the dimension."""
    if mesh is None:
        return x
    for size, names in zip(x.shape, axes, strict=True):
        for name in (names,) if isinstance(names, str) else names or ():
            if size % mesh.shape[name]:
                return x
            size //= mesh.shape[name]
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*axes)))
