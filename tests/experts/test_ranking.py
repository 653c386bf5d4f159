"""Blocks ranked where they lie: the host's sort against the device's, eight devices against one, and refusals."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pandas as pd
import pytest

from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import contrast_concepts
from expertlens_jax.errors import ResponsesError
from expertlens_jax.experts.pool_counts import count_on_device, count_on_host
from expertlens_jax.experts.ranking import concept_sets, rank_blocks, rank_units, units_per_block

one_cpu = pytest.mark.skipif(
    jax.default_backend() != "cpu" or jax.local_device_count() > 1, reason="compares with one CPU"
)
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


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("pool", POOLS)
def test_host_and_device_count_what_a_comparison_counts(pool, ties):
    values, _ = case(5, ties=ties)
    pool, searched = POOLS[pool].astype(np.int32), np.arange(0, 23, dtype=np.int32)
    want = (values[pool, None] >= values[None, searched]).sum(axis=0)
    np.testing.assert_array_equal(count_on_host(values, pool, searched), want)
    np.testing.assert_array_equal(jax.jit(count_on_device)(values, pool, searched), want)


def test_the_host_counts_more_numbers_than_it_sorts_at_once():
    rng = np.random.default_rng(0)
    values = rng.integers(-99, 99, (40_000, 3)).astype(np.float32)
    pool, searched = (np.sort(rng.permutation(40_000)[:n]).astype(np.int32) for n in (30_000, 50))
    want = [(values[pool] >= values[sentence]).sum(axis=0) for sentence in searched]
    np.testing.assert_array_equal(count_on_host(values, pool, searched), want)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("how", [{}, {"sampled": True}, {"pool": np.arange(30) >= 4}])
def test_host_sort_and_device_sort_give_the_same_bytes(how, ties):
    values, contrast = case(128 * jax.local_device_count(), ties=ties, **how)
    sets = concept_sets(contrast)
    blocks = np.ascontiguousarray(values.reshape(30, -1, 128).transpose(1, 0, 2))
    on_host, on_device = (rank_blocks(blocks, sets, sort_on_host=on_host) for on_host in (True, False))
    of_units = rank_units(values, contrast)
    for host, device, units in zip(on_host, on_device, of_units, strict=True):
        assert host.shape == (len(blocks), 3, 128)
        assert np.asarray(device).tobytes() == host.tobytes()
        assert np.concatenate(host, axis=1).tobytes() == units.tobytes()


def test_minus_zero_ties_with_zero():
    values, contrast = case(128, ties=True)
    plus = np.where(values == 0, np.float32(0), values)
    minus = np.where(values == 0, np.float32(-0.0), values)
    for tables in zip(*(rank_units(zeros, contrast) for zeros in (values, plus, minus)), strict=True):
        for table in tables[1:]:
            np.testing.assert_array_equal(table, tables[0])


@one_cpu
def test_blocks_on_eight_devices_give_the_bytes_of_one(tmp_path):
    values, contrast = case(8 * 200, ties=False)
    np.savez(tmp_path / "in.npz", values=values, **dataclasses.asdict(contrast))
    script = """
import sys
import jax, numpy as np
from expertlens_jax.data.contrast import Contrast
from expertlens_jax.experts.ranking import concept_sets, rank_blocks
given = dict(np.load(sys.argv[1]))
blocks = np.ascontiguousarray(given.pop("values").reshape(30, 8, 200).transpose(1, 0, 2))
on_devices = jax.pmap(lambda block: block)(blocks)
assert len(on_devices.sharding.device_set) == 8
sets = concept_sets(Contrast(**given))
for name, given in (("host", blocks), ("devices", on_devices)):
    np.save(f"{sys.argv[2]}/{name}.npy", np.stack(rank_blocks(given, sets)))
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", script, tmp_path / "in.npz", tmp_path]
    subprocess.run(command, check=True, env=os.environ | flags, cwd=pathlib.Path(__file__).parents[2])
    of_one = np.stack(rank_units(values, contrast))
    for name in ("host", "devices"):
        in_a_row = np.concatenate(np.load(tmp_path / f"{name}.npy").swapaxes(0, 1), axis=2)
        assert in_a_row.tobytes() == of_one.tobytes(), name


@one_cpu
def test_the_number_of_threads_changes_no_byte(monkeypatch):
    values, contrast = case(1000, ties=False)
    of_all = rank_units(values, contrast)
    monkeypatch.setattr("expertlens_jax.experts.ranking._num_cores", lambda: 1)
    assert np.stack(rank_units(values, contrast)).tobytes() == np.stack(of_all).tobytes()


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
