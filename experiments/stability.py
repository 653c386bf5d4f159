"""Does a concept have the same experts whatever sentences, negatives or model they are found with?

Claim (Fedzechkina et al. 2025): experts are properties of the model's concepts, not of the sentences: sets of sentences
written by different authors find much the same ones, and arrange concepts alike. It would be refuted by overlap
matrices of two sentence sets that don't correlate (Mantel's test), or correlate no more than in the same network with
random weights, which stands beside; by expert sets that share no more with the same concept's under another condition
than with other concepts'; and by retrieval of a concept by its expert set at chance.

    python -m experiments.stability --config=configs/demo.py --workdir=runs/stability

What is compared with what: `sentences`, each pair of sentence sets; `random weights`, the same in a network that
learned nothing; `halves`, the experts of either half of each set; `fewer`, two draws of `stability.counts` sentences a
concept that share none (where there are enough), and draws of two sentence sets; `seeds`, negatives drawn with each of
`stability.seeds`; `models`, each pair of `stability.models`, unit by unit only where both have the same units.

Writes into the run directory `stability.csv` (a row per comparison, threshold and statistic, with its interval over
concepts, chance level and p) and the figures `stability`, `stability_thresholds` and `stability_fewer`. Tables of
expertise lie in `expertise/`; killed and started again, it goes on where it was.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterator

import ml_collections
import pandas as pd
import xarray as xr
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.conditions.stability import compare_conditions
from expertlens_jax.analysis.statistics import count_orders, least_p_of_permutations
from expertlens_jax.data.subsample import draw_sentences
from expertlens_jax.errors import ConceptDataError, SelectionError, UnfitConceptsError
from expertlens_jax.report.conclusions import (
    Conclusion,
    Outcome,
    Untestable,
    above,
    conclude_from,
    every,
    significant,
)
from expertlens_jax.run_directory import open_run, write_csv

from .launch import check_named, find_model, launch, load_named
from .measured import check_statistics, draw, load_datasets, negatives, saved_expertise
from .thresholds import label


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


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """The experiment."""
    datasets = load_datasets(config)
    check(config, datasets)
    model = find_model(config)
    workdir = open_run(workdir, config.to_dict())
    print(f"Writing to {workdir}")

    draws = {"resamples": config.resamples, "permutations": config.permutations, "seed": config.seed}
    parts = []
    for comparison in compare(model, datasets, config, workdir):
        for threshold in config.thresholds:
            sets = [el.select_experts(each, threshold=threshold) for each in comparison.tables]
            source = {name: getattr(comparison, name) for name in ("kind", "first", "second", "count")}
            source |= {"threshold": threshold, "concepts": len(sets[0])}
            source |= {f"experts_{i}": float(each.sum("unit").mean()) for i, each in enumerate(sets, start=1)}
            parts.append(label(compare_conditions(*sets, **draws), **source))
    table = pd.concat(parts, ignore_index=True)
    write_csv(workdir / "stability.csv", table)
    drawn = table[table["threshold"] == config.drawn_threshold]
    draw(plot.stability(drawn), workdir, "stability")
    draw(plot.stability_thresholds(table[table["kind"] != "fewer"]), workdir, "stability_thresholds")
    fewer = table["kind"] == "fewer"
    if fewer.any():
        draw(plot.fewer(table[fewer | (table["kind"] == "sentences")]), workdir, "stability_fewer")

    print(f"\nAt τ = {config.drawn_threshold:g}, 95% intervals over concepts\n{format_comparisons(drawn)}\n")
    print(f"Tables and figures are in {workdir}")


def compare(
    model: el.Model, datasets: list[el.ConceptDataset], config: ml_collections.ConfigDict, workdir: epath.Path
) -> Iterator[Comparison]:
    """Every comparison that the config asks for; a table is measured when its first one comes."""
    settings = config.stability

    def found(which: el.Model, concepts: el.ConceptDataset, **changes: object) -> xr.Dataset:
        table = saved_expertise(which, concepts, config, workdir, **changes)
        return table[[name for name in table.data_vars if name.startswith("average_precision")]]

    whole = {concepts.name: found(model, concepts, halves=True) for concepts in datasets}
    counts = {concepts.name: round(concepts.labels.sum(1).mean()) for concepts in datasets}

    def pairs(kind: str, tables: dict[str, xr.Dataset], count: int) -> Iterator[Comparison]:
        for (first, one), (second, other) in itertools.combinations(tables.items(), 2):
            yield Comparison(kind, first, second, (one, other), count)

    fewest = min(counts.values())
    yield from pairs("sentences", whole, fewest)
    for seed in config.random_weights:
        random = el.randomize_weights(model, seed)
        yield from pairs(
            "random weights", {f"{each.name}, seed {seed}": found(random, each) for each in datasets}, fewest
        )
    for name, table in whole.items():
        halves = [
            table.assign(average_precision=table["average_precision_halves"].isel(half=half, drop=True))
            for half in (0, 1)
        ]
        yield Comparison("halves", f"{name}, one half", f"{name}, the other", tuple(halves), counts[name] // 2)
    for count in settings.counts:
        drawn = {}
        for concepts in datasets:
            enough = 2 * count <= concepts.labels.sum(1).min()
            drawn[concepts.name] = [
                found(model, draw_sentences(concepts, count, draw=number, seed=config.seed))
                for number in range(1 + enough)
            ]
            if enough:
                names = [f"{concepts.name}, draw {number}" for number in (1, 2)]
                yield Comparison("fewer", *names, tuple(drawn[concepts.name]), count)
        yield from pairs("fewer", {name: tables[0] for name, tables in drawn.items()}, count)
    for concepts in datasets:
        by_seed = {
            f"{concepts.name}, seed {seed}": found(model, concepts, sampled=True, seed=seed) for seed in settings.seeds
        }
        yield from pairs("seeds", by_seed, counts[concepts.name])
    models = {name: load_named(name, config) for name in settings.models}
    for concepts in datasets:
        by_model = {f"{concepts.name}, {name}": found(each, concepts) for name, each in models.items()}
        yield from pairs("models", by_model, counts[concepts.name])


def check(config: ml_collections.ConfigDict, datasets: list[el.ConceptDataset]) -> None:
    """Refuses what would fail after the model ran.

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
            f"{len(datasets[0].concepts)} concepts were asked for; an overlap matrix to correlate wants three or more"
        )
    for concepts in datasets:
        try:
            for count in settings.counts:
                fewer = draw_sentences(concepts, count, seed=config.seed)
                el.contrast_concepts(fewer, **negatives(config))
            for seed in settings.seeds:
                el.contrast_concepts(concepts, **negatives(config) | {"sampled": True, "seed": seed})
        except ConceptDataError as error:
            raise UnfitConceptsError(f"{error} (stability.counts, stability.seeds)") from None


def format_comparisons(table: pd.DataFrame) -> str:
    """A row per comparison, a column per statistic."""
    shown = table.assign(
        shown=[f"{r.value:.2f} [{r.ci_low:.2f}, {r.ci_high:.2f}]{_against(r)}" for r in table.itertuples()],
        conditions=table["first"] + " / " + table["second"],
    )
    return shown.pivot_table(
        index=["kind", "conditions", "count"], columns="statistic", values="shown", aggfunc="first", sort=False
    ).to_string(na_rep="")


def _against(row: object) -> str:
    """Chance in parentheses, where there is one, and a star where p isn't small."""
    chance = f" ({row.chance:.2g})" if row.chance > 0 else ""
    return chance + (" n.s." if row.p_value > 0.05 else "")


def conclude(workdir: epath.Path) -> list[Conclusion]:
    """Return what a finished run found of its claims.

    Both are testable with two sentence sets and enough concepts and permutations for a p below 0.05; the first also
    wants the network with random weights beside it.
    """
    table = pd.read_csv(workdir / "stability.csv")
    config = json.loads((workdir / "config.json").read_text())
    rows = table[table["threshold"] == config["drawn_threshold"]]

    def told(kind: str, statistic: str) -> tuple[pd.DataFrame, str]:
        some = rows[(rows["kind"] == kind) & (rows["statistic"] == statistic)]
        numbers = (f"{r.value:.2f} ({r.ci_low:.2f} to {r.ci_high:.2f})" for r in some.itertuples())
        return some, ", ".join(numbers) or "not asked for"

    def test(some: pd.DataFrame, what: str) -> list[Outcome]:
        if some.empty:
            return [Untestable("there are no two sentence sets to compare")]
        least_p = least_p_of_permutations(config["permutations"], count_orders(int(table["concepts"].min())))
        drawn = f"{config['permutations']} permutations of {table['concepts'].min()} concepts"
        return [
            significant(row.p_value, least_p, f"{drawn}, for {what} of {row.first} and {row.second},")
            for row in some.itertuples(index=False)
        ]

    correlated, correlations = told("sentences", "overlap_correlation")
    random, of_random = told("random weights", "overlap_correlation")
    if random.empty and len(correlated):
        over_random = [Untestable("no random_weights were asked for to hold it against")]
    else:
        over_random = [
            above(row.ci_low, other.value, f"the correlation of {row.first} and {row.second}, or of {other.first}")
            for row in correlated.itertuples(index=False)
            for other in random.itertuples(index=False)
        ]
    same, shared = told("sentences", "jaccard_same")
    _, others = told("sentences", "jaccard_different")
    _, untrained = told("random weights", "jaccard_same")
    found, retrieval = told("sentences", "retrieval")
    recovered = [
        above(row.value, 0.5, f"retrieval of {row.first} and {row.second}") for row in found.itertuples(index=False)
    ]
    at = f"at τ = {config['drawn_threshold']:g}"
    return [
        conclude_from(
            claim="Overlaps of expert sets arrange the concepts alike, whatever set of sentences finds them.",
            found=f"Spearman's correlation of the overlap matrices of two sentence sets {at}: {correlations}; in the "
            f"same network with random weights {of_random}. Held if it is significant (Mantel's test), and its "
            "interval lies above that value.",
            outcome=every([*test(correlated, "the correlation"), *over_random]),
            figure="stability",
        ),
        conclude_from(
            claim="A concept has the same experts, whatever set of sentences finds them.",
            found=f"Jaccard overlap of a concept's two expert sets {at}: {shared}; of different concepts' {others}; "
            f"a concept is found by its set among all in this share of cases: {retrieval}; in the same network with "
            f"random weights the overlap is {untrained}. Held if both are significant, and more than half are found: "
            "that concerns the method, and says nothing of what was learned where random weights do as well.",
            outcome=every([*test(same, "the overlap"), *test(found, "retrieval"), *recovered]),
            figure="stability",
        ),
    ]


if __name__ == "__main__":
    launch(run)
