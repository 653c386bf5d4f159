"""From the order of a concept's entries to what is measured of a unit, by running sums and maxima along them.

    AP = mean over positives i of   P_i / (P_i + w N_i),
    AUROC = 1 - mean over positives i of   (N_i + n_i) / (2 N),

where P_i and N_i count the positives and the negatives whose response is at least that of i, n_i the negatives above
it, N all of them, and w is a negative's weight. N_i is the count of the pool, which the rank tells, and what the
entries so far have put into the pool or taken out of it. Loops have as many steps as the root of a group's entries,
which the program knows; each goes through all concepts at once.

Average precision of the responses with their signs turned counts, at each positive, all sentences but those above it.
Cohen's d is the difference of means over the pooled standard deviation.

The slope of the linear transport (see `distributions.py`) is the covariance of the sorted negatives a and positives b,
coupled as quantile functions, over the variance of the negatives. With P positives, the k-th of them meets the k-th
of P equal stretches of the negatives. In terms of F(x), the sum of the x strongest negatives less x times their mean,

    covariance = 1 / N sum over k = 1 ... P - 1 of   F(k N / P) (b_(k) - b_(k + 1)),

b strongest first. F is a running sum of the sorted pool, corrected by the entries above, of which a binary search
finds how many there are. No term is negative, so nothing cancels. Against float64 the slope differs by less than 1e-4
of itself, unless the negatives are nearly constant beside far stronger positives.

Sums are of responses centred on the unit's median and scaled by a power of two, and are kept with what rounding lost
(two-sum; Knuth, TAOCP 2, 4.2.2), so that taking strong positives out of the pool's sums leaves those of weak negatives.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from expertlens_jax.experts.concept_sets import ADDED, PAD, POSITIVE, REMOVED, ConceptSets, Group
from expertlens_jax.experts.orders import Array, Orders, Pool, responses_of
from expertlens_jax.settings import MORE_SCORES

# Beyond every count.
_NEVER = np.int32(2**30)


class Ranking(NamedTuple):
    """What responses say of each (concept, unit), each float32 [concepts, units]; None where it wasn't asked for."""

    average_precision: Array
    positive_median: Array
    positive_p90: Array
    positive_mean: Array
    negative_mean: Array
    auroc: Array
    transport_slope: Array | None = None
    # Those of `settings.MORE_SCORES`.
    average_precision_down: Array | None = None
    cohens_d: Array | None = None

    def measured(self) -> dict[str, Array]:
        """Return what was, by name."""
        return {name: values for name, values in self._asdict().items() if values is not None}


def ranking_of(sets: ConceptSets, room: Callable[[], np.ndarray]) -> Ranking:
    """Return room for all that is measured."""
    asked = {*sets.scores, *(("transport_slope",) if sets.transport else ())}
    left_out = {"transport_slope", *MORE_SCORES} - asked
    return Ranking(**{name: room() for name in Ranking._fields if name not in left_out})


class _Sum(NamedTuple):
    """A float32 sum, and what its rounding lost."""

    rounded: jax.Array
    lost: jax.Array

    def plus(self, term: jax.Array) -> "_Sum":
        total = self.rounded + term
        of_term = total - self.rounded
        return _Sum(total, self.lost + ((self.rounded - (total - of_term)) + (term - of_term)))

    def join(self, other: "_Sum") -> "_Sum":
        total, lost = self.plus(other.rounded)
        return _Sum(total, lost + other.lost)

    def value(self) -> jax.Array:
        return self.rounded + self.lost


class _Units(NamedTuple):
    """B units' responses, strongest first, and their pool's."""

    responses: jax.Array  # [T, B]
    scale: jax.Array  # [B], a power of two
    centre: jax.Array  # [B], scaled
    values: jax.Array  # [T, B], scaled and centred
    pool_values: jax.Array  # [N, B], or one row of zeros for no pool
    pool_running: jax.Array  # [N + 1, B], sums of the so many strongest of the pool
    pool_sum: _Sum  # [B]
    pool_squares: _Sum  # [B]


def measure(orders: Orders, sets: ConceptSets) -> tuple[Ranking, tuple[jax.Array, ...]]:
    """Measure B units: a ranking of the first contrast's concepts, [C, B] each, and the others' AP."""
    units = _measure_units(orders.keys, orders.pools[0])
    parts = [[] for _ in sets.rows]
    for group, entries, positives in zip(sets.groups, orders.entries, orders.positives, strict=True):
        first = group.contrasts[0]
        if first:
            counts = _count_for_precision(group, entries, orders.pools[first], len(orders.keys))
        else:
            ranking, counts = _measure_group(group, entries, positives, orders, units, sets)
            parts[0].append(ranking)
        for number, per_negative in zip(group.contrasts, group.per_negative, strict=True):
            if number:
                parts[number].append(_average_precision(group, counts, per_negative))
    first, *others = (
        jax.tree.map(lambda *of_groups, rows=rows: jnp.concatenate(of_groups)[rows], *each)
        for each, rows in zip(parts, sets.rows, strict=True)
    )
    return first, tuple(others)


def _measure_units(keys: Array, pool: Pool | None) -> _Units:
    responses = responses_of(keys)
    size = len(keys)
    largest = jnp.maximum(jnp.abs(responses[0]), jnp.abs(responses[-1]))
    exponent = lax.bitcast_convert_type(largest, jnp.int32) >> 23
    scale = lax.bitcast_convert_type(jnp.clip(252 - exponent, 1, 254) << 23, jnp.float32)
    scaled = responses * scale
    centre = scaled[size // 2]
    values = scaled - centre
    pool_values = values
    if pool is not None:
        assert pool.keys is not None  # as the first contrast's pool has
        pool_values = responses_of(pool.keys) * scale - centre
        if not len(pool_values):
            pool_values = jnp.zeros((1, *values.shape[1:]))
    running, total, squares = _running_sums(pool_values, pool_values * pool_values)
    return _Units(responses, scale, centre, values, pool_values, running, total, squares)


def _running_sums(values: jax.Array, products: jax.Array) -> tuple[jax.Array, _Sum, _Sum]:
    """[N, ...] -> sums of the first 0 ... N rows, [N + 1, ...]; the sum of all, and that of all rows of products."""
    pieces = _in_pieces(values, 0), _in_pieces(products, 0)
    zero = jax.tree.map(jnp.zeros_like, (_Sum(pieces[0][:, 0], pieces[0][:, 0]),) * 2)

    def step(so_far: tuple[_Sum, _Sum], rows: tuple[jax.Array, jax.Array]) -> tuple[tuple[_Sum, _Sum], jax.Array]:
        total = so_far[0].plus(rows[0])
        return (total, so_far[1].plus(rows[1])), total.value()

    totals, within = _through_pieces(step, zero, pieces)

    def next_piece(so_far: tuple[_Sum, _Sum], piece: tuple[_Sum, _Sum]) -> tuple[tuple[_Sum, _Sum], jax.Array]:
        return (so_far[0].join(piece[0]), so_far[1].join(piece[1])), so_far[0].value()

    (total, of_products), before = lax.scan(next_piece, jax.tree.map(lambda each: each[0], zero), totals)
    running = _in_a_row(within + before[:, None], len(values))
    return jnp.concatenate([jnp.zeros_like(running[:1]), running]), total, of_products


def _running(combine: Callable, rows: jax.Array, start: int) -> jax.Array:
    """int32 [N, ...] -> what the rows up to each make, combined with one another; `start` changes nothing."""
    pieces = _in_pieces(rows, start)

    def step(so_far: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        so_far = combine(so_far, rows)
        return so_far, so_far

    totals, within = _through_pieces(step, jnp.full_like(pieces[:, 0], start), pieces)
    _, before = lax.scan(
        lambda so_far, piece: (combine(so_far, piece), so_far), jnp.full_like(totals[0], start), totals
    )
    return _in_a_row(combine(within, before[:, None]), len(rows))


def _in_pieces(rows: jax.Array, pad: int) -> jax.Array:
    """[N, ...] -> [pieces, length, ...], about as many as each is long.

    All are gone through at once, row by row, and then one after the other: few steps for a device, of many numbers.
    """
    length = max(1, int(np.sqrt(len(rows))))
    count = -(-len(rows) // length)
    rows = jnp.pad(rows, ((0, count * length - len(rows)), *((0, 0),) * (rows.ndim - 1)), constant_values=pad)
    return rows.reshape(count, length, *rows.shape[1:])


def _through_pieces(step: Callable, start: Any, pieces: Any) -> tuple[Any, Any]:
    """Do as `lax.scan` of the second axis of [pieces, length, ...]: rows are read, and put, where they lie.

    That goes through the first axis alone; to have all transposed for it, and back, takes a CPU longer than the sums.
    """
    row_of = functools.partial(lax.dynamic_index_in_dim, axis=1, keepdims=False)
    first = jax.tree.leaves(pieces)[0]
    _, out = jax.eval_shape(step, start, jax.tree.map(lambda each: each[:, 0], pieces))

    def body(place: jax.Array, so_far: tuple[Any, Any]) -> tuple[Any, Any]:
        state, kept = so_far
        state, row = step(state, jax.tree.map(lambda each: row_of(each, place), pieces))
        put = functools.partial(lax.dynamic_update_index_in_dim, index=place, axis=1)
        return state, jax.tree.map(put, kept, row)

    room = jax.tree.map(lambda each: jnp.zeros((each.shape[0], first.shape[1], *each.shape[1:]), each.dtype), out)
    return lax.fori_loop(0, first.shape[1], body, (start, room))


def _in_a_row(pieces: jax.Array, size: int) -> jax.Array:
    """`_in_pieces` undone."""
    return pieces.reshape(-1, *pieces.shape[2:])[:size]


def _total(rows: jax.Array) -> _Sum:
    """Return the sum of float32 [N, ...] along N."""
    if not len(rows):
        return _Sum(jnp.zeros(rows.shape[1:]), jnp.zeros(rows.shape[1:]))
    pieces = _in_pieces(rows, 0)
    zero = _Sum(jnp.zeros_like(pieces[:, 0]), jnp.zeros_like(pieces[:, 0]))
    totals, _ = _through_pieces(lambda so_far, row: (so_far.plus(row), None), zero, pieces)
    zero = jax.tree.map(lambda each: each[0], zero)
    return lax.scan(lambda so_far, piece: (so_far.join(piece), None), zero, totals)[0]


def _at(table: Array, places: Array) -> jax.Array:
    """table [N, B] at places [..., B] of each unit's own."""
    width, columns = _in_flat(table.shape[1:])
    return jnp.asarray(table).reshape(-1).at[places * width + columns].get(mode="promise_in_bounds")


class _Counts(NamedTuple):
    """What is counted at each of a group's entries, strongest first: int32 [L, C, B]."""

    positives: jax.Array  # so far
    positives_above: jax.Array  # that are stronger
    gained: jax.Array  # positives that end with the entry: those of its ties if it is the last of them, else 0
    added: jax.Array  # to the pool's count by the entries so far, less those taken out
    negatives: Array  # at least as strong, at the last of ties
    above: Array | None  # negatives that are stronger, or are entries, added to the pool, so far


def _count(group: Group, entries: Array, pool_at_least: Array, pool_above: Array | None) -> _Counts:
    """Count at entries [L + 1, C, B] but the last, a pad."""
    kinds, ranks = entries[:-1] & 3, entries >> 2
    own = group.own_in_pool[:, None]
    place = lax.broadcasted_iota(jnp.int32, kinds.shape, 0)
    last = ranks[:-1] != ranks[1:]

    def so_far(kind: int) -> jax.Array:
        return _running(jnp.add, (kinds == kind).astype(jnp.int32), 0)

    def before_ties(count: Array) -> jax.Array:
        ended = jnp.where(last, count, 0)
        return _running(jnp.maximum, jnp.concatenate([jnp.zeros_like(ended[:1]), ended[:-1]]), 0)

    put_in = jnp.zeros_like(kinds)
    if not group.others.shape[1]:
        positives = jnp.minimum(place + 1, group.num_positives[:, None])
        taken = own * positives
    elif group.removes_only:
        positives, taken = so_far(POSITIVE), place + 1
    else:
        positives, put_in = so_far(POSITIVE), so_far(ADDED)
        taken = own * positives + so_far(REMOVED)
    positives_above = before_ties(positives)
    above = None
    if pool_above is not None:
        taken_above = before_ties(taken) if group.others.shape[1] else own * positives_above
        above = pool_above - taken_above + put_in
    added = put_in - taken
    gained = jnp.where(last, positives - positives_above, 0)
    return _Counts(positives, positives_above, gained, added, pool_at_least + added, above)


def _average_precision(group: Group, counts: _Counts, per_negative: Array) -> jax.Array:
    """[C, B], where so many negatives [C] weigh as much as a positive."""
    positives, negatives, gained = (
        each.astype(jnp.float32) for each in (counts.positives, counts.negatives, counts.gained)
    )
    precision = positives / (positives + negatives / _by_unit(per_negative, group, counts))
    total = _total(jnp.where(gained > 0, gained * precision, 0)).value()
    return total / _by_unit(group.num_positives, group, counts)


def _average_precision_down(group: Group, kinds: jax.Array, counts: _Counts) -> jax.Array:
    """[C, B], of the responses with their signs turned: at most as strong is then at least as strong."""
    positives = (group.num_positives[:, None] - counts.positives_above).astype(jnp.float32)
    assert counts.above is not None  # as in `_measure_group`
    negatives = (group.num_negatives[:, None] - counts.above).astype(jnp.float32)
    precision = positives / (positives + negatives / _by_unit(group.per_negative[0], group, counts))
    total = _total(jnp.where(kinds == POSITIVE, precision, 0)).value()
    return total / _by_unit(group.num_positives, group, counts)


def _cohens_d(
    positives: jax.Array,
    is_positive: jax.Array,
    means: tuple[jax.Array, jax.Array],
    size: jax.Array,
    counted: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """Return the difference of means over the pooled standard deviation, [C, B] (Cohen 1988).

    It is 0 where means don't differ.

    It is infinite where they do, and responses of neither kind vary.

    Args:
      positives: [P, C, B].
      is_positive: bool [P, C, B].
      means: of the positives, and of the negatives.
      size: the negatives' root mean square.
      counted: how many there are of either.
    """
    (of_positives, of_negatives), (num_positives, num_negatives) = means, counted
    away = jnp.where(is_positive, positives - of_positives, 0)
    variance = jnp.maximum((size - jnp.abs(of_negatives)) * (size + jnp.abs(of_negatives)), 0)
    squares = _total(away * away).value() + jnp.where(num_negatives > 1, num_negatives * variance, 0)
    difference = of_positives - of_negatives
    deviation = jnp.sqrt(squares / jnp.maximum(num_positives + num_negatives - 2, 1))
    return jnp.where(difference == 0, 0, difference / deviation)


def _by_unit(numbers: Array, group: Group, counts: _Counts) -> jax.Array:
    """[..., C] -> float32 [..., C, B], to divide by.

    Were it plain that a divisor is the same for all units, a compiler might multiply by its reciprocal instead, on
    one number of devices and not on another. So what adds nothing is counted for each unit.
    """
    nothing = counts.positives[-1] - group.num_positives[:, None]
    return jnp.asarray(numbers)[..., None].astype(jnp.float32) + nothing.astype(jnp.float32)


def _count_for_precision(group: Group, entries: Array, pool: Pool | None, size: int) -> _Counts:
    """Count what average precision alone asks for."""
    ranks = jnp.minimum(entries[:-1] >> 2, size)
    return _count(group, entries, ranks if pool is None else _at(pool.counts, ranks), None)


def _measure_group(
    group: Group,
    entries: Array,
    positives: Array | None,
    orders: Orders,
    units: _Units,
    sets: ConceptSets,
) -> tuple[Ranking, _Counts]:
    """Of [C, B] each, and what was counted for it."""
    size = len(orders.keys)
    kinds, ranks = entries[:-1] & 3, jnp.minimum(entries[:-1] >> 2, size)
    pool = orders.pools[0]
    pool_at_least, pool_above = ranks, _at(orders.above, ranks - 1)
    if pool is not None:
        pool_at_least, pool_above = _at(pool.counts, ranks), _at(pool.counts, pool_above)
    counts = _count(group, entries, pool_at_least, pool_above)
    own = group.own_in_pool[:, None]
    num_positives, num_negatives = (
        _by_unit(each, group, counts) for each in (group.num_positives, group.num_negatives)
    )
    # Positives are the first of their ties: all that has been put into the pool so far is stronger.
    misplaced = counts.gained.astype(jnp.float32) * counts.negatives.astype(jnp.float32)
    assert counts.above is not None  # as `pool_above` was given
    above = jnp.where(kinds == POSITIVE, counts.above, 0).astype(jnp.float32)
    misplaced = _total(misplaced).join(_total(above)).value()

    values = jnp.where(kinds == PAD, 0, _at(units.values, ranks - 1))
    signs = jnp.where(kinds == POSITIVE, -own, jnp.where(kinds == ADDED, 1, jnp.where(kinds == REMOVED, -1, 0)))
    signed = values * signs.astype(jnp.float32)
    running, corrected, squares = _running_sums(signed, signed * values)
    negative_mean = corrected.join(units.pool_sum).value() / num_negatives
    strongest = ranks[: group.positives.shape[1]] if positives is None else jnp.minimum(positives, size)
    positive_values = values[: len(strongest)] if positives is None else _at(units.values, strongest - 1)
    is_positive = lax.broadcasted_iota(jnp.int32, strongest.shape, 0) < group.num_positives[:, None]
    positive_mean = _total(jnp.where(is_positive, positive_values, 0)).value() / num_positives

    def quantile(low: Array, high: Array, per_low: Array, per_high: Array) -> jax.Array:
        weaker, stronger = (
            _at(units.responses, jnp.take_along_axis(strongest, each[None, :, None], axis=0)[0] - 1)
            for each in (low, high)
        )
        return weaker / _by_unit(per_low, group, counts) + stronger / _by_unit(per_high, group, counts)

    median, p90 = map(quantile, group.low, group.high, group.per_low, group.per_high)
    ranking = Ranking(
        average_precision=_average_precision(group, counts, group.per_negative[0]),
        positive_median=median,
        positive_p90=p90,
        positive_mean=(units.centre + positive_mean) / units.scale,
        negative_mean=(units.centre + negative_mean) / units.scale,
        auroc=1 - misplaced / (num_positives * num_negatives * 2),
        transport_slope=_transport_slope(
            group, values, kinds, positive_values, counts, running, negative_mean, squares, units
        )
        if sets.transport
        else None,
    )
    if "average_precision_down" in sets.scores:
        ranking = ranking._replace(average_precision_down=_average_precision_down(group, kinds, counts))
    if "cohens_d" in sets.scores:
        size = jnp.sqrt(squares.join(units.pool_squares).value() / num_negatives)
        means = positive_mean, negative_mean
        cohens_d = _cohens_d(positive_values, is_positive, means, size, (num_positives, num_negatives))
        ranking = ranking._replace(cohens_d=cohens_d)
    return ranking, counts


def _transport_slope(
    group: Group,
    values: jax.Array,
    kinds: jax.Array,
    positive_values: jax.Array,
    counts: _Counts,
    running: jax.Array,
    mean: jax.Array,
    squares: _Sum,
    units: _Units,
) -> jax.Array:
    """Return the slope, [C, B], of L entries, P positives strongest first, and P + 1 stretches of negatives.

    Args:
      group: C concepts.
      values: [L, C, B], of entries.
      kinds: int32 [L, C, B].
      positive_values: [P, C, B].
      counts: at the entries.
      running: [L + 1, C, B], what so many entries add to the pool's sum.
      mean: [C, B], of the negatives.
      squares: [C, B], what all entries add to the sum of squares.
      units: B of them.
    """
    stretches = group.stretches[:, :, None]
    # An entry is passed by the negative that many are above, or by the one after if it's a negative itself. Among ties
    # entries stand before the rest of the pool, those taken out of it first; so they ascend.
    assert counts.above is not None  # as in `_measure_group`
    above = jnp.where(kinds == PAD, _NEVER, counts.above)
    passed = _count_up_to(above, stretches)  # entries before each stretch
    if group.removes_only:
        place = stretches + passed  # in the pool
    else:
        place = stretches - _along(jnp.concatenate([jnp.zeros_like(counts.added[:1]), counts.added]), passed)
    here = _at(units.pool_values, jnp.clip(place, 0, len(units.pool_values) - 1))
    if not group.removes_only:
        # The next negative may be an added one.
        following = jnp.minimum(passed, len(values) - 1)
        is_next = (_along(kinds, following) == ADDED) & (_along(above, following) == stretches + 1)
        here = jnp.where(is_next & (passed < len(values)), _along(values, following), here)
    strongest_sum = _at(units.pool_running, jnp.clip(place, 0, len(units.pool_running) - 1)) + _along(running, passed)
    excess = strongest_sum + here / _by_unit(group.per_fraction, group, counts)
    excess -= mean / _by_unit(group.per_place, group, counts)
    falls = positive_values[:-1] - positive_values[1:]  # between one stretch and the next
    within = lax.broadcasted_iota(jnp.int32, falls.shape, 0) + 1 < group.num_positives[:, None]
    covariance = _total(jnp.where(within, excess[1:-1] * falls, 0)).value()
    num_negatives = _by_unit(group.num_negatives, group, counts)
    size = jnp.sqrt(squares.join(units.pool_squares).value() / num_negatives)
    variance = (size - jnp.abs(mean)) * (size + jnp.abs(mean))
    constant = (here[0] == here[-1]) | ~(variance > 0)  # the strongest and the weakest
    return jnp.where(constant, 0, covariance / (num_negatives * jnp.where(constant, 1, variance)))


def _along(rows: jax.Array, places: jax.Array) -> jax.Array:
    """rows [L, C, B] at places [M, C, B] of each (concept, unit)'s own."""
    width, columns = _in_flat(rows.shape[1:])
    return rows.reshape(-1).at[places * width + columns].get(mode="promise_in_bounds")


def _in_flat(shape: tuple[int, ...]) -> tuple[int, jax.Array]:
    """Return how long a row of `shape` is, and the place in it of each of its numbers, int32 of that shape."""
    width = math.prod(shape)
    return width, jnp.arange(width, dtype=jnp.int32).reshape(shape)


def _count_up_to(ascending: Array, limits: Array) -> jax.Array:
    """Return how many of int32 [L, C, B], ascending along L, are at most each of int32 [M, C, 1]: int32 [M, C, B]."""
    steps = len(ascending).bit_length()
    padded = jnp.pad(ascending, ((0, 2**steps - len(ascending)), (0, 0), (0, 0)), constant_values=_NEVER)
    count = jnp.zeros((len(limits), *ascending.shape[1:]), jnp.int32)
    for step in reversed(range(steps)):
        count = jnp.where(_along(padded, count + (2**step - 1)) <= limits, count + 2**step, count)
    return count
