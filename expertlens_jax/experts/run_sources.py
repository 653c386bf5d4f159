"""A run's own sentences and model, so that their tokens can be read again; nothing else is taken for them."""

import dataclasses
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import xarray as xr
from etils import epath

from expertlens_jax.data.concepts import PACKAGED, ConceptDataset, load_concepts
from expertlens_jax.errors import CheckpointError, ConceptDataError, ExpertLensError
from expertlens_jax.models.digests import digest_json
from expertlens_jax.models.loading import load_model
from expertlens_jax.models.model import Model
from expertlens_jax.models.packaged import folder_in_package
from expertlens_jax.models.provenance import read_provenance


@dataclasses.dataclass(frozen=True)
class Given:
    """What the caller gave, to go before what the run's config names."""

    model: Model | None = None
    sentences: Sequence[ConceptDataset] = ()


def load_given(model: Model | epath.PathLike | None, sentences: Sequence[ConceptDataset | epath.PathLike]) -> Given:
    """Load what was given by name.

    Raises:
      ConceptDataError, CheckpointError: see `load_concepts` and `load_model`.
    """
    sentences = (sentences,) if isinstance(sentences, (str, pathlib.Path, ConceptDataset)) else sentences
    sets = [each if isinstance(each, ConceptDataset) else load_concepts(each) for each in sentences]
    if model is not None and not isinstance(model, Model):
        path, revision = _name_and_revision(str(model))
        model = load_model(path, revision=revision)
    return Given(model, sets)


def check_given(given: Given, measured: Sequence[xr.Dataset]) -> None:
    """Refuse a model, or sentences, with which none of some tables of expertise was measured.

    Raises:
      CheckpointError: the model is another.
      ConceptDataError: the sentences are others.
    """
    if given.model is not None and not any(is_model_of(given.model, each) for each in measured):
        raise CheckpointError(
            f"the run's tables are of {_names(measured, 'model')}, and {given.model.name} isn't what they were "
            "measured with: its weights, or how they are read, differ. Give the run's own model, or none."
        )
    for each in given.sentences:
        if not any(fitted(each, expertise) for expertise in measured):
            raise ConceptDataError(
                f"the sentences of {each.name!r} aren't those of the run's tables ({_names(measured, 'sentences')}): "
                "some differ, or their order or labels do. Give the run's own sentences, or none."
            )


def _names(tables: Sequence[xr.Dataset], attribute: str) -> str:
    return ", ".join(dict.fromkeys(str(each.attrs.get(attribute, "something unnamed")) for each in tables))


def is_model_of(model: Model, expertise: xr.Dataset) -> bool:
    """Return whether a table was measured with this very network, as this version reads it."""
    provenance = read_provenance(expertise.attrs)
    return provenance is not None and provenance.same_model(model.provenance) and provenance.dtype == model.dtype


def fitted(concepts: ConceptDataset, expertise: xr.Dataset) -> ConceptDataset | None:
    """Return the part of a sentence set that a table was measured on; None if it isn't in it, or can't be told."""
    names = [str(each) for each in expertise["concept"].values]
    if not set(names) <= set(concepts.concepts):
        return None
    part = concepts if list(concepts.concepts) == names else concepts.subset(names)
    same = digest_json(list(part.sentences)) == expertise.attrs.get("sentences_sha256")
    return part if same and part.labels.sum(1).tolist() == expertise["num_positives"].values.tolist() else None


def find_sentences(
    expertise: xr.Dataset, given: Given, config: Mapping[str, Any], directory: epath.Path
) -> tuple[ConceptDataset | None, str]:
    """Return a table's sentences, and "" or why they aren't there."""
    tried = []
    for concepts in given.sentences:
        if part := fitted(concepts, expertise):
            return part, ""
    for name in _places_of_sentences(expertise, config, directory):
        try:
            with warnings.catch_warnings():  # told when the run was made
                warnings.simplefilter("ignore")
                part = fitted(load_concepts(name), expertise)
        except (ExpertLensError, OSError) as error:
            tried.append(str(error))
            continue
        if part:
            return part, ""
        tried.append(f"{name} holds other sentences than those that were measured, or an earlier version noted them")
    called = expertise.attrs.get("sentences", "")
    why = "; ".join(tried) or f"the run knows them as {called!r} only, and not where they are"
    return None, why


def _places_of_sentences(expertise: xr.Dataset, config: Mapping[str, Any], directory: epath.Path) -> Iterator[Any]:
    called = str(expertise.attrs.get("sentences", ""))
    if called in PACKAGED:
        yield called
    stated = config.get("sentences", ())
    for each in [stated] if isinstance(stated, str) else stated:
        if each not in PACKAGED and pathlib.PurePosixPath(each).name.rpartition(".")[0] == called:
            yield each
            if not pathlib.PurePosixPath(each).is_absolute() and (directory / each).exists():
                yield directory / each


def find_model(expertise: xr.Dataset, given: Given, config: Mapping[str, Any]) -> tuple[Model | None, str]:
    """Return the model with which a table was measured, and "" or why it isn't there."""
    provenance = read_provenance(expertise.attrs)
    if given.model is not None and is_model_of(given.model, expertise):
        return given.model, ""
    called = str(expertise.attrs.get("model", ""))
    if provenance is None:
        return None, f"the table doesn't say enough of its model {called!r} to tell it from others"
    if provenance.saes or provenance.steering:
        return None, "its responses are of a sparse autoencoder's features, or of a steered model"
    stated, revision = str(config.get("model", "")), config.get("revision") or None
    if not stated or "weights" in config:  # a run of `el.find_experts` has the name alone
        stated, revision = _name_and_revision(called)
    try:
        model = load_model(_installed(stated), revision=revision, dtype=provenance.dtype)
    except (ExpertLensError, OSError, ImportError) as error:
        return None, f"the model can't be loaded ({error})"
    if not is_model_of(model, expertise):
        return None, f"the model {stated} isn't the one that was measured, or this version reads it otherwise"
    return model, ""


def _name_and_revision(name: str) -> tuple[str, str | None]:
    if "@" not in name or epath.Path(name).exists():
        return name, None
    path, _, revision = name.rpartition("@")
    return path, revision


def _installed(path: str) -> str:
    """Return a model's path; `package:NAME/FOLDER` is a folder within an installed Python package."""
    if not path.startswith("package:"):
        return path
    folder = folder_in_package(path)
    if folder is None:
        package = path.removeprefix("package:").partition("/")[0]
        raise CheckpointError(f"the Python package {package}, which holds it, isn't installed")
    return str(folder)
