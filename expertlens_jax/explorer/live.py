"""The page of a run served from this machine with the model loaded: type a text, steer, and watch it write.

Whoever has the address, with the token in it, may ask; nobody else may. A request names no file, only a row of a table
that was made at the start. What one request may ask of the model is bounded, and so is what runs at once.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import errno
import hmac
import ipaddress
import json
import os
import pathlib
import secrets
import socket
import threading
import traceback
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import numpy as np
import xarray as xr
from etils import epath

from expertlens_jax.errors import ExpertLensError, RunDirectoryError, ServerError
from expertlens_jax.experts.steering import METHODS, check_known_concepts, steer
from expertlens_jax.experts.tracing import trace
from expertlens_jax.explorer.activations import cut
from expertlens_jax.explorer.chunks import chunk_script, exact
from expertlens_jax.explorer.served_files import MEDIA_TYPES, ServedFile, list_files
from expertlens_jax.explorer.site import write_site
from expertlens_jax.models.generation import generate
from expertlens_jax.models.model import Model
from expertlens_jax.models.steering import Steering
from expertlens_jax.run_directory import is_local

LOOPBACK = "127.0.0.1"
MOST = {"characters": 2000, "units": 20, "newTokens": 200, "steered": 5000, "body": 1 << 16}
"""What one request may ask for."""
_IN_USE = (errno.EADDRINUSE, 10048)  # the second is Windows'
_ANYWHERE = ("0.0.0.0", "::")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """A table of expertise, and the model that it was measured with."""

    expertise: xr.Dataset
    model: Model

    @property
    def writes(self) -> bool:
        """Whether the model predicts next tokens: an encoder doesn't."""
        return self.model.config.causal and self.model.config.head is not None

    def described(self) -> dict[str, Any]:
        """Return what the page is told of it."""
        methods = [name for name, method in METHODS.items() if set(method.needs) <= {*self.expertise.variables}]
        return {
            "model": self.model.name,
            "maxTokens": self.model.config.max_tokens,
            "writes": self.writes,
            "methods": methods,
            "truncate": bool(self.expertise.attrs.get("truncate", False)),
        }


def serve(
    run: epath.PathLike,
    out: epath.PathLike | None = None,
    *,
    host: str = LOOPBACK,
    port: int = 0,
    **options: Any,
) -> None:
    """Write the page of a run, and serve it with the model loaded until Ctrl-C is pressed.

    Args:
      run, out: see `explore`.
      host: the address to listen at; only this machine can reach the default.
      port: 0 for any that is free.
      **options: of `explore`.

    Raises:
      ServerError: starlette or uvicorn isn't installed; or the host or port can't be had.
      CheckpointError: no table's model can be found, or the one that was given isn't the run's.
      RunDirectoryError and others: see `explore`; or the page would lie in a bucket.
    """
    check_installed()
    with contextlib.closing(listen(host, port)) as listening:
        server = prepare(run, out, listening, host, **options)
        said = f"The page is live at {server.address} (whoever has this address can use the model). Ctrl-C ends it."
        print(said, flush=True)
        server.run()


def check_installed() -> None:
    """Check that what serves is there.

    Raises:
      ServerError: it isn't.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ServerError(
            f"a live page is served with starlette and uvicorn, and {error.name} isn't installed. Run: pip install "
            "'expertlens-jax[live]'. Without --live the page needs neither."
        ) from None


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, before anything takes long.

    Raises:
      ServerError: the host is unknown, or the port is in use, forbidden or none.
    """
    if not 0 <= port <= 65535:
        raise ServerError(f"the port is {port}; wanted 1 to 65535, or 0 for any that is free.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        raise ServerError(
            f"the host {host!r} has no address here ({error.strerror}). Leave --host out to serve this machine alone, "
            "or name one of its addresses."
        ) from None
    except OSError as error:
        taken = "is in use" if error.errno in _IN_USE else f"can't be had ({error.strerror or error})"
        raise ServerError(
            f"port {port} of {host} {taken}. Choose another --port, or leave it out, and any that is free is taken."
        ) from None


def prepare(
    run: epath.PathLike, out: epath.PathLike | None, listening: socket.socket, host: str, **options: Any
) -> "LiveServer":
    """Write the page, with its models loaded, and return what serves it.

    Raises:
      CheckpointError, RunDirectoryError: see `serve`.
    """
    if not is_local(epath.Path(out if out is not None else run)):
        raise RunDirectoryError("a page in a bucket can't be served. Give a folder of this machine with --out.")
    written = write_site(run, out, live=True, **options)
    tables = {name: Loaded(table.expertise, model) for name, (table, model) in written.models.items()}
    described = {name: each.described() for name, each in tables.items()}
    index = dict(written.index) | {"live": {"tables": described, "most": MOST}}
    files = list_files(pathlib.Path(os.fspath(written.page.parent)))
    return LiveServer(files, {"data/index.js": chunk_script("index", index).encode()}, tables, listening, host)


class LiveServer:
    """A page that is served, and the models behind it; `run` serves until `stop`, or until Ctrl-C is pressed."""

    def __init__(
        self,
        files: Mapping[str, ServedFile],
        made: Mapping[str, bytes],
        tables: Mapping[str, Loaded],
        listening: socket.socket,
        host: str,
    ) -> None:
        """Make the server; it doesn't answer yet.

        Args:
          files: what it may give away, by path.
          made: further files by path, whose content is here; they go before `files`.
          tables: by name, what the page may ask of.
          listening: the socket.
          host: the address that was given.
        """
        import uvicorn

        self.token = secrets.token_urlsafe(24)
        port = listening.getsockname()[1]
        shown = socket.gethostname() if host in _ANYWHERE else f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{port}/{self.token}/"
        self._listening = listening
        self._stopping = threading.Event()
        app = guarded(_app(files, made, tables, self._stopping), self.token, host, port)
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,  # addresses hold the token
            server_header=False,
            lifespan="off",
            ws="none",
            http="h11",
            loop="asyncio",
            limit_concurrency=100,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)
        told = self._server.handle_exit

        def handle_exit(sig: int, frame: types.FrameType | None) -> None:
            self._stopping.set()
            told(sig, frame)

        # uvicorn leaves no other place to hear that it ends
        self._server.handle_exit = handle_exit

    def run(self) -> None:
        """Serve until `stop` is called, or Ctrl-C is pressed, which ends it without a word."""
        with contextlib.suppress(KeyboardInterrupt):
            self._server.run(sockets=[self._listening])
        self._stopping.set()

    def stop(self) -> None:
        """End `run`, which another thread is in; what is being written stops at its next token."""
        self._stopping.set()
        self._server.should_exit = True


# Who may ask.

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Message, Receive, Send], Awaitable[None]]


def guarded(app: Asgi, token: str, host: str, port: int) -> Asgi:
    """Return an app that answers only who comes to its own address, with the token.

    The Host header must name this server, so that no page of another name that was made to point here (DNS rebinding)
    can ask; a request that says what page it comes from must come from this one.
    """
    from starlette.responses import PlainTextResponse, RedirectResponse

    async def guard(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = [(name.lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        named = [value for name, value in headers if name == b"host"]
        origins = [value for name, value in headers if name == b"origin"]
        first = scope["path"].split("/")[1] if scope["path"].startswith("/") else ""
        known = hmac.compare_digest(first.encode(errors="replace"), token.encode())
        why = ""
        if len(named) != 1 or not is_own_host(named[0], host, port):
            why = "This server doesn't go by that name."
        elif any(origin != f"http://{named[0]}" for origin in origins):
            why = "This server answers its own page alone."
        elif not known:
            why = "The address lacks the token that the terminal shows, or has another."
        if why:
            await PlainTextResponse(why + "\n", 403, _HEADERS)(scope, receive, send)
            return
        if scope["path"] == f"/{token}":  # relative links of the page need the slash
            await RedirectResponse(f"/{token}/", headers=_HEADERS)(scope, receive, send)
            return
        await app({**scope, "path": scope["path"][1 + len(token) :] or "/"}, receive, send)

    return guard


def is_own_host(named: str, host: str, port: int) -> bool:
    """Return whether a Host header names a server that listens at a host and port.

    Where it listens at every address of the machine, any address of numbers will do: a name can be made to point
    elsewhere, a number can't.
    """
    name, _, number = named.rpartition(":") if not named.endswith("]") and ":" in named else (named, "", "80")
    name = name.lower().removeprefix("[").removesuffix("]")
    if number != str(port):
        return False
    if host in _ANYWHERE:
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(name)
            return True
        return name in {"localhost", socket.gethostname().lower(), socket.getfqdn().lower()}
    own = {host.lower()}
    if host.lower() == "localhost" or _is_loopback(host):
        own |= {"localhost", LOOPBACK, "::1"}
    return name in own


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


# What is answered.


class Refused(Exception):
    """A request that can't be served as it is: its status, and why."""

    def __init__(self, status: int, why: str) -> None:
        """Keep both."""
        super().__init__(why)
        self.status = status


class _Stopped(Exception):
    """The reader has left, or the server ends."""


def _app(
    files: Mapping[str, ServedFile],
    made: Mapping[str, bytes],
    tables: Mapping[str, Loaded],
    stopping: threading.Event,
) -> Asgi:
    """Return the routes: files of the table, and two questions to the model, each asked by one reader at a time."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route

    workers = concurrent.futures.ThreadPoolExecutor(max_workers=4, thread_name_prefix="live")
    tracing, writing = threading.Lock(), threading.Lock()

    async def file(request: Request) -> Response:
        path = request.path_params["path"] or "index.html"
        found = made.get(path)
        if found is None and path in files:
            found = await asyncio.get_running_loop().run_in_executor(workers, files[path].read)
        if found is None:
            return PlainTextResponse("There is no such page.\n", 404, _HEADERS)
        kind = files[path].media_type if path in files else MEDIA_TYPES[pathlib.PurePosixPath(path).suffix]
        return Response(found, headers=_HEADERS | {"Content-Type": kind})

    async def ask(request: Request) -> Response:
        asked = await read_body(request.headers.get("content-type", ""), request.stream())
        question = check_trace(asked, tables)
        if not tracing.acquire(blocking=False):
            raise Refused(429, "another text is being read. This server reads one at a time: ask again in a moment.")

        def work() -> dict[str, Any]:
            try:
                return read_text(question)
            finally:
                tracing.release()

        return JSONResponse(await asyncio.get_running_loop().run_in_executor(workers, work), headers=_HEADERS)

    async def write(request: Request) -> Response:
        asked = await read_body(request.headers.get("content-type", ""), request.stream())
        question = check_write(asked, tables)
        if not writing.acquire(blocking=False):
            raise Refused(
                429, "another text is being written. This server writes one at a time: ask again when it ends."
            )
        lines = Writing(question, workers, stopping, writing.release).lines()
        return StreamingResponse(lines, headers=_HEADERS | {"Content-Type": "application/x-ndjson"})

    async def refuse(request: Request, error: Exception) -> Response:
        del request
        status = error.status if isinstance(error, Refused) else 400
        after = {"Retry-After": "1"} if status == 429 else {}
        return JSONResponse({"error": str(error)}, status, headers=_HEADERS | after)

    return Starlette(
        routes=[
            Route("/live/trace", ask, methods=["POST"]),
            Route("/live/write", write, methods=["POST"]),
            Route("/{path:path}", file, methods=["GET"]),
        ],
        exception_handlers={Refused: refuse, ExpertLensError: refuse},
    )


async def read_body(content_type: str, stream: AsyncIterator[bytes]) -> dict[str, Any]:
    """Return a request's JSON object.

    Raises:
      Refused: it is too long, of another type, or no object.
    """
    if content_type.partition(";")[0].strip() != "application/json":
        raise Refused(415, "wanted JSON, Content-Type: application/json.")
    body = b""
    async for part in stream:
        body += part
        if len(body) > MOST["body"]:
            raise Refused(413, f"the request has more than {MOST['body']:,} bytes.")
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise Refused(400, "the request is no JSON object.")
    return asked


@dataclasses.dataclass(frozen=True, eq=False)
class TraceQuestion:
    """A text, and units to read at its tokens."""

    of: Loaded
    text: str
    units: list[tuple[int, str, int]]


@dataclasses.dataclass(frozen=True, eq=False)
class WriteQuestion:
    """A prompt to go on with, unsteered and steered."""

    of: Loaded
    prompt: str
    concept: str
    count: int
    strength: float
    method: str
    seed: int
    temperature: float
    new_tokens: int

    def steering(self) -> Steering:
        """Return the concept's experts, set as asked."""
        own = self.of.expertise.sel(concept=np.array([self.concept], object))  # one concept's units are read
        return steer(own, self.concept, top=self.count, method=self.method, strength=self.strength)


def check_trace(asked: Mapping[str, Any], tables: Mapping[str, Loaded]) -> TraceQuestion:
    """Return what is asked, within bounds.

    Raises:
      Refused: it isn't.
    """
    _check_names(asked, ("table", "text", "units"))
    units = asked["units"]
    if not isinstance(units, list) or not 1 <= len(units) <= MOST["units"]:
        raise Refused(400, f"wanted 1 to {MOST['units']} units.")
    for unit in units:
        if not (isinstance(unit, list) and len(unit) == 3 and isinstance(unit[1], str)) or not all(
            _is_whole(each) for each in (unit[0], unit[2])
        ):
            raise Refused(400, 'a unit is its layer, site and channel, as [2, "mlp.up", 417].')
    return TraceQuestion(_table(asked, tables), _text(asked, "text"), [tuple(unit) for unit in units])


def check_write(asked: Mapping[str, Any], tables: Mapping[str, Loaded]) -> WriteQuestion:
    """Return what is asked, within bounds.

    Raises:
      Refused: it isn't.
      SelectionError: a concept that isn't in the table.
    """
    names = ("table", "prompt", "concept", "count", "strength", "method", "seed", "temperature", "newTokens")
    _check_names(asked, names)
    of = _table(asked, tables)
    if not of.writes:
        raise Refused(400, f"{of.model.name} is {of.model.config.kind}, which writes nothing.")
    if not isinstance(asked["concept"], str):
        raise Refused(400, "the concept is no text.")
    check_known_concepts(of.expertise, (asked["concept"],))
    if asked["method"] not in of.described()["methods"]:
        raise Refused(400, f"wanted a method of {', '.join(of.described()['methods'])}.")
    return WriteQuestion(
        of=of,
        prompt=_text(asked, "prompt"),
        concept=asked["concept"],
        count=_whole(asked, "count", 1, MOST["steered"]),
        strength=_number(asked, "strength", 0, 1),
        method=asked["method"],
        seed=_whole(asked, "seed", 0, 2**31 - 1),
        temperature=_number(asked, "temperature", 0, 5),
        new_tokens=_whole(asked, "newTokens", 1, MOST["newTokens"]),
    )


def _check_names(asked: Mapping[str, Any], names: tuple[str, ...]) -> None:
    if set(asked) != set(names):
        raise Refused(400, f"wanted exactly {', '.join(names)}.")


def _table(asked: Mapping[str, Any], tables: Mapping[str, Loaded]) -> Loaded:
    if not isinstance(asked["table"], str) or asked["table"] not in tables:
        raise Refused(400, f"wanted a table with a model that is loaded: {', '.join(tables)}.")
    return tables[asked["table"]]


def _text(asked: Mapping[str, Any], name: str) -> str:
    text = asked[name]
    if not isinstance(text, str) or not text.strip():
        raise Refused(400, f"the {name} is empty.")
    if len(text) > MOST["characters"]:
        raise Refused(400, f"the {name} has {len(text):,} characters; wanted at most {MOST['characters']:,}.")
    return text.encode("utf-8", "replace").decode()  # half of a surrogate pair is no character


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _whole(asked: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = asked[name]
    if not _is_whole(value) or not least <= value <= most:
        raise Refused(400, f"{name} should be a whole number from {least:,} to {most:,}.")
    return value


def _number(asked: Mapping[str, Any], name: str, least: float, most: float) -> float:
    value = asked[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise Refused(400, f"{name} should be a number from {least} to {most}.")
    return float(value)


def read_text(question: TraceQuestion) -> dict[str, Any]:
    """Return a text's tokens, and what the units say at each: what `el.trace` gives, tokens by tokens of the text."""
    model, text = question.of.model, question.text
    seen = trace(
        model,
        [text],
        question.units,
        tokens_per_batch=model.config.max_tokens,  # one text in its batch: it is being typed
        truncate=bool(question.of.expertise.attrs.get("truncate", False)),
    )
    own = seen.in_pool[0]
    return {
        "tokens": cut(text, seen.spans[0][own]),
        "activations": [exact(row) for row in seen.activations[0][own].T],
    }


class Writing:
    """Both texts, written by workers; `lines` tells of them as they grow."""

    def __init__(
        self,
        question: WriteQuestion,
        workers: concurrent.futures.Executor,
        stopping: threading.Event,
        release: Callable[[], None],
    ) -> None:
        """Start; when both texts have ended, however they do, `release` is called. For a coroutine of the server."""
        self._question, self._stopping, self._left = question, stopping, threading.Event()
        self._loop, self._lines = asyncio.get_running_loop(), asyncio.Queue()
        self._columns = ("plain", "steered")
        self._release, self._ending, self._running = release, threading.Lock(), len(self._columns)
        for column in self._columns:
            workers.submit(self._write, column)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield JSON, a line each: `{"column", "text"}`, and of each column last `{"column", "done": true}`.

        A column that can't be written has `error` in its last line. A reader who leaves stops both at their next token.
        """
        done = 0
        try:
            while done < len(self._columns):
                line = await self._lines.get()
                done += bool(line.get("done"))
                yield json.dumps(line).encode() + b"\n"
        finally:
            self._left.set()

    def _tell(self, column: str, **said: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
            self._loop.call_soon_threadsafe(self._lines.put_nowait, {"column": column} | said)

    def _write(self, column: str) -> None:
        def on_token(row: int, token_id: int, text: str) -> None:
            del row, token_id
            if self._left.is_set() or self._stopping.is_set():
                raise _Stopped
            self._tell(column, text=text)

        question, failed = self._question, {}
        try:
            generate(
                question.of.model,
                question.prompt,
                max_new_tokens=question.new_tokens,
                temperature=question.temperature,
                seed=question.seed,
                steering=question.steering() if column == "steered" else None,
                on_token=on_token,
            )
        except _Stopped:
            pass
        except ExpertLensError as error:
            failed = {"error": str(error)}
        except Exception:
            traceback.print_exc()
            failed = {"error": "the model failed; the terminal shows why."}
        with self._ending:
            self._running -= 1
            if not self._running:
                self._release()  # before the last line is told: who has read it may ask again
        self._tell(column, done=True, **failed)
