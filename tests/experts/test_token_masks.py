"""Which tokens are a word's: against decoded text, for byte-level BPE and WordPiece; and the experts found by them."""

import dataclasses
import json

import minilm
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import expertlens_jax as el
from expertlens_jax.data.words import find_mentions, split_words, word_forms
from expertlens_jax.errors import ConceptDataError, RunDirectoryError, SelectionError, TokenizationError
from expertlens_jax.experts.responses import prepare_recording
from expertlens_jax.experts.token_masks import pool_over_words
from expertlens_jax.models.tokens import tokenize

NAMES = ("animal", "hummingbird", "cheese", "mother", "bicycle", "foot", "church", "violin")


@pytest.fixture(scope="module")
def lenslet():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module", params=["byte-level BPE", "WordPiece"])
def model(request, lenslet):
    return lenslet if request.param == "byte-level BPE" else el.load_model(minilm.directory())


def pool(model, concepts, pool_over, **options):
    return pool_over_words(model.tokenizer, concepts, pool_over, **{"max_tokens": model.config.max_tokens} | options)


def made(*sentences, concepts=("cat", "dog", "ice cream"), of=None):
    """A dataset; `of` says which concepts each sentence is of, by number."""
    labels = np.zeros((len(concepts), len(sentences)), bool)
    for column, rows in enumerate(of or [[0]] * len(sentences)):
        labels[list(rows), column] = True
    pooled = np.ones(len(sentences), bool)
    return el.ConceptDataset("made", tuple(sentences), tuple(concepts), ("",) * len(concepts), labels, pooled)


def runs(ids, mask, tokenizer):
    """The text of each run of tokens that the mask holds."""
    starts = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int)])) == 1)
    ends = np.flatnonzero(np.diff(np.concatenate([mask.astype(int), [0]])) == -1) + 1
    return [tokenizer.decode(ids[start:end]) for start, end in zip(starts, ends, strict=True)]


@pytest.mark.parametrize("sentences", ["facts", "stories"])
def test_decoded_tokens_are_the_word_and_all_else_without_it(model, sentences):
    concepts = el.load_concepts(sentences)
    concepts = concepts.subset(NAMES)
    own, others = pool(model, concepts, "concept"), pool(model, concepts, "others")
    every = tokenize(model.tokenizer, concepts.sentences, max_tokens=model.config.max_tokens)
    several_tokens = 0
    for column, ids in enumerate(every.ids):
        np.testing.assert_array_equal(own.ids[column], ids)
        np.testing.assert_array_equal(own.in_pool[column] | others.in_pool[column], every.in_pool[column])
        assert not (own.in_pool[column] & others.in_pool[column]).any()
        (row,) = np.flatnonzero(concepts.labels[:, column])
        concept = concepts.concepts[row]
        found = runs(ids, own.in_pool[column], model.tokenizer)
        assert found and {split_words(text) for text in found} <= word_forms(concept), (found, concept)
        assert not find_mentions([concept], runs(ids, others.in_pool[column], model.tokenizer)).any()
        several_tokens += own.in_pool[column].sum() > len(found)
    assert several_tokens or model.tokenizer.cls_token  # WordPiece knows these words whole


def held(model, sentence, concepts=("cat", "dog", "ice cream"), of=(0,), **options):
    """What is held of one sentence by its words and by the others."""
    dataset = made(sentence, concepts=concepts, of=[of])
    tokens = [pool(model, dataset, pool_over, **options) for pool_over in ("concept", "others")]
    return [[text.strip() for text in runs(each.ids[0], each.in_pool[0], model.tokenizer)] for each in tokens]


def test_words_in_every_guise(model):
    lower = str.lower
    own, others = held(model, "Cats chase a cat into the category of catfish.")
    assert list(map(lower, own)) == ["cats", "cat"]
    assert list(map(lower, others)) == ["chase a", "into the category of catfish."]
    own, others = held(model, "The dog ate ice-cream, and more Ice Cream, said the cat's dogs", of=(1, 2))
    assert [split_words(text) for text in own] == [("dog",), ("ice", "cream"), ("ice", "cream"), ("dogs",)]
    assert not any(word in " ".join(others).lower() for word in ("dog", "ice", "cream"))
    assert "cat" in " ".join(others)
    # Characters of several bytes, and of several tokens, before the word: offsets count characters.
    own, others = held(model, "Żółw i 🐢🐢 see naïve “cats” — cat\N{RIGHT SINGLE QUOTATION MARK}s")
    assert own == ["cats", "cat"]


def test_the_plain_mask_is_what_it_was(model):
    plain = tokenize(model.tokenizer, ["A cat sat."], max_tokens=64)
    with_offsets = tokenize(model.tokenizer, ["A cat sat."], max_tokens=64, offsets=True)
    np.testing.assert_array_equal(plain.in_pool[0], with_offsets.in_pool[0])
    assert plain.offsets is None and with_offsets.offsets[0].shape == (len(plain.ids[0]), 2)


@pytest.mark.parametrize("pool_over", ["concept", "others"])
def test_sentences_that_cannot_be_pooled_so_are_named(model, pool_over):
    fine = "A cat and a dog."
    with pytest.raises(ConceptDataError) as refused:
        pool(model, made(fine, "A catfish swam.", "A kitten."), pool_over)
    assert f"pool_over='{pool_over}' can't be met by 2 of 3 sentences of 'made'" in str(refused.value)
    assert "the first, number 1, lacks the word of its concept 'cat': 'A catfish swam.'" in str(refused.value)
    with pytest.raises(ConceptDataError, match="number 0, lacks the word of its concept 'ice cream': 'A cat and a"):
        pool(model, made(fine, of=[(0, 2)]), pool_over)  # of two concepts, and holds one's word
    with pytest.raises(ConceptDataError, match="number 0, lacks the word of its concept 'cat' within the model's con"):
        pool(model, made("It is said that a cat sat"), pool_over, max_tokens=5, truncate=True)
    with pytest.raises(TokenizationError, match="longer than the model's context of 5 tokens"):
        pool(model, made("It is said that a cat sat"), pool_over, max_tokens=5)


def test_nothing_but_the_word_is_refused_where_the_others_are_wanted(model):
    lonely = made("A cat.", "cats dog", of=[(0,), (0, 1)])
    assert pool(model, lonely, "concept").in_pool[1].sum() >= 2
    with pytest.raises(
        ConceptDataError, match="1 of 2.*number 1, holds no token but those of its concept 'cat' and 'd"
    ):
        pool(model, lonely, "others")


def test_a_sentence_of_no_concept_is_all_others(model):
    dataset = made("A cat.", "A stone.", of=[(0,), ()])
    others = pool(model, dataset, "others")
    every = tokenize(model.tokenizer, dataset.sentences, max_tokens=64)
    np.testing.assert_array_equal(others.in_pool[1], every.in_pool[1])
    with pytest.raises(ConceptDataError, match="number 1, is of no concept, and so has no word of its own: 'A stone.'"):
        pool(model, dataset, "concept")


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(TokenizationError, match="Slow doesn't tell where in a text its tokens stand; only a fast"):
        tokenize(Slow(), ["a"], max_tokens=5, offsets=True)


SITES = ("mlp.down",)


@pytest.fixture(scope="module")
def concepts():
    return el.load_concepts("stories").subset(["cat", "hummingbird", "bread"])


def masks_by_hand(tokenizer, concepts, pool_over):
    """Each sentence's mask [tokens], from where each token ends in the decoded text (of byte-level BPE, the same)."""
    masks = []
    for column, sentence in enumerate(concepts.sentences):
        ids = tokenizer(sentence)["input_ids"]
        ends = np.array([len(tokenizer.decode(ids[: i + 1])) for i in range(len(ids))])
        begins = np.array([0, *ends[:-1]])
        (row,) = np.flatnonzero(concepts.labels[:, column])
        padded = f" {sentence.lower()} "
        mask = np.zeros(len(ids), bool)
        for word in (" ".join(form) for form in word_forms(concepts.concepts[row])):
            for start in range(1, len(padded) - len(word)):
                alone = not padded[start - 1].isalnum() and not padded[start + len(word)].isalnum()
                if alone and padded.startswith(word, start):
                    mask |= (ends > start - 1) & (begins < start - 1 + len(word))
        masks.append(mask if pool_over == "concept" else ~mask)
    return masks


@pytest.mark.parametrize("pool_over", ["concept", "others"])
def test_experts_are_those_of_masks_made_by_hand(lenslet, concepts, tmp_path, pool_over):
    found = el.find_experts(
        lenslet, concepts, tmp_path / "run", sites=SITES, pool_over=pool_over, halves=False, permutations=0
    )
    recording = prepare_recording(lenslet, concepts.sentences, el.Recording(SITES))
    masks = tuple(masks_by_hand(lenslet.tokenizer, concepts, pool_over))
    recording = dataclasses.replace(recording, tokens=dataclasses.replace(recording.tokens, in_pool=masks))
    responses = np.empty((len(concepts.sentences), len(recording.units)), np.float32)
    for batch in recording.batches():
        responses[batch.rows] = np.asarray(recording.respond(batch))[: len(batch.rows)]
    # One sentence by itself says the same, but for rounding.
    ids = np.array([lenslet.tokenizer(concepts.sentences[7])["input_ids"]])
    alone = np.asarray(lenslet.respond(ids, pool_mask=masks[7][None]))[
        0, (lenslet.units["site"] == SITES[0]).to_numpy()
    ]
    np.testing.assert_allclose(responses[7], alone, atol=2e-5)
    weights = el.contrast_concepts(concepts).weights()
    for row, got in enumerate(found["average_precision"].values):
        want = [
            average_precision_score(concepts.labels[row], values, sample_weight=weights[row]) for values in responses.T
        ]
        np.testing.assert_allclose(got, want, atol=2e-6)


def test_the_choice_is_part_of_a_runs_identity(lenslet, concepts, tmp_path):
    options = dict(sites=SITES, halves=False, permutations=0)
    whole = el.find_experts(lenslet, concepts, tmp_path / "all", **options)
    word = el.find_experts(lenslet, concepts, tmp_path / "word", pool_over="concept", **options)
    assert np.abs(whole["average_precision"].values - word["average_precision"].values).max() > 0.1
    assert "pool_over" not in json.loads((tmp_path / "all" / "config.json").read_text())  # as before there was one
    assert "pool_over" not in whole.attrs and word.attrs["pool_over"] == "concept"
    with pytest.raises(RunDirectoryError, match="pool_over: None there, 'others' asked for"):
        el.find_experts(lenslet, concepts, tmp_path / "all", pool_over="others", **options)
    with pytest.raises(RunDirectoryError, match="pool_over: 'concept' there, None asked for"):
        el.find_experts(lenslet, concepts, tmp_path / "word", **options)


def test_it_is_refused_before_the_model_runs(lenslet, concepts, tmp_path, monkeypatch):
    monkeypatch.setattr("expertlens_jax.experts.pipeline.record", None)  # would be called
    dataset = made("A lion.", "A dog sat.", of=[(0,), (1,)], concepts=("cat", "dog"))
    with pytest.raises(ConceptDataError, match="lacks the word of its concept 'cat': 'A lion.'"):
        el.find_experts(lenslet, dataset, tmp_path / "run", pool_over="concept")
    with pytest.raises(SelectionError, match="pool_over 'words' was given; wanted one of all, concept, others"):
        el.find_experts(lenslet, concepts, tmp_path / "run", pool_over="words")
    assert not (tmp_path / "run").exists()
