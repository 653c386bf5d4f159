"""What readers of a live page may ask of its models, within bounds, and what the models answer.

A text is read at every token, or a prompt is gone on with, unsteered and steered. What one request may ask is bounded.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import json
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from expertlens_jax.cards import counted
from expertlens_jax.errors import ExpertLensError, SelectionError
from expertlens_jax.experts.steering import METHODS, check_known_concepts, steer
from expertlens_jax.experts.tracing import trace
from expertlens_jax.explorer.activations import cut
from expertlens_jax.explorer.chunks import exact
from expertlens_jax.models.addresses import format_address, locate_units, one_address
from expertlens_jax.models.causal import predicts
from expertlens_jax.models.generation import generate
from expertlens_jax.models.model import Model
from expertlens_jax.models.steering import Steering
from expertlens_jax.models.when import When

MOST = {"characters": 2000, "units": 20, "newTokens": 200, "steered": 5000, "body": 1 << 16}
"""What one request may ask for."""
_FLOAT32 = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """A table of expertise, and the model that it was measured with."""

    expertise: xr.Dataset
    model: Model

    @property
    def writes(self) -> bool:
        """Whether the model predicts next tokens: an encoder doesn't."""
        return predicts(self.model)

    def described(self) -> dict[str, Any]:
        """Return what the page is told of it."""
        methods = [name for name, method in METHODS.items() if set(method.needs) <= {*self.expertise.variables}]
        return {
            "model": self.model.name,
            "layers": self.model.config.num_layers,
            "maxTokens": self.model.config.max_tokens,
            "writes": self.writes,
            "methods": methods,
            "truncate": bool(self.expertise.attrs.get("truncate", False)),
        }


class Refused(Exception):
    """A request that can't be served as it is: its status, why, and the one name in it that is wrong, or ""."""

    def __init__(self, status: int, why: str, name: str = "") -> None:
        """Keep them."""
        super().__init__(why)
        self.status, self.name = status, name


class _Stopped(Exception):
    """The reader has left, or the server ends."""


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
    from_layer: int
    when: When | None

    def steering(self) -> Steering:
        """Return the concept's experts, set as asked."""
        steering = self._everywhere()
        return steering if self.when is None else steering.only(self.when)

    def _everywhere(self) -> Steering:
        own = self.of.expertise.sel(concept=np.array([self.concept], object))  # one concept's units are read
        there = sorted({int(layer) for layer in own["layer"].values})
        layers = [layer for layer in there if layer >= self.from_layer]
        if not layers:
            raise SelectionError(
                f"the table has units of layers {there[0]} to {there[-1]}, and none from layer {self.from_layer} on."
            )
        return steer(own, self.concept, top=self.count, method=self.method, strength=self.strength, layers=layers)

    def check_comes_first(self) -> None:
        """Refuse a condition by a unit that isn't known yet where the concept's experts are steered.

        What else is wrong with the steering is told where it is written.

        Raises:
          Refused: the model computes some of them before it.
        """
        try:
            everywhere = self._everywhere()
        except ExpertLensError:
            return
        try:
            if self.when is not None:
                everywhere.only(self.when)
        except SelectionError as error:
            raise Refused(400, str(error), "when") from error


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
    _check_names(asked, (*names, "fromLayer", "when"))
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
        from_layer=_whole(asked, "fromLayer", 0, of.model.config.num_layers - 1),
        when=_when(asked["when"], of.model),
    )


def _when(asked: Any, model: Model) -> When | None:
    """Return the condition that is asked for: a unit, by its address, that says more than a number, or less.

    Raises:
      Refused: it is none, or the model has no such unit.
    """
    if asked is None:
        return None
    if not isinstance(asked, dict) or set(asked) != {"unit", "above", "below"} or not isinstance(asked["unit"], str):
        raise Refused(400, "when should have a unit, as text, and above and below, as numbers or null.", "when")
    bounds = {name: asked[name] for name in ("above", "below") if asked[name] is not None}
    for name, value in bounds.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _FLOAT32:
            raise Refused(400, f"{name} should be a number.", "when")
    try:
        if not asked["unit"].strip():
            raise SelectionError(
                f"{' and '.join(bounds) or 'nothing'} was given, and no unit; wanted one such as "
                "L3 mlp.up 417, or nothing at all."
            )
        unit = one_address(asked["unit"][: MOST["characters"]], model.config)
        locate_units(model, unit)
        if not bounds:
            raise SelectionError(
                f"{format_address(unit)} was given without a number; say above or below which one it has to be."
            )
        return When(unit=unit, **bounds)
    except ExpertLensError as error:
        raise Refused(400, str(error), "when") from error


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
        raise Refused(400, f"the {name} has {counted(len(text), 'character')}; wanted at most {MOST['characters']:,}.")
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

        Where a steering applies only at some tokens, `{"column", "only"}` says at which, in words. A column that can't
        be written has `error` in its last line. A reader who leaves stops both at their next token.
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
        if column == "steered" and question.when is not None:
            self._tell(column, only=str(question.when))
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
