"""Runs side by side: the numbers are numpy's, what differs is named, and what can't be compared is said."""

import json

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from etils import epath
from explored_run import run_of_names

import expertlens_jax as el
from expertlens_jax import command
from expertlens_jax.experts import table as expert_table

NAMES = tuple(f"word{i}" for i in range(8))
SHAPE = {"d_model": 8, "num_layers": 2}
FEW = {"resamples": 50, "permutations": 99}


def precision(seed, units=400):
    return np.random.default_rng(seed).beta(6, 6, (len(NAMES), units)).astype(np.float32)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two revisions of one network, and another network of another size."""
    folder = tmp_path_factory.mktemp("compared")
    first = precision(1)
    second = np.where(np.arange(400) < 250, first, precision(2)) * np.float32(0.97)
    said = {"config": json.dumps(SHAPE), "weights": "1" * 64, "pooling": "max"}
    run_of_names(folder / "first", NAMES, first, **said)
    run_of_names(folder / "second", NAMES[::-1], second[::-1], **said | {"weights": "2" * 64, "model": "odd@step2"})
    run_of_names(folder / "third", (*NAMES, "more"), np.concatenate([precision(3, 600), precision(4, 600)[:1]]))
    return folder


@pytest.fixture(scope="module")
def compared(runs):
    return el.compare_runs(runs / "first", runs / "second", runs / "third", threshold=0.6, **FEW)


def sets(runs, name):
    expertise = el.open_expertise(runs / name).sel(concept=list(NAMES))
    return expertise["average_precision"].values >= np.float32(0.6)


def numpy_jaccard(first, second):
    return np.array([[(a & b).sum() / max((a | b).sum(), 1) for b in second] for a in first])


def test_each_concepts_numbers_are_numpys(runs, compared):
    first = sets(runs, "first")
    for name in ("second", "third"):
        other = sets(runs, name)
        rows = compared.table[compared.table["other"] == name].set_index("concept").loc[list(NAMES)]
        assert rows["experts"].tolist() == first.sum(1).tolist()
        assert rows["other_experts"].tolist() == other.sum(1).tolist()
        highest = el.open_expertise(runs / name).sel(concept=list(NAMES))["average_precision"].max("unit")
        assert np.array_equal(rows["other_best_ap"].to_numpy(np.float32), highest.values)
        ours, theirs = numpy_jaccard(first, first), numpy_jaccard(other, other)
        for i, neighbours in enumerate(rows["neighbours"]):
            keep = np.arange(len(NAMES)) != i
            np.testing.assert_allclose(neighbours, scipy.stats.spearmanr(ours[i, keep], theirs[i, keep])[0], atol=1e-12)
        pairs = np.triu_indices(len(NAMES), 1)
        told = compared.tables["agreement"].set_index("other").loc[name]
        np.testing.assert_allclose(told["spearman"], scipy.stats.spearmanr(ours[pairs], theirs[pairs])[0], atol=1e-12)
        assert told["pairs"] == len(pairs[0]) and told["ci_low"] <= told["spearman"] <= told["ci_high"]


def test_experts_are_held_against_each_other_where_the_units_are_the_same(runs, compared):
    rows = compared.table.set_index(["other", "concept"])
    own = np.diag(numpy_jaccard(sets(runs, "first"), sets(runs, "second")))
    np.testing.assert_allclose(rows.loc["second"].loc[list(NAMES), "overlap"], own, atol=1e-12)
    draws = np.random.default_rng(0)
    sizes = sets(runs, "first")[0].sum(), sets(runs, "second")[0].sum()
    shuffled = [[draws.permutation(400) < size for size in sizes] for _ in range(4000)]
    random = np.mean([(a & b).sum() / (a | b).sum() for a, b in shuffled])
    np.testing.assert_allclose(rows.loc[("second", NAMES[0]), "chance"], random, atol=0.005)
    told = compared.tables["agreement"].set_index("other")
    np.testing.assert_allclose(told.loc["second", "overlap"], own.mean(), atol=1e-12)
    assert told.loc["second", "overlap_p"] == 0.01 and "second: a concept's experts overlap by" in compared.summary()
    assert rows.loc["third"][["overlap", "chance"]].isna().all(axis=None)
    assert "first and third have no units in common" in compared.summary()


def test_what_differs_is_named_and_nothing_else(compared):
    settings = compared.tables["settings"].set_index("setting")
    assert settings.loc["model"].tolist() == ["", "'odd'", "'odd@step2'", "'odd'"]
    assert settings.loc["weights", ["first", "second"]].tolist() == [f"{'1' * 12!r}", f"{'2' * 12!r}"]
    assert settings.loc["number of concepts", ["first", "second", "third"]].tolist() == ["8", "8", "9"]
    assert settings.loc["config.d_model", ["second", "third"]].tolist() == ["8", "nothing"]
    assert set(settings.index) == {
        *("model", "weights", "pooling", "config.d_model", "config.num_layers", "number of concepts", "number of units")
    }
    assert "first, second and third differ in model ('odd', 'odd@step2', 'odd')" in compared.summary()
    assert "third has 1 further concept, which not all have: more." in compared.summary()


def test_of_a_run_that_is_not_done_the_units_that_are_there_are_compared(runs, tmp_path):
    whole = sets(runs, "first")
    part = run_of_names(tmp_path / "part", NAMES, precision(1), config=json.dumps(SHAPE))
    expert_table.write_progress(epath.Path(part), expert_table.Progress(((100, 300),), (), False))
    with pytest.warns(el.ExpertLensWarning, match=r"part: The run in .*part isn't done: 200 of 400 units are ranked"):
        found = el.compare_runs(runs / "first", part, threshold=0.6, **FEW)
    rows = found.table.set_index("concept").loc[list(NAMES)]
    assert rows["experts"].tolist() == whole.sum(1).tolist()
    assert rows["other_experts"].tolist() == whole[:, 100:300].sum(1).tolist()
    assert (rows["overlap"] == 1).all()  # of the units that both have
    assert "isn't done: 200 of 400 units" in found.summary()


def test_alignments_are_those_of_el_align(runs):
    pairs = tuple((NAMES[i], NAMES[j]) for i in range(8) for j in range(i))
    rated = el.Ratings("mine", pairs, np.random.default_rng(5).random(len(pairs)))
    found = el.compare_runs(runs / "first", runs / "second", threshold=0.6, ratings=rated, **FEW)
    (row,) = found.tables["alignment"].to_dict("records")
    for name, column in (("first", "spearman"), ("second", "other_spearman")):
        experts = el.select_experts(el.open_expertise(runs / name), threshold=0.6)
        expected = el.align(el.jaccard(experts), rated, permutations=9).spearman
        np.testing.assert_allclose(row[column], expected, atol=1e-12)
    np.testing.assert_allclose(row["difference"], row["spearman"] - row["other_spearman"], atol=1e-12)
    assert "mine: alignment is" in found.summary() and row["pairs"] == len(pairs)


def test_without_enough_rated_pairs_there_is_no_alignment_and_it_is_said(compared):
    assert compared.tables["alignment"]["spearman"].isna().all()
    assert (
        "Not enough pairs of these concepts were rated for an alignment: wordsim353 has 0 pairs" in compared.summary()
    )


def judged(folder, verdicts, state):
    """A run of several experiments, with these verdicts and 28 rated pairs."""
    run = two_sets(folder, "facts")
    asked = ["alignment", "stability", "steering"]
    (run / "config.json").write_text(json.dumps({"model": "odd", "sentences": ["facts"], "experiments": asked}))
    pd.DataFrame({"experiment": asked, "state": ["done", "done", state], "reason": ""}).to_csv(
        run / "experiments.csv", index=False
    )
    columns = ["experiment", "claim", "verdict"]
    pd.DataFrame(verdicts, columns=columns).assign(found="0.5", figure="f", reason=None).to_csv(
        run / "conclusions.csv", index=False
    )
    (run / "alignment").mkdir()
    pairs = [(NAMES[i], NAMES[j], i + j / 10, 0.1, "facts", "mine") for i in range(8) for j in range(i)]
    columns = ["word_1", "word_2", "rating", "similarity", "sentences", "ratings"]
    pd.DataFrame(pairs, columns=columns).to_csv(run / "alignment" / "pairs.csv", index=False)
    return run


def test_verdicts_that_change_are_told(tmp_path):
    one = judged(tmp_path / "one", [("alignment", "Alike <b>.", "held"), ("stability", "Same.", "held")], "waiting")
    two = judged(
        tmp_path / "two",
        [("stability", "Same.", "held"), ("alignment", "Alike <b>.", "not held"), ("stability", "Only here.", "held")],
        "done",
    )
    with pytest.warns(el.ExpertLensWarning, match="one: The run isn't done: steering didn't run yet") as told:
        found = el.compare_runs(one, two, **FEW)
    assert len(told) == 1
    columns = ["experiment", "claim", "one", "two", "changes"]
    assert found.tables["verdicts"][columns].values.tolist() == [
        ["alignment", "Alike <b>.", "held", "not held", True],
        ["stability", "Same.", "held", "held", False],
        ["stability", "Only here.", "", "held", False],
    ]
    assert "1 of 3 verdicts changes." in found.summary()
    assert "alignment: Alike <b>. It is held in one, not held in two." in found.summary()
    assert (found.table["overlap"] == 1).all() and "don't differ in any setting" in found.summary()
    assert found.tables["alignment"]["ratings"].tolist() == ["mine"]  # the runs' own
    assert found.tables["alignment"]["pairs"].tolist() == [28]


def test_a_comparison_shows_itself_and_is_saved(runs, compared, tmp_path):
    assert max(map(len, repr(compared).splitlines())) <= 130 and "first and second" in repr(compared)
    assert "<table" in compared._repr_html_()
    assert isinstance(compared.plot(), matplotlib.figure.Figure)
    out = tmp_path / "out"
    for _ in range(2):  # a comparison of before is replaced
        el.compare_runs(runs / "first", runs / "second", runs / "third", threshold=0.6, out=out, **FEW)
    names = [*(f"{name}.csv" for name in ("agreement", "alignment", "concepts", "settings", "verdicts"))]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "comparison.html", "figures"])
    assert sorted(path.name for path in (out / "figures").iterdir()) == ["runs.pdf", "runs.png", "runs.svg"]
    saved = pd.read_csv(out / "concepts.csv")
    pd.testing.assert_frame_equal(saved, compared.table, check_dtype=False, rtol=1e-5)
    page = (out / "comparison.html").read_text()
    assert "data:image/svg+xml" in page and "odd@step2" in page and "further concept" in page


def test_runs_of_one_name_are_told_apart_by_their_folders(runs, tmp_path):
    paths = [run_of_names(tmp_path / each / "run", NAMES, precision(1)) for each in ("a", "b")]
    found = el.compare_runs(*paths, **FEW)
    assert found.table[["run", "other"]].drop_duplicates().values.tolist() == [["a/run", "b/run"]]


def two_sets(folder, *names):
    """A run of an experiment with a table for each sentence set."""
    (folder / "expertise").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model": "odd", "sentences": list(names)}))
    for name in names:
        run_of_names(folder / "expertise" / f"odd_{name}", NAMES, precision(len(name)), sentences=name)
    return folder


def test_sentence_sets_are_matched_by_name(tmp_path):
    one, two = two_sets(tmp_path / "one", "facts", "stories"), two_sets(tmp_path / "two", "stories", "letters")
    found = el.compare_runs(one, two, **FEW)
    assert set(found.table["sentences"]) == {"stories"} and (found.table["overlap"] == 1).all()
    three = two_sets(tmp_path / "three", "facts", "letters")
    with pytest.raises(el.ExpertLensError, match=r"no set of sentences in common \(one has facts, stories; two has"):
        el.compare_runs(one, two, three, **FEW)


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    with pytest.raises(el.ExpertLensError, match="1 run was given; wanted two or more directories of runs"):
        el.compare_runs(runs / "first")
    with pytest.raises(el.ExpertLensError, match="first was given twice; wanted the directories of different runs"):
        el.compare_runs(runs / "first", runs / "second" / ".." / "first")
    with pytest.raises(el.ExpertLensError, match=r"there is no directory .*nowhere\. Give the workdir of a run"):
        el.compare_runs(runs / "first", runs / "nowhere")
    with pytest.raises(el.ExpertLensError, match=r"is no run directory: it has no config\.json"):
        el.compare_runs(runs / "first", tmp_path)
    with pytest.raises(el.ExpertLensError, match=r"threshold=5"):
        el.compare_runs(runs / "first", runs / "second", threshold=5)
    other = run_of_names(tmp_path / "others", ["elsewhere"])
    with pytest.raises(el.ExpertLensError, match=r"no concept in common \(first has word0, .*; others has elsewhere\)"):
        el.compare_runs(runs / "first", other)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all of it")
    with pytest.raises(el.ExpertLensError, match=r"mine holds files that aren't a comparison of runs\. Choose"):
        el.compare_runs(runs / "first", runs / "second", out=tmp_path / "mine", **FEW)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_the_command_prints_and_saves(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    command.dispatch(["compare", "first", "second", "--threshold=0.6", f"--out={tmp_path / 'out'}"])
    said = capsys.readouterr().out
    assert "first and second differ in model ('odd', 'odd@step2')" in said and "at τ = 0.6 a concept has" in said
    assert f"The comparison is {tmp_path / 'out' / 'comparison.html'}" in said
    for arguments, told in (
        (["first"], "1 run was given; wanted two or more"),
        (["first", "second", "--treshold=0.6"], "unrecognized arguments: --treshold=0.6"),
        (["first", "second", "--threshold=x"], "argument --threshold: invalid float value: 'x'"),
        ([], "the following arguments are required: RUN"),
    ):
        with pytest.raises(SystemExit) as stopped:
            command.dispatch(["compare", *arguments])
        assert stopped.value.code == 1 and told in " ".join(capsys.readouterr().err.split())
