"""How much memory a large job may hold responses in, where they go, and in how many passes it is done."""

import dataclasses
import math
import numbers
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
from etils import epath

from expertlens_jax.errors import BudgetError
from expertlens_jax.experts.response_store import ResponseStore
from expertlens_jax.run_directory import is_local

GB = 10**9
_SHARE = 0.5  # of what is free, by default: the model's activations and the ranking need the rest


@dataclasses.dataclass(frozen=True)
class Budget:
    """Bytes that responses may take, in each place, and in how many passes over the sentences they are recorded.

    >>> import expertlens_jax as el
    >>> el.Budget(host=8 * 10**9, disk=0).device is None
    True
    """

    device: int | None = None
    """Each device's; None for half of what is free, as in the other places; 0 leaves a place out."""
    host: int | None = None
    """Each process's."""
    disk: int | None = None
    """Each process's, in its scratch directory."""
    passes: int | None = None
    """At least how many passes to make; None for as few as fit. Each pass that is done is kept when a run is killed."""

    store: ResponseStore | epath.PathLike | None = None
    """Where responses are kept for other runs, or its directory; None keeps none."""

    plain: ClassVar[Mapping[str, str]] = {"passes": "passes", "store": "store"}

    def __post_init__(self) -> None:
        """Check the values, and make a directory a store.

        Raises:
          BudgetError: one isn't an integer from 0 on, or `passes` from 1 on, or the store isn't one.
        """
        if isinstance(self.store, str | os.PathLike):
            object.__setattr__(self, "store", ResponseStore(self.store))
        if not isinstance(self.store, ResponseStore | None):
            raise BudgetError(
                f"store of a budget is {self.store!r}; wanted a directory, el.ResponseStore(directory, limit), or None."
            )
        for name in ("device", "host", "disk", "passes"):
            value, least = getattr(self, name), int(name == "passes")
            if value is not None and (
                not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least
            ):
                what = "a number of passes" if least else "bytes"
                raise BudgetError(f"{name} of a budget is {value!r}; wanted {what}, from {least} on, or None.")


def stated_budget(budget: Budget, scratch: epath.Path) -> Budget:
    """Return the budget with bytes for every place: half of what is free now where none are given.

    On a CPU, whose memory is the host's, that is none on the devices.

    Args:
      budget: as given.
      scratch: the directory that responses would spill to; a bucket is no place for it.
    """
    device = _SHARE * free_on_device()
    host = _SHARE * free_on_host()
    disk = _SHARE * free_disk(scratch) if is_local(scratch) else 0
    free = {"device": device, "host": host, "disk": disk}
    lacking = {place: int(size) for place, size in free.items() if getattr(budget, place) is None}
    return dataclasses.replace(budget, **lacking)


def free_on_device() -> int:
    """Return the free bytes of each of this process's devices; 0 on a CPU, and where the device doesn't say."""
    stats = None if jax.default_backend() == "cpu" else jax.local_devices()[0].memory_stats()
    return stats["bytes_limit"] - stats["bytes_in_use"] if stats else 0


def free_on_host() -> int:
    """Return the free bytes of the host's memory."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def free_for_model() -> int:
    """Return the free bytes where a model's parameters are: on a device, or on a CPU in the host's memory."""
    return free_on_host() if jax.default_backend() == "cpu" else free_on_device()


def free_disk(path: epath.Path) -> int:
    """Return the free bytes where a directory is or will be."""
    existing = next(each for each in (path, *path.parents) if each.exists())
    return shutil.disk_usage(os.fspath(existing)).free


@dataclasses.dataclass(frozen=True)
class Passes:
    """The plan of a job: each pass puts all sentences through the model and ranks the units of some layers."""

    place: str
    """Where a pass's responses wait to be ranked: "device", "host" or "disk"; or "store", where they stay."""
    layers: tuple[tuple[int, int], ...]
    """Of each pass, the first layer and the one after the last."""
    bytes_per_pass: int
    """What the largest pass's responses take, in that place: on each device, or in each process."""


def plan_passes(rows: int, channels_by_layer: Sequence[int], budget: Budget, *, devices: int) -> Passes:
    """Put responses where they fit: on the devices, else on the host, else on disk; else takes layers in groups.

    Args:
      rows: sentences that each device's share of a pass holds, filler included.
      channels_by_layer: units of each layer, `[layers]`.
      budget: what may be taken, stated for every place.
      devices: of each process.

    Raises:
      BudgetError: one layer's responses fit nowhere.
    """
    row_bytes = 4 * rows
    assert budget.device is not None and budget.host is not None and budget.disk is not None  # see `stated_budget`
    room = {"device": budget.device // row_bytes, "host": budget.host // (row_bytes * devices)}
    room["disk"] = budget.disk // (row_bytes * devices)
    num_layers, widest = len(channels_by_layer), max(channels_by_layer)
    total = sum(channels_by_layer)
    fitting = [place for place, units in room.items() if units >= total]
    place = fitting[0] if fitting else max(room, key=lambda place: (room[place], getattr(budget, place)))
    if room[place] < widest:
        scale = row_bytes * (1 if place == "device" else devices)
        raise BudgetError(
            f"one layer's responses take {format_bytes(widest * scale)} and the largest place for them, the {place}, "
            f"may hold {format_bytes(getattr(budget, place))}. Raise the budget, or ask for fewer sites or sentences, "
            "or more hosts."
        )
    layers_per_pass = min(num_layers, room[place] // widest) if not fitting else num_layers
    layers_per_pass = min(layers_per_pass, math.ceil(num_layers / (budget.passes or 1)))
    starts = range(0, num_layers, layers_per_pass)
    groups = tuple((start, min(start + layers_per_pass, num_layers)) for start in starts)
    groups = tuple((first, last) for first, last in groups if any(channels_by_layer[first:last]))
    largest = max(sum(channels_by_layer[first:last]) for first, last in groups)
    return Passes(place, groups, largest * row_bytes * (1 if place == "device" else devices))


def format_bytes(number: float) -> str:
    """Return bytes as people read them."""
    for unit, size in (("TB", 10**12), ("GB", GB), ("MB", 10**6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1000:.3g} kB"
