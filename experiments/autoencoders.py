"""The sparse autoencoders of an experiment, by a config: trained here with their random twins, or the user's own."""

from collections.abc import Sequence

import ml_collections
import numpy as np
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.conditions.equal_counts import FEATURES
from expertlens_jax.errors import CorpusError, SelectionError, UnfitConceptsError
from expertlens_jax.models.digests import digest_json
from expertlens_jax.models.sae import never_fires
from expertlens_jax.training.activations import prepare_reading, read_texts
from expertlens_jax.training.sae_training import split_texts
from expertlens_jax.training.skip_gram import check_corpora

from .baselines import sae_options
from .checks import check_at_least, check_known, check_ratings, check_several_concepts, check_statistics
from .run import Run

TWINS = {"frozen decoder": "decoder", "frozen encoder": "encoder", "random weights": ""}
"""Random twins, and what of each stays as it was drawn; the last is of a model that learned nothing."""


TRAINING = ("kind", "features", "steps", "batch", "rate")
"""Settings of the training that go as they are to `SAESettings`."""


def check(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check settings and sentences before a model runs.

    Raises:
      SelectionError: unknown twins, a layer twice, numbers too small, fewer features than `top`, or thresholds
        that can't be drawn.
      SettingError: settings of the training that can't be.
      RatingsError: ratings that aren't there.
      UnfitConceptsError: sentences of one concept.
      CorpusError: texts that aren't there.
    """
    settings = config.sparse_features
    check_statistics(config)
    check_known("sparse_features.twins", settings.twins, TWINS)
    check_at_least(1, settings, "sparse_features", "draws", "top")
    if not settings.saes:
        if len(set(settings.layers)) < len(settings.layers):
            raise SelectionError(f"sparse_features.layers is {tuple(settings.layers)}; wanted each layer once.")
        trained = read_settings(config)
        if trained.features * max(1, len(settings.layers)) < settings.top:
            raise SelectionError(
                f"sparse_features.top is {settings.top}, and the autoencoders have {trained.features} features a "
                "layer; wanted at most that many."
            )
        check_corpora(settings.texts)
    check_ratings(config)
    check_several_concepts(datasets)


def check_model(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset], model: el.Model) -> None:
    """Check what only the model can tell: its layers and sites, whether the text is enough, and features that are dead.

    Raises:
      SelectionError: a layer or site that isn't there, or an autoencoder none of whose features can fire.
      CorpusError: files of too little text.
      UnfitConceptsError: too few sentences to train on.
      CheckpointError: an autoencoder that can't be read, or doesn't fit the model.
    """
    settings = config.sparse_features
    if settings.saes:
        for sae in own_model(config, model).saes:
            dead = never_fires(sae)
            if dead.all():
                raise SelectionError(
                    f"all {len(dead)} features of {sae.name} are dead: none can fire, whatever it reads. Give another."
                )
            if dead.any():
                print(f"{dead.sum()} of the {len(dead)} features of {sae.name} are dead: they can't fire")
        return
    for layer in read_layers(config, model):
        prepare_reading(model, layer, settings.site)
    try:
        split_texts(model, read_config_texts(config, datasets), read_settings(config))
    except CorpusError as error:
        if settings.texts:
            raise
        raise UnfitConceptsError(f"{error} Here: sparse_features.texts, .steps and .batch.") from error


def read_settings(config: ml_collections.ConfigDict, **changes: object) -> el.training.SAESettings:
    """Return how the config's autoencoders are trained.

    Raises:
      SettingError: a setting that can't be.
    """
    stated = {name: config.sparse_features[name] for name in TRAINING}
    of_one_kind = {name: config.sparse_features[name] or None for name in ("k", "penalty")}
    return el.training.SAESettings(**{"seed": config.seed} | stated | of_one_kind | changes)


def read_layers(config: ml_collections.ConfigDict, model: el.Model) -> tuple[int, ...]:
    """Return the layers whose autoencoders are trained: the config's, or the middle one."""
    return tuple(config.sparse_features.layers) or (model.config.num_layers // 2,)


def read_config_texts(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> list[str]:
    """Return the texts that autoencoders are trained on: the config's files, or all sentences, each once."""
    files = [text for file in config.sparse_features.texts for text in read_texts(file)]
    return files or list(dict.fromkeys(text for concepts in datasets for text in concepts.sentences))


def own_model(config: ml_collections.ConfigDict, model: el.Model) -> el.Model:
    """Return the model with the autoencoders that the config names."""
    saes = [el.load_sae(path, **options) for path, options in map(sae_options, config.sparse_features.saes)]
    return model.with_sae(*saes)


def carrying_models(this: Run) -> dict[str, tuple[el.Model, list[el.training.TrainedSAE]]]:
    """Return the model with its autoencoders, and with each random twin's, by name, with those that were trained.

    The first is `FEATURES`. Each is trained first, unless it is there.
    """
    config, settings = this.config, this.config.sparse_features
    if settings.saes:
        return {FEATURES: (own_model(config, this.model), [])}
    texts = read_config_texts(config, this.datasets)
    found = {}
    for name in (FEATURES, *settings.twins):
        model = this.random_model(config.seed) if name == "random weights" else this.model
        how = read_settings(config, frozen=TWINS.get(name, ""))
        trained = []
        for layer in read_layers(config, this.model):
            print(f"Training {name} of {settings.site} in layer {layer}, unless they are there")
            directory = this.workdir / "saes" / name.replace(" ", "_")
            directory = directory / f"layer{layer}"
            trained.append(
                el.training.train_sae(
                    model, texts, directory, layer=layer, site=settings.site, settings=how, progress=True
                )
            )
            print(trained[-1])
        found[name] = model.with_sae(*(each.sae for each in trained)), trained
    return found


def table_of_features(this: Run, model: el.Model, concepts: el.ConceptDataset) -> xr.Dataset:
    """Return the expertise of the features that a model carries; the table's name tells these weights from others."""
    return this.expertise(model, concepts, sae=f"sae-{digest_json(list(model.sae_settings))[:8]}")


def units_of_layers(expertise: xr.Dataset, layers: Sequence[int]) -> xr.Dataset:
    """Return the units of some layers."""
    return expertise.isel(unit=np.flatnonzero(np.isin(expertise["layer"].values, layers)))
