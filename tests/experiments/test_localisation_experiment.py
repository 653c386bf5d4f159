"""The localisation launcher on a few concepts of the packaged model: tables, figures, resuming, and errors."""

import pathlib

import numpy as np
import pandas as pd
import pytest
from etils import epath
from launched import launch_here

import expertlens_jax as el
from configs.demo import get_config
from experiments.localisation import run


def settings(**changes):
    config = get_config("small")
    config.sentences = ("facts",)
    config.concepts = ("animal", "cat", "dog", "food", "bread", "cheese")
    config.thresholds = (0.4, 0.6)
    config.drawn_threshold = 0.4
    config.random_weights = (0,)
    config.resamples = 50
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = epath.Path(tmp_path_factory.mktemp("runs") / "run")
    run(settings(), workdir)
    return workdir


@pytest.mark.long
def test_enrichment_is_that_of_the_saved_experts(finished):
    table = pd.read_csv(finished / "localisation.csv")
    assert set(table["weights"]) == {"trained", "random_weights_0"} and set(table["threshold"]) == {0.4, 0.6}
    assert set(table["domain"]) == {"all", "animal", "food"}
    expertise = el.open_expertise(finished / "expertise" / "lenslet-2m_facts").load()
    experts = (expertise["average_precision"] >= 0.4).transpose("concept", "unit")
    here = np.array([site == "mlp.up" for site in expertise["site"].values]) & (expertise["layer"].values == 0)
    foods = experts.values[3:]
    rows = table[(table["weights"] == "trained") & (table["threshold"] == 0.4) & (table["domain"] == "food")]
    (row,) = rows[(rows["layer"] == "0") & (rows["site"] == "mlp.up")].itertuples()
    assert row.enrichment == pytest.approx(foods[:, here].sum() / foods.sum() / here.mean(), rel=1e-5)
    assert row.ci_low <= row.enrichment <= row.ci_high
    depth = pd.read_csv(finished / "depth.csv").set_index(["weights", "block", "threshold"])
    layers = np.broadcast_to(expertise["layer"].values / 3, experts.shape)[experts.values]
    assert depth.loc[("trained", "all", 0.4), "depth"] == pytest.approx(layers.mean(), rel=1e-5)


def test_figures_hold_sites_thresholds_and_domains(finished):
    drawn = {file.name for file in (finished / "figures").iterdir()}
    assert drawn == {f"{n}_facts.{s}" for n in ("enrichment", "domains", "depth") for s in ("png", "svg", "pdf")}
    svg = (finished / "figures" / "enrichment_facts.svg").read_text()
    assert all(text in svg for text in ("attn.q", "mlp.down", "τ = 0.4", "τ = 0.6"))
    assert "all concepts" in (finished / "figures" / "domains_facts.svg").read_text()
    assert "mlp, random weights" in (finished / "figures" / "depth_facts.svg").read_text()


@pytest.mark.long
def test_started_again_it_takes_its_tables_and_writes_the_same_bytes(finished):
    table = finished / "expertise" / "lenslet-2m_facts" / "expertise.zarr" / "zarr.json"
    before, written = (finished / "localisation.csv").read_bytes(), pathlib.Path(table).stat().st_mtime_ns
    (finished / "localisation.csv").unlink()
    run(settings(), finished)
    assert (finished / "localisation.csv").read_bytes() == before
    assert pathlib.Path(table).stat().st_mtime_ns == written


def test_bad_settings_are_refused_before_anything_is_written(tmp_path):
    workdir = epath.Path(tmp_path / "run")
    with pytest.raises(el.ExpertLensError, match=r"drawn_threshold is 0.9, which is none of the thresholds .*Set it"):
        run(settings(drawn_threshold=0.9), workdir)
    with pytest.raises(el.ExpertLensError, match="threshold=1.5; wanted an average precision"):
        run(settings(thresholds=(0.4, 1.5)), workdir)
    with pytest.raises(el.ExpertLensError, match="resamples is 0; wanted 1 or more draws"):
        run(settings(resamples=0), workdir)
    assert not workdir.exists()


def test_the_launcher_tells_errors_in_a_paragraph(tmp_path):
    flags = ["--config=configs/demo.py:small", f"--workdir={tmp_path / 'run'}", "--config.drawn_threshold=0.95"]
    done = launch_here("localisation", *flags)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Error: drawn_threshold is 0.95, which is none of the thresholds" in " ".join(done.stderr.split())
