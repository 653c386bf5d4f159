"""What the build adds: the reference, a page of every public name, so that none is left out; and drawn formulas."""

import html
import importlib
import re

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import expertlens_jax as el

ROOMS = ("analysis", "plot", "sentences", "training")
TABLES = """
### `el.DETECTORS`

The detectors that `el.analysis.detection(model, train, test)` knows by name: a mapping to `el.Detector`. A row may be
added.

### `el.OVERLAPS`

The methods that `el.overlap(expertise, method=...)` knows by name: a mapping to `el.Overlap`. A row may be added.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page, written anew at each build."""
    files.append(File.generated(config, "reference.md", content=reference()))
    return files


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with MathML for its formulas, which browsers draw without a script."""
    del page, config, files
    return re.sub(
        r'<(div|span) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>',
        lambda found: convert(html.unescape(found[3]), display="block" if found[2] == "[" else "inline"),
        content,
        flags=re.DOTALL,
    )


def reference() -> str:
    """Return the page: a heading a room, and below it a directive for each public name."""
    parts = ["# Reference", "Everything here is reached as `el.NAME`, after `import expertlens_jax as el`."]
    parts += ["## el", *(_entry(el, name) for name in sorted(set(el.__all__), key=str.lower)), TABLES]
    for room in ROOMS:
        module = importlib.import_module(f"expertlens_jax.{room}")
        parts += [f"## el.{room}", module.__doc__ or "", *(_entry(module, name) for name in module.__all__)]
    return "\n\n".join(parts) + "\n"


def _entry(room: object, name: str) -> str:
    """Return the directive for what stands behind a lazy name, wherever it is written."""
    meant = getattr(room, name)
    return f"::: {meant.__module__}.{meant.__qualname__}"
