"""Expert sets: what is selected, and what is refused."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.selection import average_precision, expert_sets, select_experts


def expertise_of(values):
    values = np.asarray(values, np.float32)
    concepts = [f"concept {i}" for i in range(len(values))]
    return xr.Dataset(
        {"average_precision": (("concept", "unit"), values)},
        coords={
            "concept": concepts,
            "domain": ("concept", ["d"] * len(concepts)),
            "unit": np.arange(values.shape[1]),
            "site": ("unit", ["mlp.up"] * values.shape[1]),
        },
        attrs={"negatives_per_positive": 2.5},
    )


TABLE = expertise_of([[0.1, 0.6, 0.6, 0.9], [0.5, 0.5, 0.2, 0.5]])


def test_a_threshold_includes_units_that_just_meet_it():
    experts = select_experts(TABLE, threshold=0.6)  # 0.6 isn't the same number in float32 and float64
    assert experts.dims == ("concept", "unit")
    assert experts.dtype == bool
    assert experts.values.tolist() == [[False, True, True, True], [False] * 4]
    assert experts.attrs == {"negatives_per_positive": 2.5, "threshold": 0.6}
    assert experts.site.values.tolist() == ["mlp.up"] * 4
    for coordinate in TABLE.coords:
        np.testing.assert_array_equal(experts[coordinate], TABLE[coordinate])


def test_ties_at_the_edge_go_to_the_first_units():
    assert select_experts(TABLE, top=2).values.tolist() == [
        [False, True, False, True],
        [True, True, False, False],
    ]


def test_both_must_hold():
    experts = select_experts(TABLE, threshold=0.55, top=2)
    assert experts.values.tolist() == [[False, True, False, True], [False] * 4]
    assert (experts.attrs["threshold"], experts.attrs["top"]) == (0.55, 2)


def test_the_order_of_dimensions_does_not_matter():
    xr.testing.assert_identical(
        select_experts(TABLE.transpose("unit", "concept"), threshold=0.5),
        select_experts(TABLE, threshold=0.5),
    )


@given(
    values=hnp.arrays(np.float32, (3, 12), elements=st.sampled_from([0.25, 0.5, 0.625, 1.0])),
    top=st.integers(1, 12),
)
def test_top_is_a_stable_sort(values, top):
    chosen = select_experts(expertise_of(values), top=top).values
    for row, row_chosen in zip(values, chosen, strict=True):
        first = np.argsort(-row, kind="stable")[:top]
        assert set(np.flatnonzero(row_chosen)) == set(first)


def test_neither_is_an_error():
    with pytest.raises(SelectionError, match="neither a threshold nor top was given"):
        select_experts(TABLE)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, 50, np.nan, "0.5"])
def test_a_threshold_that_is_no_average_precision_is_an_error(threshold):
    with pytest.raises(SelectionError, match=r"threshold=.* wanted an average precision, a number from 0 to 1"):
        select_experts(TABLE, threshold=threshold)


@pytest.mark.parametrize("top", [0, -3, 2.0, True])
def test_a_top_that_is_no_number_of_units_is_an_error(top):
    with pytest.raises(SelectionError, match=r"top=.*; wanted a number of units"):
        select_experts(TABLE, top=top)


def test_a_top_beyond_the_units_is_an_error():
    with pytest.raises(SelectionError, match="top=5, but there are only 4 units"):
        select_experts(TABLE, top=5)


def test_expert_sets_are_no_expertise_and_expertise_no_expert_sets():
    experts = select_experts(TABLE, threshold=0.5)
    with pytest.raises(SelectionError, match=r"an array of bool over \(concept, unit\) was given where a table"):
        select_experts(experts, threshold=0.5)
    with pytest.raises(SelectionError, match="a dataset of other was given where a table of expertise"):
        average_precision(TABLE.rename(average_precision="other"))
    with pytest.raises(
        SelectionError, match=r"a dataset of average_precision was given where expert sets.*select_experts"
    ):
        expert_sets(TABLE)
    with pytest.raises(SelectionError, match=r"an array of float32 over .* was given where expert sets"):
        expert_sets(TABLE.average_precision)
    with pytest.raises(SelectionError, match="a list was given"):
        expert_sets([True])
