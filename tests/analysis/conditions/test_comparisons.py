"""Pairs of conditions, and checkpoints of a training: which tables are compared, with the numbers of each alone."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.conditions.comparisons import describe_comparison, make_comparisons
from expertlens_jax.analysis.conditions.settling import follow_training, trace_overlap
from expertlens_jax.analysis.conditions.stability import compare_conditions
from expertlens_jax.analysis.structure.thresholds import describe_thresholds
from expertlens_jax.errors import SelectionError

CONCEPTS = ("cat", "dog", "horse", "bread", "cheese", "soup")
DRAWS = {"resamples": 20, "permutations": 19, "seed": 1}


def table(seed, units=60):
    rng = np.random.default_rng(seed)
    precision = rng.random((len(CONCEPTS), units)).astype(np.float32)
    halves = rng.random((2, len(CONCEPTS), units)).astype(np.float32)
    return xr.Dataset(
        {
            "average_precision": (("concept", "unit"), precision),
            "average_precision_halves": (("half", "concept", "unit"), halves),
            "positive_median": (("concept", "unit"), precision),
        },
        {"concept": list(CONCEPTS), "channel": ("unit", np.arange(units))},
    )


@pytest.fixture(scope="module")
def datasets():
    return [el.load_concepts(name).subset(CONCEPTS) for name in ("facts", "stories")]


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


def test_every_pair_is_compared_and_each_table_is_found_once(model, datasets):
    found, tables = [], {}

    def find(which, concepts, **changes):
        key = (which.name, concepts.name, len(concepts.sentences), tuple(sorted(changes.items())))
        found.append(key)
        return tables.setdefault(key, table(len(tables)))

    loaded = []

    def load(name):
        loaded.append((name, len(found)))
        return model.replace(name=name)

    comparisons = list(
        make_comparisons(
            model,
            datasets,
            find,
            random_weights=(3,),
            counts=(10, 30),
            seeds=(0, 1),
            models={name: lambda name=name: load(name) for name in ("small", "large")},
        )
    )
    assert [(each.kind, each.first, each.second, each.count) for each in comparisons] == [
        ("sentences", "facts", "stories", 40),
        ("random weights", "facts, seed 3", "stories, seed 3", 40),
        ("halves", "facts, one half", "facts, the other", 20),
        ("halves", "stories, one half", "stories, the other", 20),
        ("fewer", "facts, draw 1", "facts, draw 2", 10),
        ("fewer", "stories, draw 1", "stories, draw 2", 10),
        ("fewer", "facts", "stories", 10),
        ("fewer", "facts", "stories", 30),  # of 40, two draws of 30 would share some
        ("seeds", "facts, seed 0", "facts, seed 1", 40),
        ("seeds", "stories, seed 0", "stories, seed 1", 40),
        ("models", "facts, small", "facts, large", 40),
        ("models", "stories, small", "stories, large", 40),
    ]
    assert ("lenslet-2m", "facts", 240, (("halves", True),)) in found
    assert ("lenslet-2m", "stories", 240, (("sampled", True), ("seed", 1))) in found
    assert ("lenslet-2m-random3", "facts", 240, ()) in found
    assert loaded == [("small", len(found) - 4), ("large", len(found) - 2)]  # one is used before the next is loaded
    whole = tables["lenslet-2m", "facts", 240, (("halves", True),)]
    one, other = comparisons[2].tables
    np.testing.assert_array_equal(one["average_precision"], whole["average_precision_halves"][0])
    np.testing.assert_array_equal(other["average_precision"], whole["average_precision_halves"][1])
    assert all("positive_median" not in each for comparison in comparisons for each in comparison.tables)


def test_a_comparison_at_each_threshold_is_that_of_the_expert_sets(model, datasets):
    made = iter(range(10))
    comparison = next(make_comparisons(model, datasets, lambda *_, **__: table(next(made))))
    described = describe_comparison(comparison, (0.5, 0.9), **DRAWS)
    for threshold in (0.5, 0.9):
        sets = [el.select_experts(each, threshold=threshold) for each in comparison.tables]
        rows = described[described["threshold"] == threshold].reset_index(drop=True)
        pd.testing.assert_frame_equal(
            rows[list(compare_conditions(*sets, **DRAWS))], compare_conditions(*sets, **DRAWS)
        )
        for number, each in enumerate(sets, start=1):
            assert (rows[f"experts_{number}"] == each.values.sum(1).mean()).all()
    assert (described["concepts"] == len(CONCEPTS)).all() and (described["kind"] == "sentences").all()


def test_training_is_followed_to_the_last_checkpoint_of_either_sentence_set():
    tables = {name: {step: table(seed + step) for step in (0, 16, 64)} for name, seed in (("facts", 0), ("stories", 9))}
    followed, settled = follow_training(tables, (0.5,), **DRAWS)
    for statistic, last_with in (("final_overlap", "facts"), ("final_overlap_held_out", "stories")):
        overlap, settling = trace_overlap(tables["facts"], tables[last_with][64], (0.5,), resamples=20, seed=1)
        rows = followed[(followed["sentences"] == "facts") & (followed["statistic"] == statistic)]
        pd.testing.assert_frame_equal(rows[list(overlap)].reset_index(drop=True), overlap)
        rows = settled[(settled["sentences"] == "facts") & (settled["last_with"] == last_with)]
        pd.testing.assert_frame_equal(rows[list(settling)].reset_index(drop=True), settling)
    described = describe_thresholds(tables["stories"][16], (0.5,), **DRAWS)
    rows = followed[(followed["sentences"] == "stories") & (followed["step"] == 16)]
    rows = rows[rows["statistic"].isin(described["statistic"])]
    assert rows["value"].tolist() == described["value"].tolist()
    assert followed["note"].eq("").all() and followed["ratings"].eq("").all()
    alone, _ = follow_training({"facts": tables["facts"]}, (0.5,), **DRAWS)
    assert "final_overlap_held_out" not in set(alone["statistic"])


def test_checkpoints_of_other_units_are_told():
    with pytest.raises(SelectionError, match="60 units of .* the last of 6 concepts and 50 units of"):
        follow_training({"facts": {0: table(0), 16: table(1, units=50)}}, (0.5,), **DRAWS)
