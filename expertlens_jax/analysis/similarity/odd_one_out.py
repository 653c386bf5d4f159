"""Odd one out: of three things, does a similarity set the same one aside as a person did?"""

import dataclasses

import numpy as np
import xarray as xr

from expertlens_jax.analysis.similarity.alignment import check_similarity, concepts_along
from expertlens_jax.analysis.statistics import mean_over_triplets
from expertlens_jax.cards import counted
from expertlens_jax.data.things import Things
from expertlens_jax.data.words import normal_name
from expertlens_jax.errors import ExpertLensError

CHANCE = 1 / 3


@dataclasses.dataclass(frozen=True)
class OddOneOut:
    """How often a similarity agrees with people on the odd one out; by chance, in a third of the triplets.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> names = ["cat", "dog", "rice", "bread"]
    >>> alike = np.array([[1, 0.9, 0.1, 0.2], [0.9, 1, 0.2, 0.1], [0.1, 0.2, 1, 0.8], [0.2, 0.1, 0.8, 1]])
    >>> similarity = xr.DataArray(alike, dims=("concept", "other"), coords={"concept": names, "other": names})
    >>> things = el.Things(tuple(names), similarity, triplets=np.array([[0, 1, 2], [2, 3, 0], [0, 2, 1]]))
    >>> found = el.odd_one_out_accuracy(similarity, things)
    >>> found.triplets, found.concepts, round(found.accuracy, 2)
    (3, 4, 0.67)
    """

    triplets: int  # whose three objects are all concepts of the similarity
    concepts: int  # in them
    accuracy: float
    ci_low: float
    ci_high: float
    p_value: float  # two-sided, of accuracy 1/3


def odd_one_out_accuracy(similarity: xr.DataArray, things: Things) -> OddOneOut:
    """Measure in what share of triplets a similarity's odd one out is the person's.

    A similarity's odd one out is the one that isn't in the most similar of the three pairs (Zheng, Pereira, Baker
    & Hebart, "Revealing interpretable object representations from human behavior", ICLR 2019). Where two pairs, or
    all three, tie for most similar, the triplet counts as right by a half, or a third: what guessing would give.

    Args:
      similarity: [concept, other], symmetric, larger = more alike, as for `align`. Names are matched by
        `words.normal_name`; triplets with an object that isn't among its concepts are left out.
      things: from `load_things`.

    Returns:
      An `OddOneOut`; interval and p allow for triplets having objects in common (`statistics.mean_over_triplets`).

    Raises:
      ExpertLensError: the similarity doesn't fit, is NaN between objects of a triplet, or no triplet is left.

    >>> import expertlens_jax as el, numpy as np, xarray as xr
    >>> names = ["cat", "dog", "rice", "bread"]
    >>> alike = np.array([[1, 0.9, 0.1, 0.2], [0.9, 1, 0.2, 0.1], [0.1, 0.2, 1, 0.8], [0.2, 0.1, 0.8, 1]])
    >>> similarity = xr.DataArray(alike, dims=("concept", "other"), coords={"concept": names, "other": names})
    >>> things = el.Things(tuple(names), similarity, triplets=np.array([[0, 1, 2], [2, 3, 0], [0, 2, 1]]))
    >>> round(el.odd_one_out_accuracy(similarity, things).accuracy, 2)  # cat and rice aren't nearer than cat and dog
    0.67
    """
    concepts = concepts_along(similarity)
    row_of = {normal_name(concept): row for row, concept in enumerate(concepts)}
    if len(row_of) < len(concepts):
        raise ExpertLensError(
            "two of the similarity's concepts are the same except for capitals, composed accents, or hyphens; "
            "leave one of them out"
        )
    rows = np.array([row_of.get(normal_name(name), -1) for name in things.concepts])
    triplets = rows[things.triplets]
    triplets = triplets[(triplets >= 0).all(axis=1)]
    if not len(triplets):
        raise ExpertLensError(
            f"none of the {len(things.triplets)} triplets has all its three objects among the "
            f"{counted(len(concepts), 'concept')}, and {int((rows >= 0).sum())} of them are objects of THINGS"
        )
    used = np.unique(triplets)
    values = np.asarray(similarity.values, np.float64)
    check_similarity(values, concepts, used, "THINGS")
    first, second, odd = triplets.T
    kept, *others = values[first, second], values[first, odd], values[second, odd]
    most = np.maximum(*others)
    ties = (others[0] == kept).astype(int) + (others[1] == kept)
    right = np.where(kept >= most, 1 / (1 + ties), 0.0)
    above = mean_over_triplets(right - CHANCE, triplets)
    return OddOneOut(
        triplets=len(triplets),
        concepts=len(used),
        accuracy=above.value + CHANCE,
        ci_low=max(above.low + CHANCE, 0.0),
        ci_high=min(above.high + CHANCE, 1.0),
        p_value=above.p_value,
    )
