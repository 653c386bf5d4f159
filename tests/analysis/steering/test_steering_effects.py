"""What is measured of a steering, on the packaged model, against values computed another way."""

import numpy as np
import pytest

import expertlens_jax as el
from expertlens_jax.analysis.statistics import bootstrap_mean
from expertlens_jax.analysis.steering import effects
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


def test_distinct_runs_of_tokens():
    ids = tuple(np.array(row, np.int32) for row in ([1, 2, 1, 2], [1, 2, 3], [5], []))
    made = effects.Continuations(PROMPTS, np.full((2, 2), "x", dtype=object), ids)
    np.testing.assert_allclose(effects.distinct(made, 1), [[1 / 2, 1], [1, np.nan]])
    np.testing.assert_allclose(effects.distinct(made, 2), [[2 / 3, 1], [np.nan, np.nan]])
    np.testing.assert_allclose(effects.distinct(made, 3), [[1, 1], [np.nan, np.nan]])


@pytest.mark.long
def test_the_effect_of_a_steering(model, concepts, expertise):
    """Every measure without steering and with: each by another way, and the concept's word more probable."""
    held_out = concepts.sentences[-3:]
    writing = effects.Writing(PROMPTS, held_out, num_seeds=2, max_new_tokens=5, seed=3)
    plain, before = effects.measure_effect(model, expertise, "cat", ["cat"], None, writing)
    steering = el.steer(expertise, "cat", top=50)
    written, after = effects.measure_effect(model, expertise, "cat", ["cat"], steering, writing)
    assert {name: value.shape for name, value in after.items()} == {
        **{"word_log_prob": (2, 1), "held_out_surprise": (3, 1)},
        **dict.fromkeys(["mention", "mentions", "expert_response", "surprise"], (2, 2)),
        **dict.fromkeys(["distinct_1", "distinct_2", "distinct_3"], (2, 2)),
    }
    # The word: logits of the model, steered, at the prompt's last token. "cats" is "cat" and a token more.
    logits = np.asarray(model([model.tokenizer(PROMPTS[0])["input_ids"]], steering=steering), np.float64)[0, -1]
    log_probs = logits - np.logaddexp.reduce(logits)
    first = log_probs[model.tokenizer(" cat")["input_ids"][0]]
    assert after["word_log_prob"][0, 0] == pytest.approx(first, abs=1e-3)
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


def test_experts_read_as_their_table_was_recorded(model, concepts):
    """Of a table of mean-pooled responses, texts' responses are means too."""
    responses = el.record_responses(model, concepts.sentences, pooling="mean")
    expertise = el.measure_expertise(responses, concepts).assign_attrs(pooling="mean")
    made = effects.Continuations(PROMPTS, np.array([[" cat sat"], [" dog ran"]], dtype=object), ())
    best = np.argsort(-expertise.average_precision.sel(concept="cat").values)[:20]
    row = expertise.sel(concept="cat").isel(unit=best)
    values = el.record_responses(model, made.whole, pooling="mean").values[:, best]
    want = np.median((values - row.negative_mean.values) / (row.positive_median - row.negative_mean).values, axis=1)
    got = effects.expert_response(model, made, expertise, "cat", top=20)
    np.testing.assert_allclose(got[:, 0], want, atol=1e-4)


def test_words_where_they_stand(model, concepts):
    got = effects.word_in_place(model, concepts, "dog")
    sentences = [concepts.sentences[i] for i in np.flatnonzero(concepts.labels[CONCEPTS.index("dog")])]
    inside = [s for s in sentences if not s.lower().startswith("dog")]
    assert 0 < len(got) <= len(inside) and (got < 0).all()
    with pytest.raises(ConceptDataError, match="no sentence of 'horse' in 'made' has its word after another"):
        made = el.ConceptDataset("made", ("Horses run",), ("horse",), ("",), np.ones((1, 1), bool), np.ones(1, bool))
        effects.word_in_place(model, made, "horse")
    with pytest.raises(ConceptDataError, match="'made' has no concept 'zebra'"):
        effects.word_in_place(model, made, "zebra")
    sentences = ("My CATS sleep, a cat said.", "A cat-like one", "Cats run")
    made = el.ConceptDataset("made", sentences, ("cat",), ("",), np.ones((1, 3), bool), np.ones(3, bool))
    assert effects.find_in_place(made, "cat") == (["My", "A"], [" CATS", " cat"])


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
