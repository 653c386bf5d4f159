"""Figures as files: PNG to look at, SVG for the paper."""

from __future__ import annotations

import io
import os

from etils import epath

from expertlens_jax.plot.style import Figure, styled


def save_figure(figure: Figure, path: os.PathLike | str) -> tuple[epath.Path, epath.Path]:
    """Write `path`.png (200 dpi) and `path`.svg (text as text); the same figure gives the same bytes.

    Args:
      figure: what to write.
      path: without a suffix; may be in a bucket. Its directory is made if need be.

    Returns:
      The two paths written.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, options in (("png", {"dpi": 200}), ("svg", {"metadata": {"Date": None}})):
        file = io.BytesIO()
        with styled():
            figure.savefig(file, format=suffix, facecolor="white", **options)
        written.append(path.parent / f"{path.name}.{suffix}")
        written[-1].write_bytes(file.getvalue())
    return tuple(written)
