"""A report's sections lead to the page, whatever wrote it."""

from expertlens_jax.explorer.linked_report import link_report
from expertlens_jax.report.pages import Page


def test_every_section_with_an_anchor_leads_to_its_verdicts():
    page = Page("Claims")
    page.heading("Alignment", anchor="alignment")
    page.paragraph("It held.")
    page.heading("cat")  # of an experiment's own
    page.heading("Organisation", anchor="organisation")
    html = page.html()
    linked = link_report(html)
    assert linked.count('class="links"') == 3 and linked.count("In the explorer:") == 2
    for view in ("", "#/verdicts/alignment", "#/matrix", "#/verdicts/organisation", "#/map"):
        assert f'href="index.html{view}"' in linked
    assert link_report("<p>no heading</p>") == "<p>no heading</p>"
    without = "".join(line for line in linked.splitlines(True) if 'class="links"' not in line)
    assert without == html  # nothing else is changed


def test_a_page_of_several_sections_has_contents():
    page = Page("Claims")
    page.heading("Alignment", anchor="alignment")
    assert "<nav" not in page.html()
    page.heading("Scale & size", anchor="scale")
    assert '<li><a href="#scale">Scale &amp; size</a></li>' in page.html()
