"""The expertise of a large job on disk: an xarray table in a zarr store, written as it grows, read lazily."""

import contextlib
import dataclasses
import errno
import json
import math
import os
import pathlib
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Generator, Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
import zarr.storage
from etils import epath

from expertlens_jax.errors import ExpertLensWarning, RunDirectoryError
from expertlens_jax.models import hub
from expertlens_jax.run_directory import is_local, write_text

STORE, PROGRESS = "expertise.zarr", "progress.json"
PACKED = "expertise.zarr.zip"
"""The file of a repository that is a table: the store's files, as they are, in one."""

SOUGHT = hub.Sought(
    "table of expertise",
    f"A table is an {PACKED} that el.push wrote; a steering is loaded by el.load_steering, a model by el.load_model.",
    RunDirectoryError,
    f"table's {PACKED}",
)
CONCEPTS_PER_CHUNK, UNITS_PER_CHUNK = 64, 8192
"""2 MB of float32: all units of one concept, and all concepts of one block of units, are both few files."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a run has done: kept in one small file that is replaced whole, after what it tells of was written."""

    finished: tuple[tuple[int, int], ...] = ()
    """Ranges of units whose rows are in the table, ascending and apart."""
    null_maximum: tuple[float, ...] = ()
    """`[permuted concepts]`: the highest average precision among the finished units."""
    complete: bool = False

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Progress":
        """Read it from what JSON made of it."""
        finished = tuple((first, last) for first, last in stored["finished"])
        return cls(finished, tuple(stored["null_maximum"]), stored["complete"])

    def covers(self, start: int, stop: int) -> bool:
        """Return whether all units from `start` up to `stop` are finished."""
        return any(first <= start and stop <= last for first, last in self.finished)

    def with_units(self, start: int, stop: int, null_maximum: np.ndarray) -> "Progress":
        """Return the progress after the units from `start` up to `stop`.

        Their own maxima are `[permuted concepts]`.
        """
        merged: list[tuple[int, int]] = []
        for first, last in sorted([*self.finished, (start, stop)]):
            if merged and first <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        highest = np.maximum(null_maximum, self.null_maximum) if self.null_maximum else null_maximum
        return dataclasses.replace(self, finished=tuple(merged), null_maximum=tuple(map(float, highest)))


def read_progress(workdir: epath.Path) -> Progress:
    """Return what a run has done so far; nothing, if it hasn't started."""
    file = workdir / PROGRESS
    return Progress.of(json.loads(file.read_text())) if file.exists() else Progress()


def write_progress(workdir: epath.Path, progress: Progress) -> None:
    """Replace the file."""
    write_text(workdir / PROGRESS, json.dumps(dataclasses.asdict(progress)) + "\n")


def table_bytes(variables: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]) -> int:
    """Return what a table takes on disk, uncompressed."""
    return sum(4 * math.prod(sizes[dim] for dim in dims) for dims in variables.values())


def create_table(workdir: epath.Path, coordinates: xr.Dataset, variables: Mapping[str, tuple[str, ...]]) -> None:
    """Make the store with its coordinates, and float32 variables that are NaN until they're written.

    Args:
      workdir: the run directory; a store that is there already is replaced.
      coordinates: of every dimension that the variables have.
      variables: names and dimensions.
    """
    store = workdir / STORE
    if store.exists():
        store.rmtree()
    coordinates.to_zarr(str(store), mode="w", consolidated=False)
    group = zarr.open_group(str(store), mode="r+")
    for name, dims in variables.items():
        shape = tuple(coordinates.sizes[dim] for dim in dims)
        chunks = _chunks(dims, shape)
        group.create_array(
            name, shape=shape, chunks=chunks, dtype=np.float32, fill_value=np.nan, dimension_names=list(dims)
        )


def _chunks(dims: Sequence[Hashable], shape: Sequence[int]) -> tuple[int, ...]:
    most: dict[Hashable, int] = {"concept": CONCEPTS_PER_CHUNK, "unit": UNITS_PER_CHUNK, "negatives": 1}
    return tuple(max(1, min(size, most.get(dim, size))) for dim, size in zip(dims, shape, strict=True))


def write_units(workdir: epath.Path, start: int, values: Mapping[str, np.ndarray]) -> None:
    """Write variables `[..., units]` of the units from `start` on."""
    for name, array in values.items():
        _array(workdir, name, mode="r+")[..., start : start + array.shape[-1]] = array


def write_concepts(workdir: epath.Path, start: int, values: Mapping[str, np.ndarray]) -> None:
    """Write variables `[concepts, units]` of the concepts from `start` on."""
    for name, array in values.items():
        _array(workdir, name, mode="r+")[start : start + len(array)] = array


def read_concepts(workdir: epath.Path, name: str, start: int) -> np.ndarray:
    """Return a variable of a chunk of concepts from `start` on, `[concepts, units]`."""
    return np.asarray(_array(workdir, name, mode="r")[start : start + CONCEPTS_PER_CHUNK])


def _array(workdir: epath.Path, name: str, *, mode: Literal["r", "r+"]) -> zarr.Array:
    return zarr.open_array(str(workdir / STORE), path=name, mode=mode)


def remove_leftovers(workdir: epath.Path) -> None:
    """Remove files that a killed process was writing beside their place; only if no process is."""
    if is_local(workdir):  # a bucket's objects appear whole
        for file in pathlib.Path(workdir / STORE).glob("**/*.partial"):
            file.unlink()


def open_expertise(
    workdir: epath.PathLike,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> xr.Dataset:
    """Open the table that `find_experts` wrote into a run directory, or `push` into a repository, without reading it.

        expertise = el.open_expertise("runs/pythia")
        expertise.average_precision.sel(concept="cat").values  # reads this concept's units only
        expertise = el.open_expertise("someone/pythia-experts", revision="step512")  # of the hub

    A table of the hub is read through once, to see that it is whole. Its attributes say which model it is of, as those
    of any other table: a steering made of it tells when it is given to another model (`Steering.transfer`).

    Args:
      workdir: the run directory, local or a bucket's; or a table's `expertise.zarr.zip`, or a directory that holds one,
        as a repository is when it is copied here. What doesn't exist as a path and has the form `owner/name` is taken
        for a repository's id.
      revision: of the repository: a branch, tag or commit.
      cache_dir: where downloads are kept; default huggingface_hub's own.
      token: of the hub, for gated and private repositories; default the one logged in with (`hf auth login`).

    Returns:
      A dataset over (concept, unit), float32, as `find_experts` describes it. Of a run that isn't done, the
      units that are.

    Warns:
      ExpertLensWarning: the run isn't done; or a copy of a repository here is taken, at a path that could be a
        repository's id.

    Raises:
      RunDirectoryError: there is no table, here or on the hub, it can't be reached, it is damaged, or none of its units
        is done; or settings of the hub beside a path.

    >>> import expertlens_jax as el, tempfile
    >>> model, run = el.load_model("lenslet-2m"), tempfile.mkdtemp()
    >>> concepts = el.load_concepts("facts").subset(["cat", "dog", "tiger"])
    >>> expertise = el.find_experts(model, concepts, run, sites="attn.v", permutations=0)
    >>> el.open_expertise(run).identical(expertise)
    True
    """
    fetched = hub.find_file(workdir, PACKED, SOUGHT, revision=revision, cache_dir=cache_dir, token=token)
    if fetched is not None:
        return open_packed(fetched)
    directory = epath.Path(workdir)
    for packed in (directory, directory / PACKED):
        if packed.is_file() and is_local(packed):
            hub.warn_of_path(workdir, SOUGHT)
            return open_packed(pathlib.Path(packed))
    if not (directory / STORE).exists():
        other = hub.may_be_repository(workdir)
        raise RunDirectoryError(
            f"{directory} holds no {STORE}. Give the workdir of el.find_experts, or of experiments.find_experts"
            + ("; for a repository of the hub of that name, run from another directory." if other else ".")
        )
    progress = read_progress(directory)
    dataset = xr.open_zarr(str(directory / STORE), consolidated=False, chunks=None)
    if progress.complete:
        return dataset
    if not progress.finished:
        raise RunDirectoryError(f"the run in {directory} has not ranked a unit yet. Launch it again to go on with it.")
    finished = np.concatenate([np.arange(first, last) for first, last in progress.finished])
    warnings.warn(
        ExpertLensWarning(
            f"the run in {directory} isn't done: {len(finished):,} of {dataset.sizes['unit']:,} units are ranked, and "
            "only these are given. Launch it again to go on with it."
        ),
        stacklevel=2,
    )
    return dataset.isel(unit=finished)


def pack_table(expertise: xr.Dataset, file: pathlib.Path) -> None:
    """Write a table of expertise into one file, which `open_packed` reads lazily; the same table gives the same bytes.

    Variables are read and written one after the other.
    """
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        plain = expertise.drop_encoding()
        fixed = {name: each.astype(object) for name, each in plain.coords.items() if each.dtype.kind == "U"}
        plain = plain.assign_coords(fixed)  # zarr has no lasting form of texts of a fixed length
        chunks = {name: {"chunks": _chunks(each.dims, each.shape)} for name, each in plain.data_vars.items()}
        plain.to_zarr(folder, mode="w", consolidated=False, zarr_format=3, encoding=chunks)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as packed:  # chunks are compressed already
            for path in sorted(pathlib.Path(folder).rglob("*")):
                if path.is_file():
                    entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # dated 1980
                    with path.open("rb") as source, packed.open(entry, "w", force_zip64=True) as target:
                        shutil.copyfileobj(source, target)


def open_packed(file: pathlib.Path) -> xr.Dataset:
    """Open a table that `pack_table` wrote, lazily, once all of its bytes are found to be as they were written.

    Raises:
      RunDirectoryError: it is damaged, or something else.
    """
    damaged, dataset = None, None
    try:
        with zipfile.ZipFile(file) as packed:
            damaged = packed.testzip()
        if damaged is None:
            # Of the third format: what the second may hold (pickled objects) is not to be read of a stranger's file.
            store = zarr.storage.ZipStore(file, mode="r")
            dataset = xr.open_zarr(store, consolidated=False, chunks=None, zarr_format=3)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, OSError, EOFError) as error:
        raise RunDirectoryError(
            f"{file} is no table of expertise that el.push wrote, or is damaged ({type(error).__name__}: {error}). Get "
            "it again, or tell its owner."
        ) from error
    if dataset is None:
        raise RunDirectoryError(f"{file} is damaged: {damaged} in it isn't as it was written. Get it again.")
    if not {"concept", "unit"} <= set(dataset.dims) or "average_precision" not in dataset:
        raise RunDirectoryError(
            f"{file} holds {', '.join(map(str, dataset.data_vars)) or 'no variables'} over "
            f"({', '.join(map(str, dataset.dims))}); a table of expertise has average_precision over (concept, unit)."
        )
    return dataset


@contextlib.contextmanager
def explained_write_errors(workdir: epath.Path) -> Generator[None]:
    """Turn a full disk into an error that says what to do.

    Raises:
      RunDirectoryError: the disk, or what the process may write, is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise RunDirectoryError(
            f"{workdir} could not be written to: {error.strerror}. What was written before is whole: free some space "
            "and launch again with the same settings, and the run goes on where it was."
        ) from error
