"""The site's data are the run's: the table's own numbers, el.trace's activations, the contrast's sentences."""

import base64
import contextlib
import json
import re
import warnings

import numpy as np
import pytest
import sklearn.metrics
from explored_run import CONCEPTS, REPORT, change, read_chunk, reproduced_run

import expertlens_jax as el
from expertlens_jax import command

pytestmark = pytest.mark.process


def unpack(packed):
    kinds = {"uint8": "<u1", "uint16": "<u2", "uint32": "<u4"}
    return np.frombuffer(base64.b64decode(packed["data"]), kinds[packed["type"]]).reshape(packed["shape"])


@contextlib.contextmanager
def warns(message):
    """What a page leaves out is warned of, each thing by itself; one of them is this."""
    with pytest.warns(el.ExpertLensWarning) as told:
        yield
    assert any(re.search(message, str(each.message)) for each in told), [str(each.message) for each in told]


@pytest.fixture(scope="module")
def table(shown):
    (table,) = shown.chunk("index")["tables"]
    return table


@pytest.fixture(scope="module")
def units(shown, table):
    """Of each unit that is shown, its position in the run's table."""
    found = {name: unpack(values) for name, values in shown.chunk("t0/units").items()}
    place = shown.model.units.reset_index().set_index(["layer", "site", "channel"])["index"]
    sites = [table["sites"][site] for site in found["site"]]
    return [place[key] for key in zip(found["layer"], sites, found["channel"], strict=True)]


def test_the_index_says_what_there_is(shown, table):
    index = shown.chunk("index")
    assert table["concepts"] == list(CONCEPTS) and table["domains"] == list(shown.concepts.domains)
    assert table["numUnits"] == len(shown.model.units) and table["best"] == 20
    assert index["notes"] == [] and index["conclusions"] == [] and index["version"] == el.__version__
    for level, threshold in enumerate(table["levels"]):
        experts = el.select_experts(shown.expertise, threshold=threshold).sum("unit").values
        assert [row[level] for row in table["experts"]] == experts.tolist()
    ratings = el.load_ratings("wordsim353")
    rated = {frozenset(pair): score for pair, score in zip(ratings.pairs, ratings.scores, strict=True)}
    assert len(table["rated"]["wordsim353"]) == 5
    for i, j, rating in table["rated"]["wordsim353"]:
        assert rated[frozenset((CONCEPTS[i], CONCEPTS[j]))] == rating


def test_a_concept_has_its_best_units_with_the_tables_own_numbers(shown, table, units):
    for row in (1, 5):
        chunk = shown.chunk(f"t0/concepts/{row}")
        positions = [units[place] for place in chunk["units"]]
        precision = shown.expertise["average_precision"].values[row]
        assert positions == np.argsort(-precision, kind="stable")[:20].tolist()
        assert np.array_equal(np.array(chunk["ap"], np.float32), precision[positions])  # to the bit
        for name in ("q_value", "auroc", "negative_mean"):
            np.testing.assert_allclose(chunk[name], shown.expertise[name].values[row, positions], rtol=1e-3)
        halves = shown.expertise["average_precision_halves"].transpose("half", "concept", "unit").values
        np.testing.assert_allclose([chunk["half_0"], chunk["half_1"]], halves[:, row, positions], rtol=1e-3)
        assert chunk["sentences"] == np.flatnonzero(shown.concepts.labels[row]).tolist()
        experts = el.select_experts(shown.expertise, threshold=table["levels"][4]).values[row]
        assert unpack(chunk["perPlace"])[4].sum() == experts.sum()


def test_a_unit_has_its_address_and_the_concepts_it_serves(shown, table, units):
    place = 70
    told = shown.chunk(f"t0/units/{place // table['unitsPerChunk']}")[place % table["unitsPerChunk"]]
    row = shown.model.units.loc[units[place]]
    assert (told["module"], told["channel"]) == (row["hf_module"], row["hf_channel"])
    precision = shown.expertise["average_precision"].values[:, units[place]]
    assert told["concepts"] == np.argsort(-precision, kind="stable").tolist()
    assert np.array_equal(np.array(told["ap"], np.float32), precision[told["concepts"]])
    assert told["serves"][4] == (precision >= np.float32(0.5)).sum()


def test_shared_experts_make_jaccard(shown, table):
    level = table["levels"].index(0.5)
    shared = unpack(shown.chunk(f"t0/shared/{level}"))
    experts = el.select_experts(shown.expertise, threshold=0.5)
    above = np.triu_indices(len(CONCEPTS), 1)
    sizes = experts.sum("unit").values
    jaccard = shared / (sizes[above[0]] + sizes[above[1]] - shared)
    np.testing.assert_allclose(jaccard, el.jaccard(experts).values[above], rtol=0, atol=1e-12)
    arranged = shown.chunk(f"t0/arranged/{table['maps'][1]}")
    assert len(arranged["tree"]) == len(CONCEPTS) - 1 and len(arranged["x"]) == len(CONCEPTS)


def test_tokens_are_those_of_el_trace(shown, units):
    for row in (1, 5):
        spoken = shown.chunk(f"t0/spoken/{row}")
        positions = [units[place] for place in spoken["units"]]
        assert len(spoken["sentences"]) == 16 and len(positions) == 2
        sentences = [shown.concepts.sentences[each["sentence"]] for each in spoken["sentences"]]
        seen = el.trace(shown.model, sentences, shown.model.units.loc[positions])
        for told, sentence, values, own in zip(
            spoken["sentences"], sentences, seen.activations, seen.in_pool, strict=True
        ):
            assert "".join(told["tokens"]) == sentence
            codes = unpack(told["activations"])
            assert codes.shape == (2, len(told["tokens"])) == values[own].T.shape
            for unit, (lowest, middle, highest) in enumerate(spoken["scales"]):
                step = (highest - lowest) / 255
                assert lowest <= middle <= highest
                np.testing.assert_allclose(
                    lowest + codes[unit] * step, values[own][:, unit], rtol=0, atol=0.51 * step + 1e-5
                )


def test_a_unit_speaks_most_where_its_response_is_highest(shown, table, units):
    place, number = next(iter(table["speaking"].items()))
    speaks = shown.chunk(f"t0/speaks/{number}")
    position = units[int(place)]
    responses = el.record_responses(shown.model, shown.concepts.sentences).values[:, position]
    assert [each["sentence"] for each in speaks["most"]] == np.argsort(-responses, kind="stable")[:8].tolist()
    seen = el.trace(shown.model, shown.concepts.sentences, shown.model.units.loc[[position]])
    lows = np.array([values[own].min() for values, own in zip(seen.activations, seen.in_pool, strict=True)])
    assert [each["sentence"] for each in speaks["least"]] == np.argsort(lows, kind="stable")[:8].tolist()
    np.testing.assert_allclose(speaks["scales"][0][0], lows.min(), rtol=1e-5)
    weights = el.contrast_concepts(shown.concepts).weights()
    for spread in speaks["spread"]:
        row = spread["concept"]
        positive, negative = shown.concepts.labels[row], (weights[row] > 0) & ~shown.concepts.labels[row]
        assert (sum(spread["positive"]), sum(spread["negative"])) == (positive.sum(), negative.sum())
        found = sklearn.metrics.average_precision_score(
            positive[weights[row] > 0], responses[weights[row] > 0], sample_weight=weights[row][weights[row] > 0]
        )
        np.testing.assert_allclose(found, shown.expertise["average_precision"].values[row, position], rtol=1e-5)


def test_every_sentence_is_there_with_its_concepts(shown, table):
    part = shown.chunk("t0/sentences/0")
    assert part["texts"] == list(shown.concepts.sentences) and table["numSentences"] == len(part["texts"])
    assert part["concepts"] == [np.flatnonzero(column).tolist() for column in shown.concepts.labels.T]


def test_what_opens_first_is_small_and_the_page_calls_nothing_else(shown):
    first = [shown.site / "index.html", shown.site / "page.css", shown.site / "data" / "index.js"]
    first += [*(shown.site / "js").iterdir(), *(shown.site / "vendor").glob("*.js")]
    assert sum(path.stat().st_size for path in first) < 120_000
    for path in first:
        text = path.read_text().replace("http://www.w3.org/", "")
        assert "http://" not in text and "https://" not in text and "//cdn" not in text, path


def test_vendored_code_has_its_licences(shown):
    assert "Apache License" in (shown.site / "vendor" / "LICENSE-htm").read_text()
    assert "MIT License" in (shown.site / "vendor" / "LICENSE-preact").read_text()


def test_a_page_is_replaced_and_anything_else_is_not(shown, tmp_path):
    run = shown.copy(tmp_path / "run")
    page = el.explore(run, tokens=False, experts=5)
    assert page == run / "explore" / "index.html"
    (run / "explore" / "data" / "stale.js").write_text("")
    el.explore(run, tokens=False, experts=5)
    assert not (run / "explore" / "data" / "stale.js").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("all of it")
    with pytest.raises(el.ExpertLensError, match=r"mine holds files that aren't a page to explore a run\. Choose"):
        el.explore(run, mine)
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]
    with pytest.raises(el.ExpertLensError, match=r"thesis.tex is a file, and a page is a folder"):
        el.explore(run, mine / "thesis.tex")


def test_numbers_of_units_below_one_are_refused(shown, tmp_path):
    for name in ("experts", "speaking"):
        with pytest.raises(el.ExpertLensError, match=f"{name} is 0; wanted 1 or more units of each concept"):
            el.explore(shown.directory, tmp_path / "out", **{name: 0})
    assert not (tmp_path / "out").exists()


def test_another_model_or_other_sentences_are_refused(shown, tmp_path):
    with pytest.raises(el.ExpertLensError, match=r"tables are of lenslet-2m, and lenslet-2m-seed1 isn't what they"):
        el.explore(shown.directory, tmp_path / "out", model="lenslet-2m-seed1")
    with pytest.raises(
        el.ExpertLensError, match=r"the sentences of 'stories' aren't those of the run's tables \(facts"
    ):
        el.explore(shown.directory, tmp_path / "out", sentences=["stories"])
    with pytest.raises(el.ExpertLensError, match="no file 'nowhere.tsv'"):
        el.explore(shown.directory, tmp_path / "out", sentences=["nowhere.tsv"])
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_without_its_model_the_page_says_so_and_shows_all_else(shown, tmp_path):
    run = shown.copy(tmp_path / "run")
    change(run, model="checkpoint-500")
    with warns("the model can't be loaded .*Give the model with --model"):
        el.explore(run, tmp_path / "out", experts=5)
    index = read_chunk(tmp_path / "out", "index")
    (note,) = index["notes"]
    assert note.startswith("checkpoint-500, facts: What units say at each token isn't shown: the model can't be")
    assert index["tables"][0]["speaking"] == {} and index["tables"][0]["numSentences"] == len(shown.concepts.sentences)
    assert not (tmp_path / "out" / "data" / "t0" / "spoken").exists()


def test_a_model_of_the_same_name_with_other_weights_is_not_taken_for_it(shown, tmp_path):
    run = shown.copy(tmp_path / "run")
    change(run, model="lenslet-2m-seed1")
    with warns("lenslet-2m-seed1 isn't the one that was measured"):
        el.explore(run, tmp_path / "out", experts=5)


def test_sentences_that_are_elsewhere_are_asked_for_and_taken_when_given(shown, tmp_path):
    run = shown.copy(tmp_path / "run")
    change(run, sentences="mine")
    with warns("the run knows them as 'mine' only, .*Give them with --sentences"):
        el.explore(run, tmp_path / "out", experts=5, tokens=True)
    assert read_chunk(tmp_path / "out", "index")["tables"][0]["numSentences"] == 0
    el.explore(run, tmp_path / "out", experts=5, speaking=1, model=shown.model, sentences=[shown.facts])
    index = read_chunk(tmp_path / "out", "index")
    assert index["notes"] == [] and index["tables"][0]["speaking"]


def test_a_run_that_is_not_done_shows_what_there_is_and_says_so(shown, tmp_path):
    run = shown.copy(tmp_path / "run")
    progress = json.loads((run / "progress.json").read_text()) | {"complete": False, "finished": [[0, 1000]]}
    (run / "progress.json").write_text(json.dumps(progress))
    with warns("isn't done: 1,000 of 4,608 units are ranked"):
        el.explore(run, tmp_path / "out", experts=5, speaking=1, model=shown.model)
    index = read_chunk(tmp_path / "out", "index")
    assert index["tables"][0]["numUnits"] == 1000
    assert "isn't done: 1,000 of 4,608 units are ranked" in index["notes"][0]
    (run / "progress.json").write_text(json.dumps(progress | {"finished": []}))
    with pytest.raises(el.ExpertLensError, match="has not ranked a unit yet. Launch it again to go on with it"):
        el.explore(run, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_run_of_another_version_says_which(shown, tmp_path):
    run = shown.copy(tmp_path / "run")
    change(run, package="0.1.7")
    with warns(r"run: written by version 0\.1\.7 of expertlens_jax; .* alike\."):
        el.explore(run, tmp_path / "out", experts=5, tokens=False)
    change(run, package="0.1.0", numbers_version=1)
    with warns("isn't the one that was measured, or this version reads it other"):
        el.explore(run, tmp_path / "out", experts=5)
    notes = read_chunk(tmp_path / "out", "index")["notes"]
    assert "written by version 0.1.0" in notes[0] and "its numbers may be others" in notes[0]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "there is no directory .*run. Give the workdir of a run"),
        ({}, "is no run directory: it has no config.json"),
        ({"thesis.tex": ""}, "is no run directory: it has no config.json"),
        ({"config.json": "not JSON"}, "config.json is none that a run wrote"),
        ({"config.json": "[1]"}, "config.json is none that a run wrote"),
        ({"config.json": '{"contrast_sha256": ""}'}, "holds no expertise.zarr"),
        ({"config.json": '{"model": "gpt2"}'}, "has no table of expertise to show yet"),
        ({"config.json": '{"anything": 1}'}, "has no table of expertise to show. .*or give the workdir of another"),
    ],
)
def test_a_folder_that_is_no_run_is_refused(files, message, tmp_path):
    run = tmp_path / "run"
    if files is not None:
        run.mkdir()
    for name, text in (files or {}).items():
        (run / name).write_text(text)
    with pytest.raises(el.ExpertLensError, match=message):
        el.explore(run)
    assert sorted(path.name for path in run.glob("*")) == sorted(files or {})


@pytest.fixture
def reproduced(shown, tmp_path):
    return reproduced_run(shown, tmp_path)


def test_a_run_of_all_experiments_has_verdicts_ratings_and_controls(reproduced, shown, tmp_path):
    with warns("The run isn't done: steering didn't run yet"):
        el.explore(reproduced, tmp_path / "out", experts=5, tokens=False)
    index = read_chunk(tmp_path / "out", "index")
    (table,) = index["tables"]
    assert table["title"] == "lenslet-2m, facts" and index["leftOut"] == ["lenslet-5m_facts"]
    assert list(table["random"]) == ["lenslet-2m-random0"] and table["hasHalves"]
    assert table["random"]["lenslet-2m-random0"] == table["experts"]
    assert table["rated"] == {"mine": [[CONCEPTS.index("cat"), CONCEPTS.index("tiger"), 7.35]]}
    assert [each["verdict"] for each in index["conclusions"]] == ["held"]
    assert [each["state"] for each in index["experiments"]] == ["done", "left out", "waiting"]
    assert index["alignment"] == [{"measure": "jaccard", "ratings": "mine", "spearman": 0.5}]
    assert index["figures"] == {"alignment/alignment": "figures/alignment/alignment.svg"}
    assert (tmp_path / "out" / "figures" / "alignment" / "alignment.svg").exists()
    assert index["numbers"] == {"alignment": ["numbers/alignment/alignment.csv", "numbers/alignment/pairs.csv"]}
    assert (tmp_path / "out" / "numbers" / "alignment" / "pairs.csv").read_text().startswith("word_1,word_2,rating")
    report = (tmp_path / "out" / "report.html").read_text()
    assert report.startswith("<h1>Report</h1>") and '<a href="index.html">Explore this run</a>' in report
    assert '<a href="index.html#/verdicts/alignment">its verdicts and numbers</a>' in report
    assert (reproduced / "report.html").read_text() == REPORT  # the run's own stays as it is


def test_an_experiment_within_it_can_be_explored_alone(reproduced, tmp_path):
    el.explore(reproduced / "alignment", tmp_path / "out", experts=5, tokens=False)
    index = read_chunk(tmp_path / "out", "index")
    assert index["notes"] == ["What units say at each token isn't shown: it wasn't asked for."]
    assert [each["title"] for each in index["tables"]] == ["lenslet-2m, facts"]
    assert index["figures"] == {"alignment": "figures/alignment.svg"}


def test_a_table_of_it_that_is_damaged_is_told(reproduced, tmp_path):
    (reproduced / "conclusions.csv").write_bytes(b"\xff\xfe\x00")
    with warns("conclusions.csv can't be read"):
        el.explore(reproduced, tmp_path / "out", experts=5, tokens=False)
    assert read_chunk(tmp_path / "out", "index")["conclusions"] == []


def test_the_command_writes_the_page_and_says_where(shown, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # which the command sets for its process
    command.dispatch(["explore", str(shown.directory), f"--out={tmp_path / 'out'}", "--experts=5", "--notokens"])
    assert capsys.readouterr().out == f"The page is {tmp_path / 'out' / 'index.html'}; open it in a browser.\n"
    assert read_chunk(tmp_path / "out", "index")["tables"][0]["best"] == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "Error: there is no directory nowhere. Give the workdir of a run"),
        ([], "Error: the following arguments are required: RUN. expertlens explore --help tells the arguments."),
        (["x", "--experts=many"], "Error: argument --experts: invalid int value: 'many'. expertlens explore --help"),
        (["x", "--outt=y"], "Error: unrecognized arguments: --outt=y. expertlens explore --help"),
    ],
)
def test_the_commands_errors_are_a_paragraph(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        command.dispatch(["explore", *arguments])
    assert stopped.value.code == 1
    said = capsys.readouterr()
    assert " ".join(said.err.split()).startswith(message) and said.out == ""
    assert list(tmp_path.iterdir()) == []
