"""Training, scale and negatives end to end on the packaged model, sharing tables; checked another way; errors."""

import functools
import pathlib

import numpy as np
import pandas as pd
import pytest
from eight_concepts import CONCEPTS, change, small_config, write_ratings
from launched import launch_here

import expertlens_jax as el
from experiments import negatives, scale, training
from experiments.sources import load_named, split_revision
from expertlens_jax.errors import ExpertLensError
from expertlens_jax.report.conclusions import CONCLUSIONS, Verdict, read_conclusions


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Where tables lie, and ratings of all pairs."""
    directory = tmp_path_factory.mktemp("shared")
    write_ratings(directory)
    return directory


def small(shared, **changes):
    config = small_config(shared)
    config.training.checkpoints = ("@step0", "@step4096")
    config.scale.models = ("lenslet-2m@step0", "lenslet-2m@step4096")
    config.negatives.ratios = (1, 2.5)
    return change(config, **changes)


@pytest.fixture(scope="module")
def runs(shared):
    for experiment in (training, scale, negatives):
        experiment.run(small(shared), shared / experiment.__name__.rpartition(".")[2])
    return shared


def read(runs, name, *index):
    return pd.read_csv(runs / name / f"{name}.csv").set_index(list(index)).sort_index()


@functools.cache
def respond(revision, sentences):
    concepts = el.load_concepts(sentences).subset(CONCEPTS)
    model = el.load_model("lenslet-2m", revision=revision)
    return el.record_responses(model, concepts.sentences, significant_bits=12), concepts


def expertise_of(revision=None, sentences="facts", **settings):
    return el.measure_expertise(*respond(revision, sentences), **settings)


def off_diagonal_mean(overlap):
    return overlap.values[~np.eye(len(overlap), dtype=bool)].mean()


@pytest.mark.long
def test_training_follows_the_library(runs):
    table = read(runs, "training", "sentences", "statistic", "threshold", "step")["value"]
    first, last, other = expertise_of("step0"), expertise_of("step4096"), expertise_of("step4096", "stories")
    for threshold in (0.4, 0.5):
        sets = [el.select_experts(each, threshold=threshold) for each in (first, last, other)]
        assert table["facts", "experts", threshold, 0] == pytest.approx(sets[0].values.sum(1).mean())
        for statistic, end in (("final_overlap", sets[1]), ("final_overlap_held_out", sets[2])):
            shared = [(a & b).sum() / (a | b).sum() for a, b in zip(sets[0].values, end.values, strict=True)]
            assert table["facts", statistic, threshold, 0] == pytest.approx(np.mean(shared), rel=1e-4)
        assert table["facts", "final_overlap", threshold, 4096] == 1
        assert table["stories", "overlap", threshold, 4096] == pytest.approx(
            off_diagonal_mean(el.jaccard(sets[2])), rel=1e-4
        )
        aligned = el.align(el.jaccard(sets[1]), el.load_ratings(runs / "mine.txt")).spearman
        assert table["facts", "alignment", threshold, 4096] == pytest.approx(aligned, rel=1e-4)
    settled = pd.read_csv(runs / "training" / "settling.csv")
    assert settled[["sentences", "last_with"]].drop_duplicates().to_numpy().tolist() == [
        *(["facts", "facts"], ["facts", "stories"], ["stories", "stories"], ["stories", "facts"])
    ]


@pytest.mark.long
def test_scale_counts_parameters_and_follows_the_library(runs):
    table = read(runs, "scale", "sentences", "statistic", "threshold", "model")
    assert (table["parameters"] == 1_841_920).all()
    experts = el.select_experts(expertise_of("step0"), threshold=0.5)
    row = table.loc["facts", "share", 0.5, "lenslet-2m@step0"]
    assert row["value"] == pytest.approx(100 * experts.values.mean(), rel=1e-4)
    fall = pd.read_csv(runs / "scale" / "fall.csv")
    fall = fall[fall["statistic"] == "overlap"].set_index(["sentences", "model"])
    value = table["value"].loc["facts", "overlap", :, "lenslet-2m@step0"]
    assert fall["kept"]["facts", "lenslet-2m@step0"] == pytest.approx(value[0.5] / value[0.4], rel=1e-3)


def sized(alignments):
    """What `scale` finds, of models (parameters, alignment): its table, and the fall."""
    rows = [
        {"sentences": "facts", "model": model, "parameters": size, "statistic": "alignment", "ratings": "men"}
        | {"threshold": threshold, "value": value - threshold, "ci_low": value - 0.9, "ci_high": value + 0.1}
        for model, (size, value) in alignments.items()
        for threshold in (0.4, 0.8)
    ]
    table = pd.DataFrame(rows)
    overlaps = table.assign(statistic="overlap", ratings="", value=table["value"] * (1 - table["threshold"]))
    table = pd.concat([table, overlaps], ignore_index=True)
    return table, scale.measure_fall(table)


@pytest.mark.parametrize(("seed", "held"), [(0.5, True), (0.7, False)])
def test_a_size_is_above_another_if_all_its_seeds_are(seed, held):
    tables = sized({"a": (10, 0.45), "b": (10, seed), "middle": (20, 0.9), "c": (30, 0.6)})
    conclusion = scale.conclude(*tables)[0]
    assert conclusion.verdict == (Verdict.HELD if held else Verdict.NOT_HELD)
    assert "a and b, and then c, align by facts, men: 0.05 (-0.45 to 0.55) and" in conclusion.found
    assert conclusion.found.count("0.20 (-0.30 to 0.70)") == 1  # the larger one's, at its best threshold


def test_models_of_one_size_say_nothing_of_scale():
    for conclusion in scale.conclude(*sized({"a": (10, 0.4), "b": (10, 0.6)})):
        assert conclusion.verdict == Verdict.NOT_TESTABLE and conclusion.reason == "all models are of one size"
        assert conclusion.found == "all models have 10 parameters: nothing can be compared."


@pytest.mark.long
def test_negatives_follow_the_library(runs):
    table = pd.read_csv(runs / "negatives" / "negatives.csv")
    by_threshold = table[table["top"].isna()].set_index(["sentences", "statistic", "threshold"])
    by_top = table[table["top"] == 20].set_index(["sentences", "statistic"])
    for ratio in (1, 2.5):
        expertise = expertise_of(sentences="stories", negatives_per_positive=ratio)
        rows = by_threshold[by_threshold["negatives_per_positive"] == ratio]
        overlap = off_diagonal_mean(el.jaccard(el.select_experts(expertise, threshold=0.5)))
        assert rows["value"]["stories", "overlap", 0.5] == pytest.approx(overlap, rel=1e-4)
        rows = by_top[by_top["negatives_per_positive"] == ratio]
        overlap = off_diagonal_mean(el.jaccard(el.select_experts(expertise, top=20)))
        assert rows["value"]["stories", "overlap"] == pytest.approx(overlap, rel=1e-4)
        assert rows["value"]["stories", "experts"] == 20


@pytest.mark.long
@pytest.mark.parametrize("experiment", [training, scale, negatives])
def test_figures_are_there_the_claims_told_and_a_run_goes_on(runs, experiment, monkeypatch):
    name = experiment.__name__.rpartition(".")[2]
    for file in (runs / name / "figures").iterdir():
        assert file.stat().st_size > 10_000
    for conclusion in read_conclusions(runs / name / CONCLUSIONS):
        assert isinstance(conclusion.verdict, Verdict) and conclusion.found
        assert bool(conclusion.reason) == (conclusion.verdict == Verdict.NOT_TESTABLE)
        assert (runs / name / "figures" / f"{conclusion.figure}.svg").exists()

    def refuse(*_):
        raise AssertionError("the model ran again")

    monkeypatch.setattr("expertlens_jax.experts.pipeline.record", refuse)
    before = (runs / name / f"{name}.csv").read_bytes()
    (runs / name / f"{name}.csv").unlink()
    experiment.run(small(runs), runs / name)
    assert (runs / name / f"{name}.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("experiment", "changes", "message"),
    [
        (training, {"training__checkpoints": ("@step0",)}, "wanted 2 or more models, each once"),
        (training, {"training__checkpoints": ("@step0", "@step5")}, "has no revision 'step5'; it ships with step0"),
        (training, {"training__checkpoints": ("@main", "@step0")}, "'@main', which doesn't end in a training step"),
        (training, {"training__checkpoints": (), "model": "a/b"}, "training.checkpoints is empty"),
        (
            training,
            {"training__checkpoints": ("@step0", "lenslet-2m@step0", "@step16")},
            "'@step0' and 'lenslet-2m@step0', both of step 0",
        ),
        (scale, {"scale__models": ("lenslet-2m",)}, r"scale.models is \('lenslet-2m',\); wanted 2 or more"),
        (scale, {"scale__models": ("lenslet-2m", "nothing")}, "holds 'nothing', which is no packaged model"),
        (negatives, {"negatives__ratios": (1, 1)}, "wanted two or more numbers of negatives per positive"),
        (negatives, {"negatives__ratios": (1, -2)}, "negatives_per_positive must be a number above 0"),
        (negatives, {"negatives__ratios": (1, 500), "sampled": True}, "or lower negatives_per_positive"),
        (negatives, {"negatives__top": (0,)}, "negatives.top holds 0; wanted numbers of experts"),
        (negatives, {"negatives__top": (5000,)}, "lenslet-2m has 4,608 units; wanted at most that many"),
    ],
)
def test_settings_that_cannot_be_met_are_refused_at_once(shared, tmp_path, experiment, changes, message):
    with pytest.raises(ExpertLensError, match=message):
        experiment.run(small(shared, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_fine_tunes_of_one_name_are_told_before_any_is_loaded(shared, tmp_path):
    names = tuple(str(tmp_path / task / "checkpoint-500") for task in "ab")
    for name in names:
        pathlib.Path(name).mkdir(parents=True)
    with pytest.raises(ExpertLensError, match="which are both called checkpoint-500, .* Rename one of the directories"):
        scale.run(small(shared, scale__models=names), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_launch_tells_a_bad_setting_in_a_paragraph(tmp_path):
    flags = ["--config=configs/demo.py:small", f"--workdir={tmp_path / 'run'}"]
    done = launch_here("negatives", *flags, "--config.negatives.ratios=(1,)")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Error: negatives.ratios is (1,)" in done.stderr


def test_a_named_model_may_have_a_revision(shared, tmp_path):
    config = small(shared)
    assert split_revision("@step16", config) == ("lenslet-2m", "step16")
    assert split_revision("a/b@step16", config) == ("a/b", "step16")
    (tmp_path / "my@model").mkdir()
    assert split_revision(str(tmp_path / "my@model"), config) == (str(tmp_path / "my@model"), "")
    assert load_named("@step16", config).name == "lenslet-2m@step16"
    assert load_named("lenslet-2m", config).name == "lenslet-2m"
