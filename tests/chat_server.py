"""An OpenAI-compatible endpoint on loopback that answers with lists, errs, stalls and talks nonsense as it is told."""

import contextlib
import dataclasses
import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator

PLACES = "garden kitchen harbour market station meadow library valley tower bridge cellar attic".split()


def write_list(prompt: str, start: int = 0, count: int = 5) -> str:
    """A numbered list of sentences, each another, with the word that the prompt has in quotes."""
    word = re.search('"([^"]+)"', prompt).group(1)
    sentences = (
        f"Somebody left a {word} in the {PLACES[i % 12]} on day {i} of spring." for i in range(start, start + count)
    )
    return "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(sentences, start=1))


def completion(text: str | None, **fields: object) -> bytes:
    """The body of a good response."""
    message = {"role": "assistant", "content": text}
    return json.dumps({"model": "stub-1", "choices": [{"index": 0, "message": message}], **fields}).encode()


@dataclasses.dataclass
class Chat:
    """What the server does and saw."""

    url: str = ""
    script: list[object] = dataclasses.field(default_factory=list)
    """What happens to the next requests, in turn: a status, (status, headers, body), a text to answer with, or
    "stall", "trickle", "drop". When it has run out, `answer` answers."""
    answer: Callable[[str, int], str] = lambda prompt, asked: write_list(prompt, 5 * asked)
    """From the prompt and how often was asked before."""
    prompts: list[str] = dataclasses.field(default_factory=list)
    bodies: list[dict] = dataclasses.field(default_factory=list)
    paths: list[str] = dataclasses.field(default_factory=list)
    keys: list[str | None] = dataclasses.field(default_factory=list)
    """Authorization headers."""
    over: threading.Event = dataclasses.field(default_factory=threading.Event)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    chat: Chat

    def log_message(self, *args):
        pass

    def respond(self, status: int, headers: dict[str, str], body: bytes):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.chat.paths.append(f"GET {self.path}")
        self.respond(200, {}, completion("a redirect was followed"))

    def do_POST(self):
        chat = self.chat
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = len(chat.prompts)
        chat.paths.append(self.path)
        chat.bodies.append(body)
        chat.prompts.append(body["messages"][-1]["content"])
        chat.keys.append(self.headers.get("Authorization"))
        match chat.script.pop(0) if chat.script else None:
            case "stall":
                chat.over.wait(5)
                self.close_connection = True
            case "trickle":
                self.send_response(200)
                self.end_headers()
                while not chat.over.wait(0.05):
                    self.wfile.write(b" ")
                    self.wfile.flush()
            case "drop":
                self.close_connection = True
            case int(status):
                self.respond(status, {}, b"")
            case str(text):
                self.respond(200, {}, completion(text))
            case (status, headers, content):
                self.respond(status, headers, content)
            case None:
                self.respond(200, {}, completion(chat.answer(chat.prompts[-1], asked)))


@contextlib.contextmanager
def serve() -> Iterator[Chat]:
    """Runs the endpoint on a port of this machine."""
    chat = Chat()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"chat": chat}))
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # a client that stopped waiting
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    chat.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield chat
    finally:
        chat.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
