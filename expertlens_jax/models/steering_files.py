"""Steerings as files: JSON, numbers exactly, here or in a repository of the hub."""

import json
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from expertlens_jax.errors import ExpertLensWarning, SelectionError
from expertlens_jax.models import hub
from expertlens_jax.models.provenance import read_provenance
from expertlens_jax.models.steering import Steering
from expertlens_jax.models.when import When

STEERING = "steering.json"
"""The file of a repository that is a steering."""

SOUGHT = hub.Sought(
    "steering",
    f"A steering is a {STEERING} that el.push wrote; a table of expertise is opened by el.open_expertise, a model is "
    "loaded by el.load_model.",
    SelectionError,
    "steering's file",
)


def save_steering(steering: Steering, path: epath.PathLike) -> None:
    """Do what `Steering.save` says."""
    stored: dict[str, Any] = {
        "model": steering.model,
        "label": steering.label,
        "provenance": None if steering.provenance is None else steering.provenance.attributes(),
        "transferred_to": steering.transferred_to,
        "channels": dict(steering.channels),
    }
    if steering.stages:
        stored["parts"] = [
            {"when": None if when is None else when.given} | _columns(part)
            for (_, when), part in zip(steering.stages, steering.parts, strict=True)
        ]
    else:
        stored |= _columns(steering)
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stored) + "\n")


def _columns(steering: Steering) -> dict[str, Sequence[Any]]:
    """Return a steering's units and maps, as a file has them."""
    layers, sites, channels = zip(*steering.units, strict=True) if steering.units else ((), (), ())
    return {
        "layer": layers,
        "site": sites,
        "channel": channels,
        **({} if steering.experts is None else {"expert": steering.experts}),
        "scale": np.asarray(steering.scale, np.float64).tolist(),
        "shift": np.asarray(steering.shift, np.float64).tolist(),
    }


def load_steering(
    path: epath.PathLike,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Steering:
    """Load what `Steering.save` wrote, or `el.push` into a repository of the hub.

        steering = el.load_steering("cat.json")
        steering = el.load_steering("someone/cat-steering", revision="v1")

    Args:
      path: the file, here or in a bucket; or a directory with a `steering.json` in it, as a repository is when it is
        copied here. What doesn't exist as a path and has the form `owner/name` is taken for a repository's id; one with
        the ending `.json` is always a path.
      revision: of the repository: a branch, tag or commit.
      cache_dir: where downloads are kept; default huggingface_hub's own.
      token: of the hub, for gated and private repositories; default the one logged in with (`hf auth login`).

    Raises:
      SelectionError: there is no such file or repository, it can't be reached, or it holds something else; or settings
        of the hub beside a path.

    Warns:
      ExpertLensWarning: a path here is taken, and could be a repository's id; or the file is of version 0.1.0, which
        says no more of the model than its name; that is then all that a call can go by.

    >>> import expertlens_jax as el, tempfile
    >>> model = el.load_model("lenslet-2m")
    >>> path = f"{tempfile.mkdtemp()}/silence.json"
    >>> el.steer_units(model, model.units.head(2), label="silence").save(path)
    >>> el.load_steering(path)
    Steering of lenslet-2m: silence; 2 units (2 at attn.q)
    """
    path = _steering_file(path, revision, cache_dir, token)
    try:
        stored = json.loads(path.read_text())
        parts = stored.get("parts", [stored])
        for part in parts:
            columns = ("layer", "site", "channel", "scale", "shift", *(["expert"] if "expert" in part else []))
            lengths = {len(part[name]) for name in columns}
            if len(lengths) > 1:
                raise ValueError(f"columns of {sorted(lengths)} units")
        layers, sites, channels, scale, shift = (
            [value for part in parts for value in part[name]] for name in ("layer", "site", "channel", "scale", "shift")
        )
        numbers = np.array([layers, channels, scale, shift], np.float64)
        if not np.isfinite(numbers).all() or (numbers[:2] % 1).any() or (numbers[:2] < 0).any():
            raise ValueError("layers or channels that aren't whole numbers, or a number that isn't finite")
        experts = [expert for part in parts for expert in part.get("expert", ())]
        if len(experts) not in (0, len(layers)) or not all(type(each) is int and each >= -1 for each in experts):
            raise ValueError("experts that aren't whole numbers, -1 of none, or that some units lack")
        whens = [None if part.get("when") is None else When(**part["when"]) for part in parts]
        if "provenance" not in stored:
            warnings.warn(
                ExpertLensWarning(
                    f"{path} was saved by an earlier version, which says no more of the model than its name, "
                    f"{stored['model']}: whether it is the one that the steering is given to, only the name can tell. "
                    "Make the steering again from a table of this version."
                ),
                stacklevel=2,
            )
        return Steering(
            scale=np.array(scale, np.float32),
            shift=np.array(shift, np.float32),
            units=tuple(zip(layers, sites, channels, strict=True)),
            channels=tuple(stored["channels"].items()),
            model=stored["model"],
            label=stored["label"],
            provenance=read_provenance(stored.get("provenance") or {}),
            transferred_to=stored.get("transferred_to", ""),
            stages=tuple((len(part["layer"]), when) for part, when in zip(parts, whens, strict=True))
            if "parts" in stored
            else (),
            experts=tuple(experts) if any("expert" in part for part in parts) else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SelectionError(f"{path} is no steering that steering.save wrote ({error!r}).") from error


def _steering_file(
    path: epath.PathLike,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    token: str | bool | None,
) -> epath.Path:
    """Return the file that is meant: at a path, in a directory, or of a repository, which is fetched.

    Raises:
      SelectionError: there is none.
    """
    fetched = hub.find_file(path, STEERING, SOUGHT, revision=revision, cache_dir=cache_dir, token=token)
    if fetched is not None:
        return epath.Path(fetched)
    here = epath.Path(path)
    if here.is_file():
        return here
    if here.is_dir():
        if not (here / STEERING).is_file():
            raise SelectionError(
                f"{path} is a directory here that has no {STEERING}. Give the steering's file; for a repository of "
                "that name, run from another directory."
            )
        hub.warn_of_path(path, SOUGHT, stacklevel=4)
        return here / STEERING
    raise SelectionError(f"there is no steering {path}; write one with steering.save({str(path)!r}).")
