"""What an analysis gives back: a table, what it says in a few sentences, and its figures."""

from __future__ import annotations

import dataclasses
import html
import textwrap
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from expertlens_jax.errors import SelectionError
from expertlens_jax.plot.style import Figure

_ROWS = 8  # of the table, that a repr shows


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The answer to one question.

    A terminal shows its sentences and the head of its table; a notebook shows the table as HTML.

    >>> import expertlens_jax as el, pandas as pd
    >>> result = el.analysis.Result("stability", pd.DataFrame({"value": [0.5]}), ("Half of it is the same.",))
    >>> print(result.summary())
    Half of it is the same.
    >>> result
    stability
      Half of it is the same.
    <BLANKLINE>
     value
       0.5
    """

    question: str
    """What was asked, in a word."""
    table: pd.DataFrame
    """Tidy: a row per number, with its interval, chance level and p where there are such."""
    sentences: tuple[str, ...]
    """What `summary` says, a sentence or a few."""
    figures: Mapping[str, Callable[[], Figure]] = dataclasses.field(default_factory=dict)
    """The figures that `plot` can draw, by name; the first is the one it draws."""
    tables: Mapping[str, pd.DataFrame] = dataclasses.field(default_factory=dict)
    """Tables beside the main one, by name."""

    def summary(self) -> str:
        """Return what was found: numbers with their intervals and chance level, a sentence a line."""
        return "\n".join(self.sentences)

    def plot(self, name: str | None = None) -> Figure:
        """Draw the result.

        Args:
          name: of one of `figures`; default the first.

        Returns:
          A matplotlib `Figure`, which a notebook shows.

        Raises:
          SelectionError: there is no figure of that name, or none at all.
        """
        if not self.figures:
            raise SelectionError(f"this result of {self.question} has no figure. Its numbers are in .table.")
        chosen = next(iter(self.figures)) if name is None else name
        if chosen not in self.figures:
            raise SelectionError(f"Unknown figure {name!r} of {self.question}. Choose from: {', '.join(self.figures)}.")
        return self.figures[chosen]()

    def __repr__(self) -> str:
        said = [textwrap.fill(each, 110, initial_indent="  ", subsequent_indent="    ") for each in self.sentences]
        head = self.table.head(_ROWS).to_string(
            index=False, float_format="{:.3g}".format, max_colwidth=40, line_width=120
        )
        return "\n".join([self.question, *said, "", *(line.rstrip() for line in head.splitlines()), *self._more()])

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{html.escape(each)}</p>" for each in self.sentences)
        shown = self.table.head(_ROWS).to_html(index=False, float_format="{:.3g}".format, border=0)
        more = "".join(f"<p><i>{html.escape(each)}</i></p>" for each in self._more())
        return f"<h4>{html.escape(self.question)}</h4>{said}{shown}{more}"

    def _more(self) -> list[str]:
        """Return what there is beside what a repr shows."""
        told = []
        if len(self.table) > _ROWS:
            told.append(f"... {len(self.table)} rows: .table")
        if self.tables:
            told.append(f"More tables: {', '.join(f'.tables[{name!r}]' for name in self.tables)}")
        if len(self.figures) > 1:
            told.append(f"Figures: {', '.join(f'.plot({name!r})' for name in self.figures)}")
        return told


def interval(row: pd.Series | Mapping[str, float], value: str, low: str = "ci_low", high: str = "ci_high") -> str:
    """Return a number and its 95% interval as people read them: "0.52 [0.31, 0.70]", or "unknown"."""
    if np.isnan(row[value]):
        return "unknown"
    if np.isnan(row[low]):
        return f"{row[value]:.3g} (no interval)"
    return f"{row[value]:.3g} [{row[low]:.3g}, {row[high]:.3g}]"
