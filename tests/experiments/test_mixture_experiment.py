"""The mixture launcher on a tiny OLMoE that transformers makes: tables, figures, resuming, and what is refused."""

import dataclasses
import pathlib

import families
import numpy as np
import pandas as pd
import pytest
from launched import launch_here

import expertlens_jax as el
from configs.mixture import get_config
from experiments.mixture import run
from expertlens_jax.report.conclusions import read_conclusions

CASE = next(case for case in families.CASES if case.name == "olmoe")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A mixture with eight experts a layer, and two sentence sets of eight concepts, a syllable each."""
    directory = tmp_path_factory.mktemp("mixture")
    case = dataclasses.replace(CASE, options=CASE.options | {"num_experts": 8})
    families.save(families.make_hf_model(case), directory / "olmoe")
    syllables = np.array([consonant + vowel for consonant in "bdfklmnp" for vowel in "aeiou"])
    for seed, name in enumerate(("ones", "twos")):
        rest = np.random.default_rng(seed).choice(syllables[8:], (8, 10, 4))
        rows = [
            {"concept": word, "domain": "xyz"[i // 3], "sentence": " ".join([word, *words])}
            for i, word in enumerate(syllables[:8])
            for words in rest[i]
        ]
        pd.DataFrame(rows).to_csv(directory / f"{name}.csv", index=False)
    return directory


def settings(inputs, **changes):
    config = get_config()
    config.update({"model": str(inputs / "olmoe"), "dtype": "float32", "sites": ("mlp.router", "mlp.up")})
    config.sentences = tuple(str(inputs / f"{name}.csv") for name in ("ones", "twos"))
    config.update({"resamples": 50, "transport": False, "expertise": str(inputs / "expertise")} | changes)
    return config


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "run"
    return workdir, run(settings(inputs), workdir)


def test_tables_are_those_of_the_saved_expertise(finished, inputs):
    workdir, conclusions = finished
    ones, twos = (el.open_expertise(inputs / "expertise" / f"olmoe_{name}").load() for name in ("ones", "twos"))
    expected = el.analysis.mixture(ones, threshold=0.5, held_out=twos, resamples=50)
    for name, table in {"mixture": expected.table, **expected.tables}.items():
        found = pd.read_csv(workdir / f"{name}.csv").query("sentences == 'ones'")
        if name != "mixture":
            assert set(found["weights"]) == {"trained", "random_weights_0"}
            found = found.query("weights == 'trained'")
        found = found[table.columns].reset_index(drop=True)
        np.testing.assert_array_equal(found.astype(str).values[:, :1], table.astype(str).values[:, :1])
        numbers = table.select_dtypes("number")
        np.testing.assert_allclose(found[numbers.columns], numbers, rtol=1e-5)
    assert expected.tables["together"]["pairs"].max() > 100 and expected.tables["router"]["concepts"].item() == 8
    assert read_conclusions(workdir / "conclusions.csv") == conclusions and len(conclusions) == 2
    assert all("ones, random weights 0" in each.found and "twos, trained" in each.found for each in conclusions)


def test_figures_are_there(finished):
    workdir, conclusions = finished
    drawn = {file.name for file in (workdir / "figures").iterdir()}
    names = ("together", "mixture_ones", "mixture_twos")
    assert drawn == {f"{name}.{suffix}" for name in names for suffix in ("png", "svg", "pdf")}
    svg = (workdir / "figures" / "together.svg").read_text()
    assert all(text in svg for text in ("ones", "twos", "other domains", "same concept, random weights", "Router"))
    assert {each.figure for each in conclusions} == {"together"}


def test_started_again_it_takes_its_tables_and_writes_the_same_bytes(finished, inputs):
    workdir, conclusions = finished
    table = inputs / "expertise" / "olmoe_ones" / "expertise.zarr" / "zarr.json"
    before, written = (workdir / "together.csv").read_bytes(), pathlib.Path(table).stat().st_mtime_ns
    (workdir / "together.csv").unlink()
    assert run(settings(inputs), workdir) == conclusions
    assert (workdir / "together.csv").read_bytes() == before
    assert pathlib.Path(table).stat().st_mtime_ns == written


def test_a_model_without_experts_is_refused_before_anything_is_written(tmp_path):
    flags = ["--config=configs/mixture.py", f"--workdir={tmp_path / 'run'}", "--config.model=lenslet-2m"]
    done = launch_here("mixture", *flags, "--config.dtype=float32")
    said = " ".join(done.stderr.split())
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert (
        "Error: lenslet-2m is no mixture of experts: each of its layers has one MLP, and this experiment asks" in said
    )
    assert "Give it one, such as --model=allenai/OLMoE-1B-7B-0924 or --config=mixture:granite" in said
    assert not (tmp_path / "run").exists()


def test_other_settings_that_cannot_be_are_refused_before_the_model_loads(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(el, "load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    for changes, message in (
        ({"sites": ("attn.q", "mlp.down")}, "sites are attn.q, mlp.down, and none is within a mixture's experts. Add"),
        ({"drawn_threshold": 0.95}, "drawn_threshold is 0.95, which is none of the thresholds"),
        ({"resamples": 0}, "resamples is 0; wanted 1 or more draws"),
    ):
        with pytest.raises(el.ExpertLensError, match=message):
            run(settings(inputs, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
