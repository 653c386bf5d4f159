"""Alignment with human ratings: the numbers, the pairs they rest on, and when there is no number."""

import re

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from expertlens_jax.analysis.similarity.alignment import align, rated_pairs
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.errors import ExpertLensError

NAMES = [f"word{i}" for i in range(12)]


def similarity_of(values, names=NAMES):
    return xr.DataArray(values, dims=("concept", "other"), coords={"concept": names, "other": names})


def symmetric(seed=0, size=12):
    values = np.random.default_rng(seed).normal(size=(size, size))
    return values + values.T


def ratings_of(values, pairs=30, noise=0.5, seed=0, extra=()):
    rng = np.random.default_rng(seed)
    first, second = np.triu_indices(len(values), 1)
    chosen = rng.choice(len(first), pairs, replace=False)
    words = [(NAMES[first[k]], NAMES[second[k]]) for k in chosen]
    scores = values[first[chosen], second[chosen]] + noise * rng.normal(size=pairs)
    scores = np.concatenate([scores, np.zeros(len(extra))])
    return Ratings(name="ours", pairs=(*words, *extra), scores=scores)


def test_the_number_is_scipys_and_the_table_shows_what_it_rests_on():
    values = symmetric()
    ratings = ratings_of(values, extra=(("word1", "zebra"), ("apple", "zebra"), ("word2", "word2")))
    result = align(similarity_of(values), ratings, resamples=200, permutations=200)
    assert result.pairs == len(result.table) == 30  # a word against itself is no pair
    assert list(result.table.columns) == ["word_1", "word_2", "rating", "similarity"]
    expected = scipy.stats.spearmanr(result.table["rating"], result.table["similarity"]).statistic
    assert result.spearman == pytest.approx(expected, abs=1e-14)
    for row, (pair, score) in zip(
        result.table.itertuples(), zip(ratings.pairs, ratings.scores, strict=True), strict=False
    ):
        assert ((row.word_1, row.word_2), row.rating) == (pair, score)
        assert row.similarity == values[NAMES.index(row.word_1), NAMES.index(row.word_2)]
    assert result.missing == ("apple", "zebra")
    assert result.ci_low < result.spearman < result.ci_high
    assert result.p_value == 1 / 201
    assert result.note == ""
    assert str(result) == (
        f"ours: rho = {result.spearman:.2f} [{result.ci_low:.2f}, {result.ci_high:.2f}], p = 0.005, 30 pairs "
        "(2 rated words are not concepts)"
    )


def test_the_same_seed_gives_the_same_result_and_the_order_of_concepts_none_other():
    values = symmetric()
    ratings = ratings_of(values)
    one = align(similarity_of(values), ratings, resamples=100, permutations=100, seed=3)
    assert one == align(similarity_of(values), ratings, resamples=100, permutations=100, seed=3)
    turned = similarity_of(values[::-1, ::-1], NAMES[::-1])
    assert align(turned, ratings, resamples=10, permutations=10).spearman == one.spearman


def test_unrated_concepts_change_nothing():
    values = symmetric()
    ratings = ratings_of(values)
    larger = np.full((14, 14), 0.5)
    larger[:12, :12] = values
    larger[13, :] = larger[:, 13] = np.nan  # nobody asked about this one
    one = align(similarity_of(values), ratings, resamples=100, permutations=100)
    assert one == align(similarity_of(larger, [*NAMES, "x", "y"]), ratings, resamples=100, permutations=100)


def test_capitals_do_not_matter():
    found = rated_pairs(["Cat", "DOG", "bird"], Ratings("r", (("cat", "dog"), ("bird", "fish")), np.array([9.0, 2])))
    assert (found.first, found.second, found.scores) == ([0], [1], [9.0])
    assert found.missing == ("fish",)


def test_a_word_that_may_be_two_concepts_is_refused():
    ratings = Ratings("r", (("turkey", "bird"),), np.array([5.0]))
    with pytest.raises(ExpertLensError, match="'turkey', which may be the concept 'Turkey' or 'turkey'"):
        rated_pairs(["Turkey", "turkey", "bird"], ratings)
    # Nobody rated it: nothing to refuse.
    assert len(rated_pairs(["May", "may", "bird", "turkey"], ratings).first) == 1


@pytest.mark.parametrize(
    ("values", "ratings", "note"),
    [
        (
            symmetric(),
            ratings_of(symmetric(), pairs=9),
            "9 of the 9 rated pairs .* among the 12 concepts, .* 10",
        ),
        (
            np.zeros((12, 12)),
            ratings_of(symmetric()),
            "similarity is 0 for all 30 rated pairs .*lower the threshold",
        ),
        (np.full((12, 12), 0.25), ratings_of(symmetric()), "similarity is 0.25 for all 30 rated pairs$"),
        (symmetric(), ratings_of(np.ones((12, 12)), noise=0), "human rating is 1 for all 30 rated pairs"),
        (symmetric(), Ratings("r", (("a", "b"),), np.ones(1)), "0 of the 1 rated pairs"),
    ],
)
def test_no_number_where_there_is_none(values, ratings, note):
    result = align(similarity_of(values), ratings)
    assert np.isnan([result.spearman, result.ci_low, result.ci_high, result.p_value]).all()
    assert re.search(note, result.note)
    assert len(result.table) == result.pairs
    assert str(result).startswith(f"{ratings.name}: no correlation: {result.note} (")


def test_nan_between_rated_concepts_is_an_error_that_names_them():
    values = symmetric()
    ratings = ratings_of(values)
    i, j = (NAMES.index(word) for word in ratings.pairs[4])
    values[i, j] = values[j, i] = np.nan
    low, high = sorted((i, j))
    with pytest.raises(ExpertLensError, match=f"of 'word{low}' and 'word{high}', both rated in ours, is NaN"):
        align(similarity_of(values), ratings)


def test_an_asymmetric_similarity_is_refused():
    values = symmetric()
    ratings = ratings_of(values)
    align(similarity_of(values + 4e-10 * np.triu(np.ones((12, 12)))), ratings, resamples=5, permutations=5)
    values[2, 7] += 1e-8
    with pytest.raises(ExpertLensError, match="isn't symmetric: 'word2' to 'word7'"):
        align(similarity_of(values), ratings)


def test_the_two_dims_must_hold_the_same_concepts():
    values, ratings = symmetric(), ratings_of(symmetric())
    with pytest.raises(ExpertLensError, match="'concept' and 'other' differ"):
        align(similarity_of(values).isel(other=slice(None, None, -1)), ratings)
    with pytest.raises(ExpertLensError, match=r"has dims \('concept', 'unit'\)"):
        align(similarity_of(values).rename(other="unit"), ratings)


def test_a_terminal_shows_an_alignment_in_one_line():
    values = symmetric()
    result = align(similarity_of(values), ratings_of(values), permutations=99)
    assert repr(result) == f"Alignment({result})"
    assert "\n" not in repr(result) and len(repr(result)) < 150
