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

Everything below is a pure function of arrays; `expertise.py` turns it into a table with names.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import lax
from tqdm.auto import tqdm

from expertlens_jax.data.contrast import Contrast
from expertlens_jax.errors import ResponsesError

# A block of units holds about eight arrays of [sentences, units] in four bytes each at its peak.
_BYTES_PER_RESPONSE = 8 * 4
_BLOCK_BYTES = 2**28
# Counts are kept in float32, where integers are exact up to here.
_MOST_SENTENCES = 2**24


class Ranking(NamedTuple):
    """What the responses say of each (concept, unit), each float32 [concepts, units]."""

    average_precision: np.ndarray
    positive_median: np.ndarray
    positive_p90: np.ndarray
    negative_mean: np.ndarray


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
      units_per_block: units a device ranks at once; None takes as many as work in about 256 MB. The number of
        devices changes no byte of a result, the size of blocks at most a last digit. Calls with equal blocks
        and contrast shapes share one compilation.
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
    num_sentences, num_units = values.shape
    if num_sentences >= _MOST_SENTENCES:
        raise ResponsesError(
            f"{num_sentences} sentences; counts are exact for fewer than {_MOST_SENTENCES}. "
            "Rank fewer sentences, or fewer concepts (and their sentences) at a time."
        )
    if units_per_block is None:
        most = max(1, _BLOCK_BYTES // (_BYTES_PER_RESPONSE * max(1, num_sentences)))
        blocks = max(1, -(-num_units // most))
        units_per_block = max(1, -(-num_units // blocks))
    elif units_per_block < 1:
        raise ResponsesError(f"units_per_block={units_per_block}; wanted at least 1, or None to choose by memory.")

    values = np.asarray(values)
    num_concepts, num_devices = len(contrast.positives), jax.local_device_count()
    pool = np.flatnonzero(contrast.pool).astype(np.int32)
    # Binary searches are only for the sentences that some concept counts as a positive.
    searched = np.unique(contrast.positives[contrast.positives >= 0]).astype(np.int32)
    own_in_pool, others, other_corrections = _own_positives_apart(contrast)
    sets = _ConceptSets(
        positives=np.asarray(contrast.positives, np.int32),
        num_positives=np.asarray(contrast.num_positives, np.int32),
        searched=np.searchsorted(searched, contrast.positives).astype(np.int32),
        own_in_pool=own_in_pool,
        others=others,
        num_others=(others >= 0).sum(1, dtype=np.int32),
        other_corrections=other_corrections,
        corrected=np.asarray(contrast.corrected, np.int32),
        negative_weight=np.asarray(contrast.negative_weight, np.float32),
        pool_share=np.asarray(pool.size / contrast.num_negatives, np.float32),
        correction_shares=np.asarray(contrast.corrections / contrast.num_negatives[:, None], np.float32),
    )

    ranking = Ranking(*(np.empty((num_concepts, num_units), np.float32) for _ in Ranking._fields))
    with tqdm(total=num_units, desc="ranking units", unit=" units", disable=not progress) as bar:
        for start in range(0, num_units, units_per_block * num_devices):
            wide = values[:, start : start + units_per_block * num_devices]
            _refuse_nonfinite(wide, start, units, sentences)
            blocks = np.zeros((num_devices, num_sentences, units_per_block), np.float32)
            for device, block in enumerate(blocks):  # the last ones may be part empty: ranked, and cut below
                part = wide[:, device * units_per_block : (device + 1) * units_per_block]
                block[:, : part.shape[1]] = part
            ranked = _rank_blocks(blocks, pool, searched, sets)
            for table, by_device in zip(ranking, ranked, strict=True):
                side_by_side = np.concatenate(np.asarray(by_device), axis=1)  # of [devices, concepts, block]
                table[:, start : start + wide.shape[1]] = side_by_side[:, : wide.shape[1]]
            bar.update(wide.shape[1])
    return ranking


class _ConceptSets(NamedTuple):
    """Contrast's arrays, one row per concept, and where each positive stands among the searched sentences."""

    positives: jax.Array  # int32 [C, P], -1 at pads
    num_positives: jax.Array  # int32 [C]
    searched: jax.Array  # int32 [C, P], index into the searched sentences; anything at pads
    own_in_pool: jax.Array  # float32 [C], 1 where the pool holds the positives, which then aren't negatives
    others: jax.Array  # int32 [C, O], the corrected sentences besides those, -1 at pads
    num_others: jax.Array  # int32 [C]
    other_corrections: jax.Array  # float32 [C, O], 0 at pads
    corrected: jax.Array  # int32 [C, M], -1 at pads
    negative_weight: jax.Array  # float32 [C]
    pool_share: jax.Array  # float32 [C], the pool's sentences per negative
    correction_shares: jax.Array  # float32 [C, M], corrections per negative


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


def _rank_block(values: jax.Array, pool: jax.Array, searched: jax.Array, sets: _ConceptSets) -> Ranking:
    """Ranks one block: values [S, B], pool [N] and searched [R] sentence indices -> Ranking of [C, B]."""
    keys = _ordered_keys(values)

    # How many of the pool respond at least as strongly as each searched sentence: [R, B].
    sorted_pool = jnp.sort(keys[pool].T, axis=-1)
    weaker = jax.vmap(_count_below)(sorted_pool, keys[searched].T)
    pool_at_least = (pool.size - weaker).T.astype(jnp.float32)

    # Means are of centred responses, so that corrections cancel without loss; divided first, so that sums of
    # very large responses stay finite.
    centre = _sum_rows(values / values.shape[0])
    centred = values - centre
    pool_mean = _sum_rows(centred[pool] / max(1, pool.size))

    def rank_concept(concept: _ConceptSets) -> Ranking:
        is_positive = concept.positives >= 0  # pads read the last sentence, and this leaves them out
        positive_keys = keys[concept.positives]  # [P, B]

        def count_at_least(count: jax.Array, sentences: jax.Array, weights: jax.Array, number: jax.Array):  # noqa: ANN202
            # A loop rather than one [P, number, B] comparison: counts stay in cache, pads cost nothing, and
            # it is several times faster.
            def add(i: jax.Array, count: jax.Array) -> jax.Array:
                return count + jnp.where(keys[sentences[i]] >= positive_keys, weights[i], 0)

            return lax.fori_loop(0, number, add, count)

        none, ones = jnp.zeros(positive_keys.shape, jnp.float32), jnp.ones(len(is_positive), jnp.float32)
        positives_at_least = count_at_least(none, concept.positives, ones, concept.num_positives)
        of_pool = pool_at_least[concept.searched] - concept.own_in_pool * positives_at_least
        negatives_at_least = count_at_least(of_pool, concept.others, concept.other_corrections, concept.num_others)
        # The weakest positive has all positives at least as strong. Counted so, for each unit, their number
        # is no constant whose reciprocal a compiler may multiply by: a perfect unit has exactly 1.
        num_positives = jnp.max(positives_at_least, axis=0, initial=0, where=is_positive[:, None])  # [B]
        precision = positives_at_least / (positives_at_least + concept.negative_weight * negatives_at_least)
        average_precision = _sum_rows(jnp.where(is_positive[:, None], precision, 0)) / num_positives

        def quantile(q: float) -> jax.Array:
            # The counts already order the positives: the one at place r (from 0, ascending) is the greatest
            # of those with at most r others below them.
            below = num_positives - positives_at_least
            place = q * (num_positives - 1)
            low, high = (
                _responses(jnp.max(positive_keys, axis=0, initial=_LOWEST, where=is_positive[:, None] & (below <= r)))
                for r in (jnp.floor(place), jnp.ceil(place))
            )
            share = place - jnp.floor(place)
            return low * (1 - share) + high * share

        corrected = _sum_rows(concept.correction_shares[:, None] * centred[concept.corrected])
        negative_mean = centre + pool_mean * concept.pool_share + corrected
        return Ranking(average_precision, quantile(0.5), quantile(0.9), negative_mean)

    return lax.map(rank_concept, sets)


_rank_blocks = jax.pmap(_rank_block, in_axes=(0, None, None, None))

_LOWEST = np.int32(np.iinfo(np.int32).min)


def _ordered_keys(values: jax.Array) -> jax.Array:
    """float32 -> int32 of the same shape and order, -0.0 and 0.0 alike: integers sort several times faster.

    Sign and magnitude become two's complement. It is all integer arithmetic, so that responses too small for
    a device's normal floats keep their order too.
    """
    bits = lax.bitcast_convert_type(values, jnp.int32)
    return jnp.where(bits < 0, _LOWEST - bits, bits)


def _responses(keys: jax.Array) -> jax.Array:
    """int32 keys -> the float32 responses they stand for."""
    return lax.bitcast_convert_type(jnp.where(keys < 0, _LOWEST - keys, keys), jnp.float32)


def _sum_rows(rows: jax.Array) -> jax.Array:
    """float32 [N, B] -> [B], added in pairs: accurate, and in the same order on any number of devices."""
    while len(rows) > 1:
        half = len(rows) // 2
        rows = jnp.concatenate([rows[:half] + rows[half : 2 * half], rows[2 * half :]])
    return rows.sum(axis=0)


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


def _refuse_nonfinite(
    values: np.ndarray, start: int, units: pd.DataFrame | None, sentences: Sequence[str] | None
) -> None:
    """Refuses NaN and infinity in values [sentences, some units from `start` on]: they have no rank."""
    finite = np.isfinite(values)
    if finite.all():
        return
    sentence, column = np.argwhere(~finite)[0]
    unit = f"unit {start + column}"
    if units is not None:
        row = units.iloc[start + column]
        unit += f" (layer {row.layer}, site {row.site}, channel {row.channel})"
    text = f" ({sentences[sentence]!r})" if sentences is not None else ""
    raise ResponsesError(
        f"the response of {unit} to sentence {sentence}{text} is {values[sentence, column]}, one of "
        f"{(~finite).sum()} in this block of units that are not finite. Such responses can't be ranked: "
        "record them again in float32 or bfloat16, which hold more than float16, or leave that site out."
    )
