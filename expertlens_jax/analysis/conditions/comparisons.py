"""Pairs of conditions under which the same concepts' experts are found: what differs, and how alike the experts are."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import pandas as pd
import xarray as xr

from expertlens_jax.analysis.conditions.stability import compare_conditions
from expertlens_jax.analysis.tables import FindExperts, label
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.subsample import draw_sentences
from expertlens_jax.experts.selection import select_experts
from expertlens_jax.models.loading import randomize_weights
from expertlens_jax.models.model import Model


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Two conditions under which the same concepts' experts were found."""

    kind: str
    """What differs: "sentences", "random weights", "halves", "fewer", "seeds" or "models"."""
    first: str
    second: str
    tables: tuple[xr.Dataset, xr.Dataset]
    count: int
    """Sentences per concept, on average."""


def make_comparisons(
    model: Model,
    datasets: Sequence[ConceptDataset],
    find: FindExperts,
    *,
    random_weights: Sequence[int] = (),
    counts: Sequence[int] = (),
    seeds: Sequence[int] = (),
    models: Mapping[str, Callable[[], Model]] | None = None,
    seed: int = 0,
) -> Iterator[Comparison]:
    """Find experts under pairs of conditions; a table is made when its first pair comes.

    Args:
      model: whose experts are looked for.
      datasets: sentence sets of the same concepts, in the same order.
      find: makes each table.
      random_weights: seeds of the same network with random weights, in which sentence sets are compared too.
      counts: of sentences a concept, fewer than there are: two draws of each that share none, where there are enough,
        and draws of two sentence sets.
      seeds: of sampled negatives.
      models: other models by name, each loaded when its turn comes, and used before the next one is.
      seed: of the draws of sentences.

    Yields:
      Pairs of sentence sets, of these with random weights, of the halves of each, with fewer sentences, of seeds, of
      models.
    """

    def found(which: Model, concepts: ConceptDataset, **changes: object) -> xr.Dataset:
        table = find(which, concepts, **changes)
        return table[[name for name in map(str, table.data_vars) if name.startswith("average_precision")]]

    def pairs(kind: str, tables: Mapping[str, xr.Dataset], count: int) -> Iterator[Comparison]:
        for (first, one), (second, other) in itertools.combinations(tables.items(), 2):
            yield Comparison(kind, first, second, (one, other), count)

    whole = {concepts.name: found(model, concepts, halves=True) for concepts in datasets}
    sizes = {concepts.name: round(concepts.labels.sum(1).mean()) for concepts in datasets}
    yield from pairs("sentences", whole, min(sizes.values()))
    for number in random_weights:
        random = randomize_weights(model, number)
        tables = {f"{concepts.name}, seed {number}": found(random, concepts) for concepts in datasets}
        yield from pairs("random weights", tables, min(sizes.values()))
    for name, table in whole.items():
        one, other = (
            table.assign(average_precision=table["average_precision_halves"].isel(half=half, drop=True))
            for half in (0, 1)
        )
        yield Comparison("halves", f"{name}, one half", f"{name}, the other", (one, other), sizes[name] // 2)
    for count in counts:
        drawn = {}
        for concepts in datasets:
            enough = 2 * count <= concepts.labels.sum(1).min()
            drawn[concepts.name] = [
                found(model, draw_sentences(concepts, count, draw=number, seed=seed)) for number in range(1 + enough)
            ]
            if enough:
                first, second = (f"{concepts.name}, draw {number}" for number in (1, 2))
                one, other = drawn[concepts.name]
                yield Comparison("fewer", first, second, (one, other), count)
        yield from pairs("fewer", {name: tables[0] for name, tables in drawn.items()}, count)
    for concepts in datasets:
        by_seed = {
            f"{concepts.name}, seed {number}": found(model, concepts, sampled=True, seed=number) for number in seeds
        }
        yield from pairs("seeds", by_seed, sizes[concepts.name])
    by_model = {name: _of_each(load(), datasets, found) for name, load in (models or {}).items()}
    for concepts in datasets:
        tables = {f"{concepts.name}, {name}": tables[concepts.name] for name, tables in by_model.items()}
        yield from pairs("models", tables, sizes[concepts.name])


def _of_each(
    model: Model, datasets: Sequence[ConceptDataset], found: Callable[[Model, ConceptDataset], xr.Dataset]
) -> dict[str, xr.Dataset]:
    """Return a model's table of each sentence set, by the set's name."""
    return {concepts.name: found(model, concepts) for concepts in datasets}


def describe_comparison(
    comparison: Comparison,
    thresholds: Sequence[float],
    *,
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the experts of two conditions at each threshold.

    Returns:
      `compare_conditions`, after columns kind, first, second, count, threshold, concepts (how many), experts_1 and
      experts_2 (mean number per concept).
    """
    draws = {"resamples": resamples, "permutations": permutations, "seed": seed}
    parts = []
    for threshold in thresholds:
        sets = [select_experts(each, threshold=threshold) for each in comparison.tables]
        source = {name: getattr(comparison, name) for name in ("kind", "first", "second", "count")}
        source |= {"threshold": threshold, "concepts": len(sets[0])}
        source |= {f"experts_{i}": float(each.sum("unit").mean()) for i, each in enumerate(sets, start=1)}
        parts.append(label(compare_conditions(*sets, **draws), **source))
    return pd.concat(parts, ignore_index=True)
