"""What ranking is asked, as arrays: which sentences count for and against which concepts, in groups of a size.

Made once from contrasts, they serve every block of units. Several contrasts over the same sentences are answered
from one sort: the concepts, sets of permuted labels, each half of the sentences. Those that differ by the weight of a
negative alone, as base rates do, are also answered from the same counts.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from expertlens_jax.data.contrast import Contrast
from expertlens_jax.errors import ResponsesError

POSITIVE, REMOVED, ADDED, PAD = range(4)
"""The kinds of a concept's entries: its positives; sentences taken out of the pool, or put into it, for it; none."""

# Counts are kept in float32, where integers are exact up to here.
_MOST_SENTENCES = 2**24
# Concepts are padded to the widest of their group, and are grouped so that it's at most twice as wide, or this.
_NARROW = 64
# Corrections are padded to powers of two, from this: so concepts that differ little share a compiled program.
_FEWEST_OTHERS = 8


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        *("positives", "others", "other_kinds", "own_in_pool", "per_negative", "num_positives", "num_negatives"),
        *("low", "high", "per_low", "per_high", "stretches", "per_fraction", "per_place"),
    ],
    meta_fields=["contrasts", "removes_only"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Concepts of a contrast, C of them, whose entries (positives and corrections) are about as many.

    Sentences are places among the ranked ones; pads are the place after the last.
    """

    contrasts: tuple[int, ...]
    """Which of the contrasts: W of them, which differ by the weights of negatives alone."""
    removes_only: bool
    """Every entry is taken out of the pool: no sentence is added, and the pool holds all positives."""
    positives: np.ndarray  # int32 [C, P]
    others: np.ndarray  # int32 [C, O], the corrected sentences besides positives that the pool holds
    other_kinds: np.ndarray  # int32 [C, O]: REMOVED, ADDED, PAD
    own_in_pool: np.ndarray  # int32 [C], 1 where the pool holds the positives, which then aren't negatives
    per_negative: np.ndarray  # float32 [W, C], how many negatives weigh as much as a positive in each contrast
    num_positives: np.ndarray  # int32 [C]
    num_negatives: np.ndarray  # int32 [C]
    # What would be multiplied and then added is divided by a reciprocal instead, for the same bytes on all devices:
    # compilers round a product and a sum once or twice as they like.
    # Where the quantiles of the positives lie, strongest first: between places `low` and `high`.
    low: np.ndarray  # int32 [2, C]
    high: np.ndarray  # int32 [2, C]
    per_low: np.ndarray  # float32 [2, C], 1 / share of `low`
    per_high: np.ndarray  # float32 [2, C], and of `high`
    # The negatives in as many equal stretches as there are positives, strongest first.
    stretches: np.ndarray  # int32 [P + 1, C], whole negatives before each; the last is the place of the weakest
    per_fraction: np.ndarray  # float32 [P + 1, C], 1 / what part of the next one
    per_place: np.ndarray  # float32 [P + 1, C], 1 / both together


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["sentences", "in_pool", "groups", "rows"],
    meta_fields=["num_all", "pool_size", "transport", "scores"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class ConceptSets:
    """Contrasts as ranking reads them. The first is measured in every way, the others' average precision alone."""

    sentences: np.ndarray  # int32 [T], those ranked
    num_all: int  # how many sentences there are
    pool_size: int  # of the first contrast
    transport: bool  # whether its slopes of the linear transport are measured
    scores: tuple[str, ...]  # which of `settings.MORE_SCORES` are
    # Of each contrast, bool [T], or None if the pool is all of them, or that of an earlier contrast, by whose counts it
    # is answered.
    in_pool: tuple[np.ndarray | None, ...]
    groups: tuple[Group, ...]
    rows: tuple[np.ndarray, ...]  # of each contrast, int32 [its concepts], where each is in its groups one by one

    @property
    def num_concepts(self) -> tuple[int, ...]:
        """Of each contrast."""
        return tuple(map(len, self.rows))

    @property
    def numbers_per_unit(self) -> int:
        """How many numbers of 4 bytes a unit takes at the peak of its ranking, about."""
        entries = [group.positives.size + group.others.size for group in self.groups]
        return 6 * len(self.sentences) + 2 * sum(entries) + 10 * max(entries, default=0)


def concept_sets(
    contrast: Contrast, *precision_only: Contrast, transport: bool = True, scores: Sequence[str] = ()
) -> ConceptSets:
    """Return the arrays that ranking needs of contrasts over the same sentences: made once, they serve every block.

    Args:
      contrast: measured in every way.
      precision_only: of these, average precision is measured.
      transport: whether the first's slopes of the linear transport are measured too.
      scores: which of `settings.MORE_SCORES` are measured of the first too.

    Raises:
      ResponsesError: more sentences than float32 can count, or contrasts over different numbers of them.
    """
    contrasts = (contrast, *precision_only)
    num_all = contrast.pool.size
    if num_all >= _MOST_SENTENCES:
        raise ResponsesError(
            f"{num_all} sentences; counts are exact for fewer than {_MOST_SENTENCES}. "
            "Rank fewer sentences, or fewer concepts (and their sentences) at a time."
        )
    for each in precision_only:
        if each.pool.size != num_all:
            raise ResponsesError(
                f"contrasts over {num_all} and over {each.pool.size} sentences can't be ranked together; make both "
                "from the same sentences."
            )
    ranked = np.zeros(num_all + 1, bool)  # the last is what a pad, -1, marks
    for each in contrasts:
        ranked[:-1] |= each.pool
        ranked[each.positives] = True
        ranked[each.corrected] = True
    sentences = np.flatnonzero(ranked[:-1]).astype(np.int32)
    place = np.full(num_all + 1, sentences.size, np.int32)
    place[sentences] = np.arange(sentences.size)
    groups: list[Group] = []
    rows, pools = [np.empty(0, np.int32)] * len(contrasts), [None] * len(contrasts)
    for alike in _counted_alike(contrasts):
        first, each = next(iter(alike.items()))
        pools[first] = None if each.pool[sentences].all() else each.pool[sentences]
        members, of_contrasts = _grouped(alike, place)
        groups += of_contrasts
        one_by_one = np.argsort(np.concatenate([*members, []])).astype(np.int32)
        for number in alike:
            rows[number] = one_by_one
    return ConceptSets(
        sentences, num_all, int(contrast.pool.sum()), transport, tuple(scores), tuple(pools), tuple(groups), tuple(rows)
    )


def _counted_alike(contrasts: Sequence[Contrast]) -> list[dict[int, Contrast]]:
    """Return the contrasts by their numbers, those together that differ by the weights of negatives alone."""
    found: dict[tuple, dict[int, Contrast]] = {}
    for number, each in enumerate(contrasts):
        counted = (each.positives, each.pool, each.corrected, each.corrections)
        found.setdefault(tuple((array.shape, array.tobytes()) for array in counted), {})[number] = each
    return list(found.values())


def _grouped(alike: Mapping[int, Contrast], place: np.ndarray) -> tuple[list[np.ndarray], list[Group]]:
    """Concepts of contrasts that are counted alike, in groups of about as many entries: which, and their arrays."""
    contrast = next(iter(alike.values()))
    own_in_pool, others, kinds = _own_positives_apart(contrast)
    num_positives, num_others = contrast.num_positives, np.array([len(each) for each in others], int)
    entries = num_positives + num_others
    members: list[list[int]] = []
    for concept in np.argsort(-entries, kind="stable").tolist():
        widest = entries[members[-1][0]] if members else 0
        if not members or widest > max(_NARROW, 2 * entries[concept]):
            members.append([])
        members[-1].append(concept)
    return [np.array(each) for each in members], [
        _group(alike, place, np.array(each), own_in_pool, [others[c] for c in each], [kinds[c] for c in each])
        for each in members
    ]


def _group(
    alike: Mapping[int, Contrast],
    place: np.ndarray,
    concepts: np.ndarray,
    own_in_pool: np.ndarray,
    others: list[np.ndarray],
    kinds: list[np.ndarray],
) -> Group:
    """Return the arrays of some concepts of contrasts that are counted alike."""
    contrast = next(iter(alike.values()))
    weights = np.stack([each.negative_weight[concepts] for each in alike.values()])
    num_positives, num_negatives = contrast.num_positives[concepts], contrast.num_negatives[concepts]
    width = int(num_positives.max())
    most = max(map(len, others))
    shape = len(concepts), max(_FEWEST_OTHERS, 1 << (most - 1).bit_length()) if most else 0
    sentences, other_kinds = np.full(shape, -1, np.int32), np.full(shape, PAD, np.int32)
    for row, (mine, kind) in enumerate(zip(others, kinds, strict=True)):
        sentences[row, : len(mine)], other_kinds[row, : len(mine)] = mine, kind
    ascending = np.array([[0.5], [0.9]]) * (num_positives - 1)  # where numpy.quantile looks
    low, high = (num_positives - 1 - each(ascending).astype(int) for each in (np.floor, np.ceil))
    # Stretch j begins at j N / P: whole, and a fraction of the next.
    begins = np.minimum(np.arange(width + 1)[:, None], num_positives) * num_negatives
    stretches, fractions = begins // num_positives, begins % num_positives / num_positives
    stretches[-1], fractions[-1] = num_negatives - 1, 0
    return Group(
        contrasts=tuple(alike),
        removes_only=bool(own_in_pool[concepts].all() and not (other_kinds == ADDED).any()),
        positives=place[contrast.positives[concepts, :width]],
        others=place[sentences],
        other_kinds=other_kinds,
        own_in_pool=own_in_pool[concepts].astype(np.int32),
        per_negative=(1 / weights.astype(np.float64)).astype(np.float32),
        num_positives=num_positives.astype(np.int32),
        num_negatives=num_negatives.astype(np.int32),
        low=low.astype(np.int32),
        high=high.astype(np.int32),
        per_low=_reciprocal(1 - ascending % 1),
        per_high=_reciprocal(ascending % 1),
        stretches=stretches.astype(np.int32),
        per_fraction=_reciprocal(fractions),
        per_place=_reciprocal(stretches + fractions),
    )


def _reciprocal(numbers: np.ndarray) -> np.ndarray:
    """float32; infinity for 0."""
    with np.errstate(divide="ignore"):
        return (1 / np.asarray(numbers, np.float64)).astype(np.float32)


def _own_positives_apart(contrast: Contrast) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Tell the corrections that take a concept's own positives out of the pool from its few others.

    Returns:
      bool [C], whether the positives were in the pool; of each concept, the other corrected sentences, and REMOVED
      or ADDED for each.
    """
    own_in_pool = np.zeros(len(contrast.positives), bool)
    others, kinds = [], []
    for row, positives in enumerate(contrast.positives):
        corrected, corrections = contrast.corrected[row], contrast.corrections[row]
        real = (corrected >= 0) & (corrections != 0)
        own = np.isin(corrected, positives[positives >= 0]) & (corrections == -1)
        own_in_pool[row] = own.sum() == (positives >= 0).sum()
        left = real & ~own if own_in_pool[row] else real
        others.append(corrected[left])
        kinds.append(np.where(corrections[left] > 0, ADDED, REMOVED))
    return own_in_pool, others, kinds
