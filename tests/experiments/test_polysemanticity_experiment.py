"""The polysemanticity launcher on a few concepts of the packaged model: tables, figures, resuming, and errors."""

import pathlib

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from etils import epath

import expertlens_jax as el
from configs.demo import get_config
from experiments.polysemanticity import run

WORDS = ("cat", "dog", "horse", "bread", "cheese", "soup")


def settings(**changes):
    config = get_config("small")
    config.concepts = WORDS
    config.thresholds = (0.4,)
    config.drawn_threshold = 0.4
    config.resamples = 50
    config.permutations = 99
    config.polysemanticity.draws = 20
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = epath.Path(tmp_path_factory.mktemp("runs") / "run")
    run(settings(), workdir)
    return workdir


@pytest.fixture(scope="module")
def precision(finished):
    """Average precision [concepts, units] of either sentence set."""
    tables = {name: el.open_expertise(finished / "expertise" / f"lenslet-2m_{name}") for name in ("facts", "stories")}
    return {name: table["average_precision"].transpose("concept", "unit").values for name, table in tables.items()}


@pytest.mark.long
def test_services_are_those_of_the_saved_experts(finished, precision):
    services = pd.read_csv(finished / "services.csv")
    facts = services[services["sentences"] == "facts"]
    experts = precision["facts"] >= np.float32(0.4)
    np.testing.assert_array_equal(facts["concepts"], experts.sum(axis=0))
    np.testing.assert_array_equal(facts["domains"], experts[:3].any(axis=0).astype(int) + experts[3:].any(axis=0))
    spread = pd.read_csv(finished / "spread.csv").set_index(["sentences", "served", "number"])
    assert spread.loc[("facts", "concepts", 2), "units"] == (experts.sum(axis=0) == 2).sum()
    gathering = pd.read_csv(finished / "gathering.csv").set_index(["sentences", "concepts"])
    several = facts["concepts"] >= 2
    assert gathering.loc[("facts", 0), "domains"] == pytest.approx(facts.loc[several, "domains"].mean(), rel=1e-5)


def test_shared_experts_are_compared_as_scipy_does(finished, precision):
    shared = pd.read_csv(finished / "shared.csv")
    assert set(shared["sentences"]) == {"facts", "stories"}
    row = shared[shared["sentences"] == "facts"].iloc[0]
    a, b = WORDS.index(row["concept_a"]), WORDS.index(row["concept_b"])
    experts = precision["facts"] >= np.float32(0.4)
    test = scipy.stats.ks_2samp(
        precision["facts"][a, experts[a] & experts[b]], precision["facts"][a, experts[a] & ~experts[b]]
    )
    assert (row["ks"], row["p_value"]) == pytest.approx((test.statistic, test.pvalue), rel=1e-5)
    summary = pd.read_csv(finished / "shared_summary.csv").set_index(["sentences", "pair"])
    facts = shared[(shared["sentences"] == "facts") & (shared["pair"] == "same domain")]
    assert summary.loc[("facts", "same domain"), "ks_median"] == pytest.approx(facts["ks"].median(), rel=1e-5)


def test_held_out_precision_is_of_the_other_sentences(finished, precision):
    matched = pd.read_csv(finished / "matched.csv").set_index(["sentences", "match", "concept"]).sort_index()
    assert set(matched.index.unique("match")) == {"concept", "others", "both"}
    experts = precision["facts"] >= np.float32(0.4)
    row = matched.loc[("facts", "both", "dog")]
    assert row["experts"] == experts[1].sum()  # fewer than the others of each site: all have a match
    assert row["ap_experts"] == pytest.approx(precision["facts"][1, experts[1]].mean(), rel=1e-5)
    assert row["held_out_ap_experts"] == pytest.approx(precision["stories"][1, experts[1]].mean(), rel=1e-5)
    assert row["ap_matched"] < 0.4 <= row["ap_experts"]
    summary = pd.read_csv(finished / "matched_summary.csv").set_index(["sentences", "match", "measure"])
    means = matched.loc[("stories", "concept")]
    expected = (means["same_domain_experts"] - means["same_domain_matched"]).mean()
    assert summary.loc[("stories", "concept", "same_domain"), "difference"] == pytest.approx(expected, rel=1e-4)


def test_figures_are_there(finished):
    drawn = {file.name for file in (finished / "figures").iterdir()}
    assert drawn == {
        f"{name}.{suffix}" for name in ("services", "shared", "matched") for suffix in ("png", "svg", "pdf")
    }
    svg = (finished / "figures" / "shared.svg").read_text()
    assert "Pairs of the same domain" in svg and "median KS" in svg


@pytest.mark.long
def test_started_again_it_takes_its_tables_and_writes_the_same_bytes(finished):
    table = pathlib.Path(finished / "expertise" / "lenslet-2m_stories" / "expertise.zarr" / "zarr.json")
    files = ("spread", "shared_summary", "matched")
    before, written = [(finished / f"{file}.csv").read_bytes() for file in files], table.stat().st_mtime_ns
    (finished / "shared_summary.csv").unlink()
    run(settings(), finished)
    assert [(finished / f"{file}.csv").read_bytes() for file in files] == before
    assert table.stat().st_mtime_ns == written


def test_bad_settings_are_refused_before_anything_is_written(tmp_path):
    workdir = epath.Path(tmp_path / "run")
    for name, value, message in (
        ("matches", ("loudness",), "matches hold 'loudness'; there are concept, others, both"),
        ("matches", (), "matches is empty; wanted one or more of concept, others, both"),
        ("minimum", 1, "polysemanticity.minimum is 1; wanted 2 or more"),
        ("draws", 0, "polysemanticity.draws is 0; wanted 1 or more"),
    ):
        config = settings()
        config.polysemanticity[name] = value
        with pytest.raises(el.ExpertLensError, match=message):
            run(config, workdir)
    with pytest.raises(el.ExpertLensError, match="1 domain, and 0 have none"):
        run(settings(concepts=("cat", "dog")), workdir)
    assert not workdir.exists()
