"""The organisation launcher on a few concepts of the packaged model: tables, figures, resuming, and errors."""

import pathlib

import numpy as np
import pandas as pd
import pytest
from etils import epath
from sklearn import metrics

import expertlens_jax as el
from configs.demo import get_config
from experiments.organisation import run

WORDS = ("animal", "cat", "dog", "horse", "food", "bread", "cheese", "soup", "vehicle", "car", "truck", "train")


def settings(**changes):
    config = get_config("small")
    config.sentences = ("facts",)
    config.concepts = WORDS
    config.thresholds = (0.4,)
    config.drawn_threshold = 0.4
    config.random_weights = ()
    config.resamples = 50
    config.permutations = 99
    config.update(changes)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = epath.Path(tmp_path_factory.mktemp("runs") / "run")
    run(settings(), workdir)
    return workdir


@pytest.fixture(scope="module")
def sets(finished):
    """Expert sets of the saved table, by concept."""
    precision = el.open_expertise(finished / "expertise" / "lenslet-2m_facts").load()["average_precision"]
    rows = precision.transpose("concept", "unit").values >= np.float32(0.4)
    return {str(name): set(np.flatnonzero(row)) for name, row in zip(precision["concept"].values, rows, strict=True)}


@pytest.mark.long
def test_recovery_is_scikit_learns_of_the_saved_experts(finished, sets):
    table = pd.read_csv(finished / "recovery.csv")
    assert list(dict.fromkeys(table["measure"])) == [
        "experts, τ = 0.4",
        "AP, cosine centred",
        "TF-IDF of the sentences",
    ]
    found = table[table["measure"] == "experts, τ = 0.4"].set_index("statistic")
    distance = np.array([[1 - len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for b in WORDS] for a in WORDS])
    silhouette = metrics.silhouette_score(distance, np.repeat([0, 1, 2], 4), metric="precomputed")
    assert found.loc["silhouette", "value"] == pytest.approx(silhouette, abs=1e-5)
    assert (found["domains"] == 3).all() and (found["concepts"] == 12).all()
    assert found["p_value"].between(1 / 100, 1).all()


def test_inclusion_and_domains_are_those_of_the_saved_experts(finished, sets):
    inclusion = pd.read_csv(finished / "inclusion.csv").set_index(["concept_a", "concept_b"])
    shared = len(sets["animal"] & sets["dog"])
    assert inclusion.loc[("animal", "dog"), "a_in_b"] == pytest.approx(shared / len(sets["animal"]), rel=1e-5)
    assert inclusion.loc[("animal", "dog"), "b_in_a"] == pytest.approx(shared / len(sets["dog"]), rel=1e-5)
    of_food = [len(sets["food"] & sets[member]) / len(sets["food"]) for member in ("bread", "cheese", "soup")]
    means = inclusion[inclusion["pair"] == "own word"].groupby("domain")["a_in_b"].mean()
    assert means["food"] == pytest.approx(np.mean(of_food), rel=1e-5)
    hierarchy = pd.read_csv(finished / "hierarchy.csv").set_index(["statistic", "pair"])
    assert hierarchy.loc[("a_in_b", "own word"), "mean"] == pytest.approx(means.mean(), rel=1e-5)
    domains = pd.read_csv(finished / "domains.csv").set_index(["domain_1", "domain_2"])
    between = [len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a in WORDS[:4] for b in WORDS[8:]]
    assert domains.loc[("animal", "vehicle"), "overlap"] == pytest.approx(np.mean(between), rel=1e-5)
    misplaced = pd.read_csv(finished / "misplaced.csv")
    assert (misplaced["domain"] != misplaced["sits_with"]).all() and set(misplaced["concept"]) <= set(WORDS)
    places = pd.read_csv(finished / "map.csv")
    assert places.groupby("method").size().to_dict() == {"mds": 12, "tsne": 12}
    assert pd.read_csv(finished / "spelling.csv")["pairs"].sum() == 66
    sharing = pd.read_csv(finished / "sharing.csv").set_index("members")
    at_least_one = sum(len(set.union(*(sets[m] for m in WORDS[i + 1 : i + 4]))) for i in (0, 4, 8))
    assert sharing.loc[1, "units"] == at_least_one


def test_figures_are_there_and_name_concepts_and_domains(finished):
    drawn = {file.name for file in (finished / "figures").iterdir()}
    names = ("graph_facts", "tree_facts", "map_mds_facts", "map_tsne_facts", "domains_facts", "recovery", "hierarchy")
    assert drawn == {f"{name}.{suffix}" for name in names for suffix in ("png", "svg", "pdf")}
    assert all(word in (finished / "figures" / "tree_facts.svg").read_text() for word in WORDS)
    assert "vehicle" in (finished / "figures" / "domains_facts.svg").read_text()
    assert "TF-IDF of the sentences" in (finished / "figures" / "recovery.svg").read_text()


@pytest.mark.long
def test_started_again_it_takes_its_tables_and_writes_the_same_bytes(finished, capsys):
    table = pathlib.Path(finished / "expertise" / "lenslet-2m_facts" / "expertise.zarr" / "zarr.json")
    files = ("recovery", "map", "misplaced", "hierarchy")
    before, written = [(finished / f"{file}.csv").read_bytes() for file in files], table.stat().st_mtime_ns
    (finished / "recovery.csv").unlink()
    run(settings(), finished)
    assert [(finished / f"{file}.csv").read_bytes() for file in files] == before
    assert table.stat().st_mtime_ns == written
    said = capsys.readouterr().out
    assert "Recovery of domains" in said and "Concepts that sit elsewhere" in said and "a token shared" in said


def test_bad_settings_are_refused_before_anything_is_written(tmp_path):
    workdir = epath.Path(tmp_path / "run")
    config = settings()
    config.organisation.maps = ("umap",)
    with pytest.raises(el.ExpertLensError, match="organisation.maps hold 'umap'; there are mds, tsne"):
        run(config, workdir)
    config = settings()
    config.organisation.neighbours = 0
    with pytest.raises(el.ExpertLensError, match="organisation.neighbours is 0; wanted 1 or more"):
        run(config, workdir)
    with pytest.raises(
        el.ExpertLensError, match="1 domain, and 0 have none; wanted a domain for each concept, and two"
    ):
        run(settings(concepts=("animal", "cat", "dog")), workdir)
    with pytest.raises(el.ExpertLensError, match="has its own word and two members or more among the concepts"):
        run(settings(concepts=("cat", "dog", "bread", "soup")), workdir)
    with pytest.raises(el.ExpertLensError, match="permutations is 0; wanted 1 or more draws"):
        run(settings(permutations=0), workdir)
    assert not workdir.exists()
