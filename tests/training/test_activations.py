"""A site's activations as a stream: each is there once a pass, whatever the step that is asked for."""

import dataclasses
import lzma

import numpy as np
import pytest

import expertlens_jax as el
from expertlens_jax.errors import CorpusError, SelectionError
from expertlens_jax.training.activations import (
    ActivationStream,
    choose_rows,
    prepare_reading,
    read_texts,
    tokenize_pieces,
)

TEXTS = [
    "The cat sat on the mat and looked at the dog for a long while.",
    "A dog.",
    "They went by train to the coast, where the sea was calm.",
    "Nobody had seen the old piano since the winter.",
    "Bread and cheese.",
]


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def stream(model):
    tokens = tokenize_pieces(model.tokenizer, TEXTS, 8)
    return ActivationStream(prepare_reading(model, 1, "mlp.act"), tokens, batch=5, buffer=3, seed=0)


@pytest.mark.long
def test_a_pass_holds_each_activation_once_and_is_what_the_model_holds_there(model, stream):
    pieces = [np.asarray(ids) for ids in stream.tokens.ids]
    held = np.asarray(model.capture(pieces, sites="mlp.act")["mlp.act"])[1]
    wanted = np.concatenate([row[: len(ids)] for row, ids in zip(held, pieces, strict=True)])
    assert len(stream) == len(wanted) == sum(map(len, pieces))
    passes = 3
    steps = -(-passes * len(stream) // stream.batch)
    read = np.concatenate([stream.at(step) for step in range(steps)])
    nearest = np.array([np.abs(wanted - row).max(1).argmin() for row in read])
    np.testing.assert_allclose(read, wanted[nearest], atol=1e-5)
    counts = np.bincount(nearest, minlength=len(wanted))
    assert counts.min() >= passes - 1 and counts.max() <= passes + 1 and counts.sum() == steps * 5
    assert np.abs(np.diff(nearest)).mean() > 3  # shuffled, not read along


@pytest.mark.long
def test_a_batch_follows_from_seed_and_step_alone(model, stream):
    again = dataclasses.replace(stream)
    for step in (7, 0, 4):
        np.testing.assert_array_equal(again.at(step), stream.at(step))
    assert not np.array_equal(dataclasses.replace(stream, seed=1).at(0), stream.at(0))


def test_long_texts_are_cut_and_nothing_of_them_is_lost(model):
    pieces = tokenize_pieces(model.tokenizer, TEXTS, 6)
    whole = [np.asarray(model.tokenizer(text)["input_ids"]) for text in TEXTS]
    assert max(map(len, pieces.ids)) == 6 < max(map(len, whole))
    np.testing.assert_array_equal(np.concatenate(pieces.ids), np.concatenate(whole))
    assert len(tokenize_pieces(model.tokenizer, ["", "a"], 6).ids) == 1  # nothing to read


def test_tokens_that_the_tokenizer_adds_are_not_streamed():
    import families

    tokenizer = families.tokenizer()
    pieces = tokenize_pieces(tokenizer, ["ba be bi bo bu da"], 5)
    assert [list(ids) for ids in pieces.ids] == [[2, 40, 41, 42, 3], [2, 43, 44, 45, 3]]
    assert [list(own) for own in pieces.in_pool] == [[False, True, True, True, False]] * 2
    with pytest.raises(CorpusError, match="context=2 has no room beside the 2 tokens that the tokenizer adds"):
        tokenize_pieces(tokenizer, ["ba"], 2)


def test_layers_above_are_not_run_and_change_nothing(model, stream):
    reader = stream.reader
    assert reader.network.config.num_layers == 2 and reader.params["layers"]["mlp"]["up"]["kernel"].shape[0] == 2
    alone = prepare_reading(model, 3, "mlp.act").read(choose_rows(stream.tokens, [0]))
    held = np.asarray(model.capture([stream.tokens.ids[0]], sites="mlp.act")["mlp.act"])[3, 0]
    np.testing.assert_allclose(alone, held, atol=1e-5)


def test_texts_come_from_lists_concepts_and_files(tmp_path):
    concepts = el.load_concepts("facts")
    assert read_texts(concepts) == list(concepts.sentences)
    assert read_texts(tuple(TEXTS)) == TEXTS
    (tmp_path / "text.txt").write_text("one\n\ntwo\n")
    (tmp_path / "text.xz").write_bytes(lzma.compress(b"three\n"))
    assert read_texts(str(tmp_path / "text.txt")) == ["one", "two"]
    assert read_texts(tmp_path / "text.xz") == ["three"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "no texts were given; wanted a list of strings, concepts, or a file"),
        (["a", 3], "3, a int, was given; wanted a list of strings"),
        (7, "a int was given for texts; wanted a list of strings, or a file"),
        ("nowhere.txt", "there is no text file nowhere.txt"),
    ],
)
def test_texts_that_cannot_be_are_explained(texts, message):
    with pytest.raises(CorpusError, match=message):
        read_texts(texts)


def test_an_empty_file_is_explained(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(CorpusError, match="empty.txt holds no text"):
        read_texts(tmp_path / "empty.txt")


@pytest.mark.parametrize(
    ("layer", "site", "message"),
    [
        (4, "resid", "layer=4 was given; lenslet-2m has layers 0 to 3"),
        (-1, "resid", "layer=-1 was given; lenslet-2m has layers 0 to 3"),
        (1.0, "resid", "layer=1.0 was given"),
        (True, "resid", "layer=True was given"),
        (1, "mlp.acts", "the site 'mlp.acts' is to be read; lenslet-2m has .* Did you mean mlp.act"),
        (1, "mlp.gate", "the site 'mlp.gate' is to be read; lenslet-2m has"),
        (1, "attn.head", "units of the site attn.head can't be read: .* Use channels of attn.z"),
        (1, "sae", "units of the site sae can't be read"),
    ],
)
def test_places_that_are_not_there_are_explained(model, layer, site, message):
    with pytest.raises(SelectionError, match=message):
        prepare_reading(model, layer, site)


def test_a_model_whose_layers_are_streamed_is_refused(tmp_path):
    streamed = el.load_model("lenslet-2m", offload="host")
    with pytest.raises(SelectionError, match=r"reading activations .* needs all layers .* Load it without offload="):
        el.training.train_sae(streamed, TEXTS, tmp_path / "sae", layer=1)
