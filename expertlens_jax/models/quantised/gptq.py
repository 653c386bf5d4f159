"""Reads GPTQ (Frantar et al. 2023, arXiv 2210.17323), as AutoGPTQ and GPTQModel store it.

Of `NAME.weight` `[outputs, inputs]` there are `qweight` int32 `[inputs / numbers a word, outputs]`, the lowest bits
first; `scales` `[groups, outputs]`; `qzeros` int32 `[groups, outputs / numbers a word]`; and `g_idx` `[inputs]`, which
group each input belongs to. A weight is `scale * (number - zero point)`. In the format `gptq` a zero point is stored
less one, in `gptq_v2` as it is. Where `sym` is true all are half the range; files don't always say truly which format
they are in, so these are taken for what they must be.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from expertlens_jax.errors import CheckpointError, UnsupportedModelError
from expertlens_jax.models.quantised.matrices import (
    FLOATS,
    Blocks,
    Index,
    check_part,
    even,
    group_width,
    matrix,
    modules_with,
    stated,
    unpack,
    whole,
)
from expertlens_jax.models.weights import StoredTensor, Weights

PARTS = ("qweight", "qzeros", "scales", "g_idx")


def decoder(settings: Mapping[str, Any]) -> Callable[[Weights], dict[str, StoredTensor]]:
    """Return the decoder of a checkpoint with these settings.

    Raises:
      UnsupportedModelError: other bits or formats, or modules with settings of their own.
    """
    bits = stated(settings, "bits", (2, 4, 8), None)
    stored_less_one = stated(settings, "checkpoint_format", ("gptq", "gptq_v2"), "gptq") == "gptq"
    stated(settings, "pack_dtype", ("int32", None), None)
    stated(settings, "is_marlin_format", (False, None), None)
    width = group_width(settings, 128)
    symmetric = stated(settings, "sym", (True, False), True)
    own = [pattern for pattern in settings.get("dynamic") or {} if not pattern.startswith("-:")]
    if own:
        raise UnsupportedModelError(f"dynamic={own!r}, modules with settings of their own, which aren't read")

    def decode(weights: Weights) -> dict[str, StoredTensor]:
        tensors = dict(weights.tensors)
        for module, packed in modules_with(weights, "qweight"):
            tensors[f"{module}weight"] = _decoded(weights, module, packed, bits, width, symmetric, stored_less_one)
            for part in PARTS:
                tensors.pop(module + part, None)
        return tensors

    return decode


def _decoded(
    weights: Weights,
    module: str,
    packed: StoredTensor,
    bits: int,
    width: int,
    symmetric: bool,
    stored_less_one: bool,
) -> StoredTensor:
    """Return a module's weights, of which `packed` is `qweight`."""
    a_word = 32 // bits
    words, outputs = packed.shape if len(packed.shape) == 2 else (0, 0)
    inputs = words * a_word
    check_part(weights, f"{module}qweight", ((words, outputs),), ("I32",))
    groups = 1 if width == -1 else -(-inputs // width)
    scales = check_part(weights, f"{module}scales", ((groups, outputs),), FLOATS)
    zeros = check_part(weights, f"{module}qzeros", ((groups, -(-outputs // a_word)),), ("I32",))
    column_blocks = even(inputs, inputs if width == -1 else width)
    if f"{module}g_idx" in weights.tensors:
        column_blocks = whole(check_part(weights, f"{module}g_idx", ((inputs,),), ("I32", "I64")))
        if ((column_blocks < 0) | (column_blocks >= groups)).any():
            raise CheckpointError(f"{module}g_idx in {weights.where} names groups that aren't among the {groups}.")
    every, half = slice(0, groups), 2 ** (bits - 1)

    def zero_points(outputs: slice) -> np.ndarray:
        of_words = slice(outputs.start // a_word, -(-outputs.stop // a_word))
        numbers = unpack(zeros.read((every, of_words)), bits, axis=1)
        start = outputs.start - of_words.start * a_word
        numbers = numbers[:, start : start + outputs.stop - outputs.start]
        if symmetric and not ((numbers == half - 1).all() or (numbers == half).all()):
            raise CheckpointError(
                f"the settings of {weights.where} say sym=true, and the zero points in {module}qzeros are neither all "
                f"{half} nor, less one, all {half - 1}. Do its settings belong to these weights?"
            )
        return np.full_like(numbers.T, half) if symmetric else _as_they_are(numbers, bits, stored_less_one).T

    zero = Blocks(zero_points, 1, column_blocks)
    scale = Blocks(lambda outputs: scales.read((every, outputs)).T, 1, column_blocks)

    def decode(index: Index) -> np.ndarray:
        rows, columns = index
        some = slice(columns.start // a_word, -(-columns.stop // a_word))
        numbers = unpack(packed.read((some, rows)), bits, axis=0)
        start = columns.start - some.start * a_word
        values = numbers[start : start + columns.stop - columns.start].T.astype(np.float32)
        return (values - zero.over(index)) * scale.over(index)

    return matrix((outputs, inputs), decode)


def _as_they_are(numbers: np.ndarray, bits: int, stored_less_one: bool) -> np.ndarray:
    """Return zero points, of which 0 less one is stored as the largest number."""
    return (numbers.astype(np.int16) + stored_less_one) % 2**bits
