"""Reads what bitsandbytes stores: LLM.int8 and, of 4 bits, NF4 and FP4.

Dettmers et al. 2022, "LLM.int8()", arXiv 2208.07339; Dettmers et al. 2023, "QLoRA", arXiv 2305.14314.

Of 8 bits, `NAME.weight` is int8 `[outputs, inputs]`, and `NAME.SCB` has the largest absolute value of each output,
which 127 stands for. Of 4 bits, `NAME.weight` has two numbers a byte, the higher half first, each the place of a value
in `weight.quant_map`; a block of them is multiplied by its number in `weight.absmax`, which may be quantised itself, to
8 bits in blocks with an offset. What is particular to a matrix stands as JSON in `weight.quant_state.bitsandbytes__nf4`
(or `fp4`).
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from expertlens_jax.errors import CheckpointError, UnsupportedModelError
from expertlens_jax.models.quantised.matrices import (
    Index,
    check_part,
    even,
    is_stored_as,
    matrix,
    modules_with,
    stated,
    whole,
)
from expertlens_jax.models.weights import StoredTensor, Weights

LARGEST = np.float32(127)
"""What the largest absolute value of an output is stored as."""

FIELDS = (
    # read
    *("load_in_8bit", "_load_in_8bit", "load_in_4bit", "_load_in_4bit", "bnb_4bit_quant_type"),
    *("bnb_4bit_quant_storage",),
    # each matrix's own state tells whether it is; which modules are quantised, their tensors tell
    *("bnb_4bit_use_double_quant", "llm_int8_skip_modules"),
    # how to compute; inputs of layers aren't quantised here
    *("bnb_4bit_compute_dtype", "llm_int8_threshold", "llm_int8_enable_fp32_cpu_offload", "llm_int8_has_fp16_weight"),
)
"""Fields of the settings that are read, or change nothing that is."""

PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")


def decoder(settings: Mapping[str, Any]) -> Callable[[Weights], dict[str, StoredTensor]]:
    """Return the decoder of a checkpoint with these settings.

    Raises:
      UnsupportedModelError: 4 bits in words of more than 8; or neither 8 bits nor 4.
    """
    if settings.get("load_in_8bit") or settings.get("_load_in_8bit"):
        return _decode_8_bits
    if not (settings.get("load_in_4bit") or settings.get("_load_in_4bit")):
        raise UnsupportedModelError("neither load_in_8bit nor load_in_4bit")
    stated(settings, "bnb_4bit_quant_type", ("nf4", "fp4"), "fp4")
    stated(settings, "bnb_4bit_quant_storage", ("uint8", None), "uint8")
    return _decode_4_bits


def _decode_8_bits(weights: Weights) -> dict[str, StoredTensor]:
    tensors = dict(weights.tensors)
    for module, codes in modules_with(weights, "weight"):
        if not is_stored_as(codes, "I8") or len(codes.shape) != 2:
            continue
        largest = check_part(weights, f"{module}SCB", ((codes.shape[0],),), ("F32",))
        layout = weights.tensors.get(f"{module}weight_format")
        if layout is not None and np.any(whole(layout) != 0):
            raise CheckpointError(
                f"{module}weight in {weights.where} is stored in an order of some GPU's own (weight_format isn't 0), "
                "which can't be read. Save it with a newer bitsandbytes."
            )
        for part in ("SCB", "weight_format"):
            tensors.pop(module + part, None)
        tensors[f"{module}weight"] = _times_largest(codes, largest)
    return tensors


def _times_largest(codes: StoredTensor, largest: StoredTensor) -> StoredTensor:
    """Return int8 `[outputs, inputs]` as what it stands for."""

    def decode(index: Index) -> np.ndarray:
        return codes.read(index) * (largest.read((index[0],)) / LARGEST)[:, None]

    return matrix((codes.shape[0], codes.shape[1]), decode)


def _decode_4_bits(weights: Weights) -> dict[str, StoredTensor]:
    tensors = dict(weights.tensors)
    for name in weights.tensors:
        start, found, kind = name.rpartition(".quant_state.bitsandbytes__")
        if found:
            tensors[start] = _looked_up(weights, start, name, kind)
            for part in (*PARTS, f"quant_state.bitsandbytes__{kind}"):
                tensors.pop(f"{start}.{part}", None)
    return tensors


def _looked_up(weights: Weights, name: str, state_name: str, kind: str) -> StoredTensor:
    """Return numbers of 4 bits as what they stand for."""
    try:
        state = json.loads(whole(weights.tensors[state_name]).tobytes())
        outputs, inputs = state["shape"]
        block = int(state["blocksize"])
        nested = int(state["nested_blocksize"]) if "nested_blocksize" in state else None
        offset = np.float32(state.get("nested_offset", 0))
        known = kind in ("nf4", "fp4") and block > 0 and nested != 0
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{state_name} in {weights.where} can't be read: {error!r}. Get it again.") from error
    if not known:
        raise CheckpointError(f"{state_name} in {weights.where} says {state}, which can't be read.")
    count = outputs * inputs
    blocks, bytes_ = math.ceil(count / block), math.ceil(count / 2)
    codes = check_part(weights, name, ((bytes_, 1), (1, bytes_)), ("U8",))
    values = whole(check_part(weights, f"{name}.quant_map", ((16,),), ("F32",)))
    absmax = check_part(weights, f"{name}.absmax", ((blocks,),), ("F32",) if nested is None else ("U8",))
    largest = whole(absmax)
    if nested is not None:
        shape = (math.ceil(blocks / nested),)
        of_blocks = whole(check_part(weights, f"{name}.nested_absmax", (shape,), ("F32",)))
        of_codes = whole(check_part(weights, f"{name}.nested_quant_map", ((256,),), ("F32",)))
        largest = of_codes[largest] * of_blocks[even(blocks, nested)] + offset

    def decode(index: Index) -> np.ndarray:
        rows, columns = index
        first, last = rows.start * inputs, rows.stop * inputs
        of_bytes = slice(first // 2, -(-last // 2))
        some = (of_bytes, slice(0, 1)) if codes.shape[1] == 1 else (slice(0, 1), of_bytes)
        pairs = codes.read(some).reshape(-1)
        numbers = np.stack([pairs >> 4, pairs & 15], axis=-1).reshape(-1)[first % 2 :][: last - first]
        part = values[numbers] * largest[np.arange(first, last) // block]
        return part.reshape(-1, inputs)[:, columns]

    return matrix((outputs, inputs), decode)
