"""The table of attribution: its numbers sentence by sentence, its place among the scores, and what is refused."""

import dataclasses

import families
import numpy as np
import pytest

import expertlens_jax as el
from expertlens_jax.data.in_place import find_words_in_place
from expertlens_jax.errors import ConceptDataError, SelectionError, UnfitConceptsError, UnsupportedModelError
from expertlens_jax.experts import attribution
from expertlens_jax.models.gradients import attribute_rows
from expertlens_jax.models.scoring import score_continuations

pytestmark = pytest.mark.compiled_quickly

WORDS = ("cat", "bread")
SITES = ("attn.v", "mlp.down")


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def concepts():
    """Short sentences of one length, which compile once; one of each word begins with it."""
    sentences = [f"{begin} {word} {end}." for word in WORDS for begin, end in (("The", "was here"), ("I saw the", ""))]
    sentences += ["Cats are here.", "Breads are here."]
    labels = np.array([[1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 1]], bool)
    return el.ConceptDataset("short", tuple(sentences), WORDS, ("animal", "food"), labels, np.ones(6, bool))


@pytest.fixture(scope="module")
def expertise(model, concepts):
    return el.measure_expertise(el.record_responses(model, concepts.sentences, sites=SITES), concepts, transport=False)


@pytest.fixture(scope="module")
def attributed(model, concepts, expertise):
    return el.attribute(model, concepts, expertise=expertise)


def loss_without(model, begin, word, units, scale):
    """What the log-probability of the word's first token loses when units are scaled, by their shrinking."""
    steering = el.steer_units(model, units, scale=scale)
    before, after = (score_continuations(model, [begin], [word], steering=each)[0][0] for each in (None, steering))
    return before - after


def test_it_is_the_mean_over_sentences_of_what_a_little_less_of_the_units_takes_away(model, concepts, attributed):
    """Of all units of a layer together, shrunk by a thousandth: the sum of what is attributed to each."""
    assert attributed["attributed_sentences"].values.tolist() == [2, 2]
    found = find_words_in_place(concepts)
    assert found.words == (" cat", " cat", " bread", " bread") and found.beginnings[1] == "I saw the"
    for row, concept in enumerate(WORDS):
        for site, layer in (("attn.v", 1), ("mlp.down", 3)):
            mine = ((attributed["site"] == site) & (attributed["layer"] == layer)).values
            units = attributed.isel(unit=mine)
            table = units[["layer", "site", "channel"]].to_dataframe()
            texts = [
                each
                for each, of in zip(zip(found.beginnings, found.words, strict=True), found.concept, strict=True)
                if of == row
            ]
            lost = np.mean([loss_without(model, *each, table, 0.98) for each in texts]) / 0.02
            total = float(units["attribution"].isel(concept=row).sum())
            assert lost == pytest.approx(total, abs=0.02 + 0.05 * abs(total)), (concept, site)


def test_batches_and_tables_of_some_units_give_the_same_numbers(model, concepts, expertise, attributed):
    alone = el.attribute(model, concepts, sites=SITES, tokens_per_batch=8)
    np.testing.assert_allclose(alone["attribution"], attributed["attribution"], atol=1e-5)
    some = np.random.default_rng(0).permutation(expertise.sizes["unit"])[:20]
    part = el.attribute(model, concepts, expertise=expertise.isel(unit=some))
    np.testing.assert_allclose(part["attribution"], attributed["attribution"].isel(unit=some), atol=1e-6)
    total = el.attribute(model, concepts, sites=SITES, over="sum")
    np.testing.assert_allclose(total["attribution"], 2 * alone["attribution"], atol=1e-5)
    assert alone.attrs["weights"] == model.provenance.weights and alone.attrs["attribution_over"] == "mean"


def test_few_sentences_are_read_at_one_length_and_say_the_same(model, concepts, attributed, monkeypatch):
    longer = "We all went out early in the morning to look for it, and then we saw the cat here."
    mixed = dataclasses.replace(concepts, sentences=(*concepts.sentences[:4], longer, concepts.sentences[5]))
    shapes = []

    def counted(*args):
        shapes.append(args[2].shape)
        return attribute_rows(*args)

    monkeypatch.setattr(attribution, "attribute_rows", counted)
    at_one = el.attribute(model, mixed, sites=SITES, tokens_per_batch=64)["attribution"].values
    assert shapes == [(2, 24)] * 3  # five sentences
    shapes.clear()
    monkeypatch.setattr(attribution, "_TOKENS_AT_ONE_LENGTH", 0)
    at_their_own = el.attribute(model, mixed, sites=SITES, tokens_per_batch=64)["attribution"].values
    assert shapes == [(2, 24), (8, 8)]
    np.testing.assert_allclose(at_one, at_their_own, rtol=0, atol=1e-6)
    np.testing.assert_allclose(at_one[1], attributed["attribution"].values[1], rtol=0, atol=1e-6)  # bread's, as before


def test_a_whole_word_adds_the_tokens_after_its_first(model):
    """ " jaguar" is several tokens: the mean log-probability is that of all of them, or of the first."""
    concepts = el.load_concepts("facts").subset(["jaguar"])
    concepts = concepts.keep_sentences(np.arange(len(concepts.sentences)) < 4)
    found = find_words_in_place(concepts)
    scored = score_continuations(model, found.beginnings, found.words)
    assert min(map(len, scored)) > 1
    for whole_word, wanted in ((True, [row.sum() for row in scored]), (False, [row[0] for row in scored])):
        table = el.attribute(model, concepts, sites="attn.v", whole_word=whole_word)
        assert table["word_log_prob"].item() == pytest.approx(np.mean(wanted), abs=1e-4)


def test_units_are_selected_by_attribution_where_scores_are_named(attributed, expertise, model, concepts):
    values = attributed["attribution"].values
    experts = el.select_experts(attributed, top=7, by="attribution")
    for row, chosen in zip(values, experts.values, strict=True):
        assert set(np.flatnonzero(chosen)) == set(np.argsort(-row)[:7])
    both = el.score_units(attributed, by="attribution", sign="both").values
    np.testing.assert_array_equal(both, np.abs(values))
    best = el.top_experts(attributed, "cat", 3, by="attribution")
    np.testing.assert_array_equal(best["score"], np.sort(values[0])[::-1][:3])
    assert best["average_precision"].between(0, 1).all()
    assert len(el.steer(attributed, "cat", top=7, by="attribution", method="zero")) == 7
    alone = el.attribute(model, concepts, sites="attn.v")
    assert "average_precision" not in el.top_experts(alone, "cat", 3, by="attribution")
    with pytest.raises(SelectionError, match=r"needs attribution, .* el.attribute\(model, concepts, expertise=exp"):
        el.select_experts(expertise, top=5, by="attribution")
    with pytest.raises(SelectionError, match="a dataset of attribution was given where a table of expertise is wanted"):
        el.select_experts(alone, top=5)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"sites": "attn.head"}, SelectionError, "units of the site attn.head can't be attributed to: they are"),
        ({"sites": "sae"}, SelectionError, "units of the site sae can't be attributed to"),
        ({"sites": "mlp.gate"}, SelectionError, "sites mlp.gate were given; this model has"),
        ({"over": "max"}, SelectionError, "over='max' was given; wanted one of mean, sum"),
        ({"sites": "attn.v", "expertise": True}, SelectionError, "sites and a table of expertise were given"),
    ],
)
def test_what_cannot_be_attributed_is_refused(model, concepts, expertise, given, error, message):
    given = given | ({"expertise": expertise} if "expertise" in given else {})
    with pytest.raises(error, match=message):
        el.attribute(model, concepts, **given)


def test_tables_of_other_concepts_and_models_are_refused(model, concepts, expertise):
    with pytest.raises(SelectionError, match="has 1 concept, such as 'bread', and 'short' has 2, such as 'cat'"):
        el.attribute(model, concepts, expertise=expertise.sel(concept=["bread"]))
    other = el.load_model("lenslet-2m-seed1")
    with pytest.raises(SelectionError, match="is of lenslet-2m, and lenslet-2m-seed1 was given, which is another"):
        el.attribute(other, concepts, expertise=expertise)


def test_concepts_without_a_word_to_predict_are_named(model, concepts):
    first = dataclasses.replace(concepts, sentences=tuple(f"Cat {i}. Bread {i}."[:6] for i in range(6)))
    with pytest.raises(ConceptDataError, match="no sentence of 'cat', 'bread' in 'short' has its word after another"):
        el.attribute(model, first)
    wordless = dataclasses.replace(concepts, words=("cat", ""))
    with pytest.raises(UnfitConceptsError, match="can't be made of concepts without a word, .*bread"):
        el.attribute(model, wordless)


def test_an_encoder_is_refused_by_name(concepts, tmp_path):
    case = next(case for case in families.CASES if case.name == "bert")
    encoder = el.load_model(families.save(families.make_hf_model(case), tmp_path / "bert"))
    with pytest.raises(UnsupportedModelError, match="is an encoder .* gives a concept's word no probability"):
        el.attribute(encoder, concepts)
