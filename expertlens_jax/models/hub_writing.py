"""Writes files into a repository of the hub: what is there is looked at first, and all files come in one commit."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Generator, Mapping, Sequence

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors
from huggingface_hub.utils import validate_repo_id

from expertlens_jax.errors import HubError
from expertlens_jax.models.hub import REPOSITORY, TransportError, at, first_line, patiently


@dataclasses.dataclass(frozen=True)
class Target:
    """A branch of a repository as it was found, before anything is written."""

    repo: str
    revision: str
    """The branch."""
    exists: bool = False
    """Whether the repository does."""
    private: bool | None = None
    """Whether it is, if it exists."""
    head: str | None = None
    """The commit that the next one would follow; None in a repository that isn't made yet."""
    branched: bool = True
    """Whether the branch exists. One that doesn't starts at the repository's first commit, so that it holds nothing."""
    names: tuple[str, ...] = ()
    """Files there."""


def check_target(repo: str, revision: str | None, token: str | bool | None) -> None:
    """Refuse a repository or branch that has no such name, or a push that can't succeed, before any work.

    Raises:
      HubError: a malformed id; no token; the hub's library is told to stay offline.
    """
    given = isinstance(repo, str) and REPOSITORY.fullmatch(repo) is not None
    try:
        if not given:
            raise hub_errors.HFValidationError("an owner, a slash, and a name of letters, digits, -, _ and .")
        validate_repo_id(repo)
    except hub_errors.HFValidationError as error:
        raise HubError(
            f"{repo!r} was given as the repository to push to; wanted its id, as in 'your-name/cat-experts' ({error})."
        ) from None
    if revision is not None and (not isinstance(revision, str) or not revision or _is_commit(revision)):
        raise HubError(f"revision={revision!r} was given; wanted the name of a branch, which is made if need be.")
    if constants.HF_HUB_OFFLINE:
        raise HubError(f"HF_HUB_OFFLINE is set, and pushing to {repo} needs {constants.ENDPOINT}. Unset it to push.")
    if token is False or (not isinstance(token, str) and huggingface_hub.get_token() is None):
        raise HubError(
            f"pushing to {repo} needs a token that may write there, and there is none. Make one at "
            f"{constants.ENDPOINT}/settings/tokens; then log in with `hf auth login`, set HF_TOKEN, or pass token=..."
        )


def _is_commit(revision: str) -> bool:
    return constants.REGEX_COMMIT_OID.fullmatch(revision) is not None


def look_at(repo: str, revision: str | None, token: str | bool | None) -> Target:
    """Return a branch as it is now; write nothing.

    Raises:
      HubError: the hub can't be reached, or refuses; or the revision is a tag.
    """
    api, branch = huggingface_hub.HfApi(token=token), revision or constants.DEFAULT_REVISION
    with _explained(repo, "Nothing was written."):
        try:
            private = patiently(lambda: api.model_info(repo)).private
        except hub_errors.RepositoryNotFoundError:
            return Target(repo, branch)
        refs = patiently(lambda: api.list_repo_refs(repo))
        heads = {each.name: each.target_commit for each in refs.branches}
        if branch not in heads and branch in [each.name for each in refs.tags]:
            raise HubError(f"revision={branch!r} is a tag of {repo}, which stays as it is. Give a branch's name.")
        branched = branch in heads
        head = heads[branch] if branched else patiently(lambda: api.list_repo_commits(repo))[-1].commit_id
        info = patiently(lambda: api.model_info(repo, revision=head))
        names = tuple(sorted(file.rfilename for file in info.siblings or ()))
    return Target(repo, branch, True, private, head, branched, names)


def write_files(
    target: Target,
    files: Mapping[str, pathlib.Path],
    outdated: Sequence[str],
    *,
    private: bool | None,
    message: str,
    token: str | bool | None,
) -> huggingface_hub.CommitInfo:
    """Write files in one commit, so that they never disagree; make the repository and the branch if they aren't there.

    Args:
      target: from `look_at`; if the branch has moved since, the hub refuses.
      files: by their names in the repository.
      outdated: names of files there that go.
      private: of a repository that is made; None leaves it to the owner's settings.
      message: of the commit.
      token: of the hub; default the one logged in with.

    Raises:
      HubError: the hub refuses, or can't be reached; says what was written.
    """
    api, repo = huggingface_hub.HfApi(token=token), target.repo
    if not target.exists:
        with _explained(repo, "Nothing was written."):
            api.create_repo(repo, private=private)
    made = "Nothing was written." if target.exists else "The repository was made, and is empty."
    with _explained(repo, f"{made} What is pushed comes whole or not at all: push again."):
        if not target.branched:
            api.create_branch(repo, branch=target.revision, revision=target.head)
        elif not target.exists and target.revision != constants.DEFAULT_REVISION:
            api.create_branch(repo, branch=target.revision)
        return api.create_commit(
            repo,
            [
                *(huggingface_hub.CommitOperationAdd(name, path) for name, path in files.items()),
                *(huggingface_hub.CommitOperationDelete(name) for name in outdated),
            ],
            commit_message=message,
            revision=target.revision,
            parent_commit=target.head,
        )


@contextlib.contextmanager
def _explained(repo: str, state: str) -> Generator[None]:
    """Turn what the hub's library raises into one paragraph that says what to do, and what the state of things is.

    Raises:
      HubError: with it.
    """
    hub = constants.ENDPOINT
    try:
        yield
        return
    except HubError:
        raise
    except hub_errors.OfflineModeIsEnabled as error:
        cause, message = error, f"HF_HUB_OFFLINE is set, and pushing to {repo} needs {hub}. Unset it to push."
    except (TransportError, OSError, RuntimeError, ValueError) as error:
        # An upload's error is wrapped, and the one within tells more.
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        status = cause.response.status_code if isinstance(cause, hub_errors.HfHubHTTPError) else None
        match status:
            case 401 | 403 | 404:
                message = (
                    f"{hub} doesn't let this token write to {repo} (HTTP {status}). Give a token "
                    f"that may (kind: write) of {repo.partition('/')[0]} or a member, from {hub}/settings/tokens: "
                    "token=..., HF_TOKEN, or `hf auth login`."
                )
            case 409:
                message = f"{repo} was made on {hub} meanwhile, or is there and this token may not see it."
            case 412:
                message = f"{repo} has changed on {hub} since it was looked at. Look what is there, and push again."
            case 429:
                message = f"{hub} limits how often you may write (HTTP 429). Wait some minutes."
            case None if "xet-" in str(cause):
                message = (
                    f"{hub} has no Xet store, where huggingface_hub would put files: {first_line(cause)} Set "
                    "HF_HUB_DISABLE_XET=1, and they go to its LFS store."
                )
            case None if isinstance(cause, ValueError):
                message = f"{hub} doesn't take what was given for {repo}: {' '.join(str(cause).split())}"
            case None:
                message = f"{hub} can't be reached, or broke off: {type(cause).__name__}: {first_line(cause)}"
            case _:
                message = f"{hub} answered HTTP {status} for {repo}: {first_line(cause)} Try again later."
    raise HubError(f"{message} {state}") from cause


def named(target: Target) -> str:
    """Return a repository's id, with the branch unless it is the main one."""
    return target.repo + at(None if target.revision == constants.DEFAULT_REVISION else target.revision)
