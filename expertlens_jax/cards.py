"""How objects show themselves, at a prompt and in a notebook: a title, a few facts and rows; never all they hold.

An object states its `Card`; its `__repr__` is the card's text and its `_repr_html_` the card's HTML, all of it escaped.
"""

from __future__ import annotations

import dataclasses
import html
import textwrap
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

WIDTH = 110
"""Of a line of text."""


@dataclasses.dataclass(frozen=True)
class Card:
    """What is shown of an object."""

    title: str
    facts: Mapping[str, str]
    """By name, in order; those without a value aren't shown."""
    table: pd.DataFrame | None = None
    """A few rows, for a notebook."""
    more: str = ""
    """What there is beside these rows, and where."""

    def text(self) -> str:
        """Return it for a prompt, without the table."""
        facts = {name: value for name, value in self.facts.items() if value}
        width = max(map(len, facts), default=0) + 4
        lines = [
            textwrap.fill(
                value,
                WIDTH,
                initial_indent=f"  {name}".ljust(width),
                subsequent_indent=" " * width,
                break_on_hyphens=False,
            )
            for name, value in facts.items()
        ]
        return "\n".join([self.title, *lines])

    def html(self) -> str:
        """Return it for a notebook."""
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(name)}</th>'
            f'<td style="text-align:left">{html.escape(value)}</td></tr>'
            for name, value in self.facts.items()
            if value
        )
        facts = f"<table>{rows}</table>" if rows else ""
        shown = "" if self.table is None else self.table.to_html(index=False, float_format="{:.3g}".format, border=0)
        more = f"<p><i>{html.escape(self.more)}</i></p>" if self.more else ""
        return f"<div><p><b>{html.escape(self.title)}</b></p>{facts}{shown}{more}</div>"


def counted(number: int | np.integer, what: str, several: str = "") -> str:
    """Return "1 sentence" or "7,040 sentences".

    Args:
      number: how many.
      what: it is called, of one.
      several: what several are called, if not the same with an s, or with their verb.

    >>> counted(1, "unit was", "units were"), counted(2, "category", "categories")
    ('1 unit was', '2 categories')
    """
    return f"{number:,} {what if number == 1 else several or f'{what}s'}"


def listed(names: Iterable[object], most: int = 12) -> str:
    """Return names with commas between, and how many more there are."""
    names = [str(name) for name in names]
    more = f", and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shortened(text: str, most: int = 90) -> str:
    """Return a text on one line, cut if it is longer."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."
