"""What several experiments check of settings and sentences, before a model runs.

Each function returns nothing, or raises an error that says what to change.
"""

from collections.abc import Collection, Sequence

import ml_collections
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.structure.hierarchy import members_of_domains
from expertlens_jax.errors import ConceptDataError, SelectionError, UnfitConceptsError
from expertlens_jax.experts.concept_tree import concept_domains
from expertlens_jax.experts.selection import check_threshold

from .expertise import read_negatives


def check_statistics(config: ml_collections.ConfigDict) -> None:
    """Check the thresholds, and the numbers of draws.

    Raises:
      SelectionError: the drawn threshold is none of the thresholds, one isn't in [0, 1], or there is nothing to draw.
    """
    for threshold in config.thresholds:
        check_threshold(threshold)
    if config.drawn_threshold not in config.thresholds:
        raise SelectionError(
            f"drawn_threshold is {config.drawn_threshold}, which is none of the thresholds {config.thresholds}. "
            "Set it to one of them, or add it to them."
        )
    check_draws(config, "resamples", "permutations")


def check_draws(config: ml_collections.ConfigDict, *names: str) -> None:
    """Check numbers of draws.

    Raises:
      SelectionError: one is below 1.
    """
    for name in names:
        if config[name] < 1:
            raise SelectionError(f"{name} is {config[name]}; wanted 1 or more draws, and thousands for a paper.")


def check_known(setting: str, names: Sequence[str], known: Collection[str]) -> None:
    """Check that a setting holds known names only.

    Args:
      setting: what the config calls the list.
      names: what it holds.
      known: what it may hold.

    Raises:
      SelectionError: an unknown name.
    """
    for name in names:
        if name not in known:
            raise SelectionError(f"{setting} hold {name!r}; there are {', '.join(known)}.")


def check_at_least(least: int, settings: ml_collections.ConfigDict, section: str, *names: str) -> None:
    """Check that numbers aren't too small.

    Args:
      least: the smallest that will do.
      settings: a section of the config.
      section: its name.
      *names: of settings in it.

    Raises:
      SelectionError: one is smaller.
    """
    for name in names:
        if settings[name] < least:
            raise SelectionError(f"{section}.{name} is {settings[name]}; wanted {least} or more.")


def check_several_concepts(datasets: Sequence[el.ConceptDataset]) -> None:
    """Check that each sentence set has more than one concept.

    Raises:
      UnfitConceptsError: the message names the set.
    """
    for concepts in datasets:
        if len(concepts.concepts) < 2:
            raise UnfitConceptsError(
                f"{concepts.name!r} has the one concept {concepts.concepts[0]!r}, and an overlap wants two or more. "
                "Add sentences of others."
            )


def check_domains(datasets: Sequence[el.ConceptDataset]) -> None:
    """Check that concepts have domains.

    Raises:
      UnfitConceptsError: the message names the set.
    """
    for concepts in datasets:
        of_concepts = {"concept": list(concepts.concepts), "domain": ("concept", list(concepts.domains))}
        try:
            concept_domains(xr.Dataset(coords=of_concepts))
        except SelectionError as error:
            raise UnfitConceptsError(f"{concepts.name}: {error}") from None


def check_hierarchy(datasets: Sequence[el.ConceptDataset]) -> None:
    """Check that domains have their own words among the concepts.

    Raises:
      UnfitConceptsError: the message names the set.
    """
    check_domains(datasets)
    for concepts in datasets:
        try:
            members_of_domains(concepts.concepts, concepts.domains)
        except SelectionError as error:
            raise UnfitConceptsError(f"{concepts.name}: {error}") from None


def check_contrasts(
    config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset], ratios: Sequence[float]
) -> None:
    """Check numbers of negatives per positive.

    Raises:
      ConceptDataError: one that isn't above 0.
      UnfitConceptsError: one that sampled negatives are too few for.
    """
    for ratio in ratios:
        for concepts in datasets:
            try:
                el.contrast_concepts(concepts, **read_negatives(config) | {"negatives_per_positive": float(ratio)})
            except ConceptDataError as error:
                raise (UnfitConceptsError if ratio > 0 else ConceptDataError)(str(error)) from None
