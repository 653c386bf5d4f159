"""A model hub on loopback, as far as its client asks of one: an API, a resolver, and a separate file store."""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import pathlib
import socket
import struct
import threading
import urllib.parse
from collections.abc import Iterator

STORED = (".safetensors", ".bin")  # as with LFS, the resolver redirects these to the store


@dataclasses.dataclass
class Repo:
    """A repository: a directory for each branch; the branch's name makes up its commit."""

    branches: dict[str, pathlib.Path]
    gated: bool = False
    token: str | None = None
    """Wanted of who asks; None is public."""
    unlisted: frozenset[str] = frozenset()
    """Files that an index may name, but that aren't there."""

    def find(self, revision: str) -> tuple[str, pathlib.Path] | None:
        """A branch's or commit's hash and directory."""
        for branch, directory in self.branches.items():
            commit = hashlib.sha1(branch.encode()).hexdigest()
            if revision in (branch, commit):
                return commit, directory
        return None


@dataclasses.dataclass
class Hub:
    """What the servers hold and what they saw; `trouble` is what goes wrong, once each."""

    repos: dict[str, Repo] = dataclasses.field(default_factory=dict)
    url: str = ""
    store_url: str = ""
    requests: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """Method and path of every request, `store:` before those of the store."""
    store_tokens: list[str | None] = dataclasses.field(default_factory=list)
    """Authorization headers that reached the store: it is another host, so there should be none."""
    ranges: list[str] = dataclasses.field(default_factory=list)
    """Range headers that reached the store: of downloads taken up again."""
    trouble: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    """Method, a part of the path, and what to do: "busy" (429), "drop" or "reset" midway, "down" (503)."""

    def pop_trouble(self, method: str, path: str) -> str | None:
        """What is to go wrong with this request, if anything."""
        for case in self.trouble:
            if case[0] == method and case[1] in path:
                self.trouble.remove(case)
                return case[2]
        return None


class _Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args):
        pass

    def answer(self, status: int, headers: dict[str, str], body: bytes = b""):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str):
        self.answer(status, {"X-Error-Code": code, "X-Error-Message": message})

    def stumble(self) -> bool:
        """Fails as planned, if it is planned."""
        match self.hub.pop_trouble(self.command, self.path):
            case "busy":
                self.answer(429, {"Retry-After": "0"})
            case "down":
                self.answer(503, {})
            case None:
                return False
            case other:
                self.broken = other
                return False
        return True


class _Resolver(_Quiet):
    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.hub.requests.append((self.command, self.path))
        if self.stumble():
            return
        path = urllib.parse.unquote(self.path.partition("?")[0]).strip("/")
        if path.startswith("api/models/"):
            name, _, revision = path.removeprefix("api/models/").partition("/revision/")
            file = None
        elif "/resolve/" in path:
            name, _, rest = path.partition("/resolve/")
            revision, _, file = rest.partition("/")
        else:
            return self.refuse(404, "", "no such page")
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        if given == "wrong":
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        repo = self.hub.repos.get(name)
        if repo is None or (repo.token and not repo.gated and given != repo.token):
            return self.refuse(401, "RepoNotFound", "Repository not found")
        found = repo.find(revision or "main")
        if found is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        commit, directory = found
        names = sorted(p.name for p in directory.iterdir() if p.name not in repo.unlisted)
        if file is None:
            body = {"id": name, "sha": commit, "siblings": [{"rfilename": each} for each in names]}
            return self.answer(200, {"Content-Type": "application/json"}, json.dumps(body).encode())
        if repo.gated and given != repo.token:
            return self.refuse(403, "GatedRepo", f"Access to model {name} is restricted")
        if file not in names:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        content = (directory / file).read_bytes()
        headers = {"X-Repo-Commit": commit}
        if file.endswith(STORED):
            sha = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(content))}
            return self.answer(302, headers | {"Location": f"{self.hub.store_url}/{name}/{commit}/{file}"})
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.answer(200, headers | {"ETag": f'"{blob}"'}, content)


class _Store(_Quiet):
    broken: str | None = None

    def do_GET(self):
        self.hub.requests.append((self.command, f"store:{self.path}"))
        self.hub.store_tokens.append(self.headers.get("Authorization"))
        self.broken = None
        if self.stumble():
            return
        name, commit, file = self.path.strip("/").rsplit("/", 2)
        content = (self.hub.repos[name].find(commit)[1] / file).read_bytes()
        asked = self.headers.get("Range")
        if asked:
            self.hub.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        headers = {"Content-Length": str(len(content) - start), "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        if self.broken is None:
            return self.answer(206 if start else 200, headers, body)
        self.answer(206 if start else 200, headers, body[: len(body) // 2])
        self.wfile.flush()
        if self.broken == "reset":  # the peer sees ECONNRESET instead of an orderly end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """Runs the hub and its store on two ports of this machine."""
    hub = Hub()
    with contextlib.ExitStack() as stack:

        def start(base: type[_Quiet]) -> str:
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type(base.__name__, (base,), {"hub": hub}))
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}"

        hub.url, hub.store_url = start(_Resolver), start(_Store)
        yield hub
