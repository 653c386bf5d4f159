"""Contrasts made of a contrast: joined, on some of the sentences, on halves of them, and with permuted labels.

Each keeps what makes average precisions comparable, a concept's base rate.
"""

import dataclasses

import numpy as np

from expertlens_jax.cards import counted
from expertlens_jax.data.contrast import Contrast
from expertlens_jax.errors import ConceptDataError

# Permuted concepts of each size take as long to rank as real ones, so there are few sizes.
_MOST_SIZES = 5


def join_contrasts(first: Contrast, second: Contrast) -> Contrast:
    """Return the concepts of `first`, then those of `second`, over the same sentences: one sort ranks them all.

    Where their pools differ, the joint pool is that of the one with more concepts, and the others are corrected.

    Raises:
      ConceptDataError: they are over different numbers of sentences.
    """
    if first.pool.size != second.pool.size:
        raise ConceptDataError(
            f"contrasts over {first.pool.size} and over {second.pool.size} sentences can't be joined; "
            "make both from the same sentences"
        )
    pool = (first if len(first.positives) >= len(second.positives) else second).pool
    first, second = _on_pool(first, pool), _on_pool(second, pool)
    return Contrast(
        positives=_one_above_the_other(first.positives, second.positives, -1),
        pool=pool.copy(),
        corrected=_one_above_the_other(first.corrected, second.corrected, -1),
        corrections=_one_above_the_other(first.corrections, second.corrections, 0),
        negative_weight=np.concatenate([first.negative_weight, second.negative_weight]),
    )


def restrict_contrast(contrast: Contrast, keep: np.ndarray) -> Contrast:
    """Return the contrast over the kept sentences, numbered anew; negatives weigh what keeps each base rate.

    Args:
      contrast: over all sentences.
      keep: bool `[sentences]`.

    Raises:
      ConceptDataError: a concept is left without a positive or without a negative (the message numbers it), or
        `keep` doesn't fit.
    """
    keep = np.asarray(keep)
    if keep.dtype != bool or keep.shape != contrast.pool.shape:
        raise ConceptDataError(
            f"keep must be bool [{contrast.pool.size}], one for each sentence, not {keep.dtype} {list(keep.shape)}"
        )
    # The last entry is what a pad, -1, becomes.
    place = np.append(np.where(keep, np.cumsum(keep) - 1, -1), -1).astype(np.int32)
    positives, _ = _pads_last(place[contrast.positives], np.zeros(contrast.positives.shape, np.float32))
    corrected, corrections = _pads_last(place[contrast.corrected], contrast.corrections)
    restricted = Contrast(positives, contrast.pool[keep], corrected, corrections, contrast.negative_weight)
    for kind, before, left in (
        ("positive", contrast.num_positives, restricted.num_positives),
        ("negative", contrast.num_negatives, restricted.num_negatives),
    ):
        if (left == 0).any():
            row = int(np.argmin(left))
            raise ConceptDataError(
                f"concept {row} has none of its {before[row]} {kind} sentences among the {keep.sum()} kept of "
                f"{keep.size}; keep one, or leave the concept out ({(left == 0).sum()} of {left.size} lack one)"
            )
    lost = (contrast.num_negatives / contrast.num_positives) / (restricted.num_negatives / restricted.num_positives)
    weight = (contrast.negative_weight * lost).astype(np.float32)
    return Contrast(positives, restricted.pool, corrected, corrections, weight)


def restrict_within(contrast: Contrast, keep: np.ndarray) -> Contrast:
    """Return `restrict_contrast` with the numbers that sentences had, so that one sort ranks both."""
    restricted, number = restrict_contrast(contrast, keep), np.append(np.flatnonzero(keep), -1).astype(np.int32)
    return dataclasses.replace(
        restricted,
        positives=number[restricted.positives],
        pool=contrast.pool & keep,
        corrected=number[restricted.corrected],
    )


def split_halves(contrast: Contrast, *, seed: int) -> np.ndarray:
    """Return bool `[2, sentences]`: the sentences of either half, each sentence in one of them.

    Every concept's positives are halved, an odd one goes to a half drawn by lot, and so are the sentences that are
    positives of none. A sentence that several concepts share goes to one half for all, so theirs may be halved less
    evenly, but each concept of two or more has at least one in each half.

    Raises:
      ConceptDataError: concepts share their sentences such that no split was found which has that (the message
        numbers one of them).
    """
    rng = np.random.default_rng(seed)
    rows = [row[row >= 0] for row in contrast.positives]
    side = np.full(contrast.pool.size, -1, np.int8)
    # The smallest first: they have the least choice.
    for concept in np.argsort(contrast.num_positives, kind="stable"):
        mine = rng.permutation(rows[concept])
        counts = [int((side[mine] == half).sum()) for half in (0, 1)]
        for sentence in mine[side[mine] < 0]:
            half = int(rng.integers(2)) if counts[0] == counts[1] else int(counts[0] > counts[1])
            side[sentence] = half
            counts[half] += 1
    others = rng.permutation(np.flatnonzero(side < 0))
    side[others] = (np.arange(others.size) + rng.integers(2)) % 2
    _give_both_halves_one(rows, side, rng)
    return np.stack([side == 0, side == 1])


def permuted_sizes(contrast: Contrast) -> tuple[np.ndarray, np.ndarray]:
    """Return the sizes of `permuted_labels`, and which of them serves each concept.

    At most five: the numbers of positives there are, or quantiles of them. A concept gets the next one down, since
    AP has the heavier tail the fewer positives there are: its p is then larger than its own size would give.

    Returns:
      int64 `[sizes]`, ascending; int64 `[concepts]`, an index into them. The null of concept c is the permuted
      concepts `permutations * size_of_concept[c]` up to `permutations * (size_of_concept[c] + 1)`.
    """
    counts = contrast.num_positives
    sizes = np.unique(counts)
    if sizes.size > _MOST_SIZES:
        sizes = np.unique(np.quantile(counts, np.arange(_MOST_SIZES) / _MOST_SIZES, method="lower"))
    return sizes, np.searchsorted(sizes, counts, side="right") - 1


def permuted_labels(contrast: Contrast, permutations: int, *, seed: int) -> Contrast:
    """Return a contrast whose concepts are random sets of sentences: `permutations` of each of `permuted_sizes`.

    Ranked beside the real concepts (`join_contrasts`), they are a null that has the responses' own ties and the
    units' own dependence. The sets are drawn from the sentences that are in the pool or positives of a concept.
    Negatives are the whole pool less a set's own, and weigh what gives the base rate of the size's concepts (the
    highest, should they differ: a higher AP, so again a larger p). Where there is no pool, since each concept has a
    sample of its own, each set has one too, of as many as the least of the size's concepts has.

    More permutations from the same seed begin with the same ones, for each size.

    Args:
      contrast: of the real concepts.
      permutations: random sets per size; the smallest familywise p is 1 / (1 + permutations).
      seed: of the draws, at least 0.

    Raises:
      ConceptDataError: `permutations` is below 1, or nothing would be left as negatives.
    """
    if permutations < 1:
        raise ConceptDataError(f"permutations must be 1 or above, not {permutations}")
    sizes, size_of_concept = permuted_sizes(contrast)
    eligible = contrast.pool.copy()
    eligible[contrast.positives[contrast.positives >= 0]] = True
    eligible[contrast.corrected[contrast.corrections > 0]] = True
    eligible = np.flatnonzero(eligible)
    shared = contrast.pool.any()
    rows, sampled, weights = [], [], []
    for which, size in enumerate(sizes):
        concepts = size_of_concept == which
        rate = contrast.base_rate[concepts].max()
        wanted = 0 if shared else min(int(contrast.num_negatives[concepts].min()), eligible.size - int(size))
        rng = np.random.default_rng([seed, int(size)])
        for _ in range(permutations):
            drawn = rng.choice(eligible, size + wanted, replace=False)
            mine, negatives = np.sort(drawn[:size]), np.sort(drawn[size:])
            count = contrast.pool.sum() - contrast.pool[mine].sum() if shared else wanted
            if count < 1:
                raise ConceptDataError(
                    f"a random set of {counted(size, 'sentence')} leaves none as negatives: "
                    f"{counted(eligible.size, 'sentence')} can be drawn. Add sentences."
                )
            rows.append(mine)
            sampled.append(negatives)
            weights.append(size * (1 / rate - 1) / count)

    positives = np.full((len(rows), sizes[-1]), -1, np.int32)
    for padded, mine in zip(positives, rows, strict=True):
        padded[: mine.size] = mine
    if shared:
        in_pool = (positives >= 0) & contrast.pool[positives]
        corrected, corrections = _pads_last(np.where(in_pool, positives, -1), -in_pool.astype(np.float32))
    else:
        corrected = np.full((len(rows), max(map(len, sampled))), -1, np.int32)
        for padded, negatives in zip(corrected, sampled, strict=True):
            padded[: negatives.size] = negatives
        corrections = (corrected >= 0).astype(np.float32)
    return Contrast(positives, contrast.pool.copy(), corrected, corrections, np.array(weights, np.float32))


def _on_pool(contrast: Contrast, pool: np.ndarray) -> Contrast:
    """Return the same contrast, told as corrections of another pool."""
    differ = np.flatnonzero(contrast.pool != pool).astype(np.int32)
    if not differ.size:
        return contrast
    count = len(contrast.positives)
    sentences = np.concatenate([contrast.corrected, np.tile(differ, (count, 1))], axis=1)
    corrections = np.concatenate([contrast.corrections, np.zeros((count, differ.size), np.float32)], axis=1)
    # A sentence in both parts has its correction in the first; the second is then left out.
    for row, differing in zip(sentences, sentences[:, contrast.corrected.shape[1] :], strict=True):
        differing[np.isin(differing, row[: contrast.corrected.shape[1]])] = -1
    corrections = np.where(sentences >= 0, corrections + contrast.pool[sentences] - pool[sentences].astype(int), 0)
    corrected, corrections = _pads_last(np.where(corrections == 0, -1, sentences), corrections)
    return Contrast(contrast.positives, pool, corrected, corrections, contrast.negative_weight)


def _pads_last(sentences: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int [rows, n] with -1 anywhere and float [rows, n] -> int32, float32: ascending, pads last, no wider than that.

    The values at pads become 0.
    """
    order = np.argsort(np.where(sentences < 0, np.iinfo(np.int32).max, sentences), axis=1, kind="stable")
    order = order[:, : (sentences >= 0).sum(1).max(initial=0)]
    sentences = np.take_along_axis(sentences, order, axis=1).astype(np.int32)
    values = np.take_along_axis(values, order, axis=1)
    return sentences, np.where(sentences < 0, 0, values).astype(np.float32)


def _one_above_the_other(first: np.ndarray, second: np.ndarray, pad: int) -> np.ndarray:
    """[rows, n] and [others, m] -> [rows + others, the wider], of the first's dtype."""
    width = max(first.shape[1], second.shape[1])
    stacked = np.full((len(first) + len(second), width), pad, first.dtype)
    stacked[: len(first), : first.shape[1]] = first
    stacked[len(first) :, : second.shape[1]] = second
    return stacked


def _give_both_halves_one(rows: list[np.ndarray], side: np.ndarray, rng: np.random.Generator) -> None:
    """Move shared sentences to the other half, in `side` [sentences], until no concept of two has a half without."""
    owners = {}
    for concept, mine in enumerate(rows):
        for sentence in mine.tolist():
            owners.setdefault(sentence, []).append(concept)
    counts = np.array([[(side[mine] == half).sum() for half in (0, 1)] for mine in rows]).reshape(-1, 2)

    def may_move(sentence: int) -> bool:
        return all(counts[owner, side[sentence]] > 1 or len(rows[owner]) < 2 for owner in owners[sentence])

    # No move breaks another concept, so each leaves one fewer broken.
    while True:
        broken = [c for c, mine in enumerate(rows) if mine.size > 1 and counts[c].min() == 0]
        if not broken:
            return
        movable = [s for c in broken for s in rng.permutation(rows[c]).tolist() if may_move(s)]
        if not movable:
            concept = broken[0]
            raise ConceptDataError(
                f"the {rows[concept].size} positive sentences of concept {concept} are shared with other concepts, and "
                "no split was found that has one in each half for every concept; leave it out, or try another seed"
            )
        sentence = movable[0]
        for owner in owners[sentence]:
            counts[owner, side[sentence]] -= 1
            counts[owner, 1 - side[sentence]] += 1
        side[sentence] = 1 - side[sentence]
