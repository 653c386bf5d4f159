"""The tensors of a mixture of experts: one of each expert, whether a file has them so or all experts' in one."""

import re
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from expertlens_jax.models.families.family import Family
from expertlens_jax.models.weights import StoredTensor


def each_expert(
    stored: str, name: str, tensors: Mapping[str, StoredTensor], family: Family
) -> Iterator[tuple[str, StoredTensor]]:
    """Take a tensor of all experts apart, into one of each by the names that the family has for them.

    So are `experts.gate_up_proj` `[experts, gate and up, inputs]` and `experts.down_proj` `[experts, outputs, inputs]`,
    which transformers has in memory since version 5, and some files hold. Inputs may come before outputs: the shapes of
    both tell; where they don't, the family. In one whose experts are interleaved, gate and up come in turns, and there
    are biases.

    Args:
      stored: the tensor's name in the file.
      name: its name in the base model.
      tensors: all of the file's.
      family: of the model.

    Yields:
      Names in the base model and tensors; of any other tensor, itself.
    """
    tensor = tensors[stored]
    match = re.fullmatch(r"(.*\.experts\.)(gate_up_proj|down_proj)(_bias)?", name)
    is_weight = match is not None and match[3] is None
    if family.expert_layers is None or match is None or len(tensor.shape) != 2 + is_weight:
        yield name, tensor
        return
    if is_weight and _are_turned(stored, tensors, family):
        num_experts, columns, rows = tensor.shape
        tensor = StoredTensor((num_experts, rows, columns), tensor.dtype, partial(_read_turned, tensor))
    gate, up, down = family.expert_layers
    layers = (gate, up) if match[2] == "gate_up_proj" else (down,)
    num_experts, rows, *columns = tensor.shape
    height = rows // len(layers)
    for expert in range(num_experts):
        for place, layer in enumerate(layers):
            first, step = (place, len(layers)) if family.experts_interleaved else (place * height, 1)
            read = partial(_read_part, tensor, expert, first, step)
            part = StoredTensor((height, *columns), tensor.dtype, read)
            yield f"{match[1]}{expert}.{layer}.{'weight' if is_weight else 'bias'}", part


def _are_turned(stored: str, tensors: Mapping[str, StoredTensor], family: Family) -> bool:
    """Return whether inputs come before outputs in the tensors of all experts.

    Then `down_proj` has as many columns as `gate_up_proj` has rows, and half as many rows as that has columns; which of
    the other way is never so.
    """
    gate_up, down = (
        tensors.get(re.sub("gate_up_proj|down_proj", layer, stored)) for layer in ("gate_up_proj", "down_proj")
    )
    if gate_up is None or down is None or len(gate_up.shape) != 3 or len(down.shape) != 3:
        return family.experts_turned
    return gate_up.shape[2] == 2 * down.shape[1] and gate_up.shape[1] == down.shape[2]


def _read_turned(tensor: StoredTensor, index: tuple[slice, ...]) -> np.ndarray:
    """Read `[experts, rows, columns]` of what is stored as `[experts, columns, rows]`."""
    experts, rows, columns = index
    return tensor.read((experts, columns, rows)).swapaxes(1, 2)


def _read_part(tensor: StoredTensor, expert: int, first: int, step: int, index: tuple[slice, ...]) -> np.ndarray:
    """Read an expert's rows, every `step`th from the `first` on, and of them those at `index`."""
    rows, *columns = index
    between = slice(first + step * rows.start, first + step * (rows.stop - 1) + 1)
    return tensor.read((slice(expert, expert + 1), between, *columns))[0][::step]


def all_experts(tensors: Mapping[str, np.ndarray], family: Family) -> dict[str, np.ndarray]:
    """Put tensors of each expert together, where files of the family have them so: the inverse of `each_expert`."""
    if not family.experts_together or family.expert_layers is None:
        return dict(tensors)
    together: dict[str, np.ndarray] = {}
    found: dict[tuple[str, str, str], list[np.ndarray]] = {}
    for name, values in tensors.items():
        if match := re.fullmatch(r"(.*\.experts\.)\d+\.(\w+)\.(weight|bias)", name):
            found.setdefault((match[1], match[2], match[3]), []).append(values)  # in the experts' order
        else:
            together[name] = values
    gate, up, down = family.expert_layers
    for start, layer, kind in found:
        if layer == up:
            continue
        parts = [np.stack(found[start, each, kind]) for each in ((gate, up) if layer == gate else (down,))]
        if family.experts_interleaved:
            whole = np.stack(parts, axis=2).reshape(len(parts[0]), -1, *parts[0].shape[2:])
        else:
            whole = np.concatenate(parts, axis=1)
        name = f"{start}{'gate_up_proj' if layer == gate else 'down_proj'}{'_bias' if kind == 'bias' else ''}"
        turned = family.experts_turned and kind == "weight"
        together[name] = np.ascontiguousarray(whole.swapaxes(1, 2)) if turned else whole
    return together
