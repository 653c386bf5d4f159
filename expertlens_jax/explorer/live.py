"""The page of a run served from this machine with the model loaded: type a text, steer, and watch it write.

Whoever has the address, with the token in it, may ask; nobody else may. A request names no file, only a row of a table
that was made at the start. `live_questions` says what may be asked of the model; how many ask together is bounded here.
"""

import asyncio
import concurrent.futures
import contextlib
import errno
import hmac
import ipaddress
import os
import pathlib
import secrets
import socket
import threading
import types
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from etils import epath

from expertlens_jax.errors import ExpertLensError, RunDirectoryError, ServerError
from expertlens_jax.explorer.chunks import chunk_script
from expertlens_jax.explorer.live_questions import (
    MOST,
    Loaded,
    Refused,
    Writing,
    check_trace,
    check_write,
    read_body,
    read_text,
)
from expertlens_jax.explorer.served_files import MEDIA_TYPES, ServedFile, list_files
from expertlens_jax.explorer.site import write_site
from expertlens_jax.run_directory import is_local

LOOPBACK = "127.0.0.1"
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
      ServerError: starlette or uvicorn isn't installed; or the host or port isn't free.
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
        taken = "is in use" if error.errno in _IN_USE else f"can't be used ({error.strerror or error})"
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
        if question.when is not None:  # it reads the table, which may take a while
            await asyncio.get_running_loop().run_in_executor(workers, question.check_comes_first)
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
        named = {"name": error.name} if isinstance(error, Refused) and error.name else {}
        return JSONResponse({"error": str(error)} | named, status, headers=_HEADERS | after)

    return Starlette(
        routes=[
            Route("/live/trace", ask, methods=["POST"]),
            Route("/live/write", write, methods=["POST"]),
            Route("/{path:path}", file, methods=["GET"]),
        ],
        exception_handlers={Refused: refuse, ExpertLensError: refuse},
    )
