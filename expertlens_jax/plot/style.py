"""How every figure looks: one font, thin lines, colours that colour-blind readers can tell apart."""

from __future__ import annotations

import contextlib
import functools
import io
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, cast

import matplotlib as mpl
import matplotlib.figure
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.layout_engine import ConstrainedLayoutEngine

from expertlens_jax.plot.fitting import fit

Arguments = ParamSpec("Arguments")

INK = "#222222"  # text and data without a colour of their own
FAINT = "#8a8a8a"  # what should be there but not seen first: grids, boundaries, notes
PALE = "#e6e6e6"
MISSING = "#cfcfcf"  # cells of a heatmap that have no number

# Okabe & Ito, "Color universal design", 2008: told apart by all common kinds of colour vision.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

# Magma upside down, its pale yellow end faded to white: lightness falls evenly, and ink goes where the data
# is.
_colours = mpl.colormaps["magma_r"](np.linspace(0, 0.95, 256))[:, :3]
_white = np.clip(1 - np.linspace(0, 1, 256) / 0.2, 0, 1)[:, None]
COLORMAP = ListedColormap(_white + (1 - _white) * _colours, name="magma_on_paper")

STYLE = {
    # The first ships with matplotlib: the same picture on every machine. An SVG's text stays text, so it names what to
    # take where that font is missing: one as wide, or any without serifs.
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Bitstream Vera Sans", "Verdana", "Helvetica", "Arial"],
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: searchable, editable
    "svg.hashsalt": "expertlens_jax",  # ids in the file are the same each time
    "pdf.fonttype": 42,  # text stays text here too
}


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that a notebook shows as it is, without pyplot and without `%matplotlib inline`."""

    def _repr_png_(self) -> bytes:
        """Return the picture, for IPython."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=110)
        return file.getvalue()

    def savefig(self, *args: Any, **options: Any) -> None:
        """Save as matplotlib does, by default on white, and with text that stays text in SVG and PDF."""
        options = {"facecolor": "white"} | options
        with styled():
            super().savefig(*args, **options)


def wrapped(text: str, inches: float, size: float = 8) -> str:
    """Return a text in lines that fit into so many inches, at a font size in points; "τ = 0.5" stays in one line."""
    return textwrap.fill(
        text.replace(" = ", "\u00a0=\u00a0"), max(8, int(inches * 72 / (0.56 * size))), break_long_words=False
    )


def ink_on(colour: Iterable[float]) -> str:
    """Return the colour of text that is readable on a colour, red, green, blue and alpha from 0 to 1."""
    red, green, blue, _ = colour
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.55 else INK


def keep_free(figure: matplotlib.figure.Figure, below: float) -> None:
    """Keep a share of the figure's height, at its foot, free of what is laid out: for a note."""
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0, below, 1, 1 - below))


def styled() -> contextlib.AbstractContextManager[None]:
    """Return the context under which a figure is drawn or saved."""
    return mpl.rc_context(cast(Any, STYLE))


def drawn(plot: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Decorate a function that returns a figure: it draws in this style, and every text then has room, see `fit`."""

    @functools.wraps(plot)
    def draw(*args: Arguments.args, **options: Arguments.kwargs) -> Figure:
        with styled():
            figure = plot(*args, **options)
            fit(figure)
        return figure

    return draw


def colours(names: list[str]) -> dict[str, str]:
    """Return a colour for each name, in order; "" (no name) is ink. More names than colours start over."""
    named = [name for name in dict.fromkeys(names) if name]
    return {"": INK} | {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(named)}
