"""Tables of one concept's experts and one unit's sentences and tokens, against pandas and numpy by hand."""

import families
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import expertlens_jax as el
from expertlens_jax.errors import ExpertLensWarning, ResponsesError, RunDirectoryError, SelectionError

SENTENCES = [f"{word} {a} {b}" for word in ("ba", "de", "fi") for a in "abcde" for b in "xyz"]


@pytest.fixture(scope="module")
def concepts(tmp_path_factory):
    file = tmp_path_factory.mktemp("concepts") / "syllables.csv"
    pd.DataFrame({"concept": [sentence[:2] for sentence in SENTENCES], "sentence": SENTENCES}).to_csv(file, index=False)
    return el.load_concepts(file)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    case = next(case for case in families.CASES if case.name == "gpt2")
    return el.load_model(families.save(families.make_hf_model(case), tmp_path_factory.mktemp("gpt2")), name="tiny")


@pytest.fixture(scope="module")
def responses(model, concepts):
    return el.record_responses(model, concepts.sentences)


@pytest.fixture(scope="module")
def expertise(responses, concepts):
    return el.measure_expertise(responses, concepts)


@pytest.fixture(scope="module")
def found(model, concepts, tmp_path_factory):
    return el.find_experts(
        model, concepts, workdir=tmp_path_factory.mktemp("run"), halves=True, permutations=5, sites=("mlp.up",)
    )


# Experts.


def test_top_experts_are_the_units_of_highest_precision_with_their_addresses(model, expertise):
    table = el.top_experts(expertise, "ba", 12)
    precision = expertise["average_precision"].sel(concept="ba").to_series()
    np.testing.assert_array_equal(table["average_precision"], precision.sort_values(ascending=False)[:12])
    np.testing.assert_array_equal(table["average_precision"], precision[table.index])
    place = ["layer", "site", "channel", "hf_module", "hf_channel"]
    pd.testing.assert_frame_equal(
        table[place], model.units.loc[table.index, place], check_names=False, check_dtype=False, check_categorical=False
    )
    assert table.columns.tolist() == [*place[:3], "average_precision", "sign", *place[3:], "serves"]
    assert len(el.top_experts(expertise, "ba")) == 20
    assert len(el.top_experts(expertise, "ba", 10**6)) == len(model.units)


def test_the_other_concepts_that_a_unit_serves_are_named_best_first(expertise):
    table = el.top_experts(expertise, "de", 40, threshold=0.4)
    for unit, names in table["serves"].items():
        own = expertise["average_precision"].sel(unit=unit).to_series().drop("de")
        assert names == ", ".join(own[own >= np.float32(0.4)].sort_values(ascending=False, kind="stable").index)
    assert table["serves"].str.len().max() > 0
    assert (el.top_experts(expertise, "de", threshold=1.0)["serves"] == "").mean() > 0.5


def test_the_sign_says_whether_positives_are_above(expertise):
    table = el.top_experts(expertise, "fi", expertise.sizes["unit"])
    above = expertise["auroc"].sel(concept="fi").to_series()[table.index] >= 0.5
    assert (table["sign"] == np.where(above, "+", "-")).all() and table["sign"].nunique() == 2
    means = expertise.drop_vars("auroc")
    higher = (means["positive_mean"] >= means["negative_mean"]).sel(concept="fi").to_series()
    ours = el.top_experts(means, "fi", 10**6)["sign"]
    assert (ours == np.where(higher[ours.index], "+", "-")).all()
    assert "sign" not in el.top_experts(means.drop_vars("negative_mean"), "fi")


def test_experts_by_another_score_have_it_beside_their_precision(expertise):
    auroc = expertise["auroc"]
    for sign, score in (("up", auroc), ("down", 1 - auroc), ("both", np.maximum(auroc, 1 - auroc))):
        table = el.top_experts(expertise, "de", 9, threshold=0.9, by="auroc", sign=sign)
        own = score.sel(concept="de").to_series().sort_values(ascending=False, kind="stable")[:9]
        np.testing.assert_array_equal(table.index, own.index)
        np.testing.assert_array_equal(table["score"], own)
        precision = expertise["average_precision"].sel(concept="de", unit=table.index)
        np.testing.assert_array_equal(table["average_precision"], precision)
        for unit, names in table["serves"].items():
            others = score.sel(unit=unit).to_series().drop("de")
            assert {*filter(None, names.split(", "))} == {*others[others >= np.float32(0.9)].index}
    assert set(el.top_experts(expertise, "de", 9, by="auroc", sign="down")["sign"]) == {"-"}
    with pytest.raises(SelectionError, match="Unknown score 'f1'. Choose from: average_precision, auroc"):
        el.top_experts(expertise, "de", by="f1")
    with pytest.raises(SelectionError, match="average_precision_down, which this table of expertise doesn't have"):
        el.top_experts(expertise, "de", sign="down")


def test_q_values_and_held_out_precision_stand_where_the_table_has_them(found):
    table = el.top_experts(found, "ba", 8)
    np.testing.assert_array_equal(table["q_value"], found["q_value"].sel(concept="ba").to_series()[table.index])
    halves = found["average_precision_halves"].sel(concept="ba").transpose("half", "unit").to_pandas()
    best = [set(halves.loc[half].sort_values(ascending=False, kind="stable").index[:8]) for half in (0, 1)]
    wanted = [
        np.mean([halves.loc[1 - half, unit] for half in (0, 1) if unit in best[half]] or [np.nan])
        for unit in table.index
    ]
    np.testing.assert_allclose(table["held_out"], wanted, rtol=1e-6)
    everything = el.top_experts(found, "ba", 10**6)
    np.testing.assert_allclose(everything["held_out"], halves.mean()[everything.index], rtol=1e-6)


def test_a_table_on_disk_is_read_alike(found, model, concepts, tmp_path):
    run = tmp_path / "run"
    written = el.find_experts(model, concepts, workdir=run, sites=("mlp.up",))
    opened = el.open_expertise(run)
    pd.testing.assert_frame_equal(el.top_experts(opened, "ba"), el.top_experts(written, "ba"))


def test_top_experts_are_traced_and_know_their_model(model, expertise, concepts, responses):
    table = el.top_experts(expertise, "ba", 3)
    traced = el.trace(model, concepts.sentences[:4], table)
    np.testing.assert_array_equal(traced.pooled(), responses.values[:4, table.index])
    sibling = el.randomize_weights(model, seed=3)
    with pytest.warns(ExpertLensWarning, match="these units are of tiny and are read in"):
        el.trace(sibling, ["ba a"], table)


def test_concepts_and_counts_that_cannot_be_are_told(expertise):
    with pytest.raises(SelectionError, match="the concept 'baa' isn't in this table of expertise. Did you mean 'ba'"):
        el.top_experts(expertise, "baa")
    with pytest.raises(SelectionError, match=r"concept=\['ba', 'de'\] was given; wanted the name of one concept"):
        el.top_experts(expertise, ["ba", "de"])
    with pytest.raises(SelectionError, match="count=0 was given; wanted a number of units, 1 or more"):
        el.top_experts(expertise, "ba", 0)
    with pytest.raises(SelectionError, match="threshold=2; wanted an average precision"):
        el.top_experts(expertise, "ba", threshold=2)
    with pytest.raises(SelectionError, match="was given where a table of expertise is wanted"):
        el.top_experts(xr.DataArray([1]), "ba")


# Sentences.


def test_top_sentences_are_the_highest_responses(responses, model):
    for unit, place in [("L2 mlp.up 5", None), (model.units.loc[77], 77), (model.units.loc[[40]], 40)]:
        if place is None:
            place = model.units.query("layer == 2 and site == 'mlp.up' and channel == 5").index[0]
        ranked = pd.Series(responses.values[:, place]).sort_values(ascending=False, kind="stable")
        table = el.top_sentences(responses, unit, 9)
        assert table.columns.tolist() == ["response", "sentence"] and table.index.name == "number"
        np.testing.assert_array_equal(table["response"], ranked[:9])
        assert table["sentence"].tolist() == [responses.sentences[i] for i in table.index]
        lowest = el.top_sentences(responses, unit, 9, lowest=True)
        np.testing.assert_array_equal(lowest["response"], ranked[::-1][:9])
    assert len(el.top_sentences(responses, "L2 mlp.up 5")) == 20
    assert len(el.top_sentences(responses, "L2 mlp.up 5", 1000)) == len(SENTENCES)


def test_top_sentences_of_a_trace_are_those_of_responses(responses, model):
    traced = el.trace(model, responses.sentences, [(2, "mlp.up", 5), (0, "resid", 3)])
    ours, theirs = (el.top_sentences(each, (2, "mlp.up", 5)) for each in (traced, responses))
    pd.testing.assert_frame_equal(ours, theirs)
    assert len(el.top_sentences(traced, (0, "resid", 3), 4)) == 4


def test_units_that_were_not_recorded_are_told(responses, model, tmp_path):
    with pytest.raises(SelectionError, match=r"L0 resid 3 was given.*are of attn.q, attn.k, .*: resid wasn't recorded"):
        el.top_sentences(responses, (0, "resid", 3))
    with pytest.raises(
        SelectionError, match=r"L9 mlp.up 3 .* have 288 units at mlp.up, in layers 0 to 2 with channels 0 to 95"
    ):
        el.top_sentences(responses, (9, "mlp.up", 3))
    with pytest.raises(SelectionError, match="2 units were given; wanted one"):
        el.top_sentences(responses, model.units.head(2))
    with pytest.raises(SelectionError, match="count=2.5 was given; wanted a number of sentences"):
        el.top_sentences(responses, (0, "mlp.up", 3), 2.5)
    other = model.units.loc[[40]].assign(hf_module="gpt_neox.layers.0.attention")
    with pytest.raises(SelectionError, match="1 of 1 units are another model's"):
        el.top_sentences(responses, other)
    with pytest.raises(RunDirectoryError, match=r"run holds no expertise.zarr. Give the workdir of el.find_experts"):
        el.top_sentences(tmp_path / "run", (0, "mlp.up", 3))
    with pytest.raises(ResponsesError, match=r"a DataFrame was given for responses. Give what el.record_responses"):
        el.top_sentences(model.units, (0, "mlp.up", 3))
    with pytest.raises(SelectionError, match="model and sentences are of a run, and no run's directory was given"):
        el.top_sentences(responses, (0, "mlp.up", 3), model=model)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_top_sentences_of_a_run_are_read_by_its_model(model, concepts, tmp_path, pooling):
    run = tmp_path / "expertise" / "tiny"
    el.find_experts(model, concepts, run, permutations=0, halves=False, pooling=pooling)
    expected = el.top_sentences(el.record_responses(model, concepts.sentences, pooling=pooling), "L1 mlp.up 5", 7)
    given = {"model": model, "sentences": concepts}
    read = el.top_sentences(str(run), "L1 mlp.up 5", 7, **given)
    pd.testing.assert_frame_equal(read, expected)
    elsewhere = el.top_sentences(run, (1, "resid", 3), 2, lowest=True, **given)  # at a site that wasn't recorded
    seen = el.trace(model, concepts.sentences, (1, "resid", 3)).pooled(pooling)[:, 0]
    assert elsewhere.index.tolist() == np.argsort(seen, kind="stable")[:2].tolist()
    # Experiments keep responses beside their tables: these are then taken, and nothing is read.
    store = el.ResponseStore(run.parent / "responses")
    el.find_experts(model, concepts, tmp_path / "other", permutations=0, halves=False, pooling=pooling, store=store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("expertlens_jax.experts.inspection.trace", None)
        pd.testing.assert_frame_equal(el.top_sentences(run, "L1 mlp.up 5", 7, **given), expected)
    with pytest.raises(RunDirectoryError, match=r"is a run of several tables.*expertise/NAME, of tiny\."):
        el.top_sentences(tmp_path, "L1 mlp.up 5", **given)


@pytest.mark.long
def test_a_run_whose_sentences_or_model_are_gone_says_so(model, concepts, tmp_path):
    el.find_experts(model, concepts, tmp_path, permutations=0, halves=False)
    with pytest.raises(
        ResponsesError, match=r"the sentences of .* aren't found: the run knows them as 'syllables' only"
    ):
        el.top_sentences(tmp_path, "L1 mlp.up 5", model=model)
    with pytest.raises(
        ResponsesError, match=r"can't be read again: the model can't be loaded \(.*Give its model: model="
    ):
        el.top_sentences(tmp_path, "L1 mlp.up 5", sentences=concepts)
    with pytest.raises(el.ExpertLensError, match="the run's tables are of tiny, and lenslet-2m isn't what they were"):
        el.top_sentences(tmp_path, "L1 mlp.up 5", model="lenslet-2m", sentences=concepts)


# Tokens.


def test_top_tokens_are_the_highest_activations_of_the_sentences_own_tokens(model):
    unit = (1, "mlp.up", 9)
    traced = el.trace(model, SENTENCES, unit)
    rows = [
        (value, number, position, text)
        for number in range(len(SENTENCES))
        for position, (value, text) in enumerate(
            zip(traced.activations[number][:, 0], traced.tokens[number], strict=True)
        )
        if traced.in_pool[number][position]
    ]
    rows.sort(key=lambda row: -row[0])
    table = el.top_tokens(model, SENTENCES, unit, 15)
    np.testing.assert_array_equal(table["activation"], [row[0] for row in rows[:15]])
    assert table["token"].str.strip().tolist() == [
        sentence[start:end]
        for sentence, start, end in zip(table["sentence"], table["start"], table["end"], strict=True)
    ]
    assert table["sentence"].tolist() == [SENTENCES[number] for number in table["number"]]
    assert "[CLS]" not in set(table["token"])
    lowest = el.top_tokens(model, SENTENCES, unit, 15, lowest=True)
    np.testing.assert_array_equal(lowest["activation"], [row[0] for row in rows[::-1][:15]])
    with pytest.raises(SelectionError, match="2 units were given"):
        el.top_tokens(model, SENTENCES, [unit, unit])
    with pytest.raises(SelectionError, match="count=-1 was given; wanted a number of tokens"):
        el.top_tokens(model, SENTENCES, unit, -1)
