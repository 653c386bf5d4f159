"""What experiments check of settings and sentences before a model runs: what several check, then each its own.

Each function returns nothing, or raises an error that says what to change.
"""

from collections.abc import Collection, Sequence

import ml_collections
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.conditions.grid import check_grid
from expertlens_jax.analysis.similarity.control_tables import check_words_present
from expertlens_jax.analysis.structure.hierarchy import members_of_domains
from expertlens_jax.analysis.structure.matched_controls import MATCHES
from expertlens_jax.analysis.structure.organisation import MAPS
from expertlens_jax.analysis.structure.senses import find_homographs
from expertlens_jax.cards import counted
from expertlens_jax.data.subsample import draw_sentences
from expertlens_jax.errors import ConceptDataError, SelectionError, UnfitConceptsError, UnsupportedModelError
from expertlens_jax.experts.concept_tree import concept_domains
from expertlens_jax.experts.selection import check_threshold
from expertlens_jax.models.sites import SITES

from .expertise import changed, read_negatives
from .sources import check_named, checkpoints_by_step


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


def check_holds(setting: str, names: Sequence[str], needed: str, why: str) -> None:
    """Check that a setting holds what an experiment can't go without.

    Raises:
      SelectionError: it doesn't.
    """
    if needed not in names:
        raise SelectionError(f"{setting} are {', '.join(names)}; {needed} must be among them, since {why}.")


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


def check_drawn_concepts(settings: ml_collections.ConfigDict, section: str) -> None:
    """Check how many concepts a section of the config draws.

    Raises:
      SelectionError: one, or fewer than none.
    """
    if settings.concepts < 0 or settings.concepts == 1:
        raise SelectionError(f"{section}.concepts is {settings.concepts}; wanted 2 or more, or 0 for all.")


def check_ratings(config: ml_collections.ConfigDict) -> None:
    """Check that the config's ratings can be read.

    Raises:
      RatingsError: some aren't there.
    """
    for name in config.ratings:
        el.load_ratings(name)


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
                el.contrast_concepts(concepts, changed(read_negatives(config), negatives_per_positive=float(ratio)))
            except ConceptDataError as error:
                raise (UnfitConceptsError if ratio > 0 else ConceptDataError)(str(error)) from None


def check_stability(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check settings and sentences before the model runs.

    Raises:
      SelectionError: settings that leave a comparison without a pair.
      UnfitConceptsError: sentence sets of other concepts, too few of these, or too few sentences for the counts or for
        a sample of negatives.
      CheckpointError: models that aren't there.
    """
    settings = config.stability
    check_statistics(config)
    if len(set(settings.seeds)) < len(settings.seeds) or len(settings.seeds) == 1:
        raise SelectionError(
            f"stability.seeds is {tuple(settings.seeds)}; wanted two or more that differ, or none to leave that out"
        )
    if settings.models:
        check_named("stability.models", settings.models, config, least=2)
    for count in settings.counts:
        if count < 1:
            raise SelectionError(f"stability.counts hold {count}; wanted numbers of sentences a concept, from 1 on")
    for concepts in datasets[1:]:
        if concepts.concepts != datasets[0].concepts:
            raise UnfitConceptsError(
                f"{datasets[0].name} and {concepts.name} have other concepts, or in another order; stability compares "
                "the same ones. Name them in --config.concepts=, or give one of the sets in --config.sentences=."
            )
    if len(datasets[0].concepts) < 3:
        raise UnfitConceptsError(
            f"there are {counted(len(datasets[0].concepts), 'concept')}; an overlap matrix to correlate wants three or "
            "more. Name more in --config.concepts=."
        )
    if settings.grid_positives and settings.grid_negatives:
        if not config.exclude_mentions:
            raise SelectionError(
                "stability.grid_positives want exclude_mentions=True: otherwise a concept's sentences that weren't "
                "drawn would be its negatives. Leave the grid out (stability.grid_positives=()), or exclude mentions."
            )
        check_grid(datasets[0], settings.grid_positives, settings.grid_negatives)
    for concepts in datasets:
        try:
            for count in settings.counts:
                fewer = draw_sentences(concepts, count, seed=config.seed)
                el.contrast_concepts(fewer, read_negatives(config))
            for seed in settings.seeds:
                el.contrast_concepts(concepts, changed(read_negatives(config), sampled=True, seed=seed))
        except ConceptDataError as error:
            raise UnfitConceptsError(f"{error} (stability.counts, stability.seeds)") from None


def check_training(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check settings and sentences before a model runs.

    Raises:
      SelectionError: thresholds that can't be drawn, or no draws.
      CheckpointError: see `checkpoints_by_step`.
      RatingsError: ratings that aren't there.
      UnfitConceptsError: sentences of one concept.
    """
    check_statistics(config)
    checkpoints_by_step(config)
    check_ratings(config)
    check_several_concepts(datasets)


def check_scale(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check settings and sentences before a model runs.

    Raises:
      SelectionError: thresholds that can't be drawn, or no draws.
      CheckpointError: fewer than two models, or ones that can't be.
      RatingsError: ratings that aren't there.
      UnfitConceptsError: sentences of one concept.
    """
    check_statistics(config)
    check_named("scale.models", config.scale.models, config, least=2)
    check_ratings(config)
    check_several_concepts(datasets)


def check_localisation(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check the settings; any sentences will do.

    Raises:
      SelectionError: thresholds that can't be drawn, or no draws.
    """
    del datasets
    check_statistics(config)


def check_mixture(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check settings and sentences before the model runs.

    Raises:
      SelectionError: sites none of which is within a mixture's experts, thresholds that can't be drawn, or no draws.
      UnfitConceptsError: sentences of one concept.
    """
    check_statistics(config)
    inner = [name for name, site in SITES.items() if site.by_expert]
    if config.sites and not {*config.sites} & {*inner}:
        raise SelectionError(
            f"sites are {', '.join(config.sites)}, and none is within a mixture's experts. Add one or more of "
            f"{', '.join(inner)}, and mlp.router for what the router knows; or leave sites empty."
        )
    check_several_concepts(datasets)


def check_mixture_model(
    config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset], model: el.Model
) -> None:
    """Check that the model is a mixture of experts.

    Raises:
      UnsupportedModelError: each of its layers has one MLP.
    """
    del config, datasets
    if not model.config.num_experts:
        raise UnsupportedModelError(
            f"{model.name} is no mixture of experts: each of its layers has one MLP, and this experiment asks how a "
            "concept's units spread over the many of a mixture, of which a router chooses. Give it one, such as "
            "--model=allenai/OLMoE-1B-7B-0924 or --config=mixture:granite; `expertlens models` lists the families. "
            "For any other model, localisation asks where the units are."
        )


def check_organisation(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check settings and domains before the model runs.

    Raises:
      SelectionError: an unknown map, no neighbours, thresholds that can't be drawn, or no draws.
      UnfitConceptsError: concepts without domains, with no domain's word among them, or too few for a map.
    """
    check_statistics(config)
    check_known("organisation.maps", config.organisation.maps, MAPS)
    check_at_least(1, config.organisation, "organisation", "neighbours", "graph_edges", "graph_domains")
    check_at_least(2, config.organisation, "organisation", "graph_members")
    check_hierarchy(datasets)
    for concepts in datasets:
        if len(concepts.concepts) < 4:
            raise UnfitConceptsError(
                f"{concepts.name} has {counted(len(concepts.concepts), 'concept')}; a map wants four or more."
            )


def check_polysemanticity(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check settings and domains before the model runs.

    Raises:
      SelectionError: an unknown match or none, numbers too small to compare anything, or thresholds that can't be
        drawn.
      UnfitConceptsError: concepts without domains.
    """
    settings = config.polysemanticity
    check_statistics(config)
    check_known("polysemanticity.matches", settings.matches, MATCHES)
    if not settings.matches:
        raise SelectionError(f"polysemanticity.matches is empty; wanted one or more of {', '.join(MATCHES)}.")
    check_at_least(1, settings, "polysemanticity", "draws", "pairs")
    check_at_least(2, settings, "polysemanticity", "minimum")
    check_domains(datasets)


def check_senses(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check settings and the experiment's own sentences before the model runs.

    Raises:
      SelectionError: no sentences, or thresholds that can't be drawn.
      UnfitConceptsError: sentences without words in two senses, or, if tokens are asked, without their word.
    """
    del datasets
    check_statistics(config)
    if not config.senses.sentences:
        raise SelectionError('senses.sentences is empty; name a set with words in two senses, such as "senses".')
    for name in config.senses.sentences:
        concepts = el.load_concepts(name)
        find_homographs(concepts)
        el.contrast_concepts(concepts, read_negatives(config))
        if config.senses.tokens:
            check_words_present(concepts)


def check_negatives(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check settings and sentences before the model runs.

    Raises:
      SelectionError: fewer than two ratios, one twice, a top below 1, or thresholds that can't be drawn.
      ConceptDataError: a ratio that isn't above 0.
      UnfitConceptsError: a ratio that sampled negatives can't meet, or sentences of one concept.
      RatingsError: ratings that aren't there.
    """
    check_statistics(config)
    ratios = config.negatives.ratios
    if len(set(ratios)) < max(2, len(ratios)):
        raise SelectionError(
            f"negatives.ratios is {tuple(ratios)}; wanted two or more numbers of negatives per positive, each once"
        )
    for top in config.negatives.top:
        if top < 1:
            raise SelectionError(f"negatives.top holds {top}; wanted numbers of experts per concept, from 1 on")
    check_ratings(config)
    check_several_concepts(datasets)
    check_contrasts(config, datasets, ratios)


def check_top(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset], model: el.Model) -> None:
    """Check that there are as many units as `negatives.top` takes for experts.

    Raises:
      SelectionError: there are fewer.
    """
    del datasets
    units = model.units[model.units["site"].isin(config.sites)] if config.sites else model.units
    for top in config.negatives.top:
        if top > len(units) > 0:  # none are known of sites beside the usual ones
            raise SelectionError(
                f"negatives.top holds {top}, and {model.name} has {counted(len(units), 'unit')}; wanted at most that "
                "many"
            )
