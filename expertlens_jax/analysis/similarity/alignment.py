"""Alignment: how well a similarity between concepts goes with the similarity people see.

The measure is Spearman's rank correlation over the pairs that people rated and whose two words are both
concepts. How few those pairs are, and that they share words, is why it comes with an interval and a p-value
(`statistics.py`), and why it sometimes is no number at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.analysis.statistics import (
    Estimate,
    Statistic,
    bootstrap_over_concepts,
    jackknife_over_concepts,
    permutation_p,
    weighted_spearman,
)
from expertlens_jax.cards import Card, listed
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.data.words import normal_name
from expertlens_jax.errors import ExpertLensError

if TYPE_CHECKING:
    import rsatoolbox

MINIMUM_PAIRS = 10  # with fewer, a correlation says nothing: its 95% interval is wider than 1
MINIMUM_CONCEPTS = 5  # that so many pairs are of


@dataclasses.dataclass(frozen=True, repr=False)
class Alignment:
    """Spearman's correlation of a similarity with human ratings, or NaN and a `note` why there is none.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> names = [f"word{i}" for i in range(6)]
    >>> near = -np.abs(np.subtract.outer(np.arange(6.0), np.arange(6)))
    >>> similarity = xr.DataArray(near, dims=("concept", "other"), coords={"concept": names, "other": names})
    >>> pairs = tuple((names[i], names[j]) for i in range(6) for j in range(i))
    >>> ratings = el.Ratings("mine", pairs, near[np.tril_indices(6, -1)])
    >>> result = el.align(similarity, ratings, permutations=99)
    >>> result.pairs, round(result.spearman, 2), result.table.columns.tolist()
    (15, 1.0, ['word_1', 'word_2', 'rating', 'similarity'])
    """

    ratings: str
    pairs: int
    spearman: float
    ci_low: float
    ci_high: float
    p_value: float
    missing: tuple[str, ...]  # rated words that aren't concepts, sorted
    note: str  # "", or why there is no number
    table: pd.DataFrame = dataclasses.field(compare=False)  # word_1, word_2, rating, similarity

    def __str__(self) -> str:
        missing = f"{len(self.missing)} rated words are not concepts"
        if self.note:
            return f"{self.ratings}: no correlation: {self.note} ({missing})"
        p = np.format_float_positional(self.p_value, precision=2, fractional=False, trim="-")
        interval = f"[{self.ci_low:.2f}, {self.ci_high:.2f}]"
        return f"{self.ratings}: rho = {self.spearman:.2f} {interval}, p = {p}, {self.pairs} pairs ({missing})"

    def __repr__(self) -> str:
        return f"Alignment({self})"  # short: `missing` may be hundreds of words, and `table` as many rows

    def to_rsatoolbox(self) -> rsatoolbox.rdm.RDMs:
        """Return the similarity and the ratings as two RDMs, see `el.analysis.to_rsatoolbox`."""
        from expertlens_jax.analysis.similarity.rdms import to_rsatoolbox  # it imports this file

        return to_rsatoolbox(self)

    def _repr_html_(self) -> str:
        numbers = (
            {}
            if self.note
            else {
                "Spearman's ρ": f"{self.spearman:.2f}",
                "95% interval": f"{self.ci_low:.2f} to {self.ci_high:.2f}",
                "p": np.format_float_positional(self.p_value, precision=2, fractional=False, trim="-"),
            }
        )
        facts = numbers | {
            "no correlation": self.note,
            "pairs": f"{self.pairs:,}",
            "rated words that are no concepts": listed(self.missing, 8),
        }
        table = self.table.nlargest(5, "rating") if len(self.table) else None
        more = f"... of {len(self.table):,} pairs: .table" if len(self.table) > 5 else ""
        return Card(f"Alignment with {self.ratings}", facts, table, more).html()


@dataclasses.dataclass(frozen=True)
class RatedPairs:
    """The rated pairs both of whose words are concepts."""

    first: np.ndarray  # int64 [pairs], index of the pair's first word among the concepts
    second: np.ndarray  # int64 [pairs], of its second
    scores: np.ndarray  # float64 [pairs], mean human rating
    missing: tuple[str, ...]  # rated words that aren't concepts, sorted


def rated_pairs(concepts: Sequence[str], ratings: Ratings) -> RatedPairs:
    """Find the rated pairs whose two words are both among `concepts` [C].

    Names are matched by `words.normal_name`: capitals, how accents are composed, and whether there are spaces, hyphens
    or underscores between parts don't matter.

    A word rated against itself ("tiger, tiger" in WordSim-353) is left out: any similarity is right about
    that.

    Raises:
      ExpertLensError: two concepts are the same but for that, and the word is rated.
    """
    pairs = [(*map(normal_name, pair), score) for pair, score in zip(ratings.pairs, ratings.scores, strict=True)]
    words = {word for *pair, _ in pairs for word in pair}
    index = concept_places(concepts, words, ratings.name)
    found = [(index[a], index[b], score) for a, b, score in pairs if a in index and b in index and a != b]
    first, second, scores = zip(*found, strict=True) if found else ((), (), ())
    return RatedPairs(
        first=np.array(first, np.int64),
        second=np.array(second, np.int64),
        scores=np.array(scores, np.float64),
        missing=tuple(sorted(words - index.keys())),
    )


def concept_places(concepts: Sequence[str], words: Collection[str], ratings: str) -> dict[str, int]:
    """Return where each concept stands among `concepts` [C], by its `normal_name`.

    Args:
      concepts: their names.
      words: the rated ones, by their normal names.
      ratings: what the ratings are called, for errors.

    Raises:
      ExpertLensError: two concepts have one normal name, and the word is rated.
    """
    index: dict[str, int] = {}
    twice: dict[str, str] = {}
    for position, concept in enumerate(concepts):
        if index.setdefault(normal_name(concept), position) != position:
            twice[normal_name(concept)] = concept
    for word in sorted(set(words) & twice.keys()):
        raise ExpertLensError(
            f"{ratings} rates {word!r}, which may be the concept {concepts[index[word]]!r} or "
            f"{twice[word]!r}: ratings are matched without regard to capitals, to how accents are composed, and to "
            "spaces, hyphens and underscores; rename or leave out one of the two concepts"
        )
    return index


def align(
    similarity: xr.DataArray,
    ratings: Ratings,
    *,
    interval: Literal["jackknife", "bootstrap"] = "jackknife",
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> Alignment:
    """Correlate a similarity of concepts with human ratings of the same pairs of words.

    Args:
      similarity: [concept, other], symmetric, larger = more alike, with the same concepts along both dims:
        what `jaccard` and the other measures of overlap return. Its diagonal is not used.
      ratings: human ratings; words that aren't concepts are left out and listed in the result.
      interval: "jackknife", which leaves out one concept at a time and whose coverage is nearest to 95%, or
        "bootstrap", which resamples concepts and is wider; see `statistics.py`.
      resamples: draws of the bootstrap; the jackknife draws nothing.
      permutations: draws of the p-value's permutation of concepts.
      seed: of the draws.

    Returns:
      An `Alignment`. Its numbers are NaN, and its note says why, with fewer than 10 pairs, with all
        similarities the same (empty expert sets: every overlap 0), or with all ratings the same. Only its
        interval is NaN if there is no correlation without some one concept.

    Raises:
      ExpertLensError: the similarity isn't concepts x the same concepts, isn't symmetric to 1e-9, or is NaN
        for a pair of rated concepts; or an unknown interval.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> names = [f"word{i}" for i in range(6)]
    >>> near = -np.abs(np.subtract.outer(np.arange(6.0), np.arange(6)))
    >>> similarity = xr.DataArray(near, dims=("concept", "other"), coords={"concept": names, "other": names})
    >>> pairs = tuple((names[i], names[j]) for i in range(6) for j in range(i))
    >>> ratings = el.Ratings("mine", pairs, near[np.tril_indices(6, -1)])
    >>> el.align(similarity, ratings, permutations=99)
    Alignment(mine: rho = 1.00 [1.00, 1.00], p = 0.01, 15 pairs (0 rated words are not concepts))
    """
    check_interval(interval)
    rated, of_pairs = similarity_of_pairs(similarity, ratings)
    names = concepts_along(similarity)  # of str: what zarr reads back as text of any length, numpy can't cast
    table = pd.DataFrame(
        {
            "word_1": [names[i] for i in rated.first],
            "word_2": [names[i] for i in rated.second],
            "rating": rated.scores,
            "similarity": of_pairs,
        }
    )
    note = why_no_correlation(of_pairs, rated, ratings, len(similarity))
    nan = float("nan")
    estimate, p_value = Estimate(nan, nan, nan, nan), nan
    if not note:
        estimate = estimate_over_concepts(
            lambda weights: weighted_spearman(of_pairs, rated.scores, weights),
            rated,
            interval=interval,
            resamples=resamples,
            seed=seed,
        )
        p_value = permutation_p(
            np.asarray(similarity.values, np.float64),
            rated.scores,
            rated.first,
            rated.second,
            permutations=permutations,
            seed=seed,
        )
    return Alignment(
        ratings=ratings.name,
        pairs=len(of_pairs),
        spearman=estimate.value,
        ci_low=estimate.low,
        ci_high=estimate.high,
        p_value=p_value,
        missing=rated.missing,
        note=note,
        table=table,
    )


def similarity_of_pairs(similarity: xr.DataArray, ratings: Ratings) -> tuple[RatedPairs, np.ndarray]:
    """Return the rated pairs of a similarity's concepts, and its float64 [pairs] for them.

    Raises:
      ExpertLensError: as `align`.
    """
    concepts = concepts_along(similarity)
    values = np.asarray(similarity.values, np.float64)
    rated = rated_pairs(concepts, ratings)
    check_similarity(values, concepts, np.unique([rated.first, rated.second]), ratings.name)
    return rated, values[rated.first, rated.second]


def why_no_correlation(of_pairs: np.ndarray, rated: RatedPairs, ratings: Ratings, num_concepts: int) -> str:
    """Return why these similarities [pairs] have no correlation with their ratings worth a number, or ""."""
    scores = rated.scores
    if len(scores) < MINIMUM_PAIRS:
        return (
            f"{len(scores)} of the {len(ratings.pairs)} rated pairs have both words among the {num_concepts} "
            f"concepts, and a correlation needs at least {MINIMUM_PAIRS}"
        )
    if np.all(of_pairs == of_pairs[0]):
        empty = " (are the expert sets empty? lower the threshold)" if of_pairs[0] == 0 else ""
        return f"the similarity is {of_pairs[0]:g} for all {len(scores)} rated pairs{empty}"
    if np.all(scores == scores[0]):
        return f"the human rating is {scores[0]:g} for all {len(scores)} rated pairs"
    return ""


def check_interval(interval: str) -> None:
    """Refuse what is no kind of interval.

    Raises:
      ExpertLensError: it is neither "jackknife" nor "bootstrap".
    """
    if interval not in ("jackknife", "bootstrap"):
        raise ExpertLensError(f"interval is {interval!r}; there is 'jackknife' and 'bootstrap'")


def estimate_over_concepts(
    statistic: Statistic, rated: RatedPairs, *, interval: str, resamples: int, seed: int, correlation: bool = True
) -> Estimate:
    """Return a statistic over rated pairs with the asked-for kind of interval; `correlation` as for the jackknife."""
    if interval == "bootstrap":
        return bootstrap_over_concepts(statistic, rated.first, rated.second, resamples=resamples, seed=seed)
    return jackknife_over_concepts(statistic, rated.first, rated.second, correlation=correlation)


def concepts_along(similarity: xr.DataArray) -> list[str]:
    """Return the names along both dims, which must be the same.

    Raises:
      ExpertLensError: there are other dims, or they differ.
    """
    if similarity.dims != ("concept", "other"):
        raise ExpertLensError(
            f"the similarity has dims {similarity.dims}; align wants ('concept', 'other'), as el.jaccard returns it"
        )
    concepts = [str(name) for name in similarity["concept"].to_numpy()]
    if concepts != [str(name) for name in similarity["other"].to_numpy()]:
        raise ExpertLensError(
            "the similarity's coordinates 'concept' and 'other' differ; align wants the same concepts in the "
            "same order along both: select the same ones with similarity.sel(concept=names, other=names)"
        )
    return concepts


def check_similarity(values: np.ndarray, concepts: list[str], used: np.ndarray, ratings: str) -> None:
    """Refuse a similarity that isn't symmetric, or is NaN between concepts [used] that have ratings.

    Raises:
      ExpertLensError: it is one of these; the message names the two concepts.
    """
    asymmetric = ~np.isclose(values, values.T, rtol=0, atol=1e-9, equal_nan=True)
    if asymmetric.any():
        i, j = np.argwhere(asymmetric)[0]
        raise ExpertLensError(
            f"the similarity isn't symmetric: {concepts[i]!r} to {concepts[j]!r} is {values[i, j]:g}, and "
            f"back {values[j, i]:g}; people rated pairs without a direction: make it one number per pair, "
            "as with (similarity + similarity.T) / 2, if that is what it should mean"
        )
    undefined = np.isnan(values[np.ix_(used, used)])
    np.fill_diagonal(undefined, False)
    if undefined.any():
        i, j = used[np.argwhere(undefined)[0]]
        raise ExpertLensError(
            f"the similarity of {concepts[i]!r} and {concepts[j]!r}, both rated in {ratings}, is NaN; give "
            "it a value, or leave these concepts out"
        )
