"""Domain words and their members, on expert sets made by hand."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr

from expertlens_jax.analysis.structure.hierarchy import count_sharing, measure_inclusion, summarise_inclusion
from expertlens_jax.errors import SelectionError

UNITS = 40
# "animal" is what its members share; "food" has nothing of its members'.
SETS = {
    ("animal", "animal"): range(0, 4),
    ("cat", "animal"): range(0, 8),
    ("dog", "animal"): [*range(0, 4), *range(8, 12)],
    ("bread", "food"): range(20, 26),
    ("food", "food"): range(30, 34),
    ("soup", "food"): [*range(20, 24), 35, 36],
}


def experts_of(sets):
    values = np.zeros((len(sets), UNITS), bool)
    for row, units in zip(values, sets.values(), strict=True):
        row[list(units)] = True
    coords = {"concept": [name for name, _ in sets], "domain": ("concept", [domain for _, domain in sets])}
    return xr.DataArray(values, dims=("concept", "unit"), coords=coords)


def test_inclusion_is_counted():
    found = measure_inclusion(experts_of(SETS))
    assert found["pair"].value_counts().to_dict() == {"own word": 4, "two members": 4, "another domain's word": 4}
    row = found.set_index(["concept_a", "concept_b"])
    assert row.loc[("animal", "cat"), ["experts_a", "experts_b", "shared"]].to_list() == [4, 8, 4]
    assert row.loc[("animal", "cat"), "a_in_b"] == 1 and row.loc[("animal", "cat"), "b_in_a"] == 0.5
    assert row.loc[("animal", "cat"), "lift"] == pytest.approx(4 * UNITS / (4 * 8))
    assert row.loc[("cat", "dog"), "a_in_b"] == 0.5 == row.loc[("dog", "cat"), "b_in_a"]
    assert row.loc[("food", "bread"), "shared"] == 0
    assert (
        row.loc[("food", "cat"), "pair"] == "another domain's word" and row.loc[("food", "cat"), "domain"] == "animal"
    )


def test_means_are_over_domains():
    inclusion = measure_inclusion(experts_of(SETS))
    found = summarise_inclusion(inclusion, resamples=50).set_index(["statistic", "pair"])
    assert found.loc[("a_in_b", "own word"), "mean"] == pytest.approx((1 + 0) / 2)
    members = (0.5 + 4 / 6) / 2
    assert found.loc[("a_in_b", "two members"), "mean"] == pytest.approx(members)
    assert found.loc[("a_in_b", "two members"), "own_less_this"] == pytest.approx(0.5 - members)
    assert found.loc[("a_in_b", "two members"), "p_value"] == scipy.stats.wilcoxon([1 - 0.5, 0 - 4 / 6]).pvalue
    assert np.isnan(found.loc[("lift", "own word"), "p_value"])


def test_units_that_members_share_are_the_words():
    found = count_sharing(experts_of(SETS), resamples=50).set_index("members")
    assert found.loc[2, "units"] == 4 + 4 and found.loc[1, "units"] == 12 + 8
    assert found.loc[2, "own"] == pytest.approx((1 + 0) / 2)  # all of the animals', none of the food's
    assert found.loc[1, "own"] == pytest.approx((4 / 12 + 0) / 2)
    assert found.loc[1, "others"] == 0


def test_the_order_of_concepts_does_not_matter_and_empty_sets_do_no_harm():
    experts = experts_of(SETS | {("stew", "food"): []})
    one = summarise_inclusion(measure_inclusion(experts), resamples=5)
    other = summarise_inclusion(measure_inclusion(experts.isel(concept=[6, 3, 5, 0, 2, 1, 4])), resamples=5)
    np.testing.assert_allclose(one["mean"], other["mean"])
    pairs = measure_inclusion(experts).set_index(["concept_a", "concept_b"])
    assert np.isnan(pairs.loc[("stew", "soup"), "a_in_b"]) and pairs.loc[("stew", "soup"), "b_in_a"] == 0


def test_a_word_and_two_members_are_needed():
    experts = experts_of({("cat", "animal"): [1], ("dog", "animal"): [2], ("food", "food"): [3], ("soup", "food"): [4]})
    with pytest.raises(SelectionError, match="no domain of animal, food has its own word and two members"):
        measure_inclusion(experts)
