"""AUROC against scikit-learn, the slope of the transport against the paper's formula on samples of one size."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

import expertlens_jax as el
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import ResponsesError
from expertlens_jax.experts.distributions import area_under_roc, transport_slope

few_values = st.integers(-4, 4).map(float)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(float, (5, 3), elements=few_values), hnp.arrays(float, (11, 3), elements=few_values))
def test_auroc_equals_scikit_learn_ties_included(positives, negatives):
    truth = np.repeat([1, 0], [5, 11])
    want = [roc_auc_score(truth, z) for z in np.concatenate([positives, negatives]).T]
    np.testing.assert_allclose(area_under_roc(positives, negatives), want, atol=1e-12)


def slope_of_equal_samples(a, b):
    """Linear-AcT's formula as it is printed, for sorted samples of one size."""
    a, b = np.sort(a), np.sort(b)
    return ((a - a.mean()) * (b - b.mean())).sum() / ((a - a.mean()) ** 2).sum()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_the_slope_is_that_of_both_samples_repeated_to_one_size(num_target, num_source, seed):
    rng = np.random.default_rng(seed)
    source, target = rng.normal(size=(num_source, 2)), rng.normal(2, 3, size=(num_target, 2))
    size = np.lcm(num_source, num_target)
    want = [
        slope_of_equal_samples(np.repeat(a, size // num_source), np.repeat(b, size // num_target))
        for a, b in zip(source.T, target.T, strict=True)
    ]
    np.testing.assert_allclose(transport_slope(source, target), want, atol=1e-10)


def test_an_affine_map_is_found_and_a_constant_unit_has_slope_zero():
    source = np.random.default_rng(0).normal(size=(40, 1))
    np.testing.assert_allclose(transport_slope(source, 2.5 * source[::-1] - 1), 2.5)
    np.testing.assert_array_equal(transport_slope(np.ones((7, 1)), source), 0)


@pytest.fixture
def measured():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.eye(3, dtype=bool), 6, axis=1)
    sentences = tuple(f"sentence {i}" for i in range(18))
    concepts = ConceptDataset("made", sentences, ("cat", "dog", "car"), ("", "", ""), labels, np.ones(18, bool))
    units = pd.DataFrame(
        {"layer": 0, "site": "mlp.up", "channel": range(8), "hf_module": "mlp", "hf_channel": range(8)}
    )
    responses = el.Responses.of(rng.normal(size=(18, 8)).astype(np.float32), units, "made", sentences)
    return el.measure_expertise(responses, concepts), responses, concepts


def test_the_best_units_are_measured_and_the_others_are_left(measured):
    expertise, responses, concepts = measured
    assert el.measure_distributions(expertise, responses, concepts) is expertise  # it has everything
    lacking = expertise.drop_vars(["auroc", "transport_slope"])
    more = el.measure_distributions(lacking, responses, concepts, top=3)
    chosen = el.select_experts(expertise, top=3).values
    for name in "auroc", "transport_slope":
        np.testing.assert_array_equal(np.isnan(more[name].values), ~chosen)
    everything = el.measure_distributions(lacking, responses, concepts, top=None)
    assert everything.identical(expertise.assign(everything.data_vars))
    want = [[roc_auc_score(labels, z) for z in responses.values.T] for labels in concepts.labels]
    np.testing.assert_allclose(everything["auroc"], want, atol=1e-6)


def test_other_responses_are_refused(measured):
    expertise, responses, concepts = measured
    with pytest.raises(ResponsesError, match="8 units of another, the table of 8 units of made"):
        el.measure_distributions(expertise, responses.assign_attrs(model="another"), concepts)
    with pytest.raises(ResponsesError, match="Record them with"):
        el.measure_distributions(expertise, responses.assign_coords(sentence=["x"] * 18), concepts)
