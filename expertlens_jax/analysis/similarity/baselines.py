"""Similarities of concepts to compare with the overlap of their experts.

Human-like structure that is already in the words of the sentences, or in any embedding of them, is no finding
about experts. So an alignment of expert sets is read next to the alignment of these. Each returns what the
measures of overlap return: float64 (concept, other), larger = more alike, with the concepts' domains.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import ConceptDataError, ExpertLensError


def cosine_of_embeddings(embeddings: np.ndarray, dataset: ConceptDataset) -> xr.DataArray:
    """Return the cosine similarity of the concepts' embeddings.

    Args:
      embeddings: float [concepts, d], one row per concept, in the dataset's order.
      dataset: names the concepts and their domains.

    Raises:
      ExpertLensError: another number of rows than of concepts; an embedding with a NaN or infinity, or all
        zeros.
    """
    embeddings = _float64(embeddings, len(dataset.concepts), "concepts", dataset)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    for concept, norm in zip(dataset.concepts, norms[:, 0], strict=True):
        if norm == 0:
            raise ExpertLensError(f"the embedding of {concept!r} is all zeros, so it has no cosine with any other")
        if not np.isfinite(norm):
            raise ExpertLensError(f"the embedding of {concept!r} holds NaN or infinity")
    directions = embeddings / norms
    return xr.DataArray(
        np.clip(directions @ directions.T, -1, 1),
        dims=("concept", "other"),
        coords={
            "concept": list(dataset.concepts),
            "other": list(dataset.concepts),
            "domain": ("concept", list(dataset.domains)),
        },
        name="cosine",
    )


def mean_sentence_embedding(embeddings: np.ndarray, dataset: ConceptDataset) -> np.ndarray:
    """Return the mean over each concept's positive sentences: float [sentences, d] to float64 [concepts, d].

    Raises:
      ExpertLensError: another number of rows than of sentences.
    """
    embeddings = _float64(embeddings, len(dataset.sentences), "sentences", dataset)
    # One matrix product; labels times a NaN or infinity of any other concept's sentence would be NaN.
    if not np.isfinite(embeddings).all():
        row = int(np.argwhere(~np.isfinite(embeddings))[0, 0])
        raise ExpertLensError(f"the embedding of the sentence {dataset.sentences[row]!r} holds NaN or infinity")
    return dataset.labels @ embeddings / dataset.labels.sum(axis=1, keepdims=True)


def tfidf_similarity(dataset: ConceptDataset) -> xr.DataArray:
    """Return the cosine similarity of the concepts' words, with no model at all: what the sentences alone give away.

    Each concept's positive sentences are one document. A document's weight for a word is (1 + ln tf) * idf,
    with idf = ln((1 + documents) / (1 + documents with the word)) + 1:
    `sklearn.feature_extraction.text.TfidfVectorizer` with `sublinear_tf=True` and all else at its default
    (lower-cased words of two or more characters, stop words kept). Without the logarithm, "the" and the
    concept's own word, which stands in every one of its sentences, drown the rest: Spearman with MEN falls
    from 0.60 to 0.30 on the sentence set "facts".

    Raises:
      ConceptDataError: no sentence holds a word of two or more letters.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    sentences = np.array(dataset.sentences, dtype=object)
    documents = [" ".join(sentences[positive]) for positive in dataset.labels]
    try:
        weights = TfidfVectorizer(sublinear_tf=True).fit_transform(documents)
    except ValueError as error:
        raise ConceptDataError(f"no words to compare in the sentences of {dataset.name!r}: {error}") from error
    return cosine_of_embeddings(weights.toarray(), dataset).rename("tfidf")


def _float64(embeddings: np.ndarray, rows: int, what: str, dataset: ConceptDataset) -> np.ndarray:
    embeddings = np.asarray(embeddings, np.float64)
    if embeddings.ndim != 2 or len(embeddings) != rows:
        raise ExpertLensError(
            f"embeddings have shape {list(embeddings.shape)}; {dataset.name!r} has {rows} {what}, so "
            f"[{rows}, d] is wanted, a row for each in the dataset's order"
        )
    return embeddings
