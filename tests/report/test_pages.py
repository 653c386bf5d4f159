"""Pages: everything within one file, text escaped, words marked."""

import base64

import pandas as pd

from expertlens_jax.report.pages import Page, Samples, VerdictRow, mark_words


def test_words_and_their_plurals_are_marked_whole():
    runs = mark_words("A cat and category, Cats!", ["cat"])
    assert "".join(run["text"] for run in runs) == "A cat and category, Cats!"
    assert [run["text"] for run in runs if run["marked"]] == ["cat", "Cats"]
    runs = mark_words("Ice-cream, ice creams\nand cream", ["cream", "ice cream", ""])
    assert [run["text"] for run in runs if run["marked"]] == ["Ice-cream", "ice creams", "cream"]
    assert "".join(run["text"] for run in runs) == "Ice-cream, ice creams\nand cream"
    assert mark_words("a", []) == [{"text": "a", "marked": False}]


def test_a_page_holds_it_all(tmp_path):
    (tmp_path / "figure.svg").write_text("<svg/>")
    page = Page("Steering <cats>")
    page.heading("cat & dog")
    page.paragraph("text")
    page.table(pd.DataFrame({"p_value": [0.123456], "name": ["<b>"]}))
    page.figure(tmp_path / "figure.svg", "A figure.")
    page.samples(Samples(["It was"], {"before": [" a day"], "after": [" a <cat>"]}, ["cat"]))
    html = page.html()
    assert html == page.html()
    assert "<h1>Steering &lt;cats&gt;</h1>" in html and "cat &amp; dog" in html
    assert "<th>p value</th>" in html and '<td class="number">0.123</td><td>&lt;b&gt;</td>' in html
    assert base64.b64encode(b"<svg/>").decode() in html
    assert "&lt;<mark>cat</mark>&gt;" in html
    assert "http" not in html.replace("http-equiv", "")


def test_verdicts_are_told_in_words_marks_and_colours_with_links_to_their_sections():
    page = Page("Claims")
    rows = [
        VerdictRow("alignment", "Alike <is> alike.", "held"),
        VerdictRow("alignment", "More.", "not held"),
        VerdictRow("scale", "Larger.", "not testable", "3 concepts give a least p of 0.25"),
        VerdictRow("steering", "", "failed", "no room"),
    ]
    page.verdicts(rows)
    page.heading("Alignment", anchor="alignment")
    page.paragraph("It held here.", verdict="held")
    page.paragraph("Nothing.")
    html = page.html()
    assert "1 held, 1 not held, 1 not testable, 1 failed." in html
    for mark, verdict in (("✓", "held"), ("✗", "not held"), ("?", "not testable"), ("!", "failed")):
        assert f'<span class="verdict {verdict.replace(" ", "-")}">{mark} {verdict}</span>' in html
        assert f".{verdict.replace(' ', '-')}" in html[: html.index("</style>")]  # each has a colour of its own
    assert html.count('<a href="#alignment">alignment</a>') == 2 and '<h2 id="alignment">Alignment</h2>' in html
    assert "Alike &lt;is&gt; alike." in html and "<small>(3 concepts give a least p of 0.25)</small>" in html
    assert '<p class="told held"><span class="verdict held">✓ held</span> It held here.</p>' in html
    assert "<p>Nothing.</p>" in html
