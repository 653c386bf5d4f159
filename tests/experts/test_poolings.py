"""Several poolings of one pass: the bytes that a pass for each gives, also where a store keeps them for later."""

import re

import jax
import numpy as np
import pytest
import test_pipeline
from jax import lax

import expertlens_jax as el
from expertlens_jax.data.subsample import draw_sentences
from expertlens_jax.errors import BudgetError, SelectionError
from expertlens_jax.experts import measuring, pipeline, poolings, response_store, responses
from expertlens_jax.experts.poolings import record_poolings

CONCEPTS = draw_sentences(test_pipeline.CONCEPTS, 4)
READ = el.Recording(tokens_per_batch=256)


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


def refuse(*_, **__):
    raise AssertionError("the model ran again")


@pytest.mark.parametrize("site", ["resid", "attn.head"])
def test_poolings_of_one_pass_are_those_of_a_pass_for_each(model, site, monkeypatch):
    sentences = CONCEPTS.sentences[::3]
    named = ["mean", "last", "min"]
    want = [el.record_responses(model, sentences, sites=site, pooling=each, tokens_per_batch=256) for each in named]
    monkeypatch.setattr(responses, "respond", refuse)
    found = record_poolings(model, sentences, site, named, recording=READ)
    for got, alone in zip(found, want, strict=True):
        assert got.values.tobytes() == alone.values.tobytes() and got.identical(alone)


def test_what_a_store_keeps_beside_is_recorded_by_the_same_pass(model, tmp_path, monkeypatch):
    beside = (("resid", "mean"), ("resid", "last"))
    bare = dict(sites="attn.v", tokens_per_batch=256, halves=False, permutations=0, transport=False)
    want = el.find_experts(model, CONCEPTS, tmp_path / "without", **bare)
    alone = record_poolings(model, CONCEPTS.sentences, "resid", ["mean", "last"], recording=READ)
    store = el.ResponseStore(tmp_path / "kept", beside=beside)
    monkeypatch.setattr(responses, "respond", refuse)
    found = el.find_experts(model, CONCEPTS, tmp_path / "with", store=store, **bare)
    assert found["average_precision"].values.tobytes() == want["average_precision"].values.tobytes()
    monkeypatch.setattr(poolings, "respond_together", refuse)
    for each, got in zip(alone, kept_of(model, store), strict=True):
        assert got.identical(each)
    # They are another pass's as much as this one's: an entry without what is asked beside it is found as it is.
    monkeypatch.setattr(pipeline, "record", refuse)
    again = el.find_experts(model, CONCEPTS, tmp_path / "again", store=tmp_path / "kept", **bare)
    assert again["average_precision"].values.tobytes() == want["average_precision"].values.tobytes()


def kept_of(model, store):
    return record_poolings(model, CONCEPTS.sentences, "resid", ["mean", "last"], recording=READ, store=store)


def test_a_store_keeps_nothing_beside_that_its_limit_has_no_room_for(model, tmp_path):
    bare = dict(sites="attn.v", tokens_per_batch=256, halves=False, permutations=0, transport=False)
    room = 2 * 4 * len(CONCEPTS.sentences) * response_store.UNITS_PER_BLOCK - 1  # not quite enough for both
    for limit, entries in ((room, 1), (room + 1, 2)):
        store = el.ResponseStore(tmp_path / f"kept{limit}", limit, beside=(("attn.v", "mean"),))
        el.find_experts(model, CONCEPTS, tmp_path / f"run{limit}", store=store, **bare)
        assert len(list((tmp_path / f"kept{limit}").glob("*/entry.json"))) == entries


def test_poolings_that_cannot_be_are_refused_before_the_model_runs(model, tmp_path, monkeypatch):
    monkeypatch.setattr(responses, "respond", refuse)
    monkeypatch.setattr(poolings, "respond_together", refuse)
    with pytest.raises(SelectionError, match="no poolings were given"):
        record_poolings(model, ["A cat."], "resid", [])
    with pytest.raises(SelectionError, match="pooling 'median' was given; wanted one of max"):
        record_poolings(model, ["A cat."], "resid", ["mean", "median"])
    for pair, told in (
        (("resid", "median"), "pooling 'median' was given"),
        (("residual", "mean"), "residual"),
        (("sae", "mean"), "sae"),
    ):
        store = el.ResponseStore(tmp_path / "kept", beside=(pair,))
        with pytest.raises(SelectionError, match=told):
            el.find_experts(model, CONCEPTS, tmp_path / "run", sites="attn.v", store=store)
    for given in (("resid", "mean"), "mean", (("resid",),), ((1, "mean"),)):
        with pytest.raises(BudgetError, match=re.escape(f"beside of a store of responses is {given!r}; wanted pairs")):
            el.ResponseStore(tmp_path, beside=given)


@pytest.mark.parametrize("size", [1, 2, 7, 40, 104])
def test_rows_are_summed_where_they_lie_as_a_scan_sums_them(size):
    rows = np.random.default_rng(size).normal(size=(size, 3, 5)).astype(np.float32)
    pieces = measuring._in_pieces(rows, 0)
    start = np.zeros((len(pieces), 3, 5), np.float32)

    def step(so_far, row):
        so_far = so_far * 0.5 + row
        return so_far, so_far

    total, kept = jax.jit(lambda: measuring._through_pieces(step, start, pieces))()
    want_total, want = jax.jit(lambda: lax.scan(step, start, pieces.swapaxes(0, 1)))()
    np.testing.assert_allclose(total, want_total, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(kept.swapaxes(0, 1), want, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(measuring._in_a_row(pieces, size), rows)
    whole = (rows * 100).astype(np.int32)
    np.testing.assert_array_equal(measuring._running(jax.numpy.add, whole, 0), np.cumsum(whole, axis=0))
