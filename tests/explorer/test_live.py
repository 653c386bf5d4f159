"""The live page answers its own reader, gives away listed files, and says what el.trace and el.generate say."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from served import Served, live_run

import expertlens_jax as el
from expertlens_jax import command
from expertlens_jax.explorer import live, live_questions

pytestmark = pytest.mark.process

ASKED = {
    "table": "t0",
    "prompt": "They talked about the",
    "concept": "cat",
    "count": 20,
    "strength": 1,
    "method": "set_median",
    "seed": 3,
    "temperature": 0.8,
    "newTokens": 12,
    "fromLayer": 0,
    "when": None,
}
WHEN = {"unit": "L0 mlp.up 417", "above": -0.5, "below": None}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return live_run(tmp_path_factory.mktemp("live") / "run")


@pytest.fixture(scope="module")
def served(run, tmp_path_factory):
    """A page that is served, in whose folder there are also links that lead out of it."""
    site = tmp_path_factory.mktemp("site")
    secret = site.parent / "secret.txt"
    secret.write_text("a secret")
    with Served(run, site / "page", linked=secret) as running:
        yield running


def test_the_page_and_its_data_are_served(served):
    status, body, headers = served.get("/")
    assert status == 200 and b"expertlens-explore" in body and headers["content-type"].startswith("text/html")
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff" and "default-src 'none'" in headers["content-security-policy"]
    status, body, headers = served.get("/js/live.js")
    assert status == 200 and headers["content-type"].startswith("text/javascript")
    assert body == (served.site / "js" / "live.js").read_bytes()
    text = served.get("/data/index.js")[1].decode()
    index = json.loads(text.partition(",")[2][:-3])
    assert index["live"]["tables"]["t0"]["model"] == "lenslet-2m" and index["live"]["tables"]["t0"]["writes"]
    assert json.loads((served.site / "data" / "index.js").read_text().partition(",")[2][:-3])["live"] is None
    status, _, headers = served.get("")
    assert status == 307 and headers["location"] == f"/{served.token}/"


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/..%2f..%2f..%2fsecret.txt",
            "/../secret.txt",
            "/%2e%2e/secret.txt",
            "/..%5c..%5csecret.txt",
            "//etc/passwd",
        ),
        *("//etc%2fpasswd", "/%2fetc%2fpasswd", "/js/../../secret.txt", "/linked.txt", "/folder/secret.txt", "/data"),
        *(
            "/js/",
            "/index.html/",
            "/index.html%00.js",
            "/%252e%252e%252fsecret.txt",
            "/file:///etc/passwd",
            "/C:%5cboot",
        ),
        *("/js\\live.js", "/JS/live.js", "/data/t0/../index.js", "/./index.html", "/replaced.csv", "/live/trace"),
    ],
)
def test_nothing_is_given_away_but_what_was_listed(served, path):
    status, body, _ = served.get(path)
    assert status == 404 and body == b"There is no such page.\n"


def test_a_file_that_another_took_the_place_of_is_gone(served):
    path = served.site / "js" / "search.js"
    assert served.get("/js/search.js")[0] == 200
    kept = path.rename(path.with_suffix(".kept"))
    try:
        assert served.get("/js/search.js")[0] == 404
        path.symlink_to(served.site.parent.parent / "secret.txt")
        assert served.get("/js/search.js")[0] == 404
    finally:
        path.unlink(missing_ok=True)
        kept.rename(path)


@pytest.mark.parametrize("first", ["", "/", "/x/", "/index.html", "/../", "//"])
def test_without_the_token_nothing_is_answered(served, first):
    for path in (first, f"{first}{served.token[:-1]}/", f"{first}x{served.token}/index.html"):
        status, body, _ = served.ask("GET", path)
        assert status == 403 and b"token" in body
    status, body, _ = served.ask("POST", "/live/trace", {"table": "t0"})
    assert status == 403 and b"lacks the token" in body


def test_a_foreign_name_or_page_is_refused(served):
    port = served.port
    for host in (
        "evil.example",
        f"evil.example:{port}",
        f"127.0.0.1:{port + 1}",
        "127.0.0.1",
        f"127.0.0.1.evil:{port}",
        "",
    ):
        status, body, _ = served.ask("GET", f"/{served.token}/", headers={"Host": host})
        assert status == 403 and b"doesn't go by that name" in body, host
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}"):
        assert served.ask("GET", f"/{served.token}/", headers={"Host": host})[0] == 200
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"):
        status, body, _ = served.post("/live/trace", {"table": "t0"}, headers={"Origin": origin})
        assert status == 403 and b"its own page alone" in body
    with socket.create_connection(("127.0.0.1", port)) as raw:  # without any Host, as HTTP/1.0 allows
        raw.sendall(f"GET /{served.token}/ HTTP/1.0\r\n\r\n".encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize(
    ("named", "host", "own"),
    [
        ("127.0.0.1:80", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1", True),  # port 80 goes unsaid
        ("[::1]:80", "::1", True),
        ("[::1]", "::1", True),
        ("localhost:80", "::1", True),
        ("box.example:80", "127.0.0.1", False),
        ("box.example:80", "box.example", True),
        ("127.0.0.1:80", "box.example", False),
        ("localhost:80", "192.0.2.1", False),
        ("192.0.2.9:80", "0.0.0.0", True),
        ("[2001:db8::1]:80", "::", True),
        ("evil.example:80", "0.0.0.0", False),
        ("1.2.3.4.evil.example:80", "0.0.0.0", False),
        ("localhost:81", "localhost", False),
        (":80", "127.0.0.1", False),
    ],
)
def test_which_names_are_its_own(named, host, own):
    assert live.is_own_host(named, host, 80) is own


def test_a_typed_text_has_the_activations_of_el_trace(served):
    text = "A cat isn't a dog — 猫 neither 🐈!"
    units = [[0, "attn.v", 28], [3, "mlp.up", 7]]
    status, body, headers = served.post("/live/trace", {"table": "t0", "text": text, "units": units})
    told = json.loads(body)
    assert status == 200 and headers["content-type"] == "application/json"
    seen = el.trace(served.model, [text], [tuple(unit) for unit in units])
    assert "".join(told["tokens"]) == text and len(told["tokens"]) == len(seen.tokens[0])
    values = seen.activations[0][seen.in_pool[0]].T
    np.testing.assert_allclose(told["activations"], values, rtol=1e-5, atol=1e-6)


def test_both_texts_are_those_of_el_generate_and_come_token_by_token(served):
    lines = served.write(ASKED)
    texts = {
        name: "".join(line.get("text", "") for line in lines if line["column"] == name) for name in ("plain", "steered")
    }
    settings = {"max_new_tokens": 12, "temperature": 0.8, "seed": 3, "on_token": lambda *token: None}
    steering = el.steer(served.expertise, "cat", top=20, method="set_median")
    plain, steered = (el.generate(served.model, ASKED["prompt"], steering=s, **settings) for s in (None, steering))
    assert texts == {"plain": plain.texts[0], "steered": steered.texts[0]} and texts["plain"] != texts["steered"]
    assert sum(line["column"] == "plain" for line in lines) == len(plain.token_ids[0]) + 1
    assert [line["column"] for line in lines if line.get("done")].count("steered") == 1
    nothing = served.write(ASKED | {"strength": 0})
    same = {name: "".join(line.get("text", "") for line in nothing if line["column"] == name) for name in texts}
    assert same == {"plain": plain.texts[0], "steered": plain.texts[0]}


def test_one_text_is_written_at_a_time(served, monkeypatch):
    go, begun = threading.Event(), threading.Semaphore(0)
    generate = live_questions.generate

    def waits(*args, on_token, **options):
        def slow(*token):
            begun.release()
            assert go.wait(60)
            on_token(*token)

        return generate(*args, on_token=slow, **options)

    monkeypatch.setattr(live_questions, "generate", waits)
    connection, response = served.open(ASKED)
    assert begun.acquire(timeout=60)
    status, body, headers = served.post("/live/write", ASKED)
    assert status == 429 and headers["retry-after"] == "1"
    assert json.loads(body)["error"].startswith("another text is being written. This server writes one at a time")
    trace = {"table": "t0", "text": "A cat.", "units": [[0, "attn.v", 28]]}
    assert served.post("/live/trace", trace)[0] == 200  # reading goes on beside it
    go.set()
    assert response.read().count(b'"done"') == 2
    connection.close()
    assert len(served.write(ASKED)) > 2


def test_who_leaves_makes_room_for_the_next(served, monkeypatch):
    generate, tokens = live_questions.generate, []

    def counts(*args, on_token, **options):
        def counted(*token):
            tokens.append(token)
            time.sleep(0.3)
            on_token(*token)

        return generate(*args, on_token=counted, **options)

    monkeypatch.setattr(live_questions, "generate", counts)
    connection, response = served.open(ASKED)
    response.readline()
    connection.close()
    response.close()
    monkeypatch.setattr(live_questions, "generate", generate)
    for _ in range(200):
        status, *_ = served.post("/live/write", ASKED)
        if status == 200:
            break
        time.sleep(0.1)
    assert status == 200 and len(tokens) < 2 * 12  # the first was stopped before its end


def test_one_text_is_read_at_a_time(served, monkeypatch):
    go, begun = threading.Event(), threading.Event()

    def waits(question):
        begun.set()
        assert go.wait(60)
        return {"tokens": [question.text]}

    monkeypatch.setattr(live, "read_text", waits)
    asked, answers = {"table": "t0", "text": "A cat.", "units": [[0, "attn.v", 28]]}, []
    first = threading.Thread(target=lambda: answers.append(served.post("/live/trace", asked)))
    first.start()
    assert begun.wait(60)
    status, body, _ = served.post("/live/trace", asked)
    assert status == 429 and "reads one at a time: ask again in a moment" in json.loads(body)["error"]
    go.set()
    first.join()
    assert answers[0][0] == 200 and json.loads(answers[0][1]) == {"tokens": ["A cat."]}
    assert served.post("/live/trace", asked)[0] == 200


TRACE = {"table": "t0", "text": "A cat.", "units": [[0, "attn.v", 28]]}


@pytest.mark.parametrize(
    ("path", "asked", "told"),
    [
        ("trace", TRACE | {"text": "  "}, "the text is empty"),
        ("trace", TRACE | {"text": 5}, "the text is empty"),
        ("trace", TRACE | {"text": "x" * 2001}, "the text has 2,001 characters; wanted at most 2,000"),
        ("trace", TRACE | {"text": "word " * 300}, "tokens"),
        ("trace", TRACE | {"units": []}, "wanted 1 to 20 units"),
        ("trace", TRACE | {"units": [[0, "attn.v", 28]] * 21}, "wanted 1 to 20 units"),
        ("trace", TRACE | {"units": ["L0 attn.v 28"]}, "a unit is its layer, site and channel"),
        ("trace", TRACE | {"units": [[0, "attn.v", True]]}, "a unit is its layer, site and channel"),
        ("trace", TRACE | {"units": [[0, "attn.v", 10**9]]}, "1000000000"),
        ("trace", TRACE | {"units": [[0, "nowhere", 1]]}, "nowhere"),
        ("trace", TRACE | {"table": "t1"}, "wanted a table with a model that is loaded: t0"),
        ("trace", TRACE | {"table": ["t0"]}, "wanted a table with a model that is loaded: t0"),
        ("trace", TRACE | {"path": "/etc/passwd"}, "wanted exactly table, text, units"),
        ("trace", {"table": "t0"}, "wanted exactly table, text, units"),
        ("trace", ["t0"], "the request is no JSON object"),
        ("write", ASKED | {"prompt": ""}, "the prompt is empty"),
        ("write", ASKED | {"concept": "tac"}, "the concept 'tac' isn't in this table of expertise"),
        ("write", ASKED | {"concept": None}, "the concept is no text"),
        ("write", ASKED | {"newTokens": 201}, "newTokens should be a whole number from 1 to 200"),
        ("write", ASKED | {"newTokens": 0}, "newTokens should be a whole number from 1 to 200"),
        ("write", ASKED | {"newTokens": 1.5}, "newTokens should be a whole number"),
        ("write", ASKED | {"count": 10**6}, "count should be a whole number from 1 to 5,000"),
        ("write", ASKED | {"strength": 1.1}, "strength should be a number from 0 to 1"),
        ("write", ASKED | {"strength": "1"}, "strength should be a number from 0 to 1"),
        ("write", ASKED | {"strength": float("nan")}, "strength should be a number from 0 to 1"),
        ("write", ASKED | {"temperature": -1}, "temperature should be a number from 0 to 5"),
        ("write", ASKED | {"seed": -1}, "seed should be a whole number"),
        ("write", ASKED | {"method": "eval"}, "wanted a method of set_median, set_p90, zero"),
        ("write", ASKED | {"fromLayer": 4}, "fromLayer should be a whole number from 0 to 3"),
        ("write", {name: each for name, each in ASKED.items() if name != "when"}, "wanted exactly table, prompt"),
    ],
)
def test_what_is_out_of_bounds_is_refused(served, path, asked, told):
    status, body, _ = served.post(f"/live/{path}", asked)
    assert status == 400 and told in json.loads(body)["error"]


def test_steering_goes_by_a_unit(served):
    """Which fires at some of the tokens: the text is what `el.generate` makes, and neither of those without it."""
    asked = ASKED | {"fromLayer": 1, "count": 300}
    lines = served.write(asked | {"when": WHEN})
    assert [line["only"] for line in lines if "only" in line] == ["where L0 mlp.up 417 > -0.5"]
    told = "".join(line.get("text", "") for line in lines if line["column"] == "steered")
    when = el.When(unit=(0, "mlp.up", 417), above=-0.5)
    steering = el.steer(served.expertise, "cat", top=300, layers=[1, 2, 3], when=when)
    settings = {"max_new_tokens": 12, "temperature": 0.8, "seed": 3}
    assert told == el.generate(served.model, ASKED["prompt"], steering=steering, **settings).texts[0]
    always = served.write(asked)
    assert not [line for line in always if "only" in line]
    for other, column in ((always, "steered"), (lines, "plain")):
        assert told != "".join(line.get("text", "") for line in other if line["column"] == column)


@pytest.mark.parametrize(
    ("when", "told"),
    [
        (WHEN | {"unit": "the cat's"}, r"\"the cat's\" was given for a unit; wanted .*L3 mlp.up 417"),
        (WHEN | {"unit": " "}, "above was given, and no unit; wanted one such as L3 mlp.up 417, or nothing at all"),
        (WHEN | {"unit": "L0 mlp.up 99999"}, "in lenslet-2m mlp.up has the channels 0 to 511"),
        (WHEN | {"unit": "L9 mlp.up 1"}, "lenslet-2m has mlp.up in layers 0 to 3"),
        (WHEN | {"unit": "L0 mpl.up 1"}, "Did you mean mlp.up"),
        (WHEN | {"unit": "L0 mlp.up 1 17"}, "this model is no mixture of experts"),
        (WHEN | {"above": None}, "L0 mlp.up 417 was given without a number; say above or below which one"),
        (WHEN | {"below": -0.5}, "no number is both; wanted above < below"),
        (WHEN | {"above": "1"}, "above should be a number"),
        (WHEN | {"below": True}, "below should be a number"),
        (WHEN | {"above": 10**400}, "above should be a number"),
        (WHEN | {"above": float("nan")}, "above should be a number"),
        (WHEN | {"unit": ["L0 mlp.up 1"]}, "when should have a unit, as text, and above and below"),
        ({"unit": "L0 mlp.up 1"}, "when should have a unit, as text, and above and below"),
        ("L0 mlp.up 1 > 5", "when should have a unit, as text, and above and below"),
        (WHEN | {"unit": "L3 resid 1"}, "the model computes L.* before L3 resid, .* Steer units of later sites"),
    ],
)
def test_a_condition_that_can_not_hold_is_told_by_its_name(served, when, told):
    status, body, _ = served.post("/live/write", ASKED | {"when": when})
    answer = json.loads(body)
    assert status == 400 and answer["name"] == "when" and re.search(told, answer["error"]), answer


def test_a_text_too_long_to_go_on_with_is_told_in_both_columns(served):
    lines = served.write(ASKED | {"prompt": "a cat " * 60})
    assert {line["column"] for line in lines} == {"plain", "steered"}
    assert all("context of 128" in line["error"] and line["done"] for line in lines)
    assert len(served.write(ASKED)) > 2


def test_bodies_that_are_none_are_refused(served):
    status, body, _ = served.post("/live/trace", None, raw=b"{" * 50_000)
    assert status == 400 and b"no JSON object" in body
    status, body, _ = served.post("/live/trace", None, raw=b" " * 100_000)
    assert status == 413 and b"more than 65,536 bytes" in body
    status, body, _ = served.post("/live/trace", TRACE, headers={"Content-Type": "text/plain"})
    assert status == 415 and b"wanted JSON" in body
    assert served.ask("PUT", f"/{served.token}/index.html", {})[0] == 405


def test_an_encoder_reads_and_writes_nothing(served):
    class Encoder:
        name, config = "an encoder", type("Config", (), {"causal": False, "head": None, "kind": "an encoder"})

    tables = {"t0": live_questions.Loaded(served.expertise, Encoder)}
    with pytest.raises(live_questions.Refused, match="an encoder is an encoder, which writes nothing"):
        live_questions.check_write(ASKED, tables)


def test_a_port_that_cannot_be_had_is_told_before_anything_is_written(run, tmp_path, capsys):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        for arguments, told in (
            ([f"--port={port}"], f"port {port} of 127.0.0.1 is in use. Choose another --port, or leave it out"),
            (["--port=70000"], "the port is 70000; wanted 1 to 65535, or 0 for any that is free"),
            (["--host=nowhere.invalid"], "the host 'nowhere.invalid' has no address here"),
            (["--host=192.0.2.77"], "port 0 of 192.0.2.77 can't be used"),
        ):
            with pytest.raises(SystemExit) as stopped:
                command.dispatch(["explore", str(run), "--live", f"--out={tmp_path / 'out'}", *arguments])
            assert stopped.value.code == 1 and told in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_what_live_cannot_do_without_is_told(run, tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit):
        command.dispatch(["explore", str(run), "--port=8000"])
    assert "--host and --port say where a page is served, and only --live serves it" in capsys.readouterr().err.replace(
        "\n", " "
    )
    lost = tmp_path / "lost"
    lost.mkdir()
    for name in ("expertise.zarr", "progress.json", "config.json"):
        os.symlink(run / name, lost / name)
    monkeypatch.setattr("expertlens_jax.experts.run_sources.load_model", lost_model)
    with pytest.raises(
        el.ExpertLensError, match=r"a live page needs the run's model: the model can't be loaded \(no mo"
    ):
        live.serve(lost, tmp_path / "out", tokens=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(
        el.ExpertLensError, match=r"uvicorn isn't installed\. Run: pip install 'expertlens-jax\[live\]'"
    ):
        live.serve(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def lost_model(*args, **options):
    raise el.ExpertLensError("no model called 'lenslet-2m'")


@pytest.mark.long
def test_ctrl_c_ends_it_without_a_word(run, tmp_path):
    arguments = ["explore", str(run), "--live", "--notokens", "--experts=3", f"--out={tmp_path / 'out'}"]
    notes = tmp_path / "stderr.txt"
    with notes.open("w") as stderr:
        started = subprocess.Popen(
            [sys.executable, "-m", "expertlens_jax", *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    try:
        said = started.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:(\d+)(/[\w-]{32}/)", said)
        assert address, (said, notes.read_text())
        connection = http.client.HTTPConnection("127.0.0.1", int(address[1]))
        connection.request("GET", address[2])
        assert connection.getresponse().status == 200
        told = notes.read_text()  # what isn't shown, and why
        started.send_signal(signal.SIGINT)
        out, _ = started.communicate(timeout=60)
    finally:
        started.kill()
    assert started.returncode == 0 and out == "" and notes.read_text() == told
