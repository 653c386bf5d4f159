"""Asks an OpenAI-compatible endpoint, `POST URL/chat/completions`, and waits where it asks for that.

With urllib: one small request at a time needs no more, and no HTTP client is among what the package asks for.
"""

import dataclasses
import email.utils
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any, cast

from expertlens_jax.cards import counted
from expertlens_jax.errors import EndpointError
from expertlens_jax.sentences.writing import Answer

_PASSING = (408, 409, 425, 429)
"""Statuses that may pass, as do all of 500 and above."""
_MOST_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where and how to ask."""

    url: str
    """Such as https://api.openai.com/v1."""
    model: str
    key: str = dataclasses.field(repr=False)
    """"" where none is wanted."""
    key_variable: str
    body: Mapping[str, Any]
    """Fields of every request beside model, messages and seed; they replace these too, and None leaves one out."""
    timeout: float
    """Seconds until an answer must be whole."""
    tries: int
    longest_wait: float
    """Seconds between two tries, at most."""


def open_endpoint(
    url: str,
    model: str,
    *,
    key_variable: str = "",
    body: Mapping[str, Any] | None = None,
    timeout: float = 120.0,
    tries: int = 6,
    longest_wait: float = 60.0,
) -> Endpoint:
    """Return an endpoint with its key, which is taken from the environment; nothing is asked yet.

    Args:
      url: up to and without `/chat/completions`.
      model: as the endpoint names it.
      key_variable: the environment variable that holds the key; "" sends none.
      body: further fields of a request; None as a value leaves a field out.
      timeout: seconds until an answer must be whole.
      tries: how often to ask before giving up, where the trouble may pass.
      longest_wait: seconds to wait between two tries, at most.

    Raises:
      EndpointError: a setting that can't be, or a key that isn't there. No message shows a key.
    """
    key = _read_key(key_variable)
    try:
        parts = urllib.parse.urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets of an IPv6 address, or a port that is no number
        whole = False
    if "@" in url:
        raise EndpointError(
            "endpoint.url holds a name or password. Leave it out, and put the key into an environment variable named "
            "by endpoint.key_variable."
        )
    if not whole or not url.isascii() or re.search(r"\s", url):
        raise EndpointError(
            f"endpoint.url is {url!r}; wanted an address such as https://api.openai.com/v1 or http://localhost:8000/v1"
        )
    if not model:
        raise EndpointError("endpoint.model is empty; name one of the endpoint's models, --config.endpoint.model=NAME")
    if not timeout > 0 or tries < 1 or longest_wait < 0:
        raise EndpointError(
            f"timeout is {timeout}, tries {tries}, longest_wait {longest_wait}; wanted seconds above 0, 1 or more "
            "tries, and seconds of 0 or more"
        )
    url = url.rstrip("/").removesuffix("/chat/completions")
    return Endpoint(url, model, key, key_variable, body or {}, timeout, tries, longest_wait)


def _read_key(variable: str) -> str:
    if not variable:
        return ""
    # A key given here by mistake would be printed, and kept in the run directory.
    if not re.fullmatch("[A-Z][A-Z0-9_]*", variable):
        raise EndpointError(
            "endpoint.key_variable must be the name of an environment variable, in capitals (OPENAI_API_KEY), never "
            "the key itself; what was given isn't one, and isn't shown"
        )
    key = os.environ.get(variable, "").strip()
    if not key:
        raise EndpointError(
            f"the environment variable {variable}, which should hold the endpoint's key, isn't set. Set it: "
            f"export {variable}=...; or, for an endpoint that wants none, --config.endpoint.key_variable="
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise EndpointError(
            f"the environment variable {variable} holds characters that no key has (spaces, line ends, or letters "
            "beyond ASCII); copy the key again"
        )
    return key


def ask_endpoint(
    endpoint: Endpoint,
    prompt: str,
    seed: int,
    *,
    tell: Callable[[str], None] = print,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """Ask once, and again where the trouble may pass.

    It may pass where there is no connection, an answer stalls or isn't what it should be, and with statuses 408, 409,
    425, 429 and from 500. The wait is what `Retry-After` says, else 1, 2, 4 ... seconds.

    Args:
      endpoint: from `open_endpoint`.
      prompt: the user's message.
      seed: sent as `seed`.
      tell: told of every trouble that was waited out.
      sleep: waits so many seconds.

    Raises:
      EndpointError: any other status, without another try; no answer after all tries; or a wait longer than
        `longest_wait`.
    """
    fields = {"model": endpoint.model, "messages": [{"role": "user", "content": prompt}], "seed": seed, **endpoint.body}
    data = json.dumps({name: value for name, value in fields.items() if value is not None}).encode()
    for attempt in range(endpoint.tries):
        wait = min(2.0**attempt, endpoint.longest_wait)
        try:
            status, headers, content = _post(endpoint, data)
        except TimeoutError:
            trouble = f"gave no whole answer within {endpoint.timeout:g} s"
        except (OSError, http.client.HTTPException) as problem:
            reason = getattr(problem, "reason", problem)
            if isinstance(reason, TimeoutError):
                trouble = f"gave no whole answer within {endpoint.timeout:g} s"
            else:
                trouble = f"can't be reached ({reason or type(problem).__name__})"
        else:
            if 200 <= status < 300:
                answer = _read_answer(endpoint, content)
                if isinstance(answer, Answer):
                    return answer
                trouble = answer
            elif status in _PASSING or status >= 500:
                trouble = f"answers {status}{_said(endpoint, content)}"
                asked = _retry_after(headers)
                wait = wait if asked is None else asked
            else:
                raise EndpointError(_advice(endpoint, status, headers, content))
        if attempt + 1 < endpoint.tries:
            if wait > endpoint.longest_wait:
                raise EndpointError(
                    f"{endpoint.url} {trouble}, and asks to wait {wait:.0f} s, longer than endpoint.longest_wait of "
                    f"{endpoint.longest_wait:g} s. Launch again after that, or raise it."
                )
            tell(f"{endpoint.url} {trouble}; asking again in {wait:.0f} s")
            sleep(wait)
    raise EndpointError(
        f"{endpoint.url} {trouble}, in {counted(endpoint.tries, 'try', 'tries one after the other')}. See whether it "
        "is up and the address right; where it is only slow, raise endpoint.timeout or endpoint.tries."
    )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the question into a GET, and take the key to another host."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        return None


def _post(endpoint: Endpoint, data: bytes) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body of the response."""
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "expertlens_jax"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    request = urllib.request.Request(f"{endpoint.url}/chat/completions", data, headers, method="POST")
    deadline = time.monotonic() + endpoint.timeout
    try:
        response = urllib.request.build_opener(_NoRedirects).open(request, timeout=endpoint.timeout)
    except urllib.error.HTTPError as refused:
        response = refused
    with cast(Any, response) as response:
        content = b""
        # The socket's own timeout starts anew with each byte.
        while chunk := response.read1(1 << 16):
            content += chunk
            if time.monotonic() > deadline:
                raise TimeoutError
            if len(content) > _MOST_BYTES:
                break
        return response.status, response.headers, content


def _read_answer(endpoint: Endpoint, content: bytes) -> Answer | str:
    """Return the answer in a response's body, or what is wrong with it.

    A message without content is an empty answer.
    """
    try:
        answered = json.loads(content)
        if not isinstance(answered, dict):
            raise TypeError
        if answered.get("error"):  # some gateways answer 200 with one
            return f"answers with an error{_said(endpoint, content)}"
        message = answered["choices"][0]["message"]
        text = message.get("content") or ""
        if isinstance(text, list):  # parts, and some are text
            text = "".join(part.get("text", "") for part in text)
        if not isinstance(text, str):
            raise TypeError
    except (ValueError, RecursionError):
        return f"answers with broken JSON{_quote(endpoint, content.decode(errors='replace'))}"
    except (KeyError, IndexError, TypeError, AttributeError):
        return f"answers without choices[0].message.content{_quote(endpoint, content.decode(errors='replace'))}"
    name = answered.get("model")
    return Answer(text, name if isinstance(name, str) and name else endpoint.model)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for, as a number or a date; None where it says nothing readable."""
    value = (headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _advice(endpoint: Endpoint, status: int, headers: Mapping[str, str], content: bytes) -> str:
    """Return what to tell of a status that won't pass."""
    said = f"{endpoint.url} answers {status}{_said(endpoint, content)}: "
    if status in (401, 403):
        if not endpoint.key:
            return said + "it wants a key. Name the environment variable that holds it, --config.endpoint.key_variable="
        return said + (
            f"it doesn't accept the key. See whether {endpoint.key_variable} holds this endpoint's key, and whether "
            f"that may use {endpoint.model!r}."
        )
    if status in (404, 405):
        return said + (
            f"there is no model {endpoint.model!r}, or no {endpoint.url}/chat/completions. See endpoint.model and "
            "endpoint.url, which often ends in /v1."
        )
    if 300 <= status < 400:
        place = (headers.get("Location") or "").removesuffix("/chat/completions")
        return said + f"it has moved{_quote(endpoint, place)}. Set endpoint.url to the new address, if you trust it."
    return said + (
        "it doesn't take the request. A field that it doesn't know can be left out or replaced, as in "
        """--config.endpoint.body='{"seed": null, "max_completion_tokens": 4096}'"""
    )


def _said(endpoint: Endpoint, content: bytes) -> str:
    """Return the endpoint's own words on an error."""
    text = content.decode(errors="replace")
    try:
        error = json.loads(text)["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return _quote(endpoint, str(text))


def _quote(endpoint: Endpoint, text: str) -> str:
    """Return the beginning of what an endpoint says, without the key should it stand there."""
    text = " ".join((text.replace(endpoint.key, "[key]") if endpoint.key else text).split())
    return f" ({text[:200]}{'...' if len(text) > 200 else ''})" if text else ""
