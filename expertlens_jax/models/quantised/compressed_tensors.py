"""Reads what llm-compressor writes (github.com/vllm-project/compressed-tensors).

Of `float-quantized`, `int-quantized` and `naive-quantized`, `NAME.weight` is float8 or int8 `[outputs, inputs]`, and
each value is `(weight - weight_zero_point) * weight_scale`: with one scale for the tensor, for each output, for each
group of inputs, or for each block. Of `pack-quantized`, `NAME.weight_packed` `[outputs, words]` has as many values in
an int32 as fit, the lowest bits first, stored as they are plus half their range; `weight_shape` is the matrix's. Zero
points are packed in the same way, along the outputs. How activations are quantised is a matter of speed and isn't done.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from expertlens_jax.cards import counted
from expertlens_jax.errors import CheckpointError, UnsupportedModelError
from expertlens_jax.models.quantised.matrices import (
    FLOATS,
    Blocks,
    Index,
    check_part,
    even,
    group_width,
    is_stored_as,
    matrix,
    modules_with,
    read_packed,
    stated,
    stored_blocks,
    unpack,
    whole,
)
from expertlens_jax.models.weights import StoredTensor, Weights

FORMATS = ("float-quantized", "int-quantized", "naive-quantized", "pack-quantized")
OF_ACTIVATIONS = tuple(
    f"{whose}_{what}" for whose in ("input", "output", "q", "k", "v") for what in ("scale", "zero_point")
)
"""Tensors of a module that say how activations are quantised, or keys and values in a cache."""


FIELDS = (
    # read
    *("config_groups", "format", "quantization_status", "sparsity_config", "transform_config"),
    "moe_sparsity_config",
    # which modules are quantised, which their tensors tell; keys and values in a cache aren't quantised here
    *("ignore", "kv_cache_scheme"),
    # notes, and how to compute
    *("version", "global_compression_ratio", "run_compressed", "dequantize", "use_optimized_inference"),
)
"""Fields of the settings that are read, or change nothing that is."""

OF_GROUPS = ("format", "weights", "targets", "input_activations", "output_activations")
OF_WEIGHTS = (
    *("type", "num_bits", "strategy", "dynamic", "group_size", "block_structure", "symmetric", "actorder"),
    *("scale_dtype", "zp_dtype", "observer", "observer_kwargs"),
)
"""The same of a group of modules, and of their weights."""

OUT_OF_TURN = ("group", "dynamic")
"""`actorder` where inputs belong to groups out of turn."""


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How all quantised matrices of a checkpoint are."""

    packed: bool
    bits: int
    floats: bool
    strategy: str
    block: tuple[int, int] | None
    """Rows and columns that share a scale, where that isn't all of them; None for the tensor or channels."""
    symmetric: bool
    ordered: bool
    """Whether inputs belong to groups out of turn, which `weight_g_idx` tells."""


def decoder(settings: Mapping[str, Any]) -> Callable[[Weights], dict[str, StoredTensor]]:
    """Return the decoder of a checkpoint with these settings.

    Raises:
      UnsupportedModelError: of another format, of different ones at once, sparse, or turned by matrices.
    """
    scheme = _read_scheme(settings)

    def decode(weights: Weights) -> dict[str, StoredTensor]:
        tensors = dict(weights.tensors)
        for module, codes in modules_with(weights, "weight_packed" if scheme.packed else "weight"):
            if not scheme.packed and not is_stored_as(codes, "F8_E4M3", "I8"):
                continue  # a module that isn't quantised
            tensors[f"{module}weight"] = _decoded(weights, module, codes, scheme)
            for part in ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"):
                tensors.pop(module + part, None)
        for name in weights.tensors:
            if name.rpartition(".")[2] in OF_ACTIVATIONS:
                tensors.pop(name, None)
        return tensors

    return decode


def _read_scheme(settings: Mapping[str, Any]) -> Scheme:
    """Return what the settings' groups of modules have in common, which must be all about their weights."""
    stated(settings, "quantization_status", ("compressed", "frozen", None), None)
    sparsity = settings.get("sparsity_config") or {}
    stated(sparsity, "format", ("dense", None), None)
    if settings.get("moe_sparsity_config"):
        raise UnsupportedModelError("moe_sparsity_config, by which layers have different experts; that isn't read")
    if (settings.get("transform_config") or {}).get("config_groups"):
        raise UnsupportedModelError("transform_config, which turns weights by matrices; that isn't read")
    groups = list((settings.get("config_groups") or {}).values())
    for group in groups:
        if not isinstance(group, Mapping):
            raise UnsupportedModelError(f"config_groups of presets, {group!r}; their meaning isn't in the file")
        weights = group.get("weights") or {}
        for known, given in (OF_GROUPS, group), (OF_WEIGHTS, weights):
            unknown = [f"{field}={value!r}" for field, value in given.items() if field not in known and value]
            if unknown:
                raise UnsupportedModelError(f"{', '.join(unknown)} of a group of modules, which isn't known")
    schemes = {_scheme_of(settings, group) for group in groups}
    if len(schemes) != 1:
        raise UnsupportedModelError(
            f"config_groups with {counted(len(schemes), 'way')} of quantising, of which one can be read"
        )
    return schemes.pop()


def _scheme_of(settings: Mapping[str, Any], group: Mapping[str, Any]) -> Scheme:
    own = {"format": group.get("format") or settings.get("format")}
    layout = stated(own, "format", FORMATS, None)
    weights = group.get("weights") or {}
    packed = layout == "pack-quantized"
    kinds = {"float-quantized": ("float",), "naive-quantized": ("float", "int")}.get(layout, ("int",))
    kind = stated(weights, "type", kinds, "int")
    bits = stated(weights, "num_bits", (4, 8) if packed else (8,), 8)
    strategy = stated(weights, "strategy", ("tensor", "channel", "group", "block"), None)
    stated(weights, "dynamic", (False, None), False)
    block = None
    if strategy == "group":
        block = (1, group_width(weights, 0))
    elif strategy == "block":
        sizes = weights.get("block_structure")
        if not isinstance(sizes, list | tuple) or len(sizes) != 2 or not all(isinstance(size, int) for size in sizes):
            raise UnsupportedModelError(f"block_structure={sizes!r}; it should be two numbers")
        block = (sizes[0], sizes[1])
    symmetric = bool(weights.get("symmetric", True))
    allowed = ("group", "dynamic", "weight", "static", True, False, None)
    order = stated(weights, "actorder", allowed, None)
    return Scheme(packed, bits, kind == "float", strategy, block, symmetric, order is True or order in OUT_OF_TURN)


def _decoded(weights: Weights, module: str, codes: StoredTensor, scheme: Scheme) -> StoredTensor:
    """Return a module's weights, of which `codes` are the packed or plain ones."""
    shape = _shape(weights, module, codes, scheme)
    outputs, inputs = shape
    rows, columns = {"tensor": shape, "channel": (1, inputs)}.get(scheme.strategy) or scheme.block or shape
    grid = (-(-outputs // rows), -(-inputs // columns))
    column_blocks = even(inputs, columns)
    if scheme.strategy == "group" and (scheme.ordered or f"{module}weight_g_idx" in weights.tensors):
        stored = whole(check_part(weights, f"{module}weight_g_idx", ((inputs,),), ("I32", "I64")))
        column_blocks = column_blocks if (stored < 0).any() else stored  # as -1 it isn't filled in
    shapes = {"tensor": ((1,), (), (1, 1)), "channel": ((outputs, 1), (outputs,))}.get(scheme.strategy, (grid,))
    scale = stored_blocks(check_part(weights, f"{module}weight_scale", shapes, FLOATS), rows, column_blocks)
    zero = None if scheme.symmetric else _zero_points(weights, module, scheme, shapes, grid, rows, column_blocks)
    read = (lambda index: _unpacked(codes, scheme.bits, index)) if scheme.packed else codes.read

    def decode(index: Index) -> np.ndarray:
        values = read(index).astype(np.float32)
        if zero is not None:
            values -= zero.over(index)
        return values * scale.over(index)

    return matrix(shape, decode)


def _shape(weights: Weights, module: str, codes: StoredTensor, scheme: Scheme) -> tuple[int, int]:
    """Return the matrix's shape, which packed numbers, filled up with others, don't tell."""
    if len(codes.shape) != 2:
        raise CheckpointError(
            f"the quantised weights of {module.removesuffix('.')} in {weights.where} have the shape "
            f"{list(codes.shape)}; matrices alone can be read."
        )
    if not scheme.packed:
        check_part(weights, f"{module}weight", (codes.shape,), ("F8_E4M3",) if scheme.floats else ("I8",))
        return codes.shape[0], codes.shape[1]
    stored = whole(check_part(weights, f"{module}weight_shape", ((2,),), ("I64", "I32")))
    outputs, inputs = int(stored[0]), int(stored[1])
    words = -(-inputs * scheme.bits // 32)
    check_part(weights, f"{module}weight_packed", ((outputs, words),), ("I32",))
    return outputs, inputs


def _unpacked(codes: StoredTensor, bits: int, index: Index) -> np.ndarray:
    """Return packed numbers, int8."""
    return (read_packed(codes, bits, index, axis=1).astype(np.int16) - 2 ** (bits - 1)).astype(np.int8)


def _zero_points(
    weights: Weights,
    module: str,
    scheme: Scheme,
    shapes: tuple[tuple[int, ...], ...],
    grid: tuple[int, int],
    rows: int,
    column_blocks: np.ndarray,
) -> Blocks:
    """Return the zero points, which are packed along the outputs where weights are packed."""
    name = f"{module}weight_zero_point"
    if not scheme.packed or scheme.strategy not in ("group", "channel"):
        return stored_blocks(check_part(weights, name, shapes, ("I8", *FLOATS)), rows, column_blocks)
    packed = check_part(weights, name, ((-(-grid[0] * scheme.bits // 32), grid[1]),), ("I32",))
    numbers = unpack(whole(packed), scheme.bits, axis=0)[: grid[0]].astype(np.int16) - 2 ** (scheme.bits - 1)
    return Blocks(lambda some: numbers[some], rows, column_blocks)
