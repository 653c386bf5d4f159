"""The order of sentences by each unit's response, and of each concept's entries among themselves: all by sorting.

One sort of a unit's responses gives every sentence its rank, how many respond at least as strongly. A concept's
entries (its positives, and where it corrects the pool) are then put in order by a sort of their ranks: S log P for
all concepts, whatever P is.

Twice, for one meaning. XLA's sort on a CPU takes many times as long as numpy's; so on a CPU numpy sorts, and on an
accelerator XLA does, on responses that never leave it. All of it is integers, so both give the same bytes, and
`measuring.py`, one program for both, goes on from there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float32, Int32

from expertlens_jax.experts.concept_sets import PAD, POSITIVE, ConceptSets, Group

LOWEST = np.int32(np.iinfo(np.int32).min)
"""Below the key of any number."""

PAD_RANK = 2**25
"""Beyond every rank; and an entry, a rank and a kind in its two lowest bits, still fits an int32."""


# Less than this share of ties is few.
_FEW_TIES = 0.05


Array = np.ndarray | jax.Array


class Pool(NamedTuple):
    """A contrast's pool among the ranked sentences."""

    counts: Array  # int32 [T + 1, B], how many of the pool are among the so many strongest
    keys: Array | None  # int32 [N, B], theirs, strongest first; of the first contrast only


class Orders(NamedTuple):
    """B units' order of T sentences and of each group's entries, strongest first."""

    keys: Array  # int32 [T, B]
    above: Array  # int32 [T, B], at each place how many are stronger, ties not counted
    pools: tuple[Pool | None, ...]  # of each contrast; None if it is all that's ranked
    entries: tuple[np.ndarray | jax.Array, ...]  # of each group, int32 [P + O + 1, C, B], rank and kind; pads last
    # Of each group, int32 [P, C, B], ranks of the positives alone; None where there is nothing else among the entries,
    # or nothing that asks for it.
    positives: tuple[np.ndarray | jax.Array | None, ...]


def ordered_keys(values: Float32[Array, "*shape"]) -> Int32[jax.Array, "*shape"]:
    """Turn float32 into int32 of the same shape and order, -0.0 and 0.0 alike: integers sort several times faster.

    Sign and magnitude become two's complement. It is all integer arithmetic, so that responses too small for
    a device's normal floats keep their order too.
    """
    bits = lax.bitcast_convert_type(values, jnp.int32)
    return jnp.where(bits < 0, LOWEST - bits, bits)


def responses_of(keys: Int32[Array, "*shape"]) -> Float32[jax.Array, "*shape"]:
    """Turn int32 keys into the float32 responses they stand for."""
    return lax.bitcast_convert_type(jnp.where(keys < 0, LOWEST - keys, keys), jnp.float32)


def positives_apart(group: Group) -> bool:
    """Return whether a group's positives are also sorted by themselves."""
    return group.contrasts[0] == 0 and group.others.shape[1] > 0


def _looked_up(group: Group, num_ranked: int) -> tuple[np.ndarray | jax.Array, np.ndarray | jax.Array]:
    """Return a group's sentences and kinds in a row for each concept, [C, P + O]."""
    xp = jnp if isinstance(group.positives, jax.Array) else np
    kinds = xp.where(group.positives < num_ranked, np.int32(POSITIVE), np.int32(PAD))
    return xp.concatenate([group.positives, group.others], axis=1), xp.concatenate([kinds, group.other_kinds], axis=1)


def order_on_device(values: Float32[Array, "sentences units"], sets: ConceptSets) -> Orders:
    """Order float32 [S, B] by XLA's sorts, none of them stable: equal numbers are alike in all they carry."""
    keys = ordered_keys(values[sets.sentences]).T  # [B, T]
    number = lax.broadcasted_iota(jnp.int32, keys.shape, 1)
    # Two keys, so that the order of ties is one on every machine.
    descending, order = lax.sort((~keys, number), num_keys=2, is_stable=False)
    descending = ~descending
    end, begin = jnp.ones_like(descending, bool), jnp.ones_like(descending, bool)
    differ = descending[:, 1:] != descending[:, :-1]
    end, begin = end.at[:, :-1].set(differ), begin.at[:, 1:].set(differ)
    above = lax.cummax(jnp.where(begin, number, 0), axis=1)
    rank_at = lax.cummin(jnp.where(end, number + 1, keys.shape[1]), axis=1, reverse=True)
    _, ranks = lax.sort((order, rank_at), num_keys=1, is_stable=False)  # back in the order of the sentences
    ranks = jnp.pad(ranks, ((0, 0), (0, 1)), constant_values=PAD_RANK)

    pools = []
    for contrast, in_pool in enumerate(sets.in_pool):
        if in_pool is None:
            pools.append(None)
            continue
        held = jnp.asarray(in_pool)[order]
        counts = jnp.pad(jnp.cumsum(held, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
        pool_keys = None
        if contrast == 0:
            size = sets.pool_size
            pool_keys = (~lax.sort(jnp.where(held, ~descending, ~LOWEST), is_stable=False)[:, :size]).T
        pools.append(Pool(counts.T, pool_keys))

    entries, positives = [], []
    for group in sets.groups:
        sentences, kinds = _looked_up(group, len(sets.sentences))
        ordered = lax.sort(ranks[:, sentences] * 4 + kinds, is_stable=False)  # [B, C, P + O]
        ordered = jnp.pad(ordered, ((0, 0), (0, 0), (0, 1)), constant_values=PAD_RANK * 4 + PAD)
        entries.append(ordered.transpose(2, 1, 0))
        positives.append(
            lax.sort(ranks[:, group.positives], is_stable=False).transpose(2, 1, 0) if positives_apart(group) else None
        )
    return Orders(descending.T, above.T, tuple(pools), tuple(entries), tuple(positives))


def empty_orders(sets: ConceptSets, *shape: int) -> Orders:
    """Return room for the host's orders, arrays `[*shape, ...]`."""

    def room(*sizes: int) -> np.ndarray:
        return np.empty((*shape[:-1], *sizes, shape[-1]), np.int32)

    size = len(sets.sentences)
    pools = [
        None if in_pool is None else Pool(room(size + 1), room(sets.pool_size) if contrast == 0 else None)
        for contrast, in_pool in enumerate(sets.in_pool)
    ]
    entries, positives = [], []
    for group in sets.groups:
        count, width = group.positives.shape
        entries.append(room(width + group.others.shape[1] + 1, count))
        positives.append(room(width, count) if positives_apart(group) else None)
    return Orders(room(size), room(size), tuple(pools), tuple(entries), tuple(positives))


class Scratch(NamedTuple):
    """Numpy's room for U units, T sentences and E entries of the largest group."""

    keys: np.ndarray  # int32 [U, T]
    above: np.ndarray  # int32 [U, T]
    at_least: np.ndarray  # int32 [U, T]
    tied: np.ndarray  # bool [U, T]
    packed: np.ndarray  # int64 [U, T]
    order: np.ndarray  # int64 [U, T]
    ranks: np.ndarray  # int32 [U, T + 1]
    entries: np.ndarray  # int32 [U, E]

    @classmethod
    def empty(cls, sets: ConceptSets, num_units: int) -> "Scratch":
        """Return room for these concepts."""
        size = num_units, len(sets.sentences)
        most = max((group.positives.size + group.others.size for group in sets.groups), default=0)
        return cls(
            *(np.empty(size, dtype) for dtype in (*[np.int32] * 3, bool, np.int64, np.int64)),
            ranks=np.full((num_units, size[1] + 1), PAD_RANK, np.int32),
            entries=np.empty((num_units, most), np.int32),
        )


def order_on_host(values: np.ndarray, sets: ConceptSets, orders: Orders, scratch: Scratch) -> None:
    """Order float32 [S, B] as `order_on_device` does, into `orders`.

    Each number sorted is a key with its sentence below it, so that the sort also tells where every sentence
    came to stand. Threads overlap: numpy lets go of Python's lock in all that takes time.
    """
    keys, _, _, _, packed, order, ranks, found = scratch
    num_units, size = keys.shape
    keys.view(np.float32)[:] = (values if size == sets.num_all else values[sets.sentences]).T
    signs = np.right_shift(keys, 31, out=scratch.above)  # -1 or 0
    np.bitwise_and(keys, ~LOWEST, out=keys)  # the magnitude
    np.bitwise_xor(keys, signs, out=keys)
    np.subtract(signs, keys, out=keys)  # two's complement, and its negative: ascending is strongest first
    packed[:] = keys
    packed <<= 32
    packed |= np.arange(size)
    packed.sort(axis=1)
    np.bitwise_and(packed, 0xFFFFFFFF, out=order)
    packed >>= 32
    descending = np.negative(packed, out=keys, casting="unsafe")
    orders.keys[:] = descending.T
    above, at_least = _counts_at_places(scratch)
    orders.above[:] = above.T
    for of_unit, places, mine in zip(ranks, order, at_least, strict=True):
        of_unit[places] = mine

    for in_pool, pool in zip(sets.in_pool, orders.pools, strict=True):
        if in_pool is None or pool is None:
            continue
        held = in_pool[order]
        pool.counts[0] = 0
        pool.counts[1:] = np.cumsum(held, axis=1, dtype=np.int32).T
        if pool.keys is not None:
            pool.keys[:] = descending[held].reshape(num_units, -1).T

    for group, entries, positives in zip(sets.groups, orders.entries, orders.positives, strict=True):
        sentences, kinds = _looked_up(group, len(sets.sentences))
        mine = found.reshape(-1)[: num_units * sentences.size].reshape(num_units, -1)
        np.take(ranks, sentences.reshape(-1), axis=1, mode="clip", out=mine)
        mine = mine.reshape(num_units, *sentences.shape)
        if positives is not None:
            positives[:] = np.sort(mine[:, :, : group.positives.shape[1]], axis=-1).transpose(2, 1, 0)
        mine *= 4
        mine += kinds
        mine.sort(axis=-1)
        entries[:-1] = mine.transpose(2, 1, 0)
        entries[-1] = PAD_RANK * 4 + PAD


def _counts_at_places(scratch: Scratch) -> tuple[np.ndarray, np.ndarray]:
    """Of keys [U, T], not ascending along T: how many are above each, and how many at least as great, int32 [U, T].

    Without ties both are the places themselves. Where ties are few they are mended one by one: running maxima take
    as long as the sort.
    """
    descending, above, at_least, tied = scratch[:4]
    size = descending.shape[1]
    above[:] = np.arange(size)
    np.add(above, 1, out=at_least)
    tied[:, :1] = False
    np.equal(descending[:, 1:], descending[:, :-1], out=tied[:, 1:])  # with the one before
    count = np.count_nonzero(tied)
    if count > _FEW_TIES * tied.size:
        np.copyto(above, 0, where=tied)
        np.maximum.accumulate(above, axis=1, out=above)
        np.copyto(at_least[:, :-1], size, where=tied[:, 1:])
        backwards = at_least[:, ::-1]
        np.minimum.accumulate(backwards, axis=1, out=backwards)
    elif count:
        later = np.flatnonzero(tied)
        begins = np.diff(later, prepend=-2) > 1  # a run of them, one after the other
        run = np.cumsum(begins) - 1
        first, last = later[begins] - 1, later[np.append(begins[1:], True)]
        above.reshape(-1)[later] = (first % size)[run]
        rank = last % size + 1
        at_least.reshape(-1)[later] = rank[run]
        at_least.reshape(-1)[first] = rank
    return above, at_least
