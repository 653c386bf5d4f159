"""Ranking as users compile it: scikit-learn's numbers, loops, and the same bytes whatever shares the work.

The compiler's optimisations are what could tell one device, block or thread from another, so here they stay.
"""

import dataclasses
import re

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from launched import run_script
from test_expertise import assert_close, contrasts, random_case, reference, responses_to_all
from test_ranking import case

from expertlens_jax.data.contrast import Contrast, contrast_concepts
from expertlens_jax.data.resampling import permuted_labels, restrict_contrast, restrict_within, split_halves
from expertlens_jax.errors import ResponsesError
from expertlens_jax.experts.concept_sets import concept_sets
from expertlens_jax.experts.measuring import measure
from expertlens_jax.experts.orders import order_on_device
from expertlens_jax.experts.ranking import rank_blocks, rank_units

one_cpu = pytest.mark.skipif(
    jax.default_backend() != "cpu" or jax.local_device_count() > 1, reason="compares with one CPU"
)


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(values=responses_to_all, contrast=contrasts(pool_size=20))
def test_a_weighted_pool_equals_scikit_learn(values, contrast):
    assert_close(rank_units(values, contrast), reference(values, contrast), values)


@pytest.mark.long
@pytest.mark.parametrize("units_per_block", [7, 64])
def test_the_number_of_blocks_does_not_matter(units_per_block):
    values, concepts = random_case()
    contrast = contrast_concepts(concepts)
    for whole, blocks in zip(
        rank_units(values, contrast).measured().values(),
        rank_units(values, contrast, units_per_block=units_per_block).measured().values(),
        strict=True,
    ):
        np.testing.assert_allclose(blocks, whole, rtol=0, atol=3e-7)


@pytest.mark.long
@one_cpu
def test_eight_devices_give_the_bytes_of_one(tmp_path):
    values, concepts = random_case()
    contrast = contrast_concepts(concepts)
    np.savez(tmp_path / "in.npz", values=values, **dataclasses.asdict(contrast))
    script = """
import sys
import jax, numpy as np
from expertlens_jax.data.contrast import Contrast
from expertlens_jax.experts.ranking import rank_units
assert jax.local_device_count() == 8
given = dict(np.load(sys.argv[1]))
ranking = rank_units(given.pop("values"), Contrast(**given), units_per_block=4)
np.save(sys.argv[2], np.stack(list(ranking.measured().values())))
"""
    run_script(script, tmp_path / "in.npz", tmp_path / "out.npy", optimised=True)
    of_one = np.stack(list(rank_units(values, contrast, units_per_block=4).measured().values()))
    assert np.load(tmp_path / "out.npy").tobytes() == of_one.tobytes()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("how", [{}, {"sampled": True}, {"pool": np.arange(30) >= 4}])
def test_host_sort_and_device_sort_give_the_same_bytes(how, ties):
    values, contrast = case(128 * jax.local_device_count(), ties=ties, **how)
    sets = concept_sets(contrast)
    blocks = np.ascontiguousarray(values.reshape(30, -1, 128).transpose(1, 0, 2))
    on_host, on_device = (rank_blocks(blocks, sets, sort_on_host=on_host)[0] for on_host in (True, False))
    of_units = rank_units(values, contrast)
    assert len(of_units.measured()) == 7
    for name, units in of_units.measured().items():
        host, device = (each.measured()[name] for each in (on_host, on_device))
        assert host.shape == (len(blocks), 3, 128)
        assert np.asarray(device).tobytes() == host.tobytes()
        assert np.concatenate(host, axis=1).tobytes() == units.tobytes()


@pytest.mark.long
@one_cpu
def test_blocks_on_eight_devices_give_the_bytes_of_one(tmp_path):
    values, contrast = case(8 * 200, ties=False)
    np.savez(tmp_path / "in.npz", values=values, **dataclasses.asdict(contrast))
    script = """
import sys
import jax, numpy as np
from expertlens_jax.data.contrast import Contrast
from expertlens_jax.experts.concept_sets import concept_sets
from expertlens_jax.experts.ranking import rank_blocks
given = dict(np.load(sys.argv[1]))
blocks = np.ascontiguousarray(given.pop("values").reshape(30, 8, 200).transpose(1, 0, 2))
on_devices = jax.pmap(lambda block: block)(blocks)
assert len(on_devices.sharding.device_set) == 8
sets = concept_sets(Contrast(**given))
for name, given in (("host", blocks), ("devices", on_devices)):
    np.save(f"{sys.argv[2]}/{name}.npy", np.stack(list(rank_blocks(given, sets)[0].measured().values())))
"""
    run_script(script, tmp_path / "in.npz", tmp_path, optimised=True)
    of_one = np.stack(list(rank_units(values, contrast).measured().values()))
    for name in ("host", "devices"):
        in_a_row = np.concatenate(np.load(tmp_path / f"{name}.npy").swapaxes(0, 1), axis=2)
        assert in_a_row.tobytes() == of_one.tobytes(), name


@one_cpu
def test_the_number_of_threads_changes_no_byte(monkeypatch):
    values, contrast = case(1000, ties=False)
    of_all = np.stack(list(rank_units(values, contrast).measured().values()))
    monkeypatch.setattr("expertlens_jax.parallel.num_cores", lambda: 1)
    assert np.stack(list(rank_units(values, contrast).measured().values())).tobytes() == of_all.tobytes()


@pytest.mark.long
def test_programs_have_no_loop_whose_turns_are_unknown_and_none_over_concepts_or_positives():
    """Loops of a length that the compiler doesn't know wait for the device at each turn; those over P are P steps."""
    values, _ = case(128, ties=False)
    num_positives, num_concepts = 400, 5
    values = np.random.default_rng(0).normal(size=(2000, 128)).astype(np.float32)
    positives = np.arange(2000, dtype=np.int32).reshape(num_concepts, num_positives)
    taken_out = -np.ones(positives.shape, np.float32)
    sets = concept_sets(
        Contrast(positives, np.ones(2000, bool), positives, taken_out, np.ones(num_concepts, np.float32))
    )
    orders = jax.eval_shape(order_on_device, values, sets)
    for program in (jax.jit(order_on_device).lower(values, sets), jax.jit(measure).lower(orders, sets)):
        loops = [line for line in program.compile().as_text().splitlines() if re.search(r" while\(", line)]
        turns = [int(re.search(r'known_trip_count":\{"n":"(\d+)"', line)[1]) for line in loops]
        assert all(turn <= 2 * np.sqrt(2000) for turn in turns), turns


@pytest.mark.long
def test_several_contrasts_over_one_sort_are_what_each_is_alone():
    values, contrast = case(128, ties=True)
    halves = [restrict_within(contrast, kept) for kept in split_halves(contrast, seed=0)]
    permuted = permuted_labels(contrast, 3, seed=0)
    blocks = np.zeros((jax.local_device_count(), *values.shape), np.float32)
    blocks[0] = values
    ranking, others = rank_blocks(blocks, concept_sets(contrast, permuted, *halves))
    np.testing.assert_array_equal(ranking.average_precision[0], rank_units(values, contrast).average_precision)
    for precision, alone in zip(others, (permuted, *halves), strict=True):
        np.testing.assert_allclose(precision[0], rank_units(values, alone).average_precision, atol=1e-7)
    with pytest.raises(ResponsesError, match="over 30 and over 18 sentences can't be ranked together"):
        concept_sets(contrast, restrict_contrast(contrast, np.arange(30) % 5 < 3))
