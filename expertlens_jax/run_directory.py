"""A run directory: what was asked, where it ran, what came out; safe to kill and to start again.

A directory belongs to one config. Every file is written beside its place and renamed into it, so what is there
is whole, and a run that starts again takes it as done.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import jax
import pandas as pd
import xarray as xr
from etils import epath

from expertlens_jax.errors import RunDirectoryError

_LOCK = ".lock"
_QUESTION = "question"
_REPORTED_PACKAGES = ("expertlens-jax", "jax", "jaxlib", "flax", "transformers", "numpy", "scipy", "xarray", "zarr")


def open_run(
    workdir: epath.PathLike, config: Mapping[str, Any], *, defaults: Mapping[str, Any] | None = None
) -> epath.Path:
    """Make a directory this config's own, or finds it so.

    Writes `config.json` and `environment.json`; the latter gains an entry each time the run is started again.

    Args:
      workdir: the directory, local or a bucket's.
      config: nested, of numbers, strings, lists and None.
      defaults: what a setting stands for that is left out, nested as the config is; of a part of the config, or of
        each in a list of such parts, for those that there are.

    Returns:
      The directory.

    Raises:
      RunDirectoryError: it holds another config's run, an earlier version's that doesn't say all that is asked now,
        or files that no run wrote.
    """
    directory = epath.Path(workdir)
    asked = json.loads(json.dumps(config))
    config_file, environment_file = directory / "config.json", directory / "environment.json"
    if config_file.exists():
        _check_same_config(directory, _read_config(config_file), asked, defaults or {})
    elif directory.exists() and any(file.name != _LOCK for file in directory.iterdir()):
        raise RunDirectoryError(
            f"{directory} holds files but no config.json, so it isn't a run directory. Choose another --workdir."
        )
    directory.mkdir(parents=True, exist_ok=True)
    launches = json.loads(environment_file.read_text()) if environment_file.exists() else []
    write_text(environment_file, json.dumps([*launches, describe_environment()], indent=2) + "\n")
    write_text(config_file, json.dumps(asked, indent=2) + "\n")
    return directory


def _read_config(file: epath.Path) -> dict[str, Any]:
    """Return a run's config.

    Raises:
      RunDirectoryError: the file isn't one.
    """
    try:
        config = json.loads(file.read_text())
    except ValueError:  # not JSON, or not even text
        config = None
    if not isinstance(config, dict):
        raise RunDirectoryError(f"{file} is no config that a run wrote. Choose another --workdir.")
    return config


def _check_same_config(
    directory: epath.Path, found: Mapping[str, Any], asked: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    """Raise RunDirectoryError, with the settings that differ, unless a directory's config is this one."""
    differing = differing_settings(found, asked, defaults)
    known = {*_with_defaults(found, defaults)}
    new = {name: pair for name, pair in differing.items() if name.split(".")[0] not in known}
    other = {name: pair for name, pair in differing.items() if name not in new}
    if other:
        shown = "; ".join(f"{name}: {there} there, {here} asked for" for name, (there, here) in other.items())
        raise RunDirectoryError(
            f"{directory} holds a run with another config ({shown}). To go on with that run, launch it with its "
            f"own settings ({directory / 'config.json'}); for a new one, choose another --workdir."
        )
    if new:
        names = ", ".join(dict.fromkeys(name.split(".")[0] for name in new))
        raise RunDirectoryError(
            f"{directory} holds a run that doesn't say all that is asked now: its config.json lacks {names}. It is an "
            "earlier version's, so its numbers may be others than this version's. Choose another --workdir; what is "
            "there can still be read (el.open_expertise reads a table)."
        )


def differing_settings(
    first: Mapping[str, Any], second: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> dict[str, tuple[str, str]]:
    """Return the settings in which two configs differ: a nested one's name is `outer.inner`; both values, to be shown.

    Args:
      first, second: nested, of numbers, strings, lists and None.
      defaults: what a setting stands for that is left out, see `open_run`. None is as good as left out.

    Returns:
      By name, in the order of `second`.
    """
    return {name: (one, other) for name, (one, other) in settings_apart([first, second], defaults).items()}


def settings_apart(
    configs: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return the settings in which any of several configs differ, as `differing_settings` has them of two.

    Returns:
      By name, in the order of the last config: the value in each config, to be shown.
    """
    flat = [_flatten(_with_defaults(json.loads(json.dumps(each)), defaults or {})) for each in configs]
    names = dict.fromkeys(name for each in reversed(flat) for name in each)
    return {
        name: tuple(_shown(each[name]) if name in each else "nothing" for each in flat)
        for name in names
        if any(each.get(name) != flat[0].get(name) for each in flat)
    }


def _with_defaults(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with the settings that it leaves out; of a part that it lacks altogether, none."""
    filled = dict(config)
    for name, default in defaults.items():
        part = filled.get(name)
        if not isinstance(default, Mapping):
            filled.setdefault(name, default)
        elif isinstance(part, dict):
            filled[name] = _with_defaults(part, default)
        elif isinstance(part, list):
            filled[name] = [_with_defaults(each, default) if isinstance(each, dict) else each for each in part]
    return filled


def _flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves by their path: of mappings, and of lists of mappings."""
    if isinstance(config, list) and config and all(isinstance(each, dict) for each in config):
        config = {str(number): each for number, each in enumerate(config)}
    if not isinstance(config, dict) or (prefix and not config):
        return {prefix: config}
    joined = [_flatten(value, f"{prefix}.{name}" if prefix else name) for name, value in config.items()]
    return {name: value for each in joined for name, value in each.items()}


def _shown(value: Any) -> str:
    """Return a setting's value; of a digest, the beginning."""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return repr(value[:12])
    return repr(value)


def describe_environment() -> dict[str, Any]:
    """Return the versions, devices, commit and time of this process, as JSON."""
    versions = {name: importlib.metadata.version(name) for name in _REPORTED_PACKAGES}
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "devices": [f"{device.platform}:{device.device_kind}" for device in jax.devices()],
        "processes": jax.process_count(),
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """Return the commit of the checkout this package is in, with "+" if files differ; None outside one."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip()


def is_local(path: epath.Path) -> bool:
    """Return whether a path is of this machine's file system, and not a bucket's."""
    return "://" not in os.fspath(path)


@contextlib.contextmanager
def only_writer(workdir: epath.PathLike) -> Generator[None]:
    """Keep a local directory to this process while it writes there; however the process ends, it is free again.

    A bucket can't be locked: there, two launches on one directory are the user's to avoid.

    Raises:
      RunDirectoryError: another process is writing there.
    """
    directory = epath.Path(workdir)
    if not is_local(directory):
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(os.fspath(directory / _LOCK), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise RunDirectoryError(
            f"another process is writing to {directory}. Wait until it is done, or choose another workdir."
        ) from None
    try:
        yield
    finally:
        lock.release()


def write_text(path: epath.Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def write_csv(path: epath.Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, numbers with six significant digits, whole or not at all."""
    write_text(path, table.to_csv(index=False, float_format="%.6g"))


def saved_json(path: epath.Path, compute: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return what a JSON file holds; compute it and write it first if the file isn't there."""
    if not path.exists():
        write_text(path, json.dumps(compute()) + "\n")
    return json.loads(path.read_text())


def saved_dataset(path: epath.Path, compute: Callable[[], xr.Dataset], question: Mapping[str, Any]) -> xr.Dataset:
    """Return the dataset at `path` (zarr); computed and written there first if it isn't there whole.

    Args:
      path: of the zarr store.
      compute: makes the dataset; called only if needed.
      question: all that the dataset follows from, nested, of numbers, strings, lists and None; kept beside it.

    Raises:
      RunDirectoryError: what is there answers another question, or doesn't say which.
    """
    if not path.exists():
        partial = path.with_name(path.name + ".partial")
        if partial.exists():
            partial.rmtree()
        path.parent.mkdir(parents=True, exist_ok=True)
        asked = {_QUESTION: json.dumps(question)}
        compute().assign_attrs(asked).to_zarr(str(partial), mode="w", consolidated=False)
        partial.rename(path)
    with xr.open_zarr(str(path), consolidated=False) as dataset:
        answered = dataset.attrs.pop(_QUESTION, None)
        if answered is None:
            raise RunDirectoryError(
                f"{path} doesn't say what it follows from: an earlier version wrote it, and its numbers may be others "
                "than this version's. Delete it, and it is measured again."
            )
        if differing := differing_settings(json.loads(answered), question):
            shown = "; ".join(f"{name}: {there} there, {here} asked for" for name, (there, here) in differing.items())
            raise RunDirectoryError(
                f"{path} holds what was measured of something else ({shown}). Choose another --workdir; or delete it, "
                "and it is measured again."
            )
        return dataset.load()
