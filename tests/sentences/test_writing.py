"""Prompts filled in, answers read, and which of their sentences are taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertlens_jax.errors import ConceptDataError, SelectionError
from expertlens_jax.sentences.acceptance import (
    Limits,
    accept_sentences,
    refusal,
    sentence_key,
    split_sentences,
    trim_torn_quotes,
)
from expertlens_jax.sentences.concept_list import Concept, list_concepts, read_concept_list
from expertlens_jax.sentences.writing import (
    PROMPT_FIELDS,
    check_template,
    draw_seed,
    fill_openings,
    fill_prompt,
    read_continuations,
    read_list,
)

LIMITS = Limits(3, 8)


# Sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("A cat sat. It purred!  Did it?\nYes.", ["A cat sat.", "It purred!", "Did it?", "Yes."]),
        ('"Stop!" she cried. "Why?"', ['"Stop!" she cried.', '"Why?"']),
        (
            "Mr. Cat met J. S. Dog, e.g. there. So did I. We left",
            ["Mr. Cat met J. S. Dog, e.g. there.", "So did I.", "We left"],
        ),
        (
            "It cost 3.50 at 5 p.m. or (so they say.) “Well…” He left.",
            ["It cost 3.50 at 5 p.m. or (so they say.)", "“Well…”", "He left."],
        ),
        ("", []),
    ],
)
def test_prose_is_split(text, sentences):
    assert split_sentences(text) == sentences


@given(st.text("aA .!?\"'()…\n", max_size=60))
def test_splitting_loses_nothing_and_is_done_once(text):
    sentences = split_sentences(text)
    assert " ".join(sentences) == " ".join(text.split())
    assert all(sentence == " ".join(sentence.split()) and sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("sentence", "trimmed"),
    [
        ('"I saw a cat.', "I saw a cat."),
        ('I saw a cat."', "I saw a cat."),
        ('"Go," I said.', '"Go," I said.'),
        ("(A cat.", "A cat."),
        ("“A cat.", "A cat."),
        ("A cat.”", "A cat."),
    ],
)
def test_torn_quotes_are_trimmed(sentence, trimmed):
    assert trim_torn_quotes(sentence) == trimmed


@pytest.mark.parametrize(
    ("sentence", "reason"),
    [
        ("The cat sat here.", None),
        ("“Two cats!” he cried.", None),
        ("The category was there.", "lacks the word"),
        ("The cat sat", "unfinished"),
        ("Here are sentences about cats:", "unfinished"),
        ("the cat sat here.", "begins in the middle"),
        ("The cat sat. It slept.", "several sentences"),
        ("A cat.", "too short"),
        ("The cat sat on a mat by the door.", "too long"),
        ("The cat\ud800 sat here.", "unprintable characters"),
    ],
)
def test_reasons_to_refuse(sentence, reason):
    assert refusal(sentence, "cat", LIMITS) == reason


def test_duplicates_are_told_by_their_words():
    candidates = ["The cat sat here.", "THE CAT sat, here!", "The cat's sat here.", "A dog and  a cat."]
    accepted, refused = accept_sentences(candidates, "cat", LIMITS, {"a dog and a cat"})
    assert list(accepted.values()) == ["The cat sat here."] and refused == {"duplicate": 3}


words = st.sampled_from("cat cats dog the The sat It, Mr a".split())
candidates = st.lists(
    st.builds(
        lambda words, end: " ".join(words) + end,
        st.lists(words, min_size=1, max_size=10),
        st.sampled_from([".", "!", '."', ""]),
    ),
    max_size=8,
)


@given(candidates, st.randoms(use_true_random=False), st.sets(st.sampled_from(["the cat sat", "cat"])))
def test_accepting_is_idempotent_and_its_set_has_no_order(sentences, random, taken):
    accepted, refused = accept_sentences(sentences, "cat", LIMITS, taken)
    assert accept_sentences(accepted.values(), "cat", LIMITS, taken) == (accepted, {})
    assert len(accepted) + refused.total() == len(sentences)
    assert all(key == sentence_key(sentence) for key, sentence in accepted.items())
    shuffled = random.sample(sentences, len(sentences))
    assert accept_sentences(shuffled, "cat", LIMITS, taken)[0].keys() == accepted.keys()
    assert not accept_sentences(sentences, "cat", LIMITS, accepted.keys() | taken)[0]


@pytest.mark.parametrize(("least", "most"), [(0, 5), (6, 5)])
def test_limits_that_nothing_meets(least, most):
    with pytest.raises(SelectionError, match=f"sentences of {least} to {most} words were given"):
        Limits(least, most)


# Answers


@pytest.mark.parametrize(
    ("answer", "items"),
    [
        ("1. A cat.\n2) Two cats.\n(3) Three.\n10: Ten.", ["A cat.", "Two cats.", "Three.", "Ten."]),
        ("Sure! Here you are:\n\n- A cat.\n* Two cats.\n• Three.\nMore cats?", ["A cat.", "Two cats.", "Three."]),
        ('1. "A cat."\n2. “Two cats”.\n3. "Go," he said, "cat."', ["A cat.", "Two cats.", '"Go," he said, "cat."']),
        ("1. ‘A cat's paw.’\n2. 'The cat's paw.'", ["A cat's paw.", "The cat's paw."]),
        (
            "**1.** A **cat** sat.\n2. *A `cat` slept.*\n3. 2 * 3 * 4 cats.",
            ["A cat sat.", "A cat slept.", "2 * 3 * 4 cats."],
        ),
        ('```json\n[\n"A cat.",\n"Two cats."\n]\n```', ["A cat.", "Two cats."]),
        ("A cat.\nTwo cats.", ["A cat.", "Two cats."]),
        ("<think>\n1. No.\n</think>\n1. A cat.", ["A cat."]),
        ("<think>\n1. No.", []),
        ("As a model of language I can't write about cats.", []),
        ("", []),
    ],
)
def test_lists_are_read(answer, items):
    assert read_list(answer) == items


@given(st.text())
def test_reading_survives_any_answer(answer):
    for candidates in read_list(answer), read_continuations(answer):
        accepted, _ = accept_sentences(candidates, "cat", LIMITS)
        assert all(sentence.isprintable() and "\t" not in sentence for sentence in accepted.values())


def test_continuations_are_read():
    assert read_continuations('The cat sat." And so\nA cat') == ["The cat sat.", "And so", "A cat"]


# Prompts


def test_prompts_are_filled():
    template = "{count} of {concept}{sense}, {min_words}-{max_words}"
    given = {"count": 9, "limits": LIMITS, "sense": " ({domain})", "again": " not\n{sentences}"}
    assert fill_prompt(template, "bat", "animal", **given) == "9 of bat (animal), 3-8"
    assert fill_prompt(template, "animal", "animal", **given) == "9 of animal, 3-8"
    assert fill_prompt(template, "bat", "", known=["A {bat}.", "B."], **given) == "9 of bat, 3-8 not\nA {bat}.\nB."


def test_openings_take_turns():
    assert fill_openings(["The {concept}", "A {concept}"], "cat", 3) == "The cat\nA cat\nThe cat"


@pytest.mark.parametrize("template", ["about {word}", "{count} sentences", "about {concept", "{concept} {}"])
def test_templates_that_cannot_be_filled(template):
    with pytest.raises(SelectionError, match=r"prompts.facts is .* wanted text with \{concept\}; the fields are"):
        check_template("prompts.facts", template, PROMPT_FIELDS, "concept")


def test_every_question_has_its_own_seed():
    seeds = {draw_seed(0, kind, word, i) for kind in ("facts", "stories") for word in ("cat", "dog") for i in range(50)}
    assert len(seeds) == 200 and all(0 <= seed < 2**31 for seed in seeds)
    assert draw_seed(0, "facts", "cat", 0) == draw_seed(0, "facts", "cat", 0) != draw_seed(1, "facts", "cat", 0)


# Lists of concepts


@pytest.mark.parametrize(
    ("text", "concepts"),
    [
        ("cat\nice cream\n", [Concept("cat"), Concept("ice cream")]),
        ("cat\tanimal\n\npear\n", [Concept("cat", "animal"), Concept("pear")]),
        ("Domain\tConcept\nanimal\tcat\n", [Concept("cat", "animal")]),
        ("\ufeffconcept\ncat", [Concept("cat")]),
    ],
)
def test_concepts_from_a_file(tmp_path, text, concepts):
    file = tmp_path / "concepts.txt"
    file.write_text(text)
    assert read_concept_list(file) == concepts


def test_the_packaged_concepts():
    concepts = read_concept_list("facts")
    assert len(concepts) == 176 and Concept("cat", "animal") in concepts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are no concepts"),
        ("cat\nCat\n", "the concepts 'cat' and 'Cat' are the same word"),
        ("cat\n...\n", "the concept '...' has no word"),
        ("domain\tconcept\nanimal\n", "the concept '' has no word"),
        ("cat\tanimal\tnoun\tmore\n", "concepts.txt:1: 4 fields separated by tabs; wanted concept and domain"),
        ("cat\tanimal\tmore\n", "concepts.txt:1: no part of speech 'more'; give noun, verb, adjective, or '' for any"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, text, message):
    file = tmp_path / "concepts.txt"
    file.write_text(text)
    with pytest.raises(ConceptDataError, match=message):
        read_concept_list(file)


def test_lists_that_are_not_there():
    with pytest.raises(ConceptDataError, match=r"no file 'absent.txt' of concepts; give a text file"):
        read_concept_list("absent.txt")
    with pytest.raises(ConceptDataError, match="there are no concepts"):
        list_concepts([])
