"""Sentences and prompts in conversations: against transformers' own templates, and PyTorch with hooks."""

import families
import numpy as np
import pytest
import torch

import expertlens_jax as el
from expertlens_jax.errors import ExpertLensError, SettingError, TokenizationError
from expertlens_jax.models.chat import end_of_turn
from expertlens_jax.models.provenance import read_provenance

CHATML = (
    "{% for m in messages %}{{ '[CLS] ' + m['role'][0] + ' ' + m['content'] | trim + ' [SEP] k ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[CLS] a ' }}{% endif %}"
)
"""A template in the words of the tests' tokenizer: [CLS], the role's letter, the content, [SEP], and a k."""
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)
SENTENCES = ["ba de fi", "s u ba", "ko  ", " mi na po b c", "a"]  # words of the template's own among them


@pytest.fixture(scope="module")
def hf_model():
    return families.make_hf_model(next(case for case in families.CASES if case.name == "llama"))


@pytest.fixture(scope="module")
def model(hf_model, tmp_path_factory):
    directory = families.save(hf_model, tmp_path_factory.mktemp("chat"))
    model = el.load_model(directory, name="tiny")
    model.tokenizer.chat_template = CHATML
    return model


def conversation(chat, sentence):
    before = [("system", chat.system)] * bool(chat.system) + [("user", chat.asked)] * (chat.turn == "assistant")
    return [{"role": role, "content": text} for role, text in (*before, (chat.turn, sentence))]


def pooled_by_torch(hf_model, ids, own):
    """Max over the sentence's own tokens of mlp.up in every layer, `[layers, channels]`."""
    seen = []
    hooks = [
        layer.mlp.up_proj.register_forward_hook(lambda _, __, out: seen.append(out[0, own].max(0).values))
        for layer in hf_model.model.layers
    ]
    with torch.no_grad():
        hf_model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return torch.stack(seen).numpy()


CHATS = (
    el.Chat(),
    el.Chat(system="ba de"),
    el.Chat("assistant", asked="s u"),
    el.Chat("assistant", system="po", asked="ba de fi"),
)


@pytest.mark.parametrize("chat", CHATS, ids=str)
def test_responses_are_pooled_over_the_sentence_alone_in_its_conversation(model, hf_model, chat):
    responses = el.record_responses(model, SENTENCES, sites="mlp.up", chat=chat)
    for row, sentence in zip(responses.values, SENTENCES, strict=True):
        turns = conversation(chat, sentence)
        ids = model.tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"]
        inner = model.tokenizer(sentence, add_special_tokens=False)["input_ids"]
        stop = len(ids) - 2  # [SEP] and k follow the content
        own = slice(stop - len(inner), stop)
        assert ids[own] == inner
        want = pooled_by_torch(hf_model, ids, own)
        np.testing.assert_allclose(row.reshape(want.shape), want, atol=2e-5)
    assert el.Chat.of_attribute(responses.provenance.chat) == chat
    plain = el.record_responses(model, SENTENCES, sites="mlp.up")
    assert plain.provenance.chat == "" and plain.provenance != responses.provenance
    assert np.abs(plain.values - responses.values).max() > 0.01


def test_true_is_a_plain_turn_of_the_user(model):
    asked = el.record_responses(model, SENTENCES, sites="mlp.up", chat=True)
    np.testing.assert_array_equal(
        asked.values, el.record_responses(model, SENTENCES, recording=el.Recording("mlp.up", chat=el.Chat())).values
    )
    assert el.record_responses(model, SENTENCES, sites="mlp.up", chat=False).provenance.chat == ""


def test_a_trace_shows_the_template_and_pools_over_the_sentence(model):
    chat = el.Chat("assistant", asked="po")
    units = model.units[model.units["site"] == "mlp.up"].iloc[[0, 3]]
    seen = el.trace(model, SENTENCES, units, chat=chat)
    responses = el.record_responses(model, SENTENCES, sites="mlp.up", chat=chat)
    np.testing.assert_array_equal(seen.pooled(), responses.values[:, [0, 3]])
    assert seen.tokens[0] == ["[CLS]", "u", "po", "[SEP]", "k", "[CLS]", "a", "ba", " de", " fi", "[SEP]", "k"]
    assert seen.in_pool[0].tolist() == [False] * 7 + [True] * 3 + [False] * 2
    assert [SENTENCES[3][a:b] for a, b in seen.spans[3][seen.in_pool[3]]] == ["mi", "na", "po", "b", "c"]


def test_experts_are_found_in_conversations_and_say_so(model, tmp_path):
    file = tmp_path / "words.csv"
    rows = [f"{word},{word} {a} {b}" for word in ("ba", "de") for a in "xyz" for b in ("mi", "na")]
    file.write_text("concept,sentence\n" + "\n".join(rows) + "\n")
    concepts = el.load_concepts(file)
    chat = el.Chat(system="po")
    found = el.find_experts(model, concepts, tmp_path / "run", sites="mlp.up", chat=chat, permutations=0, halves=False)
    responses = el.record_responses(model, concepts.sentences, sites="mlp.up", chat=chat)
    measured = el.measure_expertise(responses, concepts)
    np.testing.assert_array_equal(found["average_precision"].values, measured["average_precision"].values)
    assert el.Chat.of_attribute(read_provenance(found.attrs).chat) == chat
    with pytest.raises(ExpertLensError, match="chat: .*po.* there, None asked for|chat: .*there"):
        el.find_experts(model, concepts, tmp_path / "run", sites="mlp.up", permutations=0, halves=False)
    of_words = el.find_experts(
        model,
        concepts,
        tmp_path / "words",
        sites="mlp.up",
        chat=chat,
        pool_over="concept",
        permutations=0,
        halves=False,
    )
    seen = el.trace(model, concepts.sentences, ["L0 mlp.up 0"], chat=chat)
    at_word = np.array([values[own][0, 0] for values, own in zip(seen.activations, seen.in_pool, strict=True)])
    positives = np.median(at_word[concepts.labels[0]])  # each sentence begins with its word
    np.testing.assert_allclose(of_words["positive_median"].values[0, 0], positives, atol=1e-6)


# Generation.


def test_conversations_are_answered_as_transformers_does(model, hf_model):
    turns = [{"role": "system", "content": "po"}, {"role": "user", "content": "ba de"}]
    ids = model.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    options = {"max_new_tokens": 6, "temperature": 0}
    want = el.generate(model, [ids], **options)
    made = el.generate(model, turns, **options)
    several = el.generate(model, [turns, turns[1:]], **options)
    by_chat = el.generate(model, "ba de", chat=el.Chat(system="po"), **options)
    for each in (made, by_chat):
        np.testing.assert_array_equal(each.token_ids[0], want.token_ids[0])
    assert several.texts[0] == made.texts[0] and len(several.texts) == 2
    with torch.no_grad():
        theirs = hf_model.generate(
            torch.tensor([ids]), max_new_tokens=6, do_sample=False, eos_token_id=3, pad_token_id=0
        )
    np.testing.assert_array_equal(made.token_ids[0], theirs[0, len(ids) :].numpy())


def test_an_answer_that_is_begun_goes_on(model):
    begun = [{"role": "user", "content": "ba"}, {"role": "assistant", "content": "de fi"}]
    ids = model.tokenizer.apply_chat_template(begun, continue_final_message=True, return_dict=True)["input_ids"]
    want = el.generate(model, [ids], max_new_tokens=4, temperature=0)
    for made in (
        el.generate(model, begun, max_new_tokens=4, temperature=0),
        el.generate(model, "de fi", chat=el.Chat("assistant", asked="ba"), max_new_tokens=4, temperature=0),
    ):
        np.testing.assert_array_equal(made.token_ids[0], want.token_ids[0])
        assert made.prompts[0].endswith("de fi")


def test_an_answer_ends_where_the_template_ends_the_turn(model):
    assert end_of_turn(model.tokenizer) == model.tokenizer.sep_token_id == 3
    pushed = el.steer_units(model, model.units.iloc[:1], 1.0, 0.0)  # no change
    made = el.generate(model, ["ba"] * 40, chat=True, max_new_tokens=20, seed=1, steering=pushed)
    ended = [ids for ids in made.token_ids if 3 in ids]
    assert ended and all(list(ids).index(3) == len(ids) - 1 for ids in ended)
    plain = el.generate(model, ["ba"] * 40, max_new_tokens=20, seed=1)
    assert any(3 in ids[:-1] for ids in plain.token_ids)  # which has no other end here


# What a user can get wrong.


@pytest.mark.parametrize("call", ["record", "trace", "generate"])
def test_a_model_without_a_template_is_told(model, call, monkeypatch):
    monkeypatch.setattr(model.tokenizer, "chat_template", None)
    ask = {
        "record": lambda: el.record_responses(model, ["ba"], chat=True),
        "trace": lambda: el.trace(model, ["ba"], ["L0 mlp.up 0"], chat=True),
        "generate": lambda: el.generate(model, "ba", chat=True),
    }[call]
    with pytest.raises(TokenizationError, match="has no chat template, so it can't write a conversation: base models"):
        ask()


def test_templates_that_refuse_or_change_a_sentence_are_told(model, monkeypatch):
    monkeypatch.setattr(model.tokenizer, "chat_template", NO_SYSTEM)
    with pytest.raises(TokenizationError, match="refuses a conversation of system, user: .*System role not supported"):
        el.record_responses(model, ["ba"], chat=el.Chat(system="po"))
    monkeypatch.setattr(model.tokenizer, "chat_template", CHATML.replace("| trim", "| replace('de', 'DE')"))
    with pytest.raises(TokenizationError, match="writes sentence 1, 'de', otherwise than it is given: '.*DE"):
        el.record_responses(model, ["0", "de"], chat=True)
    monkeypatch.setattr(model.tokenizer, "chat_template", "[CLS] ba [SEP]")
    with pytest.raises(TokenizationError, match=r"doesn't write what the user says, but '\[CLS\] ba \[SEP\]'"):
        el.record_responses(model, ["ba"], chat=True)


def test_chats_that_cannot_be_are_told(model):
    with pytest.raises(SettingError, match="turn='system' of a chat was given; wanted one of user, assistant"):
        el.Chat("system")
    with pytest.raises(SettingError, match="asked='Why.' was given for a chat where the sentence is the user's own"):
        el.Chat(asked="Why?")
    with pytest.raises(SettingError, match="chat='user' was given; wanted True, or el.Chat"):
        el.record_responses(model, ["ba"], chat="user")
    with pytest.raises(SettingError, match="chat=Chat.* was given beside a conversation, which says by itself who"):
        el.generate(model, [{"role": "user", "content": "ba"}], chat=True)
    with pytest.raises(TokenizationError, match="sentences have no token of their own; the first is number 0"):
        el.record_responses(model, [" "], chat=True)
