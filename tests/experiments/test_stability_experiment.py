"""The stability experiment end to end on the packaged model: numbers checked another way, resuming, and errors."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import expertlens_jax as el
from configs.demo import get_config
from experiments import stability
from expertlens_jax.errors import ExpertLensError
from expertlens_jax.report.conclusions import CONCLUSIONS, Verdict, read_conclusions

CONCEPTS = ("animal", "cat", "dog", "horse", "bread", "cheese", "car", "truck")


def small(**changes):
    config = get_config("small")
    config.concepts = CONCEPTS
    config.thresholds, config.drawn_threshold = (0.4, 0.5), 0.4
    config.resamples, config.permutations = 50, 99
    config.stability.counts = (10,)
    config.stability.grid_positives, config.stability.grid_negatives = (10,), (60,)
    for name, value in changes.items():
        section, _, key = name.rpartition("__")
        (config[section] if section else config)[key] = value
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("stability") / "run"
    stability.run(small(), directory)
    return directory


@pytest.fixture(scope="module")
def table(workdir):
    return (
        pd.read_csv(workdir / "stability.csv")
        .set_index(["kind", "first", "second", "threshold", "statistic"])
        .sort_index()
    )


@pytest.fixture(scope="module")
def measured():
    """Expertise by sentence set, and by which negatives, as the library measures it at once."""
    model = el.load_model("lenslet-2m")
    found = {}
    for name in ("facts", "stories"):
        concepts = el.load_concepts(name).subset(CONCEPTS)
        responses = el.record_responses(model, concepts.sentences, significant_bits=12)
        found[name] = el.measure_expertise(responses, concepts)
        for seed in (0, 1):
            found[f"{name}, seed {seed}"] = el.measure_expertise(responses, concepts, sampled=True, seed=seed)
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [("sentences", "facts", "stories"), ("seeds", "stories, seed 0", "stories, seed 1")],
)
def test_numbers_are_those_of_the_library(table, measured, kind, first, second):
    for threshold in (0.4, 0.5):
        one, other = (el.select_experts(measured[name], threshold=threshold) for name in (first, second))
        rows = table.loc[kind, first, second, threshold]
        pairs = np.triu_indices(len(CONCEPTS), 1)
        overlaps = [el.jaccard(each).values[pairs] for each in (one, other)]
        rho = scipy.stats.spearmanr(*overlaps).statistic
        assert rows["value"]["overlap_correlation"] == pytest.approx(rho, rel=1e-4)
        same = [(a & b).sum() / (a | b).sum() for a, b in zip(one.values, other.values, strict=True)]
        assert rows["value"]["jaccard_same"] == pytest.approx(np.mean(same), rel=1e-4)
        assert rows["experts_1"].iloc[0] == pytest.approx(one.values.sum(1).mean())
        assert rows["chance"]["retrieval"] == 1 / 8
        assert rows["value"]["jaccard_different"] < rows["value"]["jaccard_same"]


@pytest.mark.long
def test_every_comparison_is_there_with_its_count(table):
    rows = table.reset_index()
    assert set(rows["kind"]) == {"sentences", "random weights", "halves", "fewer", "seeds", "models"}
    assert rows.groupby("kind")["count"].first().to_dict() == {
        **{"sentences": 40, "random weights": 40, "halves": 20, "fewer": 10, "seeds": 40, "models": 40}
    }
    fewer = rows[rows["kind"] == "fewer"]
    assert set(zip(fewer["first"], fewer["second"], strict=True)) == {
        ("facts", "stories"),
        *((f"{name}, draw 1", f"{name}, draw 2") for name in ("facts", "stories")),
    }
    assert (rows.groupby(["kind", "first", "second", "threshold"]).size() == 4).all()  # checkpoints: the same units
    assert (rows["ci_low"] <= rows["ci_high"]).sum() > 0.9 * len(rows)


@pytest.mark.long
def test_figures_are_there_and_the_claims_told(workdir):
    for name in ("stability", "stability_thresholds", "stability_fewer", "stability_grid"):
        assert (workdir / "figures" / f"{name}.png").stat().st_size > 10_000
    arranged, same = read_conclusions(workdir / CONCLUSIONS)
    assert "random weights" in arranged.found and isinstance(arranged.verdict, Verdict)
    assert same.verdict == Verdict.HELD and (workdir / "figures" / f"{same.figure}.svg").exists()


@pytest.mark.long
def test_the_grid_holds_each_pair_of_sizes(workdir):
    grid = pd.read_csv(workdir / "grid.csv")
    assert set(zip(grid["positives"], grid["negatives"], strict=True)) == {(10, 60)}
    assert set(grid["threshold"]) == {0.4, 0.5} and (grid["concepts"] == 8).all()
    values = grid[grid["threshold"] == 0.4].set_index("statistic")["value"]
    assert values["jaccard_same"] > values["jaccard_different"] and values["retrieval"] > 1 / 8


@pytest.mark.long
def test_a_run_goes_on_where_it_was(workdir, monkeypatch):
    before = (workdir / "stability.csv").read_bytes()
    (workdir / "stability.csv").unlink()

    def refuse(*_):
        raise AssertionError("the model ran again")

    monkeypatch.setattr("expertlens_jax.experts.pipeline.record", refuse)
    stability.run(small(), workdir)
    assert (workdir / "stability.csv").read_bytes() == before
    assert len(json.loads((workdir / "environment.json").read_text())) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stability__counts": (50,)}, "has 40 sentences for 'animal', too few for 1 draw of 50"),
        ({"stability__grid_positives": (30,)}, "hold 30, and two draws want twice as many sentences"),
        ({"exclude_mentions": False}, "stability.grid_positives want exclude_mentions=True"),
        ({"stability__seeds": (1,)}, r"stability.seeds is \(1,\); wanted two or more that differ"),
        ({"stability__models": ("lenslet-2m",)}, "wanted 2 or more models, each once"),
        ({"stability__models": ("lenslet-2m", "lenslet-2m@step7")}, "has no revision 'step7'; it ships with step0"),
        ({"stability__models": ("lenslet-2m", "lenslet")}, "holds 'lenslet', which is no packaged model"),
        ({"drawn_threshold": 0.9}, "none of the thresholds"),
        ({"concepts": ("cat", "dog")}, "there are 2 concepts; an overlap matrix to correlate wants three"),
    ],
)
def test_settings_that_cannot_be_met_are_refused_at_once(tmp_path, changes, message):
    with pytest.raises(ExpertLensError, match=message):
        stability.run(small(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
