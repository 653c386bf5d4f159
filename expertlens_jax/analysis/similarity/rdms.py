"""Similarities as rsatoolbox's RDMs, and back.

An RDM holds dissimilarities. Of a similarity s that is 1 - s, which is Jaccard's distance of an overlap, and turns back
into it; of ratings, whose scale is their own, it is the highest rating less each.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from expertlens_jax.analysis.similarity.alignment import Alignment, concepts_along
from expertlens_jax.data.raters import Raters
from expertlens_jax.data.words import normal_name
from expertlens_jax.errors import ExpertLensError, SelectionError

if TYPE_CHECKING:
    import rsatoolbox


def to_rsatoolbox(x: xr.DataArray | Mapping[str, xr.DataArray] | Alignment | Raters) -> rsatoolbox.rdm.RDMs:
    """Return similarities of concepts as RDMs of rsatoolbox (https://github.com/rsagroup/rsatoolbox).

    Args:
      x: a similarity (concept, other), such as `el.jaccard` returns; several of the same concepts by name; an
        alignment, which makes two RDMs, the similarity's and the ratings', NaN where a pair isn't rated; or
        `expertlens_jax.data.raters.Raters`, an RDM each, NaN where one didn't rate a pair.

    Returns:
      RDMs whose pattern descriptors are `concept`, and `domain` where it is known; the RDM descriptor `name` tells them
      apart. Dissimilarity is 1 - similarity, and the highest rating less each.

    Raises:
      ExpertLensError: rsatoolbox isn't installed; a similarity isn't concepts x the same concepts; or several are of
        different concepts.
      SelectionError: something else was given, or nothing.

    >>> import expertlens_jax as el
    >>> import numpy as np, xarray as xr
    >>> near = 1 / (1 + np.abs(np.subtract.outer(np.arange(4.0), np.arange(4))))
    >>> names = {"concept": list("abcd"), "other": list("abcd")}
    >>> rdms = el.analysis.to_rsatoolbox(xr.DataArray(near, names, ("concept", "other"), name="closeness"))
    >>> rdms.n_rdm, rdms.n_cond, rdms.dissimilarities.round(2).tolist()
    (1, 4, [[0.5, 0.67, 0.75, 0.5, 0.67, 0.5]])
    """
    _check_installed()
    if isinstance(x, Alignment):
        if x.table.empty:
            raise SelectionError(f"this alignment with {x.ratings} has no rated pair of concepts, so there is no RDM.")
        columns = [1 - x.table["similarity"].to_numpy(float), _below_highest(x.table["rating"].to_numpy(float))]
        pairs = list(zip(x.table["word_1"], x.table["word_2"], strict=True))
        return _of_pairs(pairs, np.stack(columns), ["similarity", x.ratings])
    if isinstance(x, Raters):
        return _of_pairs(x.pairs, _below_highest(x.scores.T), list(x.raters))
    several = {str(x.name or "similarity"): x} if isinstance(x, xr.DataArray) else x
    if not isinstance(several, Mapping) or not several:
        raise SelectionError(
            f"{type(x).__name__} was given; wanted a similarity (concept, other), several by name, an alignment, or "
            "raters."
        )
    names = {name: concepts_along(each) for name, each in several.items()}
    first, concepts = next(iter(names.items()))
    for name, others in names.items():
        if others != concepts:
            raise ExpertLensError(f"{name} is of other concepts than {first}, or has them in another order.")
    descriptors = {"concept": concepts}
    similarity = several[first]
    if "domain" in similarity.coords:
        descriptors["domain"] = [str(domain) for domain in similarity["domain"].values]
    dissimilarities = np.stack([1 - np.asarray(each.values, np.float64) for each in several.values()])
    for matrix in dissimilarities:
        np.fill_diagonal(matrix, 0)  # whatever a similarity says there: a concept is like itself
    return _rdms(dissimilarities, list(several), descriptors)


def from_rsatoolbox(rdms: rsatoolbox.rdm.RDMs, index: int = 0, *, concept: str = "concept") -> xr.DataArray:
    """Return one of rsatoolbox's RDMs as a similarity that `el.align` and `el.analysis` take.

    Args:
      rdms: of any origin, such as people's or a brain's.
      index: which of them.
      concept: the pattern descriptor that names the concepts.

    Returns:
      float64 (concept, other), 1 - dissimilarity; with `domain`, where that is a pattern descriptor.

    Raises:
      SelectionError: no such RDM or descriptor, or a name that is there twice.

    >>> import expertlens_jax as el
    >>> import numpy as np, rsatoolbox
    >>> rdms = rsatoolbox.rdm.RDMs(np.array([[0.1, 0.9, 0.8]]), pattern_descriptors={"concept": ["cat", "dog", "car"]})
    >>> el.analysis.from_rsatoolbox(rdms).sel(concept="cat").values.round(2).tolist()
    [1.0, 0.9, 0.1]
    """
    if concept not in rdms.pattern_descriptors:
        raise SelectionError(
            f"these RDMs have no pattern descriptor {concept!r}; there are {', '.join(rdms.pattern_descriptors)}. Say "
            "which of them names the concepts: concept=..."
        )
    if not 0 <= index < rdms.n_rdm:
        raise SelectionError(f"index={index} was given; there are {rdms.n_rdm} RDMs, from 0 on.")
    names = [str(name) for name in rdms.pattern_descriptors[concept]]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SelectionError(f"the concept {twice[0]!r} is there {names.count(twice[0])} times; keep one of each name.")
    coordinates: dict[str, object] = {"concept": names, "other": names}
    if "domain" in rdms.pattern_descriptors and concept != "domain":
        coordinates["domain"] = ("concept", [str(domain) for domain in rdms.pattern_descriptors["domain"]])
    values = 1 - np.asarray(rdms.get_matrices()[index], np.float64)
    return xr.DataArray(values, coordinates, ("concept", "other"), name="similarity")


def _check_installed() -> None:
    if importlib.util.find_spec("rsatoolbox") is None:
        raise ExpertLensError("rsatoolbox isn't installed: pip install 'expertlens-jax[rsa]'.")


def _below_highest(scores: np.ndarray) -> np.ndarray:
    return np.nanmax(scores) - scores


def _of_pairs(pairs: Sequence[tuple[str, str]], values: np.ndarray, names: list[str]) -> rsatoolbox.rdm.RDMs:
    """RDMs of values `[rdms, pairs]` over all the words that any pair has; NaN elsewhere."""
    words = {normal_name(word): word for pair in pairs for word in pair}
    place = {word: i for i, word in enumerate(words)}
    matrices = np.full((len(values), len(words), len(words)), np.nan)
    matrices[:, range(len(words)), range(len(words))] = 0
    for column, pair in zip(values.T, pairs, strict=True):
        first, second = (place[normal_name(word)] for word in pair)
        matrices[:, first, second] = matrices[:, second, first] = column
    return _rdms(matrices, names, {"concept": list(words.values())})


def _rdms(matrices: np.ndarray, names: list[str], descriptors: dict[str, list[str]]) -> rsatoolbox.rdm.RDMs:
    import rsatoolbox  # takes seconds, and few need it

    # Above the diagonal, row by row, as rsatoolbox keeps them: its own conversion would warn of NaN.
    above = np.triu_indices(matrices.shape[1], 1)
    return rsatoolbox.rdm.RDMs(
        matrices[:, above[0], above[1]],
        dissimilarity_measure="1 - similarity",
        rdm_descriptors={"name": names},
        pattern_descriptors=descriptors,
    )
