"""Reads MXFP4: numbers of 4 bits in blocks of 32, each block with a power of two as its scale.

Open Compute Project, "OCP Microscaling Formats (MX) Specification", version 1.0, 2023. gpt-oss's experts are stored so,
as `NAME_blocks` `[..., blocks, 16]`, two numbers a byte, the lower half first, and `NAME_scales` `[..., blocks]`.
bfloat16 holds all that comes out exactly.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from expertlens_jax.models.weights import StoredTensor, Weights

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
"""What the 4 bits mean: a sign, two bits of exponent, one of mantissa."""
SCALE_BIAS = 127
BLOCK = 32

FIELDS = ("modules_to_not_convert", "dequantize")
"""Fields of the settings, which change nothing that is read: tensors tell which are quantised."""


def decoder(settings: Mapping[str, Any]) -> Callable[[Weights], dict[str, StoredTensor]]:
    """Return the decoder of any checkpoint; settings change nothing."""
    return _decode


def _decode(weights: Weights) -> dict[str, StoredTensor]:
    """Take `NAME_blocks` and `NAME_scales` for `NAME`, `[experts, inputs, outputs]` as in the original."""
    tensors = dict(weights.tensors)
    for name, blocks in weights.tensors.items():
        start = name.removesuffix("_blocks")
        scales = weights.tensors.get(f"{start}_scales")
        tensor = quantised_tensor(blocks, scales) if start != name and scales is not None else None
        if tensor is not None:
            del tensors[name], tensors[f"{start}_scales"]
            experts, outputs, inputs = tensor.shape
            tensors[start] = StoredTensor((experts, inputs, outputs), tensor.dtype, partial(_read_turned, tensor))
    return tensors


def _read_turned(tensor: StoredTensor, index: tuple[slice, ...]) -> np.ndarray:
    experts, inputs, outputs = index
    return tensor.read((experts, outputs, inputs)).swapaxes(1, 2)


def dequantise(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return the numbers that blocks and their scales stand for.

    Args:
      blocks: uint8 `[..., blocks, 16]`.
      scales: uint8 `[..., blocks]`: exponents of two, of which 127 is 1.

    Returns:
      bfloat16 `[..., blocks * 32]`.
    """
    halves = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:-1], BLOCK)
    values = np.ldexp(E2M1[halves], scales[..., None].astype(np.int32) - SCALE_BIAS)
    return values.reshape(*scales.shape[:-1], -1).astype(ml_dtypes.bfloat16)


def quantised_tensor(blocks: StoredTensor, scales: StoredTensor) -> StoredTensor | None:
    """Make a tensor `[experts, rows, columns]` of its two parts, read and dequantised only as far as it is asked for.

    None if the parts don't fit together, or aren't of bytes.
    """
    *outer, count, width = blocks.shape
    if (
        {blocks.dtype, scales.dtype} - {"U8", "torch.uint8"}
        or len(outer) != 2
        or scales.shape != (*outer, count)
        or width != BLOCK // 2
    ):
        return None

    def read(index: tuple[slice, ...]) -> np.ndarray:
        experts, rows, columns = index
        of_blocks = slice(columns.start // BLOCK, -(-columns.stop // BLOCK))
        part = dequantise(
            blocks.read((experts, rows, of_blocks, slice(0, width))), scales.read((experts, rows, of_blocks))
        )
        start = columns.start - of_blocks.start * BLOCK
        return part[..., start : start + columns.stop - columns.start]

    return StoredTensor((*outer, count * BLOCK), "BF16", read)
