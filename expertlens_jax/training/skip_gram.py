"""Word vectors from a user's text: word2vec's skip-gram with negative sampling, through gensim.

A model's experts are compared with what words alone say of one another, in the text that the model was trained on or
in any other (Mikolov et al. 2013, "Distributed representations of words and phrases and their
compositionality").
"""

import hashlib
import importlib.metadata
import inspect
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from etils import epath
from tqdm.auto import tqdm

from expertlens_jax.cards import counted
from expertlens_jax.data.words import split_words
from expertlens_jax.errors import CorpusError, ExpertLensError
from expertlens_jax.models.provenance import NUMBERS_VERSION
from expertlens_jax.training.corpus import read_lines

if TYPE_CHECKING:
    from gensim.models import KeyedVectors


def check_corpora(files: Sequence[epath.PathLike]) -> None:
    """Refuse what `train_word_vectors` would fail on, before anything else is done.

    Raises:
      CorpusError: a file isn't there.
      ExpertLensError: gensim isn't installed.
    """
    if not files:
        return
    try:
        import gensim.models  # noqa: F401
    except ImportError as error:
        raise ExpertLensError(
            "word vectors are trained with gensim: pip install 'expertlens-jax[vectors]' (Python 3.14 has none yet)."
        ) from error
    for file in files:
        if not epath.Path(file).is_file():
            raise CorpusError(
                f"there is no text file {file} to train word vectors on. Give UTF-8 text, a paragraph a line, plain "
                "or .xz."
            )


def train_word_vectors(
    files: Sequence[epath.PathLike],
    *,
    dimensions: int = 200,
    window: int = 5,
    negative: int = 5,
    epochs: int = 3,
    minimum_count: int = 5,
    seed: int = 0,
    progress: bool = False,
) -> "KeyedVectors":
    """Train word vectors, the same ones each time: by one worker, from a seed.

    Words are those of `data.words.split_words`: without case, punctuation, and the possessive 's.

    Args:
      files: UTF-8 text, plain or `.xz`, a paragraph a line; read anew for each epoch, and never whole in memory.
      dimensions: of a vector.
      window: how many words, at most, on either side of a word are its context.
      negative: words drawn for each that stands there.
      epochs: passes over the text.
      minimum_count: words that occur less often have no vector.
      seed: of the first vectors and of all draws.
      progress: shows a bar a pass.

    Returns:
      gensim's table of words, and vectors float32 `[words, dimensions]`.

    Raises:
      CorpusError: a file isn't there or can't be read, or no word occurs often enough.
      ExpertLensError: gensim isn't installed, or a number is below 1.

    >>> import expertlens_jax as el, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "text.txt"
    >>> _ = path.write_text("The cat sat on the mat. The dog sat there too.\\n" * 20)
    >>> vectors = el.training.train_word_vectors([path], dimensions=8, epochs=1)
    >>> "cat" in vectors, vectors["cat"].shape
    (True, (8,))
    """
    check_corpora(files)
    counts = {
        **{"dimensions": dimensions, "window": window, "negative": negative},
        **{"epochs": epochs, "minimum_count": minimum_count},
    }
    for name, value in counts.items():
        if value < 1:
            raise ExpertLensError(f"{name} of word vectors is {value}; wanted 1 or more")
    from gensim.models import Word2Vec

    paragraphs = _Paragraphs(files, epochs, progress)
    model = Word2Vec(
        vector_size=dimensions,
        window=window,
        negative=negative,
        min_count=minimum_count,
        sg=1,
        workers=1,  # several would race, and end with other vectors each time
        seed=seed,
    )
    model.build_vocab(paragraphs)
    if not len(model.wv):
        raise CorpusError(
            f"no word occurs {counted(minimum_count, 'time')} in {', '.join(map(str, files))}: there is nothing to "
            "train word vectors on. Give more text."
        )
    model.train(paragraphs, total_examples=model.corpus_count, epochs=epochs)
    return model.wv


_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(train_word_vectors).parameters.items()
    if name not in ("files", "progress")
}


def saved_word_vectors(
    files: Sequence[epath.PathLike], directory: epath.Path, *, progress: bool = False, **settings: int
) -> epath.Path:
    """Return the file of vectors trained on these texts; trained and written there first if it isn't there.

    Args:
      files: as in `train_word_vectors`, like `progress` and `settings`.
      directory: where the file lies; its name tells texts and settings apart, so other ones never pass for these.
      progress: shows bars.
      **settings: of the training.

    Returns:
      A `.kv` file, which `gensim.models.KeyedVectors.load` reads.

    Raises:
      CorpusError, ExpertLensError: see `train_word_vectors`.
    """
    check_corpora(files)
    versions = {"numbers_version": NUMBERS_VERSION, "gensim": importlib.metadata.version("gensim")}
    sha = hashlib.sha256(json.dumps(_DEFAULTS | settings | versions, sort_keys=True).encode())
    for file in files:
        with epath.Path(file).open("rb") as opened:
            sha.update(hashlib.file_digest(cast(Any, opened), "sha256").digest())
    path = epath.Path(directory) / f"word2vec_{sha.hexdigest()[:12]}.kv"
    if not path.exists():
        vectors = train_word_vectors(files, progress=progress, **settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as opened:  # a path would be several files, which can't appear together
            vectors.save(opened)
        partial.replace(path)
    return path


class _Paragraphs:
    """The text as gensim reads it, as often as it likes: each paragraph's words."""

    def __init__(self, files: Sequence[epath.PathLike], epochs: int, progress: bool) -> None:
        self.files, self.epochs, self.progress = files, epochs, progress
        self.passes, self.lines = 0, None

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        label = f"word vectors, epoch {self.passes} of {self.epochs}" if self.passes else "counting words"
        self.passes += 1
        with tqdm(total=self.lines, desc=label, unit=" lines", disable=not self.progress, mininterval=1) as bar:
            for file in self.files:
                for line in read_lines(file):
                    yield split_words(line)
                    bar.update()
            self.lines = bar.n or self.lines
