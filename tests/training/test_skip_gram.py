"""Word vectors from text: the same each time, near where words stand in one another's places, and kept."""

import lzma
import os
import subprocess
import sys

import numpy as np
import pytest

from expertlens_jax.errors import CorpusError, ExpertLensError
from expertlens_jax.training import skip_gram
from expertlens_jax.training.skip_gram import check_corpora, saved_word_vectors, train_word_vectors

gensim = pytest.importorskip("gensim.models", reason="there is no wheel of gensim for Python 3.14")

SETTINGS = dict(dimensions=12, window=3, epochs=5, minimum_count=3)
# Two kinds of words, each with places of its own to stand in.
KINDS = {
    "The {} ate its FOOD and slept.": ("cat", "dog", "cow"),
    "We drove a {}'s wheel on roads": ("car", "bus", "van"),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rng = np.random.default_rng(0)
    frames = list(KINDS)
    lines = [frame.format(rng.choice(KINDS[frame])) for frame in (frames[i] for i in rng.integers(0, 2, 3000))]
    directory = tmp_path_factory.mktemp("corpus")
    (directory / "plain.txt").write_text("\n".join([*lines[:1500], "once only"]))
    (directory / "packed.txt.xz").write_bytes(lzma.compress("\n".join(lines[1500:]).encode()))
    return directory / "plain.txt", directory / "packed.txt.xz"


def test_words_that_stand_alike_are_alike_and_rare_ones_are_left_out(corpus):
    vectors = train_word_vectors(corpus, **SETTINGS)
    assert vectors["cat"].shape == (12,)
    within = [vectors.similarity(a, b) for words in KINDS.values() for a in words for b in words if a != b]
    between = [vectors.similarity(a, b) for a in ("cat", "dog", "cow") for b in ("car", "bus", "van")]
    assert min(within) > max(between)
    assert "once" not in vectors and "food" in vectors and "FOOD" not in vectors and "car's" not in vectors
    # All files are read: no word is in one of them alone often enough.
    counted = {word: vectors.get_vecattr(word, "count") for word in ("the", "we")}
    assert sum(counted.values()) == 3000


def test_it_is_skip_gram_as_gensim_trains_it(corpus):
    words = [line.lower().replace("'s", "").replace(".", "").split() for line in corpus[0].read_text().splitlines()]
    want = gensim.Word2Vec(
        words, vector_size=12, window=3, negative=7, epochs=2, min_count=3, sg=1, workers=1, seed=4
    ).wv
    got = train_word_vectors(corpus[:1], **SETTINGS | {"epochs": 2}, negative=7, seed=4)
    assert got.index_to_key == want.index_to_key
    np.testing.assert_array_equal(got.vectors, want.vectors)
    other = train_word_vectors(corpus[:1], **SETTINGS | {"epochs": 2}, negative=7, seed=5)
    assert np.abs(other.vectors - want.vectors).max() > 1e-3


@pytest.mark.long
def test_other_processes_train_the_same(corpus, tmp_path):
    vectors = []
    for hash_seed in "1", "2":  # the order of sets, and whatever else hangs on hashes of words
        script = (
            "import numpy as np; from expertlens_jax.training.skip_gram import train_word_vectors as train; "
            f"np.save({str(tmp_path / hash_seed)!r}, train({[str(file) for file in corpus]!r}, **{SETTINGS!r}).vectors)"
        )
        subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONHASHSEED": hash_seed})
        vectors.append(np.load(tmp_path / f"{hash_seed}.npy"))
    np.testing.assert_array_equal(*vectors)
    np.testing.assert_array_equal(vectors[0], train_word_vectors(corpus, **SETTINGS).vectors)


def test_they_are_kept_and_not_trained_again(corpus, tmp_path, monkeypatch):
    path = saved_word_vectors(corpus, tmp_path, **SETTINGS)
    assert [file.name for file in tmp_path.iterdir()] == [path.name] and path.suffix == ".kv"
    want = train_word_vectors(corpus, **SETTINGS)
    kept = gensim.KeyedVectors.load(str(path))
    assert kept.index_to_key == want.index_to_key
    np.testing.assert_array_equal(kept.vectors, want.vectors)
    trained = []
    monkeypatch.setattr(skip_gram, "train_word_vectors", lambda *args, **kwargs: trained.append(kwargs) or want)
    assert saved_word_vectors(corpus, tmp_path, **SETTINGS) == path and not trained
    # Other settings, and another text under the same name, are other vectors.
    assert saved_word_vectors(corpus, tmp_path, **SETTINGS | {"window": 2}) != path and len(trained) == 1
    changed = tmp_path / "changed" / "plain.txt"
    changed.parent.mkdir()
    changed.write_text(corpus[0].read_text() + "\nmore")
    assert saved_word_vectors([changed, corpus[1]], tmp_path, **SETTINGS) != path and len(trained) == 2


def test_progress_is_shown_a_pass(corpus, capsys):
    train_word_vectors(corpus, **SETTINGS | {"epochs": 2}, progress=True)
    said = capsys.readouterr().err
    for part in "counting words", "word vectors, epoch 1 of 2", "word vectors, epoch 2 of 2", "3001/3001":
        assert part in said
    assert "epoch 3" not in said
    train_word_vectors(corpus, **SETTINGS)
    assert not capsys.readouterr().err


def test_what_cannot_be_trained_on_is_refused(corpus, tmp_path, monkeypatch):
    with pytest.raises(CorpusError, match="no text file nowhere.txt to train word vectors on. Give UTF-8 text"):
        check_corpora([corpus[0], "nowhere.txt"])
    with pytest.raises(CorpusError, match="no word occurs 9,999 times in .*plain.txt: there is nothing to train"):
        train_word_vectors(corpus[:1], minimum_count=9999)
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(CorpusError, match="line 1 of .*latin.txt is not UTF-8"):
        train_word_vectors([tmp_path / "latin.txt"])
    with pytest.raises(ExpertLensError, match="epochs of word vectors is 0; wanted 1 or more"):
        train_word_vectors(corpus, epochs=0)
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(ExpertLensError, match=r"trained with gensim: pip install 'expertlens-jax\[vectors\]'"):
        check_corpora(corpus)
    check_corpora(())  # where none is wanted, none is missing
