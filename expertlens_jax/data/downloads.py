"""A file of the web whose bytes are known beforehand: fetched once, checked, and kept."""

import hashlib
import http.client
import os
import pathlib
import tempfile
import time
import urllib.error
import urllib.request

from expertlens_jax.errors import ExpertLensError

ATTEMPTS = 4
TIMEOUT = 30  # seconds without a byte
RETRIED = (408, 429, 500, 502, 503, 504)


class DownloadError(ExpertLensError):
    """A file that can't be fetched or kept, or isn't what it should be."""


def is_intact(path: pathlib.Path, sha256: str) -> bool:
    """Return whether the file is there with these very bytes."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def download(url: str, path: pathlib.Path, sha256: str) -> None:
    """Fetch a file to `path`, whole or not at all, with `path`'s directory made where it isn't there.

    A busy server, or a connection that breaks, is asked again with growing pauses.

    Raises:
      DownloadError: it can't be fetched or written, or has another SHA-256; `path` is then as it was.
    """
    data = _fetch(url)
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DownloadError(
            f"{url} holds other bytes than it did: its SHA-256 is {found}, wanted is {sha256}; it was changed there, "
            "or something on the way (a proxy's page?) answered in its place"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as partial:
            partial.write(data)
        os.replace(partial.name, path)  # in one step: another process never sees half of it
    except OSError as error:
        raise DownloadError(
            f"{path} can't be written ({error}); set EXPERTLENS_CACHE to a directory that can"
        ) from error


def _fetch(url: str) -> bytes:
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(2 ** (attempt - 1))
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            problem = f"{url} answered HTTP {error.code} ({error.reason})"
            if error.code not in RETRIED:
                raise DownloadError(problem) from error
        except urllib.error.URLError as error:  # no connection at all: most likely offline, so no use in waiting
            raise DownloadError(f"{url} can't be reached ({error.reason})") from error
        except ValueError as error:
            raise DownloadError(f"{url!r} is no address that can be fetched ({error})") from error
        except (OSError, http.client.HTTPException) as error:
            problem = f"the connection to {url} broke ({type(error).__name__}: {error})"
    raise DownloadError(f"{problem}, {ATTEMPTS} times")
