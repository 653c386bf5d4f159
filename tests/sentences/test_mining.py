"""Sentences out of text: which are found, and how the choice among them is made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expertlens_jax.data.words import find_mentions
from expertlens_jax.errors import SelectionError
from expertlens_jax.sentences.acceptance import Limits, sentence_key
from expertlens_jax.sentences.mining import mine_sentences

LIMITS = Limits(3, 8)


def mine(lines, concepts=("cat", "dog"), *, most=5, seed=0):
    mined, found = mine_sentences(
        ((f"f:{i}", line) for i, line in enumerate(lines, 1)), concepts, LIMITS, most=most, seed=seed
    )
    return {concept: [each.sentence for each in own] for concept, own in mined.items()}, found


def test_sentences_are_found_with_their_places():
    lines = ['"A cat sat here. Nobody saw.', "The category was full. Two cats fought there", "Dogs bark at night!"]
    places = ((f"f:{i}", line) for i, line in enumerate(lines, 1))
    mined, found = mine_sentences(places, ["cat", "dog", "owl"], LIMITS, most=5, seed=0)
    assert {word: [(each.sentence, each.place) for each in own] for word, own in mined.items()} == {
        "cat": [("A cat sat here.", "f:1")],
        "dog": [("Dogs bark at night!", "f:3")],
        "owl": [],
    }
    assert found == {"cat": 1, "dog": 1, "owl": 0}


def test_the_rarer_concept_chooses_first():
    lines = ["The cat chased the dog."] + [f"Dog number {i} barked." for i in range(9)]
    for seed in range(5):
        mined, _ = mine(lines, ("dog", "cat"), seed=seed)
        assert mined["cat"] == ["The cat chased the dog."] and len(mined["dog"]) == 5
        assert mined["cat"][0] not in mined["dog"]


def test_the_choice_is_the_seeds():
    lines = [f"Cat number {i} slept." for i in range(300)]
    first, again, other = (mine(lines, ("cat",), seed=seed)[0]["cat"] for seed in (0, 0, 1))
    assert first == again != other
    # Of the same seed, fewer are the first of more.
    assert mine(lines, ("cat",), most=2)[0]["cat"] == first[:2]
    # And it is even: over seeds, early and late lines come alike.
    early = sum(
        int(sentence.split()[2]) < 150 for seed in range(30) for sentence in mine(lines, ("cat",), seed=seed)[0]["cat"]
    )
    assert 50 < early < 100  # of 150; four standard deviations of the binomial are 24


sentences = st.builds(
    " ".join, st.lists(st.sampled_from("cat dog Cats the a sat".split()), min_size=2, max_size=6)
).map(lambda text: text.capitalize() + ".")


@given(st.lists(sentences, max_size=30), st.randoms(use_true_random=False), st.integers(1, 4))
def test_order_and_repeats_change_nothing(lines, random, most):
    mined, found = mine(lines, most=most)
    keys = [sentence_key(sentence) for own in mined.values() for sentence in own]
    assert len(set(keys)) == len(keys)
    for concept, own in mined.items():
        assert len(own) <= most and find_mentions([concept], own).all()
        distinct = {sentence_key(s) for s in lines if find_mentions([concept], [s]).item() and 3 <= len(s.split())}
        assert len(own) >= min(most, len(distinct) - most)  # the other takes at most so many
    shuffled, _ = mine(random.sample(lines, len(lines)), most=most)
    assert {c: [*map(sentence_key, own)] for c, own in shuffled.items()} == {
        c: [*map(sentence_key, own)] for c, own in mined.items()
    }
    assert found["cat"] == sum(find_mentions(["cat"], [s]).item() for s in lines if len(s.split()) >= 3)


def test_none_at_all_is_refused():
    with pytest.raises(SelectionError, match="at most 0 sentences a concept were given"):
        mine([], most=0)
