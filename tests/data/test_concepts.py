import collections
import csv
import dataclasses
import io
import json
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from expertlens_jax.data import concept_dataset
from expertlens_jax.data.concepts import PACKAGED, ConceptDataset, load_concepts
from expertlens_jax.data.words import find_mentions, split_words, word_forms
from expertlens_jax.errors import ConceptDataError, ExpertLensWarning

ROWS = [
    ("animal", "cat", "The cat slept."),
    ("animal", "cat", "Two cats fought."),
    ("animal", "dog", 'A dog barked, and "sit" was no use.'),
    ("animal", "dog", "The dogs chased a cat."),
    ("food", "bread", "Bread rises."),
    ("food", "bread", "We broke bread."),
]


def write(path, text):
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def as_tsv(rows, header=("domain", "concept", "sentence")):
    return "".join("\t".join(row) + "\n" for row in (header, *rows))


def as_csv(rows):
    out = io.StringIO()
    csv.writer(out).writerows([("domain", "concept", "sentence"), *rows])
    return out.getvalue()


def as_jsonl(rows):
    return "".join(json.dumps({"sentence": s, "concept": c, "domain": d, "id": 1}) + "\n" for d, c, s in rows)


@pytest.fixture
def load(tmp_path):
    def load(text, suffix=".tsv", **options):
        return load_concepts(write(tmp_path / f"mine{suffix}", text), **{"minimum_sentences": 2, **options})

    return load


@pytest.mark.parametrize("name", ["facts", "stories"])
def test_packaged_sets_are_whole(name):
    # An ExpertLensWarning is an error in these tests, so every sentence holds its concept's word or plural.
    dataset = load_concepts(name)
    assert dataset.labels.shape == (176, 7040)
    assert (dataset.labels.sum(1) == 40).all()
    assert (dataset.labels.sum(0) == 1).all()
    assert len(set(dataset.domains)) == 16
    assert dataset.negative_pool.all()
    assert (dataset.concepts[0], dataset.domains[0]) == ("animal", "animal")
    assert not (dataset.labels & ~dataset.mentions()).any()
    assert repr(dataset) == f"ConceptDataset({name!r}: 176 concepts in 16 domains, 7,040 sentences)"


def test_the_senses_are_two_words_each_and_no_sentence_holds_another_concepts_word():
    dataset = load_concepts("senses")
    assert "senses" in PACKAGED
    assert dataset.labels.shape == (140, 2800)
    assert (dataset.labels.sum(1) == 20).all() and (dataset.labels.sum(0) == 1).all()
    domains = collections.Counter(dataset.domains)
    words = collections.Counter(dataset.words)
    assert set(domains.values()) == {2} and len(domains) == 70
    assert collections.Counter(words.values()) == {2: 35, 1: 70}
    for row, word in enumerate(dataset.words):
        assert dataset.concepts[row].partition(" (")[0] == word
        twin = [other for other, name in enumerate(dataset.domains) if name == dataset.domains[row] and other != row]
        assert (words[word] == 2) != (words[dataset.words[twin[0]]] == 2)  # a homograph and its partner
    same_word = np.equal.outer(np.array(dataset.words), np.array(dataset.words))
    assert (dataset.mentions() == (same_word @ dataset.labels)).all()
    for labels in dataset.labels:
        openings = [tuple(dataset.sentences[column].lower().split()[:2]) for column in np.flatnonzero(labels)]
        assert max(collections.Counter(openings).values()) <= 2


def test_mentions_are_found_once_and_what_is_done_to_them_changes_no_other(monkeypatch):
    dataset = load_concepts("facts").subset(("cat", "dog"))
    want, found = find_mentions(dataset.concepts, dataset.sentences), []
    find = concept_dataset.find_mentions
    monkeypatch.setattr(concept_dataset, "find_mentions", lambda *each, **more: found.append(1) or find(*each, **more))
    dataset.mentions()[:] = False
    np.testing.assert_array_equal(dataset.mentions(), want)
    assert len(found) == 1
    np.testing.assert_array_equal(dataset.subset("dog").mentions(), want[1:, 40:])  # another set, found anew
    renamed = dataclasses.replace(dataset, words=("dog", "cat"))
    np.testing.assert_array_equal(renamed.mentions(), want[::-1])
    assert len(found) == 3


def test_mentions_of_a_packaged_set_are_fast():
    dataset = load_concepts("stories")
    start = time.perf_counter()
    mentions = dataset.mentions()
    assert time.perf_counter() - start < 2  # 0.1 s here; sentence by concept it would be about a minute
    assert mentions.sum() > 7040


def test_packaged_mentions_against_a_plain_search():
    forms = {
        "flamingo": {"flamingo", "flamingos", "flamingoes"},
        "child": {"child", "children"},
        "family": {"family", "families"},
        "foot": {"foot", "feet"},
        "clothes": {"clothes"},
    }
    sentences = load_concepts("stories").sentences
    letters = ["".join(x if x.isalpha() else " " for x in sentence.lower()).split() for sentence in sentences]
    expected = [[not words.isdisjoint(line) for line in letters] for words in forms.values()]
    np.testing.assert_array_equal(find_mentions(tuple(forms), sentences), expected)


@pytest.mark.parametrize(
    ("suffix", "text"), [(".tsv", as_tsv(ROWS)), (".csv", as_csv(ROWS)), (".jsonl", as_jsonl(ROWS))]
)
@pytest.mark.parametrize("change", ["as it is", "byte-order mark", "CRLF", "no last newline", "blank lines"])
def test_formats_read_alike(load, suffix, text, change):
    text = text.replace("\r\n", "\n")
    text = {
        "as it is": text,
        "byte-order mark": "\ufeff" + text,
        "CRLF": text.replace("\n", "\r\n"),
        "no last newline": text.rstrip("\n"),
        "blank lines": text.replace("\n", "\n\n"),
    }[change]
    dataset = load(text, suffix)
    assert dataset.name == "mine"
    assert dataset.concepts == ("cat", "dog", "bread")
    assert dataset.domains == ("animal", "animal", "food")
    assert dataset.sentences == tuple(sentence for _, _, sentence in ROWS)
    np.testing.assert_array_equal(dataset.labels, np.repeat(np.eye(3, dtype=bool), 2, axis=1))
    np.testing.assert_array_equal(
        dataset.mentions(), np.array([[1, 1, 0, 1, 0, 0], [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]], bool)
    )


def test_domain_is_optional_and_columns_stand_in_any_order(load):
    rows = [(sentence, concept) for _, concept, sentence in ROWS]
    assert load(as_tsv(rows, header=("sentence", "concept"))).domains == ("", "", "")
    jsonl = as_jsonl(ROWS).replace('"domain": "food"', '"domain": null')
    assert load(jsonl, ".jsonl").domains == ("animal", "animal", "")


def test_quoted_fields_may_hold_commas_and_newlines(load):
    dataset = load('concept,sentence\ncat,"A ""cat"",\nasleep."\ncat,Cats.\n', ".csv")
    assert dataset.sentences == ('A "cat",\nasleep.', "Cats.")


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".tsv", "domain\tword\tsentence\n", r"mine.tsv:1: missing column 'concept'.*\['domain', 'word', "),
        (".csv", "concept|sentence\ncat|A cat.\n", r"mine.csv:1: missing column .*\['concept\|sentence'\]"),
        (".jsonl", '{"concept": "cat"}\n', r"mine.jsonl:1: missing column 'sentence'.*\['concept'\]"),
        (".tsv", "concept\tconcept\tsentence\n", r"mine.tsv:1: column 'concept' is there twice"),
        (".tsv", as_tsv([*ROWS, ("food", "bread", "  ")]), "mine.tsv:8: the sentence is empty"),
        (".tsv", as_tsv([*ROWS, ("food", "", "Oh.")]), "mine.tsv:8: the concept is empty"),
        (
            ".tsv",
            as_tsv([*ROWS, ("b", "owl", "Owl.")]),
            r"mine.tsv:8: concept 'owl'.* 1 sentence,.*at least 2",
        ),
        (
            ".tsv",
            as_tsv([*ROWS, ("pet", "dog", "My dog.")]),
            r"mine.tsv:8: concept 'dog' is in domain 'pet' here and in 'animal' at .*mine.tsv:4",
        ),
        (".tsv", as_tsv([*ROWS, ("food", "bread", "Rye\tbread.")]), "mine.tsv:8: 4 fields, .* names 3"),
        (".csv", "concept,sentence\ncat\n", "mine.csv:2: 1 field, .* names 2: concept, sentence"),
        (".csv", 'concept,sentence\ncat,"A cat.\ndog,A dog.\n', "mine.csv:2: not a .csv row: unexpected end"),
        (".jsonl", as_jsonl(ROWS) + "{concept: 1}\n", "mine.jsonl:7: broken JSON: .* at column 2"),
        (".jsonl", '["cat", "A cat."]\n', "mine.jsonl:1: wanted a JSON object"),
        (".jsonl", '{"concept": "cat", "sentence": 3}\n', "mine.jsonl:1: 'sentence' must be text, not 3"),
        (
            ".jsonl",
            '{"concept": "cat", "sentence": null}\n',
            "mine.jsonl:1: 'sentence' must be text, not null",
        ),
        (".jsonl", '{"concept": "c", "sentence": "s", "domain": 1}\n', "mine.jsonl:1: 'domain' must be text"),
        (".jsonl", '{"concept": "cat", "sentence": "\\ud83d"}\n', "mine.jsonl:1: 'sentence' must be text"),
        (".tsv", "", "mine.tsv: there are no sentences"),
        (".tsv", "concept\tsentence\n", "mine.tsv: there are no sentences"),
        (
            ".tsv",
            b"concept\tsentence\ncat\tcaf\x81 cat\n",
            r"mine.tsv:2: byte 0x81 \(byte 8 of the line\) is not",
        ),
        (
            ".tsv",
            b"\xef\xbb\xbfconcept\n\xff\n",
            r"mine.tsv:2: byte 0xff \(byte 1 of the line\) is not UTF-8",
        ),
        (".xlsx", "PK", r"mine.xlsx: not a workbook \(.xlsx\)"),
        (".parquet", "PAR", "mine.parquet: not a Parquet file"),
        (".xls", "A cat.\n", r"mine.xls: can't read a .xls file; give .tsv, .csv, .jsonl, .json, .parquet, .xlsx$"),
        (".txt", "A cat.\n", r"mine.txt: can't read a .txt file; give .tsv, .csv, .jsonl, .json, .parquet, .xlsx$"),
        ("", "A cat.\n", r"mine: can't read a suffixless file"),
    ],
)
def test_errors_name_file_and_line(load, suffix, text, message):
    with pytest.raises(ConceptDataError, match=message):
        load(text, suffix)


def test_missing_file_names_the_packaged_sets(tmp_path):
    with pytest.raises(
        ConceptDataError, match=r"no file 'fact'; .*'facts', 'stories', 'senses', 'novels', 'sentiment' and 'alltag'"
    ):
        load_concepts("fact")
    with pytest.raises(ConceptDataError, match="no file"):
        load_concepts(tmp_path)
    with pytest.raises(ConceptDataError, match=r"no file 'none.txt'"):
        load_concepts("facts", negatives="none.txt")


def test_minimum_sentences(load):
    with pytest.raises(ConceptDataError, match=r"mine.tsv:2: concept 'cat'.* 2 sentences.*at least 5"):
        load(as_tsv(ROWS), minimum_sentences=5)
    with pytest.raises(ConceptDataError, match="minimum_sentences must be at least 1, not 0"):
        load(as_tsv(ROWS), minimum_sentences=0)


def test_sentences_without_their_word_are_one_warning(load):
    rows = [*ROWS, *(("food", "bread", f"Loaf {i}.") for i in range(5))]
    with pytest.warns(ExpertLensWarning, match=r"5 of 11 .*mine.tsv:8 \('bread'\); .*mine.tsv:9 .*\.\.\.") as caught:
        dataset = load(as_tsv(rows))
    assert len(caught) == 1
    assert dataset.labels[2].sum() == 7


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n.txt", "\ufeffNothing here.\r\n\r\nA cat is here.\r\n"),
        ("n.tsv", "sentence\nNothing here.\nA cat is here.\n"),
        ("n.csv", 'id,sentence\n1,Nothing here.\n2,"A cat is here."\n'),
        ("n.jsonl", '{"sentence": "Nothing here."}\n{"sentence": "A cat is here."}\n'),
    ],
)
def test_negatives_are_the_only_pool(load, tmp_path, name, text):
    dataset = load(as_tsv(ROWS), negatives=write(tmp_path / name, text))
    assert dataset.sentences[6:] == ("Nothing here.", "A cat is here.")
    np.testing.assert_array_equal(dataset.negative_pool, [False] * 6 + [True] * 2)
    assert not dataset.labels[:, 6:].any()
    np.testing.assert_array_equal(dataset.mentions()[:, 6:], [[False, True], [False, False], [False, False]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Oh.\nBread rises.\n", r"n.txt:2: duplicate sentence.*mine.tsv:6 too"),
        ("\n\n", "n.txt: there are no sentences"),
        (b"Oh.\n\x81\n", "n.txt:2: byte 0x81"),
    ],
)
def test_bad_negatives(load, tmp_path, text, message):
    with pytest.raises(ConceptDataError, match=message):
        load(as_tsv(ROWS), negatives=write(tmp_path / "n.txt", text))


def test_subset_keeps_its_sentences_and_the_negatives(load, tmp_path):
    dataset = load(as_tsv(ROWS), negatives=write(tmp_path / "n.txt", "Oh.\n"))
    subset = dataset.subset(["bread", "cat"])
    assert subset.concepts == ("bread", "cat")
    assert subset.domains == ("food", "animal")
    assert subset.sentences == (*dataset.sentences[:2], *dataset.sentences[4:])
    np.testing.assert_array_equal(subset.labels, np.array([[0, 0, 1, 1, 0], [1, 1, 0, 0, 0]], bool))
    np.testing.assert_array_equal(subset.negative_pool, [False] * 4 + [True])
    assert dataset.subset("dog").sentences == (*dataset.sentences[2:4], "Oh.")


@pytest.mark.parametrize(
    ("concepts", "message"),
    [
        (["bred"], "no concept 'bred' among the 3 of 'mine'; there is bread"),
        (["zzz"], "there is cat, dog, bread"),
        (["cat", "cat"], "concepts must be there once each, but 'cat' is 2 times"),
        ([], "at least one concept"),
    ],
)
def test_bad_subsets(load, concepts, message):
    with pytest.raises(ConceptDataError, match=message):
        load(as_tsv(ROWS)).subset(concepts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domains": ()}, "1 concept needs as many domains, not 0"),
        ({"labels": np.ones((1, 3), bool)}, r"labels must be bool \[1, 2\] .* not bool \[1, 3\]"),
        ({"labels": np.ones((1, 2))}, r"labels must be bool .* not float64"),
        ({"negative_pool": np.ones(1, bool)}, r"negative_pool must be bool \[2\]"),
        ({"sentences": ("s", "s")}, "sentences must be there once each, but 's' is 2 times"),
    ],
)
def test_fields_that_do_not_fit(change, message):
    fields = {
        "name": "n",
        "sentences": ("s", "t"),
        "concepts": ("c",),
        "domains": ("",),
        "labels": np.ones((1, 2), bool),
        "negative_pool": np.ones(2, bool),
    }
    ConceptDataset(**fields)
    with pytest.raises(ConceptDataError, match=message):
        ConceptDataset(**{**fields, **change})


@pytest.mark.parametrize(
    ("concept", "sentence", "expected"),
    [
        ("cat", "CATS!", True),
        ("cat", "The cat's paw", True),
        ("cat", "The cat\u2019s paw", True),
        ("cat", "The cats' paws", True),
        ("cat", "a cat-like walk", True),
        ("cat", "'cat'", True),
        ("cat", "the_cat_sat", True),
        ("cat", "a category of scat", False),
        ("don", "I don't know", False),
        ("Man", "two men", True),
        ("man", "a woman", False),
        ("child", "children's books", True),
        ("foot", "six feet", True),
        ("flamingo", "flamingos", True),
        ("flamingo", "flamingoes", True),
        ("scarf", "scarves", True),
        ("scarf", "scarfs", True),
        ("person", "people", True),
        ("person", "persons", True),
        ("cactus", "cacti and cactuses", True),
        ("fish", "the miracle of the fishes", True),
        ("cherry", "cherries", True),
        ("clothes", "his clothes", True),
        ("cloth", "his clothes", False),
        ("news", "a new one", False),
        ("caf\u00e9", "two cafe\u0301s", True),
        ("ice cream", "Ice-cream is cold", True),
        ("ice_cream", "two ice creams", True),
        ("ice-cream", "the ice, cream and sugar", True),  # punctuation isn't seen
        ("ice cream", "cream on ice", False),
        ("mother-in-law", "both mothers-in-law", True),
        ("o'clock", "at two o'clock", True),
        ("!!", "What!!", False),
    ],
)
def test_whole_words_and_plurals(concept, sentence, expected):
    assert find_mentions([concept], [sentence]).item() is expected


@example("0\x1f\U00020000", "", "")  # white space to str.split, and to re, is none to regex
@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_any_concept_is_mentioned_by_itself(concept, before, after):
    mentioned = find_mentions([concept], [f"{before} {concept} {after}", f"{before} {concept.upper()}"])
    if split_words(concept):
        assert split_words(concept) in word_forms(concept)
        assert mentioned[0, 0]
    else:
        assert not mentioned.any()


@given(st.lists(st.text("abs '-", max_size=6), max_size=5), st.lists(st.text("abs '-", max_size=15), max_size=5))
def test_concepts_do_not_disturb_each_other(concepts, sentences):
    together = find_mentions(concepts, sentences)
    assert together.shape == (len(concepts), len(sentences))
    for row, concept in enumerate(concepts):
        for column, sentence in enumerate(sentences):
            assert together[row, column] == find_mentions([concept], [sentence]).item()
