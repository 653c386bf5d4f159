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
between and within domains against chance), `misplaced.csv` (concepts whose nearest are of another domain), `graph.csv`
and `graph_within.csv` (edges between a few concepts of several domains, and how many stay within, against domains
handed out at random), `spelling.csv` (overlap of concepts whose words share a token, and of others), `inclusion.csv` (a
row per pair) and `hierarchy.csv` (their means, by domain's word, members, and other words), `sharing.csv` (units that k
members share); figures `graph_SET`, `tree_SET`, `map_METHOD_SET`, `domains_SET`, `recovery` and `hierarchy`. All
but `recovery.csv` is at `drawn_threshold`. Tables of expertise lie in `expertise/`; killed and started again, it goes
on where it was.
"""

from collections.abc import Iterator

import ml_collections
import pandas as pd
import xarray as xr
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.similarity.baselines import tfidf_similarity
from expertlens_jax.analysis.structure.hierarchy import count_sharing, measure_inclusion, summarise_inclusion
from expertlens_jax.analysis.structure.organisation import (
    compare_spelling,
    count_within,
    find_misplaced,
    graph_concepts,
    map_concepts,
    relate_domains,
)
from expertlens_jax.analysis.structure.recovery import recover_domains
from expertlens_jax.analysis.tables import Tables
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.organisation_findings import conclude, experts_name, tell

from .checks import check_organisation as check
from .launch import launch
from .run import Run, start
from .sources import Sources

MAP_NAMES = {"mds": "multidimensional scaling", "tsne": "t-SNE"}


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check)
    settings, threshold = config.organisation, config.drawn_threshold
    nulls = {"permutations": config.permutations, "seed": config.seed}
    tables = Tables()
    for concepts in this.datasets:
        name = concepts.name
        expertise = this.expertise(this.model, concepts)
        for measure, overlap in overlaps(this, concepts, expertise):
            recovered = recover_domains(overlap, neighbours=settings.neighbours, **nulls)
            tables.add("recovery", recovered, sentences=name, measure=measure)
        experts = el.select_experts(expertise, threshold=threshold)
        overlap = el.jaccard(experts)
        for method in settings.maps:
            place = map_concepts(overlap, method, settings.neighbours)
            quality = {key: place.attrs[key] for key in ("stress", "trustworthiness")}
            tables.add("map", place, sentences=name, method=method, **quality)
            told = ", ".join(f"{key} {value:.2f}" for key, value in quality.items())
            this.draw(f"map_{method}_{name}", plot.map(place, title=f"{name}: {MAP_NAMES[method]} ({told})"))
        related = tables.add("domains", relate_domains(overlap, **nulls), sentences=name)
        this.draw(f"domains_{name}", plot.domain_graph(related))
        quantity = f"Overlap of experts (Jaccard, τ = {threshold:g})"
        this.draw(f"tree_{name}", plot.tree(overlap, quantity=quantity))
        tables.add("misplaced", find_misplaced(overlap, settings.neighbours), sentences=name)
        words = [f" {word}" for word in concepts.concepts]  # with the space that stands before them in a sentence
        tokens = this.model.tokenizer(words, add_special_tokens=False)["input_ids"]
        tables.add("spelling", compare_spelling(overlap, tokens), sentences=name)
        members = first_members(overlap, settings.graph_domains, settings.graph_members)
        few = overlap.isel(concept=members, other=members)
        edges = graph_concepts(few, settings.graph_edges, tokens=[tokens[i] for i in members])
        shown = pd.DataFrame({"concept": few["concept"].values, "domain": few["domain"].values})
        within = count_within(edges, shown["domain"], shown["concept"], **nulls)
        tables.add("graph", edges, sentences=name)
        tables.add("graph_within", within, sentences=name)
        this.draw(f"graph_{name}", plot.concept_graph(edges, shown, within))
        inclusion = tables.add("inclusion", measure_inclusion(experts), sentences=name)
        tables.add("hierarchy", summarise_inclusion(inclusion, **this.resampling), sentences=name)
        tables.add("sharing", count_sharing(experts, **this.resampling), sentences=name)
    this.write(joined := tables.joined())
    this.draw("recovery", plot.recovery(joined["recovery"]))
    this.draw("hierarchy", plot.hierarchy(joined["hierarchy"], joined["sharing"]))
    drawn = {"threshold": threshold, "permutations": config.permutations}
    return this.finish(tell(joined), conclude(joined["recovery"], joined["hierarchy"], **drawn))


def overlaps(this: Run, concepts: el.ConceptDataset, expertise: xr.Dataset) -> Iterator[tuple[str, xr.DataArray]]:
    """Yield the overlaps whose domains are looked for, by name: of experts at each threshold, and the controls'."""
    config, threshold = this.config, this.config.drawn_threshold
    for each in config.thresholds:
        yield experts_name(each), el.jaccard(el.select_experts(expertise, threshold=each))
    yield "AP, cosine centred", el.cosine(expertise, centred=True)
    for seed in config.random_weights:
        random = this.expertise(this.random_model(seed), concepts)
        yield f"random weights {seed}, τ = {threshold:g}", el.jaccard(el.select_experts(random, threshold=threshold))
        yield f"random weights {seed}, AP cosine", el.cosine(random, centred=True)
    yield "TF-IDF of the sentences", tfidf_similarity(concepts)


def first_members(overlap: xr.DataArray, domains: int, members: int) -> list[int]:
    """Return the places of the first concepts of each of the first domains, without the domains' own words."""
    of = [str(name) for name in overlap["domain"].values]
    names = [str(name) for name in overlap["concept"].values]
    first = dict.fromkeys(of)
    chosen = {name: [i for i, domain in enumerate(of) if domain == name and names[i] != name] for name in first}
    return [i for name in list(first)[:domains] for i in chosen[name][:members]]


if __name__ == "__main__":
    launch(run)
