"""A run's report within the page: its sections lead to the page's views, as its verdicts lead to the sections."""

import html
import re

_VIEWS = {
    "alignment": (("matrix", "overlaps"), ("", "concepts")),
    "stability": (("", "concepts"),),
    "localisation": (("", "concepts, with the places of their experts"),),
    "organisation": (("map", "map and tree"), ("matrix", "matrix")),
    "mixture": (("search", "units, by the mixture's expert"),),
    "polysemanticity": (("matrix", "pairs of concepts"), ("search", "units")),
}
"""Of an experiment, views of the page that show what it is about, beside its verdicts."""


def link_report(report: str) -> str:
    """Return a report with links to the page, which stands beside it: at its top, and under each section's heading.

    Sections are those with an anchor, which is an experiment's name; a report without any gains the link at its top.
    """
    top = '<p class="links"><a href="index.html">Explore this run</a>: concepts, units, sentences, map, verdicts</p>'
    linked = re.sub(r"</h1>", lambda found: f"{found[0]}\n{top}", report, count=1)

    def under(heading: re.Match) -> str:
        name = html.unescape(heading["anchor"])
        views = ((f"verdicts/{name}", "its verdicts and numbers"), *_VIEWS.get(name, ()))
        links = ", ".join(f'<a href="index.html#/{html.escape(view)}">{html.escape(told)}</a>' for view, told in views)
        return f'{heading[0]}\n<p class="links">In the explorer: {links}</p>'

    return re.sub(r'<h2 id="(?P<anchor>[^"]*)">[^<]*</h2>', under, linked)
