"""What the formats share: matrices that are decoded a few rows at a time, and numbers for blocks of them."""

import dataclasses
import math
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


WORD = 32
"""Bits of the words that numbers are packed into."""


def in_words(bits: int) -> tuple[int, int]:
    """Return how many numbers of so many bits fill how many words: 8 of 4 bits one, 32 of 3 bits three."""
    shared = math.gcd(WORD, bits)
    return WORD // shared, bits // shared


def unpack(words: np.ndarray, bits: int, axis: int) -> np.ndarray:
    """Take int32 words apart into numbers of so many bits, uint8, the lowest bits first, along an axis.

    Numbers of 3 bits go on in the next word where one is full; the words are then a multiple of three.
    """
    a_block, of_words = in_words(bits)
    along, largest = np.moveaxis(words.view(np.uint32), axis, -1), np.uint32(2**bits - 1)
    if of_words == 1:
        numbers = along[..., None] >> np.arange(0, WORD, bits, dtype=np.uint32) & largest
        return np.moveaxis(numbers.astype(np.uint8).reshape(*along.shape[:-1], -1), -1, axis)
    blocks = along.reshape(*along.shape[:-1], -1, of_words)
    numbers = np.empty((*blocks.shape[:-1], a_block), np.uint8)
    for place in range(a_block):
        word, shift = divmod(place * bits, WORD)
        number = blocks[..., word] >> np.uint32(shift)
        if shift + bits > WORD:
            number = number | blocks[..., word + 1] << np.uint32(WORD - shift)
        numbers[..., place] = number & largest
    return np.moveaxis(numbers.reshape(*along.shape[:-1], -1), -1, axis)


def read_packed(packed: StoredTensor, bits: int, index: Index, axis: int) -> np.ndarray:
    """Return a part of a matrix of numbers that is packed along an axis, uint8 `[rows, columns]`."""
    a_block, of_words = in_words(bits)
    wanted = index[axis]
    blocks = slice(wanted.start // a_block, -(-wanted.stop // a_block))
    words = slice(blocks.start * of_words, blocks.stop * of_words)
    numbers = unpack(packed.read((index[0], words) if axis else (words, index[1])), bits, axis)
    start = wanted.start - blocks.start * a_block
    some = slice(start, start + wanted.stop - wanted.start)
    return numbers[:, some] if axis else numbers[some]


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


def agreed(settings: Mapping[str, Any], fields: tuple[str, ...], allowed: tuple[str, ...], default: str) -> str:
    """Return what settings say by any of several names, in lower case, if it is allowed.

    Raises:
      UnsupportedModelError: it isn't; or two of the names say different things.
    """
    said = {
        field: str(getattr(settings[field], "value", settings[field])).lower()
        for field in fields
        if settings.get(field)
    }
    if len(set(said.values())) > 1:
        pairs = " and ".join(f"{field}={value!r}" for field, value in said.items())
        raise UnsupportedModelError(f"{pairs}, of which only one can be true")
    for field in said:
        stated(said, field, allowed, default)
    return next(iter(said.values()), default)


OF_LAYERS = (
    # read
    *("pack_dtype", "dynamic", "rotation", "adapter", "data_type", "super_bits", "super_group_size"),
    # which modules are quantised, which their tensors tell
    *("lm_head", "modules_in_block_to_quantize", "block_name_to_quantize", "module_name_preceding_first_block"),
    *("to_quant_block_names", "modules_to_not_convert"),
    # how numbers were found
    *("tokenizer", "dataset", "damp_percent", "damp_auto_increment", "act_group_aware", "true_sequential", "mse"),
    *("static_groups", "batch_size", "model_seqlen", "pad_token_id", "cache_block_outputs", "amp", "iters", "lr"),
    *("minmax_lr", "nsamples", "seqlen", "gradient_accumulate_steps", "enable_minmax_tuning", "scale_dtype"),
    *("enable_quanted_input", "enable_norm_bias_tuning", "low_gpu_mem_usage"),
    # how to compute with them; inputs of layers, and keys and values in a cache, aren't quantised here
    *("activation", "act_bits", "act_group_size", "act_sym", "act_dynamic", "act_data_type", "static_kv_dtype"),
    *("static_attention_dtype", "backend", "max_input_length", "use_exllama", "disable_exllama", "exllama_config"),
    # notes
    *("meta", "provider", "autoround_version", "model_name_or_path", "model_file_base_name"),
)
"""Fields that GPTQ's and AWQ's settings share, of those who write both: GPTQModel, AutoRound and transformers."""


def check_layers(settings: Mapping[str, Any]) -> None:
    """Check that all layers are alike, hold whole numbers, and do nothing but multiply.

    Raises:
      UnsupportedModelError: some have settings of their own; or turn their inputs, add an adapter's product, or have
        other numbers.
    """
    stated(settings, "pack_dtype", ("int32", None), None)
    stated(settings, "data_type", ("int", None), None)
    stated(settings, "super_bits", (None,), None)
    own = [pattern for pattern in settings.get("dynamic") or {} if not pattern.startswith("-:")]
    if own:
        raise UnsupportedModelError(f"dynamic={own!r}, modules with settings of their own, which aren't read")
    for field, what in ("rotation", "turns what layers are given"), ("adapter", "adds to what layers give"):
        if settings.get(field):
            raise UnsupportedModelError(f"{field}={settings[field]!r}, which {what}; that isn't read")


def group_width(settings: Mapping[str, Any], default: int) -> int:
    """Return how many inputs share a scale, or -1 for all.

    Raises:
      UnsupportedModelError: that isn't a number.
    """
    width = settings.get("group_size", default)
    if not isinstance(width, int) or isinstance(width, bool) or not (width == -1 or width > 0):
        raise UnsupportedModelError(f"group_size={width!r}; it should be a number of inputs, or -1 for all of them")
    return width
