"""Datasets of concepts are joined, split, written and read back; and concepts may have no word."""

import dataclasses
import warnings

import ml_collections
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import expertlens_jax as el
from experiments.baselines import without_unfit_controls
from expertlens_jax.analysis.similarity.control_tables import check_words_present
from expertlens_jax.analysis.steering.effects import find_in_place
from expertlens_jax.analysis.steering.trials import held_out_texts
from expertlens_jax.data.contrast import contrast_concepts
from expertlens_jax.errors import ConceptDataError, UnfitConceptsError
from expertlens_jax.experts.token_masks import pool_over_words
from expertlens_jax.sentences.concept_list import read_concept_list
from expertlens_jax.sentences.masking import mask_words

FEW = settings(deadline=None, max_examples=20)  # a file is written and read in each
NAMES = st.text("abc -'é", min_size=1, max_size=4).map(str.strip).filter(bool)
TEXTS = st.text("ab\"',;|\t\r\n\u2028 é", min_size=1, max_size=6).map(str.strip).filter(bool)


@st.composite
def concept_sets(draw, names=NAMES, texts=TEXTS):
    """Any dataset, also such as no file was read into."""
    concepts = tuple(draw(st.lists(names, min_size=1, max_size=3, unique=True)))
    sentences = tuple(draw(st.lists(texts, min_size=1, max_size=5, unique=True)))
    kinds = draw(st.lists(st.sampled_from("+- "), min_size=len(concepts) * len(sentences), max_size=99))
    kinds = np.array(kinds[: len(concepts) * len(sentences)]).reshape(len(concepts), len(sentences))
    kinds[:, 0] = np.where((kinds == "+").any(1), kinds[:, 0], "+")  # each concept has a positive
    plain = draw(st.booleans())
    pool = draw(st.lists(st.booleans(), min_size=len(sentences), max_size=len(sentences)))

    def of_each(values):
        return tuple(draw(st.lists(values, min_size=len(concepts), max_size=len(concepts))))

    words = of_each(st.sampled_from(["", "cat", "ice cream"])) if draw(st.booleans()) else ()
    forms = of_each(st.lists(st.sampled_from(["tom", "puss"]), unique=True).map(tuple)) if draw(st.booleans()) else ()
    if words and forms:
        forms = tuple(each if word else () for word, each in zip(words, forms, strict=True))
    return el.ConceptDataset(
        name="made",
        sentences=sentences,
        concepts=concepts,
        domains=of_each(st.sampled_from(["", "pet"])),
        labels=kinds == "+",
        negative_pool=(kinds == "+").any(0) if plain else np.array(pool),
        own_negatives=kinds == "-" if (kinds == "-").any() else None,
        words=words,
        languages=of_each(st.sampled_from(["en", "de"])) if draw(st.booleans()) else (),
        forms=forms,
    )


def read_back(path):
    """The set in a file, without what reading tells of its words."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*(lack their concept's word|differ only)")
        return el.load_concepts(path, minimum_sentences=1)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@FEW
@given(data=st.data())
def test_a_saved_set_is_read_back_as_it_was(tmp_path_factory, suffix, data):
    plain = TEXTS.map(lambda text: " ".join(text.split())).filter(bool)
    made = data.draw(concept_sets(texts=plain if suffix == "tsv" else TEXTS))
    path = made.save(tmp_path_factory.getbasetemp() / f"made.{suffix}")
    assert read_back(path).equals(made)
    assert made.equals(read_back(path)) and read_back(path).name == "made"


@FEW
@given(concept_sets())
def test_a_table_of_a_set_is_the_set(made):
    frame = made.to_frame()
    assert frame.columns[:2].tolist() == ["concept", "sentence"]
    pairs = {(made.concepts[row], made.sentences[column]) for row, column in np.argwhere(made.labels)}
    label = frame["label"] if "label" in frame else pd.Series("1", index=frame.index)
    assert {*frame.loc[label == "1", ["concept", "sentence"]].itertuples(index=False, name=None)} == pairs


@FEW
@given(concept_sets(), st.data())
def test_parts_of_a_set_join_to_the_set(made, data):
    if any(not row.any() for row in made.labels):
        return
    whole = made + made
    assert whole.equals(made) and whole.name == "made"
    rest = data.draw(st.permutations(made.concepts))
    cut = data.draw(st.integers(1, len(rest)))
    first, second = made.subset(rest[:cut]), made.subset(rest[cut:]) if cut < len(rest) else made
    joined = first + second
    assert {*joined.concepts} == {*made.concepts} and {*joined.sentences} == {*made.sentences}
    of_concept = {concept: row for row, concept in enumerate(joined.concepts)}
    of_sentence = {sentence: column for column, sentence in enumerate(joined.sentences)}
    rows = [of_concept[concept] for concept in made.concepts]
    columns = [of_sentence[sentence] for sentence in made.sentences]
    np.testing.assert_array_equal(joined.labels[np.ix_(rows, columns)], made.labels)
    own = made.own_negatives if made.own_negatives is not None else np.zeros_like(made.labels)
    found = joined.own_negatives if joined.own_negatives is not None else np.zeros_like(joined.labels)
    np.testing.assert_array_equal(found[np.ix_(rows, columns)], own)
    np.testing.assert_array_equal(joined.negative_pool[columns], made.negative_pool)


def made(name="mine", **changes):
    sets = {
        "concepts": ("cat", "dog"),
        "sentences": ("Cats.", "A cat.", "Dogs.", "A dog."),
        "domains": ("pet", "pet"),
        "labels": np.repeat(np.eye(2, dtype=bool), 2, axis=1),
        "negative_pool": np.ones(4, bool),
    }
    return el.ConceptDataset(name, **{**sets, **changes})


def test_joined_sets_are_told_apart_from_one_another():
    facts = el.load_concepts("facts").subset(["cat", "dog"])
    mine = el.load_concepts(positives={"thanks": ["Thank you.", "How kind."]}, words="", minimum_sentences=1)
    both = facts + mine
    assert both.name == "facts + concepts" and both.concepts == ("cat", "dog", "thanks") and len(both.sentences) == 82
    assert both.words == ("cat", "dog", "") and both.negative_pool.all()
    assert contrast_concepts(both).num_negatives[2] == 80
    moods = facts + el.load_concepts("sentiment")
    assert contrast_concepts(moods).num_negatives.tolist()[2:] == [100, 100]  # their own, and no others
    again = made() + made("theirs", sentences=("My cat.", "Cats.", "Dogs!", "Dogs."))
    assert again.sentences == ("Cats.", "A cat.", "Dogs.", "A dog.", "My cat.", "Dogs!")
    assert again.labels.tolist() == [[True, True, False, False, True, False], [False, False, True, True, False, True]]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"domains": ("food", "pet")},
            "concept 'cat' is of domain 'pet', .* in 'mine' and of domain 'food', .* 'theirs'",
        ),
        ({"words": ("cat", "hound")}, "concept 'dog' is of .* word 'dog', .* in 'mine' and of .* word 'hound'"),
        (
            {"labels": np.zeros((2, 4), bool), "own_negatives": np.eye(2, 4, dtype=bool)},
            "positive of 'cat' in one .* 'Cats.'",
        ),
    ],
)
def test_sets_that_contradict_each_other_are_not_joined(other, message):
    with pytest.raises(ConceptDataError, match=message):
        made() + made("theirs", **other)
    with pytest.raises(TypeError):
        made() + 3


@pytest.mark.parametrize(
    ("change", "suffix", "message"),
    [
        ({}, ".txt", "can't write a .txt file; give .csv, .tsv, .jsonl, .parquet"),
        (
            {"sentences": ("Cats.", "A\tcat.", "c", "d")},
            ".tsv",
            "can't hold the tab or line end of row 1.*save it as .csv",
        ),
        (
            {"sentences": ("Cats.", " A cat.", "c", "d")},
            ".csv",
            "the sentence ' A cat.' is empty, has spaces around it",
        ),
        ({"concepts": ("cat", "*")}, ".csv", r"a concept can't be called '\*' in a table"),
        ({"forms": (("a|b",), ())}, ".csv", r"forms between '\|', and so can't hold 'a\|b'"),
        ({"words": ("cat", "!!")}, ".csv", "the word '!!' has no letter or digit"),
        ({"labels": np.eye(2, 4, k=5, dtype=bool)}, ".csv", "a row a sentence, and 'cat', 'dog' has none"),
    ],
)
def test_what_no_file_can_hold_is_refused(tmp_path, change, suffix, message):
    with pytest.raises(ConceptDataError, match=message):
        made(**change).save(tmp_path / f"mine{suffix}")
    assert not [*tmp_path.iterdir()]


def test_a_set_is_split_evenly_and_by_its_seed():
    facts = el.load_concepts("facts")
    first, second = facts.split(seed=3)
    assert first.name == "facts_part1" and (first.labels.sum(1) == 20).all() and (second.labels.sum(1) == 20).all()
    assert not {*first.sentences} & {*second.sentences} and len(first.sentences) + len(second.sentences) == 7040
    assert first.sentences == facts.split(seed=3)[0].sentences != facts.split(seed=4)[0].sentences
    parts = el.load_concepts("sentiment").split(4)
    assert all((part.labels.sum(1) == 25).all() and (part.own_negatives.sum(1) == 25).all() for part in parts)


def test_sentences_of_several_concepts_are_split_evenly_too():
    generator = np.random.default_rng(0)
    labels = generator.random((6, 200)) < 0.3
    many = el.ConceptDataset("many", tuple(map(str, range(200))), tuple("abcdef"), ("",) * 6, labels, labels.any(0))
    first, second = many.split()
    assert (abs(first.labels.sum(1) - second.labels.sum(1)) <= 6).all()
    assert abs(len(first.sentences) - len(second.sentences)) <= 24


def test_a_set_that_cannot_be_split_says_whose_sentences_are_few():
    with pytest.raises(
        ConceptDataError, match="'mine' can't be split into 2 parts .* at least 2 .*: 'cat' has 2, 'dog' "
    ):
        made().split(minimum_sentences=2)
    assert [part.labels.sum(1).tolist() for part in made().split(minimum_sentences=1)] == [[1, 1], [1, 1]]
    with pytest.raises(ConceptDataError, match="1 part with at least 5"):
        made().split(1)


def test_nothing_mentions_a_concept_without_a_word():
    wordless = made(words=("", "dog"), concepts=("cat", "dog"))
    assert wordless.wordless == ("cat",) and wordless.subset("dog").wordless == ()
    assert wordless.mentions().tolist() == [[False] * 4, [False, False, True, True]]
    assert wordless.mention_finders()[0]("A cat.") == []
    mixed = made(sentences=("Cats.", "A cat.", "Dog and cat.", "A dog."), words=("", "dog"))
    assert contrast_concepts(mixed).num_negatives.tolist() == [2, 2]  # with its word it would be 1
    assert contrast_concepts(dataclasses.replace(mixed, words=())).num_negatives.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda concepts: mask_words(concepts, "it"), "masked sentences"),
        (check_words_present, "the controls by own_tokens"),
        (
            lambda concepts: pool_over_words(None, concepts, "concept", max_tokens=9),
            "responses with pool_over='concept'",
        ),
        (lambda concepts: pool_over_words(None, concepts, "others", max_tokens=9), "responses with pool_over='others'"),
        (lambda concepts: find_in_place(concepts, "positive sentiment"), "the probability of a concept's word"),
        (lambda concepts: read_concept_list("sentiment"), "sentences that hold a concept's word"),
    ],
)
def test_what_needs_a_word_refuses_concepts_without_by_name(ask, what):
    with pytest.raises(UnfitConceptsError, match=f"{what}.* can't be made of .*'sentiment' has: positive sentiment"):
        ask(el.load_concepts("sentiment"))


def test_alignment_leaves_out_the_controls_that_need_a_word():
    config = ml_collections.ConfigDict({"own_tokens": True, "masked": "something", "truncate": False})
    left, why = without_unfit_controls(config, [el.load_concepts("sentiment")], None)
    assert not left.own_tokens and left.masked == "" and config.masked == "something"
    assert "--config.own_tokens=False" in why and "--config.masked='' leaves them out" in why


def test_held_out_texts_are_no_positives_of_a_concept_without_a_word():
    drawn = held_out_texts(made(words=("", "dog")), ["cat"], 9)
    assert drawn == ("Dogs.", "A dog.")


def test_sentiment_and_alltag_are_whole():
    moods = el.load_concepts("sentiment")  # an ExpertLensWarning is an error in these tests
    assert moods.concepts == moods.wordless == ("positive sentiment", "negative sentiment")
    assert moods.labels.sum(1).tolist() == moods.own_negatives.sum(1).tolist() == [100, 100]
    np.testing.assert_array_equal(moods.labels, moods.own_negatives[::-1])
    lengths = [
        [len(text.split()) for text, own in zip(moods.sentences, row, strict=True) if own] for row in moods.labels
    ]
    assert abs(np.mean(lengths[0]) - np.mean(lengths[1])) < 1.5  # or length would tell them apart
    german = el.load_concepts("alltag")
    assert len(german.concepts) == 20 and (german.labels.sum(1) == 20).all() and {*german.languages} == {"de"}
    assert len({*german.domains}) == 6 and not (german.labels & ~german.mentions()).any()
