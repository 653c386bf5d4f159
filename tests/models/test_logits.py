"""Log-probabilities of bfloat16 models are as exact as float32: the head's sum is never rounded to bfloat16."""

import dataclasses

import families
import jax
import numpy as np
import pytest
import scipy.special

import expertlens_jax as el
from expertlens_jax.models.scoring import score_continuations

TOLERANCE = 1e-5  # relative to the largest logit: float32's, over sums of some dozens of products


@pytest.mark.parametrize(("name", "head"), [("gpt2", "tied"), ("gpt_neox", "linear"), ("phi", "linear with bias")])
def test_logits_are_the_float64_product_of_the_same_hidden_state_and_head(name, head, tmp_path):
    case = next(case for case in families.CASES if case.name == name)
    model = el.load_model(families.save(families.make_hf_model(case), tmp_path), dtype="bfloat16")
    assert model.config.head == head.split()[0] and model.config.head_bias == ("bias" in head)
    token_ids = np.random.default_rng(0).integers(4, families.VOCABULARY, (4, 20))
    logits = np.asarray(model(token_ids))

    params = {path: value for path, value in model.params.items() if not path.startswith("head")}
    body = model.replace(config=dataclasses.replace(model.config, head=None, head_bias=False), params=params)
    hidden = body(token_ids)
    assert hidden.dtype == "bfloat16" and logits.dtype == np.float32
    kernel = model.params["embed"]["token"].T if head == "tied" else model.params["head"]
    exact = np.asarray(hidden, np.float64) @ np.asarray(kernel, np.float64)
    exact += np.asarray(model.params.get("head_bias", 0.0), np.float64)
    np.testing.assert_allclose(logits, exact, atol=TOLERANCE * np.abs(exact).max(), rtol=0)
    np.testing.assert_allclose(
        np.asarray(jax.nn.log_softmax(logits)),
        scipy.special.log_softmax(exact, axis=-1),
        atol=TOLERANCE * np.abs(exact).max(),
        rtol=0,
    )


def test_scores_in_bfloat16_are_not_in_steps_of_bfloat16(tmp_path):
    """Of 8 bits: the logits that scores come from are hardly ever such numbers."""
    model = el.load_model("lenslet-2m", dtype="bfloat16")
    token_ids = np.asarray(model.tokenizer(["The cat sat on the mat and looked at the dog."])["input_ids"])
    logits = np.asarray(model(token_ids))
    assert (logits == logits.astype(jax.numpy.bfloat16).astype(np.float32)).mean() < 0.05
    (scores,) = score_continuations(model, ["The cat"], [" sat on the mat and looked at the dog."])
    assert (scores == scores.astype(jax.numpy.bfloat16).astype(np.float32)).mean() < 0.2
