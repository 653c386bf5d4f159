"""Reports as single HTML files: paragraphs, tables, figures within the file, and texts with words marked."""

import base64
import collections
import dataclasses
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import pandas as pd
from etils import epath

from expertlens_jax.data.words import mention_finder

_MARKS = {"held": "✓", "not held": "✗", "not testable": "?", "left out": "–", "failed": "!", "waiting": "…"}
_MEDIA_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclasses.dataclass(frozen=True)
class Samples:
    """Continuations of the same prompts, side by side."""

    prompts: Sequence[str]
    """`[prompts]`."""
    texts: Mapping[str, Sequence[str]]
    """A column's name to its continuations `[prompts]`."""
    marked: Sequence[str]
    """Words to mark, plurals too."""


@dataclasses.dataclass(frozen=True)
class VerdictRow:
    """A claim's verdict, in the table at a page's top."""

    section: str
    """Anchor of the section that it links to."""
    claim: str
    """Or "" for a section that has none."""
    verdict: str
    """A `conclusions.Verdict`, or what became of the section: "left out", "failed", "waiting"."""
    reason: str = ""
    """Why it is not testable, left out or failed."""


class Page:
    """A report that is written from top to bottom; `html()` gives it, with nothing outside the one file."""

    def __init__(self, title: str) -> None:
        """Start an empty page."""
        self.title = title
        self._parts: list[dict[str, Any]] = []

    def heading(self, text: str, *, anchor: str = "") -> None:
        """Start a section; with an anchor it can be linked to."""
        self._parts.append({"kind": "heading", "text": text, "anchor": anchor})

    def paragraph(self, text: str, *, verdict: str = "") -> None:
        """Add a paragraph; one that tells a verdict has the verdict's mark and colour at its side."""
        self._parts.append({"kind": "paragraph", "text": text, "verdict": verdict})

    def verdicts(self, rows: Sequence[VerdictRow]) -> None:
        """Add a table of verdicts, in words, marks and colours, each claim with a link to its section."""
        counts = collections.Counter(row.verdict for row in rows)
        self._parts.append({"kind": "verdicts", "rows": rows, "counts": counts})

    def table(self, table: pd.DataFrame) -> None:
        """Add a table, its columns' underscores as spaces, numbers with three significant digits."""
        rows = [
            [
                {"text": f"{value:.3g}" if isinstance(value, float) else str(value), "number": isinstance(value, float)}
                for value in row
            ]
            for row in table.itertuples(index=False)
        ]
        columns = [str(name).replace("_", " ") for name in table.columns]
        self._parts.append({"kind": "table", "columns": columns, "rows": rows})

    def figure(self, path: epath.PathLike, caption: str) -> None:
        """Add a figure's file, SVG or PNG, within the page."""
        path = epath.Path(path)
        data = base64.b64encode(path.read_bytes()).decode()
        media_type = _MEDIA_TYPES[path.suffix]
        self._parts.append({"kind": "figure", "caption": caption, "data": data, "media_type": media_type})

    def samples(self, samples: Samples) -> None:
        """Add texts side by side, a row a prompt."""
        rows = [
            {"prompt": prompt, "texts": [mark_words(text, samples.marked) for text in texts]}
            for prompt, *texts in zip(samples.prompts, *samples.texts.values(), strict=True)
        ]
        self._parts.append({"kind": "samples", "columns": list(samples.texts), "rows": rows})

    def html(self) -> str:
        """Return the page; the same parts give the same text."""
        template = importlib.resources.files("expertlens_jax.report").joinpath("page.html.jinja").read_text()
        environment = jinja2.Environment(autoescape=True, trim_blocks=True)
        return environment.from_string(template).render(title=self.title, parts=self._parts, marks=_MARKS)


def mark_words(text: str, words: Sequence[str]) -> list[dict[str, Any]]:
    """Return the text cut into runs `{text, marked}`.

    Marked are the words in all their forms, as `data.words` finds them.
    """
    spans = sorted(span for word in words for span in mention_finder(word)(text))
    runs, done = [], 0
    for start, end in spans:
        if end > done:  # one word may lie in another: "cream" in "ice cream"
            start = max(start, done)
            runs += [{"text": text[done:start], "marked": False}, {"text": text[start:end], "marked": True}]
            done = end
    return [run for run in [*runs, {"text": text[done:], "marked": False}] if run["text"]]
