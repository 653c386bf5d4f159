"""Necessity end to end on a packaged model: numbers of the library, a run that goes on, and what is refused before."""

import pandas as pd
import pytest

import expertlens_jax as el
from configs.demo import get_config
from experiments import necessity
from experiments.necessity_settings import find_sentences
from expertlens_jax.analysis.steering import learned as learned_units_question
from expertlens_jax.analysis.steering import questions
from expertlens_jax.errors import ExpertLensError

WORDS = ("cat", "dog", "bread", "rain", "ship", "church")


def small(**changes):
    config = get_config("small")
    config.concepts, config.sites = WORDS, ("mlp.up",)
    config.resamples = 50
    config.necessity.sizes, config.necessity.drawn_size = (20, 50), 50
    config.necessity.concepts, config.necessity.sentences = 0, 3
    config.necessity.prompts = ()
    for name, value in changes.items():
        config.necessity[name] = value
    return config


@pytest.mark.long
def test_the_run_holds_the_numbers_of_the_library_and_goes_on(tmp_path, monkeypatch):
    found = necessity.run(small(), tmp_path / "run")
    table = pd.read_csv(tmp_path / "run" / "necessity.csv")
    facts, stories = (el.load_concepts(name).subset(WORDS) for name in ("facts", "stories"))
    model = el.load_model("lenslet-2m")
    responses = el.record_responses(model, facts.sentences, sites="mlp.up", significant_bits=12)
    expertise = el.measure_expertise(responses, facts)
    expertise = el.attribute(model, facts, expertise=expertise)
    asked = {"counts": (20, 50), "sentences": 3, "resamples": 50}
    expected = el.analysis.necessity(model, expertise, stories, **asked).table
    assert table[["units", "count", "measure"]].equals(expected[["units", "count", "measure"]])
    assert table["value"].to_numpy() == pytest.approx(expected["value"].to_numpy(), abs=5e-3)
    assert len(found) == 3 and {each.verdict for each in found} <= {"held", "not held", "not testable"}
    assert (tmp_path / "run" / "figures" / "necessity.png").stat().st_size > 10_000

    learned = pd.read_csv(tmp_path / "run" / "learned.csv")
    learning = el.Learning(objective="distribution", sparsity=10.0, steps=8)
    drawn = el.analysis.learned_units(model, expertise, facts, facts.concepts[:2], learning=learning, resamples=50)
    assert learned["score"].tolist() == ["average_precision", "attribution"]
    assert learned["chance"].iloc[0] == pytest.approx(drawn.table["chance"].iloc[0], abs=0.05)

    monkeypatch.setattr(learned_units_question, "learn_steering", lambda *_, **__: pytest.fail("it was learned twice"))
    monkeypatch.setattr(questions, "measure_concept", lambda *_, **__: pytest.fail("it was measured twice"))
    again = necessity.run(small(), tmp_path / "run")
    assert [each.found for each in again] == [each.found for each in found]


def test_a_single_set_is_chosen_on_in_one_half_and_tried_on_in_the_other():
    facts = el.load_concepts("facts").subset(WORDS)
    whole, chosen_on, tried_on = find_sentences(small(concepts=4), [facts])
    assert not set(chosen_on.sentences) & set(tried_on.sentences)
    assert len(whole.concepts) == 6 and chosen_on.concepts == tried_on.concepts and len(chosen_on.concepts) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drawn_size": 7}, "necessity.drawn_size is 7, which is none of necessity.sizes"),
        ({"sizes": (0, 50)}, "wanted numbers of units, integers of at least 1"),
        ({"ablations": ("mean",)}, "wanted one or more of zero, median"),
        ({"learned": -1}, "necessity.learned is -1; wanted a number of concepts, or 0 for none"),
        ({"learned_price": 0.0}, "necessity.learned_price is 0, at which learning changes all units"),
        ({"concepts": 1}, "necessity.concepts is 1; wanted 2 or more, or 0 for all"),
        ({"sizes": (50, 5000)}, "necessity.sizes hold 5000, and lenslet-2m has 2,048 units; wanted at most half"),
    ],
)
def test_settings_that_cannot_be_are_told_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ExpertLensError, match=message):
        necessity.run(small(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
