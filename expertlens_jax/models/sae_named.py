"""Sparse autoencoders as settings name them: PATH, PATH@12, or PATH@layer=12,centred=True."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etils import epath

from expertlens_jax.errors import SelectionError
from expertlens_jax.models.model import Model
from expertlens_jax.models.sae import SAE, never_fires
from expertlens_jax.models.sae_files import load_sae

_KINDS = {"layer": int, "site": str, "scale": float, "centred": {"True": True, "False": False}.__getitem__}


def sae_options(entry: str) -> tuple[str, dict[str, Any]]:
    """Return a path, and what `load_sae` is told of it.

    Args:
      entry: PATH, PATH@12 for a layer, or PATH@layer=12,centred=True with options of `load_sae`.

    Raises:
      SelectionError: what stands behind the last @ is neither a layer nor options of `load_sae`.
    """
    path, at, stated = entry.rpartition("@")
    if not at or epath.Path(entry).exists():
        return entry, {}
    if stated.isdecimal():
        return path, {"layer": int(stated)}
    options = {}
    for option in stated.split(","):
        name, _, value = option.partition("=")
        try:
            options[name.strip()] = _KINDS[name.strip()](value.strip())
        except (KeyError, ValueError) as error:
            raise SelectionError(
                f"saes has {entry!r}, and {option!r} in it isn't understood. Write PATH, PATH@12 for a layer, or "
                "PATH@layer=12,site=resid,scale=0.5,centred=True with options of el.load_sae."
            ) from error
    return path, options


def carry_together(model: Model, entries: Sequence[str]) -> Model:
    """Return a model that carries all of several autoencoders.

    Raises:
      SelectionError, CheckpointError: see `sae_options`, `load_sae` and `Model.with_sae`.
    """
    return model.with_sae(*(load_sae(path, **options) for path, options in map(sae_options, entries)))


def carry_each(model: Model, entries: Sequence[str]) -> dict[str, Model]:
    """Return a model with each of several autoencoders, by what to call them: after the directory.

    Raises:
      SelectionError: two of one name, or an entry that can't be read.
      CheckpointError: see `load_sae` and `Model.with_sae`.
    """
    carrying = {}
    for entry in entries:
        path, options = sae_options(entry)
        sae = load_sae(path, **options)
        name = f"sae_{sae.name}_layer{sae.layer}" if "layer" in options else f"sae_{sae.name}"
        if name in carrying:
            raise SelectionError(
                f"saes is {tuple(entries)}, and two of them would be called {name}; rename one's directory, or say "
                "the layers, as in PATH@12."
            )
        carrying[name] = model.with_sae(sae)
    return carrying


def count_dead(sae: SAE) -> int:
    """Return how many features are dead by their weights alone, see `never_fires`.

    Raises:
      SelectionError: all of them are.
    """
    dead = never_fires(sae)
    if dead.all():
        raise SelectionError(
            f"all {len(dead)} features of {sae.name} are dead: none can fire, whatever it reads. Give another."
        )
    return int(dead.sum())
