"""Pages: everything within one file, text escaped, words marked."""

import base64

import pandas as pd

from expertlens_jax.report.pages import Page, Samples, mark_words


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
