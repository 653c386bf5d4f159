"""Figures as files: PNG to look at, SVG for the web, PDF for the paper."""

from __future__ import annotations

import io
import os

from etils import epath

from expertlens_jax.plot.style import Figure


def save_figure(figure: Figure, path: os.PathLike | str) -> tuple[epath.Path, epath.Path, epath.Path]:
    """Write `path`.png (200 dpi), `path`.svg and `path`.pdf (text as text); the same figure gives the same bytes.

    Args:
      figure: what to write.
      path: without a suffix; may be in a bucket. Its directory is made if need be.

    Returns:
      The paths written, in this order.

    >>> import expertlens_jax as el, pandas as pd, tempfile
    >>> counts = pd.DataFrame({"layer": [0, 1], "experts_per_concept": [3.0, 9.0], "share": [0.01, 0.03]})
    >>> figure = el.plot.localisation(counts.assign(site="mlp.up"))
    >>> [path.name for path in el.plot.save_figure(figure, f"{tempfile.mkdtemp()}/figures/where")]
    ['where.png', 'where.svg', 'where.pdf']
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    layout = figure.get_layout_engine()
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    written: list[epath.Path] = []
    try:
        for suffix, options in (("png", {"dpi": 200}), *((kind, {"metadata": none}) for kind, none in undated.items())):
            file = io.BytesIO()
            figure.savefig(file, format=suffix, **options)
            written.append(path.parent / f"{path.name}.{suffix}")
            written[-1].write_bytes(file.getvalue())
            figure.set_layout_engine(None)  # the others are laid out as the first: that is most of the time
    finally:
        figure.set_layout_engine(layout)
    png, svg, pdf = written
    return png, svg, pdf
