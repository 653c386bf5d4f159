"""Verdicts: three values that nothing empty, missing or too small turns into one of the other two."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from expertlens_jax.analysis.statistics import (
    count_groupings,
    count_orders,
    least_p_of_ks,
    least_p_of_permutations,
    least_p_of_signs,
)
from expertlens_jax.report.conclusions import (
    FEWEST_CONCEPTS,
    LEVEL,
    Untestable,
    Verdict,
    above,
    conclude_from,
    enough,
    every,
    most,
    of_those_made,
    significant,
)

OPEN = Untestable("nothing there")
OUTCOMES = st.lists(st.sampled_from([True, False, np.True_, np.False_, OPEN]), max_size=6)


def verdict(outcome):
    return conclude_from("", "", outcome, "").verdict


@given(OUTCOMES)
def test_every_is_kleenes_conjunction_but_for_nothing_at_all(outcomes):
    made = [bool(each) for each in outcomes if each is not OPEN]
    wanted = Verdict.NOT_HELD if not all(made) else Verdict.HELD
    if all(made) and (len(made) < len(outcomes) or not outcomes):
        wanted = Verdict.NOT_TESTABLE
    assert verdict(every(outcomes)) == wanted


@given(OUTCOMES)
def test_most_counts_what_could_be_made(outcomes):
    made = [bool(each) for each in outcomes if each is not OPEN]
    wanted = Verdict.HELD if made and sum(made) > len(made) / 2 else Verdict.NOT_HELD
    assert verdict(most(outcomes)) == (wanted if made else Verdict.NOT_TESTABLE)
    assert verdict(of_those_made(outcomes)) == (
        Verdict.NOT_TESTABLE if not made else Verdict.HELD if all(made) else Verdict.NOT_HELD
    )


@pytest.mark.parametrize("join", [every, most, of_those_made])
def test_nothing_to_compare_is_neither_held_nor_not(join):
    found = conclude_from("claim", "found", join([]), "figure")
    assert found.verdict == "not testable" and found.reason == "there is nothing to compare"
    assert verdict(join([OPEN])) == "not testable"


def test_reasons_are_told_once_each_and_only_where_there_is_no_verdict():
    other = Untestable("too few")
    assert conclude_from("", "", every([OPEN, True, other, OPEN]), "").reason == "nothing there; too few"
    assert conclude_from("", "", every([OPEN, False]), "").reason == ""


def test_an_untestable_comparison_is_not_taken_for_true_or_false():
    with pytest.raises(TypeError, match="neither true nor false"):
        all([OPEN])


@pytest.mark.parametrize(("value", "other"), [(math.nan, 0.0), (0.0, math.nan), (np.float32("nan"), 1)])
def test_a_comparison_with_no_number_is_untestable(value, other):
    assert above(value, other, "this") == Untestable("this could not be computed")


def test_a_p_that_could_not_be_small_is_no_test():
    assert significant(0.04, 0.01, "so many") is True and significant(0.05, 0.01, "so many") is False
    assert significant(0.25, 0.25, "3 concepts") == Untestable("3 concepts give a least p of 0.25")
    assert significant(math.nan, 0.01, "them") == Untestable("the p of them could not be computed")
    assert isinstance(significant(0.05, 1 / 20, "19 draws"), Untestable)


@pytest.mark.parametrize("number", range(1, 9))
def test_the_least_p_of_signs_is_wilcoxons_and_the_sign_tests(number):
    assert least_p_of_signs(number) == pytest.approx(scipy.stats.wilcoxon(np.arange(1.0, number + 1)).pvalue)
    assert least_p_of_signs(number) == pytest.approx(scipy.stats.binomtest(number, number).pvalue)
    assert (enough(least_p_of_signs(number), "") is True) == (number >= FEWEST_CONCEPTS)


@pytest.mark.parametrize(("first", "second"), [(2, 2), (3, 3), (4, 4), (5, 5), (2, 9)])
def test_the_least_p_of_two_samples_is_scipys(first, second):
    apart = scipy.stats.ks_2samp(np.arange(first), 100 + np.arange(second))
    assert least_p_of_ks(first, second) == pytest.approx(apart.pvalue)


def test_groupings_are_counted_as_set_partitions_are():
    assert count_groupings("aabb") == 3 and count_groupings("aaabbb") == 10 and count_groupings("aaaa") == 1
    assert count_groupings("abcd") == 1  # each alone: there is nothing to hand out otherwise
    assert count_groupings("aaabb") == scipy.special.comb(5, 2)
    assert least_p_of_permutations(10_000, count_groupings("aabb")) == pytest.approx(1 / 3)
    assert least_p_of_permutations(9, count_orders(10)) == pytest.approx(0.1)
    assert 0 < least_p_of_permutations(10_000, count_groupings(list(range(16)) * 11)) < LEVEL
