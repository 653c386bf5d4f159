"""The whole path on a real trained model: parity with PyTorch, and what an independent prototype measured.

The prototype's protocol: no exclusion of mentions, all negatives weighted to 2.5 per positive.
"""

import hooks
import minilm
import numpy as np
import pytest
import transformers

import expertlens_jax as el

pytestmark = pytest.mark.xdist_group("minilm")


@pytest.fixture(scope="module")
def model():
    return el.load_model(minilm.directory())


@pytest.fixture(scope="module")
def facts():
    return el.load_concepts("facts")


@pytest.fixture(scope="module")
def expertise(model, facts):
    responses = el.record_responses(model, facts.sentences)
    return el.measure_expertise(responses, facts, negatives_per_positive=2.5, exclude_mentions=False)


def test_hidden_states_and_responses_match_pytorch(model, facts):
    reference = transformers.AutoModel.from_pretrained(minilm.directory(), attn_implementation="eager").eval()
    sentences = [facts.sentences[i] for i in range(0, 7040, 440)]
    encoded = model.tokenizer(
        sentences, padding=True, return_special_tokens_mask=True, return_tensors="np", padding_side="left"
    )
    ids, mask = encoded["input_ids"], encoded["attention_mask"].astype(bool)
    pool_mask = ~encoded["special_tokens_mask"].astype(bool)
    theirs = hooks.run(reference, ids, mask)
    np.testing.assert_allclose(np.asarray(model(ids, mask))[mask], theirs[mask], atol=1e-4, rtol=0)
    responses = el.record_responses(model, sentences)
    hooked = hooks.pooled_responses(reference, model.units, ids, mask, pool_mask, "max")
    np.testing.assert_allclose(responses.values, hooked, atol=1e-4, rtol=0)


def test_units_are_those_of_the_reference(model):
    assert len(model.units) == 20_736


def test_number_of_experts_is_the_reference(expertise):
    experts = el.select_experts(expertise, threshold=0.5)
    assert np.median(experts.sum("unit")) == pytest.approx(398, rel=0.01)
    experts = el.select_experts(expertise, threshold=0.6)
    assert np.median(experts.sum("unit")) == pytest.approx(136, abs=2)


@pytest.mark.parametrize(
    ("threshold", "ratings", "reference"),
    [(0.5, "wordsim353", 0.720), (0.6, "wordsim353", 0.822), (0.5, "simlex999", 0.316), (0.6, "simlex999", 0.453)],
)
def test_alignment_of_overlap_is_the_reference(expertise, threshold, ratings, reference):
    overlap = el.jaccard(el.select_experts(expertise, threshold=threshold))
    result = el.align(overlap, el.load_ratings(ratings), resamples=10, permutations=10)
    assert result.spearman == pytest.approx(reference, abs=0.005)
    assert result.pairs == {"wordsim353": 29, "simlex999": 72}[ratings]


def test_alignment_of_centred_cosine_is_the_reference(expertise):
    result = el.align(el.cosine(expertise), el.load_ratings("wordsim353"), resamples=10, permutations=10)
    assert result.spearman == pytest.approx(0.634, abs=0.005)


def test_a_concept_named_expert_knows_its_concept(expertise):
    """The best unit for "cat" tells cat sentences from others far better than chance, 0.286."""
    best = float(expertise["average_precision"].sel(concept="cat").max())
    assert best > 0.8
