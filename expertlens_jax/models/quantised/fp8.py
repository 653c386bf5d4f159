"""Reads FP8 as transformers has it: float8 e4m3, with a scale for each block of a matrix, or for all of it.

`NAME.weight` is float8 `[outputs, inputs]` and `NAME.weight_scale_inv`, in spite of its name, what it is multiplied by:
`[row blocks, column blocks]`, blocks being `weight_block_size` (DeepSeek-AI 2024, "DeepSeek-V3 Technical Report",
arXiv 2412.19437; Qwen3's FP8 models), or one number (Ministral 3). Powers of two may be stored as their exponents.
How activations are quantised is a matter of speed and isn't done.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from expertlens_jax.errors import UnsupportedModelError
from expertlens_jax.models.quantised.matrices import (
    FLOATS,
    Index,
    check_part,
    even,
    is_stored_as,
    matrix,
    stated,
    stored_blocks,
)
from expertlens_jax.models.weights import StoredTensor, Weights

SCALE = "_scale_inv"
EXPONENT_BIAS = 127
"""Of an exponent that is stored as a byte."""

FIELDS = (
    # read
    *("expert_dtype", "fmt", "weight_block_size", "weight_scale_semantics"),
    # how scales are stored, and which modules are quantised, which the tensors tell
    *("scale_fmt", "modules_to_not_convert", "ignored_layers", "modules_to_convert"),
    # what is done with inputs, which aren't quantised here
    *("activation_scheme", "dequantize", "kv_cache_scheme"),
)
"""Fields of the settings that are read, or change nothing that is."""


def decoder(settings: Mapping[str, Any]) -> Callable[[Weights], dict[str, StoredTensor]]:
    """Return the decoder of a checkpoint with these settings.

    Raises:
      UnsupportedModelError: blocks of another kind, or experts in FP4.
    """
    stated(settings, "expert_dtype", ("fp8", None), "fp8")
    stated(settings, "fmt", ("e4m3", "float8_e4m3fn", None), None)
    # GPTQModel's FP8 is called so too, and stores under the same name what weights are divided by
    stated(settings, "weight_scale_semantics", (None,), None)
    block = settings.get("weight_block_size", (128, 128))
    if block is not None and not (len(block) == 2 and all(isinstance(size, int) and size > 0 for size in block)):
        raise UnsupportedModelError(f"weight_block_size={block!r}; it should be two numbers, or null for whole tensors")

    def decode(weights: Weights) -> dict[str, StoredTensor]:
        tensors = dict(weights.tensors)
        for name, codes in weights.tensors.items():
            if len(codes.shape) != 2 or not is_stored_as(codes, "F8_E4M3"):
                continue
            shape = (codes.shape[0], codes.shape[1])
            rows, columns = shape if block is None else block
            shapes = ((-(-shape[0] // rows), -(-shape[1] // columns)), *(((), (1,)) if block is None else ()))
            scale = check_part(weights, name + SCALE, shapes, (*FLOATS, "F8_E8M0", "U8"))
            del tensors[name + SCALE]
            tensors.pop(f"{name.removesuffix('weight')}activation_scale", None)
            tensors[name] = scaled(codes, _number(scale), shape, rows, even(shape[1], columns))
        return tensors

    return decode


def scaled(
    codes: StoredTensor, scale: StoredTensor, shape: tuple[int, int], rows: int, column_blocks: np.ndarray
) -> StoredTensor:
    """Return numbers times the scale of their block."""
    blocks = stored_blocks(scale, rows, column_blocks)

    def decode(index: Index) -> np.ndarray:
        return codes.read(index).astype(np.float32) * blocks.over(index)

    return matrix(shape, decode)


def _number(scale: StoredTensor) -> StoredTensor:
    """Return a scale of which bytes are exponents of two."""
    if not is_stored_as(scale, "U8"):
        return scale

    def read(index: tuple[slice, ...]) -> np.ndarray:
        return np.ldexp(np.float32(1), scale.read(index).astype(np.int32) - EXPONENT_BIAS)

    return StoredTensor(scale.shape, "F32", read)
