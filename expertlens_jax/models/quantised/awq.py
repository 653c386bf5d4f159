"""Reads AWQ (Lin et al. 2024, arXiv 2306.00978), as AutoAWQ stores it for its kernel `gemm`.

Of `NAME.weight` `[outputs, inputs]` there are `qweight` int32 `[inputs, outputs / 8]`, `qzeros` int32 `[groups,
outputs / 8]` and `scales` `[groups, outputs]`. The eight numbers of a word, the lowest bits first, are those of the
outputs `ORDER`. A weight is `scale * (number - zero point)`. GPTQModel writes the same; without zero points (AutoAWQ
has no such files for this kernel) it stores half the range for all of them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from expertlens_jax.errors import CheckpointError
from expertlens_jax.models.quantised.matrices import (
    FLOATS,
    OF_LAYERS,
    Blocks,
    Index,
    agreed,
    check_layers,
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

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight outputs each number of a word belongs to."""

BITS, A_WORD = 4, 8

FIELDS = (
    *("bits", "w_bit", "version", "format", "checkpoint_format", "backend", "zero_point", "group_size"),
    *("q_group_size", "do_fuse", "modules_to_fuse", "fuse_max_seq_len", "desc_act", "sym", *OF_LAYERS),
)
"""Fields of the settings that are read, or change nothing that is. `sym` is GPTQ's; transformers saves it as true."""


def decoder(settings: Mapping[str, Any]) -> Callable[[Weights], dict[str, StoredTensor]]:
    """Return the decoder of a checkpoint with these settings.

    Raises:
      UnsupportedModelError: other bits, another kernel's order, or layers that aren't alike.
    """
    bits = {"bits": settings.get("bits", settings.get("w_bit", BITS))}
    stated(bits, "bits", (BITS,), BITS)
    agreed(settings, ("version", "format", "checkpoint_format"), ("gemm",), "gemm")
    stated(settings, "backend", tuple(name for name in (settings.get("backend"),) if name != "llm-awq"), None)
    zero_point = stated(settings, "zero_point", (True, False), True)
    check_layers(settings)
    width = group_width({"group_size": settings.get("group_size", settings.get("q_group_size", 128))}, 128)

    def decode(weights: Weights) -> dict[str, StoredTensor]:
        tensors = dict(weights.tensors)
        for module, packed in modules_with(weights, "qweight"):
            tensors[f"{module}weight"] = _decoded(weights, module, packed, width, zero_point)
            for part in ("qweight", "qzeros", "scales"):
                tensors.pop(module + part, None)
        left = next((name for name in tensors if name.endswith(".scales")), None)
        if left is not None:
            raise CheckpointError(
                f"{weights.where} holds {left}, by which AutoAWQ divides what an activation function gives; that isn't "
                "read. Give the original, in float32, float16 or bfloat16."
            )
        return tensors

    return decode


def _decoded(weights: Weights, module: str, packed: StoredTensor, width: int, zero_point: bool) -> StoredTensor:
    """Return a module's weights, of which `packed` is `qweight`."""
    inputs, words = packed.shape if len(packed.shape) == 2 else (0, 0)
    outputs = words * A_WORD
    check_part(weights, f"{module}qweight", ((inputs, words),), ("I32",))
    groups = 1 if width == -1 else -(-inputs // width)
    scales = check_part(weights, f"{module}scales", ((groups, outputs),), FLOATS)
    zeros = check_part(weights, f"{module}qzeros", ((groups, words),), ("I32",))
    if not zero_point and (unpack(whole(zeros), BITS, axis=1) != 2 ** (BITS - 1)).any():
        raise CheckpointError(
            f"the settings of {weights.where} say zero_point=false, and the zero points in {module}qzeros aren't all "
            f"{2 ** (BITS - 1)}. Do its settings belong to these weights?"
        )
    column_blocks, every = even(inputs, inputs if width == -1 else width), slice(0, groups)
    zero = Blocks(lambda outputs: _numbers(zeros, every, outputs), 1, column_blocks)
    scale = Blocks(lambda outputs: scales.read((every, outputs)).T, 1, column_blocks)

    def decode(index: Index) -> np.ndarray:
        rows, columns = index
        values = _numbers(packed, columns, rows).astype(np.float32)
        return (values - zero.over(index)) * scale.over(index)

    return matrix((outputs, inputs), decode)


def _numbers(packed: StoredTensor, rows: slice, outputs: slice) -> np.ndarray:
    """Return numbers of some rows of what is packed along the outputs, uint8 `[outputs, rows]`."""
    words = slice(outputs.start // A_WORD, -(-outputs.stop // A_WORD))
    stored = unpack(packed.read((rows, words)), BITS, axis=1)
    eights = stored.reshape(len(stored), -1, A_WORD)
    in_order = np.empty_like(eights)
    in_order[..., ORDER] = eights
    start = outputs.start - words.start * A_WORD
    return in_order.reshape(len(stored), -1)[:, start : start + outputs.stop - outputs.start].T
