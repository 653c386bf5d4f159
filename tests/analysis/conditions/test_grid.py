"""The grid of sizes: its draws share nothing, its numbers are those of `compare_conditions`, too few are refused."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.conditions.grid import check_grid, describe_cell, draw_both, make_grid
from expertlens_jax.analysis.conditions.stability import compare_conditions
from expertlens_jax.errors import UnfitConceptsError


@pytest.fixture(scope="module")
def concepts():
    return el.load_concepts("senses").subset(["beak", "tomb", "halibut", "jug", "sleet", "trumpet"])


def test_draws_are_of_the_sizes_and_share_nothing(concepts):
    first, second = (draw_both(concepts, 5, 40, draw) for draw in (0, 1))
    for each in (first, second):
        assert (each.labels.sum(1) == 5).all() and each.negative_pool.sum() == 40
        contrast = el.contrast_concepts(each, negatives_per_positive=2.5)
        # What a concept's own sentences leave of the pool, weighted to the same base rate.
        own = np.array(
            [
                [s in {concepts.sentences[i] for i in np.flatnonzero(row)} for s in each.sentences]
                for row in concepts.labels
            ]
        )
        assert contrast.num_negatives.tolist() == (each.negative_pool & ~own).sum(1).tolist()
        np.testing.assert_allclose(contrast.base_rate, 1 / 3.5, rtol=1e-6)

    def sentences(dataset, mask):
        return {dataset.sentences[i] for i in np.flatnonzero(mask)}

    assert not sentences(first, first.labels.any(0)) & sentences(second, second.labels.any(0))
    assert not sentences(first, first.negative_pool) & sentences(second, second.negative_pool)
    smaller = draw_both(concepts, 5, 20, 0)
    assert sentences(smaller, smaller.negative_pool) < sentences(first, first.negative_pool)


def test_a_cell_compares_its_two_draws(concepts):
    def find(model, drawn, **_):
        rng = np.random.default_rng([*drawn.name.encode()])
        values = rng.random((6, 50)).astype(np.float32)
        return xr.Dataset({"average_precision": (("concept", "unit"), values)}, {"concept": list(drawn.concepts)})

    cells = list(make_grid(None, concepts, find, (3, 6), (20, 60)))
    assert [(cell.positives, cell.negatives) for cell in cells] == [(3, 20), (3, 60), (6, 20), (6, 60)]
    table = describe_cell(cells[1], (0.5, 0.7), resamples=20, permutations=9)
    sets = [el.select_experts(each, threshold=0.7) for each in cells[1].tables]
    expected = compare_conditions(*sets, resamples=20, permutations=9)
    rows = table[table["threshold"] == 0.7]
    np.testing.assert_array_equal(rows["value"], expected["value"])
    assert set(table["positives"]) == {3} and set(table["negatives"]) == {60}


@pytest.mark.parametrize(
    ("positives", "negatives", "message"),
    [
        (
            (11,),
            (20,),
            "hold 11, and two draws want twice as many .*; 'senses' has 20 of 'beak'. Give numbers from 1 to 10",
        ),
        ((0,), (20,), "stability.grid_positives hold 0"),
        ((5,), (121,), "hold 121; 'senses' has 120 sentences that may be negatives. Give numbers from 2 to 120"),
        ((5,), (1,), "stability.grid_negatives hold 1"),
    ],
)
def test_too_few_sentences_are_told_by_name(concepts, positives, negatives, message):
    with pytest.raises(UnfitConceptsError, match=message):
        check_grid(concepts, positives, negatives)


def test_negatives_of_a_concepts_own_are_refused(concepts):
    own = np.zeros_like(concepts.labels)
    own[0, np.flatnonzero(concepts.labels[1])] = True
    with pytest.raises(UnfitConceptsError, match="have negatives of their own"):
        check_grid(dataclasses.replace(concepts, own_negatives=own), (5,), (20,))
