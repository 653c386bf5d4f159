"""A model hub on loopback, as far as its client asks of one: an API, a resolver, and a separate file store.

Files are pushed to it as to the real one: small texts within the commit, others first to the store (Git LFS), each by
its SHA-256. A commit is a directory of its own, so that earlier ones stay.
"""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import pathlib
import shutil
import socket
import struct
import tempfile
import threading
import urllib.parse
from collections.abc import Iterator

import yaml

STORED = (".safetensors", ".bin", ".zip", ".png")  # as with LFS, the resolver redirects these to the store


@dataclasses.dataclass
class Repo:
    """A repository: a directory for each branch; the branch's name makes up its commit."""

    branches: dict[str, pathlib.Path]
    gated: bool = False
    token: str | None = None
    """Wanted of who asks; None is public."""
    unlisted: frozenset[str] = frozenset()
    """Files that an index may name, but that aren't there."""
    private: bool = False
    """Whether only who may write there sees it."""
    pushed: dict[str, list[tuple[str, pathlib.Path]]] = dataclasses.field(default_factory=dict)
    """Commits of each branch that was pushed to, from the one that it started at: hash and directory."""
    messages: list[str] = dataclasses.field(default_factory=list)
    """Of all commits that were pushed."""
    tags: dict[str, str] = dataclasses.field(default_factory=dict)
    """A tag's name to its commit."""

    def head(self, branch: str) -> tuple[str, pathlib.Path]:
        """A branch's last commit: hash and directory."""
        if branch in self.pushed:
            return self.pushed[branch][-1]
        return hashlib.sha1(branch.encode()).hexdigest(), self.branches[branch]

    def find(self, revision: str) -> tuple[str, pathlib.Path] | None:
        """A branch's or commit's hash and directory."""
        heads = {branch: self.head(branch) for branch in self.branches}
        commits = dict([*heads.values(), *(each for log in self.pushed.values() for each in log)])
        if revision in heads:
            return heads[revision]
        revision = self.tags.get(revision, revision)
        return (revision, commits[revision]) if revision in commits else None

    def commit(self, branch: str, changes: dict[str, bytes | None], message: str) -> str:
        """Adds a commit of files, None for those that go, to a branch; its hash."""
        parent, directory = self.head(branch)
        made = pathlib.Path(tempfile.mkdtemp(dir=directory.parent))
        shutil.copytree(directory, made, dirs_exist_ok=True)
        for name, content in changes.items():
            (made / name).unlink() if content is None else (made / name).write_bytes(content)
        commit = hashlib.sha1(f"{parent} {message} {sorted(changes.items())}".encode()).hexdigest()
        self.pushed.setdefault(branch, [(parent, directory)]).append((commit, made))
        self.messages.append(message)
        return commit


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
    """Method, a part of the path, and what to do: "busy" (429), "drop" or "reset" midway, "down" (503), or "other":
    another process commits first."""
    folder: pathlib.Path | None = None
    """Where repositories that are made are kept."""
    writers: dict[str, str] = dataclasses.field(default_factory=dict)
    """A token that may write to the owner it names; it sees what is private there too."""
    stored: dict[str, bytes] = dataclasses.field(default_factory=dict)
    """What was pushed to the store, by SHA-256."""

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

    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def answer_json(self, body: object, status: int = 200):
        self.answer(status, {"Content-Type": "application/json"}, json.dumps(body).encode())

    def do_POST(self):
        self.hub.requests.append((self.command, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.stumble():
            return
        path = urllib.parse.unquote(self.path.partition("?")[0]).strip("/")
        if path == "api/validate-yaml":
            return self.validate(json.loads(body)["content"])
        if path == "api/repos/create":
            return self.create(json.loads(body))
        name, _, rest = path.removeprefix("api/models/").partition("/")
        title, _, rest = rest.partition("/")
        name = f"{name}/{title.removesuffix('.git')}"
        if self.hub.writers.get(self.token()) != name.partition("/")[0]:
            return self.refuse(403, "", f"You don't have the rights to write to {name}")
        repo = self.hub.repos[name]
        what, _, revision = rest.partition("/")
        if what == "branch":
            at, start = repo.find(json.loads(body or b"{}").get("startingPoint", "main"))
            repo.branches[revision] = start
            repo.pushed[revision] = [(at, start)]
            return self.answer_json({})
        if what == "preupload":
            return self.answer_json(
                {"files": [self.upload_mode(repo, revision, each) for each in json.loads(body)["files"]]}
            )
        if rest == "info/lfs/objects/batch":
            return self.answer_json({"objects": [self.upload(each) for each in json.loads(body)["objects"]]})
        if what == "commit":
            return self.commit(name, revision, [json.loads(line) for line in body.splitlines()])
        self.refuse(404, "", "no such page")

    def validate(self, card: str):
        """Refuses metadata that isn't YAML, or a license that is none, as the hub does."""
        matter = yaml.safe_load(card.split("---")[1])
        if matter.get("license") in (None, "apache-2.0", "cc-by-4.0", "mit"):
            return self.answer_json({"warnings": [], "errors": []})
        self.answer_json({"errors": [{"message": f'"license" must be one of [...], not {matter["license"]}'}]}, 400)

    def create(self, asked: dict[str, object]):
        name = f"{asked['organization']}/{asked['name']}"
        if self.hub.writers.get(self.token()) != asked["organization"]:
            return self.refuse(403, "", f"You don't have the rights to create a model under {asked['organization']}")
        if name in self.hub.repos:
            return self.refuse(409, "", "You already created this model repo")
        start = self.hub.folder / name / "start"
        start.mkdir(parents=True)
        (start / ".gitattributes").write_text("*.zip filter=lfs\n")
        self.hub.repos[name] = Repo({"main": start}, private=asked.get("visibility") == "private")
        self.answer_json({"url": f"{self.hub.url}/{name}"})

    def upload_mode(self, repo: Repo, revision: str, file: dict[str, str]) -> dict[str, object]:
        there = repo.head(revision)[1] / file["path"]
        stored = file["path"].endswith(STORED)
        oid = None
        if there.exists():
            content = there.read_bytes()
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            oid = hashlib.sha256(content).hexdigest() if stored else blob
        mode = "lfs" if stored else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def upload(self, file: dict[str, object]) -> dict[str, object]:
        if file["oid"] in self.hub.stored:
            return file
        return file | {"actions": {"upload": {"href": f"{self.hub.store_url}/{file['oid']}"}}}

    def commit(self, name: str, branch: str, lines: list[dict]):
        repo, (header, *rest) = self.hub.repos[name], [line["value"] | {"key": line["key"]} for line in lines]
        if self.hub.pop_trouble("COMMIT", self.path) == "other":
            repo.commit(branch, {"other.txt": b"first"}, "another process's")
        if header.get("parentCommit") not in (None, repo.head(branch)[0]):
            return self.refuse(412, "", "A commit has happened since. Please refresh and try again.")
        changes: dict[str, bytes | None] = {}
        for each in rest:
            match each["key"]:
                case "file":
                    changes[each["path"]] = base64.b64decode(each["content"])
                case "lfsFile":
                    changes[each["path"]] = self.hub.stored[each["oid"]]
                case "deletedFile":
                    changes[each["path"]] = None
        commit = repo.commit(branch, changes, header["summary"])
        self.answer_json({"commitUrl": f"{self.hub.url}/{name}/commit/{commit}", "commitOid": commit})

    def do_GET(self):
        self.hub.requests.append((self.command, self.path))
        if self.stumble():
            return
        path = urllib.parse.unquote(self.path.partition("?")[0]).strip("/")
        log = None
        if path.startswith("api/models/") and path.endswith("/refs"):
            name, revision, file = path.removeprefix("api/models/").removesuffix("/refs"), "main", None
        elif path.startswith("api/models/") and "/commits/" in path:
            name, _, revision = path.removeprefix("api/models/").partition("/commits/")
            log, file = revision, None
        elif path.startswith("api/models/"):
            name, _, revision = path.removeprefix("api/models/").partition("/revision/")
            file = None
        elif "/resolve/" in path:
            name, _, rest = path.partition("/resolve/")
            revision, _, file = rest.partition("/")
        else:
            return self.refuse(404, "", "no such page")
        given = self.token()
        if given == "wrong":
            return self.refuse(401, "", "Invalid credentials in Authorization header")
        repo = self.hub.repos.get(name)
        unseen = repo and repo.private and self.hub.writers.get(given) != name.partition("/")[0]
        if repo is None or unseen or (repo.token and not repo.gated and given != repo.token):
            return self.refuse(401, "RepoNotFound", "Repository not found")
        found = repo.find(revision or "main")
        if found is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        commit, directory = found
        names = sorted(p.name for p in directory.iterdir() if p.name not in repo.unlisted)
        if path.endswith("/refs"):
            heads = [
                {"name": each, "ref": f"refs/heads/{each}", "targetCommit": repo.head(each)[0]}
                for each in repo.branches
            ]
            tags = [{"name": each, "ref": f"refs/tags/{each}", "targetCommit": at} for each, at in repo.tags.items()]
            return self.answer_json({"branches": heads, "tags": tags, "converts": []})
        if log is not None:
            commits = [each for each, _ in repo.pushed.get(log, [repo.head(log)])]
            dated = {"title": "", "message": "", "date": "2026-01-01T00:00:00.000Z", "authors": []}
            return self.answer_json([{"id": each} | dated for each in reversed(commits)])
        if file is None:
            listed = [{"rfilename": each} for each in names]
            return self.answer_json({"id": name, "sha": commit, "private": repo.private, "siblings": listed})
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

    def do_PUT(self):
        self.hub.requests.append((self.command, f"store:{self.path}"))
        self.hub.store_tokens.append(self.headers.get("Authorization"))
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self.stumble():
            return
        sha = self.path.strip("/")
        if hashlib.sha256(content).hexdigest() != sha:
            return self.refuse(400, "", "other bytes than were announced")
        self.hub.stored[sha] = content
        self.answer(200, {})

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
