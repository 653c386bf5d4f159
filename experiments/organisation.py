"""Do the experts of concepts arrange them as people do: in domains, under the domains' words?

Claim (Fedzechkina et al. 2025): domains (animals, food, …) come out of the overlap of expert sets as clusters and
graphs, though nothing told the model of them. It would be refuted by recovery no better than that of domains handed
out at random (the permutation null beside every number); and it would be no finding about what the model learned if
the same network with random weights, or TF-IDF of the sentences, recovered them as well: both stand in the same table.
Of hierarchy, the claim that a domain word's experts are those its members share would be refuted by an own word that is
in its members no more than they are in one another, or no more than another domain's word is.

    python -m experiments.organisation --config=configs/demo.py --workdir=runs/organisation

Writes into the run directory `recovery.csv` (per sentence set, measure and threshold: ARI, AMI, NMI, purity, silhouette
and nearest neighbours' accuracy, each with its null), `map.csv` (place of each concept), `domains.csv` (mean overlap
between and within domains against chance), `misplaced.csv` (concepts whose nearest are of another domain),
`spelling.csv` (overlap of concepts whose words share a token, and of others), `inclusion.csv` (a row per pair) and
`hierarchy.csv` (their means, by domain's word, members, and other words), `sharing.csv` (units that k members share),
and the figures `tree_SET`, `map_METHOD_SET`, `domains_SET`, `recovery` and `hierarchy`. All but `recovery.csv` is at
`drawn_threshold`. Tables of expertise lie in `expertise/`; killed and started again, it goes on where it was.
"""

import json

import ml_collections
import pandas as pd
import xarray as xr
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.similarity.baselines import tfidf_similarity
from expertlens_jax.analysis.statistics import least_p_of_signs
from expertlens_jax.analysis.structure.hierarchy import (
    MEMBERS,
    OTHER,
    count_sharing,
    measure_inclusion,
    summarise_inclusion,
)
from expertlens_jax.analysis.structure.organisation import (
    MAPS,
    compare_spelling,
    find_misplaced,
    map_concepts,
    relate_domains,
)
from expertlens_jax.analysis.structure.recovery import recover_domains
from expertlens_jax.errors import SelectionError, UnfitConceptsError
from expertlens_jax.report.conclusions import (
    Conclusion,
    Outcome,
    Untestable,
    above,
    conclude_from,
    enough,
    every,
    significant,
)
from expertlens_jax.run_directory import open_run, write_csv

from .launch import find_model, launch
from .measured import check_statistics, draw, load_datasets, saved_expertise


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """The experiment."""
    datasets = load_datasets(config)
    check(config, datasets)
    model = find_model(config)
    workdir = open_run(workdir, config.to_dict())
    print(f"Writing to {workdir}")
    settings = config.organisation
    bootstrap = {"resamples": config.resamples, "seed": config.seed}

    tables = {
        name: []
        for name in ("recovery", "map", "domains", "misplaced", "spelling", "inclusion", "hierarchy", "sharing")
    }
    for concepts in datasets:

        def keep(name: str, table: pd.DataFrame, sentences: str = concepts.name, **more: object) -> pd.DataFrame:
            columns = {"sentences": sentences} | more
            tables[name].append(table.assign(**columns)[[*columns, *table.columns]])
            return tables[name][-1]

        expertise = saved_expertise(model, concepts, config, workdir)
        for measure, overlap in measures(model, concepts, expertise, config, workdir).items():
            recovered = recover_domains(
                overlap, neighbours=settings.neighbours, permutations=config.permutations, seed=config.seed
            )
            keep("recovery", recovered, measure=measure)
        experts = el.select_experts(expertise, threshold=config.drawn_threshold)
        overlap = el.jaccard(experts)
        for method in settings.maps:
            place = map_concepts(overlap, method, settings.neighbours)
            keep(
                "map",
                place,
                method=method,
                stress=place.attrs["stress"],
                trustworthiness=place.attrs["trustworthiness"],
            )
            title = (
                f"{concepts.name}: {_MAP_NAMES[method]} (stress {place.attrs['stress']:.2f}, "
                f"trustworthiness {place.attrs['trustworthiness']:.2f})"
            )
            draw(plot.map(place, title=title), workdir, f"map_{method}_{concepts.name}")
        related = keep("domains", relate_domains(overlap, permutations=config.permutations, seed=config.seed))
        draw(plot.domain_graph(related), workdir, f"domains_{concepts.name}")
        quantity = f"Overlap of experts (Jaccard, τ = {config.drawn_threshold:g})"
        draw(plot.tree(overlap, quantity=quantity), workdir, f"tree_{concepts.name}")
        keep("misplaced", find_misplaced(overlap, settings.neighbours))
        words = [f" {word}" for word in concepts.concepts]  # with the space that stands before them in a sentence
        tokens = model.tokenizer(words, add_special_tokens=False)["input_ids"]
        keep("spelling", compare_spelling(overlap, tokens))
        inclusion = keep("inclusion", measure_inclusion(experts))
        keep("hierarchy", summarise_inclusion(inclusion, **bootstrap))
        keep("sharing", count_sharing(experts, **bootstrap))

    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    for name, table in joined.items():
        write_csv(workdir / f"{name}.csv", table)
    draw(plot.recovery(joined["recovery"]), workdir, "recovery")
    draw(plot.hierarchy(joined["hierarchy"], joined["sharing"]), workdir, "hierarchy")

    print(f"\n{format_recovery(joined['recovery'])}\n\n{format_hierarchy(joined['hierarchy'])}\n")
    print(f"{format_misplaced(joined['misplaced'])}\n\n{format_spelling(joined['spelling'])}")
    print(f"\nTables and figures are in {workdir}")


_MAP_NAMES = {"mds": "multidimensional scaling", "tsne": "t-SNE"}


def check(config: ml_collections.ConfigDict, datasets: list[el.ConceptDataset]) -> None:
    """Refuses what would fail after the model ran.

    Raises:
      SelectionError: an unknown map, no neighbours, thresholds that can't be drawn, or no draws.
      UnfitConceptsError: concepts without domains, with no domain's word among them, or too few for a map.
    """
    settings = config.organisation
    check_statistics(config)
    for method in settings.maps:
        if method not in MAPS:
            raise SelectionError(f"organisation.maps hold {method!r}; there are {', '.join(MAPS)}.")
    if settings.neighbours < 1:
        raise SelectionError(f"organisation.neighbours is {settings.neighbours}; wanted 1 or more.")
    for concepts in datasets:
        nobody = xr.DataArray(
            [[False]] * len(concepts.concepts),
            dims=("concept", "unit"),
            coords={"concept": list(concepts.concepts), "domain": ("concept", list(concepts.domains))},
        )
        try:
            measure_inclusion(nobody)  # of nothing: it looks at domains and words only
        except SelectionError as error:
            raise UnfitConceptsError(f"{concepts.name}: {error}") from None
        if len(concepts.concepts) < 4:
            raise UnfitConceptsError(
                f"{concepts.name} has {len(concepts.concepts)} concepts; a map wants four or more."
            )


def measures(
    model: el.Model,
    concepts: el.ConceptDataset,
    expertise: xr.Dataset,
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
) -> dict[str, xr.DataArray]:
    """The overlaps whose domains are looked for: of experts at each threshold, and the controls'."""
    found = {
        f"experts, τ = {threshold:g}": el.jaccard(el.select_experts(expertise, threshold=threshold))
        for threshold in config.thresholds
    }
    found["AP, cosine centred"] = el.cosine(expertise, centred=True)
    for seed in config.random_weights:
        random = saved_expertise(el.randomize_weights(model, seed), concepts, config, workdir)
        name = f"random weights {seed}, τ = {config.drawn_threshold:g}"
        found[name] = el.jaccard(el.select_experts(random, threshold=config.drawn_threshold))
        found[f"random weights {seed}, AP cosine"] = el.cosine(random, centred=True)
    found["TF-IDF of the sentences"] = tfidf_similarity(concepts)
    return found


def format_recovery(recovery: pd.DataFrame) -> str:
    """A row per measure, a column per statistic; the null's mean beside each."""
    shown = [f"{r.value:.2f} ({r.null_mean:.2f}){' ' if r.p_value <= 0.05 else '*'}" for r in recovery.itertuples()]
    table = recovery.assign(shown=shown).pivot_table(
        index=["sentences", "measure"], columns="statistic", values="shown", aggfunc="first", sort=False
    )
    return f"Recovery of domains (mean of the null; * p > 0.05)\n{table.to_string()}"


def format_hierarchy(hierarchy: pd.DataFrame) -> str:
    """Inclusion and lift by kind of pair."""
    table = pd.DataFrame(
        {
            "sentences": hierarchy["sentences"],
            "statistic": hierarchy["statistic"],
            "pair": hierarchy["pair"],
            "mean": [f"{r.mean:.3f} [{r.ci_low:.3f}, {r.ci_high:.3f}]" for r in hierarchy.itertuples()],
            "own word less this": [
                "" if pd.isna(r.own_less_this) else f"{r.own_less_this:+.3f}" for r in hierarchy.itertuples()
            ],
            "p": hierarchy["p_value"].map(lambda p: "" if pd.isna(p) else f"{p:.2g}"),
        }
    )
    return f"Inclusion of expert sets, over domains\n{table.to_string(index=False, justify='left')}"


def format_misplaced(misplaced: pd.DataFrame) -> str:
    """The concepts that sit with the same other domain in every sentence set, or the first few of one set."""
    if misplaced.empty:
        return "No concept sits elsewhere than people put it."
    counts = misplaced.groupby("sentences", sort=False).size()
    sets = misplaced.groupby(["concept", "domain", "sits_with"], sort=False)["sentences"].nunique()
    same = sets[sets == len(counts)].reset_index()
    listed = ", ".join(f"{r.concept} ({r.domain}: {r.sits_with})" for r in same.head(20).itertuples())
    numbers = ", ".join(f"{count} of {name}" for name, count in counts.items())
    return f"Concepts that sit elsewhere: {numbers}; with the same domain in every set, {len(same)}: {listed}"


def format_spelling(spelling: pd.DataFrame) -> str:
    """Whether concepts are alike because their words are spelled alike."""
    kinds = [
        f"{'same' if row.same_domain else 'other'} domain, {'a' if row.shares_token else 'no'} token shared"
        for row in spelling.itertuples()
    ]
    shown = spelling.assign(pair=kinds, shown=[f"{r.overlap:.3f} ({r.pairs})" for r in spelling.itertuples()])
    table = shown.pivot_table(index="sentences", columns="pair", values="shown", aggfunc="first", sort=False)
    return f"Mean overlap (pairs), by domain and by the tokens of the concepts' words\n{table.to_string()}"


def conclude(workdir: epath.Path) -> list[Conclusion]:
    """Return what a finished run found of its claims.

    Recovery is testable with enough concepts in enough domains for a p below 0.05, enough permutations, and random
    weights beside it; hierarchy with enough domains that have their word among the concepts, for intervals over them.
    """
    recovery, hierarchy = (pd.read_csv(workdir / f"{name}.csv") for name in ("recovery", "hierarchy"))
    config = json.loads((workdir / "config.json").read_text())
    threshold = config["drawn_threshold"]
    neighbours = recovery[recovery["statistic"] == "knn_accuracy"]
    told, outcomes = [], []
    for sentences, rows in neighbours.groupby("sentences", sort=False):
        rows = rows.set_index("measure")
        experts = rows.loc[f"experts, τ = {threshold:g}"]
        others = {name: rows["value"][name] for name in rows.index if name.startswith(("random", "TF-IDF"))}
        drawn = (
            f"{config['permutations']} permutations of {experts['concepts']} concepts in {experts['domains']} domains"
        )
        random = [
            above(experts["value"], value, f"{sentences}: the accuracy of {name}")
            for name, value in others.items()
            if name.startswith("random")
        ]
        random = random or [Untestable("no random_weights were asked for to hold it against")]
        outcomes.append(every([significant(experts["p_value"], experts["least_p"], drawn), *random]))
        beside = ", ".join(f"{name} {value:.2f}" for name, value in others.items())
        told.append(
            f"{sentences}: {experts['value']:.2f} (chance {experts['null_mean']:.2f}, p = {experts['p_value']:.2g}; "
            f"{beside})"
        )
    lifts = hierarchy[hierarchy["statistic"] == "lift"]
    lifted = "; ".join(
        f"{sentences}: " + ", ".join(f"{pair} {value:.1f}" for pair, value in row.items())
        for sentences, row in lifts.pivot_table(index="sentences", columns="pair", values="mean").iterrows()
    )
    return [
        conclude_from(
            claim="Domains come out of the overlap of expert sets, though nothing told the model of them.",
            found=f"A concept's nearest concepts by overlap at τ = {threshold:g} tell its domain with accuracy "
            f"{'; '.join(told)}. Held if above chance (p < 0.05) and above random weights in every sentence set.",
            outcome=every(outcomes),
            figure="recovery",
        ),
        conclude_from(
            claim="The experts of a domain's word are those that its members share.",
            found=f"Shared experts over what chance would have: {lifted or 'none'}. Held if a domain's own word is in "
            "its members more than they are in one another and more than another domain's word is, with the intervals.",
            outcome=every([outcome for _, rows in lifts.groupby("sentences") for outcome in compare_lifts(rows)]),
            figure="hierarchy",
        ),
    ]


def compare_lifts(lifts: pd.DataFrame) -> list[Outcome]:
    """Return whether the own word's lift is above that of either other kind of pair, in one sentence set."""
    outcomes = []
    for pair in (MEMBERS, OTHER):
        rows = lifts[lifts["pair"] == pair]
        if rows.empty:
            outcomes.append(Untestable("there is one domain's word, and no other to hold it against"))
        for row in rows.itertuples():
            low = above(row.difference_ci_low, 0.0, f"{row.sentences}: the lift over {pair}")
            sure = enough(least_p_of_signs(row.domains), f"{row.domains} domains")
            outcomes.append(low if sure is True else sure)
    return outcomes


if __name__ == "__main__":
    launch(run)
