"""Traces: what a unit says at a token, against PyTorch's hooks and, to the bit, against recorded responses."""

import html.parser

import families
import hooks
import numpy as np
import pandas as pd
import pytest
import tokenizers
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from launched import run_script
from sae_files import random_weights

import expertlens_jax as el
from expertlens_jax.errors import ExpertLensWarning, SelectionError, TokenizationError
from expertlens_jax.models.addresses import format_address, read_address
from expertlens_jax.models.sites import block_sites
from expertlens_jax.models.token_texts import text_of_token, texts_in_sentence

SENTENCES = ["a b c", "d", "b", "c a", "x y z " * 6]  # two lengths of batches: each compiles a program
NAMES = ["gpt2", "gpt_neox", "llama", "gemma2", "bert"]
"""Layer and RMS norms, before, after and on both sides; branches side by side; gates; grouped keys; windows; caps."""


def case_named(name):
    return next(case for case in families.CASES if case.name == name)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    made = {}

    def directory(name):
        if name not in made:
            made[name] = families.save(families.make_hf_model(case_named(name)), tmp_path_factory.mktemp(name))
        return made[name]

    return directory


@pytest.fixture(scope="module")
def model(directories):
    return el.load_model(directories("gpt2"))


@pytest.fixture(scope="module")
def all_units(directories):
    """Of a family: the model, the responses of every unit at every site of its blocks, and their traces."""
    made = {}

    def read(name):
        if name not in made:
            model = el.load_model(directories(name))
            recorded = el.record_responses(model, SENTENCES, sites=list(block_sites(model.config)))
            made[name] = model, recorded, el.trace(model, SENTENCES, recorded.units)
        return made[name]

    return read


def same_bits(ours, theirs):
    """Equal to the bit, but for the sign of zeros, of which a maximum may take any."""
    assert ours.dtype == theirs.dtype == np.float32
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_the_maximum_over_tokens_is_the_recorded_response_to_the_bit_at_every_site(all_units, name):
    model, recorded, traced = all_units(name)
    assert set(recorded.units["site"]) == set(block_sites(model.config))
    same_bits(traced.pooled("max"), recorded.values)
    pd.testing.assert_frame_equal(traced.units, recorded.units, check_categorical=False, check_dtype=False)


def test_a_few_units_of_many_sites_are_read_in_their_order_to_the_bit(all_units):
    model, recorded, _ = all_units("llama")
    some = recorded.units.sample(30, random_state=0)
    same_bits(el.trace(model, SENTENCES, some).pooled(), recorded.values[:, some.index])


@pytest.mark.parametrize("site", ["mlp.up", "attn.head", "resid"])
def test_a_site_recorded_by_itself_is_traced_by_itself_to_the_bit(all_units, site):
    model, _, _ = all_units("gpt2")
    recorded = el.record_responses(model, SENTENCES, sites=[site])
    same_bits(el.trace(model, SENTENCES, recorded.units).pooled(), recorded.values)


@pytest.mark.parametrize("name", NAMES)
def test_each_token_is_what_pytorch_has_there(all_units, directories, name):
    model, _, traced = all_units(name)
    reference = families.load_hf_model(case_named(name), directories(name), torch.float32)
    there = np.flatnonzero(traced.units["hf_module"] != "")
    units = traced.units.iloc[there]
    for row, sentence in enumerate(SENTENCES):
        ids = np.array([model.tokenizer(sentence)["input_ids"]])
        seen = {}

        def keep(address, activations, seen=seen, ids=ids):
            seen[address] = activations.detach().float().numpy().reshape(ids.shape[1], -1)

        with hooks.hooked(reference, list(units["hf_module"].unique()), keep):
            hooks.run(reference, ids, np.ones_like(ids))
        theirs = np.stack([seen[m][:, c] for m, c in zip(units["hf_module"], units["hf_channel"], strict=True)], 1)
        np.testing.assert_allclose(traced.activations[row][:, there], theirs, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"k": 7}, {"normalize": "layer_norm"}])
def test_features_of_autoencoders_are_traced_to_the_bit(model, options):
    saes = []
    for layer in (0, 2):
        weights = {name: tensor.numpy() for name, tensor in random_weights(layer).items()}
        saes.append(el.SAE(weights["W_enc"], weights["b_enc"], weights["b_dec"], layer=layer, site="resid", **options))
    carrying = model.with_sae(*saes)
    recorded = el.record_responses(carrying, SENTENCES, sites=("sae",))
    traced = el.trace(carrying, SENTENCES, recorded.units)
    same_bits(traced.pooled(), recorded.values)
    one = el.trace(carrying, SENTENCES, [(2, "sae", 11), (0, "sae", 3), (2, "sae", 4)])
    same_bits(one.pooled(), recorded.values[:, [50 + 11, 3, 50 + 4]])
    with pytest.raises(SelectionError, match=r"L1 sae 3 was given; .* has sae in layers 0, 2"):
        el.trace(carrying, SENTENCES, (1, "sae", 3))
    with pytest.raises(SelectionError, match="sae is recorded by itself"):
        el.trace(carrying, SENTENCES, [(0, "sae", 3), (0, "resid", 3)])
    with pytest.raises(SelectionError, match=r"L0 sae 3 was given, and .* carries no sparse autoencoder"):
        el.trace(model, SENTENCES, (0, "sae", 3))


def test_all_poolings_are_those_of_recording(model):
    traced = el.trace(model, SENTENCES, model.units)
    for pooling in ("max", "min", "mean", "last"):
        recorded = el.record_responses(model, SENTENCES, pooling=pooling)
        pooled = traced.pooled(pooling)
        np.testing.assert_allclose(pooled, recorded.values, rtol=1e-6, atol=1e-6)
        if pooling != "mean":
            same_bits(pooled, recorded.values)
    with pytest.raises(SelectionError, match="pooling 'median' was given; wanted one of max, mean, last"):
        el.trace(model, SENTENCES, "L0 mlp.up 1").pooled("median")


def test_steering_and_interventions_act_while_reading(model):
    unit = model.units[model.units["site"] == "mlp.up"].iloc[[3]]
    steering = el.steer_units(model, unit, shift=7.0)
    assert all((values == 7.0).all() for values in el.trace(model, SENTENCES, unit, steering=steering).activations)
    later = [(2, "resid", 0), (1, "attn.q", 2)]
    traced = el.trace(model, SENTENCES, later, steering=steering)
    responses = el.record_responses(model, SENTENCES, sites=["resid", "attn.q"], steering=steering)
    places = [list(map(tuple, responses.units[["layer", "site", "channel"]].values)).index(each) for each in later]
    same_bits(traced.pooled(), responses.values[:, places])
    halved = el.intervene("resid", lambda x, at: x / 2, layers=[2])
    after, before = (el.trace(model, SENTENCES, later, interventions=each).activations for each in ([halved], ()))
    for half, whole in zip(after, before, strict=True):
        np.testing.assert_allclose(half[:, 0], whole[:, 0] / 2, rtol=1e-6)
        np.testing.assert_array_equal(half[:, 1], whole[:, 1])


def test_the_size_of_a_batch_changes_rounding_only(model):
    units = model.units.sample(20, random_state=0)
    for ours, theirs in zip(
        el.trace(model, SENTENCES, units, tokens_per_batch=8).activations,
        el.trace(model, SENTENCES, units).activations,
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.long
@pytest.mark.process
def test_eight_devices_and_a_split_model_trace_as_one_does(model, directories, tmp_path):
    units = model.units.sample(20, random_state=0)
    script = f"""
import jax, numpy as np, pandas as pd, expertlens_jax as el
assert len(jax.devices()) == 8
units = {units[["layer", "site", "channel"]].values.tolist()!r}
for mesh in (None, el.make_mesh(model=2)):
    model = el.load_model({str(directories("gpt2"))!r}, mesh=mesh)
    traced = el.trace(model, {SENTENCES!r}, units)
    np.save({str(tmp_path)!r} + ("/eight.npy" if mesh is None else "/split.npy"), np.concatenate(traced.activations))
    if mesh is None:
        recorded = el.record_responses(model, {SENTENCES!r}).values[:, {units.index.tolist()!r}]
        assert (traced.pooled() == recorded).all()
"""
    run_script(script, optimised=True)
    one = np.concatenate(el.trace(model, SENTENCES, units).activations)
    for name in ("eight", "split"):
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), one, atol=2e-5)


# Tokens and their places.


def test_what_the_tokenizer_adds_is_there_and_marked(model):
    traced = el.trace(model, ["a [SEP] b"], "L0 mlp.up 1")
    assert traced.tokens == [["[CLS]", "a", " [SEP]", " b", "[SEP]"]]
    assert traced.in_pool[0].tolist() == [False, True, True, True, False]
    assert traced.spans[0].dtype == np.int32
    assert traced.spans[0].tolist() == [[0, 0], [0, 1], [2, 7], [8, 9], [0, 0]]
    assert traced.activations[0].shape == (5, 1)
    assert len(traced) == 1


def byte_level():
    inner = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            {letter: i for i, letter in enumerate(tokenizers.pre_tokenizers.ByteLevel.alphabet())}, []
        )
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner)


def word_piece():
    words = {word: i for i, word in enumerate(["[UNK]", "cat", "cafe", "##s", "##t", "the", "<", ">", "&", "un"])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordPiece(words, unk_token="[UNK]"))
    inner.normalizer = tokenizers.normalizers.BertNormalizer()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner)


def sentence_piece():
    letters = ["<unk>", "▁", *map(chr, range(32, 127)), "é"]
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram([(letter, -1.0) for letter in letters], unk_id=0))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    inner.decoder = tokenizers.decoders.Metaspace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner)


def read_text(tokenizer, sentence):
    encoded = tokenizer(sentence, return_offsets_mapping=True)
    ids, spans = np.array(encoded["input_ids"]), np.array(encoded["offset_mapping"]).reshape(-1, 2)
    return texts_in_sentence(tokenizer, sentence, ids, np.ones(len(ids), bool), spans)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1), st.data())
def test_tokens_put_together_read_as_the_sentence(text, data):
    sentence = text + data.draw(st.sampled_from(["", " ", "  x", " y z"]))
    for tokenizer in (byte_level(), sentence_piece()):
        assert "".join(read_text(tokenizer, sentence)).strip() == sentence.strip()


def test_tokens_are_readable_whatever_the_tokenizer_writes():
    assert read_text(word_piece(), "The CATS & <Cafés> Unt") == [
        "The",
        " CAT",
        "S",
        " &",
        " <",
        "Café",
        "s",
        ">",
        " Un",
        "t",
    ]
    parts = read_text(byte_level(), "é 😀x")
    assert parts == ["\\xc3", "\\xa9", " ", "\\xf0", "\\x9f", "\\x98", "\\x80", "x"]
    byte = byte_level()
    assert text_of_token(byte, byte.convert_tokens_to_ids("Ġ")) == " "
    assert text_of_token(sentence_piece(), 1) == " "
    assert text_of_token(byte, 10**6) == "<token 1000000>"


# Which units.


def test_addresses_are_read_in_every_form(model):
    wanted = (1, "mlp.up", 7)
    table = model.units.query("layer == 1 and site == 'mlp.up' and channel == 7")
    steering = el.steer_units(model, table)
    given = [
        wanted,
        [wanted],
        "L1 mlp.up 7",
        ["1 mlp.up 7"],
        "l1/mlp.up/7",
        table,
        table.iloc[0],
        steering.table,
        [list(wanted)],
    ]
    for units in given:
        found = el.trace(model, ["a b"], units).units
        assert found[["layer", "site", "channel"]].values.tolist() == [list(wanted)]
        assert found[["hf_module", "hf_channel"]].values.tolist() == table[["hf_module", "hf_channel"]].values.tolist()
    assert el.trace(model, ["a b"], table).units.index.tolist() == table.index.tolist()


@given(st.integers(0, 200), st.sampled_from(["resid", "resid.pre", "mlp.up", "attn.z", "sae"]), st.integers(0, 10**7))
def test_an_address_that_is_written_is_read_back(layer, site, channel):
    assert read_address(format_address((layer, site, channel))) == (layer, site, channel)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ((9, "mlp.up", 1), r"the unit L9 mlp.up 1 was given; gpt2\S* has mlp.up in layers 0 to 2\."),
        ((1, "mlp.upp", 1), r"L1 mlp.upp 1 was given; gpt2\S* has the sites resid.pre, .* Did you mean mlp.up\?"),
        ((1, "mlp.up", 96), r"L1 mlp.up 96 was given; in gpt2\S* mlp.up has the channels 0 to 95\."),
        ((1, "mlp.gate", 1), r"L1 mlp.gate 1 was given; gpt2\S* has the sites"),
        ([], r'no units were given; wanted rows of a table .*"L3 mlp.up 417"'),
        (417, r"417 was given for a unit; wanted rows of a table"),
        ("mlp.up 417", r"'mlp.up 417' was given for a unit; wanted"),
        ((1, "mlp.up", -1), r"\(1, 'mlp.up', -1\) was given for a unit"),
        ((1, "mlp.up", 2.5), r"\(1, 'mlp.up', 2.5\) was given for a unit"),
        (None, r"None was given for a unit"),
        (
            pd.DataFrame({"layer": [0], "unit": [3]}),
            r"a table without site, channel was given for units \(it has layer",
        ),
    ],
)
def test_what_is_no_unit_of_the_model_is_told(model, units, message):
    with pytest.raises(SelectionError, match=message):
        el.trace(model, ["a b"], units)


def test_units_of_another_model_are_told(model, directories):
    other = el.load_model(directories("gpt_neox"))
    table = other.units.query("site == 'mlp.up'").head(2)
    with pytest.raises(SelectionError, match=r"2 of 2 units are another model's: L0 mlp.up 0 is hf_module 'gpt_neox"):
        el.trace(model, ["a b"], table)
    sibling = model.replace(params=el.randomize_weights(model, seed=1).params, name="sibling")
    marked = model.units.head(3)
    marked.attrs.update(sibling.provenance.attributes())
    with pytest.warns(ExpertLensWarning, match=r"these units are of sibling and are read in gpt2\S*, .* \(weights: "):
        el.trace(model, ["a b"], marked)
    marked.attrs.update(model.provenance.attributes())
    el.trace(model, ["a b"], marked)


@pytest.mark.parametrize(
    ("sentences", "error", "message"),
    [
        ([], TokenizationError, "no sentences were given; give one or more"),
        ("a b", SelectionError, "a single string was given; wanted a sequence of sentences"),
        (["a", None], TokenizationError, "sentence 1 is a NoneType, None; wanted a string"),
        (["a", " "], TokenizationError, "1 of 2 sentences have no token of their own"),
        (["a " * 60], TokenizationError, "longer than the model's context of 40 tokens.*pass truncate=True"),
    ],
)
def test_sentences_that_cannot_be_read_are_told(model, sentences, error, message):
    with pytest.raises(error, match=message):
        el.trace(model, sentences, "L0 mlp.up 1")


def test_a_sentence_that_is_cut_is_traced_as_it_is_recorded(model):
    units = model.units.head(4)
    with_all = el.record_responses(model, ["a b " * 30], truncate=True).values[:, :4]
    same_bits(el.trace(model, ["a b " * 30], units, truncate=True).pooled(), with_all)


# As people see it.


class Cells(html.parser.HTMLParser):
    """Text and styles of a page, and a list of tags that aren't ours."""

    def __init__(self):
        super().__init__()
        self.text, self.tags, self.open = "", set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_html_escapes_the_sentences(model):
    nasty = "a <script>alert(1)</script> & \"b\" 'c' </span></div>"
    page = el.trace(model, [nasty], "L0 mlp.up 1")._repr_html_()
    cells = Cells()
    cells.feed(page)
    assert not cells.open and cells.tags <= {"div", "p", "b", "small", "ol", "li", "span"}
    assert nasty in cells.text


def test_html_colours_by_sign_and_strength(model):
    traced = el.trace(model, ["a b c d"], "L0 mlp.up 1")
    chosen = np.array([-9.0, 2.0, -1.0, 0.0, 0.5, 9.0], np.float32)[:, None]
    page = el.Trace(**{**vars(traced), "activations": [chosen]})._repr_html_()
    assert "rgba(230,126,0,0.65)" in page  # 2 of 2, whatever CLS and SEP say
    assert "rgba(0,114,178,0.33)" in page or "rgba(0,114,178,0.32)" in page
    assert "rgba(230,126,0,0.16)" in page
    assert page.count("not pooled") == 2


def test_a_character_of_several_tokens_is_shown_whole(model):
    sentence = "é 😀x"
    encoded = byte_level()(sentence, return_offsets_mapping=True)
    spans = np.array(encoded["offset_mapping"], np.int32)
    values = np.array([0.5, 1, 0, 3, -4, 0, 0, 1], np.float32)[:, None]
    own = np.ones(len(spans), bool)
    tokens = texts_in_sentence(byte_level(), sentence, np.array(encoded["input_ids"]), own, spans)
    units = model.units.head(1)
    traced = el.Trace([sentence], [tokens], [spans], [values], units, [own])
    cells = Cells()
    cells.feed(traced._repr_html_())
    assert sentence in cells.text and "\\x" not in cells.text
    assert 'title="3, -4, 0, 0"' in traced._repr_html_() and "rgba(0,114,178,0.65)" in traced._repr_html_()
    assert "é [😀 3]x" in repr(traced)
    assert "\x1b[0m" in traced.ansi() and "😀" in traced.ansi()


def test_a_long_trace_fits_a_screen(model):
    traced = el.trace(model, SENTENCES * 20, model.units.head(60))
    assert len(traced._repr_html_()) < 60_000
    assert len(repr(traced).splitlines()) < 60 and max(map(len, repr(traced).splitlines())) <= 120
    assert "55 more units and 90 more sentences" in repr(traced)
    assert "55 more units and 90 more sentences" in traced._repr_html_()


def test_a_terminal_sees_colours_and_no_orders_of_the_text(model, monkeypatch):
    traced = el.trace(model, ["a \x1b[2Jb\u202e c"], "L0 mlp.up 1")
    plain = repr(traced)
    assert "\x1b" not in plain and "L0 mlp.up 1" in plain
    coloured = traced.ansi()
    assert "\x1b[2J" not in coloured and "\u202e" not in coloured and "\x1b[38;2;0;0;0;48;2;" in coloured
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert coloured in repr(traced)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in repr(traced)
    with pytest.raises(SelectionError, match="unit=1 was given; the trace has units 0 to 0"):
        traced.ansi(1)
