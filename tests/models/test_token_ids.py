"""Token ids that a model has no embedding for are refused wherever ids come in; what padding holds is harmless."""

import families
import numpy as np
import pytest
import tokenizers
import torch
import transformers

import expertlens_jax as el
from expertlens_jax.analysis.similarity.embeddings import (
    embedding_responses,
    input_embeddings,
    sentence_embeddings,
    word_embeddings,
)
from expertlens_jax.errors import CorpusError, ExpertLensWarning, TokenizationError
from expertlens_jax.models.scoring import score_continuations, score_words
from expertlens_jax.models.tokens import tokenize
from expertlens_jax.training.corpus import tokenize_file

GPT2 = next(case for case in families.CASES if case.name == "gpt2")
BEYOND = r"has no embedding for; the first, number 0 \('.*w7.*'\), has 87, the token 'w7'\..* of .* has 83, 0 to 82"
REMEDY = r"resize_token_embeddings\(len\(tokenizer\)\)"


def extended_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """The tests' tokenizer with words added that no embedding was made for; the model's table has a few spare rows."""
    tokenizer = families.tokenizer()
    tokenizer.add_tokens([f"w{i}" for i in range(30)])
    tokenizer.eos_token = "[SEP]"
    return tokenizer


@pytest.fixture(scope="module")
def reference():
    return families.make_hf_model(GPT2)


@pytest.fixture(scope="module")
def model(reference, tmp_path_factory):
    directory = tmp_path_factory.mktemp("extended")
    reference.save_pretrained(directory)
    tokenizer = extended_tokenizer()
    assert tokenizer.convert_tokens_to_ids("w7") == 87
    tokenizer.save_pretrained(directory)
    return el.load_model(directory)


SENTENCES = ["a w7 b c", "b c w9 d", "e f c", "h i j", "k j w29 m", "n o j"]


def test_ids_beyond_the_embedding_are_refused_before_anything_is_recorded(model, tmp_path):
    """JAX would read the table's last row for each, and give these sentences the same responses."""
    (tmp_path / "c.tsv").write_text(
        "concept\tsentence\n" + "".join(f"{'cj'[i // 3]}\t{sentence}\n" for i, sentence in enumerate(SENTENCES))
    )
    concepts = el.load_concepts(tmp_path / "c.tsv", minimum_sentences=2)
    for record in (
        lambda: el.record_responses(model, SENTENCES),
        lambda: el.find_experts(model, concepts, workdir=tmp_path / "run"),
        lambda: embedding_responses(model, SENTENCES),
        lambda: sentence_embeddings(model, SENTENCES),
    ):
        with pytest.raises(TokenizationError, match=f"3 of 6 rows of tokens .*{BEYOND}.*{REMEDY}"):
            record()
    assert not (tmp_path / "run").exists()


def test_ids_beyond_the_embedding_are_refused_where_only_a_word_s_tokens_are_pooled(model, tmp_path):
    (tmp_path / "c.tsv").write_text("concept\tsentence\na\ta w7 b\na\tw9 a\nb\tb c\nb\td b\n")
    concepts = el.load_concepts(tmp_path / "c.tsv", minimum_sentences=2)
    for pool_over in ("concept", "others"):
        with pytest.raises(TokenizationError, match=f"2 of 4 rows of tokens .*{BEYOND}"):
            el.find_experts(model, concepts, workdir=tmp_path / pool_over, pool_over=pool_over, exclude_mentions=False)


def test_ids_beyond_the_embedding_are_refused_by_all_that_reads_words_and_texts(model):
    for read in (
        lambda: input_embeddings(model, ["w7", "a"]),
        lambda: word_embeddings(model, ["w7", "a"]),
        lambda: score_continuations(model, ["a w7", "b"], [" c", " d"]),
        lambda: score_words(model, ["a w7"], ["c"]),
        lambda: el.generate(model, ["a w7", "b"]),
    ):
        with pytest.raises(TokenizationError, match=BEYOND):
            read()


@pytest.mark.parametrize("call", ["__call__", "respond"])
def test_ids_beyond_the_embedding_are_refused_by_the_model_itself(model, call):
    run = getattr(model, call)
    with pytest.raises(TokenizationError, match=rf"1 of 2 rows .*number 1, has 87, the token 'w7'.*{REMEDY}"):
        run([[4, 5, 6], [4, 87, 5]])
    with pytest.raises(TokenizationError, match=r"number 0, has -1\. Token ids run from -1 to 5"):
        run(np.array([[-1, 5]]))
    for huge in (np.array([[2**40, 5]]), np.array([[2**63, 5]], np.uint64)):
        with pytest.raises(TokenizationError, match="has no embedding for"):
            run(huge)


def test_the_last_row_of_the_embedding_is_still_a_token(model, reference):
    ids = np.array([[4, 82, 0]])
    with torch.no_grad():
        theirs = reference(torch.tensor(ids)).logits.numpy()
    np.testing.assert_allclose(model(ids), theirs, atol=1e-4)


@pytest.mark.parametrize("padding", [83, 10**6, -1, -100, -(2**40)])
def test_what_padding_holds_is_harmless(model, padding):
    """A [PAD] that was added beyond the table, or the -100 of a loss: the same to the last bit as any other."""
    ids, mask = np.array([[4, 5, 6, 7], [8, 9, padding, padding]]), np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    usual = np.where(mask, ids, 0)
    np.testing.assert_array_equal(model(ids, mask), model(usual, mask))
    np.testing.assert_array_equal(model.respond(ids, mask), model.respond(usual, mask))
    assert np.isfinite(model.respond(ids, mask)).all()


def test_a_pad_token_beyond_the_embedding_is_harmless_wherever_rows_are_filled_up(model):
    tokenizer = extended_tokenizer()
    tokenizer.pad_token = "w29"
    assert tokenizer.pad_token_id == 109
    padded = model.replace(tokenizer=tokenizer)
    sentences = ["a b c", "d", "e f g h i j k l m n"]
    np.testing.assert_array_equal(
        el.record_responses(padded, sentences).values, el.record_responses(model, sentences).values
    )
    for ours, theirs in zip(
        score_continuations(padded, sentences, [" x"] * 3),
        score_continuations(model, sentences, [" x"] * 3),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


# Rows of any lengths


def test_rows_of_different_lengths_are_padded_by_the_model(model, reference):
    """As a tokenizer gives them without a pad token, with its mask or without."""
    encoded = model.tokenizer(["a", "b c d", "e f"])
    ours = np.asarray(model(encoded["input_ids"]))
    assert ours.shape == (3, 5, 83)
    np.testing.assert_array_equal(model(encoded["input_ids"], encoded["attention_mask"]), ours)
    for row, ids in zip(ours, encoded["input_ids"], strict=True):
        with torch.no_grad():
            theirs = reference(torch.tensor([ids])).logits[0].numpy()
        np.testing.assert_allclose(row[: len(ids)], theirs, atol=1e-4)
    responses = np.asarray(model.respond(encoded["input_ids"]))
    for row, ids in zip(responses, encoded["input_ids"], strict=True):
        np.testing.assert_allclose(row, model.respond([ids])[0], atol=1e-5)
    pooled = model.respond([[4, 5, 6], [7, 8]], pool_mask=[[0, 1, 0], [0, 1]], pooling="mean")
    np.testing.assert_allclose(pooled[1], model.respond([[7, 8]], pool_mask=[[0, 1]])[0], atol=1e-5)


def test_padding_never_enters_the_pool_even_if_it_is_asked_for(model):
    ids, mask = np.array([[4, 5, 0, 0]]), np.array([[1, 1, 0, 0]])
    np.testing.assert_array_equal(model.respond(ids, mask, np.ones((1, 4))), model.respond(ids, mask))


@pytest.mark.parametrize(
    "ids, mask, message",
    [
        (np.array([[4.0, 5.0]]), None, r"should be integers; float64 was given, such as .*4\.0"),
        (np.array([[True, False]]), None, "should be integers; bool was given"),
        ([["a", "b"]], None, "should be integers; <U1 was given"),
        ([[4, 5], [6.5]], None, "should be integers; float64 was given"),
        ([4, [5, 6]], None, r"rows of shapes \[\], \[2\] .* each row should be \[tokens\]"),
        ([[[4]], [5, 6]], None, "each row should be"),
        ([4, 5], None, r"shape \[2\] and the mask \[2\]; both should be \[batch, tokens\]"),
        ([[4, 5], [6]], np.ones((2, 3)), r"shape \[2, 2\] and the mask \[2, 3\]"),
        ([[4, 5], [6]], [[1, 1, 1], [1]], r"the mask \[2, 3\]"),
        ({"input_ids": [[4]], "attention_mask": [[1]]}, None, "a mapping with input_ids, attention_mask was given"),
    ],
)
def test_what_is_no_rows_of_ids_is_refused(model, ids, mask, message):
    with pytest.raises(TokenizationError, match=message):
        model(ids, mask)
    with pytest.raises(TokenizationError, match=message):
        model.respond(ids, mask)


# A start that is written and added


def start_adding(tokenizer: transformers.PreTrainedTokenizerFast) -> transformers.PreTrainedTokenizerFast:
    tokenizer.bos_token = "[CLS]"
    return tokenizer


def test_sentences_with_the_start_that_the_tokenizer_adds_are_told(model):
    model = model.replace(tokenizer=start_adding(extended_tokenizer()))
    begins = r"1 of 2 texts have a BOS of their own .* number 1, begins with '\[CLS\]': '\[CLS\] c d'\. Take it off"
    with pytest.warns(ExpertLensWarning, match=begins + " the sentences"):
        responses = el.record_responses(model, ["a b", "[CLS] c d"])
    with pytest.warns(ExpertLensWarning, match=r"have a EOS of their own .*ends with '\[SEP\]'"):
        tokenize(model.tokenizer, ["a b [SEP]"], max_tokens=40)
    with pytest.warns(
        ExpertLensWarning, match=r"number 0, begins with '\[CLS\]': '\[CLS\] a b'\. Take it off the prompts"
    ):
        score_continuations(model, ["[CLS] a"], [" b"])
    own = model.tokenizer("[CLS] c d")["input_ids"]
    alone = model.respond([own], pool_mask=[[0, 1, 1, 1, 0]])
    np.testing.assert_allclose(responses.values[1], alone[0], atol=1e-5)


def test_a_start_within_a_sentence_is_no_second_one(model):
    model = model.replace(tokenizer=start_adding(extended_tokenizer()))
    tokenize(model.tokenizer, ["a [CLS] b", "a [SEP] b"], max_tokens=40)  # not told


def test_a_written_start_that_is_pooled_over_is_told():
    """The tokenizer adds none, so the first token is the sentence's own, and a unit's response may be that to BOS."""
    tokenizer = start_adding(extended_tokenizer())
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing("$A")
    with pytest.warns(ExpertLensWarning, match=r"1 of 2 sentences begin with BOS, '\[CLS\]'.*pooled over.*number 1"):
        tokens = tokenize(tokenizer, ["a b", "[CLS] a b"], max_tokens=40)
    assert tokens.in_pool[1].all() and tokens.ids[1].tolist() == [2, 4, 5]


# Reading a corpus


def test_a_tokenizer_whose_ids_have_holes_cannot_make_a_corpus(tmp_path):
    """A new model has as many rows as the tokenizer has tokens; ids beyond would wrap or read another's row."""
    (tmp_path / "text.txt").write_text("a b\n")
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<u>": 0, "a": 1, "b": 70_000}, unk_token="<u>"))
    holed = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<u>")
    with pytest.raises(CorpusError, match="the tokenizer has 3 tokens with ids up to 70000"):
        tokenize_file(holed, tmp_path / "text.txt")
    endless = transformers.PreTrainedTokenizerFast(tokenizer_object=families.tokenizer().backend_tokenizer)
    with pytest.raises(CorpusError, match="has no end-of-text token"):
        tokenize_file(endless, tmp_path / "text.txt")
