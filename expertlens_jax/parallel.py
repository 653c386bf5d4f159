"""Devices: a mesh over them, and arrays laid out on it."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def data_mesh() -> Mesh:
    """A one-dimensional mesh of this process's devices, with the axis `data`."""
    return Mesh(np.array(jax.local_devices()), ("data",))


def split_rows(tree: Any, mesh: Mesh) -> Any:
    """Lays arrays `[rows, ...]` out with the rows split over the mesh's `data` axis."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec("data")))


def replicate(tree: Mapping[str, Any], mesh: Mesh) -> Any:
    """Lays arrays out whole on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
