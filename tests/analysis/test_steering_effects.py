"""What is measured of a steering, on the packaged model, against values computed another way."""

import numpy as np
import pytest

import expertlens_jax as el
from expertlens_jax.analysis import steering_effects as effects
from expertlens_jax.analysis.statistics import bootstrap_mean
from expertlens_jax.errors import ConceptDataError

PROMPTS = ("They talked about the", "There was a")
CONCEPTS = ("animal", "cat", "dog", "horse", "bread", "cheese", "car", "truck")


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def concepts():
    return el.load_concepts("facts").subset(CONCEPTS)


@pytest.fixture(scope="module")
def expertise(model, concepts):
    return el.measure_expertise(el.record_responses(model, concepts.sentences), concepts)


def test_mentions_are_whole_words_and_plurals():
    texts = np.array([["A cat, two cats; the Cat's ear", "category"], ["", "dogs and a cat"]], dtype=object)
    np.testing.assert_array_equal(effects.count_mentions(texts, ["cat"]), [[3, 0], [0, 1]])
    np.testing.assert_array_equal(effects.count_mentions(texts, ["cat", "dog"]), [[3, 0], [0, 2]])


def test_distinct_pairs():
    ids = tuple(np.array(row, np.int32) for row in ([1, 2, 1, 2], [1, 2, 3], [5], []))
    made = effects.Continuations(PROMPTS, np.full((2, 2), "x", dtype=object), ids)
    np.testing.assert_allclose(effects.distinct_pairs(made), [[2 / 3, 1], [np.nan, np.nan]])


def test_the_effect_of_a_steering(model, concepts, expertise):
    """Every measure without steering and with: each by another way, and the concept's word more probable."""
    held_out = concepts.sentences[-3:]
    writing = effects.Writing(PROMPTS, held_out, num_seeds=2, max_new_tokens=5, seed=3)
    plain, before = effects.measure_effect(model, expertise, "cat", ["cat"], None, writing)
    steering = el.steer(expertise, "cat", top=20)
    written, after = effects.measure_effect(model, expertise, "cat", ["cat"], steering, writing)
    assert {name: value.shape for name, value in after.items()} == {
        **{"word_log_prob": (2, 1), "held_out_surprise": (3, 1)},
        **dict.fromkeys(["mention", "mentions", "expert_response", "surprise", "distinct_2"], (2, 2)),
    }
    # The word: logits of the model, steered, at the prompt's last token. "cat" and "cats" are a token each or two.
    logits = np.asarray(model([model.tokenizer(PROMPTS[0])["input_ids"]], steering=steering), np.float64)[0, -1]
    log_probs = logits - np.logaddexp.reduce(logits)
    first = log_probs[model.tokenizer(" cat")["input_ids"][0]]
    assert first - 0.01 <= after["word_log_prob"][0, 0] <= first + 0.7
    assert (after["word_log_prob"] > before["word_log_prob"] + 1).all()
    # Surprise: what generation itself says of its tokens, where the model isn't steered.
    made = el.generate(model, [p for p in PROMPTS for _ in range(2)], max_new_tokens=5, seed=3)
    assert plain.texts.ravel().tolist() == list(made.texts)
    want = np.reshape([-row.mean() for row in made.log_probs], (2, 2))
    np.testing.assert_allclose(before["surprise"], want, atol=1e-4)
    # Its experts' responses to what was written.
    best = np.argsort(-expertise.average_precision.sel(concept="cat").values)[:50]
    row = expertise.sel(concept="cat").isel(unit=best)
    responses = el.record_responses(model, [PROMPTS[1] + written.texts[1, 0]]).values[0, best]
    on_scale = (responses - row.negative_mean.values) / (row.positive_median.values - row.negative_mean.values)
    assert after["expert_response"][1, 0] == pytest.approx(np.median(on_scale), abs=1e-3)
    assert (after["held_out_surprise"] != before["held_out_surprise"]).any()


def test_words_where_they_stand(model, concepts):
    got = effects.word_in_place(model, concepts, "dog")
    sentences = [concepts.sentences[i] for i in np.flatnonzero(concepts.labels[CONCEPTS.index("dog")])]
    inside = [s for s in sentences if not s.lower().startswith("dog")]
    assert 0 < len(got) <= len(inside) and (got < 0).all()
    with pytest.raises(ConceptDataError, match="no sentence of 'horse' in 'made' has its word after another"):
        made = el.ConceptDataset("made", ("Horses run",), ("horse",), ("",), np.ones((1, 1), bool), np.ones(1, bool))
        effects.word_in_place(model, made, "horse")


def test_an_interval_over_rows_and_columns():
    """Covers the mean of a table with effects of its rows and columns about as often as it says."""
    rng = np.random.default_rng(0)
    covered, narrower = [], []
    for _ in range(200):
        table = rng.normal(size=(25, 1)) + rng.normal(size=(1, 25)) + rng.normal(size=(25, 25))
        mean, low, high = bootstrap_mean(table, resamples=300, seed=1)
        assert mean == pytest.approx(table.mean())
        covered.append(low <= 0 <= high)
        narrower.append(1.96 * table.std() / 25 < (high - low) / 2)
    assert 0.88 <= np.mean(covered) <= 0.99
    assert np.mean(narrower) > 0.95  # as if cells were independent is too narrow
    assert bootstrap_mean(np.array([[1.0, np.nan]]))[0] == 1
    assert np.isnan(bootstrap_mean(np.full((2, 2), np.nan))).all()
