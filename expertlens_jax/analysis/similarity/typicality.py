"""Typicality: does a concept share more with its category, the more typical of it people find it?

Rosch & Mervis, "Family resemblances" (Cognitive Psychology 7, 1975): a typical member shares much with the other
members. Within each category the ratings are correlated with what the concept shares with the category, which is
either its similarity to the category's own word (robin, bird), or its mean similarity to the other members.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr

from expertlens_jax.analysis.similarity.alignment import check_similarity, concept_places, concepts_along
from expertlens_jax.analysis.statistics import p_of_draws, resample_counts, spearman, weighted_spearman
from expertlens_jax.data.typicality import Typicality
from expertlens_jax.data.words import normal_name
from expertlens_jax.errors import SelectionError

SHARED_WITH = ("members", "word")
MINIMUM_CONCEPTS = 5  # of a category: of fewer, a correlation is one of few orders


def similarity_to_categories(similarity: xr.DataArray, ratings: Typicality, shared_with: str) -> pd.DataFrame:
    """Return what each rated concept shares with its category.

    Args:
      similarity: [concept, other], as for `align`.
      ratings: of typicality. Concepts that aren't among those of the similarity are left out; so are all of a category
        whose word isn't, for "word".
      shared_with: "members" or "word", see `align_typicality`.

    Returns:
      A row per rating that has both: `concept`, `category`, `rating`, `similarity`.

    Raises:
      ExpertLensError: as `align`.
    """
    names = concepts_along(similarity)
    values = np.asarray(similarity.values, np.float64)
    keys = [(normal_name(a), normal_name(b)) for a, b in zip(ratings.concepts, ratings.categories, strict=True)]
    words = {each for pair in keys for each in (pair if shared_with == "word" else pair[:1])}
    index = concept_places(names, words, ratings.name)
    members: dict[str, list[int]] = {}
    for concept, category in keys:
        if concept in index:
            members.setdefault(category, []).append(index[concept])
    rows = []
    for (concept, category), score in zip(keys, ratings.scores, strict=True):
        if concept not in index:
            continue
        place = index[concept]
        others = [each for each in members[category] if each != place]
        if shared_with == "word":
            others = [index[category]] if category in index else []
        if others:
            rows.append((names[place], category, float(score), place, others))
    used = np.unique([place for *_, place, others in rows for place in (place, *others)]).astype(int)
    check_similarity(values, names, used, ratings.name)
    return pd.DataFrame(
        [(concept, category, score, values[place, others].mean()) for concept, category, score, place, others in rows],
        columns=["concept", "category", "rating", "similarity"],
    )


def align_typicality(
    similarity: xr.DataArray,
    ratings: Typicality,
    *,
    shared_with: str = "members",
    minimum_concepts: int = MINIMUM_CONCEPTS,
    permutations: int = 10_000,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Correlate typicality with what concepts share with their category, category by category, and average.

    p permutes the ratings within each category, two-sided; intervals resample the concepts of each category, and have
    it that the categories are the ones there are. A concept that is rated in two categories counts in both.

    Args:
      similarity: [concept, other], as for `align`.
      ratings: of typicality.
      shared_with: "members", the concept's mean similarity to the category's other rated concepts; or "word", its
        similarity to the category's own word, which must be a concept then.
      minimum_concepts: the fewest rated concepts of a category that has a number of its own.
      permutations: draws of p.
      resamples: draws of the intervals.
      seed: of both.

    Returns:
      A row per category, then "mean" (of the categories' correlations, each counting once) and "pooled" (over all
      ratings, as if all categories were one): `scope`, `concepts`, `spearman`, `ci_low`, `ci_high`, `chance` (0),
      `p_value`, `note`, which says why there is no number. A category's own number has no interval. And the rated
      concepts: `concept`, `category`, `rating`, `similarity`.

    Raises:
      SelectionError: an unknown `shared_with`, or fewer than 3 minimum concepts.
      ExpertLensError: as `align`.
    """
    if shared_with not in SHARED_WITH:
        raise SelectionError(f"shared_with={shared_with!r} was given; wanted one of {', '.join(SHARED_WITH)}.")
    if minimum_concepts < 3:
        raise SelectionError(f"minimum_concepts={minimum_concepts} was given; wanted 3 or more.")
    rated = similarity_to_categories(similarity, ratings, shared_with)
    rows, counted = [], []
    for category in dict.fromkeys(map(normal_name, ratings.categories)):
        own = rated[rated["category"] == category]
        x, y = own["similarity"].to_numpy(float), own["rating"].to_numpy(float)
        row: dict[str, Any] = {"scope": category, "concepts": len(own), "note": ""}
        if shared_with == "word" and own.empty:
            row["note"] = "its word is no concept, or none of its members is"
        elif len(own) < minimum_concepts:
            row["note"] = f"{len(own)} of its rated members are concepts; wanted are {minimum_concepts}"
        elif np.isnan(rho := spearman(x, y)):
            row["note"] = "the similarity or the ratings are all the same"
        else:
            row |= {"spearman": rho, "p_value": _permuted([(x, y)], permutations, seed)}
            counted.append((x, y))
        rows.append(row)
    whole = (rated["similarity"].to_numpy(float), rated["rating"].to_numpy(float))
    enough = len(rated) >= minimum_concepts and not np.isnan(spearman(*whole))
    for scope, groups in (("mean", counted), ("pooled", [whole] if enough else [])):
        row: dict[str, Any] = {"scope": scope, "concepts": sum(len(x) for x, _ in groups), "note": ""}
        if groups:
            low, high = _resampled(groups, resamples, seed)
            row |= {"spearman": float(np.mean([spearman(*each) for each in groups])), "ci_low": low, "ci_high": high}
            row |= {"p_value": _permuted(groups, permutations, seed)}
        else:
            row["note"] = f"no category has {minimum_concepts} rated concepts, or they are all the same"
        rows.append(row)
    columns = ["scope", "concepts", "spearman", "ci_low", "ci_high", "chance", "p_value", "note"]
    return pd.DataFrame(rows, columns=columns).assign(chance=0.0), rated


_Groups = list[tuple[np.ndarray, np.ndarray]]


def _mean_over(groups: _Groups, draw: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the mean over categories of what a draw gives of each, `[draws]`; NaN where one has none."""
    return np.mean([draw(*each) for each in groups], axis=0)


def _permuted(groups: _Groups, permutations: int, seed: int) -> float:
    """Return the two-sided p of the mean correlation, ratings permuted within each category."""
    rng = np.random.default_rng(seed)

    def draw(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        ranks = [scipy.stats.rankdata(each) - (len(each) + 1) / 2 for each in (x, y)]
        shuffled = rng.permuted(np.tile(ranks[1], (permutations, 1)), axis=1)
        return shuffled @ ranks[0] / np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())

    observed = np.mean([spearman(*each) for each in groups])
    extreme = np.abs(_mean_over(groups, draw)) >= abs(observed) - 1e-12
    return float(p_of_draws(int(extreme.sum()), permutations))


def _resampled(groups: _Groups, resamples: int, seed: int) -> tuple[float, float]:
    """Return the 95% percentile interval of the mean correlation, from resampling each category's concepts."""
    rng = np.random.default_rng(seed)
    means = _mean_over(groups, lambda x, y: weighted_spearman(x, y, resample_counts(len(x), resamples, rng)))
    known = means[~np.isnan(means)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
