"""Steerings for lm-evaluation-harness: files that its `steered` models read, with a vector a module.

    lm_eval --model steered --model_args pretrained=MODEL,steer_path=cat.pt --tasks TASK

It adds each vector to a module's output at every token.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from etils import epath

from expertlens_jax.errors import SelectionError
from expertlens_jax.models.exporting import refuse_conditions, refuse_units
from expertlens_jax.models.steering import Steering
from expertlens_jax.models.torch_hooks import find_places

CARRIER = "lm-evaluation-harness"


def save_lm_eval(steering: Steering, path: epath.PathLike, hf_model: Any) -> None:
    """Write a steering as a file of vectors for `lm_eval --model steered` (0.4.9 and later).

    Args:
      steering: shifts of units, with no other scale than 1, such as `el.steer` makes by `method="mean_shift"`,
        `el.steer` of directions, or `el.learn_steering`; at sites that are a module's output in PyTorch.
      path: a local file whose name ends in .pt.
      hf_model: the `transformers` model that is evaluated; which module a unit is in, and its name, is read of it.

    Raises:
      SelectionError: the name doesn't end in .pt, or units are scaled, or are a module's input; the message says which.
        Or see `steering.to_torch`.
      ModuleNotFoundError: torch isn't installed, whose file it is.
    """
    if epath.Path(path).suffix != ".pt":
        raise SelectionError(f"{path} was given; lm-evaluation-harness reads vectors from a file that ends in .pt.")
    refuse_conditions(CARRIER, steering)
    table = steering.table
    if not len(table):
        raise SelectionError("this steering changes no unit; there is nothing to write.")
    refuse_units(
        CARRIER,
        table[table["scale"] != 1],
        len(table),
        "are scaled, and a vector can only be added: method='mean_shift'",
    )
    places = list(find_places(steering, hf_model))
    for each in places:
        if each.is_input:
            refuse_units(
                CARRIER,
                each.rows,
                len(table),
                f"are the input of a {type(each.module).__name__}, and only outputs change",
            )
    import torch  # the file is its own

    base = hf_model.base_model
    names = {id(module): name for name, module in base.named_modules()}
    vectors: dict[str, np.ndarray] = {}
    for each, width in zip(places, _output_widths(hf_model, [each.module for each in places]), strict=True):
        vector = vectors.setdefault(names[id(each.module)], np.zeros(width, np.float32))
        vector[each.channels] += each.rows["shift"].to_numpy(np.float32)
    told = {
        name: {"action": "add", "steering_coefficient": 1.0, "steering_vector": torch.from_numpy(vector), "bias": None}
        for name, vector in vectors.items()
    }
    torch.save(told, str(path))


def _output_widths(hf_model: Any, modules: list[Any]) -> list[int]:
    """Return how many channels the output of each module has, by a pass over one token."""
    widths: dict[int, int] = {}

    def note(module: Any, args: tuple, output: Any) -> None:
        del args
        widths[id(module)] = (output[0] if isinstance(output, tuple) else output).shape[-1]

    import torch

    handles = [module.register_forward_hook(note) for module in modules]
    try:
        with torch.no_grad():
            hf_model.base_model(torch.zeros((1, 1), dtype=torch.long, device=hf_model.device))
    finally:
        for handle in handles:
            handle.remove()
    return [widths[id(module)] for module in modules]
