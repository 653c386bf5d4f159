"""Steerings as control vectors of llama.cpp: GGUF files with a vector a layer, added to the residual stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from etils import epath

from expertlens_jax.errors import SelectionError
from expertlens_jax.models.exporting import refuse_conditions, refuse_units

if TYPE_CHECKING:
    from expertlens_jax.models.steering import Steering

ARCHITECTURE = "controlvector"
SITE = "resid"


def save_gguf(steering: Steering, path: epath.PathLike, *, model_hint: str = "") -> None:
    """Write a steering as a control vector: `llama-cli -m model.gguf --control-vector cat.gguf`.

    A control vector adds a vector to the residual stream after a layer, at every token, from layer 1 on; that is what
    llama.cpp can do of a steering. It reads `direction.N` for layer N, counted from 0 as here.

    Args:
      steering: shifts of units at the site `resid`, with no other scale than 1, in no layer 0: such as `el.steer` makes
        of a table of `sites="resid"` by `method="mean_shift"`.
      path: a local file; a name that ends in .gguf.
      model_hint: the architecture's name in GGUF ("llama", "qwen2"), for people: llama.cpp doesn't check it.

    Raises:
      SelectionError: the steering does what a control vector can't; the message says which units, and why.
      ModuleNotFoundError: the package gguf isn't installed; it is the extra `gguf`.
    """
    refuse_conditions("a control vector", steering)
    table = steering.table
    elsewhere = table[table["site"] != SITE]
    scaled = table[(table["site"] == SITE) & (table["scale"] != 1)]
    first = table[(table["site"] == SITE) & (table["layer"] == 0)]
    for rows, why in (
        (elsewhere, "aren't at the residual stream after a layer (resid)"),
        (scaled, "are scaled, and a vector can only be added: method='mean_shift' makes such a steering"),
        (first, "are in layer 0, which llama.cpp gives no control vector"),
    ):
        refuse_units("a control vector", rows, len(table), why)
    width = dict(steering.channels).get(SITE)
    if not len(table):
        raise SelectionError("a control vector can't carry this steering: it changes no unit.")
    if width is None:
        raise SelectionError(
            "a control vector can't carry this steering: its table holds some channels of resid only, so how long the "
            "vectors are isn't known. Make it from a table of all of them."
        )
    import gguf  # an extra

    writer = gguf.GGUFWriter(str(path), ARCHITECTURE)
    writer.add_string(f"{ARCHITECTURE}.model_hint", model_hint)
    layers = sorted(set(table["layer"]))
    writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(layers))
    writer.add_description(repr(steering))
    for layer in layers:
        own = table[table["layer"] == layer]
        vector = np.zeros(width, np.float32)
        vector[own["channel"].to_numpy()] = own["shift"]
        writer.add_tensor(f"direction.{layer}", vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
