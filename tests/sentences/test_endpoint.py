"""The endpoint's client against a server on loopback that errs, stalls and answers nonsense."""

import email.utils
import json
import socket
import time

import chat_server
import pytest

from expertlens_jax.errors import EndpointError
from expertlens_jax.sentences.endpoint import ask_endpoint, open_endpoint
from expertlens_jax.sentences.writing import Answer

KEY = "sk-secret-1234567890"


@pytest.fixture
def chat(monkeypatch):
    monkeypatch.setenv("STUB_KEY", KEY)
    with chat_server.serve() as chat:
        yield chat


def ask(chat, prompt='about "cats"', **options):
    """The answer, what was told, and how long each wait was to be."""
    told, waits = [], []
    settings = {"key_variable": "STUB_KEY", "timeout": 5.0, "tries": 3} | options
    endpoint = open_endpoint(settings.pop("url", None) or chat.url, settings.pop("model", "stub"), **settings)
    assert KEY not in repr(endpoint)
    return ask_endpoint(endpoint, prompt, 7, tell=told.append, sleep=waits.append), told, waits


def fails(chat, **options):
    with pytest.raises(EndpointError) as error:
        ask(chat, **options)
    assert KEY not in str(error.value)
    return str(error.value)


def test_a_question_and_its_answer(chat):
    chat.script = ["1. A cat."]
    body = {"temperature": 0.5, "max_tokens": None}
    assert ask(chat, "Write of cats.", body=body)[0] == Answer("1. A cat.", "stub-1")
    assert chat.paths == ["/v1/chat/completions"] and chat.keys == [f"Bearer {KEY}"]
    assert chat.bodies == [
        {"model": "stub", "messages": [{"role": "user", "content": "Write of cats."}], "seed": 7, "temperature": 0.5}
    ]


def test_fields_can_be_left_out_and_the_address_may_be_whole(chat):
    ask(chat, body={"seed": None}, key_variable="", url=f"{chat.url}/chat/completions")
    assert "seed" not in chat.bodies[0] and chat.keys == [None] and chat.paths == ["/v1/chat/completions"]


@pytest.mark.parametrize("trouble", [500, 503, 429, 408, "drop", (200, {}, b"<html>"), (200, {}, b'{"choices": []}')])
def test_what_may_pass_is_asked_again(chat, trouble):
    chat.script = [trouble, trouble, "1. A cat."]
    answer, told, waits = ask(chat)
    assert answer.text == "1. A cat." and waits == [1, 2] and len(told) == 2
    assert "asking again in 1 s" in told[0]


def test_the_server_says_how_long_to_wait(chat):
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    chat.script = [(429, {"Retry-After": "7"}, b""), (503, {"Retry-After": date}, b""), "1. A cat."]
    waits = ask(chat)[2]
    assert waits[0] == 7 and 27 < waits[1] <= 30
    chat.script = [(429, {"Retry-After": "soon"}, b""), (429, {"Retry-After": "0"}, b""), "1. A cat."]
    assert ask(chat)[2] == [1, 0]
    chat.script = [(429, {"Retry-After": "3600"}, b'{"error": {"message": "quota used up"}}')]
    message = fails(chat)
    assert "answers 429 (quota used up), and asks to wait 3600 s, longer than endpoint.longest_wait of 60 s" in message


def test_waits_grow_up_to_a_bound_and_tries_end(chat):
    chat.script = [500] * 5
    told, waits = [], []
    endpoint = open_endpoint(chat.url, "stub", tries=5, longest_wait=3)
    with pytest.raises(EndpointError, match=r"answers 500, in 5 tries one after the other\. See whether it is up"):
        ask_endpoint(endpoint, "cats", 0, tell=told.append, sleep=waits.append)
    assert waits == [1, 2, 3, 3] and len(chat.prompts) == 5


@pytest.mark.parametrize("how", ["stall", "trickle"])
def test_an_answer_that_stalls_is_given_up(chat, how):
    chat.script = [how, "1. A cat."]
    started = time.monotonic()
    answer, told, _ = ask(chat, timeout=0.3)
    assert answer.text == "1. A cat." and "gave no whole answer within 0.3 s" in told[0]
    assert time.monotonic() - started < 3


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    message = fails(None, url=url, key_variable="")
    assert "can't be reached" in message and "refused" in message and "in 3 tries" in message


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "doesn't accept the key. See whether STUB_KEY holds this endpoint's key"),
        (403, "doesn't accept the key"),
        (404, "there is no model 'stub', or no http"),
        (400, """can be left out or replaced, as in --config.endpoint.body='{"seed": null"""),
        (422, "doesn't take the request"),
    ],
)
def test_what_will_not_pass_is_told_at_once(chat, status, message):
    said = json.dumps({"error": {"message": f"no good: {KEY} " + "x" * 300}}).encode()
    chat.script = [(status, {}, said)]
    told = fails(chat)
    assert message in told and f"answers {status} (no good: [key] xxx" in told
    assert len(chat.prompts) == 1


def test_a_key_is_wanted_and_not_given(chat):
    chat.script = [401]
    assert "it wants a key. Name the environment variable that holds it" in fails(chat, key_variable="")


def test_a_redirect_takes_the_key_nowhere(chat):
    chat.script = [(302, {"Location": "http://127.0.0.1:9/v2/chat/completions"}, b"")]
    assert "it has moved (http://127.0.0.1:9/v2). Set endpoint.url to the new address" in fails(chat)
    assert chat.paths == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{" + KEY.encode() + b"x" * 190, "answers with broken JSON ({[key]xxx"),
        (b'{"error": {"message": "the model is overloaded"}}', "answers with an error (the model is overloaded)"),
        (b'{"choices": [{"text": "of another kind"}]}', "answers without choices[0].message.content"),
        (b"[]", "answers without choices[0].message.content"),
        (b"[" * 100_000, "answers with broken JSON"),
        (b"", "answers with broken JSON"),
    ],
)
def test_nonsense_is_told_in_its_own_words(chat, content, message):
    chat.script = [(200, {}, content)] * 3
    assert message in fails(chat)


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, ""), ([{"type": "text", "text": "1. A "}, {"type": "text", "text": "cat."}], "1. A cat.")],
)
def test_contents_that_are_not_plain_text(chat, content, text):
    chat.script = [(200, {}, chat_server.completion(content, model=None))]
    assert ask(chat)[0] == Answer(text, "stub")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "endpoint.url is 'localhost:8000'; wanted an address such as https"),
        ({"url": "http://[::1"}, "endpoint.url is 'http://[::1'; wanted an address"),
        ({"url": "http://host:port/v1"}, "endpoint.url is 'http://host:port/v1'; wanted an address"),
        ({"url": "http://h\u00f6st/v1"}, "wanted an address"),
        ({"url": f"https://me:{KEY}@host/v1"}, "endpoint.url holds a name or password"),
        ({"model": ""}, "endpoint.model is empty; name one"),
        ({"key_variable": KEY}, "must be the name of an environment variable"),
        ({"key_variable": "NOT_SET_KEY"}, "the environment variable NOT_SET_KEY, which should hold"),
        ({"timeout": 0.0}, "timeout is 0.0"),
        ({"tries": 0}, "tries 0"),
    ],
)
def test_settings_that_cannot_be(chat, options, message):
    assert message in fails(chat, **options)
    assert not chat.prompts


def test_a_key_with_a_line_end_within(chat, monkeypatch):
    monkeypatch.setenv("STUB_KEY", KEY + "\nX-Other: 1")
    assert "holds characters that no key has" in fails(chat)
