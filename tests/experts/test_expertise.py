"""Expertise against scikit-learn, numpy, and itself under what must not change it."""

import dataclasses
import warnings

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, roc_auc_score

from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import Contrast, contrast_concepts
from expertlens_jax.errors import ConceptDataError, ResponsesError
from expertlens_jax.experts.distributions import transport_slope
from expertlens_jax.experts.expertise import measure_expertise
from expertlens_jax.experts.labelled_responses import Responses
from expertlens_jax.experts.measuring import Ranking
from expertlens_jax.experts.planning import RANKED
from expertlens_jax.experts.ranking import rank_units

TOLERANCE = 1e-5
# Fixed shapes, so that each property compiles once.
S, U, POSITIVES, M = 24, 5, (1, 3, 6), 10

# -0.0 and 0.0, subnormals, the huge, neighbours, and enough of the same to tie heavily.
AWKWARD = (
    0.0,
    -0.0,
    1e-45,
    -1e-45,
    2e-45,
    1e-38,
    1.0,
    np.nextafter(np.float32(1), 2),
    -1.0,
    1e38,
    -1e38,
    1e20,
)
finite = st.floats(-(2.0**126), 2.0**126, width=32)
responses_to_all = hnp.arrays(
    np.float32, (S, U), elements=st.one_of(st.sampled_from(AWKWARD), finite), fill=st.sampled_from(AWKWARD)
)


@st.composite
def contrasts(draw, pool_size):
    """Any contrast of three concepts: with pads, and sentences put into and taken out of the pool."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pool = np.zeros(S, bool)
    pool[rng.permutation(S)[:pool_size]] = True
    own = rng.permutation(S)[: sum(POSITIVES)]
    positives = np.full((3, max(POSITIVES)), -1, np.int32)
    corrected = np.full((3, M), -1, np.int32)
    corrections = np.zeros((3, M), np.float32)
    for c, count in enumerate(POSITIVES):
        mine = own[sum(POSITIVES[:c]) :][:count]
        positives[c, :count] = mine
        others = rng.permutation(np.setdiff1d(np.arange(S), mine))[: rng.integers(1 if pool_size == 0 else 0, 4)]
        flipped = np.concatenate([mine[pool[mine]], others])
        corrected[c, : flipped.size] = flipped
        corrections[c, : flipped.size] = np.where(pool[flipped], -1, 1)
    weight = rng.uniform(0.05, 5, 3).astype(np.float32)
    return Contrast(positives, pool, corrected, corrections, weight)


def reference(values, contrast):
    """Ranking [C, U] by scikit-learn and numpy, in float64."""
    values, weights = values.astype(np.float64), contrast.weights()
    tables = []
    for mine, weight in zip(contrast.positives, weights, strict=True):
        mine = mine[mine >= 0]
        truth = np.zeros(len(values), bool)
        truth[mine] = True
        precision = [average_precision_score(truth, z, sample_weight=weight) for z in values.T]
        quantiles = np.quantile(values[mine], [0.5, 0.9], axis=0)
        negatives = values[(weight > 0) & ~truth]
        rest = weight > 0
        areas = [roc_auc_score(truth[rest], z[rest]) for z in values.T]
        slopes = transport_slope(negatives, values[mine])
        tables.append((precision, *quantiles, values[mine].mean(axis=0), negatives.mean(axis=0), areas, slopes))
    return Ranking(*np.array(tables).transpose(1, 0, 2))


def assert_close(got, want, values):
    np.testing.assert_allclose(got.average_precision, want.average_precision, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(got.auroc, want.auroc, rtol=0, atol=1e-6)
    scale = np.abs(values).max(axis=0).astype(np.float64) + 1e-30  # results below float32's normals may be 0
    for name in ("positive_median", "positive_p90", "positive_mean", "negative_mean"):
        error = np.abs(getattr(got, name).astype(np.float64) - getattr(want, name)) / scale
        assert error.max() < TOLERANCE, name


@settings(max_examples=30, deadline=None)
@given(values=responses_to_all, contrast=contrasts(pool_size=0))
def test_each_concept_s_own_negatives_equal_scikit_learn(values, contrast):
    assert_close(rank_units(values, contrast), reference(values, contrast), values)


@pytest.mark.long
@settings(max_examples=20, deadline=None)
@given(values=responses_to_all, contrast=contrasts(pool_size=20), seed=st.integers(0, 2**32 - 1))
def test_the_order_of_sentences_and_units_does_not_matter(values, contrast, seed):
    rng = np.random.default_rng(seed)
    before = rank_units(values, contrast)
    units = rng.permutation(U)
    for name, table in rank_units(values[:, units], contrast).measured().items():
        np.testing.assert_array_equal(table, getattr(before, name)[:, units])

    order = rng.permutation(S)  # the sentence now at place i was at order[i]
    place = np.append(np.argsort(order), -1).astype(np.int32)  # and -1, a pad, stays one
    moved = dataclasses.replace(
        contrast,
        positives=place[contrast.positives],
        pool=contrast.pool[order],
        corrected=place[contrast.corrected],
    )
    after = rank_units(values[order], moved)
    np.testing.assert_array_equal(after.average_precision, before.average_precision)
    np.testing.assert_array_equal(after.positive_p90, before.positive_p90)


@settings(max_examples=20, deadline=None)
@given(
    ranks=hnp.arrays(np.int8, (S, U), elements=st.integers(-20, 20)),
    contrast=contrasts(pool_size=20),
    transform=st.sampled_from([np.exp, np.cbrt, np.arctan, lambda x: x**3 - 1e4, lambda x: 1e-40 * x]),
)
def test_a_strictly_monotone_transform_does_not_matter(ranks, contrast, transform):
    values = ranks.astype(np.float32)
    # Taken in float64 and far apart, so that it is strictly monotone in float32 too.
    transformed = transform(ranks.astype(np.float64)).astype(np.float32)
    before, after = rank_units(values, contrast), rank_units(transformed, contrast)
    np.testing.assert_array_equal(before.average_precision, after.average_precision)
    np.testing.assert_array_equal(before.auroc, after.auroc)


def random_case(seed=0, num_units=50):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.eye(3, dtype=bool), 10, axis=1)
    sentences = tuple(f"sentence {i}" for i in range(30))
    concepts = ConceptDataset("made", sentences, ("cat", "dog", "rain"), ("a", "a", "w"), labels, np.ones(30, bool))
    return rng.normal(size=(30, num_units)).astype(np.float32), concepts


def test_a_constant_unit_has_the_base_rate():
    values, concepts = random_case(num_units=3)
    values[:, 1] = 7.5
    contrast = contrast_concepts(concepts, negatives_per_positive=2.5)
    ranking = rank_units(values, contrast)
    np.testing.assert_allclose(ranking.average_precision[:, 1], 1 / 3.5, rtol=1e-6)
    np.testing.assert_allclose(ranking.negative_mean[:, 1], 7.5, rtol=1e-6)
    np.testing.assert_array_equal(ranking.positive_median[:, 1], 7.5)


def test_a_perfect_unit_has_one_and_its_opposite_the_least():
    sentences = tuple(map(str, range(98)))
    labels = np.repeat(np.eye(2, dtype=bool), 49, axis=1)  # 49 / 49 is 1, but 49 * (1 / 49) isn't
    concepts = ConceptDataset("made", sentences, ("cat", "dog"), ("", ""), labels, np.ones(98, bool))
    cat = labels[0].astype(np.float32)
    ranking = rank_units(np.stack([cat, -cat], axis=1), contrast_concepts(concepts, negatives_per_positive=1))
    assert ranking.average_precision[0, 0] == ranking.average_precision[1, 1] == 1
    np.testing.assert_allclose(ranking.average_precision[0, 1], 0.5, rtol=1e-6)  # last, but all tied


def test_means_survive_a_large_offset():
    values, concepts = random_case(seed=1)
    offset = values + np.float32(1e4)
    got = rank_units(offset, contrast_concepts(concepts))
    want = [offset[labels].astype(np.float64).mean(axis=0) for labels in concepts.labels]
    np.testing.assert_allclose(got.positive_mean, want, rtol=0, atol=1.1e-3)
    want = [offset[~labels].astype(np.float64).mean(axis=0) for labels in concepts.labels]
    np.testing.assert_allclose(
        got.negative_mean, want, rtol=0, atol=1.1e-3
    )  # neighbouring float32 at 1e4 are 0.98e-3 apart


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_floats_are_ranked_as_they_are(dtype):
    values, concepts = random_case(num_units=4)
    narrow = jax.numpy.asarray(values).astype(dtype)
    contrast = contrast_concepts(concepts)
    want = rank_units(np.asarray(narrow.astype("float32")), contrast)
    np.testing.assert_array_equal(rank_units(narrow, contrast).average_precision, want.average_precision)


# From responses and concepts to a named table.


def responses_to(concepts, values=None, num_units=6):
    if values is None:
        values = np.random.default_rng(3).normal(size=(len(concepts.sentences), num_units)).astype(np.float32)
    units = pd.DataFrame(
        {
            "layer": np.arange(values.shape[1]) // 2,
            "site": ["attn.q", "mlp.up"] * (values.shape[1] // 2),
            "channel": 0,
            "hf_module": [f"h.{i}.linear" for i in range(values.shape[1])],
            "hf_channel": np.arange(values.shape[1]),
        }
    )
    return Responses.of(values=values, units=units, model="made", sentences=concepts.sentences)


def pets(pool=None):
    """Two concepts with different numbers of sentences; two sentences mention the other concept too."""
    sentences = (
        *(f"A cat sleeps in place {i}." for i in range(5)),
        "A cat runs from the dog.",
        *(f"My dog barks at {i}." for i in range(4)),
        "Dogs chase cats.",
        *(f"It rains on day {i}." for i in range(7)),
    )
    labels = np.zeros((2, 18), bool)
    labels[0, :6] = labels[1, 6:11] = True
    pool = np.ones(18, bool) if pool is None else pool
    return ConceptDataset("pets", sentences, ("cat", "dog"), ("animal", "animal"), labels, pool)


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("exclude_mentions", [False, True])
@pytest.mark.parametrize("separate_pool", [False, True])
def test_a_table_equals_scikit_learn(sampled, exclude_mentions, separate_pool):
    concepts = pets(np.arange(18) >= 11 if separate_pool else None)
    responses = responses_to(concepts)
    how = dict(negatives_per_positive=1.1, sampled=sampled, exclude_mentions=exclude_mentions, seed=4)
    table = measure_expertise(responses, concepts, **how)
    contrast = contrast_concepts(concepts, **how)
    want = reference(responses.values, contrast)
    got = Ranking(*(table[name].values for name in RANKED))
    assert_close(got, want, responses.values)
    assert {array.dtype for array in got.measured().values()} == {np.dtype("float32")}
    np.testing.assert_array_equal(table.num_negatives, ((contrast.weights() > 0) & ~concepts.labels).sum(axis=1))


def test_a_table_names_everything_and_comes_back_from_disk(tmp_path):
    concepts = pets()
    responses = responses_to(concepts)
    table = measure_expertise(responses, concepts)
    assert table.average_precision.dims == ("concept", "unit")
    assert table.concept.values.tolist() == ["cat", "dog"]
    assert table.num_positives.values.tolist() == [6, 5]
    assert table.unit.values.tolist() == list(range(6))
    np.testing.assert_allclose(table.base_rate, 1 / 3.5, rtol=1e-6)
    for column in responses.units:
        assert table[column].values.tolist() == responses.units[column].tolist()
    assert table.attrs == {
        "model": "made",
        "sentences": "pets",
        "negatives_per_positive": 2.5,
        "exclude_mentions": True,
        "sampled": False,
        "seed": 0,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # zarr warns of what its format 3 doesn't specify
        table.to_zarr(tmp_path / "expertise.zarr", consolidated=False)
    back = xr.open_zarr(tmp_path / "expertise.zarr", consolidated=False, chunks=None)
    xr.testing.assert_identical(back.load(), table)
    xr.testing.assert_identical(back.sel(concept="dog"), table.sel(concept="dog"))


def test_progress_is_shown_only_when_asked(capfd):
    concepts = pets()
    measure_expertise(responses_to(concepts), concepts)
    assert "ranking units" not in capfd.readouterr().err
    measure_expertise(responses_to(concepts), concepts, progress=True)
    assert "ranking units: 100%" in capfd.readouterr().err


# What a user can get wrong.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_response_without_a_rank_is_refused_by_name(bad):
    concepts = pets()
    responses = responses_to(concepts)
    responses.values[5, 3] = bad
    message = rf"unit 3 \(layer 1, site mlp.up, channel 0\) to sentence 5 \('A cat runs from the dog.'\) is {bad}"
    with pytest.raises(ResponsesError, match=message):
        measure_expertise(responses, concepts)
    with pytest.raises(ResponsesError, match="unit 3 to sentence 5 is"):
        rank_units(responses.values, contrast_concepts(concepts), units_per_block=2)


def test_responses_to_other_sentences_are_refused():
    concepts = pets()
    responses = responses_to(concepts)
    other = dataclasses.replace(concepts, sentences=(*concepts.sentences[:-1], "It snows."))
    with pytest.raises(ResponsesError, match=r"sentence 17 was recorded as 'It rains on day 6.'.*have 'It snows.'"):
        measure_expertise(responses, other)
    with pytest.raises(ResponsesError, match=r"18 sentences were recorded, the concepts have 1[0-7]\."):
        measure_expertise(responses, concepts.subset(["cat"]))


def test_shapes_that_do_not_fit_are_refused():
    concepts = pets()
    contrast = contrast_concepts(concepts)
    values = responses_to(concepts).values
    with pytest.raises(ResponsesError, match=r"shape \(17, 6\).* 18 sentences"):
        rank_units(values[:-1], contrast)
    with pytest.raises(ResponsesError, match=r"are float64; wanted float32"):
        rank_units(values.astype(np.float64), contrast)
    with pytest.raises(ResponsesError, match="units_per_block=0; wanted at least 1"):
        rank_units(values, contrast, units_per_block=0)


def test_more_sentences_than_float32_counts_are_refused():
    many = Contrast(
        positives=np.zeros((1, 1), np.int32),
        pool=np.ones(2**24, bool),
        corrected=np.zeros((1, 1), np.int32),
        corrections=-np.ones((1, 1), np.float32),
        negative_weight=np.ones(1, np.float32),
    )
    with pytest.raises(ResponsesError, match="16777216 sentences; counts are exact for fewer than 16777216"):
        rank_units(np.zeros((2**24, 1), np.float32), many)


def test_too_few_negatives_are_the_concepts_error():
    concepts = pets()
    with pytest.raises(ConceptDataError, match="cat"):
        measure_expertise(responses_to(concepts), concepts, sampled=True, negatives_per_positive=10)
