"""Log-probabilities of continuations against transformers."""

import families
import numpy as np
import pytest
import torch

import expertlens_jax as el
from expertlens_jax.errors import SelectionError, TokenizationError, UnsupportedModelError
from expertlens_jax.models import scoring
from expertlens_jax.models.scoring import next_log_probs, score_continuations, score_words

PROMPTS = ["a b c", "d", "e f g h i j", ""]
CONTINUATIONS = [" x y", " z", " k l m n", "o p q"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    case = next(case for case in families.CASES if case.name == "gpt_neox")
    directory = families.save(families.make_hf_model(case), tmp_path_factory.mktemp("neox"))
    return el.load_model(directory), families.load_hf_model(case, directory, torch.float32)


def by_transformers(model, reference, prompt, continuation):
    """The tests' tokenizer puts a token before a text and one after it; the latter is no part of the text."""
    ids = torch.tensor([model.tokenizer(prompt + continuation)["input_ids"][:-1]])
    known = len(model.tokenizer(prompt)["input_ids"][:-1])
    with torch.no_grad():
        log_probs = reference(ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
    return log_probs[known - 1 :].numpy()


def test_scores_are_those_of_transformers(pair):
    model, reference = pair
    ours = score_continuations(model, PROMPTS, CONTINUATIONS)
    for got, prompt, continuation in zip(ours, PROMPTS, CONTINUATIONS, strict=True):
        np.testing.assert_allclose(got, by_transformers(model, reference, prompt, continuation), atol=1e-4)
    assert [len(row) for row in ours[:3]] == [2, 1, 4]


def test_a_batch_is_no_larger_than_its_rows_need(pair, monkeypatch):
    shapes = []

    def counted(*args):
        shapes.append(args[2].shape)
        return next_log_probs(*args)

    monkeypatch.setattr(scoring, "next_log_probs", counted)
    few = score_continuations(pair[0], PROMPTS, CONTINUATIONS)
    assert shapes == [(2, 16), (4, 8)]  # three rows of 8 tokens, and so 32 a batch
    shapes.clear()
    score_continuations(pair[0], PROMPTS * 300, CONTINUATIONS * 300)
    assert shapes == [(64, 16)] * 5 + [(128, 8)] * 8  # 1,024 tokens, as recording takes on a CPU
    shapes.clear()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(scoring, "tokens_per_batch_of", lambda platform: 8192)
        score_continuations(pair[0], PROMPTS * 300, CONTINUATIONS * 300)
    assert shapes == [(256, 16)] * 2 + [(512, 8)] * 2  # at most 4,096
    shapes.clear()
    many = score_continuations(pair[0], PROMPTS, CONTINUATIONS, tokens_per_batch=4096)
    assert shapes == [(256, 16), (512, 8)]
    for got, wanted in zip(few, many, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_rows_of_no_steering_are_scored_by_the_program_of_none(pair):
    plain = score_continuations(pair[0], PROMPTS, CONTINUATIONS)
    programs = next_log_probs.compiled._cache_size()
    rows = score_continuations(pair[0], PROMPTS, CONTINUATIONS, steering=[None] * len(PROMPTS))
    assert next_log_probs.compiled._cache_size() == programs
    for got, wanted in zip(rows, plain, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_words_are_added_up(pair):
    model, reference = pair
    got = score_words(model, ["a b", "c"], ["x", "y z"])
    for row, prompt in zip(got, ["a b", "c"], strict=True):
        each = [by_transformers(model, reference, prompt, " " + word).sum() for word in ("x", "y z")]
        assert row == pytest.approx(np.log(np.exp(each).sum()), abs=1e-4)


def test_a_longer_word_is_in_what_it_begins_with(pair):
    """What starts with "y" is in the probability of "y" already; so is a word that is given twice."""
    model, _ = pair
    alone = score_words(model, ["a b", "c"], ["y"])
    np.testing.assert_allclose(score_words(model, ["a b", "c"], ["y z", "y", "y", "y z x"]), alone, atol=1e-6)
    with_another = score_words(model, ["a b", "c"], ["y", "x z", "x"])
    np.testing.assert_allclose(with_another, np.logaddexp(alone, score_words(model, ["a b", "c"], ["x"])), atol=1e-6)


def test_scores_are_those_of_generation_under_the_same_steering():
    model = el.load_model("lenslet-2m")
    steering = el.steer_units(model, model.units.sample(30, random_state=0), scale=0.5, shift=1.0)
    made = el.generate(model, "The cat sat", max_new_tokens=6, temperature=0, steering=steering)
    (scored,) = score_continuations(model, ["The cat sat"], list(made.texts), steering=steering)
    np.testing.assert_allclose(scored, made.log_probs[0], atol=1e-4)
    (plain,) = score_continuations(model, ["The cat sat"], list(made.texts))
    assert np.abs(plain - scored).max() > 1e-2


def test_what_has_no_score_is_refused(pair, tmp_path):
    model, _ = pair
    with pytest.raises(TokenizationError, match="1 prompt and 2 continuations"):
        score_continuations(model, ["a"], ["b", "c"])
    with pytest.raises(TokenizationError, match="row 1 has no token to score: ''"):
        score_continuations(model, ["a", "b"], [" c", ""])
    with pytest.raises(TokenizationError, match="row 0 has .* tokens; .* has positions for"):
        score_continuations(el.load_model("lenslet-2m"), ["a " * 999], [" b"])
    case = next(case for case in families.CASES if case.name == "bert")
    encoder = el.load_model(families.save(families.make_hf_model(case), tmp_path / "bert"))
    with pytest.raises(UnsupportedModelError, match="is an encoder"):
        score_continuations(encoder, ["a"], [" b"])


@pytest.mark.long
def test_rows_steered_one_by_one_have_the_scores_and_logits_of_each_alone(pair):
    """Of batches that hold several steerings, in texts, words, logits and responses."""
    model, _ = pair
    parts = (model.units.query(f"site == '{site}'").head(6) for site in ("mlp.up", "attn.v"))
    steerings = [None, *(el.steer_units(model, units, scale=0.5, shift=2.0) for units in parts)]
    by_row = [steerings[row % 3] for row in range(4)]
    alone = [score_continuations(model, PROMPTS, CONTINUATIONS, steering=steering) for steering in steerings]
    for small in (8, 4096):
        got = score_continuations(model, PROMPTS, CONTINUATIONS, steering=by_row, tokens_per_batch=small)
        for row, each in enumerate(got):
            np.testing.assert_allclose(each, alone[row % 3][row], atol=1e-5)
    assert all(np.abs(alone[0][row] - alone[which][row]).max() > 0.01 for which in (1, 2) for row in range(4))
    words = [score_words(model, PROMPTS[:3], ["x", "y z"], steering=steering) for steering in steerings]
    got = score_words(model, PROMPTS[:3], ["x", "y z"], steering=steerings)
    np.testing.assert_allclose(got, np.diag(words), atol=1e-5)
    of_prompt = score_words(model, PROMPTS[:2], [["x", "y z"], ["x"]], steering=steerings[1])
    np.testing.assert_allclose(of_prompt[0], words[1][0], atol=1e-6)
    np.testing.assert_allclose(of_prompt[1:], score_words(model, PROMPTS[1:2], ["x"], steering=steerings[1]), atol=1e-6)
    with pytest.raises(TokenizationError, match="2 lists of words were given for 3 prompts. Give words, or a list for"):
        score_words(model, PROMPTS[:3], [["x"], ["y"]])
    with pytest.raises(TokenizationError, match="words and lists of words were given for 2 prompts"):
        score_words(model, PROMPTS[:2], ["x", ["y"]])
    ids = model.tokenizer(PROMPTS[:3])["input_ids"]
    for call in (lambda **given: model(ids, **given), lambda **given: model.respond(ids, **given)):
        whole = [np.asarray(call(steering=steering)) for steering in steerings]
        got = np.asarray(call(steering=steerings))
        for row, length in enumerate(map(len, ids)):
            till = slice(length) if got.ndim == 3 else slice(None)
            np.testing.assert_allclose(got[row][till], whole[row][row][till], atol=1e-5)
    captured = model.capture(ids, sites="mlp.up", steering=steerings)["mlp.up"]
    assert (np.abs(captured[0, 1, :, :6] - captured[0, 0, :, :6]).min(axis=0) > 0).any()
    message = "2 steerings were given for 4 rows"
    with pytest.raises(SelectionError, match=message):
        score_continuations(model, PROMPTS, CONTINUATIONS, steering=steerings[:2])
    with pytest.raises(SelectionError, match="2 steerings were given for 3 rows"):
        score_words(model, PROMPTS[:3], ["x"], steering=steerings[:2])
    with pytest.raises(SelectionError, match="2 steerings were given for 3 rows"):
        model(ids, steering=steerings[:2])
