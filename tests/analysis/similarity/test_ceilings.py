"""How far people agree: ratings with raters, split-half reliability, and what a file of raters may hold."""

import numpy as np
import pytest
import scipy.stats

from expertlens_jax.analysis.similarity.ceilings import spearman_brown, split_half_ceiling
from expertlens_jax.data.raters import Raters, load_raters
from expertlens_jax.errors import RatingsError, SelectionError

WORDS = [f"word{i}" for i in range(12)]
PAIRS = tuple((WORDS[i], WORDS[j]) for i in range(12) for j in range(i) if (i + j) % 2)


def raters(count, noise, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(len(PAIRS), 1))
    return Raters(
        "made", PAIRS, tuple(f"r{i}" for i in range(count)), truth + noise * rng.normal(size=(len(PAIRS), count))
    )


def test_two_raters_are_each_others_halves():
    made = raters(2, 1.0)
    found = split_half_ceiling(made, splits=3)
    correlation = scipy.stats.spearmanr(*made.scores.T).statistic
    assert found.half == pytest.approx(correlation, abs=1e-12)
    assert found.reliability == pytest.approx(2 * correlation / (1 + correlation), abs=1e-12)
    assert found.ci_low < found.reliability < found.ci_high <= 1
    assert (found.raters, found.pairs, found.note) == (2, len(PAIRS), "")


def test_the_mean_over_splits_is_that_of_scipy():
    made, rng, rhos = raters(5, 1.0), np.random.default_rng(7), []
    scores = made.scores.copy()
    scores[::4, 0] = np.nan
    made = Raters("made", PAIRS, made.raters, scores)
    for _ in range(6):
        order = rng.permutation(5)
        rhos.append(
            scipy.stats.spearmanr(np.nanmean(scores[:, order[:2]], 1), np.nanmean(scores[:, order[2:]], 1)).statistic
            if 0 in order[2:] or not np.isnan(scores[:, order[:2]]).all(1).any()
            else np.nan
        )
    assert not np.isnan(rhos).any()
    assert split_half_ceiling(made, splits=6, seed=7).half == pytest.approx(np.mean(rhos), abs=1e-12)


def test_more_raters_and_less_noise_agree_more():
    by_noise = [split_half_ceiling(raters(20, noise), splits=10).reliability for noise in (0.1, 1.0, 5.0)]
    assert by_noise[0] > 0.98 and by_noise[0] > by_noise[1] > by_noise[2]
    assert split_half_ceiling(raters(20, 2.0), splits=10).reliability > split_half_ceiling(raters(4, 2.0)).reliability


def test_spearman_brown_of_whole_and_none():
    np.testing.assert_allclose(spearman_brown(np.array([1.0, 0.0, 0.6])), [1.0, 0.0, 0.75], rtol=1e-12)


def test_where_there_is_no_number_the_note_says_why():
    few = Raters("few", PAIRS[:4], ("a", "b"), np.arange(8.0).reshape(4, 2))
    found = split_half_ceiling(few)
    assert np.isnan(found.reliability) and "leaves 4 pairs that both halves rated" in found.note
    same = Raters("same", PAIRS, ("a", "b"), np.ones((len(PAIRS), 2)))
    assert split_half_ceiling(same).note == "a half of the raters rates all pairs the same"
    with pytest.raises(SelectionError, match="0 splits were given; wanted 1 or more"):
        split_half_ceiling(same, splits=0)


def test_a_file_has_a_column_for_each_rater(tmp_path):
    file = tmp_path / "people.csv"
    file.write_text("word1,word2,ann,bob,cy\nCat,dog,9,8,NA\ncat,car,1,,2\nsun,moon,5,6,7\n")
    found = load_raters(file)
    assert (found.name, found.raters) == ("people", ("ann", "bob", "cy"))
    assert found.pairs == (("cat", "dog"), ("cat", "car"), ("sun", "moon"))
    np.testing.assert_array_equal(found.scores, [[9, 8, np.nan], [1, np.nan, 2], [5, 6, 7]])
    np.testing.assert_array_equal(found.mean().scores, [8.5, 1.5, 6])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,ann\nx,y,1\n", "1 rater was given; how far people agree needs two or more"),
        ("a,b,ann,ann\nx,y,1,2\n", "give each its own name"),
        ("a,b,ann,bob\nx,y,1\n", r"people.csv:2: wanted two words and 2 ratings, not \['x', 'y', '1'\]"),
        ("a,b,ann,bob\nx,y,1,high\n", "people.csv:2: the rating 'high' of 'bob' is no finite number"),
        ("a,b,ann,bob\nx,y,1,inf\n", "the rating 'inf' of 'bob' is no finite number"),
        ("a,b,ann,bob\nx,y,,\n", "people.csv:2: nobody rated x/y; leave the line out"),
        ("a,b,ann,bob\nx,y,1,2\ny,X,1,2\n", "people.csv:3: y/x is rated at line 2 too; keep one of them"),
        ("a,b,ann,bob,cy\nx,y,1,2,\nx,z,1,2,\nu,v,,,3\n", "'cy' rated no pair that anybody else did"),
        ("", "there are no ratings in this file"),
    ],
)
def test_what_a_file_of_raters_may_not_hold_is_told(tmp_path, text, message):
    file = tmp_path / "people.csv"
    file.write_text(text)
    with pytest.raises(RatingsError, match=message):
        load_raters(file)


def test_a_file_that_is_not_there_or_of_another_kind(tmp_path):
    with pytest.raises(RatingsError, match=r"no file 'absent.csv' of ratings"):
        load_raters("absent.csv")
    (tmp_path / "people.xlsx").write_text("x")
    with pytest.raises(RatingsError, match="can't read a .xlsx file of raters; give .tsv or .csv"):
        load_raters(tmp_path / "people.xlsx")
