"""Which files of a hub repository are needed, and how to get them; with what to do when that fails."""

import contextlib
import dataclasses
import os
import pathlib
import re
import time
import warnings
from collections.abc import Callable, Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors

from expertlens_jax.cards import listed
from expertlens_jax.errors import CheckpointError, ExpertLensError, ExpertLensWarning
from expertlens_jax.models.weights import (
    ADAPTER_CONFIG,
    WEIGHT_FILES,
    choose_weights,
    import_torch,
    other_weights,
    shard_names,
)

Result = TypeVar("Result")

# The hub's library talks through httpx or, from its version 2, httpx2; the errors of either have this base.
TransportError: Any = hub_errors.HfHubHTTPError.__bases__[0]

CONFIG = "config.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",  # which tokens end a text
)
CHAT_TEMPLATES = "additional_chat_templates/"
SLOW_TOKENIZER = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model")
"""What a tokenizer is converted from where there is no tokenizer.json."""

RETRIED = (408, 429, 500, 502, 503, 504)
ATTEMPTS = 5

REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""What can be a repository's id; a path may look like one."""


@dataclasses.dataclass(frozen=True)
class Sought:
    """What is looked for in a repository: how it is called, and by which error it is missed."""

    what: str
    """As in "there is no model owner/name"."""
    needs: str
    """Which files it is made of, and what to do where one isn't there."""
    error: type[ExpertLensError]
    elsewhere: str
    """What a user who can't reach the hub may copy here instead, and give the path of."""


MODEL = Sought(
    "model",
    f"A model needs {CONFIG}, a tokenizer, and all the shards that its index names; tell its owner, or give another "
    "revision.",
    CheckpointError,
    "model's directory",
)


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A repository at one commit; its directory holds the files fetched so far."""

    repo: str
    revision: str | None
    """As the user gave it."""
    directory: pathlib.Path
    names: frozenset[str]
    """The repository's files; offline, those that were fetched before."""
    offline: Exception | None
    """Why the repository couldn't be listed, if so."""
    cache_dir: pathlib.Path
    token: str | bool | None

    @property
    def commit(self) -> str:
        """The commit's hash."""
        return self.directory.name


def open_snapshot(
    repo: str,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Snapshot:
    """Fetch a repository's config, or an adapter's, and lists its files at that commit.

    Args:
      repo: its id, `owner/name`.
      revision: a branch, tag or commit; default the main branch.
      cache_dir: where huggingface_hub keeps downloads; default its own.
      token: of the hub; default the one logged in with, if any.

    Raises:
      CheckpointError: the repository or revision is absent, gated or unreachable; says what to do.
    """
    cache = _downloads(cache_dir)

    def download(name: str) -> str:
        return patiently(
            lambda: huggingface_hub.hf_hub_download(repo, name, revision=revision, cache_dir=cache, token=token)
        )

    with explained(repo, revision, [CONFIG], cache):
        try:
            config = download(CONFIG)
        except hub_errors.RemoteEntryNotFoundError as absent:
            try:
                config = download(ADAPTER_CONFIG)
            except hub_errors.HfHubHTTPError:
                raise absent from None
    directory = pathlib.Path(config).parent
    offline = None
    try:
        with explained(repo, revision, [CONFIG], cache):
            info = patiently(
                lambda: huggingface_hub.HfApi(token=token).model_info(
                    repo, revision=directory.name, timeout=constants.HF_HUB_ETAG_TIMEOUT
                )
            )
        names = [file.rfilename for file in info.siblings or ()]
    except CheckpointError as error:  # with the files that are here already this needn't be the end
        names, offline = [path.name for path in directory.iterdir()], error
    return Snapshot(repo, revision, directory, frozenset(names), offline, cache, token)


def fetch_tokenizer(snapshot: Snapshot) -> None:
    """Fetch the tokenizer's files, and those that say how text is laid out and ends, as far as there are any."""
    wanted = TOKENIZER if "tokenizer.json" in snapshot.names else TOKENIZER + SLOW_TOKENIZER
    fetch(snapshot, [name for name in snapshot.names if name in wanted or name.startswith(CHAT_TEMPLATES)])


def fetch_weights(snapshot: Snapshot) -> None:
    """Fetch the weights: safetensors where there are any, otherwise PyTorch's, whole or in shards.

    Raises:
      CheckpointError: there are none that can be read, or they can't be fetched.
    """
    start = choose_weights(snapshot.names, snapshot.directory / CONFIG)
    if start is None and snapshot.offline is not None:
        raise CheckpointError(
            f"{snapshot.offline} The weights of {snapshot.repo} were not downloaded before: looked for "
            f"{', '.join(WEIGHT_FILES)} in {snapshot.directory}."
        ) from snapshot.offline
    if start is None:
        raise CheckpointError(
            f"{snapshot.repo}{at(snapshot.revision)} has no weights that can be read here: looked for "
            f"{', '.join(WEIGHT_FILES)} among {', '.join(sorted(snapshot.names))}.{other_weights(snapshot.names)}"
        )
    if start.startswith("pytorch_model.bin") and not (snapshot.directory / start).exists():
        import_torch(f"{start} of {snapshot.repo}{at(snapshot.revision)}")  # before gigabytes are fetched
    fetch(snapshot, [start])
    if start.endswith(".index.json"):
        fetch(snapshot, shard_names(snapshot.directory / start))


def fetch(snapshot: Snapshot, names: Collection[str]) -> None:
    """Fetch files of a snapshot that aren't here yet, several at once.

    Raises:
      CheckpointError: one is absent or unreachable, or its download breaks off again and again.
    """

    def fetch_one(name: str) -> None:
        patiently(
            lambda: huggingface_hub.hf_hub_download(
                snapshot.repo,
                name,
                revision=snapshot.commit,
                cache_dir=snapshot.cache_dir,
                token=snapshot.token,
            )
        )

    with (
        explained(snapshot.repo, snapshot.revision, names, snapshot.cache_dir),
        ThreadPoolExecutor(8) as pool,
    ):
        list(pool.map(fetch_one, names))


def fetch_file(
    repo: str,
    name: str,
    sought: Sought,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> pathlib.Path:
    """Fetch the one file of a repository that is, by itself, what is sought.

    Args:
      repo: its id, `owner/name`.
      name: of the file.
      sought: in what words, and by which error, it is missed.
      revision: a branch, tag or commit; default the main branch.
      cache_dir: where huggingface_hub keeps downloads; default its own.
      token: of the hub; default the one logged in with, if any.

    Raises:
      ExpertLensError: `sought.error`: the repository or revision is absent, closed or unreachable, or has no such file;
        says what it has.
    """
    cache = _downloads(cache_dir)
    with explained(repo, revision, [name], cache, sought):
        try:
            return pathlib.Path(
                patiently(
                    lambda: huggingface_hub.hf_hub_download(repo, name, revision=revision, cache_dir=cache, token=token)
                )
            )
        except hub_errors.RemoteEntryNotFoundError:
            api = huggingface_hub.HfApi(token=token)
            info = patiently(lambda: api.model_info(repo, revision=revision))
            there = sorted(file.rfilename for file in info.siblings or ())
            raise sought.error(
                f"{repo}{at(revision)} on {constants.ENDPOINT} holds no {sought.what}: it has no {name}, and has "
                f"{listed(there, 6) or 'no files'}. {sought.needs}"
            ) from None


def find_file(
    given: str | os.PathLike[str],
    name: str,
    sought: Sought,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> pathlib.Path | None:
    """Fetch the file of the repository that is meant; return None if what was given is a path, here or in a bucket.

    What exists here goes first. Settings of the hub beside a path are refused, for they would be ignored.

    Args:
      given: a path, or a repository's id.
      name: of the repository's file.
      sought: see `fetch_file`, as for the rest.

    Raises:
      ExpertLensError: `sought.error`, see `fetch_file`; or settings of the hub beside what isn't a repository's id.
    """
    settings = {"revision": revision, "cache_dir": cache_dir, "token": token}
    there = pathlib.Path(given).expanduser()
    if may_be_repository(given) and not there.exists():
        return fetch_file(str(given), name, sought, **settings)
    if asked := [f"{setting}={value!r}" for setting, value in settings.items() if value is not None]:
        asked = ["token=..." if each.startswith("token=") else each for each in asked]
        here = f"is a path here, {there.resolve()}," if there.exists() else "is no repository's id (owner/name),"
        raise sought.error(
            f"{os.fspath(given)} {here} and {', '.join(asked)} is of the hub. Leave it out; or, for the repository of "
            "that name, run from another directory."
        )
    return None


def may_be_repository(given: str | os.PathLike[str]) -> bool:
    """Return whether what was given can be a repository's id; a relative path may look like one."""
    file = os.fspath(given).endswith((".json", ".zip", ".zarr"))
    return isinstance(given, str) and REPOSITORY.fullmatch(given) is not None and not file


def warn_of_path(given: str | os.PathLike[str], sought: Sought, stacklevel: int = 3) -> None:
    """Tell that a path is taken for the repository whose id it could be too.

    Warns:
      ExpertLensWarning: it could.
    """
    if may_be_repository(given):
        warnings.warn(
            ExpertLensWarning(
                f"{given!r} is a path here, and the {sought.what} is loaded from it, {pathlib.Path(given).resolve()}; "
                f"a repository of the hub may be called so too. Write './{given}' to mean the path, without this "
                "warning; for the hub's, rename it or run from another directory."
            ),
            stacklevel=stacklevel,
        )


def _downloads(cache_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    return pathlib.Path(cache_dir or constants.HF_HUB_CACHE).expanduser()


def patiently(request: Callable[[], Result]) -> Result:
    """Make a request again when the hub is busy or the connection breaks, with growing pauses.

    The hub's own library does so for some of its requests; listing files and a connection reset are not
    among them.
    """
    for attempt in range(ATTEMPTS):
        try:
            return request()
        except hub_errors.HfHubHTTPError as error:
            if error.response.status_code not in RETRIED or attempt == ATTEMPTS - 1:
                raise
            pause = error.response.headers.get("Retry-After", "")
            time.sleep(min(int(pause), 300) if pause.isdigit() else 2**attempt)
        except TransportError as error:
            # No connection at all is most likely a machine that is offline: no use in waiting.
            if type(error).__name__.startswith("Connect") or attempt == ATTEMPTS - 1:
                raise
            time.sleep(2**attempt)
    raise AssertionError("unreachable")


@contextlib.contextmanager
def explained(
    repo: str, revision: str | None, names: Collection[str], cache_dir: pathlib.Path, sought: Sought = MODEL
) -> Generator[None]:
    """Turn what the hub's library raises into one paragraph that says what to do.

    Raises:
      ExpertLensError: `sought.error`.
    """
    hub, what = constants.ENDPOINT, f"{repo}{at(revision)}"
    try:
        yield
        return
    except hub_errors.HFValidationError as error:
        cause, message = (
            error,
            (f"{repo!r} is neither a path here nor the id of a {sought.what} on the hub (owner/name): {error}"),
        )
    except (TransportError, OSError, hub_errors.EntryNotFoundError) as error:
        # The library says "not cached" when a request failed; the request's own error tells more.
        inner = error.__cause__
        cause = inner if isinstance(inner, hub_errors.HfHubHTTPError) else error
        status = cause.response.status_code if isinstance(cause, hub_errors.HfHubHTTPError) else None
        match cause:
            case hub_errors.GatedRepoError():
                message = (
                    f"{repo} is gated: its owner asks you to accept terms first. Do so at {hub}/{repo}, then "
                    "pass token=... of that account, or log in with `hf auth login`."
                )
            case hub_errors.RepositoryNotFoundError():
                message = (
                    f"there is no {sought.what} {repo} on {hub} that you may see, and no directory of that name "
                    "here. Check the spelling; if it is private, pass token=... or run `hf auth login`."
                )
            case hub_errors.RevisionNotFoundError():
                message = (
                    f"{repo} has no revision {revision!r}. Its branches and tags are listed at {hub}/{repo}/tree/main."
                )
            case hub_errors.RemoteEntryNotFoundError():
                missing = [name for name in names if str(cause.response.url).endswith(name)] or list(names)
                message = f"{what} on {hub} has no {', '.join(missing)}. {sought.needs}"
            case hub_errors.HfHubHTTPError() if status in (401, 403):
                message = (
                    f"{hub} refused the token for {repo} (HTTP {status}). Pass a valid token=..., or log in "
                    "again with `hf auth login`."
                )
            case hub_errors.HfHubHTTPError() if status == 429:
                message = (
                    f"{hub} limits how often you may ask (HTTP 429), and still did after {ATTEMPTS} tries "
                    f"for {what}. Wait some minutes; with a token the limit is higher."
                )
            case hub_errors.HfHubHTTPError():
                message = f"{hub} answered HTTP {status} for {what}: {first_line(cause)} Try again later."
            case hub_errors.LocalEntryNotFoundError() | hub_errors.OfflineModeIsEnabled():
                offline = constants.HF_HUB_OFFLINE or isinstance(inner, hub_errors.OfflineModeIsEnabled)
                reason = "HF_HUB_OFFLINE is set" if offline else first_line(inner or cause)
                message = (
                    f"there is no path {repo} here, {hub} can't be reached ({reason}), and {', '.join(names)} of "
                    f"{what} {'is' if len(names) == 1 else 'are'} not among the downloads in {cache_dir}. Connect "
                    f"and try again, give the cache_dir that has them, or copy the {sought.elsewhere} here and "
                    "give its path."
                )
            case _:
                message = (
                    f"getting {', '.join(names)} of {what} from {hub} into {cache_dir} failed: "
                    f"{type(cause).__name__}: {first_line(cause)} What is complete is kept; try again."
                )
    raise sought.error(message) from cause


def at(revision: str | None) -> str:
    """Return what tells of a revision, for the end of a repository's name; nothing for none."""
    return "" if revision is None else f" at revision {revision}"


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its type's name, with a full stop."""
    lines = str(error).strip().splitlines()
    return f"{(lines or [type(error).__name__])[0].rstrip('.')}."
