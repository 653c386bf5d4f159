"""A live page for tests: a small run, its server in a thread, and requests to it that may be anything."""

import http.client
import json
import pathlib
import threading
import warnings

import expertlens_jax as el
from expertlens_jax.explorer import live

CONCEPTS = ("cat", "dog", "car")


def live_run(directory: pathlib.Path) -> pathlib.Path:
    """A finished run of three concepts in lenslet-2m."""
    concepts = el.load_concepts("facts").subset(CONCEPTS)
    el.find_experts(el.load_model("lenslet-2m"), concepts, directory, permutations=0, halves=False)
    return directory


class Served:
    """A run's page, served at a port of its own until the context ends."""

    def __init__(self, run: pathlib.Path, site: pathlib.Path, *, linked: pathlib.Path | None = None, **options) -> None:
        self._run, self.site, self._linked = run, site, linked
        self._options = {"tokens": False, "experts": 10} | options
        self.expertise, self.model = el.open_expertise(run), el.load_model("lenslet-2m")

    def __enter__(self) -> "Served":
        listening = live.listen("127.0.0.1", 0)
        self.port = listening.getsockname()[1]
        if self._linked is not None:  # what leads out of the folder, there before the files are listed
            write_site = live.write_site

            def with_links(*args, **options):
                written = write_site(*args, **options)
                (self.site / "linked.txt").symlink_to(self._linked)
                (self.site / "folder").symlink_to(self._linked.parent, target_is_directory=True)
                return written

            live.write_site = with_links
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", el.ExpertLensWarning)
                self._server = live.prepare(self._run, self.site, listening, "127.0.0.1", **self._options)
        finally:
            if self._linked is not None:
                live.write_site = write_site
        self.token = self._server.token
        self.address = self._server.address
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop()
        self._thread.join()

    def ask(self, method: str, path: str, body=None, *, headers=None, raw: bytes | None = None):
        """Status, body and headers (small letters) of a request for a path as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        connection.request(method, path or "/", content, {"Content-Type": "application/json"} | (headers or {}))
        response = connection.getresponse()
        read = response.read()
        connection.close()
        return response.status, read, {name.lower(): value for name, value in response.getheaders()}

    def get(self, path: str):
        return self.ask("GET", f"/{self.token}{path}")

    def post(self, path: str, body, **more):
        return self.ask("POST", f"/{self.token}{path}", body, **more)

    def open(self, asked):
        """A connection with a text that is being written, and the response to read it from."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("POST", f"/{self.token}/live/write", json.dumps(asked), {"Content-Type": "application/json"})
        return connection, connection.getresponse()

    def write(self, asked):
        """The lines of a text that is written."""
        connection, response = self.open(asked)
        lines = [json.loads(line) for line in response.read().splitlines()]
        connection.close()
        assert response.status == 200, lines
        return lines
