"""Gives every text of a figure room: what is too long is broken into lines, and what still sticks out gets more canvas.

Names are the user's, of any length, so no layout can know them before it is drawn.
"""

from __future__ import annotations

import re
import warnings

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_agg import RendererAgg as Renderer
from matplotlib.figure import Figure
from matplotlib.text import Text

_PASSES = 8
_MOST = 40.0
"""Inches that a figure may grow to."""
_SHORTEST = 14
"""Letters of a line, below which a figure grows instead."""
_GAP = 6
"""Pixels between two texts."""


def fit(figure: Figure) -> None:
    """Break long titles and labels into lines, and enlarge the figure until no text leaves it.

    Figures that place their axes themselves, without a layout, are left as they are: they have counted their letters.
    """
    if figure.get_layout_engine() is None:
        return
    renderer = FigureCanvasAgg(figure).get_renderer()
    for _ in range(_PASSES):
        if not _lay_out(figure):
            figure.set_size_inches(*(1.3 * figure.get_size_inches()))
            continue
        rooms = [each for axes in figure.axes for each in _rooms(axes, renderer)] + _own_texts(figure)
        if any([_break_lines(text, room, renderer) for text, room in rooms]):
            continue
        lacking = [(_upright(text), _length(text, renderer) - room) for text, room in rooms]
        across, upward = (max((by for tall, by in lacking if tall == side), default=0) for side in (False, True))
        if not _grow(figure, renderer, across, upward):
            return


def _lay_out(figure: Figure) -> bool:
    """Have the layout place everything; whether labels left its axes any room at all."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        figure.draw_without_rendering()
    return not any("collapsed to zero" in str(warning.message) for warning in told)


def _rooms(axes: Axes, renderer: Renderer) -> list[tuple[Text, float]]:
    """Of each title and label, how many pixels along its line there are until another's place begins."""
    figure = axes.figure
    width, height = figure.bbox.size
    own = axes.get_window_extent(renderer)
    middle = (own.x0 + own.x1) / 2, (own.y0 + own.y1) / 2
    others = [each.get_window_extent(renderer) for each in figure.axes if each is not axes]
    beside = [box for box in others if box.y0 < own.y1 and own.y0 < box.y1]
    over = [box for box in others if box.x0 < own.x1 and own.x0 < box.x1]
    next_left = min((box.x0 for box in beside if box.x0 > own.x0 + 1), default=width)
    across = [abs((box.x0 + box.x1) / 2 - middle[0]) for box in beside] + [2 * middle[0], 2 * (width - middle[0])]
    upward = [abs((box.y0 + box.y1) / 2 - middle[1]) for box in over] + [2 * middle[1], 2 * (height - middle[1])]
    along_x, along_y = (min([each for each in apart if each > 1], default=0.0) for apart in (across, upward))
    titles = [each for each in axes.get_children() if isinstance(each, Text) and each not in axes.texts]
    rooms = [(each, next_left - own.x0 if each.get_horizontalalignment() == "left" else along_x) for each in titles]
    rooms += [(axes.xaxis.label, along_x), (axes.yaxis.label, along_y)]
    # At few dots an inch, letters are rounded to more than they are.
    return [(text, 0.95 * room - _GAP) for text, room in rooms if text.get_visible() and text.get_text().strip()]


def _own_texts(figure: Figure) -> list[tuple[Text, float]]:
    """Titles, labels and notes of the figure itself, and the pixels that it is wide or high."""
    width, height = figure.bbox.size
    texts = [each for each in figure.get_children() if isinstance(each, Text) and each.get_text().strip()]
    # At few dots an inch, letters are rounded to more than they are.
    return [(text, 0.92 * (height if _upright(text) else width)) for text in texts]


def _upright(text: Text) -> bool:
    return text.get_rotation() % 180 == 90


def _length(text: Text, renderer: Renderer) -> float:
    """Return how many pixels the longest line of a text takes."""
    box = text.get_window_extent(renderer)
    return box.height if _upright(text) else box.width


def _break_lines(text: Text, room: float, renderer: Renderer) -> bool:
    """Break the lines of a text that are longer than so many pixels; whether any could be."""
    length = _length(text, renderer)
    lines = text.get_text().split("\n")
    if length <= room or "$" in text.get_text():
        return False
    letters = int(max(map(len, lines)) * max(room, 1) / length)
    broken = "\n".join(part for line in lines for part in break_line(line, max(letters, _SHORTEST)))
    if broken == text.get_text():
        return False
    text.set_text(broken)
    return True


def break_line(line: str, letters: int) -> list[str]:
    """Return a line in parts of at most so many letters, broken at spaces and after `_-/,`; a longer word stays whole.

    >>> break_line("stories_that_i_wrote about cats", 14)
    ['stories_that_', 'i_wrote about', 'cats']
    """
    parts = [""]
    for piece in re.findall(r"[^\s_\-/,]*[_\-/,]+|[^\s_\-/,]+|\s+", line):
        if parts[-1].strip() and len((parts[-1] + piece).rstrip()) > letters and piece.strip():
            parts.append("")
        parts[-1] += piece
    return [part.strip() for part in parts if part.strip()] or [line]


def _grow(figure: Figure, renderer: Renderer, across: float, upward: float) -> bool:
    """Enlarge the figure by what sticks out of it, or by as many pixels as texts lack; whether anything did."""
    width, height = figure.get_size_inches()
    seen = figure.get_tightbbox(renderer)  # in inches
    pixel = 1 / figure.dpi
    wider = max(max(-seen.x0, 0) + max(seen.x1 - width, 0), across * pixel)
    taller = max(max(-seen.y0, 0) + max(seen.y1 - height, 0), upward * pixel)
    if wider < pixel / 2 and taller < pixel / 2:
        return False
    # A little more than is lacking: the layout spends some of it elsewhere.
    across_inches, upward_inches = (
        min(size + (1.05 * more + 2 * pixel if more else 0), _MOST) for size, more in ((width, wider), (height, taller))
    )
    figure.set_size_inches(across_inches, upward_inches)
    return True
