"""The packaged set `novels`: what its page says of it is so."""

import collections
import lzma
import pathlib
import re

import pytest

import expertlens_jax as el
from expertlens_jax.sentences.acceptance import Limits, flaw_of_prose, refusal_of_form, sentence_key

FOLDER = pathlib.Path(el.__file__).parent / "data" / "concepts"


@pytest.fixture(scope="module")
def rows():
    lines = lzma.decompress((FOLDER / "novels.tsv.xz").read_bytes()).decode().splitlines()
    assert lines[0] == "domain\tconcept\tsentence\tsource"
    return [line.split("\t") for line in lines[1:]]


@pytest.fixture(scope="module")
def novels():
    # A warning is an error in these tests, so every sentence holds its concept's word in one of its forms.
    return el.load_concepts("novels")


def test_it_is_small():
    assert (FOLDER / "novels.tsv.xz").stat().st_size < 3_000_000


def test_each_concept_has_forty_sentences_of_five_novels_or_more_and_none_twice(rows):
    books = collections.defaultdict(collections.Counter)
    for _, concept, _, source in rows:
        books[concept][source] += 1
    assert len(books) == 961
    for concept, counts in books.items():
        assert sum(counts.values()) == 40 and len(counts) >= 5 and max(counts.values()) <= 8, concept
    assert len({sentence_key(sentence) for _, _, sentence, _ in rows}) == len(rows) == 38_440


def test_sentences_are_whole_plain_prose_of_fair_length(rows):
    limits = Limits(5, 30)
    wrong = [row for row in rows if refusal_of_form(row[2], limits) or flaw_of_prose(row[2])]
    assert wrong == []


def test_it_is_read_as_it_is_kept(novels, rows):
    assert novels.name == "novels"
    assert novels.labels.shape == (961, 38_440)
    assert (novels.labels.sum(1) == 40).all() and (novels.labels.sum(0) == 1).all() and novels.negative_pool.all()
    assert list(novels.sentences) == [row[2] for row in rows]
    facts = el.load_concepts("facts")
    domains = dict(zip(facts.concepts, facts.domains, strict=True))
    assert novels.domains == tuple(domains.get(concept, "") for concept in novels.concepts)
    assert novels.subset(["cat", "dog"]).labels.sum() == 80


@pytest.mark.parametrize(
    ("ratings", "pairs"),
    [("simlex999_nouns", 419), ("simlex999_verbs", 188), ("simlex999_adjectives", 96), ("wordsim353", 153)],
)
def test_it_covers_rated_pairs(novels, ratings, pairs):
    concepts = set(novels.concepts)
    assert sum(concepts.issuperset(pair) for pair in el.load_ratings(ratings).pairs) == pairs


def test_its_page_lists_the_novels_and_none_that_is_protected(rows):
    listed = re.findall(r"^- (\w+): (\d+)$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert {name: int(count) for name, count in listed} == collections.Counter(row[3] for row in rows)
    assert all(int(name[-4:]) <= 1930 and not name.startswith("Forster") for name, _ in listed)
