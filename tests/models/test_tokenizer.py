"""The tokenizer that a directory's files describe, against the library whose file `tokenizer.json` is."""

import importlib.util
import json
import pathlib

import numpy as np
import pytest
import sentencepiece
import tokenizer_layouts
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_layouts import END, LAYOUTS, PROBES

from expertlens_jax.errors import ExpertLensWarning, TokenizationError
from expertlens_jax.models.tokenizer import read_end_ids, read_tokenizer
from expertlens_jax.models.tokens import padding_id, tokenize

NAMED = {layout.name: layout for layout in LAYOUTS}


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: layout.name)
def pair(request, tmp_path_factory):
    """What is read, and what the file is by itself."""
    directory = tmp_path_factory.mktemp(request.param.name)
    raw = tokenizer_layouts.write(request.param, directory)
    return read_tokenizer(directory), raw


def same(tokenizer, raw, text: str) -> None:
    """Ids, what was added, and where each token stands."""
    theirs = raw.encode(text)
    ours = tokenizer(text, return_special_tokens_mask=True, return_offsets_mapping=True)
    assert ours["input_ids"] == theirs.ids
    assert ours["special_tokens_mask"] == theirs.special_tokens_mask
    assert ours["offset_mapping"] == theirs.offsets


@pytest.mark.parametrize("text", PROBES)
def test_a_text_is_split_as_the_file_says(pair, text):
    same(*pair, text)


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_is_split_as_the_file_says(pair, text):
    same(*pair, text)


@settings(max_examples=30, deadline=None)
@given(text=st.text(alphabet="aAbé 0123'\n\t▁ĠsS</>|[]", max_size=40))
def test_any_text_of_awkward_characters_is_split_as_the_file_says(pair, text):
    same(*pair, text)


def test_a_batch_is_split_as_each_text_is(pair):
    tokenizer, raw = pair
    assert tokenizer(list(PROBES))["input_ids"] == [encoding.ids for encoding in raw.encode_batch(list(PROBES))]
    assert len(tokenizer) == raw.get_vocab_size()
    assert tokenizer.get_vocab() == raw.get_vocab()


def test_what_is_added_stays_out_of_the_pool_and_what_is_written_does_not(pair):
    """A special token in the sentence's own text is a token of the sentence."""
    tokenizer, raw = pair
    text = f"a {tokenizer.eos_token or tokenizer.sep_token} b"
    (in_pool,) = tokenize(tokenizer, [text], max_tokens=99).in_pool
    encoding = raw.encode(text)
    np.testing.assert_array_equal(in_pool, np.array(encoding.special_tokens_mask) == 0)
    own = [token for token, pooled in zip(encoding.tokens, in_pool, strict=True) if pooled]
    assert (tokenizer.eos_token or tokenizer.sep_token) in own


def test_saved_and_read_again_it_is_the_same(pair, tmp_path):
    tokenizer, raw = pair
    tokenizer.save_pretrained(tmp_path)
    again = read_tokenizer(tmp_path)
    for text in PROBES:
        same(again, raw, text)
    assert again.special_tokens_map == tokenizer.special_tokens_map


# Settings that the file can't hold


def test_special_tokens_come_from_the_settings_or_the_class(tmp_path):
    """GPT-2's own settings name none, and its end-of-text token is what it pads with."""
    tokenizer_layouts.write(NAMED["gpt2"], tmp_path)
    gpt2 = read_tokenizer(tmp_path)
    assert (gpt2.bos_token, gpt2.eos_token, gpt2.unk_token, gpt2.pad_token) == (END, END, END, None)
    assert gpt2.model_max_length == 1024 and padding_id(gpt2) == gpt2.eos_token_id == 0
    tokenizer_layouts.write(NAMED["bert-cased-settings"], tmp_path)
    bert = read_tokenizer(tmp_path)
    assert (bert.pad_token_id, bert.unk_token_id, bert.cls_token_id, bert.sep_token_id, bert.mask_token_id) == (
        *range(5),
    )
    tokenizer_layouts.write(NAMED["unknown-class"], tmp_path)
    assert read_tokenizer(tmp_path).eos_token == END


def test_special_tokens_of_the_old_map_count(tmp_path):
    tokenizer_layouts.write(NAMED["llama2"], tmp_path, eos_token="<unk>")
    stated = {"eos_token": {"content": "</s>", "lstrip": False}, "pad_token": "<unk>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(stated))
    tokenizer = read_tokenizer(tmp_path)
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("</s>", "<unk>", "<s>")


@pytest.mark.parametrize("empty", ["", None, {}, {"content": ""}, {"__type": "AddedToken", "content": ""}])
def test_an_empty_special_token_is_none(tmp_path, empty):
    """Empty ones in the settings, and in the old map; transformers calls itself without end at some."""
    raw = tokenizer_layouts.write(NAMED["llama2"], tmp_path, pad_token=empty, mask_token=empty)
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"sep_token": empty}))
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer.pad_token is None and tokenizer.mask_token is None and tokenizer.sep_token is None
    assert tokenizer.pad_token_id is None and padding_id(tokenizer) == raw.token_to_id("</s>")
    same(tokenizer, raw, "a b")


def test_an_empty_end_leaves_nothing_to_pad_with(tmp_path):
    tokenizer_layouts.write(NAMED["llama2"], tmp_path, eos_token="")
    with pytest.raises(TokenizationError, match=r"no pad token, and no end-of-text"):
        read_tokenizer(tmp_path)


def test_stored_truncation_and_padding_do_not_act(tmp_path):
    layout = NAMED["bert-uncased"]
    raw = tokenizer_layouts.write(layout, tmp_path)
    cut = tokenizers.Tokenizer.from_str(raw.to_str())
    cut.enable_truncation(4)
    cut.enable_padding(length=32, pad_token="[PAD]")
    cut.save(str(tmp_path / "tokenizer.json"))
    assert len(cut.encode("the cat sat on the mat").ids) == 32
    tokenizer = read_tokenizer(tmp_path)
    same(tokenizer, raw, "the cat sat on the mat, and home it went")
    (ids,) = tokenize(tokenizer, ["the cat sat on the mat"], max_tokens=99).ids
    assert ids.tolist() == raw.encode("the cat sat on the mat").ids


def test_a_word_that_is_named_as_a_special_token_stays_a_word(tmp_path):
    """With "!" to pad with, some give "!!" two tokens that to the file are one."""
    layout = NAMED["gpt2"]
    stated = json.loads(layout.make().to_str())
    stated["model"]["vocab"]["!!"] = len(stated["model"]["vocab"])
    stated["model"]["merges"].append(["!", "!"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(stated))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "!", "eos_token": END}))
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer.pad_token == "!" and tokenizer.pad_token_id == stated["model"]["vocab"]["!"]
    assert tokenizer("a!!")["input_ids"] == [stated["model"]["vocab"][token] for token in ("a", "!!")]


def test_chat_templates_of_every_place(tmp_path):
    tokenizer_layouts.write(NAMED["llama3"], tmp_path, chat_template="settings {{ bos_token }}")
    ask = [{"role": "user", "content": "hello"}]
    assert read_tokenizer(tmp_path).apply_chat_template(ask, tokenize=False) == "settings <|begin_of_text|>"
    named = [{"name": "default", "template": "first"}, {"name": "tools", "template": "second"}]
    tokenizer_layouts.write(NAMED["llama3"], tmp_path, chat_template=named)
    assert read_tokenizer(tmp_path).apply_chat_template(ask, tokenize=False, chat_template="tools") == "second"
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }} alone")
    assert read_tokenizer(tmp_path).apply_chat_template(ask, tokenize=False) == "hello alone"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("third")
    assert read_tokenizer(tmp_path).apply_chat_template(ask, tokenize=False, chat_template="rag") == "third"
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "additional_chat_templates" / "rag.jinja").unlink()
    tokenizer_layouts.write(NAMED["llama3"], tmp_path)
    assert read_tokenizer(tmp_path).chat_template is None
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "of a processor"}))
    assert read_tokenizer(tmp_path).apply_chat_template(ask, tokenize=False) == "of a processor"


# Tokens beyond the file


def added(content: str, **options) -> dict:
    return {"content": content, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False} | options


def test_tokens_that_other_files_add_get_the_ids_that_these_state(tmp_path):
    raw = tokenizer_layouts.write(NAMED["llama-cl100k"], tmp_path)
    size = raw.get_vocab_size()
    decoder = {str(size): added("<|user|>", special=True), str(size + 1): added("catdog", normalized=True)}
    tokenizer_layouts.write(NAMED["llama-cl100k"], tmp_path, added_tokens_decoder=decoder)
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer("<|user|>catdog")["input_ids"] == [size, size + 1]
    assert tokenizer.decode([size, size + 1], skip_special_tokens=True) == "catdog"
    tokenizer_layouts.write(NAMED["llama-cl100k"], tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|user|>": size, "catdog": size + 1}))
    assert read_tokenizer(tmp_path)("<|user|>catdog")["input_ids"] == [size, size + 1]


def test_a_pad_token_that_the_file_lacks_comes_last(tmp_path):
    raw = tokenizer_layouts.write(NAMED["llama2"], tmp_path, pad_token="[PAD]")
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer.pad_token_id == raw.get_vocab_size() == len(tokenizer) - 1
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.pad_token_id == tokenizer.pad_token_id


def test_tokens_at_other_ids_than_the_file_s_are_told(tmp_path):
    """A reserved token given another name in the settings only: the file stands, and there is no such end token."""
    raw = tokenizer_layouts.write(NAMED["llama-cl100k"], tmp_path)
    decoder = {"7": added("<|im_end|>", special=True), str(raw.get_vocab_size() + 5): added("<far>")}
    tokenizer_layouts.write(
        NAMED["llama-cl100k"], tmp_path, added_tokens_decoder=decoder, sep_token="<|im_end|>", pad_token=END
    )
    with pytest.warns(ExpertLensWarning) as told:
        tokenizer = read_tokenizer(tmp_path)
    ids, name = (str(warning.message) for warning in told)
    assert "'<|im_end|>' 7 (tokenizer.json: " in ids and "'<far>'" in ids and "tokenizer.json stands" in ids
    assert "names sep_token '<|im_end|>', which tokenizer.json doesn't have" in name
    assert tokenizer.sep_token is None and len(tokenizer) == raw.get_vocab_size()
    same(tokenizer, raw, "a <|im_end|> <far>")


# What the settings say against the file


def test_agreement_is_not_told(tmp_path):
    """All layouts are read without a warning, which the suite would make an error; so is a file's own added tokens."""
    raw = tokenizer_layouts.write(NAMED["llama2"], tmp_path)
    decoder = {
        str(place): {name: getattr(token, name) for name in ("content", *added("")) if name != "content"}
        | {"content": token.content, "special": token.special}
        for place, token in raw.get_added_tokens_decoder().items()
    }
    tokenizer_layouts.write(NAMED["llama2"], tmp_path, added_tokens_decoder=decoder, add_prefix_space=True)
    same(read_tokenizer(tmp_path), raw, "a b")


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("llama2", dict(add_bos_token=False), "add_bos_token is false, and tokenizer.json puts '<s>' there"),
        (
            "olmo2",
            dict(add_bos_token=True),
            r"add_bos_token is true, and tokenizer.json puts no '<\|endoftext\|>' there",
        ),
        ("llama2", dict(add_eos_token=True), "add_eos_token is true, and tokenizer.json puts no '</s>' there"),
        ("bert-cased", dict(do_lower_case=True), "do_lower_case is true, and tokenizer.json keeps case"),
        ("bert-uncased", dict(do_lower_case=False), "do_lower_case is false, and tokenizer.json lowers case"),
        ("olmo2", dict(add_prefix_space=True), "add_prefix_space is true, and tokenizer.json puts no space before"),
        ("llama2", dict(add_prefix_space=False), "add_prefix_space is false, and tokenizer.json puts a space before"),
        (
            "olmo2",
            dict(added_tokens_decoder={"0": added(END, rstrip=True, special=True)}),
            r"matches '<\|endoftext\|>' with .*'rstrip': True.* tokenizer.json with .*'rstrip': False",
        ),
    ],
)
def test_settings_against_the_file_are_told_and_the_file_stands(tmp_path, name, settings, message):
    raw = tokenizer_layouts.write(NAMED[name], tmp_path, **settings)
    with pytest.warns(
        ExpertLensWarning, match=rf"tokenizer_config.json says otherwise .*{message}.*tokenizer.json stands"
    ):
        tokenizer = read_tokenizer(tmp_path)
    for text in PROBES:
        same(tokenizer, raw, text)


# Files that can't be read


def test_a_damaged_file_is_refused(tmp_path):
    tokenizer_layouts.write(NAMED["gpt2"], tmp_path)
    whole = (tmp_path / "tokenizer.json").read_text()
    for damaged in (whole[:-40], "{}", whole.replace('"BPE"', '"BPE of 2031"'), "[1"):
        (tmp_path / "tokenizer.json").write_text(damaged)
        with pytest.raises(
            TokenizationError, match=r"tokenizer.json is damaged, or of a newer kind than tokenizers \d"
        ):
            read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(whole)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(TokenizationError, match=r"tokenizer_config.json is not JSON.*Get it again"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(TokenizationError, match=r"tokenizer_config.json holds a list, where an object was expected"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"padding_side": "up", "eos_token": "<|endoftext|>"}')
    with pytest.raises(TokenizationError, match=r"can't be read: .*[Pp]adding side.*wrong type"):
        read_tokenizer(tmp_path)


# Without a tokenizer.json


def test_word_lists_are_converted_with_their_ids(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true, "bos_token": "", "eos_token": null}')
    tokenizer = read_tokenizer(tmp_path)
    inner = tokenizers.BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=True)
    assert tokenizer("The cats sat.")["input_ids"] == inner.encode("The cats sat.").ids == [2, 5, 6, 7, 8, 9, 3]


def test_byte_level_vocabularies_are_converted_with_their_ids(tmp_path):
    inner = NAMED["gpt2"].make()
    inner.model.save(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    tokenizer = read_tokenizer(tmp_path)
    for text in PROBES[:-1]:
        assert tokenizer(text)["input_ids"] == inner.encode(text).ids


def test_a_conversion_to_other_ids_is_refused(tmp_path, monkeypatch):
    inner = NAMED["gpt2"].make()
    inner.model.save(str(tmp_path))
    other = transformers.PreTrainedTokenizerFast(tokenizer_object=NAMED["neox"].make(), eos_token=END)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary | {"a": vocabulary["b"], "b": vocabulary["a"]}))
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *args, **options: other)
    with pytest.raises(TokenizationError, match=r"other ids than its files state: .*'a' \d+ instead of \d+.*save its"):
        read_tokenizer(tmp_path)


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Makes packages look as if they weren't installed."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name in names else find_spec(name, *args)
    )


@pytest.mark.parametrize("name", ["tokenizer.model", "spiece.model"])
def test_sentencepiece_alone_names_the_package_that_it_takes(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    hide(monkeypatch, "sentencepiece")
    with pytest.raises(TokenizationError, match=rf"SentencePiece's {name}, .*: pip install sentencepiece\. Or save"):
        read_tokenizer(tmp_path)
    hide(monkeypatch, "sentencepiece", "google.protobuf")
    with pytest.raises(TokenizationError, match=r"pip install sentencepiece protobuf\."):
        read_tokenizer(tmp_path)


def test_tiktoken_alone_names_the_package_that_it_takes(tmp_path, monkeypatch):
    """Llama 3's original tokenizer.model is no file of SentencePiece."""
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\nIw== 2\n")
    hide(monkeypatch, "tiktoken")
    with pytest.raises(TokenizationError, match=r"tiktoken's tokenizer.model, .*: pip install tiktoken\."):
        read_tokenizer(tmp_path)


def sentencepiece_model(directory: pathlib.Path, **options) -> pathlib.Path:
    """A tiny tokenizer.model, trained by the library itself."""
    (directory / "text.txt").write_text("\n".join(tokenizer_layouts.TEXT))
    sentencepiece.SentencePieceTrainer.train(
        input=str(directory / "text.txt"),
        model_prefix=str(directory / "tokenizer"),
        hard_vocab_limit=False,
        byte_fallback=True,
        remove_extra_whitespaces=False,
        minloglevel=2,
        num_threads=1,
        **options,
    )
    return directory / "tokenizer.model"


def test_sentencepiece_is_converted_to_what_its_library_says(tmp_path):
    path = sentencepiece_model(tmp_path, vocab_size=400, model_type="bpe")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "add_bos_token": true}')
    tokenizer = read_tokenizer(tmp_path)
    own = sentencepiece.SentencePieceProcessor(model_file=str(path))
    for text in ("The cat sat on the mat.", "a 2023 naïve dog", "two  spaces"):
        assert tokenizer(text)["input_ids"] == [own.bos_id(), *own.encode(text)]


def test_a_conversion_that_splits_otherwise_than_sentencepiece_is_refused(tmp_path):
    """A Unigram model under a class made for BPE."""
    sentencepiece_model(tmp_path, vocab_size=380, model_type="unigram")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(TokenizationError, match=r"splits otherwise than SentencePiece does: .* to the other"):
        read_tokenizer(tmp_path)


# Where texts end


def test_end_ids_are_those_of_the_generation_config_then_the_config(tmp_path):
    def state(name, ids):
        (tmp_path / name).write_text(json.dumps({"eos_token_id": ids, "model_type": "llama"}))

    assert read_end_ids(tmp_path) is None
    state("config.json", [9, 2, 9])
    assert read_end_ids(tmp_path) == (2, 9)
    (tmp_path / "generation_config.json").write_text("{}")
    assert read_end_ids(tmp_path) == (2, 9)
    state("generation_config.json", None)
    assert read_end_ids(tmp_path) == (2, 9)
    state("generation_config.json", 7)
    assert read_end_ids(tmp_path) == (7,)
    for wrong in ("7", [7, None], True, 7.5, -1):
        state("generation_config.json", wrong)
        with pytest.raises(
            TokenizationError, match="generation_config.json states eos_token_id .*; it should be a token id"
        ):
            read_end_ids(tmp_path)
