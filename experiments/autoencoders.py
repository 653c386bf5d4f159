"""The sparse autoencoders of an experiment, by a config: trained here with their random twins, or the user's own."""

from collections.abc import Sequence

import ml_collections

import expertlens_jax as el
from expertlens_jax.analysis.conditions.equal_counts import FEATURES
from expertlens_jax.errors import CorpusError, SelectionError, UnfitConceptsError
from expertlens_jax.models.sae_named import carry_together, count_dead
from expertlens_jax.training.activations import prepare_reading, read_texts
from expertlens_jax.training.sae_training import split_texts
from expertlens_jax.training.sae_twins import TWINS, train_with_twins
from expertlens_jax.training.skip_gram import check_corpora

from .checks import check_at_least, check_known, check_ratings, check_several_concepts, check_statistics
from .run import Run

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
        for sae in carry_together(model, settings.saes).saes:
            if dead := count_dead(sae):
                print(f"{dead} of the {sae.num_features} features of {sae.name} are dead: they can't fire")
        return
    for layer in read_layers(config, model):
        prepare_reading(model, layer, settings.site)
    try:
        split_texts(model, read_config_texts(config, datasets), read_settings(config))
    except CorpusError as error:
        if settings.texts:
            raise
        raise UnfitConceptsError(f"{error} Here: sparse_features.texts, .steps and .batch.") from error


def read_settings(config: ml_collections.ConfigDict) -> el.training.SAESettings:
    """Return how the config's autoencoders are trained.

    Raises:
      SettingError: a setting that can't be.
    """
    stated = {name: config.sparse_features[name] for name in TRAINING}
    of_one_kind = {name: config.sparse_features[name] or None for name in ("k", "penalty")}
    return el.training.SAESettings(**{"seed": config.seed} | stated | of_one_kind)


def read_layers(config: ml_collections.ConfigDict, model: el.Model) -> tuple[int, ...]:
    """Return the layers whose autoencoders are trained: the config's, or the middle one."""
    return tuple(config.sparse_features.layers) or (model.config.num_layers // 2,)


def read_config_texts(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> list[str]:
    """Return the texts that autoencoders are trained on: the config's files, or all sentences, each once."""
    files = [text for file in config.sparse_features.texts for text in read_texts(file)]
    return files or list(dict.fromkeys(text for concepts in datasets for text in concepts.sentences))


def carrying_models(this: Run) -> dict[str, tuple[el.Model, list[el.training.TrainedSAE]]]:
    """Return the model with its autoencoders, and with each random twin's, by name, with those that were trained.

    The first is `FEATURES`. Each is trained first, unless it is there.
    """
    config, settings = this.config, this.config.sparse_features
    if settings.saes:
        return {FEATURES: (carry_together(this.model, settings.saes), [])}
    return train_with_twins(
        this.model,
        read_config_texts(config, this.datasets),
        this.workdir / "saes",
        name=FEATURES,
        layers=read_layers(config, this.model),
        site=settings.site,
        settings=read_settings(config),
        twins=settings.twins,
        seed=config.seed,
    )
