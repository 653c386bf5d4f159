"""Text whose tokens are coloured by what a unit says at them: for a notebook, for a terminal, and plain."""

from __future__ import annotations

import html
import os
import sys
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from expertlens_jax.errors import SelectionError

if TYPE_CHECKING:
    from expertlens_jax.experts.tracing import Trace

MOST_UNITS, MOST_SENTENCES = 5, 10
"""What is shown of a longer trace fits a screen."""
ABOVE, BELOW = (230, 126, 0), (0, 114, 178)
"""Orange above 0 and blue below, which colour-blind people can tell apart, at full strength."""


def visible(text: str) -> str:
    """Return text on one line, with a sign for each character that would move the cursor or give a terminal orders."""
    signs = {"\n": "↵", "\t": "⇥", "\r": "␍"}
    return "".join(signs.get(c, "·" if unicodedata.category(c) in ("Cc", "Cf") else c) for c in text)


def strongest(trace: Trace, unit: int) -> float:
    """Return the largest absolute activation of a unit at any sentence's own token, at which its colour is full."""
    return max((float(np.abs(values[own, unit]).max()) for values, own in _pairs(trace)), default=0.0) or 1.0


def _pairs(trace: Trace) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(trace.activations, trace.in_pool, strict=True)


def _mixed(share: float, background: int = 255) -> tuple[int, int, int]:
    """Return the colour of a share from -1 to 1, on white; never so full that black letters are hard to read."""
    full = ABOVE if share > 0 else BELOW
    red, green, blue = (round(background + (each - background) * 0.75 * min(abs(share), 1.0)) for each in full)
    return red, green, blue


def _title(trace: Trace) -> str:
    def counted(number: int, what: str) -> str:
        return f"{number:,} {what}{'s' * (number != 1)}"

    of = f" of {trace.model}" if trace.model else ""
    return f"Trace{of}: {counted(len(trace), 'sentence')}, {counted(len(trace.units), 'unit')}"


def _name(trace: Trace, unit: int) -> str:
    row = trace.units.iloc[unit]
    return f"L{row['layer']} {row['site']} {row['channel']}"


def _left_out(trace: Trace) -> str:
    """Return what isn't shown, in words."""
    more = [
        f"{total - most:,} more {what}{'s' * (total - most > 1)}"
        for total, most, what in (
            (len(trace.units), MOST_UNITS, "unit"),
            (len(trace), MOST_SENTENCES, "sentence"),
        )
        if total > most
    ]
    return f"... and {' and '.join(more)}" if more else ""


def html_trace(trace: Trace) -> str:
    """Return HTML with the sentences once for each unit, their tokens coloured; a pointer over a token shows its value.

    All text is escaped. Colours are drawn so that text stays readable on a light and on a dark page.
    """
    blocks = [f"<p><b>{html.escape(_title(trace))}</b></p>"]
    for unit in range(min(len(trace.units), MOST_UNITS)):
        scale = strongest(trace, unit)
        lines = "".join(
            f"<li>{_html_sentence(trace, row, unit, scale)}</li>" for row in range(min(len(trace), MOST_SENTENCES))
        )
        blocks.append(
            f"<p>{html.escape(_name(trace, unit))} <small>(full colour at ±{scale:.3g})</small></p><ol>{lines}</ol>"
        )
    if left := _left_out(trace):
        blocks.append(f"<p><small>{html.escape(left)}</small></p>")
    return f'<div class="expertlens-trace" style="line-height:1.7">{"".join(blocks)}</div>'


def _pieces(trace: Trace, row: int) -> Iterator[tuple[str, list[int]]]:
    """Return the text of a sentence in pieces, and which tokens each is of.

    A piece is of one token, or of all those that share a character.
    """
    pieces: list[list[int]] = []
    for place, (start, end) in enumerate(trace.spans[row]):
        if pieces and start < end and start < trace.spans[row][pieces[-1][-1], 1] and trace.in_pool[row][place]:
            pieces[-1].append(place)
        else:
            pieces.append([place])
    until = 0
    for tokens in pieces:
        end = int(trace.spans[row][tokens, 1].max())
        whole = len(tokens) > 1
        yield visible(trace.sentences[row][until:end] if whole else trace.tokens[row][tokens[0]]), tokens
        until = max(until, end)


def _html_sentence(trace: Trace, row: int, unit: int, scale: float) -> str:
    spans = []
    for text, tokens in _pieces(trace, row):
        values = trace.activations[row][tokens, unit]
        shown, title = html.escape(text), ", ".join(f"{value:.4g}" for value in values)
        if not trace.in_pool[row][tokens[0]]:
            spans.append(f'<span title="{title}, not pooled" style="opacity:0.5">{shown}</span>')
            continue
        share = float(values[np.abs(values).argmax()]) / scale
        red, green, blue = ABOVE if share > 0 else BELOW
        # Half see-through at most, over whatever the page's background is: its own text colour stays legible.
        style = f"background:rgba({red},{green},{blue},{0.65 * min(abs(share), 1):.2f});border-radius:3px"
        spans.append(f'<span title="{title}" style="{style}">{shown}</span>')
    return f'<span style="white-space:pre-wrap">{"".join(spans)}</span>'


def ansi_trace(trace: Trace, unit: int = 0) -> str:
    """Return the sentences with their tokens coloured by one unit, for a terminal of 24-bit colour.

    Raises:
      SelectionError: the trace has no such unit.
    """
    if not 0 <= unit < len(trace.units):
        raise SelectionError(f"unit={unit} was given; the trace has units 0 to {len(trace.units) - 1}.")
    scale = strongest(trace, unit)
    lines = [_name(trace, unit)]
    for row in range(min(len(trace), MOST_SENTENCES)):
        parts = []
        for text, tokens in _pieces(trace, row):
            if trace.in_pool[row][tokens[0]]:
                values = trace.activations[row][tokens, unit]
                red, green, blue = _mixed(float(values[np.abs(values).argmax()]) / scale)
                parts.append(f"\x1b[38;2;0;0;0;48;2;{red};{green};{blue}m{text}\x1b[0m")
            else:
                parts.append(f"\x1b[2m{text}\x1b[0m")
        lines.append("  " + "".join(parts))
    return "\n".join(lines)


def text_trace(trace: Trace) -> str:
    """Return what fits a screen: coloured where standard output is a terminal, else each unit's strongest token marked.

    Nothing is coloured where the environment says NO_COLOR.
    """
    coloured = sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    lines = [_title(trace)]
    for unit in range(min(len(trace.units), MOST_UNITS)):
        if coloured:
            lines.append(ansi_trace(trace, unit))
            continue
        lines.append(_name(trace, unit))
        for row in range(min(len(trace), MOST_SENTENCES)):
            lines.append("  " + _marked(trace, row, unit))
    left = _left_out(trace)
    return "\n".join([*lines, left] if left else lines)


def _marked(trace: Trace, row: int, unit: int) -> str:
    """Return the sentence with its unit's strongest token in brackets, and what is said there."""
    values = np.where(trace.in_pool[row], trace.activations[row][:, unit], -np.inf)
    best = int(values.argmax())
    text = ""
    for word, tokens in _pieces(trace, row):
        if best in tokens:
            spaces = word[: len(word) - len(word.lstrip())]
            text += f"{spaces}[{word.lstrip()} {values[best]:.3g}]"
        elif trace.in_pool[row][tokens[0]]:
            text += word
    return text if len(text) <= 110 else text[:107] + "..."
