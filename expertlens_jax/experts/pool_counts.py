"""How many of the pool respond at least as strongly as each sentence: one sort per unit serves every concept.

Twice, for one meaning. XLA's sort on a CPU takes several times as long as numpy's, and its binary searches as
long again; so on a CPU numpy counts, and on an accelerator XLA does, on responses that never leave it. Counts
are integers, so both give the same bytes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LOWEST = np.int32(np.iinfo(np.int32).min)
"""Below the key of any number."""

# Numbers sorted at a time on the host: their temporaries, 8 bytes each, stay in a core's cache.
_SORTED_AT_ONCE = 2**16


def ordered_keys(values: jax.Array) -> jax.Array:
    """float32 -> int32 of the same shape and order, -0.0 and 0.0 alike: integers sort several times faster.

    Sign and magnitude become two's complement. It is all integer arithmetic, so that responses too small for
    a device's normal floats keep their order too.
    """
    bits = lax.bitcast_convert_type(values, jnp.int32)
    return jnp.where(bits < 0, LOWEST - bits, bits)


def responses_of(keys: jax.Array) -> jax.Array:
    """int32 keys -> the float32 responses they stand for."""
    return lax.bitcast_convert_type(jnp.where(keys < 0, LOWEST - keys, keys), jnp.float32)


def count_on_device(values: jax.Array, pool: jax.Array, searched: jax.Array) -> jax.Array:
    """Counts by a sort of the pool and binary searches.

    Args:
      values: float32 [S, B], responses of B units, finite.
      pool: int32 [N], sentence indices.
      searched: int32 [R], sentence indices.

    Returns:
      int32 [R, B], how many of the pool respond at least as strongly as each searched sentence.
    """
    keys = ordered_keys(values)
    ascending = jnp.sort(keys[pool].T, axis=-1)
    return (pool.size - jax.vmap(_count_below)(ascending, keys[searched].T)).T


def _count_below(ascending: jax.Array, keys: jax.Array) -> jax.Array:
    """How many of int32 [N] in ascending order are less than each of int32 [R]: int32 [R].

    jnp.searchsorted, in half the time or less: padded to a power of two, the search has no branches and no
    bounds to check.
    """
    steps = ascending.size.bit_length()
    padded = jnp.pad(ascending, (0, 2**steps - ascending.size), constant_values=np.iinfo(np.int32).max)

    def halve(step: int, below: jax.Array) -> jax.Array:
        half = jnp.int32(2**steps // 2) >> step
        middle = padded.at[below + half - 1].get(mode="promise_in_bounds", wrap_negative_indices=False)
        return jnp.where(middle < keys, below + half, below)

    return lax.fori_loop(0, steps, halve, jnp.zeros(keys.shape, jnp.int32))


def count_on_host(values: np.ndarray, pool: np.ndarray, searched: np.ndarray) -> np.ndarray:
    """What `count_on_device` counts, by a sort of the pool and the searched sentences together.

    Each number sorted is a key with its sentence below it, so that the sort also tells where every sentence
    came to stand; no search is needed. Threads overlap: numpy lets go of Python's lock in all that takes time.
    """
    counts = np.zeros((searched.size, values.shape[1]), np.int32)
    if not pool.size:
        return counts
    sentences = np.union1d(pool, searched)  # T of them
    in_pool = np.isin(sentences, pool)
    columns = np.searchsorted(sentences, searched)
    every = slice(None)  # what is all there is isn't copied
    sentences, columns = (
        every if sentences.size == len(values) else sentences,
        every if columns.size == in_pool.size else columns,
    )
    at_once = max(1, min(values.shape[1], _SORTED_AT_ONCE // in_pool.size))
    buffers = _Buffers.empty(at_once, in_pool.size)
    for start in range(0, values.shape[1], at_once):
        units = values[sentences, start : start + at_once].T
        here = _Buffers(*(buffer[: len(units)] for buffer in buffers))
        _count_units(units, in_pool, here)
        counts[:, start : start + at_once] = here.counts[:, columns].T
    return counts


class _Buffers(NamedTuple):
    """Scratch for U units and T sentences, used again and again: new memory costs as much as the arithmetic."""

    keys: np.ndarray  # int32 [U, T]
    packed: np.ndarray  # int64 [U, T]
    places: np.ndarray  # int64 [U, T]
    counts: np.ndarray  # int32 [U, T]

    @classmethod
    def empty(cls, *shape: int) -> "_Buffers":
        return cls(*(np.empty(shape, dtype) for dtype in (np.int32, np.int64, np.int64, np.int32)))


def _count_units(values: np.ndarray, in_pool: np.ndarray, buffers: _Buffers) -> None:
    """float32 [U, T], bool [T] -> buffers.counts: how many of those in the pool are at least as great as each."""
    keys, packed, places, counts = buffers
    keys[:] = values.view(np.int32)
    np.bitwise_and(keys, ~LOWEST, out=counts)  # the magnitude
    np.right_shift(keys, 31, out=keys)  # -1 or 0, by the sign
    np.bitwise_xor(counts, keys, out=counts)
    np.subtract(counts, keys, out=keys)

    packed[:] = keys
    packed <<= 32
    packed |= np.arange(packed.size).reshape(packed.shape)  # places in the flat array, below 2**32
    packed.sort(axis=1)
    np.bitwise_and(packed, 0xFFFFFFFF, out=places)
    packed >>= 32

    # Those below a number are those before the first of its ties.
    pool_size = int(in_pool.sum())
    if pool_size == in_pool.size:
        before = np.arange(in_pool.size, dtype=np.int32)
    else:
        counted = in_pool[places % in_pool.size]
        before = np.cumsum(counted, axis=1, dtype=np.int32) - counted
    below = keys
    below[:, 0] = 0
    np.multiply(before[..., 1:], packed[:, 1:] != packed[:, :-1], out=below[:, 1:])
    np.maximum.accumulate(below, axis=1, out=below)
    np.subtract(pool_size, below, out=below)
    counts.reshape(-1)[places.reshape(-1)] = below.reshape(-1)
