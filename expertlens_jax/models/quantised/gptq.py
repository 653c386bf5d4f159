"""Reads GPTQ (Frantar et al. 2023, arXiv 2210.17323), as AutoGPTQ and GPTQModel store it.

Of `NAME.weight` `[outputs, inputs]` there are `qweight` int32 `[inputs / numbers a word, outputs]`, the lowest bits
first; `scales` `[groups, outputs]`; `qzeros` int32 `[groups, outputs / numbers a word]`; and `g_idx` `[inputs]`, which
group each input belongs to. A weight is `scale * (number - zero point)`.

In the format `gptq` a zero point is stored less one, in `gptq_v2` as it is. Less one a zero point of 0 is no number:
AutoGPTQ's kernels take the largest for it, each zero point by itself; GPTQModel subtracts from whole words, so that it
borrows from the next zero point, and adds to whole words when it reads. Where `sym` is true all are half the range;
files don't always say truly which format they are in, so these are taken for what they must be.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from expertlens_jax.errors import CheckpointError, UnsupportedModelError
from expertlens_jax.models.quantised.matrices import (
    FLOATS,
    OF_LAYERS,
    WORD,
    Blocks,
    Index,
    agreed,
    check_layers,
    check_part,
    even,
    group_width,
    in_words,
    matrix,
    modules_with,
    read_packed,
    stated,
    whole,
)
from expertlens_jax.models.weights import StoredTensor, Weights

PARTS = ("qweight", "qzeros", "scales", "g_idx")

FIELDS = (
    *("bits", "checkpoint_format", "format", "group_size", "sym", "desc_act", "is_marlin_format"),
    *("awq_gemm_checkpoint", "use_cuda_fp16", *OF_LAYERS),
)
"""Fields of the settings that are read, or change nothing that is."""

MEANT_BY_WORD = re.compile(r"gptqmodel(:(?P<major>\d+))?", re.IGNORECASE)
"""Who subtracts one from whole words, as `meta` names them."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How all quantised matrices of a checkpoint are stored."""

    bits: int
    width: int
    symmetric: bool
    ordered: bool
    """Whether inputs belong to groups out of turn, which `g_idx` tells."""
    stored_less_one: bool
    by_word: bool
    """Whether one was subtracted from whole words of zero points."""


def decoder(settings: Mapping[str, Any]) -> Callable[[Weights], dict[str, StoredTensor]]:
    """Return the decoder of a checkpoint with these settings.

    Raises:
      UnsupportedModelError: other bits or formats; modules with settings of their own, or that do more than multiply.
    """
    layout = _read_layout(settings)

    def decode(weights: Weights) -> dict[str, StoredTensor]:
        tensors = dict(weights.tensors)
        for module, packed in modules_with(weights, "qweight"):
            tensors[f"{module}weight"] = _decoded(weights, module, packed, layout)
            for part in PARTS:
                tensors.pop(module + part, None)
        return tensors

    return decode


def _read_layout(settings: Mapping[str, Any]) -> Layout:
    bits = stated(settings, "bits", (2, 3, 4, 8), None)
    version = agreed(settings, ("checkpoint_format", "format"), ("gptq", "gptq_v2"), "gptq")
    for field in "is_marlin_format", "awq_gemm_checkpoint":
        stated(settings, field, (False, None), None)
    check_layers(settings)
    symmetric = stated(settings, "sym", (True, False), True)
    ordered = stated(settings, "desc_act", (True, False, None), None)
    meta = settings.get("meta")
    wrote = (meta if isinstance(meta, Mapping) else {}).get("quantizer") or ()
    by = [found for each in ([wrote] if isinstance(wrote, str) else wrote) if (found := MEANT_BY_WORD.match(str(each)))]
    if bits == 3 and version == "gptq" and not symmetric and any(int(found["major"] or 0) < 7 for found in by):
        raise UnsupportedModelError(
            f"bits=3 and sym=False in the format gptq, which GPTQModel before 7.0 ({wrote}) stores in a way of its own"
        )
    return Layout(
        bits, group_width(settings, 128), symmetric, bool(ordered), version == "gptq", bool(by) and WORD % bits == 0
    )


def _decoded(weights: Weights, module: str, packed: StoredTensor, layout: Layout) -> StoredTensor:
    """Return a module's weights, of which `packed` is `qweight`."""
    bits, width = layout.bits, layout.width
    a_block, of_words = in_words(bits)
    words, outputs = packed.shape if len(packed.shape) == 2 else (0, 0)
    check_part(weights, f"{module}qweight", ((-(-words // of_words) * of_words, outputs),), ("I32",))
    inputs, of_inputs = words // of_words * a_block, weights.tensors.get(f"{module}g_idx")
    if of_inputs is not None and len(of_inputs.shape) == 1 and inputs - a_block < of_inputs.shape[0] < inputs:
        inputs = of_inputs.shape[0]  # the last word isn't full
    groups = 1 if width == -1 else -(-inputs // width)
    scales = check_part(weights, f"{module}scales", ((groups, outputs),), FLOATS)
    zeros = check_part(weights, f"{module}qzeros", ((groups, -(-outputs // a_block) * of_words),), ("I32",))
    column_blocks = even(inputs, inputs if width == -1 else width)
    if of_inputs is not None or (layout.ordered and groups > 1):
        column_blocks = whole(check_part(weights, f"{module}g_idx", ((inputs,),), ("I32", "I64")))
        if ((column_blocks < 0) | (column_blocks >= groups)).any():
            raise CheckpointError(f"{module}g_idx in {weights.where} names groups that aren't among the {groups}.")
    every, half = slice(0, groups), 2 ** (bits - 1)

    def zero_points(outputs: slice) -> np.ndarray:
        numbers = read_packed(zeros, bits, (every, outputs), axis=1)
        if not layout.symmetric:
            return _as_they_are(zeros, numbers, (every, outputs), layout).T
        alike = (numbers == half - 1).all() or (numbers == half).all()
        if not alike and bits != 3:  # GPTQModel before 7.0 stored other numbers for 3 bits, and meant half
            raise CheckpointError(
                f"the settings of {weights.where} say sym=true, and the zero points in {module}qzeros are neither all "
                f"{half} nor, less one, all {half - 1}. Do its settings belong to these weights?"
            )
        return np.full_like(numbers.T, half)

    zero = Blocks(zero_points, 1, column_blocks)
    scale = Blocks(lambda outputs: scales.read((every, outputs)).T, 1, column_blocks)

    def decode(index: Index) -> np.ndarray:
        rows, columns = index
        values = read_packed(packed, bits, (columns, rows), axis=0).T.astype(np.float32)
        return (values - zero.over(index)) * scale.over(index)

    return matrix((outputs, inputs), decode)


def _as_they_are(zeros: StoredTensor, numbers: np.ndarray, index: Index, layout: Layout) -> np.ndarray:
    """Return a part of the zero points, `numbers` as stored, of which 0 less one is stored as the largest number."""
    if not layout.stored_less_one:
        return numbers
    if not layout.by_word:
        return (numbers.astype(np.int16) + 1) % 2**layout.bits
    ones = np.uint32(sum(1 << place for place in range(0, WORD, layout.bits)))

    def add(part: tuple[slice, ...]) -> np.ndarray:
        return (zeros.read(part).view(np.uint32) + ones).view(np.int32)

    return read_packed(dataclasses.replace(zeros, read=add), layout.bits, index, axis=1)
