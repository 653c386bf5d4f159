"""Word vectors from the files that people have, and the experts among the channels of an input embedding."""

import sys

import minilm
import numpy as np
import pytest
import torch
import transformers
from sklearn.metrics.pairwise import cosine_similarity

import expertlens_jax as el
from expertlens_jax.analysis.similarity.embeddings import concept_embeddings, embedding_responses, sentence_embeddings
from expertlens_jax.analysis.similarity.word_vectors import check_word_vectors, word_vector_similarity
from expertlens_jax.errors import ExpertLensError
from expertlens_jax.models.packaged import packaged_directory

gensim = pytest.importorskip("gensim.models", reason="there is no wheel of gensim for Python 3.14")


@pytest.fixture(scope="module")
def concepts():
    labels = np.eye(4, dtype=bool)
    sentences = ("a cat sat", "the dog ran", "ice cream melts", "zebra stripes")
    return el.ConceptDataset(
        "made", sentences, ("cat", "dog", "ice cream", "zebra"), ("a", "a", "b", "a"), labels, np.ones(4, bool)
    )


@pytest.fixture(scope="module")
def vectors():
    made = gensim.KeyedVectors(5)
    made.add_vectors(["cat", "dog", "ice", "cream"], np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32))
    return made


@pytest.mark.parametrize("name", ["v.txt", "v.vec", "v.bin", "v.kv"])
def test_every_format_gives_the_cosines(concepts, vectors, tmp_path, name):
    path = tmp_path / name
    match path.suffix:
        case ".kv":
            vectors.save(str(path))
        case ".vec":
            vectors.save_word2vec_format(str(path), write_header=False)  # GloVe's
        case suffix:
            vectors.save_word2vec_format(str(path), binary=suffix == ".bin")
    similarity = word_vector_similarity(path, concepts)
    assert similarity["concept"].values.tolist() == ["cat", "dog", "ice cream"]  # zebra has none
    rows = [vectors["cat"], vectors["dog"], (vectors["ice"] + vectors["cream"]) / 2]
    np.testing.assert_allclose(similarity, cosine_similarity(rows), atol=1e-5)


def test_files_without_vectors_are_refused(concepts, vectors, tmp_path):
    with pytest.raises(ExpertLensError, match="there is no file of word vectors"):
        word_vector_similarity(tmp_path / "none.txt", concepts)
    (tmp_path / "text.txt").write_text("This is a text.\nIt has no vectors.\n")
    with pytest.raises(ExpertLensError, match="holds no word vectors that gensim can read"):
        word_vector_similarity(tmp_path / "text.txt", concepts)
    vectors.save_word2vec_format(str(tmp_path / "few.txt"))
    with pytest.raises(ExpertLensError, match="has vectors for 1 of the 2 concepts"):
        word_vector_similarity(tmp_path / "few.txt", concepts.subset(["dog", "zebra"]))


def test_input_embeddings_are_pooled_like_any_unit(concepts):
    model = el.load_model("lenslet-2m")
    responses = embedding_responses(model, concepts.sentences)
    table = np.asarray(model.params["embed"]["token"], np.float32)
    want = [table[model.tokenizer(sentence)["input_ids"]].max(axis=0) for sentence in concepts.sentences]
    np.testing.assert_array_equal(responses.values, want)
    assert el.measure_expertise(responses, concepts).sizes == {"concept": 4, "unit": model.config.d_model}


def test_concept_embeddings_are_means_over_sentences_at_each_layer(concepts):
    model = el.load_model("lenslet-2m")
    by_layer = concept_embeddings(model, concepts)
    assert by_layer.shape == (model.config.num_layers, 4, model.config.d_model)
    resid = el.record_responses(model, [concepts.sentences[1]], sites=("resid",), pooling="mean")
    np.testing.assert_allclose(by_layer[:, 1].ravel(), resid.values[0], atol=1e-4)


def test_capitals_of_a_concept_may_be_missing_from_the_vectors(vectors, tmp_path):
    vectors.save(str(tmp_path / "v.kv"))
    labels = np.eye(2, dtype=bool)
    capital = el.ConceptDataset("made", ("a Cat", "a Dog"), ("Cat", "Dog"), ("", ""), labels, np.ones(2, bool))
    similarity = word_vector_similarity(tmp_path / "v.kv", capital)
    np.testing.assert_allclose(similarity, cosine_similarity([vectors["cat"], vectors["dog"]]), atol=1e-5)


def test_missing_files_and_a_missing_gensim_are_told_beforehand(vectors, tmp_path, monkeypatch):
    vectors.save(str(tmp_path / "v.kv"))
    check_word_vectors([tmp_path / "v.kv"])
    with pytest.raises(ExpertLensError, match="there is no file of word vectors .*none.txt"):
        check_word_vectors([tmp_path / "v.kv", tmp_path / "none.txt"])
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(ExpertLensError, match=r"read with gensim: pip install 'expertlens-jax\[vectors\]'"):
        check_word_vectors([tmp_path / "v.kv"])
    check_word_vectors(())


SENTENCES = ("A cat sat on the mat", "Dogs!", "It rained, and then it rained again for an hour or two.")


@pytest.mark.parametrize("name", ["Lenslet", "MiniLM"])
def test_the_last_token_is_where_pytorch_has_it(name):
    """Of a causal model, what the last block gives at the last token; of an encoder, before the SEP it adds."""
    if name == "MiniLM":
        directory, special = minilm.directory(), 1
        reference = transformers.AutoModel.from_pretrained(directory)
        block = reference.encoder.layer[-1]
    else:
        directory, special = packaged_directory("lenslet-2m", None), 0
        reference = transformers.AutoModel.from_pretrained(directory, dtype=torch.float32)
        block = reference.layers[-1]
    reference.eval()
    seen = []
    block.register_forward_hook(lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out))
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    with torch.no_grad():
        for sentence in SENTENCES:
            reference(torch.tensor([tokenizer(sentence)["input_ids"]]))
    want = np.stack([hidden[0, -1 - special].numpy() for hidden in seen])
    model = el.load_model(directory)
    np.testing.assert_allclose(sentence_embeddings(model, SENTENCES, pooling="last"), want, atol=1e-4)
    assert np.abs(sentence_embeddings(model, SENTENCES) - want).max() > 0.01
