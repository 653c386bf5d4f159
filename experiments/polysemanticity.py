"""Do units serve several concepts, and are those concepts alike to people?

Claim (Fedzechkina et al. 2025): experts are polysemantic along human lines (cat and dog share experts, cat and car
don't), and the experts that two concepts share are as expert as those they don't share. It would be refuted by units
that serve no more concepts than experts drawn at random would, or concepts of no fewer domains than chance; and by
average precisions that differ between shared and unshared experts, for more pairs than chance would have it (5% at
p < 0.05, were units independent) or by much.

What is compared with equally active non-experts: each expert has a match of its own, a unit of its layer and site that
is no expert on the concept and responds as strongly to the concept's sentences (match "concept": median response), to
the other sentences ("others": mean response), or as nearly as can be to both. If experts were just units that respond
strongly, the matches would tell the concept apart as well in other sentences than those that experts were chosen by
(the config's next sentence set: `held_out_ap`), and would serve as many other concepts of its domain.

    python -m experiments.polysemanticity --config=configs/demo.py --workdir=runs/polysemanticity

Writes into the run directory, all at `drawn_threshold`, `services.csv` (how many concepts and domains each unit
serves), `spread.csv` (their distribution, against random experts), `gathering.csv` (domains by number of concepts,
against permuted domains), `shared.csv` (a row per pair), `shared_summary.csv`, `distributions.csv` (by kind of it),
`matched.csv` (per concept) and `matched_summary.csv`, and the figures `services`, `shared` and `matched`. Tables of
expertise lie in `expertise/`; killed and started again, it goes on where it was.
"""

import json

import ml_collections
import pandas as pd
import xarray as xr
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.statistics import least_p_of_ks
from expertlens_jax.analysis.structure.matched_controls import MATCHES, compare_matched, summarise_matched
from expertlens_jax.analysis.structure.polysemanticity import (
    compare_shared,
    count_services,
    distribute_shared,
    gather_domains,
    spread_services,
    summarise_shared,
)
from expertlens_jax.errors import SelectionError, UnfitConceptsError
from expertlens_jax.experts.concept_tree import concept_domains
from expertlens_jax.report.conclusions import (
    LEVEL,
    Conclusion,
    Outcome,
    Untestable,
    above,
    conclude_from,
    enough,
    every,
    of_those_made,
)
from expertlens_jax.run_directory import open_run, write_csv

from .launch import find_model, launch
from .measured import check_statistics, draw, load_datasets, saved_expertise

FEWEST_PAIRS = 10  # of a kind: of fewer, a single one that differs is more than 10%


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """The experiment."""
    settings = config.polysemanticity
    datasets = load_datasets(config)
    check(config, datasets)
    model = find_model(config)
    workdir = open_run(workdir, config.to_dict())
    print(f"Writing to {workdir}")
    bootstrap = {"resamples": config.resamples, "seed": config.seed}

    expertise = {concepts.name: saved_expertise(model, concepts, config, workdir) for concepts in datasets}
    names = list(expertise)
    tables: dict[str, list[pd.DataFrame]] = {}

    def keep(file: str, table: pd.DataFrame, **source: object) -> pd.DataFrame:
        tables.setdefault(file, []).append(table.assign(**source)[[*source, *table.columns]])
        return table

    for i, name in enumerate(names):
        experts = el.select_experts(expertise[name], threshold=config.drawn_threshold)
        keep("services", count_services(experts), sentences=name)
        keep("spread", spread_services(experts, draws=settings.draws, seed=config.seed), sentences=name)
        gathered = gather_domains(experts, permutations=config.permutations, seed=config.seed)
        keep("gathering", gathered, sentences=name)
        compared = compare_shared(
            expertise[name], experts, minimum=settings.minimum, pairs=settings.pairs, seed=config.seed
        )
        keep("shared", compared, sentences=name)
        keep("shared_summary", summarise_shared(compared, **bootstrap), sentences=name)
        keep("distributions", distribute_shared(expertise[name], experts, compared), sentences=name)
        held_out = expertise[names[(i + 1) % len(names)]] if len(names) > 1 else None
        for match in settings.matches:
            matched = compare_matched(expertise[name], experts, held_out, match)
            keep("matched", matched, sentences=name, match=match)
            keep("matched_summary", summarise_matched(matched, **bootstrap), sentences=name, match=match)

    joined = {file: pd.concat(parts, ignore_index=True) for file, parts in tables.items()}
    for file, table in joined.items():
        write_csv(workdir / f"{file}.csv", table)
    draw(plot.services(joined["spread"], joined["gathering"]), workdir, "services")
    if len(joined["shared_summary"]):
        draw(plot.shared(joined["distributions"], joined["shared_summary"]), workdir, "shared")
    else:
        print(f"No two concepts share {settings.minimum} experts and differ in as many: nothing to compare.")
    draw(plot.matched(joined["matched_summary"]), workdir, "matched")

    print(
        f"\n{format_services(joined['services'], joined['gathering'])}\n\n{format_shared(joined['shared_summary'])}\n"
    )
    print(f"{format_matched(joined['matched_summary'])}\n\nTables and figures are in {workdir}")


def check(config: ml_collections.ConfigDict, datasets: list[el.ConceptDataset]) -> None:
    """Refuses what would fail after the model ran.

    Raises:
      SelectionError: an unknown match, numbers too small to compare anything, or thresholds that can't be drawn.
      UnfitConceptsError: concepts without domains.
    """
    settings = config.polysemanticity
    check_statistics(config)
    for match in settings.matches:
        if match not in MATCHES:
            raise SelectionError(f"polysemanticity.matches hold {match!r}; there are {', '.join(MATCHES)}.")
    if not settings.matches:
        raise SelectionError(f"polysemanticity.matches is empty; wanted one or more of {', '.join(MATCHES)}.")
    for name, least in (("draws", 1), ("minimum", 2), ("pairs", 1)):
        if settings[name] < least:
            raise SelectionError(f"polysemanticity.{name} is {settings[name]}; wanted {least} or more.")
    for concepts in datasets:
        of_concepts = {"concept": list(concepts.concepts), "domain": ("concept", list(concepts.domains))}
        try:
            concept_domains(xr.Dataset(coords=of_concepts))
        except SelectionError as error:
            raise UnfitConceptsError(f"{concepts.name}: {error}") from None


def format_services(services: pd.DataFrame, gathering: pd.DataFrame) -> str:
    """How polysemantic units are."""
    rows = []
    for name, units in services.groupby("sentences", sort=False):
        several = gathering[(gathering["sentences"] == name) & (gathering["concepts"] == 0)]
        rows.append(
            {
                "sentences": name,
                "units": len(units),
                "serve none": (units["concepts"] == 0).sum(),
                "one": (units["concepts"] == 1).sum(),
                "several": (units["concepts"] > 1).sum(),
                "at most": units["concepts"].max(),
                "domains of several": "".join(
                    f"{r.domains:.2f} (by chance {r.null_mean:.2f}, p = {r.p_value:.2g})" for r in several.itertuples()
                ),
            }
        )
    return f"Concepts that units serve\n{pd.DataFrame(rows).to_string(index=False, justify='left')}"


def format_shared(summary: pd.DataFrame) -> str:
    """Shared against unshared experts."""
    shown = summary.assign(
        difference=[f"{r.difference:+.3f} [{r.ci_low:+.3f}, {r.ci_high:+.3f}]" for r in summary.itertuples()]
    ).drop(columns=["ci_low", "ci_high"])
    text = shown.to_string(index=False, justify="left", float_format="{:.3f}".format)
    return f"Average precision of shared and unshared experts of pairs that have enough of both\n{text}"


def format_matched(summary: pd.DataFrame) -> str:
    """Experts against equally active non-experts."""
    shown = summary.assign(
        difference=[f"{r.difference:+.3f} [{r.ci_low:+.3f}, {r.ci_high:+.3f}]" for r in summary.itertuples()]
    ).drop(columns=["ci_low", "ci_high"])
    text = shown.to_string(index=False, justify="left", float_format="{:.3f}".format)
    return f"Experts against non-experts of the same layer and site that respond as strongly\n{text}"


def conclude(workdir: epath.Path) -> list[Conclusion]:
    """Return what a finished run found of its claims.

    The first is testable where units serve several concepts, and these can be grouped in enough ways; the second where
    `FEWEST_PAIRS` pairs of a kind share enough experts, and don't share enough, for the test to tell them apart.
    """
    gathering, shared, summary = (
        pd.read_csv(workdir / f"{name}.csv") for name in ("gathering", "shared", "shared_summary")
    )
    config = json.loads((workdir / "config.json").read_text())
    names = list(dict.fromkeys(pd.read_csv(workdir / "services.csv")["sentences"]))
    everything = gathering[gathering["concepts"] == 0].set_index("sentences")
    told = "; ".join(
        f"{sentences}: {row.domains:.2f} domains a unit, {row.null_mean:.2f} by chance ({row.null_low:.2f} to "
        f"{row.null_high:.2f})"
        for sentences, row in everything.iterrows()
    )
    pairs = "; ".join(
        f"{row.sentences}, {row.pair}: {100 * row.small_p:.0f}% of {row.pairs} pairs differ (p < 0.05), mean AP "
        f"{row.ap_shared:.3f} shared, {row.ap_unshared:.3f} not"
        for row in summary.itertuples()
    )
    fewer, alike = [], []
    for name in names:
        if name not in everything.index:
            fewer.append(Untestable(f"{name}: no unit serves two concepts at τ = {config['drawn_threshold']:g}"))
        else:
            row = everything.loc[name]
            drawn = f"{name}: {config['permutations']} permutations of the concepts' domains"
            lower = above(row["null_low"], row["domains"], f"{name}: the null")
            possible = enough(row["least_p"], drawn)
            fewer.append(lower if possible is True else possible)
        alike.append(compare_kinds(name, summary[summary["sentences"] == name], shared[shared["sentences"] == name]))
    return [
        conclude_from(
            claim="Experts serve several concepts along human lines: those of one domain rather than any.",
            found=f"Units that serve several concepts: {told or 'none'}. Held if there are fewer domains than chance "
            "has in every sentence set.",
            outcome=every(fewer),
            figure="services",
        ),
        conclude_from(
            claim="Experts that two concepts share are as expert as those that they don't share.",
            found=f"{pairs or 'No two concepts share enough experts'}. Held if at most 10% of pairs of any kind differ "
            "by Kolmogorov and Smirnov's test (5% would by chance, were units independent).",
            outcome=every(alike),
            figure="shared",
        ),
    ]


def compare_kinds(sentences: str, summary: pd.DataFrame, shared: pd.DataFrame) -> Outcome:
    """Return whether at most 10% of the pairs differ, of each kind that has pairs enough to tell 10% from none."""
    outcomes = []
    for row in summary.itertuples():
        sizes = shared.loc[shared["pair"] == row.pair, ["shared", "unshared"]]
        able = [least_p_of_ks(*pair) < LEVEL for pair in sizes.itertuples(index=False)]
        if sum(able) < FEWEST_PAIRS:
            outcomes.append(
                Untestable(
                    f"{sentences}, {row.pair}: {sum(able)} pairs have experts enough to differ, fewer than "
                    f"{FEWEST_PAIRS}"
                )
            )
        else:
            outcomes.append(above(0.1 + 1e-9, row.small_p * len(able) / sum(able), f"{sentences}, {row.pair}"))
    return of_those_made(outcomes or [Untestable(f"{sentences}: no two concepts share enough experts")])


if __name__ == "__main__":
    launch(run)
