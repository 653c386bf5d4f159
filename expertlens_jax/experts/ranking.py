"""Every unit ranked for every concept, from one sort per unit.

For a concept with positives i, average precision under scikit-learn's definition sums precision over the
steps of recall. With ties grouped, each positive contributes one equal step of recall, taken at its own
response:

    AP = mean over positives i of   P_i / (P_i + w * N_i),

where P_i and N_i count the positives and the negatives whose response is at least that of i (i itself
included in P_i), and w is the weight of a negative (a positive weighs 1). That is
`sklearn.metrics.average_precision_score(..., sample_weight=...)`, ties included, and it needs only counts.
Most concepts share most of their negatives, the *pool*; so one sort of a unit's responses tells each sentence's
place among them, which orders the positives of every concept, and gives N_i up to a concept's few *corrections*: its
own positives, sentences that mention it, or negatives drawn for it alone. They are sorted with the positives.

`concept_sets.py` says what is asked, `orders.py` sorts, on the host or on the device, and `measuring.py` counts and
sums along the sorted entries, one program for both. All of it is pure functions of arrays; `expertise.py` turns them
into a table with names.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Shaped
from tqdm.auto import tqdm

from expertlens_jax import parallel
from expertlens_jax.data.contrast import Contrast
from expertlens_jax.errors import ResponsesError
from expertlens_jax.experts.concept_sets import ConceptSets, concept_sets
from expertlens_jax.experts.measuring import Ranking, measure, ranking_of
from expertlens_jax.experts.orders import Orders, Scratch, empty_orders, order_on_device, order_on_host

# On a CPU, threads rank a block in chunks of so many units at most: what is counted then stays in a core's cache.
# Blocks are whole chunks where they can be. Responses in cache, and the fewest units.
_CHUNK = 128
_CACHED, _NARROWEST = 2**18, 16


def rank_units(
    values: Shaped[np.ndarray | jax.Array, "sentences units"],
    contrast: Contrast,
    *,
    transport: bool = True,
    scores: Sequence[str] = (),
    units_per_block: int | None = None,
    units: pd.DataFrame | None = None,
    sentences: Sequence[str] | None = None,
    progress: bool = False,
) -> Ranking:
    """Rank every unit's responses for every concept, a block of units on each local device at a time.

    Args:
      values: float32 [sentences, units], finite.
      contrast: which of these sentences stand for and against each concept, and with what weight.
      transport: whether to measure the slopes of the linear transport, about half of the time.
      scores: which of `settings.MORE_SCORES` to measure too.
      units_per_block: the most units a device ranks at once; None chooses by memory. The
        number of devices or threads changes no byte of a result, the size of blocks at most a last digit.
        Calls with equal blocks and contrast shapes share one compilation.
      units: rows of the units' table for these columns; only to name a unit in an error.
      sentences: [sentences]; only to name a sentence in an error.
      progress: shows a bar.

    Returns:
      Arrays [concepts, units]: average precision; median and 90th percentile of the positives' responses (linear
      interpolation, as numpy.quantile); means of the positives' and of the negatives' responses; the area under the
      ROC curve; with `transport`, the slope of the linear transport from negatives to positives; and `scores`.

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
    sets = concept_sets(contrast, transport=transport, scores=scores)
    values, num_units, num_devices = np.asarray(values), values.shape[1], jax.local_device_count()
    if _on_cpu():  # blocks are views here and chunks bound the memory, so each device gets its whole share at once
        chunk = min(_chunk(sets), units_per_block or _CHUNK)
        width = max(1, -(-num_units // (chunk * num_devices))) * chunk
    else:
        width = units_per_block or _even_blocks(sets, num_units)

    ranking = ranking_of(sets, lambda: np.empty((len(contrast.positives), num_units), np.float32))
    with tqdm(total=num_units, desc="ranking units", unit=" units", disable=not progress) as bar:
        for start in range(0, num_units, width * num_devices):
            wide = values[:, start : start + width * num_devices]
            blocks = [wide[:, device * width : (device + 1) * width] for device in range(num_devices)]
            refusal = functools.partial(
                _refusal, first_unit=start, units=None if units is None else units.iloc[start:], sentences=sentences
            )
            if _on_cpu():
                ranked, _ = _rank_on_host(blocks, sets, chunk, refusal, progress=bar.update)
            else:
                ranked, _ = _rank_on_devices(_side_by_side(blocks, width), sets, refusal)
                bar.update(wide.shape[1])
            for table, by_device in zip(jax.tree.leaves(ranking), jax.tree.leaves(ranked), strict=True):
                in_a_row = np.concatenate(np.asarray(by_device), axis=1)  # of [devices, concepts, width]
                table[:, start : start + wide.shape[1]] = in_a_row[:, : wide.shape[1]]
    return ranking


def units_per_block(num_sentences: int, sets: ConceptSets | None = None) -> int:
    """Return how many units a device should rank at once.

    As many as work in an eighth of its memory, or in 256 MB on a CPU.

    A function of the sentences, the concepts and the kind of device, so that no result depends on the number of
    devices.
    """
    return units_in(_block_bytes(), num_sentences, sets)


def units_in(block_bytes: int, num_sentences: int, sets: ConceptSets | None = None) -> int:
    """Return how many units a device can rank at once in so many bytes."""
    numbers = max(8 * num_sentences, sets.numbers_per_unit if sets else 0, 1)
    most = max(1, min(block_bytes // 4, 2**31 - 1) // numbers)  # places are int32
    return most if most < _CHUNK else most // _CHUNK * _CHUNK


def _block_bytes() -> int:
    stats = None if _on_cpu() else jax.local_devices()[0].memory_stats()
    return stats["bytes_limit"] // 8 if stats and "bytes_limit" in stats else 2**28


def rank_blocks(
    blocks: Shaped[np.ndarray | jax.Array, "devices sentences units"],
    sets: ConceptSets,
    *,
    first_unit: int = 0,
    units: pd.DataFrame | None = None,
    sentences: Sequence[str] | None = None,
    sort_on_host: bool | None = None,
) -> tuple[Ranking, tuple[np.ndarray | jax.Array, ...]]:
    """Rank a block of units on each local device, for callers whose responses may lie on the devices already.

    Args:
      blocks: float32 [local devices, sentences, units], finite; zeros where there is no unit. A `jax.Array` laid
        out as `jax.pmap` does, axis 0 over `jax.local_devices()`, is not copied off an accelerator.
      sets: from `concept_sets`.
      first_unit: the number of the first unit of the first block; only for errors, as the next two.
      units: rows of the units' table for these units, the blocks side by side.
      sentences: [sentences].
      sort_on_host: None for on a CPU, where numpy's sort is many times faster than XLA's. Both give the same
        order; tests compare them.

    Returns:
      A ranking of the first contrast's concepts, arrays [local devices, concepts, units]; and the average precision
      of each other contrast's. They are numpy's on a CPU; elsewhere jax's, on the devices and perhaps not computed
      yet.

    Raises:
      ResponsesError: a response is NaN or infinite, or the shape or the dtype doesn't fit.
    """
    wanted = jax.local_device_count(), sets.num_all
    if np.ndim(blocks) != 3 or np.shape(blocks)[:2] != wanted or blocks.dtype != np.float32:
        raise ResponsesError(
            f"blocks are {blocks.dtype} {np.shape(blocks)}; wanted float32 [local devices, sentences, units] with "
            f"{wanted[0]} local devices and the contrast's {wanted[1]} sentences."
        )
    refusal = functools.partial(_refusal, first_unit=first_unit, units=units, sentences=sentences)
    if _on_cpu() if sort_on_host is None else sort_on_host:
        return _rank_on_host(_on_host(blocks), sets, _chunk(sets), refusal)
    return _rank_on_devices(blocks, sets, refusal)


def _on_cpu() -> bool:
    return jax.local_devices()[0].platform == "cpu"


def _chunk(sets: ConceptSets) -> int:
    """Return how many units a thread of a CPU ranks at once: a function of sentences and concepts alone, too.

    A power of two that a block is a multiple of, and not so few that a core's vector isn't filled.
    """
    cached = _CACHED // max(1, len(sets.sentences))
    return min(_CHUNK, max(_NARROWEST, 1 << max(0, cached.bit_length() - 1)))


def _even_blocks(sets: ConceptSets, num_units: int) -> int:
    """Return the width of as few blocks as `units_per_block` allows, all about as wide."""
    num_blocks = max(1, -(-num_units // units_per_block(sets.num_all, sets)))
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
        return list(blocks)
    shards = sorted(blocks.addressable_shards, key=lambda shard: jax.local_devices().index(shard.device))
    if len(shards) != len(blocks) or blocks.is_fully_replicated:
        return list(np.asarray(blocks))
    return [np.asarray(shard.data).reshape(blocks.shape[1:]) for shard in shards]


def _rank_on_host(
    blocks: Sequence[np.ndarray],
    sets: ConceptSets,
    chunk: int,
    refusal: Callable[[Sequence[np.ndarray]], ResponsesError],
    progress: Callable[[int], object] = lambda units: None,
) -> tuple[Ranking, tuple[np.ndarray, ...]]:
    """Ranks blocks [S, up to B], one for each device, with numpy's sort: arrays [D, C, B].

    XLA's program runs mostly on one core, and so does a sort: threads rank different chunks of units at once.
    Every chunk has the same width, and what is ranked together never depends on the number of threads or devices.
    """
    first, *others = sets.num_concepts
    widest = max(block.shape[1] for block in blocks)

    def room(num_concepts: int) -> np.ndarray:
        return np.empty((len(blocks), num_concepts, widest), np.float32)

    ranking = ranking_of(sets, lambda: room(first)), tuple(map(room, others))
    free: list[tuple[Orders, Scratch]] = []  # used again and again: new memory costs as much as the arithmetic

    def rank(start: int) -> int:
        parts = [block[:, start : start + chunk] for block in blocks]
        if not all(np.isfinite(part).all() for part in parts):
            raise refusal(blocks)
        orders, scratch = free.pop() if free else (empty_orders(sets, len(blocks), chunk), Scratch.empty(sets, chunk))
        for number, part in enumerate(_side_by_side(parts, chunk)):
            order_on_host(part, sets, jax.tree.map(operator.itemgetter(number), orders), scratch)
        ranked = parallel.on_each_device(measure, (0, None))(orders, sets)
        for table, each in zip(jax.tree.leaves(ranking), jax.tree.leaves(ranked), strict=True):
            here = table[:, :, start : start + chunk]
            here[:] = np.asarray(each)[:, :, : here.shape[2]]
        free.append((orders, scratch))  # only now, when nothing reads them any more
        return sum(part.shape[1] for part in parts)

    starts = range(0, widest, chunk)
    for start in starts[:1]:  # alone: threads that all find nothing compiled would each compile the same program
        progress(rank(start))
    with ThreadPoolExecutor(parallel.num_cores()) as threads:
        for num_units in threads.map(rank, starts[1:]):
            progress(num_units)
    return ranking


def _rank_on_devices(
    blocks: np.ndarray | jax.Array,
    sets: ConceptSets,
    refusal: Callable[[Sequence[np.ndarray]], ResponsesError],
) -> tuple[Ranking, tuple[jax.Array, ...]]:
    """Ranks float32 [D, S, B], one block on each device, without leaving them: arrays [D, C, B]."""
    if isinstance(blocks, np.ndarray):
        blocks = parallel.on_each_device(_as_it_is, (0,))(blocks)
    finite = parallel.on_each_device(_all_finite, (0,))(blocks)
    # Two programs, so that the second is the very one that measures what the host has sorted.
    orders = parallel.on_each_device(order_on_device, (0, None))(blocks, sets)
    ranking = parallel.on_each_device(measure, (0, None))(orders, sets)
    if not np.asarray(finite).all():
        raise refusal(list(np.asarray(blocks)))
    return ranking


def _as_it_is(values: jax.Array) -> jax.Array:
    return values


def _all_finite(values: jax.Array) -> jax.Array:
    return jnp.isfinite(values).all()


def _refusal(
    blocks: Sequence[np.ndarray], first_unit: int, units: pd.DataFrame | None, sentences: Sequence[str] | None
) -> ResponsesError:
    """Return the error that names a NaN or infinity in blocks [S, units of each]: such responses have no rank."""
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
