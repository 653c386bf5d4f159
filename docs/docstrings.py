"""Puts the examples of a docstring, which stand there as one types them (`>>>`), into code blocks."""

import re

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class FencedExamples(griffe.Extension):
    """Rewrites each docstring before it is read as Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Fence every run of lines that starts with a prompt and ends at an empty line."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
