"""How many sentences does it take? Sizes of the positive set crossed with sizes of the negative set.

Of each pair of sizes experts are found twice, in two draws that share no positive, and no negative where there are
enough: what the two agree in is what so many sentences settle. Negatives are weighted to the same base rate whatever
their number, so that a threshold means the same in every cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.analysis.conditions.stability import compare_conditions
from expertlens_jax.analysis.tables import FindExperts, label
from expertlens_jax.cards import counted
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.subsample import draw_sentences
from expertlens_jax.errors import UnfitConceptsError
from expertlens_jax.experts.selection import select_experts
from expertlens_jax.models.model import Model


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """The experts of two draws of as many positives and negatives."""

    positives: int
    """Of each concept."""
    negatives: int
    """In the pool that all concepts share; what of it mentions a concept is none of its negatives."""
    tables: tuple[xr.Dataset, xr.Dataset]


def make_grid(
    model: Model,
    concepts: ConceptDataset,
    find: FindExperts,
    positives: Sequence[int],
    negatives: Sequence[int],
    *,
    seed: int = 0,
) -> Iterator[Cell]:
    """Find the experts of two draws for each number of positives and of negatives.

    `find` must leave out what mentions a concept (`exclude_mentions`, as by default).

    Args:
      model: whose experts are looked for.
      concepts: the whole set.
      find: makes each table.
      positives: numbers of sentences a concept.
      negatives: numbers of sentences in the negatives' pool.
      seed: of the draws.

    Raises:
      UnfitConceptsError: see `check_grid`.
    """
    check_grid(concepts, positives, negatives)
    for few in positives:
        for many in negatives:
            one, other = (find(model, draw_both(concepts, few, many, draw, seed=seed)) for draw in (0, 1))
            yield Cell(few, many, (one[["average_precision"]], other[["average_precision"]]))


def check_grid(concepts: ConceptDataset, positives: Sequence[int], negatives: Sequence[int]) -> None:
    """Check that there are enough sentences for two draws of every size.

    Raises:
      UnfitConceptsError: there aren't; the message names the concept, or how many negatives there are.
    """
    if concepts.own_negatives is not None:
        raise UnfitConceptsError(
            f"concepts of {concepts.name!r} have negatives of their own, which a grid of sizes would not draw from. "
            "Leave the grid out: --config.stability.grid_positives=()."
        )
    fewest = int(concepts.labels.sum(1).argmin())
    there = int(concepts.labels[fewest].sum())
    for number in positives:
        if not 1 <= number <= there // 2:
            raise UnfitConceptsError(
                f"stability.grid_positives hold {number}, and two draws want twice as many sentences of each concept; "
                f"{concepts.name!r} has {there} of {concepts.concepts[fewest]!r}. Give numbers from 1 to {there // 2}."
            )
    pool = int(_may_be_negatives(concepts).sum())
    for number in negatives:
        if not 2 <= number <= pool:
            raise UnfitConceptsError(
                f"stability.grid_negatives hold {number}; {concepts.name!r} has {counted(pool, 'sentence')} that may "
                f"be negatives. Give numbers from 2 to {pool}."
            )


def draw_both(concepts: ConceptDataset, positives: int, negatives: int, draw: int, *, seed: int = 0) -> ConceptDataset:
    """Return the set with so many sentences of each concept, and a pool of so many negatives for all.

    The pools of the two draws share no sentence as long as there are twice as many; of more, they share as few as can
    be. A larger pool of one draw holds the smaller ones. A concept's own sentences that weren't drawn may be in it, as
    negatives of others: they mention the concept, and so are none of its own.

    Args:
      concepts: the whole set.
      positives: of each concept.
      negatives: in the pool.
      draw: 0 or 1.
      seed: of the draws.
    """
    drawn = draw_sentences(concepts, positives, draw=draw, seed=seed)
    pool = np.random.default_rng([seed, len(concepts.sentences)]).permutation(
        np.flatnonzero(_may_be_negatives(concepts))
    )
    in_pool = np.zeros(len(concepts.sentences), bool)
    in_pool[pool[:negatives] if draw == 0 else pool[::-1][:negatives]] = True
    chosen = concepts.labels & np.isin(concepts.sentences, drawn.sentences)
    kept = in_pool | chosen.any(0)
    cut = concepts.keep_sentences(kept, f"{concepts.name}_{positives}_of_{negatives}_draw{draw}")
    return dataclasses.replace(cut, labels=chosen[:, kept], negative_pool=in_pool[kept])


def _may_be_negatives(concepts: ConceptDataset) -> np.ndarray:
    """Bool [sentences]: in the pool, and no concept's own without its word, which would pass for its negative."""
    return concepts.negative_pool & ~(concepts.labels & ~concepts.mentions()).any(0)


def describe_cell(
    cell: Cell,
    thresholds: Sequence[float],
    *,
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the two draws of a cell at each threshold.

    Returns:
      `compare_conditions`, after columns positives, negatives, threshold, concepts (how many) and experts (mean number
      per concept).
    """
    draws = {"resamples": resamples, "permutations": permutations, "seed": seed}
    parts = []
    for threshold in thresholds:
        sets = [select_experts(each, threshold=threshold) for each in cell.tables]
        source = {"positives": cell.positives, "negatives": cell.negatives, "threshold": threshold}
        source |= {"concepts": len(sets[0]), "experts": float(np.mean([each.sum("unit").mean() for each in sets]))}
        parts.append(label(compare_conditions(*sets, **draws), **source))
    return pd.concat(parts, ignore_index=True)
