"""Pooled responses on disk, kept for the next question of the same sentences: recorded once, read by every run.

An entry holds the responses of one network, read in one way, to some sentences; it serves any of these sentences. What
decides is all that the numbers follow from to the last bit (`models.provenance`, and on what they were computed), and
each sentence's tokens. It is written beside its place and moved there when whole, with a CRC-32 of each block of units.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import numbers
import os
import pathlib
import shutil
import warnings
import zlib
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import filelock
import jax
import numpy as np
from etils import epath

from expertlens_jax import parallel
from expertlens_jax.errors import BudgetError, ExpertLensWarning
from expertlens_jax.experts.token_masks import PoolOver, check_pool_over
from expertlens_jax.models.digests import digest_json
from expertlens_jax.run_directory import is_local

if TYPE_CHECKING:
    from expertlens_jax.experts.responses import PreparedRecording

ENTRY, VALUES = "entry.json", "responses.float32"
UNITS_PER_BLOCK = 512
_VERSION = 1
_NOT_IN_KEY = ("model", "truncate", "sentences_sha256", "tokens_sha256")  # names, and what tokens say


@dataclasses.dataclass(frozen=True)
class ResponseStore:
    """A directory that keeps pooled responses, so that runs of `find_experts` on the same sentences record them once.

    >>> import expertlens_jax as el
    >>> el.ResponseStore("runs/responses", limit=10**10).limit
    10000000000
    """

    directory: epath.PathLike
    """Local; several runs may share it, also at the same time."""
    limit: int = 4 * 10**9
    """Bytes that it may hold. Responses that were not used for longest make room for new ones."""
    read_only: bool = False
    """Read what is kept, and keep nothing new."""
    beside: tuple[tuple[str, str], ...] = ()
    """(site, pooling) pairs, such as ("resid", "mean"): whenever sentences are read to keep a model's responses, its
    responses there are kept too, from the same pass, as they are computed whatever `significant_bits` says, if the
    limit is enough for both. Not of the site "sae"."""
    pool_over: tuple[PoolOver, ...] = ()
    """Which of a sentence's tokens, "concept" or "others" (see `Recording`): whenever `find_experts` reads sentences to
    keep a model's responses, those pooled over these tokens are kept too, from the same pass, for a table of them, if
    the limit is enough for all. Reading them doesn't keep them longer, as it does others."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
          BudgetError: a bucket's directory, a limit that isn't a number of bytes, or what is no pair `beside`.
          SelectionError: other tokens to pool over.
        """
        directory = os.fspath(self.directory)
        object.__setattr__(self, "directory", directory)
        if not directory or not is_local(epath.Path(directory)):
            raise BudgetError(f"a store of responses can't be in {directory!r}; wanted a local directory.")
        pairs = isinstance(self.beside, tuple | list) and all(
            isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(each, str) for each in pair)
            for pair in self.beside
        )
        if not pairs:
            raise BudgetError(
                f"beside of a store of responses is {self.beside!r}; wanted pairs of a site and a pooling, such as "
                '(("resid", "mean"),).'
            )
        object.__setattr__(self, "beside", tuple((site, pooling) for site, pooling in self.beside))
        given = (self.pool_over,) if isinstance(self.pool_over, str) else tuple(self.pool_over)
        for each in given:
            check_pool_over(each)
        object.__setattr__(self, "pool_over", tuple(each for each in dict.fromkeys(given) if each != "all"))
        if not isinstance(self.limit, numbers.Integral) or isinstance(self.limit, bool) or self.limit < 0:
            raise BudgetError(f"the limit of a store of responses is {self.limit!r}; wanted bytes, from 0 on.")

    def find(self, prepared: PreparedRecording) -> StoredResponses | None:
        """Return the responses if they are kept, and note that they were used.

        Warns:
          ExpertLensWarning: they are there, and damaged; they are removed.
        """
        wanted = sentence_digests(prepared)
        for entry in sorted(self._root.glob(f"{_key(prepared)}-*")):
            if entry.suffix:  # one that is being written
                continue
            try:
                stored = _read(entry, wanted)
            except FileNotFoundError:  # another process made room
                continue
            except (OSError, ValueError, KeyError) as error:
                warnings.warn(
                    ExpertLensWarning(f"the responses kept in {entry} are damaged ({error}); they are recorded again."),
                    stacklevel=3,
                )
                shutil.rmtree(entry, ignore_errors=True)
                continue
            if stored is not None:
                # Those over some tokens serve one table, others several: so these are kept longer.
                if prepared.provenance.pool_over == "all":
                    with contextlib.suppress(OSError):
                        os.utime(entry)
                return stored
        return None

    @contextlib.contextmanager
    def entry(self, prepared: PreparedRecording) -> Generator[StoredResponses | None]:
        """Give room for the responses, to be filled within the context; they are kept at its end.

        Yields:
          The room; None if another process is recording the same, if there is none, or of a store that is read only.

        Warns:
          ExpertLensWarning: the responses are more than the store, or the disk, may hold.
        """
        if self.read_only:
            yield None
            return
        digests, shape, size = sentence_digests(prepared), _shape(prepared), _size(prepared)
        if size > self.limit:
            _tell(self, f"they take {size:,} bytes, and its limit is {self.limit:,}")
            yield None
            return
        entry = self._root / f"{_key(prepared)}-{digest_json(digests)[:16]}"
        partial, lock = entry.with_suffix(".partial"), filelock.FileLock(entry.with_suffix(".lock"), timeout=0)
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout:
            yield None
            return
        except OSError as error:
            _tell(self, str(error.strerror or error))
            yield None
            return
        try:
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            self._make_room(size, entry)
            room = _make(partial, shape, size)
            if isinstance(room, OSError):
                _tell(self, str(room.strerror or room))
                yield None
                return
            yield StoredResponses(room, np.arange(len(digests)), len(prepared.units))
            room.flush()
            described = {
                "version": _VERSION,
                "key": _described(prepared),
                "units": len(prepared.units),
                "sentences": digests,
                "crc32": [zlib.crc32(block) for block in room],
            }
            (partial / ENTRY).write_text(json.dumps(described) + "\n")
            with contextlib.suppress(OSError):  # another process kept the same a moment ago
                partial.rename(entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            lock.release()

    def may_hold(self, *recordings: PreparedRecording) -> bool:
        """Return whether the limit is enough for all of these at once."""
        return sum(map(_size, recordings)) <= self.limit

    @property
    def _root(self) -> pathlib.Path:
        return pathlib.Path(self.directory)

    def _make_room(self, size: int, new: pathlib.Path) -> None:
        """Remove entries, the one that wasn't used for longest first, until so many bytes more are within the limit.

        What a killed process was writing goes too.
        """
        for leftover in self._root.glob("*.partial"):
            with (
                contextlib.suppress(filelock.Timeout, OSError),
                filelock.FileLock(leftover.with_suffix(".lock"), timeout=0),
            ):
                shutil.rmtree(leftover, ignore_errors=True)
        entries = []
        for file in self._root.glob(f"*/{VALUES}"):
            with contextlib.suppress(OSError):
                entries.append((file.parent.stat().st_mtime, file.parent, file.stat().st_size))
        held = sum(each for *_, each in entries)
        for _, entry, each in sorted(entries):
            if held + size <= self.limit:
                return
            if entry.suffix or entry == new:
                continue
            shutil.rmtree(entry, ignore_errors=True)
            held -= each


@dataclasses.dataclass(frozen=True, eq=False)
class StoredResponses:
    """Responses in a store: a `ResponseBuffer` that lies on disk, and stays."""

    values: np.ndarray
    """float32 `[blocks, sentences of the entry, UNITS_PER_BLOCK]`, zeros beyond the last unit."""
    rows: np.ndarray
    """int `[sentences]`: where in the entry those that were asked for are."""
    num_units: int
    first_unit: int = 0
    """That of the pass; the responses of all passes are here."""

    def put(self, responses: jax.Array, offset: int, rows: np.ndarray) -> None:
        """See `ResponseBuffer`."""
        del offset  # sentences stand in their own order
        values = np.asarray(responses)[: len(rows)]
        for block, start in enumerate(range(0, self.num_units, UNITS_PER_BLOCK)):
            columns = values[:, start : start + UNITS_PER_BLOCK]
            self.values[block, rows, : columns.shape[1]] = columns

    def blocks(self, start: int, width: int) -> np.ndarray:
        """See `ResponseBuffer`."""
        devices = jax.local_device_count()
        taken = np.zeros((devices, len(self.rows), width // devices), np.float32)
        for number, of_device in enumerate(taken):
            first = self.first_unit + start + number * of_device.shape[1]
            self._copy(first, of_device[:, : max(0, self.num_units - first)])
        return taken

    def _copy(self, first: int, into: np.ndarray) -> None:
        """Copy units from the first on into `[sentences, units]`."""
        done = 0
        while done < into.shape[1]:
            block, within = divmod(first + done, UNITS_PER_BLOCK)
            columns = self.values[block, :, within : within + into.shape[1] - done]
            into[:, done : done + columns.shape[1]] = columns[self.rows]
            done += columns.shape[1]

    def of_all_units(self) -> np.ndarray:
        """Return all responses, float32 `[sentences, units]`."""
        taken = np.empty((len(self.rows), self.num_units), np.float32)
        self._copy(0, taken)
        return taken

    def of_unit(self, unit: int) -> np.ndarray:
        """Return one unit's responses, float32 `[sentences]`."""
        block, within = divmod(unit, UNITS_PER_BLOCK)
        return np.array(self.values[block, self.rows, within])

    def free(self) -> None:
        """See `ResponseBuffer`; what is kept is kept."""


def sentence_digests(prepared: PreparedRecording) -> list[str]:
    """Return, of each sentence's tokens, and which of them are pooled over: equal ones have equal responses."""
    return [
        hashlib.sha256(ids.astype(np.int32).tobytes() + own.astype(bool).tobytes()).hexdigest()[:24]
        for ids, own in zip(prepared.tokens.ids, prepared.tokens.in_pool, strict=True)
    ]


def _described(prepared: PreparedRecording) -> dict[str, Any]:
    """Return all that a sentence's responses follow from, to the last bit, beside its tokens."""
    said = {name: value for name, value in prepared.provenance.settings().items() if name not in _NOT_IN_KEY}
    device = prepared.mesh.devices.flat[0]
    return said | {
        "device": f"{device.platform} {device.device_kind}",
        "devices_per_parameter": prepared.mesh.shape.get(parallel.MODEL, 1),
        "jax": importlib.metadata.version("jax"),
        "jaxlib": importlib.metadata.version("jaxlib"),
    }


def _key(prepared: PreparedRecording) -> str:
    return digest_json([_VERSION, _described(prepared)])[:24]


def _shape(prepared: PreparedRecording) -> tuple[int, int, int]:
    """Return the shape of the file of responses."""
    return -(-len(prepared.units) // UNITS_PER_BLOCK), len(prepared.tokens.ids), UNITS_PER_BLOCK


def _size(prepared: PreparedRecording) -> int:
    """Return how many bytes they take."""
    return 4 * int(np.prod(_shape(prepared), dtype=np.int64))


def _make(partial: pathlib.Path, shape: Sequence[int], size: int) -> np.memmap | OSError:
    """Return a file of zeros, whose bytes are all there: a disk that is full says so now, and not by a crash later."""
    try:
        partial.mkdir(parents=True)
        with (partial / VALUES).open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
            else:
                file.truncate(size)
        return np.memmap(partial / VALUES, np.float32, mode="r+", shape=tuple(shape))
    except OSError as error:
        return error


def _read(entry: pathlib.Path, wanted: Sequence[str]) -> StoredResponses | None:
    """Return an entry's responses to some sentences; None if it hasn't got them all.

    Raises:
      FileNotFoundError: it isn't there any more.
      OSError, ValueError, KeyError: it isn't as it was written.
    """
    described = json.loads((entry / ENTRY).read_text())
    digests, num_units = described["sentences"], described["units"]
    place = {digest: row for row, digest in enumerate(digests)}
    if not all(digest in place for digest in wanted):
        return None
    shape = -(-num_units // UNITS_PER_BLOCK), len(digests), UNITS_PER_BLOCK
    if (found := (entry / VALUES).stat().st_size) != 4 * int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"{VALUES} has {found} bytes")
    values = np.memmap(entry / VALUES, np.float32, mode="r", shape=shape)
    if [zlib.crc32(block) for block in values] != described["crc32"]:
        raise ValueError(f"{VALUES} isn't as it was written")
    return StoredResponses(values, np.array([place[digest] for digest in wanted]), num_units)


def _tell(store: ResponseStore, why: str) -> None:
    warnings.warn(
        ExpertLensWarning(
            f"these responses can't be kept in {store.directory} ({why}); they are recorded for this run alone. Give "
            "el.ResponseStore a larger limit, or a directory with room."
        ),
        stacklevel=5,
    )
