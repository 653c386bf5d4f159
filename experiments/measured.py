"""What experiments measure alike: the expertise tables of a model and a sentence set, kept in the run directory."""

import dataclasses
from collections.abc import Sequence

import ml_collections
import xarray as xr
from etils import epath
from matplotlib.figure import Figure

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.errors import ConceptDataError, SelectionError, UnfitConceptsError
from expertlens_jax.experts.budget import GB, default_budget
from expertlens_jax.experts.selection import check_threshold
from expertlens_jax.experts.token_masks import PoolOver

NEGATIVES = ("negatives_per_positive", "exclude_mentions", "sampled", "seed")
READING = ("pooling", "truncate", "tokens_per_batch")


def load_datasets(config: ml_collections.ConfigDict) -> list[el.ConceptDataset]:
    """The config's sentence sets, of the concepts it asks for; refused here if negatives can't be met."""
    datasets = [el.load_concepts(name) for name in config.sentences]
    if config.concepts:
        datasets = [concepts.subset(config.concepts) for concepts in datasets]
    for concepts in datasets:
        el.contrast_concepts(concepts, **negatives(config))
    return datasets


def check_statistics(config: ml_collections.ConfigDict) -> None:
    """Refuses thresholds, and numbers of draws, that would fail after the model ran.

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
    for name in ("resamples", "permutations"):
        if config[name] < 1:
            raise SelectionError(f"{name} is {config[name]}; wanted 1 or more draws, and thousands for a paper.")


def refuse_single_concepts(datasets: Sequence[el.ConceptDataset]) -> None:
    """Refuses sentences of one concept, which overlaps with no other.

    Raises:
      UnfitConceptsError: the message names the set.
    """
    for concepts in datasets:
        if len(concepts.concepts) < 2:
            raise UnfitConceptsError(
                f"{concepts.name!r} has the one concept {concepts.concepts[0]!r}, and an overlap wants two or more. "
                "Add sentences of others."
            )


def check_contrasts(
    config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset], ratios: Sequence[float]
) -> None:
    """Refuses numbers of negatives per positive that sentences can't meet.

    Raises:
      ConceptDataError: one that isn't above 0.
      UnfitConceptsError: one that sampled negatives are too few for.
    """
    for ratio in ratios:
        for concepts in datasets:
            try:
                el.contrast_concepts(concepts, **negatives(config) | {"negatives_per_positive": float(ratio)})
            except ConceptDataError as error:
                raise (UnfitConceptsError if ratio > 0 else ConceptDataError)(str(error)) from None


def saved_expertise(
    model: el.Model,
    concepts: el.ConceptDataset,
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    *,
    halves: bool = False,
    pool_over: PoolOver = "all",
    sae: str = "",
    **changes: object,
) -> xr.Dataset:
    """The expertise table of a model and a sentence set, measured as far as it isn't there.

    Tables lie in the run directory, or in `config.expertise`, where several experiments can share them.

    Args:
      model: with its revision in its name.
      concepts: the sentences.
      config: of the experiment.
      workdir: of the run.
      halves: also average precision in each half of the sentences.
      pool_over: which of a sentence's tokens, as in `el.find_experts`; part of the table's name, unless it is all.
      sae: what to call the sparse autoencoder that the model carries, to rank its features instead of units.
      **changes: other negatives than the config's, by the names in `NEGATIVES`; they become part of the table's name.

    Raises:
      RunDirectoryError: a table of that name is there, of another model or other sentences that are called the same.
    """
    asked = negatives(config)
    name = table_name(model, concepts)
    name += "".join(f"_{key}-{value}" for key, value in sorted(changes.items()) if value != asked[key])
    name += f"_pool_over-{pool_over}" if pool_over != "all" else ""
    name += f"_{sae}" if sae else ""
    name += "_halves" if halves else ""
    print(f"Finding the experts of {model.name}{f', {sae},' if sae else ''} in {concepts.name}")
    root = epath.Path(config.expertise) if config.expertise else workdir / "expertise"
    given = measuring(config, root / name) | asked | changes | ({"sites": ("sae",)} if sae else {})
    # The slope of the transport takes half of the time of ranking, and only steering reads it: of the plain table.
    plain = name == table_name(model, concepts)
    return el.find_experts(
        model,
        concepts,
        root / name,
        pool_over=pool_over,
        halves=halves,
        permutations=0,
        transport=plain,
        progress=True,
        **given,
    ).load()


def reading(config: ml_collections.ConfigDict) -> dict[str, object]:
    """What the config says of how sentences are read: arguments of `el.record_responses`."""
    return {name: config[name] for name in READING} | {"sites": tuple(config.sites) or None}


def measuring(config: ml_collections.ConfigDict, workdir: epath.Path) -> dict[str, object]:
    """All that `configs.common.measuring_settings` have for `el.find_experts`, as its arguments."""
    asked = reading(config) | negatives(config)
    return asked | {"budget": read_budget(config, workdir), "passes": config.passes or None}


def read_budget(config: ml_collections.ConfigDict, workdir: epath.Path) -> el.Budget:
    """The config's budget, in gigabytes there; what is left to the machine is half of what is free."""
    default = default_budget(workdir / "scratch")
    stated = {place: config[f"{place}_gigabytes"] for place in ("device", "host", "disk")}
    return dataclasses.replace(default, **{place: int(size * GB) for place, size in stated.items() if size >= 0})


def question_of(table: xr.Dataset) -> dict[str, object]:
    """All that a table's numbers follow from, and so what is measured of it."""
    return {name: value for name, value in table.attrs.items() if name not in ("tokenizer", "package")}


def negatives(config: ml_collections.ConfigDict) -> dict[str, object]:
    """What the config says of a concept's negatives."""
    return {name: config[name] for name in NEGATIVES}


def table_name(model: el.Model, concepts: el.ConceptDataset) -> str:
    """What a table of a model and a sentence set is called; a hub id holds a slash."""
    return f"{model.name.replace('/', '--')}_{concepts.name}"


def draw(figure: Figure, workdir: epath.Path, name: str) -> None:
    """Saves a figure among the run's."""
    plot.save_figure(figure, workdir / "figures" / name)
