"""Nouns, verbs and adjectives by form and neighbours; and which sentences of books are whole, plain prose."""

import pytest

import expertlens_jax as el
from expertlens_jax.data.words import place_finder
from expertlens_jax.errors import ConceptDataError, SelectionError
from expertlens_jax.sentences.acceptance import flaw_of_prose
from expertlens_jax.sentences.concept_list import list_rated_words, read_concept_list
from expertlens_jax.sentences.parts_of_speech import Fit, fits


@pytest.mark.parametrize(
    ("word", "part", "sentence", "fit"),
    [
        ("smell", "noun", "The smell of hay filled the barn.", Fit.SURE),
        ("smell", "noun", "They smell of hay.", Fit.NO),
        ("smell", "noun", "He began to smell the hay.", Fit.NO),
        ("smell", "noun", "He smelt the hay.", Fit.NO),
        ("man", "noun", "Three of the men were late.", Fit.SURE),
        ("fight", "noun", "They fought all night.", Fit.NO),
        ("fighting", "noun", "In fighting that lust he fell.", Fit.NO),
        ("grace", "noun", "He met Grace in the garden.", Fit.NO),
        ("may", "noun", "She may come.", Fit.NO),
        ("mark", "noun", "It left a mark.", Fit.SURE),
        ("dog", "noun", "The old dog was asleep.", Fit.SURE),
        ("door", "noun", "A door-keeper stood there.", Fit.NO),
        ("horse", "noun", "It was the king's horse.", Fit.SURE),
        ("light", "noun", "It was a light blue.", Fit.MAY_BE),
        ("fall", "verb", "You will fall.", Fit.SURE),
        ("fall", "verb", "He had a fall.", Fit.NO),
        ("fall", "verb", "It was his last fall.", Fit.NO),
        ("leave", "verb", "She left the room.", Fit.SURE),
        ("leave", "verb", "They turned to left and right.", Fit.NO),
        ("leave", "verb", "He raised her left hand.", Fit.NO),
        ("build", "verb", "The building was old.", Fit.NO),
        ("build", "verb", "They were building a wall.", Fit.SURE),
        ("rise", "verb", "The sun rose.", Fit.MAY_BE),
        ("rise", "verb", "He picked the rose.", Fit.NO),
        ("happy", "adjective", "The happy child laughed.", Fit.SURE),
        ("happy", "adjective", "She was very happy.", Fit.SURE),
        ("cold", "adjective", "The cold was bitter.", Fit.NO),
        ("clean", "adjective", "He tried to clean it.", Fit.NO),
        ("old", "adjective", "He was older than she.", Fit.SURE),
    ],
)
def test_a_word_is_what_its_form_and_neighbours_make_it(word, part, sentence, fit):
    found = [fits(sentence, start, end, word, part) for _, start, end in place_finder([word])(sentence)]
    assert max(found) is fit


@pytest.mark.parametrize(
    ("sentence", "flaw"),
    [
        ('"Stop!" she cried.', None),
        ("“Well,” he said, “no.”", None),
        ("'I try to strengthen my mind.'", None),
        ("\"He said 'no',\" she replied.", None),
        ("It's the dogs' tails.", None),
        ('He left in 1850 (a bad year), and read "The Times".', None),
        ('Oh, Boy," said Miss Charteris; "I wish you were small.', "torn quotes"),
        ("“Well,” he said, no.”", "torn quotes"),
        ("He came (late.", "torn quotes"),
        ('"I have been in hell "', "torn quotes"),
        ("Bang! thud ! and the ox fell.", "a gap"),
        ("CHAPTER THE FIRST.", "a heading"),
        ("SO MUCH FOR SERAPHINE!", "a heading"),
        ("He saw it _himself_.", "marks"),
        ("The book[1] is old.", "marks"),
        ("I told 'em all.", "torn quotes"),  # or dialect: a quote and an apostrophe look alike
        ("It hath been a cold night.", "dialect"),
        ("The owd man knowed it.", "dialect"),
    ],
)
def test_what_is_no_whole_plain_prose_is_told(sentence, flaw):
    assert flaw_of_prose(sentence) == flaw


BOOKS = {
    "Eliot_Adam_1859": ["They smell of hay.", "There was Grace, with a mark of ink.", "The smell of hay was sweet."],
    "Hardy_Tess_1891": ["Mark saw that the smell was gone.", "The smell came back to him.", "A smell hung in the air."],
}
LINES = [line for name, lines in BOOKS.items() for line in (f"# {name}", *lines)]


def test_books_are_named_and_give_no_more_than_their_share():
    smell = el.sentences.Concept("smell", "", "noun")
    found = el.sentences.mine(LINES, [smell], per_concept=3, min_words=4, per_book=2).table
    assert (
        dict(zip(found["sentence"], found["source"], strict=True)).items()
        <= {
            line: name for name, lines in BOOKS.items() for line in lines if "smell" in line and "They" not in line
        }.items()
    )
    assert found["source"].value_counts().to_dict() == {"Eliot_Adam_1859": 1, "Hardy_Tess_1891": 2}
    one = el.sentences.mine(LINES, [smell], per_concept=2, min_words=4, per_book=1).table
    assert set(one["source"]) == set(BOOKS)


def test_a_name_is_no_word_where_a_part_of_speech_is_asked_for():
    found = el.sentences.mine(LINES, [el.sentences.Concept("mark", "", "noun")], per_concept=1, min_words=4)
    assert found.table["sentence"].tolist() == ["There was Grace, with a mark of ink."]


def test_prose_leaves_torn_sentences_out():
    lines = ['"A cat sat here." "A cat " he said.', "The cat sat on the CHAPTER ONE page."]
    found = el.sentences.mine(lines, ["cat"], per_concept=1, min_words=3, prose=True)
    assert found.table["sentence"].tolist() == ['"A cat sat here."']


def test_rated_words_have_their_ratings_part_of_speech(tmp_path):
    nouns, verbs = tmp_path / "nouns.tsv", tmp_path / "verbs.tsv"
    nouns.write_text("cat\tdog\t1\ncat\tchurch\t2\ndog\tchurch\t3\n")
    verbs.write_text("eat\tdrink\t1\neat\tcat\t2\ndrink\tcat\t3\n")
    parts = {str(nouns): "noun", str(verbs): "verb"}
    found = list_rated_words(parts, exceptions={"church": "adjective"}, domains_from="facts")
    assert [(each.word, each.domain, each.part_of_speech) for each in found] == [
        *[("cat", "animal", "noun"), ("church", "building", "adjective"), ("dog", "animal", "noun")],
        *[("drink", "drink", "verb"), ("eat", "", "verb")],
    ]
    with pytest.raises(SelectionError, match="'owl' is none of the words that .*nouns.tsv, .*verbs.tsv rate"):
        list_rated_words(parts, exceptions={"owl": "noun"})


def test_what_is_no_part_of_speech_is_refused(tmp_path):
    with pytest.raises(SelectionError, match="no part of speech 'adverb'; give noun, verb, adjective"):
        el.sentences.Concept("well", "", "adverb")
    listed = tmp_path / "concepts.tsv"
    listed.write_text("concept\tpart_of_speech\ncat\tnoun\nwell\tadverb\n")
    with pytest.raises(ConceptDataError, match="concepts.tsv:3: no part of speech 'adverb'"):
        read_concept_list(listed)
    listed.write_text("concept\tpart_of_speech\ncat\tnoun\n")
    assert read_concept_list(listed) == [el.sentences.Concept("cat", "", "noun")]


def test_a_negative_share_of_a_book_is_refused():
    with pytest.raises(SelectionError, match="at most -1 sentences a book were given"):
        el.sentences.mine(LINES, ["smell"], per_book=-1)
