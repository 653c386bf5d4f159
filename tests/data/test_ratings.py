import importlib.util
import sys
import types

import numpy as np
import pytest

from expertlens_jax.data.ratings import load_ratings
from expertlens_jax.errors import ExpertLensWarning, RatingsError

THREE = "cat\tdog\t5\ncat\tcar\t1\nsun\tmoon\t3.5\n"


@pytest.fixture
def load(tmp_path):
    def load(text, name="mine.txt"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_ratings(path)

    return load


def score(ratings, *pair):
    return ratings.scores[ratings.pairs.index(pair)]


@pytest.mark.parametrize(("name", "num_pairs"), [("wordsim353", 350), ("simlex999", 998)])
def test_gensims_files(name, num_pairs):
    # 353 less money/cash and bank/money, which are there twice, and tiger/tiger; 999 less strange/sly.
    ratings = load_ratings(name)
    assert ratings.name == name
    assert len({frozenset(pair) for pair in ratings.pairs}) == len(ratings.pairs) == num_pairs
    assert ratings.scores.shape == (num_pairs,)
    assert ratings.scores.dtype == np.float64
    assert ((0 <= ratings.scores) & (ratings.scores <= 10)).all()
    assert all(word == word.lower() for pair in ratings.pairs for word in pair)
    assert repr(ratings) == f"Ratings({name!r}: {num_pairs} pairs)"


def test_gensims_scores():
    ratings = load_ratings("wordsim353")
    assert ratings.pairs[0] == ("love", "sex")
    assert score(ratings, "love", "sex") == 6.77
    assert score(ratings, "money", "cash") == pytest.approx((9.15 + 9.08) / 2, abs=1e-12)
    assert score(ratings, "bank", "money") == pytest.approx((8.12 + 8.50) / 2, abs=1e-12)
    assert ("tiger", "tiger") not in ratings.pairs
    assert score(load_ratings("simlex999"), "old", "new") == 1.58


def test_gensim_is_not_imported():
    before = set(sys.modules)
    load_ratings("simlex999")
    assert not {name for name in set(sys.modules) - before if name.startswith("gensim")}


def test_without_gensim(monkeypatch, tmp_path):
    message = r"not installed: pip install 'expertlens-jax\[demo\]', or give the path"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RatingsError, match=message):
        load_ratings("wordsim353")
    bare = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: bare)
    with pytest.raises(RatingsError, match="'simlex999' is read from gensim's test data, which lacks it"):
        load_ratings("simlex999")


@pytest.mark.parametrize(
    "text",
    [
        THREE,
        "\ufeff" + THREE,
        THREE.replace("\n", "\r\n"),
        "# a comment\n\nWord 1\tWord 2\tHuman (mean)\n" + THREE,
        "word1,word2,SimLex999\n" + THREE.replace("\t", ","),
        THREE.replace("\t", "  "),
        "Cat, dog, 5\n cat\tCAR\t1.0\n\n# sun\nsun moon 3.5",
        '"cat","dog",5\ncat,\tcar,\t1\nsun\tmoon 35e-1\n',
        "cat-n dog-n 5\ncat-n car-n 1\nsun-n moon-v 3.5\n",
        THREE + "tiger\tTiger\t10\n",
    ],
)
def test_any_separator(load, text):
    ratings = load(text)
    assert ratings.name == "mine"
    assert ratings.pairs == (("cat", "dog"), ("cat", "car"), ("sun", "moon"))
    np.testing.assert_array_equal(ratings.scores, [5, 1, 3.5])


def test_words_of_several_parts(load):
    ratings = load("ice cream\tcake\t4\nhot dog,ice cream,3\nfish, hot dog, 2\n", name="scores")
    assert ratings.name == "scores"
    assert ratings.pairs == (("ice cream", "cake"), ("hot dog", "ice cream"), ("fish", "hot dog"))


def test_suffix_stays_where_not_every_word_has_one(load):
    assert load("vitamin-n cat 5\n" + THREE).pairs[0] == ("vitamin-n", "cat")


def test_repeated_pairs_are_averaged_with_one_warning(load):
    with pytest.warns(ExpertLensWarning, match=r"mine.txt: .*averaged: 2 of 3, the first cat/dog") as caught:
        ratings = load(THREE + "Dog\tcat\t2\nmoon\tsun\t4.5\ncat\tdog\t2\n")
    assert len(caught) == 1
    assert ratings.pairs == (("cat", "dog"), ("cat", "car"), ("sun", "moon"))
    np.testing.assert_array_equal(ratings.scores, [3, 1, 4])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (THREE + "cat dog\n", r"mine.txt:4: wanted two words and a number, .* not 'cat dog'"),
        (THREE + "cat dog fish 3\n", "mine.txt:4: wanted two words"),
        (THREE + "cat,,3\n", "mine.txt:4: wanted two words"),
        (THREE + "cat dog 3,5\n", "mine.txt:4: wanted two words"),
        (THREE + "\n#\ncat dog high\n", "mine.txt:6: the rating 'high' is not a number"),
        ("cat\tdog\t7.2x\n" + THREE, "mine.txt:1: the rating '7.2x' is not a number"),
        ("a b score\nc d score\n" + THREE, "mine.txt:2: the rating 'score' is not a number"),
        ("cat dog nan\n" + THREE, "mine.txt:1: the rating 'nan' is not finite"),
        (THREE + "cat dog -inf\n", "mine.txt:4: the rating '-inf' is not finite"),
        (b"cat dog 3\ncaf\xe9 bar 3\n", "mine.txt:2: byte 0xe9"),
        ("", "mine.txt: 0 pairs"),
        (
            "cat dog 3\ncat car 2\ndog cat 1\ncat cat 9\n",
            "mine.txt: 2 pairs of different words, but at least 3",
        ),
    ],
)
def test_errors_name_file_and_line(load, text, message):
    with pytest.raises(RatingsError, match=message):
        load(text)


def test_unknown_name_lists_the_known():
    with pytest.raises(RatingsError, match=r"no ratings 'wordsim': .*wordsim353, simlex999"):
        load_ratings("wordsim")
