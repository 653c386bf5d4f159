"""Every experiment on one page: what two of them found, and the settings of every suite."""

import importlib
import pathlib

import pandas as pd
import pytest

from configs.demo import get_config
from experiments import negatives, reproduce
from expertlens_jax.data.known_ratings import KNOWN
from expertlens_jax.errors import SelectionError

SUITES = {
    "demo": ("full", "small"),
    "pythia": ("70m", "1b", "12b"),
    "gemma": ("2b", "2b-it"),
    "gpt2": ("small", "xl"),
    "llama": ("1b", "3b-it"),
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
    found = negatives.conclude(tmp_path / "run" / "negatives")
    assert conclusions["claim"].tolist() == [each.claim for each in found]
    assert conclusions["held"].tolist() == [each.held for each in found]
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("data:image/svg+xml") == len(found)
    assert all(("It held here" if each.held else "It did not hold here") in page for each in found)
    assert found[0].claim in capsys.readouterr().out
    assert (tmp_path / "run" / "expertise").is_dir()  # shared by all


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
    own = {path.stem for path in pathlib.Path(reproduce.__file__).parent.glob("*.py")}
    shared = {"__init__", "launch", "measured", "similarities", "steering_trials", "thresholds", "asking"}
    work = {"find_experts", "pretrain", "write_concepts", "reproduce"}
    assert own - shared - work == set(reproduce.EXPERIMENTS)
