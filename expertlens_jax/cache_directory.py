"""Where what was downloaded or converted once is kept."""

import os
import pathlib


def cache_root(cache_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Return the directory of everything this package keeps.

    `expertlens_jax` in `cache_dir`, if that is given; else the environment's EXPERTLENS_CACHE; else
    `expertlens_jax` in the user's cache directory (XDG_CACHE_HOME, or ~/.cache).
    """
    if cache_dir is not None:
        return pathlib.Path(cache_dir).expanduser() / "expertlens_jax"
    if "EXPERTLENS_CACHE" in os.environ:
        return pathlib.Path(os.environ["EXPERTLENS_CACHE"]).expanduser()
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "expertlens_jax"
