"""Word or concept: the kinds of pairs against plain numpy, and the verdicts on tables made by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.structure.senses import KINDS, compare_senses, find_homographs, similarity_of_halves
from expertlens_jax.errors import SelectionError, UnfitConceptsError
from expertlens_jax.report.senses_findings import conclude, experts_name, tell

HOMOGRAPHS = 7


def made(words, domains):
    names = tuple(f"{word} ({domain})" for word, domain in zip(words, domains, strict=True))
    number = len(names)
    arrays = np.eye(number, dtype=bool), np.ones(number, bool)
    return el.ConceptDataset("mine", tuple(f"{name}." for name in names), names, tuple(domains), *arrays, words=words)


@pytest.fixture(scope="module")
def concepts():
    """Seven words in two senses, and a partner of each sense."""
    words = tuple(word for i in range(HOMOGRAPHS) for word in (f"word{i}", f"p{i}", f"word{i}", f"q{i}"))
    return made(words, tuple(sense for i in range(HOMOGRAPHS) for sense in (f"s{i}", f"s{i}", f"t{i}", f"t{i}")))


def similarity_of(values, concepts):
    names = list(concepts.concepts)
    return xr.DataArray(values, dims=("concept", "other"), coords={"concept": names, "other": names})


@pytest.fixture(scope="module")
def random(concepts):
    values = np.random.default_rng(0).random((len(concepts.concepts),) * 2)
    return similarity_of((values + values.T) / 2, concepts)


def by_hand(values, concepts):
    """Of each homograph, the mean over pairs of each kind, pair by pair."""
    found = {}
    number = len(concepts.concepts)
    for i, j in itertools.permutations(range(number), 2):
        word, other = concepts.words[i], concepts.words[j]
        if not word.startswith("word"):
            continue
        sense = "same sense" if concepts.domains[i] == concepts.domains[j] else "other sense"
        kind = f"{'same' if word == other else 'other'} word, {sense}".replace("other word, other sense", "neither")
        found.setdefault((word, kind), []).append(values[i, j])
    return {key: np.mean(each) for key, each in found.items()}


def test_kinds_are_those_of_a_loop_over_pairs(concepts, random):
    values = random.values.copy()
    np.fill_diagonal(values, np.nan)
    found = compare_senses(values, concepts.words, concepts.domains)
    expected = by_hand(values, concepts)
    assert len(found) == len(expected) == 3 * HOMOGRAPHS
    for row in found.itertuples():
        assert row.overlap == pytest.approx(expected[row.homograph, row.kind], abs=1e-12)
    assert found.groupby("kind")["pairs"].first().to_dict() == {
        **{"other word, same sense": 2, "same word, other sense": 1, "neither": 2 * (4 * HOMOGRAPHS - 3)}
    }


def test_the_question_gives_means_and_wilcoxons_p(concepts, random):
    result = el.analysis.senses(random, concepts, {"again": random}, resamples=300)
    expected = by_hand(random.values, concepts)
    table = result.table[result.table["measure"] == "again"].set_index("kind")
    for kind in KINDS[1:]:
        each = [value for (_, of), value in expected.items() if of == kind]
        assert table.loc[kind, "overlap"] == pytest.approx(np.mean(each))
        assert table.loc[kind, "ci_low"] <= np.mean(each) <= table.loc[kind, "ci_high"]
        assert table.loc[kind, "homographs"] == HOMOGRAPHS
    sense, word = ([v for (_, of), v in expected.items() if of == kind] for kind in KINDS[1:3])
    row = result.tables["differences"].iloc[0]
    assert row["difference"] == pytest.approx(np.mean(np.subtract(sense, word)))
    assert row["share"] == pytest.approx(np.mean(np.greater(sense, word)))
    assert row["p_value"] == pytest.approx(scipy.stats.wilcoxon(sense, word).pvalue)


def test_halves_give_the_same_word_in_the_same_sense(concepts):
    rng = np.random.default_rng(1)
    number = len(concepts.concepts)
    halves = rng.random((2, number, 60)).astype(np.float32)
    precision = (("concept", "unit"), halves.mean(0))
    table = xr.Dataset(
        {"average_precision": precision, "average_precision_halves": (("half", "concept", "unit"), halves)},
        {"concept": list(concepts.concepts), "domain": ("concept", list(concepts.domains))},
    )
    first, second = halves > 0.5
    crossed = np.array([[(a & b).sum() / (a | b).sum() for b in second] for a in first])
    np.testing.assert_allclose(similarity_of_halves(table, 0.5), (crossed + crossed.T) / 2)
    result = el.analysis.senses(table, concepts, threshold=0.5, resamples=20)
    rows = result.table[result.table["measure"].str.endswith("between halves of the sentences")].set_index("kind")
    own = np.array([word.startswith("word") for word in concepts.words])
    assert list(rows.index) == list(KINDS)
    assert rows.loc[KINDS[0], "overlap"] == pytest.approx(np.diag(crossed)[own].mean())


@pytest.mark.parametrize(
    ("words", "domains", "message"),
    [
        (("cat", "dog"), ("animal", "animal"), "no word stands for two concepts of different domains. Wanted a column"),
        (("bat", "bat"), ("animal", "sport"), "'bat' have no concept of another word in the domain of either sense"),
        (("bat", "bat", "owl"), ("", "", ""), "no word stands for two concepts of different domains"),
    ],
)
def test_sentences_without_words_in_two_senses_are_refused(words, domains, message):
    concepts = made(tuple(words), tuple(domains)) if domains[0] else None
    if concepts is None:
        names = tuple("abc")
        arrays = np.eye(3, dtype=bool), np.ones(3, bool)
        concepts = el.ConceptDataset("mine", tuple("xyz"), names, domains, *arrays, words=words)
    with pytest.raises(UnfitConceptsError, match=message):
        find_homographs(concepts)


def test_a_table_of_other_concepts_is_refused(concepts, random):
    with pytest.raises(SelectionError, match=r"number 1 is 'p0 \(s0\)' there and 'word0 \(s0\)' here"):
        el.analysis.senses(random[1:, 1:], concepts)


def tables(sense, word, p_value, homographs=35):
    values = dict(zip(KINDS[1:], (sense, word, 0.01), strict=True))
    kinds = [{"kind": kind, "overlap": value, "ci_low": value, "ci_high": value} for kind, value in values.items()]
    kinds = pd.DataFrame(kinds).assign(sentences="senses", measure=experts_name(0.5))
    row = {"first": KINDS[1], "second": KINDS[2], "difference": sense - word, "ci_low": (sense - word) / 2}
    row |= {"share": float(sense > word), "share_low": 0.2, "share_high": 0.9, "p_value": p_value}
    row |= {"least_p": 2.0 ** (1 - homographs), "homographs": homographs}
    differences = pd.DataFrame([row]).assign(sentences="senses", measure=experts_name(0.5))
    return {"senses": kinds, "differences": differences}


@pytest.mark.parametrize(
    ("given", "verdict", "reason"),
    [
        (tables(0.3, 0.1, 0.001), "held", ""),
        (tables(0.3, 0.1, 0.2), "not held", ""),
        (tables(0.1, 0.3, 0.001), "not held", ""),
        (tables(0.3, 0.1, 0.25, homographs=3), "not testable", "3 words of senses give a least p of 0.25"),
        (tables(0.0, 0.0, 1.0), "not held", ""),
    ],
)
def test_the_verdict(given, verdict, reason):
    (conclusion,) = conclude(given, threshold=0.5)
    assert conclusion.verdict == verdict and conclusion.reason == reason
    assert "other word, same sense" in conclusion.found and "chance 0.5" in conclusion.found
    assert "words more alike by sense" in tell(given)


def test_experts_that_overlap_nowhere_are_not_testable():
    given = tables(0.0, 0.0, 1.0)
    given["senses"]["overlap"] = 0.0
    (conclusion,) = conclude(given, threshold=0.5)
    assert conclusion.verdict == "not testable" and "no two concepts share an expert at τ = 0.5" in conclusion.reason
