"""Weight files of a Hugging Face directory, as tensors that are read only as far as they are asked for."""

import dataclasses
import functools
import importlib
import json
import math
import pathlib
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from expertlens_jax.cards import counted
from expertlens_jax.errors import CheckpointError, ExpertLensWarning

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Where weights may stand, the first choice first; an index names the shards that hold them."""

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = (ADAPTER_CONFIG, "adapter_model.safetensors", "adapter_model.bin")
"""What peft writes of an adapter, alone or beside a whole model."""

OTHER_FORMATS = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".npz")
"""How other files that hold weights end, to tell of them where those that are read are missing."""

TORCH_MINIMUM = (2, 6)
"""Older versions can be made to run code by a file even with weights_only=True (CVE-2025-32434)."""

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "torch.float64": np.float64,
    "torch.float32": np.float32,
    "torch.float16": np.float16,
    "torch.bfloat16": ml_dtypes.bfloat16,
}
"""The floating-point dtypes that parameters may be stored in, by their names in safetensors and torch."""

FLOAT8 = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
}
"""Those of 8 bits, which quantised tensors are stored in."""

BLOCK = 2**24
"""Values compared at a time."""


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file."""

    shape: tuple[int, ...]
    dtype: str
    """As safetensors or torch name it; a key of `DTYPES` if parameters may be read from it."""
    read: Callable[[tuple[slice, ...]], np.ndarray]
    """Reads a part, a slice for each dimension, in the dtype it is stored in."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """A checkpoint's tensors by name, none of them read yet."""

    tensors: Mapping[str, StoredTensor]
    where: pathlib.Path


def choose_weights(names: Collection[str], config: pathlib.Path) -> str | None:
    """Return the file to start from among those of a directory or repository, or None.

    It is what `config.json` names as its `transformers_weights`, or else the first of `WEIGHT_FILES`; as for
    transformers. So safetensors go before PyTorch's files, and a whole file before an index. Of files that a variant
    names (`model.fp16.safetensors`) none is read.

    Raises:
      CheckpointError: the config names another file than safetensors or their index, or one that isn't there.
    """
    named = _named_weights(config)
    if named is None:
        return next((name for name in WEIGHT_FILES if name in names), None)
    if not named.endswith((".safetensors", ".safetensors.index.json")) or pathlib.Path(named).name != named:
        raise CheckpointError(
            f"{config} says transformers_weights={named!r}; it should be the name of a safetensors file, or of their "
            "index, beside it."
        )
    if named not in names:
        raise CheckpointError(f"{config} says transformers_weights={named!r}, and there is no such file beside it.")
    return named


def _named_weights(config: pathlib.Path) -> str | None:
    """Return what a `config.json` names as the file of its weights."""
    try:
        stated = json.loads(config.read_text())
    except (OSError, ValueError):  # there may be none to choose by; loading refuses what can't be read
        return None
    named = stated.get("transformers_weights") if isinstance(stated, dict) else None
    return None if named is None else str(named)


def other_weights(names: Collection[str]) -> str:
    """Tell of files with weights that aren't read, for the end of an error that there are none; else nothing."""
    others = sorted(name for name in names if name.endswith(OTHER_FORMATS))
    if not others:
        return ""
    variants = [re.fullmatch(r"(model|pytorch_model)\.[^-]+\.(safetensors|bin)", name) for name in others]
    rename = next((f" To read {match[0]}, call it {match[1]}.{match[2]}." for match in variants if match), "")
    return f" There is {', '.join(others)}, which isn't read under that name.{rename}"


def shard_names(index: pathlib.Path) -> list[str]:
    """Return the files that an index names.

    Raises:
      CheckpointError: it isn't such an index.
    """
    try:
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{index} isn't an index of weight files (JSON with a weight_map): {error!r}. Get it again."
        ) from error


def weight_paths(directory: pathlib.Path) -> list[pathlib.Path]:
    """Return the files that hold a directory's weights, chosen as `choose_weights` says.

    Raises:
      CheckpointError: there are none, or some that the index names are missing.

    Warns:
      ExpertLensWarning: there is a whole file, and an index that names others.
    """
    names = [path.name for path in directory.iterdir()]
    start = choose_weights(names, directory / "config.json")
    if start is None:
        raise CheckpointError(
            f"no weights in {directory}: looked for {', '.join(WEIGHT_FILES)}.{other_weights(names)} "
            "Give a directory that save_pretrained wrote."
        )
    if not start.endswith(".index.json"):
        index = f"{start}.index.json"
        if index in names and shard_names(directory / index) != [start]:
            warnings.warn(
                f"{directory} holds {start} and {index}, two sets of weights; {start} is read, as by transformers. "
                "Remove the one that isn't meant.",
                ExpertLensWarning,
                stacklevel=2,
            )
        return [directory / start]
    shards = shard_names(directory / start)
    missing = [shard for shard in shards if not (directory / shard).exists()]
    if missing:
        raise CheckpointError(
            f"{directory / start} names {counted(len(shards), 'shard')}, and {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing. Get the checkpoint again."
        )
    return [directory / shard for shard in shards]


def open_weights(directory: pathlib.Path) -> Weights:
    """Open a directory's weights: a file, or the shards that an index names.

    Raises:
      CheckpointError: there are none, some are missing or damaged, or only torch, which isn't installed,
        could read them; or shards hold the same tensor with different values.
    """
    tensors: dict[str, StoredTensor] = {}
    for path in weight_paths(directory):
        for name, tensor in open_file(path):
            if name in tensors and not same_values(tensors[name], tensor):
                raise CheckpointError(
                    f"the tensor {name} stands in several files of {directory}, {path.name} among them, with different "
                    "values. Get the checkpoint again, into an empty directory."
                )
            tensors.setdefault(name, tensor)
    return Weights(tensors, directory)


def open_file(path: pathlib.Path) -> Iterator[tuple[str, StoredTensor]]:
    """Return the tensors of a file, by its suffix of safetensors or PyTorch.

    Raises:
      CheckpointError: it is damaged, or torch is needed to read it and isn't installed.
    """
    return safetensors(path) if path.suffix == ".safetensors" else _pickled(path)


def same_values(one: StoredTensor, other: StoredTensor) -> bool:
    """Return whether two tensors hold the same values; they are read a part at a time."""
    if one.shape != other.shape:
        return False
    if not {one.dtype, other.dtype} <= DTYPES.keys():  # which are never read
        return one.dtype == other.dtype
    if not one.shape:
        return bool(np.array_equal(one.read(()), other.read(())))
    num_rows, *widths = one.shape
    step = max(1, BLOCK // max(1, int(np.prod(widths))))
    rest = tuple(slice(0, width) for width in widths)
    for start in range(0, num_rows, step):
        part = (slice(start, min(start + step, num_rows)), *rest)
        if not np.array_equal(one.read(part), other.read(part)):
            return False
    return True


def safetensors(path: pathlib.Path) -> Iterator[tuple[str, StoredTensor]]:
    """Return the tensors of a safetensors file. Opening it checks that its data is as long as its header says.

    Raises:
      CheckpointError: it is damaged.
    """
    try:
        file = safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) can't be read as safetensors: {error}. "
            "It is probably truncated; get it again."
        ) from error
    for name in file.keys():
        part = file.get_slice(name)
        shape, dtype = tuple(part.get_shape()), part.get_dtype()
        read = _read_mapped(path, _places(path)[name], shape, dtype) if dtype in FLOAT8 else part.__getitem__
        yield name, StoredTensor(shape, dtype, read)


@functools.lru_cache(maxsize=1)
def _places(path: pathlib.Path) -> dict[str, int]:
    """Return where each tensor of a safetensors file begins, in bytes."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {name: 8 + length + each["data_offsets"][0] for name, each in header.items() if name != "__metadata__"}


def _read_mapped(
    path: pathlib.Path, place: int, shape: tuple[int, ...], dtype: str
) -> Callable[[tuple[slice, ...]], np.ndarray]:
    """Return what reads a tensor of 8-bit floats, which safetensors doesn't hand to numpy."""

    def read(index: tuple[slice, ...]) -> np.ndarray:
        values = np.memmap(path, FLOAT8[dtype], "r", place, (math.prod(shape),))
        return np.array(values.reshape(shape)[index])

    return read


def import_torch(path: pathlib.Path | str) -> Any:
    """Return the torch module, to read the `.bin` file at `path`.

    Raises:
      CheckpointError: torch isn't installed, or is too old to be safe.
    """
    wanted = f"torch>={'.'.join(map(str, TORCH_MINIMUM))}"
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise CheckpointError(
            f"{path} is a PyTorch file and there are no safetensors beside it; to read it, install PyTorch: "
            f"pip install '{wanted}' (the build without a GPU is enough)."
        ) from error
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < TORCH_MINIMUM:
        raise CheckpointError(
            f"{path} is a PyTorch file, and the torch installed here, {torch.__version__}, could be made to "
            f"run code by such a file. Upgrade it: pip install '{wanted}'."
        )
    return torch


def _pickled(path: pathlib.Path) -> Iterator[tuple[str, StoredTensor]]:
    """Return the tensors of a PyTorch file, mapped into memory. Of its pickle only tensors are ever made."""
    torch = import_torch(path)
    mapped = _is_zip(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # pickle, zip and torch each raise their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) can't be read as PyTorch weights: {reason} "
            "It is truncated, or holds more than tensors, which is never unpickled here. Get it again, or "
            "convert it to safetensors where you trust it."
        ) from error
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path} holds a {type(state).__name__} instead of tensors by name.")
    if not mapped:
        warnings.warn(
            f"{path} is in the format of PyTorch before 1.6, which can't be mapped into memory: all of it is "
            "held while the model loads.",
            ExpertLensWarning,
            stacklevel=2,
        )
    for name, tensor in state.items():
        if isinstance(tensor, torch.Tensor):
            yield (
                name,
                StoredTensor(tuple(tensor.shape), str(tensor.dtype), _torch_reader(torch, tensor.detach())),
            )


def _torch_reader(torch: Any, tensor: Any) -> Callable[[tuple[slice, ...]], np.ndarray]:
    def read(index: tuple[slice, ...]) -> np.ndarray:
        part = tensor[index]
        if part.dtype == torch.bfloat16:  # which torch doesn't hand to numpy
            return part.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
        float8 = str(part.dtype).removeprefix("torch.")
        if float8.startswith("float8"):
            return part.view(torch.uint8).numpy().view(getattr(ml_dtypes, float8))
        return part.numpy()

    return read


def _is_zip(path: pathlib.Path) -> bool:
    """Return whether torch.save wrote the file since 1.6; a truncated one counts, its beginning is enough."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"
