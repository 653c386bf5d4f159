"""Several poolings of one pass: the bytes that a pass for each gives, also where a store keeps them for later."""

import json
import os
import re

import jax
import numpy as np
import pytest
from jax import lax

import expertlens_jax as el
from expertlens_jax.errors import BudgetError, ConceptDataError, SelectionError
from expertlens_jax.experts import measuring, pipeline, poolings, response_store, responses
from expertlens_jax.experts.poolings import record_poolings

pytestmark = pytest.mark.compiled_quickly
FINDING = dict(sites="attn.v", tokens_per_batch=64, halves=False, permutations=0, transport=False)


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def concepts(model):
    """Sentences that are about as long: all batches have one shape, so that little is compiled."""
    whole = el.load_concepts("facts").subset(("cat", "car"))
    lengths = np.array([len(model.tokenizer(sentence)["input_ids"]) for sentence in whole.sentences])
    return whole.keep_sentences((8 < lengths) & (lengths <= 16))


def refuse(*_, **__):
    raise AssertionError("the model ran again")


def record(model, concepts, site="resid", wanted=("mean", "last"), store=None, bits=None):
    reading = el.Recording(tokens_per_batch=64, significant_bits=bits)
    return record_poolings(model, concepts.sentences, site, wanted, recording=reading, store=store)


@pytest.mark.parametrize(("site", "bits"), [("resid", None), ("attn.head", 12)])
def test_poolings_of_one_pass_are_those_of_a_pass_for_each(model, concepts, site, bits, monkeypatch):
    asked = dict(sites=site, tokens_per_batch=64, significant_bits=bits)
    want = [el.record_responses(model, concepts.sentences, pooling=each, **asked) for each in ("mean", "last")]
    monkeypatch.setattr(responses, "respond", refuse)
    for got, alone in zip(record(model, concepts, site, bits=bits), want, strict=True):
        assert got.values.tobytes() == alone.values.tobytes() and got.identical(alone)


@pytest.mark.parametrize("bits", [None, 12])
def test_what_a_store_keeps_beside_is_recorded_by_the_same_pass_unrounded(model, concepts, bits, tmp_path, monkeypatch):
    finding = FINDING | {"significant_bits": bits}
    want = el.find_experts(model, concepts, tmp_path / "without", **finding)
    alone = record(model, concepts)
    store = el.ResponseStore(tmp_path / "kept", beside=(("resid", "mean"), ("resid", "last")))
    monkeypatch.setattr(responses, "respond", refuse)
    found = el.find_experts(model, concepts, tmp_path / "with", store=store, **finding)
    assert found["average_precision"].values.tobytes() == want["average_precision"].values.tobytes()
    monkeypatch.setattr(poolings, "respond_together", refuse)
    for got, each in zip(record(model, concepts, store=store), alone, strict=True):
        assert got.identical(each)
    monkeypatch.setattr(pipeline, "record", refuse)
    again = el.find_experts(model, concepts, tmp_path / "again", store=tmp_path / "kept", **finding)
    assert again["average_precision"].values.tobytes() == want["average_precision"].values.tobytes()


def test_a_store_keeps_nothing_beside_that_its_limit_has_no_room_for(model, concepts, tmp_path):
    both = 2 * 4 * len(concepts.sentences) * response_store.UNITS_PER_BLOCK
    for limit, entries in ((both - 1, 1), (both, 2)):
        store = el.ResponseStore(tmp_path / f"kept{limit}", limit, beside=(("attn.k", "mean"),))
        el.find_experts(model, concepts, tmp_path / f"run{limit}", store=store, **FINDING)
        assert len(list((tmp_path / f"kept{limit}").glob("*/entry.json"))) == entries


@pytest.mark.parametrize("offload", [None, "host"])
def test_what_is_pooled_over_other_tokens_is_recorded_by_the_same_pass(model, concepts, offload, tmp_path, monkeypatch):
    model = model if offload is None else el.load_model("lenslet-2m", offload=offload)
    over = ("all", "concept", "others")
    finding = FINDING | {"significant_bits": 12, "sites": ("attn.v", "mlp.up")}
    want = [el.find_experts(model, concepts, tmp_path / f"alone_{each}", pool_over=each, **finding) for each in over]
    store = el.ResponseStore(tmp_path / "kept", beside=(("resid", "mean"),), pool_over=over)
    assert store.pool_over == ("concept", "others")
    monkeypatch.setattr(responses, "respond", refuse)
    got = [el.find_experts(model, concepts, tmp_path / "all", store=store, **finding)]
    monkeypatch.setattr(poolings, "respond_together", refuse)
    got += [
        el.find_experts(model, concepts, tmp_path / each, store=store, pool_over=each, **finding) for each in over[1:]
    ]
    for number, (table, alone) in enumerate(zip(got, want, strict=True)):
        assert table["average_precision"].values.tobytes() == alone["average_precision"].values.tobytes(), over[number]
        assert table.attrs == alone.attrs


def test_what_is_kept_over_some_tokens_makes_room_first(model, concepts, tmp_path):
    size = 4 * len(concepts.sentences) * response_store.UNITS_PER_BLOCK
    held = tmp_path / "kept"
    for number, (limit, entries) in enumerate(((4 * size - 1, 2), (4 * size, 4))):
        store = el.ResponseStore(
            held / f"{number}", limit, beside=(("attn.k", "mean"),), pool_over=("concept", "others")
        )
        el.find_experts(model, concepts, tmp_path / f"all{number}", store=store, **FINDING)
        assert len(list((held / f"{number}").glob("*/entry.json"))) == entries  # all of them, or none over some tokens
    for entry in (held / "1").glob("*/"):
        os.utime(entry, (1, 1))
    for over in ("others", "all", "concept"):
        el.find_experts(model, concepts, tmp_path / over, store=store, pool_over=over, **FINDING)
    used = {
        json.loads((entry / "entry.json").read_text())["key"].get("pool_over", "all"): entry.stat().st_mtime
        for entry in (held / "1").glob("*/")
        if "attn.v" in (entry / "entry.json").read_text()
    }
    assert used["all"] > 1 and used["concept"] == used["others"] == 1


def test_tokens_that_cannot_be_pooled_over_are_refused_before_the_model_runs(model, concepts, tmp_path, monkeypatch):
    with pytest.raises(SelectionError, match="pool_over 'word' was given; wanted one of all, concept, others"):
        el.ResponseStore(tmp_path, pool_over=("word",))
    store = el.ResponseStore(tmp_path / "kept", pool_over="concept")
    monkeypatch.setattr(responses, "respond", refuse)
    monkeypatch.setattr(poolings, "respond_together", refuse)
    labels = np.eye(2, dtype=bool)
    without = el.ConceptDataset(
        "made", ("It ran off.", "A dog ran."), ("cat", "dog"), ("a", "a"), labels, labels.any(0)
    )
    with pytest.raises(ConceptDataError, match="pool_over='concept' can't be met by 1 of 2 sentences .* 'It ran off.'"):
        el.find_experts(model, without, tmp_path / "run", store=store, **FINDING)


def test_poolings_that_cannot_be_are_refused_before_the_model_runs(model, concepts, tmp_path, monkeypatch):
    monkeypatch.setattr(responses, "respond", refuse)
    monkeypatch.setattr(poolings, "respond_together", refuse)
    with pytest.raises(SelectionError, match="no poolings were given"):
        record(model, concepts, wanted=[])
    with pytest.raises(SelectionError, match="pooling 'median' was given; wanted one of max"):
        record(model, concepts, wanted=["mean", "median"])
    told = {("resid", "median"): "pooling 'median'", ("residual", "mean"): "residual", ("sae", "mean"): "sae"}
    for number, (pair, message) in enumerate(told.items()):
        store = el.ResponseStore(tmp_path / "kept", beside=(pair,))
        with pytest.raises(SelectionError, match=message):
            el.find_experts(model, concepts, tmp_path / f"run{number}", store=store, **FINDING)
    for given in (("resid", "mean"), "mean", (("resid",),), ((1, "mean"),)):
        with pytest.raises(BudgetError, match=re.escape(f"beside of a store of responses is {given!r}; wanted pairs")):
            el.ResponseStore(tmp_path, beside=given)


@pytest.mark.parametrize("size", [1, 7, 104])
def test_rows_are_summed_where_they_lie_as_a_scan_sums_them(size):
    rows = np.random.default_rng(size).normal(size=(size, 2, 3)).astype(np.float32)
    whole = (rows * 100).astype(np.int32)

    def step(so_far, row):
        so_far = so_far * 0.5 + row
        return so_far, so_far

    @jax.jit
    def compute(rows, whole):
        pieces = measuring._in_pieces(rows, 0)
        start = jax.numpy.zeros_like(pieces[:, 0])
        where_they_lie = measuring._through_pieces(step, start, pieces)
        scanned = lax.scan(step, start, pieces.swapaxes(0, 1))
        again = measuring._in_a_row(pieces, size)
        return where_they_lie, scanned, again, measuring._running(jax.numpy.add, whole, 0)

    (total, kept), (want_total, want), again, running = compute(rows, whole)
    np.testing.assert_allclose(total, want_total, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(kept.swapaxes(0, 1), want, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(again, rows)
    np.testing.assert_array_equal(running, np.cumsum(whole, axis=0))
