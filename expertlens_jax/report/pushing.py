"""Pushes a table of expertise or a steering into a repository of the hub, with a card that says what it is of."""

import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import huggingface_hub
import xarray as xr
from etils import epath

from expertlens_jax.analysis.structure.localisation import count_experts
from expertlens_jax.cards import listed
from expertlens_jax.errors import HubError, SelectionError
from expertlens_jax.experts.directions import is_directions
from expertlens_jax.experts.scores import check_threshold, described
from expertlens_jax.experts.selection import average_precision, select_experts
from expertlens_jax.experts.table import PACKED, STORE, open_expertise, pack_table, read_progress
from expertlens_jax.models.hub_writing import Target, check_target, look_at, named, write_files
from expertlens_jax.models.model import Model
from expertlens_jax.models.steering import Steering
from expertlens_jax.models.steering_files import STEERING, load_steering
from expertlens_jax.plot.localisation_figures import plot_localisation
from expertlens_jax.report.hub_card import FIGURE, can_be_drawn, write_expertise_card, write_steering_card

CARD = "README.md"
_UNMARKED = (".gitattributes",)
"""What the hub itself puts into a repository."""


def push(
    thing: xr.Dataset | Steering | str | os.PathLike[str],
    repo: str,
    *,
    revision: str | None = None,
    private: bool | None = None,
    overwrite: bool = False,
    message: str | None = None,
    threshold: float | None = None,
    about: str = "",
    license: str | None = None,
    base_model: str | None = None,
    datasets: Sequence[str] = (),
    token: str | bool | None = None,
) -> huggingface_hub.CommitInfo:
    """Push a table of expertise or a steering to a repository of the Hugging Face hub, with a card.

        el.push(expertise, "your-name/cat-experts", private=True, license="cc-by-4.0")
        el.push(el.steer(expertise, "cat", top=50), "your-name/cat-steering")
        expertise = el.open_expertise("your-name/cat-experts")
        steering = el.load_steering("your-name/cat-steering")

    The repository is made if need be. What is pushed, its card and its figure come in one commit, so that they never
    disagree; the same thing pushed twice makes none. The card tells the model and its digest, the concepts and
    the sentence set's name and digest, the settings, how many experts there are and which are best, or which units a
    steering changes and how; and how to load it. It never holds a sentence: neither does the table. Names
    of concepts, domains, models, sentence sets and labels are in both.

    Args:
      thing: a table of expertise, from `measure_expertise`, `find_experts` or `open_expertise`; a `Steering`; the
        directory of a finished run of `find_experts`; or the file of a saved steering.
      repo: the repository's id, `owner/name`.
      revision: a branch, which is made if need be, and then starts empty; default the main one.
      private: whether a repository that is made is; None leaves it to the owner's settings. One that exists stays as it
        is, and is refused if it is the other.
      overwrite: whether to replace what an earlier push left there, which stays in the repository's history. What is of
        another kind, such as a model, or a steering where a table comes, is never overwritten.
      message: of the commit.
      threshold: of a table: the average precision from which on the card counts a unit as an expert; default 0.5.
      about: a paragraph of yours for the card, in Markdown.
      license: of what you push, by the hub's name for it, such as "cc-by-4.0".
      base_model: the model's id on the hub, where its name isn't that.
      datasets: ids of the sentences' datasets on the hub, where there are any.
      token: of the hub, that may write; default the one logged in with (`hf auth login`), or HF_TOKEN.

    Returns:
      The commit, as huggingface_hub has it: the text is its address, and `.oid` is a `revision` to load it by.

    Raises:
      HubError: something else than a table or a steering, or a run that isn't done; a malformed id; no token, or one
        that may not write there; a hub that can't be reached; a repository that holds something else.
      SelectionError: a threshold that no unit could meet or miss, or one of a steering.

    >>> import expertlens_jax as el
    >>> model = el.load_model("lenslet-2m")
    >>> try:
    ...     el.push(model.units, "your-name/units")
    ... except el.ExpertLensError as error:
    ...     print(str(error).partition(";")[0])
    a DataFrame was given to be pushed
    """
    thing = _thing_of(thing)
    if isinstance(thing, Steering) and threshold is not None:
        raise SelectionError(f"threshold={threshold!r} is of a table of expertise, and a steering was given. Leave it.")
    threshold = check_threshold(0.5 if threshold is None else threshold, "average_precision")
    front: dict[str, Any] = {"about": about, "license": license, "base_model": base_model, "datasets": datasets}
    _check_texts({"message": message, **front})
    check_target(repo, revision, token)
    kind = STEERING if isinstance(thing, Steering) else PACKED
    target = look_at(repo, revision, token)
    _check_room(target, kind, private, overwrite)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        write_folder(thing, folder, repo, revision, threshold, **front)
        what = "A steering" if isinstance(thing, Steering) else "A table of expertise"
        files = {path.name: path for path in sorted(folder.iterdir())}
        return write_files(
            target,
            files,
            [name for name in target.names if name not in (*files, *_UNMARKED)],
            private=private,
            message=message or f"{what} of {_model_of(thing)}",
            token=token,
        )


def write_folder(
    thing: xr.Dataset | Steering,
    folder: pathlib.Path,
    repo: str,
    revision: str | None,
    threshold: float,
    **front: Any,
) -> None:
    """Write into a directory here all that a push puts into a repository: the thing, its card, and its figure.

    Args:
      thing: a table of expertise, or a steering.
      folder: which exists.
      repo: the repository's id, for the card.
      revision: the branch, for the card.
      threshold: from which on the card counts experts.
      **front: further arguments of the card's writer, see `hub_card`.
    """
    if isinstance(thing, Steering):
        thing.save(folder / STEERING)
        (folder / CARD).write_text(write_steering_card(thing, repo, revision, **front), encoding="utf-8")
        return
    pack_table(thing, folder / PACKED)
    card = write_expertise_card(thing, repo, revision, threshold=threshold, **front)
    (folder / CARD).write_text(card, encoding="utf-8")
    if can_be_drawn(thing):
        figure = plot_localisation(count_experts(select_experts(thing, threshold)))
        figure.savefig(folder / FIGURE, dpi=150)


def _thing_of(given: Any) -> xr.Dataset | Steering:
    """Return the table or steering that was given, or that stands at a path.

    Raises:
      HubError: it is something else; the message says what can be pushed, and how this might be.
    """
    if isinstance(given, str | os.PathLike):
        return _thing_at(epath.Path(given))
    if isinstance(given, Steering):
        if not len(given):
            raise HubError(f"{given!r} changes no unit, so there is nothing to push.")
        return given
    if isinstance(given, xr.Dataset) and not is_directions(given):
        try:
            precision = average_precision(given)
        except SelectionError as error:
            raise HubError(f"{described(given)} was given to be pushed; wanted a table of expertise: {error}") from None
        if not precision.size:
            raise HubError("a table of no concepts or no units was given, so there is nothing to push.")
        return given
    advice = ""
    if isinstance(given, xr.DataArray) and given.dtype == bool:
        advice = " Of expert sets, push the table that they were selected from: el.push(expertise, ..., threshold=...)."
    elif isinstance(given, xr.Dataset):
        advice = " Of directions, push the steering along one: el.push(el.steer(directions, concept, layers=...), ...)."
    elif isinstance(given, Model):
        advice = " A model's checkpoint is pushed with transformers: hf_model.push_to_hub(...)."
    raise HubError(
        f"{described(given)} was given to be pushed; wanted a table of expertise (el.measure_expertise, "
        "el.find_experts, el.open_expertise), a steering (el.steer, el.steer_units, el.learn_steering), or the path of "
        f"a run's directory or of a saved steering.{advice}"
    )


def _thing_at(path: epath.Path) -> xr.Dataset | Steering:
    if path.is_file() and path.suffix == ".json":
        return _thing_of(load_steering(path))
    if path.is_file() or not path.exists():
        what = "is neither a steering that was saved (.json) nor a directory" if path.exists() else "doesn't exist"
        raise HubError(f"{path} was given to be pushed, and {what}. Give a run's directory, or a saved steering.")
    inner = path / "expertise"
    if not (path / STORE).exists() and inner.is_dir():
        tables = listed(sorted(each.name for each in inner.iterdir() if (each / STORE).exists()))
        raise HubError(
            f"{path} is a run of several tables: give one, {inner / 'NAME'}, of {tables or 'which none is there'}."
        )
    if not (path / STORE).exists():
        raise HubError(f"{path} holds no {STORE}, so it is no run with a table of expertise. Give another directory.")
    if not read_progress(path).complete:
        raise HubError(f"the run in {path} isn't done, and only a whole table is pushed. Launch it again to finish it.")
    return open_expertise(path)


def _check_texts(given: dict[str, Any]) -> None:
    """Refuse what can't stand in a card or a commit.

    Raises:
      HubError: it is no text, or, of datasets, no list of texts.
    """
    datasets = given.pop("datasets")
    if isinstance(datasets, str) or not all(isinstance(each, str) for each in datasets):
        raise HubError(f"datasets={datasets!r} was given; wanted a list of ids of datasets on the hub, as texts.")
    for name, value in given.items():
        if not isinstance(value, str | None) or (value is None and name == "about"):
            raise HubError(f"{name}={value!r} was given; wanted a text.")


def _check_room(target: Target, kind: str, private: bool | None, overwrite: bool) -> None:
    """Refuse a repository that holds what mustn't be lost, or that others can see against the user's will.

    Raises:
      HubError: it does.
    """
    if private is not None and target.exists and bool(target.private) != private:
        is_now = "private" if target.private else "public"
        raise HubError(
            f"private={private} was given, and {target.repo} is there and {is_now}. Nothing was written. Change that "
            "in its settings on the hub, or leave private out."
        )
    there = [name for name in target.names if name not in _UNMARKED]
    own = {kind, CARD, *([FIGURE] if kind == PACKED else [])}
    others = [name for name in there if name not in own]
    if others:
        raise HubError(
            f"{named(target)} holds {listed(others, 6)}, which is not for this push to replace. Nothing was written. "
            "Push to another repository, or to a branch of its own: revision='NAME'."
        )
    if there and not overwrite:
        raise HubError(
            f"{named(target)} holds {listed(there, 6)} already. Nothing was written. overwrite=True replaces them in a "
            "new commit, and leaves the old ones in the repository's history; revision='NAME' pushes to a branch of "
            "its own."
        )


def _model_of(thing: xr.Dataset | Steering) -> str:
    return thing.model if isinstance(thing, Steering) else str(thing.attrs.get("model", "an unnamed model"))
