"""A directory here whose name a packaged model or one of the hub has too, and a packaged name that is misspelt."""

import pathlib
import shutil

import families
import pytest

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError, ExpertLensWarning
from expertlens_jax.models import hub
from expertlens_jax.models.packaged import check_spelling, packaged_models

pytestmark = pytest.mark.compiled_quickly

NAMES = ["lenslet-2m", "gpt2", "EleutherAI/pythia-70m"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> pathlib.Path:
    case = next(case for case in families.CASES if case.name == "gpt_neox")
    return families.save(families.make_hf_model(case), tmp_path_factory.mktemp("saved"))


@pytest.fixture
def here(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_hub(monkeypatch):
    """The hub must not be asked."""
    monkeypatch.setattr(hub, "open_snapshot", lambda *args, **options: pytest.fail("the hub was asked"))


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_without_a_model_is_told_to_have_been_taken_for_one(here, no_hub, name):
    """An earlier run's output, say."""
    (here / name).mkdir(parents=True)
    (here / name / "report.html").write_text("x")
    other = "the packaged model" if name == "lenslet-2m" else "a model of the hub"
    wanted = (
        rf"the directory here, {here / name}, was taken for the model '{name}', and has no config.json\. If {other}"
    )
    with pytest.raises(CheckpointError, match=wanted + " is meant, rename this directory or run from another one"):
        el.load_model(name)
    with pytest.raises(CheckpointError, match="has no config.json"):
        el.load_model(here / name)
    with pytest.raises(CheckpointError, match=rf"has no revisions, but revision='step0' was given: {here / name}\."):
        el.load_model(name, revision="step0")


@pytest.mark.parametrize("name", NAMES)
def test_a_directory_with_a_model_is_loaded_and_told(here, no_hub, saved, name):
    shutil.copytree(saved, here / name)
    called = "a packaged model is" if name == "lenslet-2m" else "a model of the hub may be"
    wanted = (
        rf"'{name}' is a directory here, .* loaded from it, {here / name}; {called} called so too\. Write './{name}'"
    )
    with pytest.warns(ExpertLensWarning, match=wanted):
        assert el.load_model(name).config.d_model == el.load_model(saved).config.d_model


@pytest.mark.parametrize("name", NAMES)
def test_a_path_that_can_only_be_one_is_loaded_silently(here, no_hub, saved, name):
    """The test suite makes an error of a warning."""
    shutil.copytree(saved, here / name)
    for path in (f"./{name}", str(here / name), here / name, pathlib.Path(name), f"{name}/", f"../{here.name}/{name}"):
        el.load_model(path)


@pytest.mark.parametrize("name", ["lenslet-5", "lenslet2m", "Lenslet-2m", "lenslet-70b", "lenslet_5m", "lenset-5m"])
def test_a_misspelt_packaged_name_lists_those_there_are_without_asking_the_hub(here, no_hub, name):
    with pytest.raises(
        CheckpointError, match=rf"no model called '{name}' ships .*{', '.join(packaged_models())}\."
    ) as e:
        el.load_model(name)
    assert "Did you mean lenslet-" in str(e.value) and "owner/" in str(e.value)


@pytest.mark.parametrize("name", ["gpt2", "distilgpt2", "bert-base-uncased", "someone/lenslet-5", *packaged_models()])
def test_other_names_are_no_misspellings(name):
    check_spelling(name)
