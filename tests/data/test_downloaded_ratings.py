"""Ratings fetched from the web, here from a server on loopback that may be busy, broken, gone or lying."""

import dataclasses
import hashlib
import http.server
import pathlib
import threading

import pytest

from expertlens_jax.data import downloads, ratings
from expertlens_jax.data.known_ratings import COLLECTION, KNOWN
from expertlens_jax.data.ratings import load_ratings
from expertlens_jax.errors import RatingsError

CONTENT = b"sun\tsunlight\t50.0\nautomobile\tcar\t49.0\ncar\tautomobile\t47.0\nriver\twater\t49.0\n"


@dataclasses.dataclass
class Server:
    url: str = ""
    requests: list[str] = dataclasses.field(default_factory=list)
    trouble: list[int | str] = dataclasses.field(default_factory=list)
    """What goes wrong, once each: a status, "break" midway, or "other" content."""


@pytest.fixture
def server(monkeypatch, tmp_path):
    state = Server()

    class Answer(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            state.requests.append(self.path)
            trouble = state.trouble.pop(0) if state.trouble else None
            body = b"<html>sign in</html>" if trouble == "other" else CONTENT
            self.send_response(trouble if isinstance(trouble, int) else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:10] if trouble == "break" else body)

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{listening.server_port}/word-sim"
    monkeypatch.setenv("EXPERTLENS_RATINGS_URL", state.url)
    monkeypatch.setenv("EXPERTLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
    known = dataclasses.replace(KNOWN["men"], sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(ratings.KNOWN, "men", known)
    yield state
    listening.shutdown()
    listening.server_close()
    thread.join()


def cached(tmp_path):
    return tmp_path / "cache" / "ratings" / "EN-MEN-TR-3k.txt"


def test_fetched_once_with_citation_and_licence_and_then_kept(server, tmp_path, capsys):
    found = load_ratings("men")
    said = capsys.readouterr().err
    assert found.name == "men"
    assert found.pairs == (("sun", "sunlight"), ("automobile", "car"), ("river", "water"))
    assert found.scores.tolist() == [50, 48, 49]  # listed twice: averaged, and nothing to warn of
    assert found.ceiling == 0.84
    assert "Bruni" in found.ceiling_source
    assert f"Fetched the ratings 'men' into {cached(tmp_path)}" in said
    assert "Cite: Bruni, Tran & Baroni" in said
    assert "Licence: CC BY 2.0" in said
    assert server.requests == ["/word-sim/EN-MEN-TR-3k.txt"]
    assert cached(tmp_path).read_bytes() == CONTENT
    assert load_ratings("men").pairs == found.pairs
    assert len(server.requests) == 1
    assert capsys.readouterr().err == ""
    assert [path.name for path in cached(tmp_path).parent.iterdir()] == [cached(tmp_path).name]  # no left-overs


@pytest.mark.parametrize("trouble", [[503], [429, 500], ["break"], ["break", 502, "break"]])
def test_a_busy_or_broken_server_is_asked_again(server, trouble):
    server.trouble = trouble.copy()
    assert len(load_ratings("men").pairs) == 3
    assert len(server.requests) == len(trouble) + 1


def test_a_damaged_copy_is_fetched_again(server, tmp_path):
    load_ratings("men")
    cached(tmp_path).write_bytes(CONTENT[:-9])
    assert len(load_ratings("men").pairs) == 3
    assert cached(tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_other_bytes_are_refused(server, tmp_path):
    server.trouble = ["other"]
    with pytest.raises(RatingsError, match=r"'men' aren't here.*holds other bytes.*SHA-256 is .*wanted is"):
        load_ratings("men")
    assert not cached(tmp_path).exists()


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ([404], r"EN-MEN-TR-3k.txt answered HTTP 404"),
        ([503] * 4, r"answered HTTP 503 .*4 times"),
        (["break"] * 4, r"the connection to .* broke .*4 times"),
    ],
)
def test_a_server_that_never_gives_it(server, trouble, message):
    server.trouble = trouble.copy()
    with pytest.raises(RatingsError, match=message):
        load_ratings("men")
    assert len(server.requests) == len(trouble)


def test_offline_says_where_to_put_the_file_and_takes_it_there(server, tmp_path, monkeypatch):
    monkeypatch.setenv("EXPERTLENS_RATINGS_URL", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(RatingsError, match="can't be reached") as caught:
        load_ratings("men")
    message = str(caught.value)
    assert f"with SHA-256 {hashlib.sha256(CONTENT).hexdigest()}, at {cached(tmp_path)}; or give" in message
    cached(tmp_path).parent.mkdir(parents=True)
    cached(tmp_path).write_bytes(CONTENT)
    assert len(load_ratings("men").pairs) == 3


def test_an_address_that_is_none(server, monkeypatch):
    monkeypatch.setenv("EXPERTLENS_RATINGS_URL", "mirror")
    with pytest.raises(RatingsError, match="'mirror/EN-MEN-TR-3k.txt' is no address that can be fetched"):
        load_ratings("men")


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(RatingsError, match=r"can't be written .*set EXPERTLENS_CACHE"):
        load_ratings("men")


def test_what_is_known_of_each():
    assert COLLECTION.startswith("https://")
    for name, known in KNOWN.items():
        assert len(known.sha256) == 64
        assert known.packaged == (name == "wordsim353")
        assert len(known.gensim_sha256) == (64 if name == "simlex999" else 0)
        assert known.citation
        assert bool(known.ceiling) == bool(known.ceiling_source)
    assert len({known.file for known in KNOWN.values()}) == len(KNOWN)
    assert load_ratings("simlex999").ceiling == 0.78


def test_a_users_file_has_no_ceiling(tmp_path):
    path = pathlib.Path(tmp_path / "mine.txt")
    path.write_bytes(CONTENT.replace(b"car\tautomobile", b"car\tboat"))
    found = load_ratings(path)
    assert (found.ceiling, found.ceiling_source) == (None, "")


def test_an_unknown_name_lists_all():
    with pytest.raises(
        RatingsError, match=r"simlex999, men, wordsim353_similarity, .*rg65, mc30, mturk771, .*rareword"
    ):
        load_ratings("MEN-3k")
