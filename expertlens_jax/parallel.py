"""Devices: meshes over them, and arrays laid out on a mesh."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from expertlens_jax.errors import ExpertLensError

DATA, MODEL = "data", "model"
"""The names of a mesh's axes: rows of a batch are split over the first, parameters over the second."""


def make_mesh(model: int = 1) -> Mesh:
    """A mesh `(data, model)` of all devices, for models that one device can't hold.

    Args:
      model: over how many devices each parameter is split. The rest, `devices / model`, each work on other
        rows of a batch and hold the parameters again.

    Raises:
      ExpertLensError: `model` doesn't divide the number of devices.
    """
    devices = jax.devices()
    if model < 1 or len(devices) % model:
        raise ExpertLensError(
            f"a mesh with model={model} was asked for; {len(devices)} devices can be shared out with "
            f"model={', '.join(str(n) for n in range(1, len(devices) + 1) if len(devices) % n == 0)}."
        )
    return auto_mesh(np.array(devices).reshape(-1, model), (DATA, MODEL))


def data_mesh() -> Mesh:
    """A one-dimensional mesh of this process's devices, with the axis `data`."""
    return auto_mesh(np.array(jax.local_devices()), (DATA,))


def auto_mesh(devices: np.ndarray, axes: tuple[str, ...]) -> Mesh:
    """A mesh whose computations the compiler partitions by itself, as opposed to jax's explicit axes."""
    return Mesh(devices, axes, axis_types=(AxisType.Auto,) * len(axes))


def mesh_of(params: Any) -> Mesh | None:
    """The mesh that parameters are laid out on already; None for parameters on one device or the host."""
    for leaf in jax.tree.leaves(params):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding):
            return sharding.mesh
    return None


def place(params: Mapping[str, Any]) -> tuple[Mesh, Mapping[str, Any]]:
    """A mesh to run a model on, and its parameters there: as they are laid out already, or a copy on every device."""
    mesh = mesh_of(params)
    if mesh is not None:
        return mesh, params
    mesh = data_mesh()
    return mesh, replicate(params, mesh)


def split_rows(tree: Any, mesh: Mesh) -> Any:
    """Lays arrays `[rows, ...]` out with the rows split over the mesh's `data` axis."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(DATA)))


def replicate(tree: Mapping[str, Any], mesh: Mesh) -> Any:
    """Lays arrays out whole on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
