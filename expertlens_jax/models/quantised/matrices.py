"""What the formats share: matrices that are decoded a few rows at a time, and numbers for blocks of them."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from expertlens_jax.errors import CheckpointError, UnsupportedModelError
from expertlens_jax.models.weights import StoredTensor, Weights

VALUES = 2**22
"""Values decoded at a time: their codes, scales and zero points are held beside them."""

Index = tuple[slice, slice]
"""Rows and columns, each from a start to a stop."""


def matrix(shape: tuple[int, int], decode: Callable[[Index], np.ndarray]) -> StoredTensor:
    """Return a matrix `[outputs, inputs]` in float32, whose parts `decode` gives."""

    def read(index: tuple[slice, ...]) -> np.ndarray:
        rows, columns = index
        part = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.float32)
        step = max(1, VALUES // max(1, part.shape[1]))
        for start in range(rows.start, rows.stop, step):
            some = slice(start, min(start + step, rows.stop))
            part[some.start - rows.start : some.stop - rows.start] = decode((some, columns))
        return part

    return StoredTensor(shape, "F32", read)


@dataclasses.dataclass(frozen=True)
class Blocks:
    """A number for each block of a matrix: its scale, or its zero point."""

    read: Callable[[slice], np.ndarray]
    """Gives those of some rows of blocks, `[row blocks, column blocks]`."""
    rows: int
    """How many rows a block has."""
    column_blocks: np.ndarray
    """int `[inputs]`: which block each column belongs to."""

    def over(self, index: Index) -> np.ndarray:
        """Return them at each value of a part of the matrix, float32 `[rows, columns]`, or `[rows, 1]` where alike."""
        rows, columns = index
        first = rows.start // self.rows
        of_blocks = self.read(slice(first, -(-rows.stop // self.rows))).astype(np.float32)
        of_rows = of_blocks[np.arange(rows.start, rows.stop) // self.rows - first]
        return of_rows if of_rows.shape[1] == 1 else of_rows[:, self.column_blocks[columns]]


def stored_blocks(tensor: StoredTensor, rows: int, column_blocks: np.ndarray) -> Blocks:
    """Return blocks of a tensor `[row blocks, column blocks]`; or `[row blocks]`, or `[]` where there is just one."""
    if tensor.shape in ((), (1,), (1, 1)):
        number = tensor.read((slice(0, 1),) * len(tensor.shape))
        return Blocks(lambda _: np.reshape(number, (1, 1)), rows, column_blocks)
    if len(tensor.shape) == 1:
        return Blocks(lambda some: tensor.read((some,))[:, None], rows, column_blocks)
    width = tensor.shape[1]
    return Blocks(lambda some: tensor.read((some, slice(0, width))), rows, column_blocks)


def even(inputs: int, columns: int) -> np.ndarray:
    """Return the block of each of the inputs, where blocks are of so many columns."""
    return np.arange(inputs) // columns


def unpack(words: np.ndarray, bits: int, axis: int) -> np.ndarray:
    """Take int32 words apart into numbers of so many bits, uint8, the lowest bits first, along an axis."""
    along = np.moveaxis(words.view(np.uint32), axis, -1)[..., None]
    numbers = (along >> np.arange(0, 32, bits, dtype=np.uint32)) & np.uint32(2**bits - 1)
    return np.moveaxis(numbers.astype(np.uint8).reshape(*along.shape[:-2], -1), -1, axis)


def whole(tensor: StoredTensor) -> np.ndarray:
    """Return all of a tensor."""
    return tensor.read(tuple(slice(0, size) for size in tensor.shape))


SHORT_NAMES = {
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.int32": "I32",
    "torch.int64": "I64",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e8m0fnu": "F8_E8M0",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
}
"""Safetensors' names of torch's dtypes."""

FLOATS = ("F32", "F16", "BF16")


def is_stored_as(tensor: StoredTensor, *dtypes: str) -> bool:
    """Return whether a tensor is stored in one of these dtypes, by safetensors' names for them."""
    return SHORT_NAMES.get(tensor.dtype, tensor.dtype) in dtypes


def modules_with(weights: Weights, part: str) -> Iterator[tuple[str, StoredTensor]]:
    """Give each module that has a tensor of that name, as a prefix that ends in a dot, and the tensor."""
    for name, tensor in weights.tensors.items():
        if name.endswith(f".{part}"):
            yield name.removesuffix(part), tensor


def check_part(
    weights: Weights, name: str, shapes: tuple[tuple[int, ...], ...], dtypes: tuple[str, ...]
) -> StoredTensor:
    """Return a tensor that belongs to a quantised one.

    Raises:
      CheckpointError: it isn't there, or has none of these shapes, or none of these dtypes.
    """
    tensor = weights.tensors.get(name)
    if tensor is None:
        raise CheckpointError(f"{weights.where} lacks {name}, without which what it belongs to can't be dequantised.")
    if tensor.shape not in shapes or not is_stored_as(tensor, *dtypes):
        wanted = " or ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
        raise CheckpointError(
            f"the tensor {name} in {weights.where} is stored as {tensor.dtype} {list(tensor.shape)}; by config.json "
            f"and the tensors that it belongs to, it should be {' or '.join(dtypes)} {wanted}. Do its settings "
            "belong to these weights?"
        )
    return tensor


def stated(settings: Mapping[str, Any], field: str, allowed: tuple[Any, ...], default: Any) -> Any:
    """Return what settings say, if it is allowed.

    Raises:
      UnsupportedModelError: it isn't; the message names the field and goes on after "and its settings say".
    """
    value = settings.get(field, default)
    value = getattr(value, "value", value)
    if value not in allowed:
        raise UnsupportedModelError(f"{field}={value!r}, of which only {' and '.join(map(repr, allowed))} can be read")
    return value


def group_width(settings: Mapping[str, Any], default: int) -> int:
    """Return how many inputs share a scale, or -1 for all.

    Raises:
      UnsupportedModelError: that isn't a number.
    """
    width = settings.get("group_size", default)
    if not isinstance(width, int) or isinstance(width, bool) or not (width == -1 or width > 0):
        raise UnsupportedModelError(f"group_size={width!r}; it should be a number of inputs, or -1 for all of them")
    return width
