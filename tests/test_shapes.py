"""Functions on arrays take and give the shapes and dtypes that their types state; jaxtyping and beartype check them."""

import beartype
import jax
import numpy as np
import pytest
import xarray as xr
from jaxtyping import TypeCheckError, jaxtyped

from expertlens_jax import parallel
from expertlens_jax.analysis.statistics import correlation, draws, intervals, permutations
from expertlens_jax.data.contrast import Contrast
from expertlens_jax.experts import controls, distributions, orders, ranking, significance

THREE, MATRIX = np.array([1.0, 3.0, 2.0]), np.array([[1.0, 0.2, 0.5], [0.2, 1.0, 0.1], [0.5, 0.1, 1.0]])
ENDS = np.array([0, 0, 1]), np.array([1, 2, 2])
UNITS = xr.Dataset(coords={"layer": ("unit", [0, 0]), "site": ("unit", ["mlp.up"] * 2)})
CONTRAST = Contrast(np.array([[0, 1]]), np.ones(4, bool), np.array([[-1]]), np.array([[0]]), np.ones(1, np.float32))


def mean_of_pairs(weights):
    return (weights * THREE).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)


FLOATS, FLOAT32 = np.ones((3, 2)), np.ones((4, 2), np.float32)
CALLS = {
    # the function, arguments of right shapes, and the same with one that is wrong
    "spearman": (correlation.spearman, (THREE, THREE), (THREE, THREE[:2])),
    "weighted_spearman": (correlation.weighted_spearman, (THREE, THREE, np.ones((2, 3))), (THREE, THREE, FLOATS)),
    "partial_spearman": (correlation.partial_spearman, (THREE, THREE, [THREE[::-1]]), (THREE, THREE, THREE[:2])),
    "weighted_partial_spearman": (
        correlation.weighted_partial_spearman,
        (THREE, THREE, THREE, np.ones((2, 3))),
        (THREE, THREE, THREE, THREE),
    ),
    "rank_pairs": (correlation.rank_pairs, (MATRIX, MATRIX), (MATRIX, FLOATS)),
    "jackknife": (intervals.jackknife_over_concepts, (mean_of_pairs, *ENDS), (mean_of_pairs, THREE, THREE)),
    "bootstrap": (intervals.bootstrap_over_concepts, (mean_of_pairs, *ENDS), (mean_of_pairs, ENDS[0], ENDS[1][:2])),
    "triplets": (
        intervals.mean_over_triplets,
        (THREE, np.array([[0, 1, 2], [0, 1, 3], [1, 2, 3]])),
        (THREE, np.array([[0, 1]] * 3)),
    ),
    "bootstrap_mean": (intervals.bootstrap_mean, (FLOATS,), (THREE,)),
    "bootstrap_mean_of_pairs": (intervals.bootstrap_mean_of_pairs, (MATRIX,), (FLOATS,)),
    "bootstrap_mantel": (intervals.bootstrap_mantel, (MATRIX, MATRIX), (MATRIX, MATRIX[:2])),
    "permutation_p": (permutations.permutation_p, (MATRIX, THREE, *ENDS, 9), (MATRIX, THREE[:2], *ENDS, 9)),
    "mantel": (permutations.mantel, (MATRIX, MATRIX, 9), (FLOATS, FLOATS, 9)),
    "diagonal_p": (permutations.diagonal_p, (MATRIX, 9), (FLOATS, 9)),
    "signed_ranks_p": (permutations.signed_ranks_p, (THREE,), (MATRIX,)),
    "holm": (permutations.holm, (np.array([0.1, 0.02]),), (np.array([[0.1, 0.02]]),)),
    "p_of_draws": (draws.p_of_draws, (np.array([3, 4]), 9), ("3", 9)),
    "area_under_roc": (distributions.area_under_roc, (FLOATS, FLOATS[:2]), (FLOATS, FLOATS[:, :1])),
    "transport_slope": (distributions.transport_slope, (FLOATS, FLOATS[:2]), (FLOATS, THREE)),
    "match_by_activity": (
        controls.match_by_activity,
        (UNITS, FLOATS[:2], np.array([True, False]), np.array([False, True])),
        (UNITS, FLOATS[:2], np.array([True, False]), np.array([True])),
    ),
    "q_values": (significance.q_values, (FLOATS / 2,), (FLOATS.astype(int),)),
    "familywise_p": (significance.familywise_p, (FLOAT32[:, 0], FLOAT32[:3, 0]), (FLOAT32, FLOAT32[:3, 0])),
    "ordered_keys": (orders.ordered_keys, (FLOAT32,), (FLOATS,)),
    "responses_of": (orders.responses_of, (np.ones((2, 3), np.int32),), (FLOAT32,)),
    "rank_units": (ranking.rank_units, (FLOAT32, CONTRAST), (FLOAT32[0], CONTRAST)),
    "from_all_hosts": (parallel.from_all_hosts, (THREE,), ([1.0],)),
}


@pytest.mark.parametrize(("function", "right", "wrong"), CALLS.values(), ids=CALLS)
def test_shapes_are_those_that_are_stated(function, right, wrong):
    checked = jaxtyped(function, typechecker=beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True)))
    jax.block_until_ready(checked(*right))
    with pytest.raises(TypeCheckError, match="checking the parameters"):
        checked(*wrong)


def test_how_many_are_drawn_is_in_the_type():
    checked = jaxtyped(draws.resample_counts, typechecker=beartype.beartype)
    assert checked(4, 3, seed=0).sum(axis=1).tolist() == [4, 4, 4]
