"""What training keeps in a run directory: a tokenizer, tokens of text files, and revisions of the model."""

import hashlib
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import transformers
from etils import epath

from expertlens_jax.cards import counted
from expertlens_jax.errors import CorpusError
from expertlens_jax.models.digests import digest_tokenizer
from expertlens_jax.models.saving import save_model
from expertlens_jax.models.tokenizer import read_tokenizer
from expertlens_jax.training.corpus import Corpus, read_lines, tokenize_file
from expertlens_jax.training.pretrain import TrainState
from expertlens_jax.training.tokenizer import train_tokenizer


def saved_tokenizer(
    files: Sequence[str], directory: epath.Path, *, vocab_size: int, context: int, progress: bool = True
) -> Any:
    """Return the tokenizer that a directory holds; train it on text files and write it there first if it isn't there.

    Args:
      files: of text.
      directory: of the tokenizer.
      vocab_size: how many tokens.
      context: the longest text, in tokens.
      progress: print that one is trained.
    """
    if not (directory / "tokenizer_config.json").exists():
        if progress:
            print(f"Training a tokenizer of {vocab_size} tokens")
        lines = itertools.chain.from_iterable(map(read_lines, files))
        write_directory(directory, train_tokenizer(lines, vocab_size=vocab_size, max_tokens=context).save_pretrained)
    return read_tokenizer(Path(directory))


def text_digests(files: Sequence[str], tokenizer: Any) -> dict[str, Any]:
    """Return what tokens follow from: each text, by what its file is called, and the tokenizer.

    Raises:
      CorpusError: two texts of one name, so that one would be taken for the other.
    """
    digests: dict[str, str] = {}
    for path in files:
        name = corpus_name(path)
        if name in digests:
            raise CorpusError(f"corpus holds two files called {name}: {', '.join(files)}. Rename one.")
        with epath.Path(path).open("rb") as opened:
            digests[name] = hashlib.file_digest(cast(Any, opened), "sha256").hexdigest()
    return {"texts": digests, "tokenizer": digest_tokenizer(tokenizer)}


def corpus_name(path: str) -> str:
    """Return what a text file is called in tables: its name up to the first dot."""
    return epath.Path(path).name.partition(".")[0]


def saved_corpus(path: str, tokenizer: Any, context: int, directory: epath.Path) -> Corpus:
    """Return a text file's tokens, which a directory holds; write them there first if they aren't there.

    Raises:
      CorpusError: the text is shorter than a block.
    """
    name = corpus_name(path)
    file = directory / f"{name}.npy"
    if not file.exists():
        tokens = tokenize_file(tokenizer, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(file.name + ".partial")
        with partial.open("wb") as opened:
            np.save(opened, tokens)
        partial.replace(file)
    with file.open("rb") as opened:
        corpus = Corpus(name, np.load(opened), context)
    if not (~corpus.held_out).sum():
        raise CorpusError(f"{path} holds {counted(len(corpus.tokens), 'token')}, less than a block of {context + 1}.")
    return corpus


def save_revision(
    directory: epath.Path, state: TrainState, hf_config: transformers.PretrainedConfig, tokenizer: Any
) -> None:
    """Write a step's parameters as a Hugging Face directory, bfloat16, whole or not at all."""
    params = jax.device_get(state.params)
    write_directory(directory, lambda path: save_model(path, params, hf_config, tokenizer, dtype="bfloat16"))


def write_directory(directory: epath.Path, write: Callable[[Path], object]) -> None:
    """Let `write(path)` fill a local directory, and move it, whole, to where it belongs."""
    with tempfile.TemporaryDirectory() as local:
        write(Path(local) / "files")
        partial = directory.with_name(directory.name + ".partial")
        if partial.exists():
            partial.rmtree()
        partial.mkdir(parents=True)
        for file in (Path(local) / "files").iterdir():
            (partial / file.name).write_bytes(file.read_bytes())
        if directory.exists():
            directory.rmtree()
        partial.rename(directory)
