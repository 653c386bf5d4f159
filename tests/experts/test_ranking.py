"""Blocks ranked where they lie: the host's sort against the device's, eight devices against one, and refusals."""

import dataclasses
import time

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from expertlens_jax import parallel
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import Contrast, contrast_concepts
from expertlens_jax.errors import ResponsesError
from expertlens_jax.experts import ranking
from expertlens_jax.experts.concept_sets import concept_sets
from expertlens_jax.experts.distributions import area_under_roc, transport_slope
from expertlens_jax.experts.orders import Scratch, empty_orders, order_on_device, order_on_host
from expertlens_jax.experts.ranking import rank_blocks, rank_units, units_per_block

AWKWARD = np.array([0.0, -0.0, 1e-45, -1e-45, 1e-38, 1, np.nextafter(1, 2), -1, 3e38, -3e38], np.float32)


def case(num_units, *, ties, sampled=False, pool=None):
    """Responses [30, num_units] and their contrast; with ties, of few different numbers."""
    rng = np.random.default_rng(7)
    labels = np.repeat(np.eye(3, dtype=bool), [6, 10, 7], axis=1)
    labels = np.concatenate([labels, np.zeros((3, 7), bool)], axis=1)
    sentences = tuple(f"sentence {i}" for i in range(30))
    pool = np.ones(30, bool) if pool is None else pool
    concepts = ConceptDataset("made", sentences, ("cat", "dog", "rain"), ("a", "a", "w"), labels, pool)
    values = rng.choice(AWKWARD, (30, num_units)) if ties else rng.normal(size=(30, num_units)).astype(np.float32)
    return values, contrast_concepts(concepts, negatives_per_positive=1.1, sampled=sampled)


POOLS = {"all": np.arange(30), "some": np.arange(3, 30, 2), "other": np.arange(23, 30), "none": np.arange(0)}


def contrast_of(pool, searched, num_sentences):
    """One concept, of the searched sentences, against a pool that it doesn't correct."""
    none = np.zeros((1, 0))
    in_pool = np.isin(np.arange(num_sentences), pool)
    return Contrast(searched[None], in_pool, none.astype(np.int32), none.astype(np.float32), np.ones(1, np.float32))


def counts_of(orders, sets):
    """How many of the pool are at least as strong as each positive, and how many stronger: ascending, [P, B]."""
    ranks = orders.entries[0][:-1, 0] >> 2
    above = np.take_along_axis(orders.above, ranks - 1, axis=0)
    if orders.pools[0] is None:
        return ranks, above
    counts = orders.pools[0].counts
    return np.take_along_axis(counts, ranks, axis=0), np.take_along_axis(counts, above, axis=0)


def both_orders(values, sets):
    """By numpy, and by XLA."""
    on_host = empty_orders(sets, values.shape[1])
    order_on_host(values, sets, on_host, Scratch.empty(sets, values.shape[1]))
    return on_host, jax.tree.map(np.asarray, jax.jit(order_on_device)(values, sets))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("pool", POOLS)
def test_host_and_device_count_what_a_comparison_counts(pool, ties):
    values, _ = case(5, ties=ties)
    pool, searched = POOLS[pool].astype(np.int32), np.arange(0, 23, dtype=np.int32)
    sets = concept_sets(contrast_of(pool, searched, 30))
    pairs = values[pool, None], values[None, searched]
    want = np.sort((pairs[0] >= pairs[1]).sum(axis=0), axis=0), np.sort((pairs[0] > pairs[1]).sum(axis=0), axis=0)
    on_host, on_device = both_orders(values, sets)
    for orders in (on_host, on_device):
        np.testing.assert_array_equal(counts_of(orders, sets), want)
    for host, device in zip(jax.tree.leaves(on_host), jax.tree.leaves(on_device), strict=True):
        np.testing.assert_array_equal(host, device)


@pytest.mark.parametrize("different", [99, 10**9])
def test_many_and_few_ties_are_counted_alike(different):
    rng = np.random.default_rng(0)
    values = rng.integers(-different, different, (40_000, 3)).astype(np.float32)
    pool, searched = (np.sort(rng.permutation(40_000)[:n]).astype(np.int32) for n in (30_000, 50))
    sets = concept_sets(contrast_of(pool, searched, 40_000))
    on_host = empty_orders(sets, 3)
    order_on_host(values, sets, on_host, Scratch.empty(sets, 3))
    want = np.sort([(values[pool] >= values[sentence]).sum(axis=0) for sentence in searched], axis=0)
    np.testing.assert_array_equal(counts_of(on_host, sets)[0], want)


def test_minus_zero_ties_with_zero():
    values, contrast = case(128, ties=True)
    plus = np.where(values == 0, np.float32(0), values)
    minus = np.where(values == 0, np.float32(-0.0), values)
    rankings = [rank_units(zeros, contrast).measured().values() for zeros in (values, plus, minus)]
    for tables in zip(*rankings, strict=True):
        for table in tables[1:]:
            np.testing.assert_array_equal(table, tables[0])


def test_units_per_block_is_about_256_megabytes():
    assert units_per_block(7040) == 1152
    assert units_per_block(10**6) == 8
    assert units_per_block(2**24) == 1
    assert units_per_block(0) > 0


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("sort_on_host", [False, True])
def test_a_response_without_a_rank_is_refused_by_name(sort_on_host, on_device):
    values, contrast = case(4, ties=False)
    sets = concept_sets(contrast)
    blocks = np.zeros((jax.local_device_count(), 30, 4), np.float32)
    blocks[0] = values
    blocks[0, 9, 2], blocks[0, 11, 0] = np.nan, np.inf
    units = pd.DataFrame({"layer": [0, 0, 5, 5], "site": "mlp.up", "channel": range(4)}, index=range(100, 104))
    given = jax.pmap(lambda block: block)(blocks) if on_device else blocks
    named = r"unit 102 \(layer 5, site mlp.up, channel 2\) to sentence 9 \('s9'\) is nan, one of 2 in this block"
    with pytest.raises(ResponsesError, match=named):
        sentences = [f"s{i}" for i in range(30)]
        rank_blocks(given, sets, first_unit=100, units=units, sentences=sentences, sort_on_host=sort_on_host)
    with pytest.raises(ResponsesError, match="the response of unit 2 to sentence 9 is nan"):
        rank_blocks(given, sets, sort_on_host=sort_on_host)


def test_blocks_that_do_not_fit_are_refused():
    values, contrast = case(4, ties=False)
    sets, devices = concept_sets(contrast), jax.local_device_count()
    for blocks in (values, np.zeros((devices, 29, 4), np.float32), np.zeros((devices, 30, 4))):
        with pytest.raises(ResponsesError, match=rf"{devices} local devices and the contrast's 30 sentences"):
            rank_blocks(blocks, sets)


def test_threads_that_rank_wait_for_what_the_first_chunk_compiles(monkeypatch):
    seen, on_each_device = [], parallel.on_each_device

    def watched(work, in_axes):
        def run(*arguments):
            seen.append("begins")
            ranked = on_each_device(work, in_axes)(*arguments)
            time.sleep(0.2)  # in which other threads would begin
            seen.append("ends")
            return ranked

        return run

    monkeypatch.setattr(parallel, "on_each_device", watched)
    monkeypatch.setattr(ranking.parallel, "num_cores", lambda: 4)
    values, contrast = case(3 * 128 * jax.local_device_count(), ties=False)  # three chunks
    rank_units(values, contrast, transport=False)
    assert len(seen) == 6 and seen[:2] == ["begins", "ends"]


@pytest.mark.models  # compiles for long: a case of four each time
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_every_unit_s_slope_and_area_are_those_of_the_samples_themselves(sampled, ties):
    """Concepts of many sizes, so that they're ranked in groups, and mentions, so that the pool is corrected."""
    rng = np.random.default_rng(3)
    sizes = (2, 5, 90, 300)
    labels = np.repeat(np.eye(4, dtype=bool), sizes, axis=1)
    labels = np.concatenate([labels, np.zeros((4, 500), bool)], axis=1)
    names = ("cat", "dog", "car", "cow")
    sentences = tuple(f"a {names[i % 4]} of {i}" if i % 9 == 0 else f"sentence {i}" for i in range(labels.shape[1]))
    concepts = ConceptDataset("made", sentences, names, ("",) * 4, labels, np.ones(len(sentences), bool))
    contrast = contrast_concepts(concepts, sampled=sampled, negatives_per_positive=1.3)
    assert len(concept_sets(contrast).groups) > 1
    values = (rng.normal(size=(len(sentences), 16)) + 2 * labels[2][:, None]).astype(np.float32)
    values[:, 8:] = np.exp(values[:, 8:])
    if ties:
        values = np.maximum(values.round(1), 0.3)
        values[~labels[2], 0] = 1  # constant but for one concept's positives
    ranking, weights = rank_units(values, contrast), contrast.weights()
    for row, (mine, weight) in enumerate(zip(labels, weights, strict=True)):
        positives, negatives = (values[rows].astype(np.float64) for rows in (mine, (weight > 0) & ~mine))
        np.testing.assert_allclose(ranking.auroc[row], area_under_roc(positives, negatives), atol=1e-6)
        np.testing.assert_allclose(ranking.transport_slope[row], transport_slope(negatives, positives), rtol=1e-4)
    bare = rank_units(values, contrast, transport=False)
    assert bare.transport_slope is None
    np.testing.assert_array_equal(bare.auroc, ranking.auroc)
    np.testing.assert_array_equal(bare.average_precision, ranking.average_precision)


def test_one_positive_a_concept_is_ranked_and_transported_to():
    """Words read alone, each a concept: what is transported to is one response, so the slope is 0."""
    rng = np.random.default_rng(4)
    words = ("cat", "dog", "car", "cow", "sun")
    concepts = ConceptDataset("words", words, words, ("",) * 5, np.eye(5, dtype=bool), np.ones(5, bool))
    values = rng.normal(size=(5, 12)).astype(np.float32)
    contrast = contrast_concepts(concepts)
    ranking = rank_units(values, contrast)
    for row, mine in enumerate(np.eye(5, dtype=bool)):
        area = area_under_roc(values[mine], values[~mine])
        np.testing.assert_allclose(ranking.auroc[row], area, atol=1e-6)
        np.testing.assert_array_equal(ranking.transport_slope[row], transport_slope(values[~mine], values[mine]))
        np.testing.assert_allclose(ranking.positive_median[row], values[row], atol=1e-6)


@pytest.mark.parametrize("sort_on_host", [True, False])
def test_contrasts_that_differ_by_weights_alone_are_counted_once(sort_on_host):
    values, first = case(64, ties=True)
    _, sampled = case(64, ties=True, sampled=True)
    heavier, lighter = (dataclasses.replace(first, negative_weight=each * first.negative_weight) for each in (9, 0.1))
    contrasts = (first, heavier, sampled, lighter)
    sets = concept_sets(*contrasts, transport=False)
    assert {group.contrasts for group in sets.groups} == {(0, 1, 3), (2,)}
    blocks = np.broadcast_to(values, (jax.local_device_count(), *values.shape))
    ranking, others = rank_blocks(blocks, sets, sort_on_host=sort_on_host)
    together = (ranking.average_precision, *others)
    assert len(together) == len(contrasts)
    for got, contrast in zip(together, contrasts, strict=True):
        alone, _ = rank_blocks(blocks, concept_sets(contrast, transport=False), sort_on_host=sort_on_host)
        assert np.asarray(got).tobytes() == np.asarray(alone.average_precision).tobytes()
        labels = np.arange(30) == contrast.positives[..., None]
        weight = contrast.weights()[1]
        want = average_precision_score(labels[1].any(axis=0), values[:, 5], sample_weight=weight)
        np.testing.assert_allclose(np.asarray(got)[0, 1, 5], want, atol=1e-6)
