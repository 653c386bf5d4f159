"""Text files to blocks of tokens, and blocks to batches: which block is read when is a function of seed and step."""

import dataclasses
import functools
import lzma
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath
from tqdm.auto import tqdm

from expertlens_jax.cards import counted
from expertlens_jax.errors import CorpusError

BLOCKS_PER_SEGMENT = 8
HELD_OUT_EVERY = 100
"""Of every hundred segments (eight consecutive blocks each) one is held out and never trained on."""


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """The tokens of one text file, cut into blocks of `context + 1` tokens; neighbours share one.

    >>> import expertlens_jax as el, numpy as np
    >>> el.training.Corpus("mine", np.arange(100, dtype=np.uint16), context=4).read(np.array([0, 1])).tolist()
    [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]
    """

    name: str
    tokens: np.ndarray
    """uint16 or uint32 `[tokens]`."""
    context: int

    @functools.cached_property
    def held_out(self) -> np.ndarray:
        """bool `[blocks]`: True for those kept from training."""
        blocks = np.arange((len(self.tokens) - 1) // self.context)
        return blocks // BLOCKS_PER_SEGMENT % HELD_OUT_EVERY == HELD_OUT_EVERY - 1

    def read(self, blocks: np.ndarray) -> np.ndarray:
        """Return the tokens of blocks `[n]`, int32 `[n, context + 1]`."""
        return self.tokens[blocks[:, None] * self.context + np.arange(self.context + 1)].astype(np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """Several corpora, each read its own number of times an epoch.

    The order is a permutation of all blocks that differs by epoch, drawn from `seed`; nothing else is state, so
    a run that goes on from a step reads what it would have read.

    >>> import expertlens_jax as el, numpy as np
    >>> corpus = el.training.Corpus("mine", np.arange(100, dtype=np.uint16), context=4)
    >>> el.training.Mixture([corpus], passes=[2], seed=0).batch(step=3, rows=8).shape
    (8, 5)
    """

    corpora: Sequence[Corpus]
    passes: Sequence[int]
    """How often an epoch reads each corpus."""
    seed: int

    @functools.cached_property
    def _blocks(self) -> np.ndarray:
        """int `[blocks of an epoch, 2]`: (corpus, block)."""
        rows = []
        for i, (corpus, passes) in enumerate(zip(self.corpora, self.passes, strict=True)):
            blocks = np.tile(np.flatnonzero(~corpus.held_out), passes)
            rows.append(np.stack([np.full(len(blocks), i), blocks], axis=1))
        return np.concatenate(rows)

    @property
    def blocks_per_epoch(self) -> int:
        """How many blocks an epoch reads, repeats included."""
        return len(self._blocks)

    def batch(self, step: int, rows: int) -> np.ndarray:
        """Return the blocks of one training step.

        Args:
          step: counted from 0.
          rows: blocks a batch.

        Returns:
          int32 `[rows, context + 1]`.
        """
        places = step * rows + np.arange(rows)
        epochs, within = np.divmod(places, self.blocks_per_epoch)
        chosen = np.concatenate([self._order(int(epoch))[within[epochs == epoch]] for epoch in np.unique(epochs)])
        tokens = np.empty((rows, self.corpora[0].context + 1), np.int32)
        for i, corpus in enumerate(self.corpora):
            own = chosen[:, 0] == i
            tokens[own] = corpus.read(chosen[own, 1])
        return tokens

    @functools.lru_cache(maxsize=2)  # noqa: B019 - two epochs' orders, for the one mixture of a run
    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(self._blocks)


def read_lines(path: epath.PathLike) -> Iterator[str]:
    """Return the lines of a text file that aren't empty, without their ends; `.xz` is unpacked.

    Tab-separated fields are joined with ": ", so that a dictionary's line reads as text.

    Raises:
      CorpusError: no such file, not UTF-8, or damaged.

    >>> import expertlens_jax as el, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "text.txt"
    >>> _ = path.write_text("The cat sat.\\n\\ncat\\tan animal\\n")
    >>> list(el.training.read_lines(path))
    ['The cat sat.', 'cat: an animal']
    """
    path = epath.Path(path)
    if not path.is_file():
        raise CorpusError(
            f"there is no text file {path}. Give UTF-8 text, a paragraph or sentence a line, plain or .xz."
        )
    try:
        with path.open("rb") as raw, lzma.open(raw) if path.suffix == ".xz" else raw as file:
            for number, line in enumerate(file, start=1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip().replace("\t", ": ")
                if text:
                    yield text
    except UnicodeDecodeError as error:
        raise CorpusError(f"line {number} of {path} is not UTF-8 ({error.reason}). Convert the file first.") from error
    except (lzma.LZMAError, EOFError) as error:
        raise CorpusError(f"{path} can't be unpacked: {error}. Get it again.") from error


def tokenize_file(tokenizer: Any, path: epath.PathLike, *, lines_per_batch: int = 4096) -> np.ndarray:
    """Return all tokens of a text file, an end-of-text token after each line.

    Args:
      tokenizer: a fast Hugging Face tokenizer with an end-of-text token.
      path: see `read_lines`.
      lines_per_batch: how many lines are tokenized at a time.

    Returns:
      `[tokens]`, uint16 where the vocabulary fits, else uint32.

    Raises:
      CorpusError: the tokenizer has no end-of-text token, or ids beyond the number of its tokens, which is how many
        rows a new model's embedding has.

    >>> import expertlens_jax as el, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "text.txt"
    >>> _ = path.write_text("The cat sat.")
    >>> tokens = el.training.tokenize_file(el.load_model("lenslet-2m").tokenizer, path)
    >>> tokens.dtype, len(tokens) > 3
    (dtype('uint16'), True)
    """
    largest = max(tokenizer.get_vocab().values())
    if largest >= len(tokenizer):
        raise CorpusError(
            f"the tokenizer has {counted(len(tokenizer), 'token')} with ids up to {largest}; a model of as many has no "
            " embedding for those beyond. Give one whose ids have no holes, or leave --config.tokenizer out to "
            "train one."
        )
    if tokenizer.eos_token_id is None:
        raise CorpusError(
            "the tokenizer has no end-of-text token, which stands between texts. Set tokenizer.eos_token to a token of "
            "its vocabulary and save it again, or leave --config.tokenizer out to train one."
        )
    dtype = np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32
    parts: list[np.ndarray] = []
    batch: list[str] = []

    def flush() -> None:
        encoded = tokenizer(batch, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        parts.extend(np.array([*row, tokenizer.eos_token_id], dtype) for row in encoded)
        batch.clear()

    for line in tqdm(read_lines(path), desc=f"tokenizing {epath.Path(path).name}", unit="line", mininterval=1):
        batch.append(line)
        if len(batch) == lines_per_batch:
            flush()
    if batch:
        flush()
    return np.concatenate(parts) if parts else np.zeros(0, dtype)
