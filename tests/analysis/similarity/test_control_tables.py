"""Controls of a model's experts, and many similarities beside human ratings: made of what they say, and no more."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.similarity.aligned_measures import align_measures
from expertlens_jax.analysis.similarity.control_tables import (
    check_own_tokens,
    check_words_present,
    control_tables,
)
from expertlens_jax.analysis.similarity.embeddings import embedding_responses
from expertlens_jax.analysis.similarity.measures import Measure, named_measures
from expertlens_jax.errors import UnfitConceptsError

CONCEPTS = ("cat", "dog", "horse", "bread", "cheese", "soup")


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def concepts():
    return el.load_concepts("facts").subset(CONCEPTS)


def test_each_control_takes_one_thing_away(model, concepts):
    found = {}

    def find(which, sentences, **changes):
        found[len(found)] = (which.name, sentences, changes)
        return xr.Dataset(attrs={"number": len(found) - 1})

    controls = dict(control_tables(model, concepts, find, random_weights=(0, 4), mask="thing"))
    assert list(controls) == [
        *("random_weights_0", "random_weights_4", "input_embedding", "masked", "own_tokens", "other_tokens")
    ]
    by_name = {name: found[table.attrs["number"]] for name, table in controls.items() if name != "input_embedding"}
    assert [by_name[f"random_weights_{seed}"][0] for seed in (0, 4)] == ["lenslet-2m-random0", "lenslet-2m-random4"]
    assert by_name["random_weights_0"][1] is concepts and by_name["random_weights_0"][2] == {}
    name, masked, changes = by_name["masked"]
    assert name == "lenslet-2m" and changes == {} and masked.concepts == concepts.concepts
    assert all("thing" in text for text in masked.sentences) and masked.mentions().sum() < concepts.mentions().sum()
    assert by_name["own_tokens"][2] == {"pool_over": "concept"}
    assert by_name["other_tokens"][2] == {"pool_over": "others"}
    embedded = embedding_responses(model, concepts.sentences)
    own = el.measure_expertise(embedded, concepts, negatives_per_positive=5, transport=False)
    (made,) = (
        table
        for name, table in control_tables(
            model, concepts, find, random_weights=(), mask="", own_tokens=False, negatives={"negatives_per_positive": 5}
        )
    )
    xr.testing.assert_identical(made, own)
    nothing = {"random_weights": (), "embedding": False, "mask": "", "own_tokens": False}
    assert list(control_tables(model, concepts, find, **nothing)) == []


def test_sentences_without_the_concepts_word_are_told(model, concepts):
    check_words_present(concepts)
    check_own_tokens(model, concepts)
    sentences = list(concepts.sentences)
    sentences[int(concepts.labels[1].argmax())] = "It barks."
    lacking = dataclasses.replace(concepts, sentences=tuple(sentences))
    with pytest.raises(UnfitConceptsError, match=r"of 1 of 240 .* lacks the word of its concept 'dog': 'It barks.'"):
        check_words_present(lacking)


def similarity(seed):
    values = np.random.default_rng(seed).random((6, 6))
    names = list(CONCEPTS)
    return xr.DataArray(values + values.T, dims=("concept", "other"), coords={"concept": names, "other": names})


def test_measures_stand_beside_each_other_as_each_stands_alone():
    pairs = tuple((a, b) for i, a in enumerate(CONCEPTS) for b in CONCEPTS[:i])
    rated = el.Ratings("mine", pairs, tuple(np.random.default_rng(9).random(len(pairs)).tolist()))
    drawn = Measure("ExpertLens", "jaccard", similarity(0), 0.5, 12.0, 2.5)
    measures = [
        drawn,
        Measure("ExpertLens", "cosine", similarity(1)),
        Measure("Baselines", "single_word", similarity(2)),
        Measure("Controls", "tfidf", similarity(3)),
    ]
    draws = {"resamples": 20, "permutations": 19, "seed": 3}
    tables = align_measures(measures, drawn, [rated], "facts", **draws)
    table = tables["alignment"]
    assert table["measure"].tolist() == ["jaccard", "cosine", "single_word", "tfidf"]
    for row, measure in zip(table.to_dict("records"), measures, strict=True):
        alone = el.align(measure.similarity, rated, **draws)
        for name in ("pairs", "spearman", "ci_low", "ci_high", "p_value"):
            assert row[name] == getattr(alone, name)
    assert table["sentences"].eq("facts").all() and table["threshold"].iloc[0] == 0.5
    alone = el.align(drawn.similarity, rated, **draws).table.assign(sentences="facts", ratings="mine")
    pd.testing.assert_frame_equal(tables["pairs"], alone.reset_index(drop=True))
    assert tables["comparisons"]["baseline"].tolist() == ["single_word", "tfidf"]  # not other measures of experts
    assert "single_word" not in set(tables["partial"]["control"]) and "tfidf" in set(tables["partial"]["control"])


def test_named_tables_give_measures_that_are_named_after_them():
    precision = np.random.default_rng(0).random((6, 50)).astype(np.float32)
    table = xr.Dataset({"average_precision": (("concept", "unit"), precision)}, {"concept": list(CONCEPTS)})
    (measure,) = named_measures([("masked", table)], ["jaccard"], 0.5, "Controls")
    assert (measure.group, measure.name, measure.threshold) == ("Controls", "jaccard_masked", 0.5)
    xr.testing.assert_identical(measure.similarity, el.jaccard(el.select_experts(table, threshold=0.5)))
