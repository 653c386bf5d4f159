"""Text to tokens to batches: nothing lost, held-out text never read, and the order a function of seed and step."""

import lzma

import numpy as np
import pytest

from expertlens_jax.errors import CorpusError
from expertlens_jax.training.corpus import (
    BLOCKS_PER_SEGMENT,
    HELD_OUT_EVERY,
    Corpus,
    Mixture,
    read_lines,
    tokenize_file,
)
from expertlens_jax.training.tokenizer import END_OF_TEXT, train_tokenizer

LINES = ["The cat sat on the mat; naïve café — ☃.", "", "noun\tcat\ta small animal", "  the dog and the cat  "]
CONTEXT = 4


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(LINES * 3, vocab_size=280, max_tokens=16)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\ufeff" + "\n".join(LINES), encoding="utf-8")
    return path


def corpus(num_blocks: int, name: str = "numbers", first: int = 0) -> Corpus:
    """A corpus whose tokens are consecutive numbers, so that a block tells which it is."""
    return Corpus(name, np.arange(first, first + num_blocks * CONTEXT + 1).astype(np.uint32), CONTEXT)


def test_a_tokenizer_writes_any_text_and_adds_nothing(tokenizer):
    assert tokenizer.eos_token_id == 0 and tokenizer.eos_token == END_OF_TEXT
    for text in [*LINES, "日本語 Ω", " two  spaces"]:
        ids = tokenizer(text)["input_ids"]
        assert 0 not in ids and tokenizer.decode(ids) == text
    assert len(tokenizer) <= 280 and len(tokenizer("the cat")["input_ids"]) < len("the cat")


def test_files_are_read_line_by_line_plain_or_packed(file, tmp_path):
    want = [LINES[0], "noun: cat: a small animal", "the dog and the cat"]
    assert list(read_lines(file)) == want
    packed = tmp_path / "text.txt.xz"
    packed.write_bytes(lzma.compress(file.read_bytes()))
    assert list(read_lines(packed)) == want


@pytest.mark.parametrize("lines_per_batch", [1, 4096])
def test_all_lines_become_tokens_each_with_an_end(tokenizer, file, lines_per_batch):
    tokens = tokenize_file(tokenizer, file, lines_per_batch=lines_per_batch)
    assert tokens.dtype == np.uint16
    assert tokenizer.decode(tokens) == "".join(line + END_OF_TEXT for line in read_lines(file))


def test_bad_files_are_named(tmp_path):
    with pytest.raises(CorpusError, match=r"no text file .*absent.txt. Give UTF-8 text"):
        list(read_lines(tmp_path / "absent.txt"))
    (tmp_path / "latin.txt").write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(CorpusError, match=r"line 2 of .*latin.txt is not UTF-8"):
        list(read_lines(tmp_path / "latin.txt"))
    (tmp_path / "broken.xz").write_bytes(lzma.compress(b"text\n" * 1000)[:-30])
    with pytest.raises(CorpusError, match=r"broken.xz can't be unpacked"):
        list(read_lines(tmp_path / "broken.xz"))


def test_an_epoch_reads_each_block_as_often_as_asked_and_never_the_held_out():
    size = BLOCKS_PER_SEGMENT * HELD_OUT_EVERY * 2
    first, second = corpus(size), corpus(50, "more", first=10**6)
    assert first.held_out.sum() == 2 * BLOCKS_PER_SEGMENT and not second.held_out.any()
    mixture = Mixture((first, second), (1, 3), seed=0)
    rows = 34
    assert mixture.blocks_per_epoch == size - 2 * BLOCKS_PER_SEGMENT + 150 and mixture.blocks_per_epoch % rows == 0
    for epoch in range(2):
        steps = range(epoch * mixture.blocks_per_epoch // rows, (epoch + 1) * mixture.blocks_per_epoch // rows)
        read = np.concatenate([mixture.batch(step, rows) for step in steps])
        np.testing.assert_array_equal(read, read[:, :1] + np.arange(CONTEXT + 1))  # whole blocks
        starts, counts = np.unique(read[:, 0], return_counts=True)
        want = np.concatenate([np.flatnonzero(~first.held_out), np.arange(50) + 10**6 // CONTEXT]) * CONTEXT
        np.testing.assert_array_equal(starts, want)
        np.testing.assert_array_equal(counts, np.where(starts < 10**6, 1, 3))


def test_a_batch_depends_on_seed_and_step_alone():
    blocks = (corpus(500),)
    one = Mixture(blocks, (1,), seed=0)
    want = [one.batch(step, 7) for step in range(200)]  # across epochs
    other = Mixture(blocks, (1,), seed=0)
    np.testing.assert_array_equal(other.batch(150, 7), want[150])
    np.testing.assert_array_equal(other.batch(3, 7), want[3])
    assert not np.array_equal(Mixture(blocks, (1,), seed=1).batch(3, 7), want[3])
    assert not np.array_equal(want[0], one.batch(500, 7))  # another epoch's order
