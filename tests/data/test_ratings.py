import contextlib
import hashlib
import importlib.util
import pathlib
import sys
import types
import zipfile

import numpy as np
import pytest

from expertlens_jax.analysis.similarity.alignment import rated_pairs
from expertlens_jax.data import gensim_wheel
from expertlens_jax.data.known_ratings import KNOWN
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
def test_known_files(name, num_pairs):
    # 353 less money/cash and bank/money, which are there twice, and tiger/tiger; 999 less strange/sly.
    ratings = load_ratings(name)
    assert ratings.name == name
    assert len({frozenset(pair) for pair in ratings.pairs}) == len(ratings.pairs) == num_pairs
    assert ratings.scores.shape == (num_pairs,)
    assert ratings.scores.dtype == np.float64
    assert ((0 <= ratings.scores) & (ratings.scores <= 10)).all()
    assert all(word == word.lower() for pair in ratings.pairs for word in pair)
    assert repr(ratings) == f"Ratings({name!r}: {num_pairs} pairs)"


def test_known_scores():
    ratings = load_ratings("wordsim353")
    assert ratings.pairs[0] == ("love", "sex")
    assert score(ratings, "love", "sex") == 6.77
    assert score(ratings, "money", "cash") == pytest.approx((9.15 + 9.08) / 2, abs=1e-12)
    assert score(ratings, "bank", "money") == pytest.approx((8.12 + 8.50) / 2, abs=1e-12)
    assert ("tiger", "tiger") not in ratings.pairs
    assert score(load_ratings("simlex999"), "old", "new") == 1.58


def test_the_parts_of_simlex_are_its_pairs_by_part_of_speech():
    whole = load_ratings("simlex999")
    parts = [load_ratings(f"simlex999_{name}") for name in ("adjectives", "nouns", "verbs")]
    assert [len(part.pairs) for part in parts] == [110, 666, 222]  # of the adjectives one pair is there twice
    assert [part.pairs[0] for part in parts] == [("old", "new"), ("wife", "husband"), ("go", "come")]
    assert sum((part.pairs for part in parts), ()) == whole.pairs
    np.testing.assert_array_equal(np.concatenate([part.scores for part in parts]), whole.scores)
    words = [{word for pair in part.pairs for word in pair} for part in parts]
    assert not words[0] & words[1] and not words[0] & words[2] and not words[1] & words[2]
    assert [(part.name, part.ceiling, part.ceiling_source) for part in parts][1] == ("simlex999_nouns", None, "")


def test_gensim_is_not_imported():
    before = set(sys.modules)
    load_ratings("simlex999")
    assert not {name for name in set(sys.modules) - before if name.startswith("gensim")}


def nothing_fetched(monkeypatch, tmp_path):
    """Neither gensim nor the web nor an earlier copy: only what the package holds."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("EXPERTLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EXPERTLENS_RATINGS_URL", "http://127.0.0.1:9")  # nobody listens
    return tmp_path / "cache" / "ratings"


def test_without_gensim_wordsim_ships_and_simlex_says_where_it_goes(monkeypatch, tmp_path):
    cache = nothing_fetched(monkeypatch, tmp_path)
    assert len(load_ratings("wordsim353").pairs) == 350
    message = r"'simlex999' aren't here, and couldn't be fetched.*SHA-256 405394ff\w+, at .*EN-SIMLEX-999.txt; or give"
    with pytest.raises(RatingsError, match=message):
        load_ratings("simlex999")
    bare = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: bare)
    with pytest.raises(RatingsError, match=message):  # a gensim without its test data
        load_ratings("simlex999")
    assert not cache.exists()


def test_wordsim_is_the_file_that_its_readme_names():
    human = pathlib.Path(gensim_wheel.__file__).parent / "human"
    digest = hashlib.sha256((human / "wordsim353.tsv").read_bytes()).hexdigest()
    assert digest == KNOWN["wordsim353"].sha256
    readme = (human / "README.md").read_text()
    assert digest in readme and "Creative Commons Attribution 4.0" in readme and "Finkelstein" in readme


@pytest.mark.skipif(importlib.util.find_spec("gensim") is None, reason="no wheel of gensim for Python 3.14")
def test_gensims_copy_of_simlex_does_from_a_wheel_that_is_not_installed(monkeypatch, tmp_path):
    """What `make demo` does where only a package registry can be reached: the wheel's one file goes into the cache."""
    installed = load_ratings("simlex999")
    spec = importlib.util.find_spec("gensim")
    held = pathlib.Path(spec.submodule_search_locations[0]) / "test" / "test_data" / "simlex999.txt"
    wheel = tmp_path / "gensim-4.4.0-cp313-cp313-manylinux_2_17_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("gensim/__init__.py", "raise ImportError")
        made.write(held, "gensim/test/test_data/simlex999.txt")
    cache = nothing_fetched(monkeypatch, tmp_path)
    gensim_wheel.unpack(tmp_path)
    found = load_ratings("simlex999")
    assert found.pairs == installed.pairs
    np.testing.assert_array_equal(found.scores, installed.scores)
    assert found.ceiling == 0.78
    (cache / "simlex999.txt").write_text("sun moon 1\n")
    with pytest.raises(RatingsError, match="'simlex999' aren't here"):  # a damaged copy isn't read
        load_ratings("simlex999")


def test_another_wheel_is_refused(monkeypatch, tmp_path):
    nothing_fetched(monkeypatch, tmp_path)
    with zipfile.ZipFile(tmp_path / "gensim-5.0-py3-none-any.whl", "w") as made:
        made.writestr("gensim/test/test_data/simlex999.txt", "sun moon 1\n")
    with pytest.raises(RatingsError, match=r"gensim-5.0-py3-none-any.whl: .*simlex999.txt .* wanted is d5e05019"):
        gensim_wheel.unpack(tmp_path)


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


def test_simlex_own_layout_is_read_and_the_rest_told(load):
    header = "word1\tword2\tPOS\tSimLex999\tconc(w1)\tconc(w2)\tconcQ\tAssoc(USF)\tSimAssoc333\tSD(SimLex)\n"
    rows = "old\tnew\tA\t1.58\t2.72\t2.81\t2\t7.25\t1\t0.41\nsmart\tintelligent\tA\t9.2\t1.75\t2.46\t1\t7.11\t1\t0.67\n"
    rows += "hard\tdifficult\tA\t8.77\t3.76\t2.21\t2\t5.94\t1\t1.19\n"
    with pytest.warns(
        ExpertLensWarning, match=r"aren't read: 'POS', .*'SD\(SimLex\)'.*'word1' and 'word2'.*'SimLex999'"
    ):
        ratings = load(header + rows)
    assert ratings.pairs == (("old", "new"), ("smart", "intelligent"), ("hard", "difficult"))
    np.testing.assert_array_equal(ratings.scores, [1.58, 9.2, 8.77])


@pytest.mark.parametrize(
    "text",
    [
        "a,b,N,1\nc,d,V,2\ne,f,N,3\n",
        "POS,word1,word2,Score,sd\nN,a,b,1,9\nN,c,d,2,9\nN,e,f,3,9\n",
        "a b N 1\nc d N 2\ne f N 3\n",
    ],
)
def test_further_columns_are_told(load, text):
    with pytest.warns(ExpertLensWarning, match="columns that aren't read: ") as caught:
        ratings = load(text)
    assert len(caught) == 1
    assert ratings.pairs == (("a", "b"), ("c", "d"), ("e", "f"))
    np.testing.assert_array_equal(ratings.scores, [1, 2, 3])


def test_semicolons_and_decimal_commas(load):
    ratings = load("Wort 1;Wort 2;Mittel\nice cream;cake;3,5\ncat;dog;7\nsun; moon ;1.25\n")
    assert ratings.pairs == (("ice cream", "cake"), ("cat", "dog"), ("sun", "moon"))
    np.testing.assert_array_equal(ratings.scores, [3.5, 7, 1.25])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a,b,1,0.5\nc,d,2,0.5\ne,f,3,0.5\n",
            "mine.txt:1: 4 columns, and 2 of them may be the rating: column 3, column 4",
        ),
        ("a,b,mean,sd\na,b,1,0.5\nc,d,2\ne,f,3,1\n", "mine.txt:3: wanted 4 columns, as the first line has"),
        ("a,b,x,y\na,b,u,v\n", "mine.txt:2: 4 columns, and 0 of them may be the rating"),
        ("a;b;1\nc;d;x\n", "mine.txt:2: the rating 'x' is not a number"),
        ("cat\tdog\t5\n".encode("utf-16"), "mine.txt: the file is UTF-16"),
    ],
)
def test_columns_that_cannot_be_told(load, text, message):
    with (
        pytest.raises(RatingsError, match=message),
        pytest.warns(ExpertLensWarning) if "sd" in str(text) else contextlib.nullcontext(),
    ):
        load(text)


def test_one_pair_in_two_spellings_is_one_pair(load):
    with pytest.warns(ExpertLensWarning, match="listed more than once"):
        ratings = load("ice cream,cake,4\ncake,ice-cream,2\ncafe\u0301,tea,1\ncaf\u00e9,cat,2\n")
    assert ratings.pairs[0] == ("ice cream", "cake") and ratings.scores[0] == 3


@pytest.mark.parametrize("name", ["ice cream", "Ice-Cream", "ice_cream"])
@pytest.mark.parametrize("rated", ["ice cream", "ice-cream", "ICE_CREAM"])
def test_names_match_ratings_whatever_their_spaces_and_hyphens(load, name, rated):
    rows = [(rated, "caf\u00e9", 1), (rated, "b", 2), ("b", "cafe\u0301", 3), ("b", "c", 4)]
    ratings = load("".join(f"{a}\t{b}\t{score}\n" for a, b, score in rows))
    pairs = rated_pairs([name, "cafe\u0301", "b", "c"], ratings)
    assert list(zip(pairs.first, pairs.second, pairs.scores, strict=True)) == [
        (0, 1, 1),
        (0, 2, 2),
        (2, 1, 3),
        (2, 3, 4),
    ]
    assert pairs.missing == ()
