"""Converted parameters, kept with orbax, so that a checkpoint is converted once for all shapes of meshes.

An entry is a directory named by a key of everything the parameters follow from, with an orbax checkpoint for
each layer and each part outside them, so that never more than that is on its way. It is written beside its
place and moved there when complete, with the length and CRC-32 of each of its files in `files.json`; an entry
without that file, or that differs from it, is never used.
"""

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import re
import shutil
import warnings
import zlib
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import filelock
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from jax.sharding import Mesh

from expertlens_jax.errors import CheckpointError, ExpertLensWarning
from expertlens_jax.models.checkpoint import Parameter, Plan, fill_parameters
from expertlens_jax.models.provenance import NUMBERS_VERSION

FILES = "files.json"
LAYERS = "layers"
CHUNK = 2**26  # bytes of an array in a file, and read at a time: the C library gives back a freed block of this size


def entry_key(files: list[pathlib.Path], plan: Plan, dtype: str, quantised: str = "") -> str:
    """Return the name of the entry for these source files, read by this plan, in this dtype.

    Args:
      files: the weight files. A file downloaded by huggingface_hub goes by the name of its blob, which the
        hub made of its content; of any other file the content is hashed (about a second a gigabyte).
      plan: where each parameter comes from. It follows from config.json and the family's translation, so that
        a change of either gives another key; so does a version of this package that reads files otherwise
        (`NUMBERS_VERSION`).
      dtype: of the parameters.
      quantised: what tells the settings by which the files are dequantised from others, see `Quantisation.key`.
    """
    key = hashlib.sha256(f"{NUMBERS_VERSION}\0{dtype}{quantised}".encode())
    for path in sorted(files, key=lambda path: path.name):
        key.update(f"\0{path.name}\0{content_id(path)}".encode())
    for path, parameter in sorted(plan.items()):
        source = parameter.source
        layout = (path, parameter.shape, parameter.tensors, source.stored_transposed, source.kernel)
        layout += (parameter.own_shapes,) if parameter.own_shapes else ()
        channels = b"" if source.channels is None else source.channels.astype("<i8").tobytes()
        key.update(repr(layout).encode() + channels)
    return key.hexdigest()[:40]


def content_id(path: pathlib.Path) -> str:
    """Return what tells a file's content from another's: the hub's hash of it if known, else its SHA-256."""
    blob = pathlib.Path(os.readlink(path)) if path.is_symlink() else path
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
        return blob.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def restore_parameters(entry: pathlib.Path, plan: Plan, dtype: jnp.dtype, mesh: Mesh | None) -> dict[str, Any] | None:
    """Read an entry onto a mesh, of whatever shape, as a checkpoint is read: see `fill_parameters`.

    Restoring with orbax holds everything twice for a while; so the arrays are opened with TensorStore, which
    orbax wrote them with, and read piece by piece.

    Args:
      entry: its directory.
      plan: of the parameters.
      dtype: of the parameters.
      mesh: `(data, model)`, or None for jax's default device.

    Returns:
      The `params` collection; or None if there is no entry, or, with an ExpertLensWarning, if it is damaged.
    """
    if not entry.exists():
        return None

    def read(parameter: Parameter, layer: int, index: tuple[slice, ...]) -> np.ndarray:
        top, *names = parameter.path.split("/")
        checkpoint = f"{top}_{layer}" if parameter.stacked else top
        path = entry / checkpoint / ".".join(names if parameter.stacked else [top, *names])
        stored = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}
        array = tensorstore.open(stored, open=True, read=True).result()
        first, last = index[0].start, index[0].stop
        values = np.empty([each.stop - each.start for each in index], array.dtype.numpy_dtype)
        rows = max(CHUNK * len(values) // max(values.nbytes, 1), 1)
        for start in range(first, last, rows):
            stop = min(start + rows, last)
            values[start - first : stop - first] = array[(slice(start, stop), *index[1:])].read().result()
        return values

    try:
        _check_files(entry)
        return fill_parameters(plan, read, dtype, mesh)
    except Exception as error:  # TensorStore and the file system raise many kinds; all mean: convert again
        warnings.warn(
            f"the converted parameters in {entry} are damaged ({error}); they are converted again.",
            ExpertLensWarning,
            stacklevel=2,
        )
        return None


def store_parameters(entry: pathlib.Path, params: Mapping[str, Any]) -> None:
    """Write an entry, unless another process just did; failing to is a warning, not an error."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(entry.with_suffix(".lock")):
            with contextlib.suppress(CheckpointError):
                _check_files(entry)
                return
            shutil.rmtree(entry, ignore_errors=True)
            partial = entry.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            with _checkpointer() as save:
                for name in sorted(params.keys() - {LAYERS}):
                    save(partial / name, {name: params[name]})
                for layer in range(jax.tree.leaves(params[LAYERS])[0].shape[0]):
                    save(partial / f"{LAYERS}_{layer}", _get_layer(params[LAYERS], layer))
            files = {name: _fingerprint(partial / name) for name in _files(partial)}
            (partial / FILES).write_text(json.dumps(files))
            partial.rename(entry)
    except Exception as error:  # a full or read-only disk, above all: the model itself is fine
        warnings.warn(
            f"the converted parameters couldn't be kept in {entry.parent} ({error}); the next load converts "
            "them again. Set EXPERTLENS_CACHE to a directory with room, or pass use_cache=False.",
            ExpertLensWarning,
            stacklevel=2,
        )


@jax.jit
def _get_layer(params: Mapping[str, Any], layer: int) -> Mapping[str, Any]:
    """Return one layer's parameters `[...]` out of those of all, `[layers, ...]`."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, layer, axis=0, keepdims=False), params)


@contextlib.contextmanager
def _checkpointer() -> Generator[Callable[[pathlib.Path, Any], None]]:
    """Save trees with orbax, as uncompressed zarr chunks in files: the least memory and time to read a part."""
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=True, use_compression=False)
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)  # orbax warns of the OCDBT files that, as it was told, it didn't write
    try:
        with ocp.Checkpointer(handler) as checkpointer:

            def save(path: pathlib.Path, tree: Any) -> None:
                chunked = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK), tree)
                checkpointer.save(path.absolute(), args=ocp.args.PyTreeSave(tree, save_args=chunked))

            yield save
    finally:
        logger.setLevel(level)


def _check_files(entry: pathlib.Path) -> None:
    """Check that the entry's files are those that were written, and as they were.

    Raises:
      CheckpointError: says which isn't.
    """
    try:
        written = json.loads((entry / FILES).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{FILES} can't be read: {error}") from error
    names = _files(entry)
    if strays := set(names).symmetric_difference(written):
        raise CheckpointError(f"{min(strays)} is missing or wasn't written with it")
    with ThreadPoolExecutor() as pool:  # CRC-32 lets other threads run
        fingerprints = pool.map(lambda name: _fingerprint(entry / name), names)
        for name, found in zip(names, fingerprints, strict=True):
            if found != written[name]:
                raise CheckpointError(f"{name} isn't as it was written")


def _files(entry: pathlib.Path) -> list[str]:
    """Return the names of an entry's files, without their list."""
    paths = (path for path in sorted(entry.rglob("*")) if path.is_file() and path != entry / FILES)
    return [path.relative_to(entry).as_posix() for path in paths]


def _fingerprint(path: pathlib.Path) -> list[int]:
    """Return a file's length and CRC-32."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            crc = zlib.crc32(block, crc)
    return [path.stat().st_size, crc]
