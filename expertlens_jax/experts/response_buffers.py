"""Responses between recording and ranking: written by sentence as the model gives them, read by unit.

Each device keeps the rows that it computed, `[rows of a device, units]`, on itself, in the host's memory or on disk.
A block of units of all sentences is then put together on the devices: one all-to-all turns rows split over devices
into units split over devices.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from expertlens_jax.models.tokens import Batch


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Which device keeps which sentence: known from the batches, before anything is computed.

    A batch's rows are split over all devices of the mesh in order, and each device appends its part to its own.
    """

    mesh: Mesh
    rows_per_device: int
    """How many rows each device keeps, filler included; the same for all."""
    row_of: np.ndarray
    """int32 `[sentences]`: where each sentence stands among all devices' rows, one device's after the other's."""
    offsets: tuple[int, ...]
    """`[batches]`: each batch's first row on every device."""

    @property
    def by_rows(self) -> NamedSharding:
        """Rows split over all devices."""
        return NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))

    @property
    def local_devices(self) -> list[jax.Device]:
        """This process's devices, in the mesh's order, which is that of its rows."""
        return [device for device in self.mesh.devices.flat if device.process_index == jax.process_index()]


def lay_out(batches: Iterable[Batch], mesh: Mesh, num_sentences: int) -> Layout:
    """Return the layout of the batches of a pass."""
    row_of = np.empty(num_sentences, np.int32)
    parts, offsets, offset = [], [], 0
    for batch in batches:
        rows_per_device = len(batch.token_ids) // mesh.size
        parts.append((batch.rows, rows_per_device, offset))
        offsets.append(offset)
        offset += rows_per_device
    for rows, rows_per_device, start in parts:
        device, within = np.divmod(np.arange(len(rows)), rows_per_device)
        row_of[rows] = device * offset + start + within
    return Layout(mesh, offset, row_of, tuple(offsets))


class ResponseBuffer(Protocol):
    """Where a pass's responses wait."""

    def put(self, responses: jax.Array, offset: int, rows: np.ndarray) -> None:
        """Keep a batch's responses, `[batch, units]` split over all devices by rows.

        Args:
          responses: filler rows last.
          offset: the batch's first row on every device, see `Layout`.
          rows: int `[real rows]`: which sentences these are.
        """

    def blocks(self, start: int, width: int) -> np.ndarray | jax.Array:
        """Return the units from `start` on, `[this process's devices, sentences, width / all devices]`.

        Beyond the last unit there are zeros.
        """

    def free(self) -> None:
        """Give the memory or the file back."""


class DeviceBuffer:
    """On the devices themselves: float32 `[all devices' rows, units]`, split by rows."""

    def __init__(self, layout: Layout, num_units: int) -> None:
        """Take the memory."""
        self._layout = layout
        shape = (layout.mesh.size * layout.rows_per_device, num_units)
        self._values = jax.jit(lambda: jnp.zeros(shape, jnp.float32), out_shardings=layout.by_rows)()
        self._put = put_rows(layout.mesh)
        self._take = take_columns(layout.mesh)

    def put(self, responses: jax.Array, offset: int, rows: np.ndarray) -> None:
        """See `ResponseBuffer`."""
        del rows  # the layout knows
        self._values = self._put(self._values, jax.device_put(responses, self._layout.by_rows), jnp.int32(offset))

    def blocks(self, start: int, width: int) -> jax.Array:
        """See `ResponseBuffer`."""
        return gather_block(self._take(self._values, jnp.int32(start), width), self._layout)

    def free(self) -> None:
        """See `ResponseBuffer`."""
        self._values.delete()


@functools.cache
def put_rows(mesh: Mesh) -> jax.stages.Wrapped:
    """Return a jitted (values, batch, offset) -> values with the batch's rows in each device's own, in place."""
    rows, whole = PartitionSpec(mesh.axis_names), PartitionSpec()

    def put(values: jax.Array, batch: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice(values, batch, (offset, 0))

    on_each = jax.shard_map(put, mesh=mesh, in_specs=(rows, rows, whole), out_specs=rows)
    return jax.jit(on_each, donate_argnums=0)


@functools.cache
def take_columns(mesh: Mesh) -> jax.stages.Wrapped:
    """Return a jitted (values, start, width) -> columns, each device its own rows'; zeros beyond the last column."""
    rows = PartitionSpec(mesh.axis_names)

    @functools.partial(jax.jit, static_argnames="width")
    def take(values: jax.Array, start: jax.Array, width: int) -> jax.Array:
        def own(values: jax.Array, start: jax.Array) -> jax.Array:
            columns = start + jnp.arange(width)
            taken = jnp.take(values, jnp.minimum(columns, values.shape[1] - 1), axis=1)
            return jnp.where(columns < values.shape[1], taken, 0)

        return jax.shard_map(own, mesh=mesh, in_specs=(rows, PartitionSpec()), out_specs=rows)(values, start)

    return take


class HostBuffer:
    """In the host's memory or in a file: float32 `[blocks, this process's rows, width]`, read a block at a time."""

    def __init__(self, layout: Layout, num_units: int, width: int, file: epath.Path | None = None) -> None:
        """Take the memory, or makes the file.

        Args:
          layout: of the pass.
          num_units: of the pass.
          width: units that are read at a time, or a multiple.
          file: where to keep the values; None keeps them in memory.
        """
        self._layout, self._num_units, self._width, self._file = layout, num_units, width, file
        shape = (-(-num_units // width), len(layout.local_devices) * layout.rows_per_device, width)
        if file is None:
            self._values = np.zeros(shape, np.float32)
        else:
            self._values = np.memmap(file, np.float32, mode="w+", shape=shape)

    def put(self, responses: jax.Array, offset: int, rows: np.ndarray) -> None:
        """See `ResponseBuffer`."""
        del rows  # the layout knows
        shards = {shard.device: shard.data for shard in responses.addressable_shards}
        for i, device in enumerate(self._layout.local_devices):
            part = np.asarray(shards[device])
            first = i * self._layout.rows_per_device + offset
            for block, start in enumerate(range(0, self._num_units, self._width)):
                columns = part[:, start : start + self._width]
                self._values[block, first : first + len(part), : columns.shape[1]] = columns

    def blocks(self, start: int, width: int) -> jax.Array:
        """See `ResponseBuffer`."""
        block, within = divmod(start, self._width)
        local = self._values[block, :, within : within + width]
        if local.shape[1] < width:
            local = np.pad(local, ((0, 0), (0, width - local.shape[1])))
        shape = (self._layout.mesh.size * self._layout.rows_per_device, width)
        rows = jax.make_array_from_process_local_data(self._layout.by_rows, np.ascontiguousarray(local), shape)
        return gather_block(rows, self._layout)

    def free(self) -> None:
        """See `ResponseBuffer`."""
        del self._values
        if self._file is not None:
            self._file.unlink()


def gather_block(columns: jax.Array, layout: Layout) -> jax.Array:
    """Turn rows split over devices into units split over devices, in the order of the sentences.

    Args:
      columns: float32 `[all devices' rows, devices * units]`, split by rows.
      layout: of the pass.

    Returns:
      float32 `[this process's devices, sentences, units]`, each device its own, as `ranking.rank_blocks` wants it.
    """
    gathered = exchange(layout.mesh)(columns, layout.row_of)
    shards = {shard.device: shard.data for shard in gathered.addressable_shards}
    devices = layout.local_devices
    local = NamedSharding(Mesh(np.array(devices), ("units",)), PartitionSpec("units"))
    shape = (len(devices), *gathered.shape[1:])
    return jax.make_array_from_single_device_arrays(shape, local, [shards[device] for device in devices])


@functools.cache
def exchange(mesh: Mesh) -> jax.stages.Wrapped:
    """Return a jitted (columns, order) -> `[devices, sentences, units]` split over devices."""
    axes = mesh.axis_names

    @jax.jit
    def gather(columns: jax.Array, order: jax.Array) -> jax.Array:
        def own(rows: jax.Array, order: jax.Array) -> jax.Array:
            units = jax.lax.all_to_all(rows, axes, split_axis=1, concat_axis=0, tiled=True)
            return jnp.take(units, order, axis=0)[None]

        return jax.shard_map(
            own, mesh=mesh, in_specs=(PartitionSpec(axes), PartitionSpec()), out_specs=PartitionSpec(axes)
        )(columns, order)

    return gather
