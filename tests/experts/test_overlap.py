"""Overlap against scikit-learn and scipy, and its algebra."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial import distance
from scipy.stats import entropy
from sklearn.metrics import jaccard_score

from expertlens_jax.errors import SelectionError
from expertlens_jax.experts import overlap
from expertlens_jax.experts.overlap import cosine, jaccard, js, kl, overlap_coefficient, weighted_jaccard
from expertlens_jax.experts.selection import select_experts

C, U = 5, 40


def expertise_of(values):
    values = np.asarray(values, np.float32)
    concepts = [f"concept {i}" for i in range(len(values))]
    return xr.Dataset(
        {"average_precision": (("concept", "unit"), values)},
        coords={"concept": concepts, "domain": ("concept", list("aabbbcc"[: len(concepts)]))},
        attrs={"model": "made"},
    )


tables = hnp.arrays(
    np.float32, (C, U), elements=st.one_of(st.floats(2**-10, 1, width=32), st.just(0.5), st.just(1.0))
).map(expertise_of)

MEASURES = {
    "jaccard": lambda table: jaccard(select_experts(table, threshold=0.5)),
    "weighted_jaccard": lambda table: weighted_jaccard(table, 0.5),
    "cosine": lambda table: cosine(table, centred=False),
    "cosine_centred": cosine,
    "kl": kl,
    "kl_centred": lambda table: kl(table, centred=True),
    "overlap_coefficient": lambda table: overlap_coefficient(select_experts(table, threshold=0.5)),
    "js": js,
}


def pairwise(function, rows):
    return np.array([[function(a, b) for b in rows] for a in rows])


@settings(max_examples=40, deadline=None)
@given(tables)
def test_jaccard_equals_scikit_learn(table):
    experts = select_experts(table, threshold=0.5)
    want = pairwise(lambda a, b: jaccard_score(a, b, zero_division=0), experts.values)
    np.testing.assert_allclose(jaccard(experts), want, rtol=0, atol=1e-15)


@settings(max_examples=20, deadline=None)
@given(tables)
def test_js_equals_scipy(table):
    values = table.average_precision.values.astype(np.float64)
    want = pairwise(lambda p, q: -(distance.jensenshannon(p, q) ** 2), values)
    np.testing.assert_allclose(js(table), np.nan_to_num(want), rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(tables)
def test_the_overlap_coefficient_is_the_share_of_the_smaller_set(table):
    sets = [set(np.flatnonzero(row)) for row in select_experts(table, threshold=0.5).values]
    want = pairwise(lambda a, b: len(a & b) / max(1, min(len(a), len(b))), sets)
    np.testing.assert_allclose(overlap_coefficient(select_experts(table, threshold=0.5)), want, rtol=0, atol=1e-15)


@settings(max_examples=40, deadline=None)
@given(tables, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_weighted_jaccard_is_ruzicka(table, threshold):
    values = table.average_precision.values
    values = np.where(values >= np.float32(threshold), values, 0).astype(np.float64)

    def ruzicka(a, b):
        return np.minimum(a, b).sum() / np.maximum(a, b).sum() if (a + b).any() else 0

    np.testing.assert_allclose(weighted_jaccard(table, threshold), pairwise(ruzicka, values), rtol=0, atol=1e-12)


def test_weighted_jaccard_of_equal_weights_is_jaccard():
    table = expertise_of(np.random.default_rng(0).choice([0.25, 0.75], (C, U)))
    want = jaccard(select_experts(table, threshold=0.5))
    np.testing.assert_allclose(weighted_jaccard(table, 0.5), want, rtol=0, atol=1e-14)


@pytest.mark.parametrize("centred", [False, True])
def test_cosine_equals_scipy(centred):
    table = expertise_of(np.random.default_rng(1).uniform(0.2, 1, (C, U)))
    values = table.average_precision.values.astype(np.float64)
    values -= values.mean(axis=0) if centred else 0
    want = 1 - pairwise(distance.cosine, values)
    np.testing.assert_allclose(cosine(table, centred=centred), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("centred", [False, True])
def test_kl_equals_scipy(centred):
    table = expertise_of(np.random.default_rng(2).uniform(0.01, 1, (C, U)))
    values = table.average_precision.values.astype(np.float64)
    if centred:
        values /= np.exp(np.log(values).mean(axis=0))
    want = pairwise(lambda p, q: -(entropy(p, q) + entropy(q, p)) / 2, values)  # entropy normalises, and is KL
    np.testing.assert_allclose(kl(table, centred=centred), want, rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(tables)
def test_all_are_symmetric_and_free_of_nan(table):
    for name, measure in MEASURES.items():
        similarity = measure(table)
        assert similarity.dims == ("concept", "other")
        assert similarity.dtype == np.float64
        values = similarity.values
        assert np.isfinite(values).all(), name
        np.testing.assert_allclose(values, values.T, rtol=0, atol=1e-12, err_msg=name)
        low, high = {
            **{"kl": (-np.inf, 0), "js": (-np.log(2), 0), "cos": (-1, 1)},
            **dict.fromkeys(["jac", "wei", "ove"], (0, 1)),
        }[name[:3].removesuffix("_")]
        assert (values >= low).all(), name
        assert (values <= high).all(), name
        if name.startswith("kl") or name == "js":
            assert (np.diag(values) == 0).all()
        elif name != "cosine_centred":  # where a concept that is the mean has no direction
            own = np.ones(C, bool) if name == "cosine" else (table.average_precision.values >= 0.5).any(axis=1)
            np.testing.assert_array_equal(np.diag(values), own, err_msg=name)


@pytest.mark.parametrize("name", MEASURES)
def test_the_order_of_units_and_the_blocks_do_not_matter(name, monkeypatch):
    rng = np.random.default_rng(3)
    table = expertise_of(rng.uniform(0.1, 1, (C, U)))
    want = MEASURES[name](table)
    np.testing.assert_allclose(MEASURES[name](table.isel(unit=rng.permutation(U))), want, rtol=0, atol=1e-12)
    monkeypatch.setattr(overlap, "_BLOCK_VALUES", 7 * C)  # 40 units in blocks of 7
    np.testing.assert_allclose(MEASURES[name](table), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MEASURES)
def test_alike_is_larger_and_coordinates_stay(name):
    rng = np.random.default_rng(4)
    base = rng.uniform(0.3, 0.9, (2, U))
    near = np.clip(base[0] + rng.normal(0, 0.01, U), 0.05, 1)
    similarity = MEASURES[name](expertise_of([base[0], near, base[1]]))
    assert similarity[0, 1] > similarity[0, 2]
    assert similarity.concept.values.tolist() == similarity.other.values.tolist() == [f"concept {i}" for i in range(3)]
    assert similarity.domain.values.tolist() == ["a", "a", "b"]
    assert similarity.domain.dims == ("concept",)
    assert similarity.attrs["model"] == "made"
    assert name.startswith(similarity.name)


def test_without_experts_the_overlap_is_zero():
    table = expertise_of([[0.1, 0.2], [0.3, 0.1], [0.9, 0.1]])
    none = [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    np.testing.assert_array_equal(jaccard(select_experts(table, threshold=0.5)), none)
    np.testing.assert_array_equal(weighted_jaccard(table, 0.5), none)


def test_a_concept_that_is_the_mean_has_no_direction():
    values = np.full((3, 4), 0.5)
    values[1:, 0] = 0.25, 0.75
    similarity = cosine(expertise_of(values)).values
    np.testing.assert_allclose(similarity, [[0, 0, 0], [0, 1, -1], [0, -1, 1]], rtol=0, atol=1e-12)


def test_the_two_kinds_of_input_are_not_mixed_up():
    table = expertise_of(np.full((3, 4), 0.6))
    experts = select_experts(table, threshold=0.5)
    with pytest.raises(SelectionError, match=r"where expert sets are wanted.*select_experts\(expertise, threshold"):
        jaccard(table)
    for measure in (cosine, kl, lambda given: weighted_jaccard(given, 0.5)):
        with pytest.raises(SelectionError, match=r"where a table of expertise is wanted.*measure_expertise"):
            measure(experts)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(SelectionError, match="threshold=2; wanted"):
        weighted_jaccard(expertise_of(np.full((3, 4), 0.6)), 2)
    with pytest.raises(SelectionError, match="some average precision is 0"):
        kl(expertise_of([[0.0, 0.5], [0.5, 0.5]]))
    one = expertise_of([[0.1, 0.5]])
    for measure in (cosine, kl):
        with pytest.raises(SelectionError, match="this table has one"):
            measure(one, centred=True)
