"""Settings that travel together: as values, as plain keywords, and never in silence."""

import dataclasses
import inspect
import re

import numpy as np
import pytest

import expertlens_jax as el
from expertlens_jax.errors import BudgetError, ConceptDataError, SelectionError, SettingError
from expertlens_jax.settings import settings_of

CONCEPTS = el.ConceptDataset(
    "letters", tuple("abcdef"), ("x", "y"), ("", ""), np.repeat(np.eye(2, dtype=bool), 3, axis=1), np.ones(6, bool)
)
GROUPS = ("recording", "negatives", "statistics", "budget")
KINDS = dict(zip(GROUPS, (el.Recording, el.Negatives, el.Statistics, el.Budget), strict=True))


def gather(**given):
    values = {name: (kind, given.pop(name, None)) for name, kind in KINDS.items()}
    return dict(zip(GROUPS, settings_of("find_experts", given, values, others=("progress",)), strict=True))


def test_find_experts_has_eight_parameters_and_plain_keywords():
    parameters = inspect.signature(el.find_experts).parameters
    assert [name for name, each in parameters.items() if each.kind != each.VAR_KEYWORD] == [
        *("model", "concepts", "workdir", *GROUPS, "progress")
    ]


def test_plain_keywords_say_what_values_say():
    plain = gather(
        **dict(sites="resid", pooling="mean", pool_over="others", tokens_per_batch=9, truncate=True),
        significant_bits=12,
        **dict(negatives_per_positive=5, exclude_mentions=False, sampled=True, seed=3),
        **dict(halves=False, transport=False, scores=["cohens_d"], permutations=7, passes=2),
    )
    assert plain == {
        "recording": el.Recording(("resid",), "mean", "others", 9, True, significant_bits=12),
        "negatives": el.Negatives(5, False, True, 3),
        "statistics": el.Statistics(False, False, ("cohens_d",), el.Resampling(7, seed=3)),
        "budget": el.Budget(passes=2),
    }
    assert gather() == {name: kind() for name, kind in KINDS.items()}
    assert gather(**{name: value for name, value in plain.items()}) == plain


@pytest.mark.parametrize("kind", [*KINDS.values()])
def test_every_field_has_a_plain_keyword_but_the_bytes_of_a_budget(kind):
    reached = {path.partition(".")[0] for path in kind.plain.values()}
    assert {field.name for field in dataclasses.fields(kind)} - reached == (
        {"device", "host", "disk"} if kind is el.Budget else set()
    )


def test_settings_are_values_that_can_be_keys_and_come_back_from_a_table():
    asked = el.Negatives(per_positive=4, sampled=True, seed=2)
    assert len({asked, el.Negatives(4, sampled=True, seed=2), el.Recording(["resid"]), el.Recording("resid")}) == 2
    assert el.Negatives.of_attributes(asked.attributes()) == asked
    assert asked.base_rate == 0.2
    with pytest.raises(SelectionError, match="it lacks the attributes sampled, seed. Measure it again"):
        el.Negatives.of_attributes({"negatives_per_positive": 1, "exclude_mentions": True})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            dict(negative_per_positive=3),
            "find_experts has no setting 'negative_per_positive'. Did you mean 'negatives_per_positive'? Allowed are "
            "sites, pooling, pool_over, tokens_per_batch, truncate, chat, significant_bits, negatives_per_positive, "
            "exclude_mentions, sampled, seed, halves, transport, scores, permutations, passes, store; and recording=, "
            "negatives=, ",
        ),
        (dict(progres=True), "has no setting 'progres'. Did you mean 'progress'?"),
        (dict(per_positive=3), "has no setting 'per_positive'. Did you mean 'negatives_per_positive'?"),
        (
            dict(negatives=el.Negatives(), seed=3),
            "find_experts was given seed=3 beside negatives=Negatives(per_positive=2.5, exclude_mentions=True, "
            "sampled=False, seed=0), which holds that setting too. Say it there, as el.Negatives(...), or give plain",
        ),
        (dict(statistics=el.Statistics(), seed=3), "seed=3 beside statistics=Statistics(halves=True"),
        (dict(recording=el.Recording(), pooling="mean"), "pooling='mean' beside recording=Recording(sites=None"),
        (dict(recording=el.Recording("resid"), sites="mlp.up"), "sites='mlp.up' beside recording=Recording(sites=("),
        (dict(budget=el.Budget(passes=2), passes=2), "passes=2 beside budget=Budget(device=None"),
        (
            dict(negatives=5),
            "negatives=5; wanted el.Negatives(per_positive, exclude_mentions, sampled, seed), or plain keywords: "
            "negatives_per_positive, exclude_mentions, sampled, seed.",
        ),
        (
            dict(recording=el.Negatives()),
            "el.Recording(sites, pooling, pool_over, tokens_per_batch, truncate, chat, significant_bits)",
        ),
    ],
)
def test_unknown_doubled_and_mistaken_settings_are_refused_by_name(given, message):
    with pytest.raises(SettingError, match=re.escape(message)):
        gather(**given)
    with pytest.raises(TypeError, match=re.escape(message)):  # what Python raises for an unknown keyword
        el.find_experts(None, CONCEPTS, "never made", **given)


def test_a_field_that_says_nothing_may_be_said_plainly():
    assert gather(budget=el.Budget(host=5), passes=2)["budget"] == el.Budget(host=5, passes=2)
    assert gather(recording=el.Recording(pooling="mean"), sites="resid")["recording"] == el.Recording("resid", "mean")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: el.Negatives(0), ConceptDataError, "negatives_per_positive must be a number above 0, not 0"),
        (lambda: el.Negatives("2"), ConceptDataError, "negatives_per_positive must be a number above 0, not '2'"),
        (lambda: el.Negatives(float("nan")), ConceptDataError, "must be a number above 0, not nan"),
        (lambda: el.Negatives(seed=-1), ConceptDataError, "seed must be 0 or above, not -1"),
        (lambda: el.Negatives(seed=0.5), ConceptDataError, "seed must be 0 or above, not 0.5"),
        (lambda: el.Recording(tokens_per_batch=0), SelectionError, "an integer above 0, or None, not 0"),
        (lambda: el.Recording(tokens_per_batch=8.0), SelectionError, "an integer above 0, or None, not 8.0"),
        (lambda: el.Resampling(-1), SelectionError, "draws of a resampling must be an integer from 0 on, not -1"),
        (lambda: el.Resampling(3, seed=True), SelectionError, "seed of a resampling must be an integer"),
        (lambda: el.Statistics(permutations=100), SettingError, "wanted el.Resampling(draws, seed), such as"),
        (lambda: el.Statistics(scores=["cohens"]), SettingError, "Unknown score 'cohens'. Choose from: average_pre"),
        (lambda: el.Budget(host=-1), BudgetError, "host of a budget is -1; wanted bytes, from 0 on, or None."),
        (lambda: el.Budget(passes=0), BudgetError, "passes of a budget is 0; wanted a number of passes, from 1 on"),
    ],
)
def test_bad_values_are_refused_where_they_are_made(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()


def test_the_other_functions_take_both_forms():
    plain = el.contrast_concepts(CONCEPTS, negatives_per_positive=1, sampled=True, seed=4)
    value = el.contrast_concepts(CONCEPTS, el.Negatives(1, sampled=True, seed=4))
    for name in ("positives", "pool", "corrected", "corrections", "negative_weight"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(value, name))
    with pytest.raises(SettingError, match="contrast_concepts has no setting 'ratio'. Allowed are negatives_per"):
        el.contrast_concepts(CONCEPTS, ratio=2)
    with pytest.raises(SettingError, match="measure_expertise has no setting 'negatives_per'. Did you mean 'negatives"):
        el.measure_expertise(None, CONCEPTS, negatives_per=2)
    with pytest.raises(SettingError, match="record_responses has no setting 'pool_over'. Allowed are sites, pooling, "):
        el.record_responses(None, ["a"], pool_over="concept")
    with pytest.raises(SelectionError, match="pool_over='concept', and knows no concepts .* to el.find_experts"):
        el.record_responses(None, ["a"], recording=el.Recording(pool_over="concept"))
