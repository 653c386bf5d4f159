"""Which detectors are tried on what, by a config; checked before a model runs."""

from collections.abc import Sequence

import ml_collections

import expertlens_jax as el
from expertlens_jax.analysis.detecting.detectors import check_detectors
from expertlens_jax.analysis.detecting.examples import check_examples
from expertlens_jax.analysis.detecting.pairs import Pair, check_pair, draw_concepts, pairs_to_try
from expertlens_jax.analysis.detecting.question import REFERENCE, check_readable, default_detectors
from expertlens_jax.models.sae_named import carry_each

from .checks import check_drawn_concepts, check_draws, check_holds, check_several_concepts
from .sources import check_named


def find_pairs(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> list[Pair]:
    """Return the sentences to learn from and to try on, of as many concepts as the config draws."""
    settings = config.detection
    drawn = [draw_concepts(each, settings.concepts, seed=config.seed) for each in datasets]
    return pairs_to_try(drawn, mask=config.masked if settings.masked else "", seed=config.seed)


def examples_of(config: ml_collections.ConfigDict, kind: str, first: str) -> dict[str, object]:
    """Return what is learned from in a kind of pair, as arguments of `el.analysis.detection`.

    Numbers of positives and wrong labels are tried in the first kind there is. Halves have fewer positives than the
    config may ask for, so the numbers for these are what there is.
    """
    settings = config.detection
    return {
        "positives": tuple(settings.positives) or None if kind == "sets" else None,
        "label_noise": tuple(settings.label_noise) if kind == first else (),
        "most_only": kind != first,
    }


def check(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check settings and sentences before the model runs.

    Raises:
      SelectionError: unknown detectors, or numbers that can't be.
      UnfitConceptsError: sets without a concept in common, or concepts with too few positives; or one concept alone.
      ConceptDataError: a concept without positives or negatives.
      CheckpointError: an embedder that can't be.
    """
    settings = config.detection
    check_draws(config, "resamples")
    if settings.detectors:
        check_detectors(settings.detectors)
        check_holds("detection.detectors", settings.detectors, REFERENCE, "the others are compared with it")
    positives, negatives = tuple(settings.positives) or None, settings.training_negatives
    check_examples(positives, tuple(settings.negatives_per_positive), tuple(settings.label_noise), negatives)
    check_drawn_concepts(settings, "detection")
    if settings.embedder:
        check_named("detection.embedder", (settings.embedder,), config)
    check_several_concepts(datasets)
    pairs = find_pairs(config, datasets)
    for pair in pairs:
        asked = examples_of(config, pair.kind, pairs[0].kind)
        check_pair(pair, asked["positives"], asked["label_noise"])


def check_model(
    config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset], model: el.Model
) -> tuple[el.Model, tuple[str, ...]]:
    """Return the model with the config's autoencoders, and the detectors that it can be read for; check that it can.

    Raises:
      SelectionError: an SAE's features of a model without one, or sites that it doesn't have.
      CheckpointError: autoencoders that don't fit.
    """
    del datasets
    if carrying := carry_each(model, config.saes):
        model = model.with_sae(*(sae for each in carrying.values() for sae in each.saes))
    names = tuple(config.detection.detectors) or default_detectors(model)
    check_readable(model, names, tuple(config.sites) or None)
    return model, names
