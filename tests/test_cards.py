"""What objects show of themselves fits a screen, says the right numbers, and is escaped."""

import html.parser

import families
import numpy as np
import pandas as pd
import pytest

import expertlens_jax as el
from expertlens_jax.cards import Card, counted, listed, shortened

SENTENCES = [f"{word} {a} {b}" for word in ("ba", "de", "fi") for a in "abcde" for b in "xyz"]
NASTY = "<script>alert('1')</script> & \"b\""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One of everything, of a small model."""
    case = next(case for case in families.CASES if case.name == "llama")
    hf_model = families.make_hf_model(case)
    directory = families.save(hf_model, tmp_path_factory.mktemp("llama"))
    model = el.load_model(directory, name=NASTY)
    file = tmp_path_factory.mktemp("concepts") / "mine.csv"
    pd.DataFrame({"concept": [NASTY + each[:2] for each in SENTENCES], "sentence": SENTENCES, "domain": NASTY}).to_csv(
        file, index=False
    )
    with pytest.warns(el.ExpertLensWarning, match="lack"):
        concepts = el.load_concepts(file)
    responses = el.record_responses(model, concepts.sentences)
    expertise = el.measure_expertise(responses, concepts)
    experts = el.select_experts(expertise, threshold=0.5)
    overlap = el.jaccard(experts)
    table = pd.DataFrame({"word_1": ["a"] * 9, "word_2": [NASTY] * 9, "rating": 1.0, "similarity": 0.5})
    return {
        "model": model,
        "concepts": concepts,
        "responses": responses,
        "expertise": expertise,
        "experts": experts,
        "overlap": overlap,
        "alignment": el.Alignment(NASTY, 9, 0.52, 0.31, 0.7, 0.001, tuple("abcdefghijkl" * 40), "", table),
        "no alignment": el.Alignment(NASTY, 0, np.nan, np.nan, np.nan, np.nan, (), "no pair", table[:0]),
        "generations": el.Generations((NASTY,) * 300, (" and\nthen " * 90,) * 300, (), ()),
        "steering": el.steer(expertise, concepts.concepts[0], top=50),
        "experts' table": el.top_experts(expertise, concepts.concepts[0]),
        "trace": el.trace(model, SENTENCES, model.units.head(9)),
        "parameters": sum(each.numel() for each in hf_model.parameters()),
    }


SHOWN = ["model", "concepts", "responses", "expertise", "experts", "overlap", "alignment", "no alignment"]
VOID = ("input", "br", "use", "path")
SHOWN += ["generations", "steering", "experts' table", "trace"]


class Page(html.parser.HTMLParser):
    """The text of a page, the tags in it, and whether all are closed."""

    def __init__(self, page):
        super().__init__()
        self.text, self.tags, self.open = "", set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.long
@pytest.mark.parametrize("name", SHOWN)
def test_text_fits_a_screen(made, name):
    lines = repr(made[name]).splitlines()
    assert len(lines) <= 60 and (max(map(len, lines)) <= 250)


@pytest.mark.parametrize("name", SHOWN)
def test_html_fits_a_screen_and_is_escaped(made, name):
    shown = made[name]._repr_html_()
    assert len(shown) < 80_000
    page = Page(shown)
    assert not page.open and "script" not in page.tags
    if name not in ("trace", "concepts", "experts' table"):  # which quote it, or don't hold it
        assert "alert(" in page.text


def test_a_model_tells_what_it_is(made):
    text = repr(made["model"])
    assert text.splitlines()[0] == f"Model {NASTY}"
    assert "Llama 1 to 3.2 (llama), causal" in text
    assert "3 of width 24 (4 heads, 2 of keys and values)" in text
    assert f"{made['parameters']:,} in float32" in text
    assert "83 tokens; up to 64 in a text" in text
    assert "attn.q 40, attn.k 20" in text and "mlp.gate 37" in text and "resid 24 units a layer" in text
    sae = el.SAE(np.ones((24, 5), np.float32), np.zeros(5, np.float32), layer=1, site="resid", name="mine")
    assert "SAE mine: 5 features (ReLU) of resid in layer 1" in repr(made["model"].with_sae(sae))


def test_responses_tell_what_was_read(made):
    text = repr(made["responses"])
    units = len(made["model"].units)
    assert f"45 sentences x {units} units" in text
    assert "mlp.gate 111" in text and "0 to 2" in text and "max over tokens" in text and "'ba a x'" in text
    steered = el.record_responses(made["model"], ["a b"], steering=made["steering"])
    assert "set_median; 50 units" in " ".join(repr(steered).split())
    assert "pooled" not in repr(el.Responses.of(np.zeros((1, 1)), made["model"].units.head(1), "mine", ("a",)))


def test_concepts_show_a_sentence_of_each(made):
    page = Page(made["concepts"]._repr_html_())
    for each in ("3 concepts in 1 domain, 45 sentences", "ba a x", "de a x", "fi a x", "15"):
        assert each in page.text
    assert "... and 168 more" in el.load_concepts("facts")._repr_html_()


def test_an_alignment_shows_its_numbers_or_why_there_are_none(made):
    page = Page(made["alignment"]._repr_html_())
    for each in ("0.52", "0.31 to 0.70", "0.001", "... of 9 pairs: .table", "and 472 more"):
        assert each in page.text
    none = Page(made["no alignment"]._repr_html_())
    assert "no pair" in none.text and "nan" not in none.text


def test_few_texts_are_shown_whole_and_many_cut(made):
    text = repr(made["generations"])
    assert len(text.splitlines()) == 21 and text.endswith("... 280 more texts; whole in .texts")
    few = el.Generations(("a",) * 2, (" long" * 400, "\nb"), (), ())
    assert repr(few) == f"a ▸{' long' * 400}\na ▸\n    b"
    assert Page(few._repr_html_()).text == f"a{' long' * 400}a\nb"


def test_a_steering_shows_its_first_units(made):
    page = Page(made["steering"]._repr_html_())
    assert "50 units" in page.text and "... of 50 units: .table" in page.text and "shift" in page.text


def test_a_card_without_values_leaves_their_names_out():
    card = Card("title", {"one": "1", "none": ""})
    assert card.text() == "title\n  one  1" and "none" not in card.html()
    assert counted(1, "unit") == "1 unit" and counted(7040, "sentence") == "7,040 sentences"
    assert (
        listed("abc", 2) == "a, b, and 1 more" and shortened("a\n b", 9) == "a b" and len(shortened("a" * 99, 10)) == 10
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((1, "unit"), "1 unit"),
        ((0, "unit"), "0 units"),
        ((7040, "sentence"), "7,040 sentences"),
        ((1, "unit was", "units were"), "1 unit was"),
        ((2, "category", "categories"), "2 categories"),
    ],
)
def test_what_is_counted_agrees_with_its_number(given, said):
    assert counted(*given) == said
