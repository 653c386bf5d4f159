"""A run directory: what was asked, where it ran, what came out; safe to kill and to start again.

A directory belongs to one config. Every file is written beside its place and renamed into it, so what is there
is whole, and a run that starts again takes it as done.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import jax
import pandas as pd
import xarray as xr
from etils import epath

from expertlens_jax.errors import RunDirectoryError

_LOCK = ".lock"
_REPORTED_PACKAGES = ("expertlens-jax", "jax", "jaxlib", "flax", "transformers", "numpy", "scipy", "xarray", "zarr")


def open_run(workdir: epath.PathLike, config: Mapping[str, Any]) -> epath.Path:
    """Makes a directory this config's own, or finds it so.

    Writes `config.json` and `environment.json`; the latter gains an entry each time the run is started again.

    Args:
      workdir: the directory, local or a bucket's.
      config: nested, of numbers, strings, lists and None.

    Returns:
      The directory.

    Raises:
      RunDirectoryError: it holds another config's run, or files that no run wrote.
    """
    directory = epath.Path(workdir)
    asked = json.loads(json.dumps(config))
    config_file, environment_file = directory / "config.json", directory / "environment.json"
    if config_file.exists():
        _refuse_other_config(directory, json.loads(config_file.read_text()), asked)
    elif directory.exists() and any(file.name != _LOCK for file in directory.iterdir()):
        raise RunDirectoryError(
            f"{directory} holds files but no config.json, so it isn't a run directory. Choose another --workdir."
        )
    directory.mkdir(parents=True, exist_ok=True)
    launches = json.loads(environment_file.read_text()) if environment_file.exists() else []
    write_text(environment_file, json.dumps([*launches, describe_environment()], indent=2) + "\n")
    write_text(config_file, json.dumps(asked, indent=2) + "\n")
    return directory


def _refuse_other_config(directory: epath.Path, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Names the settings in which a directory's config differs from the one asked for."""
    differing = sorted(key for key in {*found, *asked} if found.get(key) != asked.get(key))
    if differing:
        shown = "; ".join(f"{key}: {found.get(key)!r} there, {asked.get(key)!r} asked for" for key in differing)
        raise RunDirectoryError(
            f"{directory} holds a run with another config ({shown}). To go on with that run, launch it with its "
            f"own settings ({directory / 'config.json'}); for a new one, choose another --workdir."
        )


def describe_environment() -> dict[str, Any]:
    """Versions, devices, commit and time of this process, as JSON."""
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
    """The commit of the checkout this package is in, with "+" if files differ; None outside one."""
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
    """Whether a path is of this machine's file system, and not a bucket's."""
    return "://" not in os.fspath(path)


@contextlib.contextmanager
def only_writer(workdir: epath.PathLike) -> Iterator[None]:
    """Keeps a local directory to this process while it writes there; however the process ends, it is free again.

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
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def write_csv(path: epath.Path, table: pd.DataFrame) -> None:
    """Writes a table as CSV, numbers with six significant digits, whole or not at all."""
    write_text(path, table.to_csv(index=False, float_format="%.6g"))


def saved_dataset(path: epath.Path, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
    """The dataset at `path` (zarr); computed and written there first if it isn't there whole.

    Args:
      path: of the zarr store.
      compute: makes the dataset; called only if needed.
    """
    if not path.exists():
        partial = path.with_name(path.name + ".partial")
        if partial.exists():
            partial.rmtree()
        path.parent.mkdir(parents=True, exist_ok=True)
        compute().to_zarr(str(partial), mode="w", consolidated=False)
        partial.rename(path)
    with xr.open_zarr(str(path), consolidated=False) as dataset:
        return dataset.load()
