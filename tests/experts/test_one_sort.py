"""One recording, one sort, many questions: the same bytes as a run for each, and a store that keeps responses."""

import dataclasses
import json
import os
import re
import shutil

import filelock
import jax
import numpy as np
import pytest
import test_pipeline
import xarray as xr

import expertlens_jax as el
from expertlens_jax.data.subsample import draw_sentences
from expertlens_jax.errors import BudgetError, ExpertLensWarning, RunDirectoryError, SelectionError, SettingError
from expertlens_jax.experts import pipeline, response_store

CONCEPTS = test_pipeline.CONCEPTS
NEGATIVES = [
    el.Negatives(),
    el.Negatives(per_positive=1),
    el.Negatives(per_positive=10),
    el.Negatives(per_positive=2, sampled=True, seed=1),
    el.Negatives(per_positive=2, sampled=True, seed=2),
    el.Negatives(exclude_mentions=False),
]
BARE = dict(halves=False, permutations=0, transport=False)


def find(model, concepts, workdir, **options):
    """With batches that few sentences fill: of those as large as by default, nearly all rows would be fillers."""
    return el.find_experts(model, concepts, workdir, **dict(tokens_per_batch=256) | options)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def several(model, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("several") / "run"
    return workdir, find(model, CONCEPTS, workdir, negatives=NEGATIVES, permutations=5, transport=False)


@pytest.mark.parametrize("number", range(len(NEGATIVES)))
def test_one_sort_gives_the_bytes_of_a_run_for_each(model, several, tmp_path, number):
    want = find(model, CONCEPTS, tmp_path, negatives=NEGATIVES[number], **BARE).load()
    got = el.select_negatives(several[1], NEGATIVES[number]).load()
    assert got["average_precision"].values.tobytes() == want["average_precision"].values.tobytes()
    by_negatives = several[1]["average_precision_by_negatives"].isel(negatives=number)
    assert by_negatives.values.tobytes() == want["average_precision"].values.tobytes()
    for name, coordinate in want.coords.items():
        np.testing.assert_array_equal(got[name].values, coordinate.values)
    said = ("halves", "permutations")
    assert {k: v for k, v in got.attrs.items() if k not in said} == {
        k: v for k, v in want.attrs.items() if k not in said
    }
    assert el.jaccard(el.select_experts(want, threshold=0.5)).equals(el.jaccard(el.select_experts(got, threshold=0.5)))


def test_what_else_is_measured_is_that_of_the_first_alone(model, several, tmp_path):
    want = find(model, CONCEPTS, tmp_path, permutations=5, transport=False).load()
    xr.testing.assert_identical(el.select_negatives(several[1], el.Negatives()).load(), want)
    assert set(several[1].data_vars) - set(want.data_vars) == {"average_precision_by_negatives"}


def test_base_rates_are_a_dimension(model, tmp_path):
    table = find(model, CONCEPTS, tmp_path, negatives_per_positive=[2.5, 1, 10], **BARE)
    by_rate = table["average_precision_by_negatives"].swap_dims(negatives="negatives_per_positive")
    chosen = el.select_negatives(table, negatives_per_positive=10)
    np.testing.assert_array_equal(by_rate.sel(negatives_per_positive=10).values, chosen["average_precision"].values)
    np.testing.assert_allclose(chosen["base_rate"].values, 1 / 11, rtol=1e-6)
    np.testing.assert_allclose(table["base_rate_by_negatives"].values, [[1 / 3.5] * 5, [1 / 2] * 5, [1 / 11] * 5])
    assert chosen.attrs["negatives_per_positive"] == 10 and "other_negatives" not in chosen.attrs
    with pytest.raises(SelectionError, match=re.escape("none such (negatives_per_positive=4). It has Negatives(")):
        el.select_negatives(table, negatives_per_positive=4)
    with pytest.raises(SelectionError, match=re.escape("with 3 such (seed=0). It has ")):
        el.select_negatives(table, seed=0)
    with pytest.raises(SettingError, match="select_negatives has no setting 'per_positive'. Did you mean 'neg"):
        el.select_negatives(table, per_positive=10)
    with pytest.raises(RunDirectoryError, match="other_negatives.1.negatives_per_positive: 10.0 there, 5.0 asked for"):
        find(model, CONCEPTS, tmp_path, negatives_per_positive=[2.5, 1, 5], **BARE)
    el.open_expertise(tmp_path).load().to_netcdf(tmp_path / "table.nc", engine="scipy")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(negatives=[]), "an empty list of negatives; wanted el.Negatives()"),
        (dict(negatives_per_positive=()), "an empty list of negatives"),
        (dict(negatives=[el.Negatives(), el.Negatives()]), "given Negatives(per_positive=2.5, exclude_mentions=True, "),
        (dict(negatives_per_positive=(1, 1.0)), "twice; wanted negatives that differ."),
        (dict(negatives=[el.Negatives(), 3]), "given negatives=3; wanted el.Negatives(per_positive"),
        (dict(negatives=[el.Negatives()], seed=3), "given seed=3 beside negatives=Negatives("),
    ],
)
def test_lists_of_negatives_that_cannot_be_are_refused(given, message, tmp_path):
    with pytest.raises(SettingError, match=re.escape(message)):
        el.find_experts(None, CONCEPTS, tmp_path, **given)


def refuse(*_, **__):
    raise AssertionError("the model ran again")


def test_a_store_gives_the_bytes_of_a_run_without_and_records_once(model, tmp_path, monkeypatch):
    want = find(model, CONCEPTS, tmp_path / "without")
    bare = test_pipeline.contents(tmp_path / "without")
    store = tmp_path / "responses"
    find(model, CONCEPTS, tmp_path / "first", store=store)
    assert test_pipeline.contents(tmp_path / "first") == bare
    monkeypatch.setattr(pipeline, "record", refuse)
    find(model, CONCEPTS, tmp_path / "second", budget=el.Budget(store=el.ResponseStore(store)), passes=3)
    assert test_pipeline.contents(tmp_path / "second") == bare
    sampled = find(model, CONCEPTS, tmp_path / "third", sampled=True, store=os.fspath(store), **BARE)
    assert np.abs(sampled["average_precision"].values - want["average_precision"].values).max() > 0.01
    assert [each.name for each in store.glob("*-*") if each.suffix != ".lock"] == [next(store.glob("*-*[0-9a-f]")).name]


@pytest.mark.long
def test_fewer_sentences_and_fewer_concepts_are_read_from_it(model, tmp_path, monkeypatch):
    fewer = [draw_sentences(CONCEPTS, 3), draw_sentences(CONCEPTS, 2, draw=1), CONCEPTS.subset(CONCEPTS.concepts[:3])]
    want = [find(model, each, tmp_path / f"without{i}", **BARE) for i, each in enumerate(fewer)]
    find(model, CONCEPTS, tmp_path / "whole", store=tmp_path / "store", **BARE)
    monkeypatch.setattr(pipeline, "record", refuse)
    for i, each in enumerate(fewer):
        got = find(model, each, tmp_path / f"with{i}", store=tmp_path / "store", **BARE)
        xr.testing.assert_identical(got.load(), want[i].load())


@pytest.mark.parametrize(
    "change",
    [
        dict(sites="resid"),
        dict(pooling="mean"),
        dict(pool_over="others"),
        dict(tokens_per_batch=64),
    ],
)
def test_what_is_read_otherwise_is_recorded_anew(model, tmp_path, change, monkeypatch):
    concepts = el.load_concepts("facts").subset(("cat", "dog")) if "pool_over" in change else CONCEPTS
    find(model, concepts, tmp_path / "first", store=tmp_path / "store", **BARE)
    got = find(model, concepts, tmp_path / "other", store=tmp_path / "store", **change, **BARE)
    want = find(model, concepts, tmp_path / "without", **change, **BARE)
    xr.testing.assert_identical(got.load(), want.load())
    monkeypatch.setattr(pipeline, "record", refuse)
    with pytest.raises(AssertionError, match="ran again"):
        find(model, concepts, tmp_path / "third", store=tmp_path / "store", **change | {"pooling": "last"}, **BARE)


def test_another_network_of_the_same_name_is_recorded_anew(model, tmp_path):
    find(model, CONCEPTS, tmp_path / "first", store=tmp_path / "store", **BARE)
    other = model.replace(params=jax.tree.map(lambda leaf: leaf * 1.01, dict(model.params)))
    got = find(other, CONCEPTS, tmp_path / "got", store=tmp_path / "store", **BARE)
    want = find(other, CONCEPTS, tmp_path / "want", **BARE)
    xr.testing.assert_identical(got.load(), want.load())


def entries(store):
    return sorted(file.parent for file in store.glob(f"*/{response_store.VALUES}"))


@pytest.mark.long
def test_it_holds_no_more_than_its_limit_and_the_last_used_stay(model, tmp_path):
    size = 4 * 30 * 9 * 512  # 30 sentences, 4,608 units
    store = el.ResponseStore(tmp_path / "store", limit=2 * size + 100)
    kept = []
    for number, pooling in enumerate(("max", "mean", "last")):
        find(model, CONCEPTS, tmp_path / pooling, pooling=pooling, budget=el.Budget(store=store), **BARE)
        kept += [entry for entry in entries(tmp_path / "store") if entry not in kept]
        os.utime(kept[number], (number, number))
        if pooling == "mean":
            find(model, CONCEPTS, tmp_path / "again", budget=el.Budget(store=store), sampled=True, **BARE)
    assert len(kept) == 3 and entries(tmp_path / "store") == sorted((kept[0], kept[2]))
    assert sum((entry / response_store.VALUES).stat().st_size for entry in entries(tmp_path / "store")) == 2 * size
    small = el.Budget(store=el.ResponseStore(tmp_path / "store", limit=size - 1))
    with pytest.warns(ExpertLensWarning, match=r"can't be kept in .*store \(they take 552,960 bytes, and its limit is"):
        got = find(model, CONCEPTS, tmp_path / "small", pooling="mean", budget=small, **BARE)
    xr.testing.assert_identical(got.load(), el.open_expertise(tmp_path / "mean").load())
    assert len(entries(tmp_path / "store")) == 2


def damage(entry, how):
    values, described = entry / response_store.VALUES, entry / response_store.ENTRY
    if how == "a number":
        with values.open("r+b") as file:
            file.seek(999)
            file.write(b"\x07")
    elif how == "the length":
        with values.open("r+b") as file:
            file.truncate(1000)
    elif how == "the description":
        described.write_text(described.read_text()[:50])
    elif how == "a field":
        said = json.loads(described.read_text())
        del said["crc32"]
        described.write_text(json.dumps(said))


@pytest.mark.parametrize("how", ["a number", "the length", "the description", "a field"])
def test_a_damaged_entry_is_told_and_recorded_again(model, tmp_path, how):
    want = find(model, CONCEPTS, tmp_path / "first", store=tmp_path / "store", **BARE).load()
    damage(*entries(tmp_path / "store"), how)
    with pytest.warns(ExpertLensWarning, match=r"the responses kept in .* are damaged \(.*\); they are recorded again"):
        got = find(model, CONCEPTS, tmp_path / "second", store=tmp_path / "store", **BARE)
    xr.testing.assert_identical(got.load(), want)
    again = find(model, CONCEPTS, tmp_path / "third", store=tmp_path / "store", **BARE)  # and warns no more
    xr.testing.assert_identical(again.load(), want)


def test_a_run_that_is_killed_leaves_nothing_that_is_taken_for_responses(model, tmp_path, monkeypatch):
    recorded = pipeline.record

    def stopped(prepared, layout, buffer, *rest):
        recorded(prepared, layout, buffer, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "record", stopped)
    with pytest.raises(KeyboardInterrupt):
        find(model, CONCEPTS, tmp_path / "run", store=tmp_path / "store", **BARE)
    assert not entries(tmp_path / "store")
    monkeypatch.setattr(pipeline, "record", recorded)
    # What kill -9 leaves: a part without its end, whose lock nobody holds.
    find(model, CONCEPTS, tmp_path / "run", store=tmp_path / "store", **BARE)
    (entry,) = entries(tmp_path / "store")
    shutil.copytree(entry, entry.with_suffix(".partial"))
    shutil.rmtree(entry)
    got = find(model, CONCEPTS, tmp_path / "again", store=tmp_path / "store", **BARE)
    assert entries(tmp_path / "store") == [entry]
    xr.testing.assert_identical(got.load(), el.open_expertise(tmp_path / "run").load())


def test_what_another_process_is_recording_is_not_waited_for(model, tmp_path):
    find(model, CONCEPTS, tmp_path / "first", store=tmp_path / "store", **BARE)
    (entry,) = entries(tmp_path / "store")
    shutil.rmtree(entry)
    with filelock.FileLock(entry.with_suffix(".lock")):
        got = find(model, CONCEPTS, tmp_path / "second", store=tmp_path / "store", **BARE)
    xr.testing.assert_identical(got.load(), el.open_expertise(tmp_path / "first").load())
    assert not entries(tmp_path / "store")


def test_a_disk_without_room_is_told_before_the_model_runs(model, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.warns(ExpertLensWarning, match=r"can't be kept in .*\(No space left on device\).*a larger limit, or a"):
        find(model, CONCEPTS, tmp_path / "run", store=tmp_path / "store", **BARE)
    assert not entries(tmp_path / "store") and not list((tmp_path / "store").glob("*.partial"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: el.ResponseStore("gs://bucket/responses"), "can't be in 'gs://bucket/responses'; wanted a local"),
        (lambda: el.ResponseStore(""), "can't be in ''; wanted a local directory"),
        (lambda: el.ResponseStore("here", limit=1.5), "limit of a store of responses is 1.5; wanted bytes, from 0 on"),
        (lambda: el.Budget(store=3), "store of a budget is 3; wanted a directory, el.ResponseStore(directory, limit)"),
    ],
)
def test_a_store_that_cannot_be_is_refused(make, message):
    with pytest.raises(BudgetError, match=re.escape(message)):
        make()


def test_several_hosts_are_refused_a_store(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(BudgetError, match=r"was given to 2 hosts, and each records its share .* Leave it out."):
        pipeline.check_one_host(el.ResponseStore("here"))
    assert dataclasses.replace(el.Budget(), store="here").store == el.ResponseStore("here")
