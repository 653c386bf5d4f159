"""Average precision of every unit for every concept, from one sort per unit.

For a concept with positives i, average precision under scikit-learn's definition sums precision over the
steps of recall. With ties grouped, each positive contributes one equal step of recall, taken at its own
response:

    AP = mean over positives i of   P_i / (P_i + w * N_i),

where P_i and N_i count the positives and the negatives whose response is at least that of i (i itself
included in P_i), and w is the weight of a negative (a positive weighs 1). That is
`sklearn.metrics.average_precision_score(..., sample_weight=...)`, ties included, and it needs only counts.
Most concepts share most of their negatives, the *pool*; so one sort of the pool's responses and one binary
search per sentence give N_i for every concept at once, up to a concept's few *corrections*: its own
positives, sentences that mention it, or negatives drawn for it alone. Those are counted directly, P x (P + M)
comparisons for P positives and M corrected sentences.

`pool_counts.py` counts the pool, on the host or on the device; the rest is one program for both. All of it is
pure functions of arrays; `expertise.py` turns them into a table with names.
"""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import lax
from tqdm.auto import tqdm

from expertlens_jax.data.contrast import Contrast
from expertlens_jax.errors import ResponsesError
from expertlens_jax.experts.pool_counts import LOWEST, count_on_device, count_on_host, ordered_keys, responses_of

# A block of units holds about eight arrays of [sentences, units] in four bytes each at its peak.
_BYTES_PER_RESPONSE = 8 * 4
_BLOCK_BYTES = 2**28
# On a CPU, threads rank a block in chunks of so many units at most: a concept's counts then stay in a core's
# cache. Blocks are whole chunks where they can be.
_CHUNK = 128
# Counts are kept in float32, where integers are exact up to here.
_MOST_SENTENCES = 2**24


class Ranking(NamedTuple):
    """What the responses say of each (concept, unit), each float32 [concepts, units]."""

    average_precision: np.ndarray | jax.Array
    positive_median: np.ndarray | jax.Array
    positive_p90: np.ndarray | jax.Array
    positive_mean: np.ndarray | jax.Array
    negative_mean: np.ndarray | jax.Array


class ConceptSets(NamedTuple):
    """A contrast's arrays as ranking reads them."""

    pool: np.ndarray  # int32 [N], sentences
    in_pool: np.ndarray  # bool [S]
    searched: np.ndarray  # int32 [R], the sentences that some concept counts as a positive
    concepts: "_Concepts"


class _Concepts(NamedTuple):
    """One row per concept."""

    positives: np.ndarray  # int32 [C, P], -1 at pads
    num_positives: np.ndarray  # int32 [C]
    searched: np.ndarray  # int32 [C, P], index into the searched sentences; anything at pads
    own_in_pool: np.ndarray  # float32 [C], 1 where the pool holds the positives, which then aren't negatives
    others: np.ndarray  # int32 [C, O], the corrected sentences besides those, -1 at pads
    num_others: np.ndarray  # int32 [C]
    other_corrections: np.ndarray  # float32 [C, O], 0 at pads
    negative_weight: np.ndarray  # float32 [C]
    pool_share: np.ndarray  # float32 [C], the pool's sentences per negative
    positive_share: np.ndarray  # float32 [C], 1 per positive
    negative_share: np.ndarray  # float32 [C], 1 per negative


def rank_units(
    values: np.ndarray | jax.Array,
    contrast: Contrast,
    *,
    units_per_block: int | None = None,
    units: pd.DataFrame | None = None,
    sentences: Sequence[str] | None = None,
    progress: bool = False,
) -> Ranking:
    """Ranks every unit's responses for every concept, a block of units on each local device at a time.

    Args:
      values: float32 [sentences, units], finite.
      contrast: which of these sentences stand for and against each concept, and with what weight.
      units_per_block: the most units a device ranks at once; None takes as many as work in about 256 MB. The
        number of devices or threads changes no byte of a result, the size of blocks at most a last digit.
        Calls with equal blocks and contrast shapes share one compilation.
      units: rows of the units' table for these columns; only to name a unit in an error.
      sentences: [sentences]; only to name a sentence in an error.
      progress: shows a bar.

    Returns:
      Arrays [concepts, units]: average precision; median and 90th percentile of the positives' responses
      (linear interpolation, as numpy.quantile); mean of the negatives' responses.

    Raises:
      ResponsesError: a response is NaN or infinite, or the shapes or the dtype don't fit.
    """
    if np.ndim(values) != 2 or np.shape(values)[0] != contrast.pool.size:
        raise ResponsesError(
            f"responses have shape {np.shape(values)}; wanted [sentences, units] with the contrast's "
            f"{contrast.pool.size} sentences. Record responses to the sentences of the concepts."
        )
    if not np.can_cast(values.dtype, np.float32):
        raise ResponsesError(
            f"responses are {values.dtype}; wanted float32, or what fits in it without loss. "
            "Convert them with values.astype('float32')."
        )
    if units_per_block is not None and units_per_block < 1:
        raise ResponsesError(f"units_per_block={units_per_block}; wanted at least 1, or None to choose by memory.")
    sets = concept_sets(contrast)
    values, num_units, num_devices = np.asarray(values), values.shape[1], jax.local_device_count()
    if _on_cpu():  # blocks are views here and chunks bound the memory, so each device gets its whole share at once
        chunk = min(_chunk(len(values)), units_per_block or _CHUNK)
        width = max(1, -(-num_units // (chunk * num_devices))) * chunk
    else:
        width = units_per_block or _even_blocks(*values.shape)

    ranking = Ranking(*(np.empty((len(contrast.positives), num_units), np.float32) for _ in Ranking._fields))
    with tqdm(total=num_units, desc="ranking units", unit=" units", disable=not progress) as bar:
        for start in range(0, num_units, width * num_devices):
            wide = values[:, start : start + width * num_devices]
            blocks = [wide[:, device * width : (device + 1) * width] for device in range(num_devices)]
            refusal = functools.partial(
                _refusal, first_unit=start, units=None if units is None else units.iloc[start:], sentences=sentences
            )
            if _on_cpu():
                ranked = _rank_on_host(blocks, sets, chunk, refusal, progress=bar.update)
            else:
                ranked = _rank_on_devices(_side_by_side(blocks, width), sets, refusal)
                bar.update(wide.shape[1])
            for table, by_device in zip(ranking, ranked, strict=True):
                in_a_row = np.concatenate(np.asarray(by_device), axis=1)  # of [devices, concepts, width]
                table[:, start : start + wide.shape[1]] = in_a_row[:, : wide.shape[1]]
    return ranking


def units_per_block(num_sentences: int) -> int:
    """How many units a device should rank at once, for about 256 MB of work: a function of the sentences alone,
    so that no result depends on the number of devices."""
    most = max(1, _BLOCK_BYTES // (_BYTES_PER_RESPONSE * max(1, num_sentences)))
    return most if most < _CHUNK else most // _CHUNK * _CHUNK


def rank_blocks(
    blocks: np.ndarray | jax.Array,
    sets: ConceptSets,
    *,
    first_unit: int = 0,
    units: pd.DataFrame | None = None,
    sentences: Sequence[str] | None = None,
    sort_on_host: bool | None = None,
) -> Ranking:
    """Ranks a block of units on each local device, for callers whose responses may lie on the devices already.

    Args:
      blocks: float32 [local devices, sentences, units], finite; zeros where there is no unit. A `jax.Array` laid
        out as `jax.pmap` does, axis 0 over `jax.local_devices()`, is not copied off an accelerator.
      sets: from `concept_sets`.
      first_unit: the number of the first unit of the first block; only for errors, as the next two.
      units: rows of the units' table for these units, the blocks side by side.
      sentences: [sentences].
      sort_on_host: None for on a CPU, where numpy's sort is several times faster than XLA's. Both give the same
        counts; tests compare them.

    Returns:
      Arrays [local devices, concepts, units]: numpy's on a CPU; elsewhere jax's, on the devices and perhaps not
      computed yet.

    Raises:
      ResponsesError: a response is NaN or infinite, or the shape or the dtype doesn't fit.
    """
    wanted = jax.local_device_count(), sets.in_pool.size
    if np.ndim(blocks) != 3 or np.shape(blocks)[:2] != wanted or blocks.dtype != np.float32:
        raise ResponsesError(
            f"blocks are {blocks.dtype} {np.shape(blocks)}; wanted float32 [local devices, sentences, units] with "
            f"{wanted[0]} local devices and the contrast's {wanted[1]} sentences."
        )
    refusal = functools.partial(_refusal, first_unit=first_unit, units=units, sentences=sentences)
    if _on_cpu() if sort_on_host is None else sort_on_host:
        return _rank_on_host(_on_host(blocks), sets, _chunk(sets.in_pool.size), refusal)
    return _rank_on_devices(blocks, sets, refusal)


def concept_sets(contrast: Contrast) -> ConceptSets:
    """The arrays that ranking needs of a contrast: made once, they serve every block.

    Raises:
      ResponsesError: more sentences than float32 can count.
    """
    if contrast.pool.size >= _MOST_SENTENCES:
        raise ResponsesError(
            f"{contrast.pool.size} sentences; counts are exact for fewer than {_MOST_SENTENCES}. "
            "Rank fewer sentences, or fewer concepts (and their sentences) at a time."
        )
    pool = np.flatnonzero(contrast.pool).astype(np.int32)
    searched = np.unique(contrast.positives[contrast.positives >= 0]).astype(np.int32)
    own_in_pool, others, other_corrections = _own_positives_apart(contrast)
    concepts = _Concepts(
        positives=np.asarray(contrast.positives, np.int32),
        num_positives=np.asarray(contrast.num_positives, np.int32),
        searched=np.searchsorted(searched, contrast.positives).astype(np.int32),
        own_in_pool=own_in_pool,
        others=others,
        num_others=(others >= 0).sum(1, dtype=np.int32),
        other_corrections=other_corrections,
        negative_weight=np.asarray(contrast.negative_weight, np.float32),
        pool_share=np.asarray(pool.size / contrast.num_negatives, np.float32),
        positive_share=np.asarray(1 / contrast.num_positives, np.float32),
        negative_share=np.asarray(1 / contrast.num_negatives, np.float32),
    )
    return ConceptSets(pool, np.asarray(contrast.pool, bool), searched, concepts)


def _own_positives_apart(contrast: Contrast) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tells the corrections that take a concept's own positives out of the pool from its few others.

    The positives are counted anyway, so only the others need comparing.

    Returns:
      float32 [C], 1 where the positives were in the pool; int32 [C, O], the other corrected sentences, -1 at
      pads; float32 [C, O], their corrections, 0 at pads.
    """
    own_in_pool = np.zeros(len(contrast.positives), np.float32)
    others = []
    for row, positives in enumerate(contrast.positives):
        real = contrast.corrected[row] >= 0
        own = np.isin(contrast.corrected[row], positives[positives >= 0]) & (contrast.corrections[row] == -1)
        own_in_pool[row] = own.sum() == (positives >= 0).sum()
        others.append(np.flatnonzero(real & ~own if own_in_pool[row] else real))
    shape = len(others), max(1, *map(len, others))
    sentences, corrections = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
    for row, places in enumerate(others):
        sentences[row, : len(places)] = contrast.corrected[row, places]
        corrections[row, : len(places)] = contrast.corrections[row, places]
    return own_in_pool, sentences, corrections


def _on_cpu() -> bool:
    return jax.local_devices()[0].platform == "cpu"


def _chunk(num_sentences: int) -> int:
    """How many units a thread of a CPU ranks at once: a function of the sentences alone, too."""
    return max(1, min(_CHUNK, units_per_block(num_sentences) // 8))


def _even_blocks(num_sentences: int, num_units: int) -> int:
    """The width of as few blocks as `units_per_block` allows, all about as wide."""
    num_blocks = max(1, -(-num_units // units_per_block(num_sentences)))
    return max(1, -(-num_units // num_blocks))


def _side_by_side(blocks: Sequence[np.ndarray], width: int) -> np.ndarray:
    """[S, up to width] each -> float32 [D, S, width], zeros where there is no unit: ranked, and cut later."""
    stacked = np.zeros((len(blocks), len(blocks[0]), width), np.float32)
    for padded, block in zip(stacked, blocks, strict=True):
        padded[:, : block.shape[1]] = block
    return stacked


def _on_host(blocks: np.ndarray | jax.Array) -> Sequence[np.ndarray]:
    """[D, S, B] -> each device's [S, B], without a copy if they are the host's already."""
    if isinstance(blocks, np.ndarray):
        return blocks
    shards = sorted(blocks.addressable_shards, key=lambda shard: jax.local_devices().index(shard.device))
    if len(shards) != len(blocks) or blocks.is_fully_replicated:
        return np.asarray(blocks)
    return [np.asarray(shard.data).reshape(blocks.shape[1:]) for shard in shards]


def _rank_on_host(
    blocks: Sequence[np.ndarray],
    sets: ConceptSets,
    chunk: int,
    refusal: Callable[[Sequence[np.ndarray]], ResponsesError],
    progress: Callable[[int], object] = lambda units: None,
) -> Ranking:
    """Ranks blocks [S, up to B], one for each device, with numpy's sort: arrays [D, C, B].

    XLA's program runs mostly on one core, and so does a sort: threads rank different chunks of units at once.
    Every chunk has the same width, and what is ranked together never depends on the number of threads or devices.
    """
    shape = len(blocks), len(sets.concepts.positives), max(block.shape[1] for block in blocks)
    ranking = Ranking(*(np.empty(shape, np.float32) for _ in Ranking._fields))

    def rank(start: int) -> int:
        parts = [block[:, start : start + chunk] for block in blocks]
        values = _side_by_side(parts, chunk)
        if not np.isfinite(values).all():
            raise refusal(blocks)
        counts = np.zeros((len(blocks), sets.searched.size, chunk), np.int32)
        for count, block, part in zip(counts, values, parts, strict=True):
            count[:, : part.shape[1]] = count_on_host(block[:, : part.shape[1]], sets.pool, sets.searched)
        for table, ranked in zip(ranking, _over_devices(_rank_block, (0, 0, None))(values, counts, sets), strict=True):
            here = table[:, :, start : start + chunk]
            here[:] = np.asarray(ranked)[:, :, : here.shape[2]]
        return sum(part.shape[1] for part in parts)

    with ThreadPoolExecutor(_num_cores()) as threads:
        for num_units in threads.map(rank, range(0, shape[2], chunk)):
            progress(num_units)
    return ranking


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rank_on_devices(
    blocks: np.ndarray | jax.Array,
    sets: ConceptSets,
    refusal: Callable[[Sequence[np.ndarray]], ResponsesError],
) -> Ranking:
    """Ranks float32 [D, S, B], one block on each device, without leaving them: arrays [D, C, B]."""
    if isinstance(blocks, np.ndarray):
        blocks = _over_devices(_as_it_is, (0,))(blocks)
    finite = _over_devices(_all_finite, (0,))(blocks)
    # Two programs, so that the second is the very one that ranks what the host has counted.
    counts = _over_devices(count_on_device, (0, None, None))(blocks, sets.pool, sets.searched)
    ranking = _over_devices(_rank_block, (0, 0, None))(blocks, counts, sets)
    if not np.asarray(finite).all():
        raise refusal(np.asarray(blocks))
    return ranking


@functools.cache
def _over_devices(work: Callable, in_axes: tuple[int | None, ...]) -> Callable:
    """`work` on each of this process's devices. Made late: devices aren't known before jax.distributed starts."""
    return jax.pmap(work, in_axes=in_axes, devices=jax.local_devices())


def _as_it_is(values: jax.Array) -> jax.Array:
    return values


def _all_finite(values: jax.Array) -> jax.Array:
    return jnp.isfinite(values).all()


def _rank_block(values: jax.Array, pool_at_least: jax.Array, sets: ConceptSets) -> Ranking:
    """Ranks one block: values [S, B] and the pool's counts, int32 [R, B] -> Ranking of [C, B]."""
    keys = ordered_keys(values)
    pool_at_least = pool_at_least.astype(jnp.float32)

    # Means are of centred responses, so that corrections cancel without loss; divided first, so that sums of
    # very large responses stay finite.
    centre = _sum_rows(values / values.shape[0])
    centred = values - centre
    pool_mean = _sum_rows(jnp.where(sets.in_pool[:, None], centred, 0) / max(1, sets.pool.size))

    def rank_concept(concept: _Concepts) -> Ranking:
        is_positive = (concept.positives >= 0)[:, None]  # pads read the last sentence, and this leaves them out
        positive_keys = jnp.where(is_positive, keys[concept.positives], LOWEST)  # [P, B]

        # Loops rather than one [P, number, B] comparison: counts stay in cache, pads cost nothing, and it is
        # several times faster.
        def count_positive(i: jax.Array, count: jax.Array) -> jax.Array:
            return count + jnp.where(keys[concept.positives[i]] >= positive_keys, 1, 0)

        def correct(i: jax.Array, so_far: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            count, mean = so_far
            sentence, correction = concept.others[i], concept.other_corrections[i]
            count += jnp.where(keys[sentence] >= positive_keys, correction, 0)
            return count, mean + correction * concept.negative_share * centred[sentence]

        none = jnp.zeros(positive_keys.shape, jnp.int32)
        positives_at_least = lax.fori_loop(0, concept.num_positives, count_positive, none).astype(jnp.float32)
        of_pool = pool_at_least[concept.searched] - concept.own_in_pool * positives_at_least
        own = jnp.where(is_positive, centred[concept.positives], 0)  # [P, B]
        positive_mean = centre + _sum_rows(own * concept.positive_share)
        mean = pool_mean * concept.pool_share - _sum_rows(concept.own_in_pool * concept.negative_share * own)
        negatives_at_least, mean = lax.fori_loop(0, concept.num_others, correct, (of_pool, mean))

        # The weakest positive has all positives at least as strong. Counted so, for each unit, their number
        # is no constant whose reciprocal a compiler may multiply by: a perfect unit has exactly 1.
        num_positives = jnp.max(positives_at_least, axis=0, initial=0, where=is_positive)  # [B]
        precision = positives_at_least / (positives_at_least + concept.negative_weight * negatives_at_least)
        average_precision = _sum_rows(jnp.where(is_positive, precision, 0)) / num_positives

        def quantile(q: float) -> jax.Array:
            # The counts already order the positives: the one at place r (from 0, ascending) is the greatest
            # of those with at most r others below them.
            below = num_positives - positives_at_least
            place = q * (num_positives - 1)
            low, high = (
                responses_of(jnp.max(jnp.where(below <= r, positive_keys, LOWEST), axis=0))
                for r in (jnp.floor(place), jnp.ceil(place))
            )
            share = place - jnp.floor(place)
            return low * (1 - share) + high * share

        return Ranking(average_precision, quantile(0.5), quantile(0.9), positive_mean, centre + mean)

    return lax.map(rank_concept, sets.concepts)


def _sum_rows(rows: jax.Array) -> jax.Array:
    """float32 [N, B] -> [B], added in pairs: accurate, and in the same order on any number of devices.

    The last few in a row, since a compiler fuses elementwise sums into whatever reads them and does them again
    for each of its elements.
    """
    while len(rows) > 16:
        half = len(rows) // 2
        rows = jnp.concatenate([rows[:half] + rows[half : 2 * half], rows[2 * half :]])
    return rows.sum(axis=0)


def _refusal(
    blocks: Sequence[np.ndarray], first_unit: int, units: pd.DataFrame | None, sentences: Sequence[str] | None
) -> ResponsesError:
    """The error that names a NaN or infinity in blocks [S, units of each]: such responses have no rank."""
    values = np.concatenate(blocks, axis=1)
    finite = np.isfinite(values)
    sentence, column = np.argwhere(~finite)[0]
    unit = f"unit {first_unit + column}"
    if units is not None and column < len(units):
        row = units.iloc[column]
        unit += f" (layer {row.layer}, site {row.site}, channel {row.channel})"
    text = f" ({sentences[sentence]!r})" if sentences is not None else ""
    return ResponsesError(
        f"the response of {unit} to sentence {sentence}{text} is {values[sentence, column]}, one of "
        f"{(~finite).sum()} in this block of units that are not finite. Such responses can't be ranked: "
        "record them again in float32 or bfloat16, which hold more than float16, or leave that site out."
    )
