"""Static word vectors to hold against experts: any word2vec, GloVe or fastText file."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from etils import epath

from expertlens_jax.analysis.similarity.baselines import cosine_of_embeddings
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import ExpertLensError


def check_word_vectors(paths: Sequence[epath.PathLike]) -> None:
    """Refuse what `word_vector_similarity` would fail on, before the work whose result it would be compared with.

    Raises:
      ExpertLensError: a file isn't there, or gensim isn't installed.
    """
    if not paths:
        return
    try:
        import gensim.models  # noqa: F401
    except ImportError as error:
        raise ExpertLensError(
            "word vectors are read with gensim: pip install 'expertlens-jax[vectors]' (Python 3.14 has none yet)."
        ) from error
    for path in paths:
        if not epath.Path(path).is_file():
            raise ExpertLensError(
                f"there is no file of word vectors {path}; give word2vec's text or binary, or gensim's."
            )


def word_vector_similarity(path: epath.PathLike, dataset: ConceptDataset) -> xr.DataArray:
    """Return the cosine similarity of the concepts' word vectors, of those concepts that have one.

    Args:
      path: a file that gensim reads: word2vec's text (`.txt`, `.vec`, with or without its header, so GloVe's too) or
        binary (`.bin`), or vectors that gensim saved (`.kv`, `.model`).
      dataset: names the concepts; several words are the mean of theirs. A word that isn't there as it is written is
        looked up without its capitals.

    Returns:
      float64 (concept, other), over the concepts with vectors.

    Raises:
      ExpertLensError: gensim isn't installed, the file isn't there or can't be read, or fewer than two concepts have
        a vector.
    """
    check_word_vectors([path])
    from gensim.models import KeyedVectors, Word2Vec

    path = epath.Path(path)
    try:
        match path.suffix:
            case ".kv":
                vectors = KeyedVectors.load(str(path))
            case ".model":
                vectors = Word2Vec.load(str(path)).wv
            case ".bin":
                vectors = KeyedVectors.load_word2vec_format(str(path), binary=True)
            case _:
                with path.open() as opened:
                    header = len(opened.readline().split()) == 2
                vectors = KeyedVectors.load_word2vec_format(str(path), binary=False, no_header=not header)
    except (ValueError, EOFError, UnicodeDecodeError, KeyError, AttributeError, IndexError) as error:
        raise ExpertLensError(f"{path} holds no word vectors that gensim can read ({error}).") from error
    found, rows = [], []
    for concept in dataset.concepts:
        words = [word if word in vectors else word.casefold() for word in concept.split()]
        if all(word in vectors for word in words):
            found.append(concept)
            rows.append(np.mean([vectors[word] for word in words], axis=0))
    if len(found) < 2:
        raise ExpertLensError(f"{path} has vectors for {len(found)} of the {len(dataset.concepts)} concepts.")
    return cosine_of_embeddings(np.stack(rows), dataset.subset(found)).rename("word_vectors")
