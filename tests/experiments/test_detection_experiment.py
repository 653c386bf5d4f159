"""The detection launcher on few concepts of the packaged model: tables, figures, verdicts, and errors."""

import pandas as pd
import pytest
from etils import epath

import expertlens_jax as el
from configs.demo import get_config
from experiments.detection import run
from experiments.detectors import check, find_pairs
from expertlens_jax.report.conclusions import read_conclusions

WORDS = ("cat", "dog", "horse", "bread", "cheese", "soup", "car", "train")  # of fewer, no p is below 0.05 after Holm


def settings(**changes):
    config = get_config("small")
    config.concepts = WORDS
    config.sites = ("mlp.up",)
    config.resamples = 50
    config.detection.concepts = 8
    config.detection.detectors = (
        *("top_experts", "random_units", "mean_difference", "scaled_difference", "probe", "bag_of_words"),
    )
    for name, value in changes.items():
        section = config.detection if name in config.detection else config
        section[name] = value
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = epath.Path(tmp_path_factory.mktemp("runs") / "run")
    return workdir, run(settings(), workdir)


@pytest.mark.long
def test_tables_hold_every_pair_detector_and_condition(finished):
    workdir, _ = finished
    table = pd.read_csv(workdir / "detection.csv")
    pairs = table.drop_duplicates(["kind", "train", "test"])[["kind", "train", "test"]].values.tolist()
    assert pairs == [
        ["sets", "facts", "stories"],
        ["sets", "stories", "facts"],
        ["masked", "facts", "stories_masked"],
        ["masked", "stories", "facts_masked"],
        ["halves", "facts, first half", "facts, second half"],
        ["halves", "stories, first half", "stories, second half"],
    ]
    tried = table.groupby("kind")[["positives", "label_noise"]].agg(lambda each: sorted(set(each)))
    assert tried.loc["sets"].tolist() == [[10, 40], [0.0, 0.25]]
    assert tried.loc["halves"].tolist() == [[20], [0.0]] and tried.loc["masked"].tolist() == [[40], [0.0]]
    assert set(table["concepts"]) == {8} and table["value"].between(0, 1).all()
    rows = (
        table[(table["measure"] == "auroc") & (table["positives"] == 40)].groupby(["kind", "detector"])["value"].mean()
    )
    assert rows["sets", "bag_of_words"] > 0.9  # the word is all that it takes
    assert rows["masked", "bag_of_words"] < rows["sets", "bag_of_words"]
    assert rows["sets", "top_experts"] > rows["sets", "random_units"] + 0.1
    assert len(pd.read_csv(workdir / "shares.csv")) == 6 * 8


@pytest.mark.long
def test_verdicts_and_figures_are_there(finished):
    workdir, found = finished
    assert [each.claim for each in read_conclusions(workdir / "conclusions.csv")] == [each.claim for each in found]
    assert found[0].verdict.value == "held" and found[2].verdict.value == "not held"
    assert "of probe (p = " in found[2].found and "of bag of words (p = " in found[2].found
    drawn = {file.name for file in (workdir / "figures").iterdir()}
    assert drawn == {f"{name}.{kind}" for name in ("detection", "examples") for kind in ("png", "svg", "pdf")}


def test_a_single_set_is_tried_on_its_halves_and_concepts_are_drawn_domain_by_domain():
    config = settings(sentences=("facts",))
    config.detection.concepts = 4
    (pair,) = find_pairs(config, [el.load_concepts("facts")])
    assert pair.kind == "halves" and len(set(pair.train.domains)) == 4 == len(pair.train.concepts)
    both = find_pairs(config, [el.load_concepts(name) for name in ("facts", "stories")])
    assert {each.train.concepts for each in both} == {pair.train.concepts}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detectors": ("svm",)}, "Unknown detector 'svm'. Choose from: best_expert"),
        ({"detectors": ("probe",)}, "detection.detectors are probe; top_experts must be among them"),
        (
            {"positives": (50,)},
            "positives holds 50, and the concept 'cat' has 40 positive sentences to train on in facts",
        ),
        ({"positives": (3,), "label_noise": (0.1,)}, "label_noise holds 0.1, which of 3 positives"),
        ({"negatives_per_positive": ()}, "negatives_per_positive is empty"),
        ({"training_negatives": 0}, "training_negatives=0"),
        ({"embedder": "nobody"}, "detection.embedder holds 'nobody', which is no packaged model"),
        ({"concepts": 1}, "detection.concepts is 1; wanted 2 or more"),
        ({"resamples": 0}, "resamples is 0"),
    ],
)
def test_bad_settings_are_refused_before_the_model_loads(changes, message, tmp_path, monkeypatch):
    monkeypatch.setattr(el, "load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(el.ExpertLensError, match=message):
        run(settings(**changes), epath.Path(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_sets_without_a_concept_in_common_and_features_of_no_sae_are_refused(tmp_path):
    facts, stories = (el.load_concepts(name) for name in ("facts", "stories"))
    with pytest.raises(el.ExpertLensError, match="'facts' and 'stories' have no concept in common"):
        check(settings(), [facts.subset(WORDS[:3]), stories.subset(WORDS[3:])])
    with pytest.raises(el.ExpertLensError, match="'sae_feature' reads features of sparse autoencoders, and lenslet-2m"):
        run(settings(detectors=("top_experts", "sae_feature")), epath.Path(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
