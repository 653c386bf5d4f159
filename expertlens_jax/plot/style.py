"""How every figure looks: one font, thin lines, colours that colour-blind readers can tell apart."""

from __future__ import annotations

import io
import textwrap

import matplotlib as mpl
import matplotlib.figure
import numpy as np
from matplotlib.colors import ListedColormap

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
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same figure on every machine
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
}


class Figure(matplotlib.figure.Figure):
    """A matplotlib figure that a notebook shows as it is, without pyplot and without `%matplotlib inline`."""

    def _repr_png_(self) -> bytes:
        """The picture, for IPython."""
        file = io.BytesIO()
        with styled():
            self.savefig(file, format="png", dpi=110, facecolor="white")
        return file.getvalue()


def wrapped(text: str, inches: float, size: float = 8) -> str:
    """Return a text in lines that fit into so many inches, at a font size in points."""
    return textwrap.fill(text, max(8, int(inches * 72 / (0.56 * size))), break_long_words=False)


def styled() -> mpl.rc_context:
    """Context, or decorator, under which a figure is drawn or saved."""
    return mpl.rc_context(STYLE)


def colours(names: list[str]) -> dict[str, str]:
    """A colour for each name, in order; "" (no name) is ink. More names than colours start over."""
    named = [name for name in dict.fromkeys(names) if name]
    return {"": INK} | {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(named)}
