"""One launch: what it looks at is loaded once in a process, and what it concluded is kept as data."""

import itertools
import time
import weakref

import pandas as pd
import pytest

import expertlens_jax as el
from configs.demo import get_config
from experiments import reproduce
from experiments.run import Run, describe_meanwhile
from experiments.sources import Sources
from expertlens_jax.report.conclusions import CONCLUSIONS, Conclusion, Verdict, read_conclusions, write_conclusions

CONCEPTS = ("animal", "cat", "dog", "horse", "bread", "cheese", "food", "soup")


def small(**changes):
    config = get_config("small")
    config.update({"concepts": CONCEPTS, "sentences": ("facts",), "resamples": 20, "permutations": 20} | changes)
    config.negatives.ratios = (1, 10)
    config.scale.models = ("lenslet-2m", "lenslet-2m-seed1")
    return config


@pytest.fixture
def loaded(monkeypatch):
    """The models and sentence sets that are loaded, by name."""
    names, load_model, load_concepts = [], el.load_model, el.load_concepts

    def model(path, **settings):
        names.append(f"{path}@{settings['revision']}" if settings.get("revision") else path)
        return load_model(path, **settings)

    def concepts(name, **settings):
        names.append(name)
        return load_concepts(name, **settings)

    monkeypatch.setattr(el, "load_model", model)
    monkeypatch.setattr(el, "load_concepts", concepts)
    return names


@pytest.mark.long
def test_a_suite_loads_each_model_and_sentence_set_once(loaded, tmp_path):
    reproduce.run(small(experiments=("negatives", "scale", "localisation")), tmp_path)
    assert sorted(loaded) == ["facts", "lenslet-2m", "lenslet-2m-seed1"]
    assert set(pd.read_csv(tmp_path / "conclusions.csv")["experiment"]) == {"negatives", "scale", "localisation"}


def test_a_model_is_the_same_under_its_own_name_and_as_the_configs(loaded):
    sources, config = Sources(), small()
    assert sources.named_model("lenslet-2m", config) is sources.model(config)
    assert sources.named_model("lenslet-2m@step4096", config) is not sources.model(config)  # it has another name
    assert sources.named_model("@step0", config) is sources.named_model("lenslet-2m@step0", config)
    assert loaded == ["lenslet-2m", "lenslet-2m@step4096", "lenslet-2m@step0"]


def test_models_that_do_not_fit_make_room_before_the_next_is_loaded(loaded, monkeypatch):
    config, one = small(), 1_841_920 * 4
    sources = Sources(kept_bytes=one)
    first = weakref.ref(sources.model(config))
    for name in ("@step0", "lenslet-2m", "@step16"):
        sources.named_model(name, config)
    assert loaded == ["lenslet-2m", "lenslet-2m@step0", "lenslet-2m@step16"]  # the one used last stays
    assert first() is not None
    there, original = [], el.load_model
    monkeypatch.setattr(
        el, "load_model", lambda *given, **settings: there.append(first()) or original(*given, **settings)
    )
    sources = Sources(kept_bytes=one - 1)
    first = weakref.ref(sources.model(config))
    sources.named_model("@step0", config)
    assert there == [None, None]  # the first was let go before the second was loaded
    sources.model(config)
    assert loaded.count("lenslet-2m") == 3


def test_sentences_are_loaded_anew_where_the_config_names_others(loaded):
    sources = Sources()
    first = sources.datasets(small())
    assert sources.datasets(small()) is first
    assert [each.name for each in sources.datasets(small(sentences=("stories",)))] == ["stories"]
    with pytest.raises(el.ExpertLensError, match="negatives_per_positive must be a number above 0"):
        sources.datasets(small(negatives_per_positive=-1.0))
    assert loaded == ["facts", "stories", "facts"]


def test_conclusions_are_read_back_as_they_were(tmp_path):
    conclusions = [
        Conclusion('A, "B" and τ.', "1.00 (0.5 to 1.5)", Verdict.HELD, "one"),
        Conclusion("None.", "nan", Verdict.NOT_TESTABLE, "two", "there is nothing to compare"),
        Conclusion("12", "3.0", Verdict.NOT_HELD, "three"),
    ]
    for some in (conclusions, conclusions[2:], []):
        write_conclusions(tmp_path / CONCLUSIONS, some)
        assert read_conclusions(tmp_path / CONCLUSIONS) == some
    with pytest.raises(OSError):
        read_conclusions(tmp_path / "none" / CONCLUSIONS)


def test_the_end_of_a_run_prints_and_returns_what_it_concluded(tmp_path, capsys):
    conclusion = Conclusion("Experts exist.", "all of them", Verdict.NOT_HELD, "one")
    run = Run(small(), tmp_path, Sources())
    assert run.finish("a table", [conclusion]) == [conclusion] == read_conclusions(tmp_path / CONCLUSIONS)
    assert capsys.readouterr().out == (
        f"\na table\n\nNot held: Experts exist.\n\nTables and figures are in {tmp_path}\n"
    )


def test_what_is_made_is_described_in_order_and_an_error_stops_the_making():
    found = describe_meanwhile(range(5), lambda number: pd.DataFrame({"number": [number, 10 * number]}))
    assert found["number"].tolist() == [0, 0, 1, 10, 2, 20, 3, 30, 4, 40] and found.index.tolist() == [*range(10)]

    def slowly_for_ever():
        for number in itertools.count():
            time.sleep(0.001)
            yield number

    with pytest.raises(ZeroDivisionError):
        describe_meanwhile(slowly_for_ever(), lambda number: pd.DataFrame({"share": [1 / (2 - number)]}))
