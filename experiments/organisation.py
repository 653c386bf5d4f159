"""Do the experts of concepts arrange them as people do: in domains, under the domains' words?

Claim (Fedzechkina et al. 2025): domains (animals, food, …) come out of the overlap of expert sets as clusters and
graphs, though nobody told the model about them. The claim would be refuted if they are found no better than domains
handed out at random (the null beside every number). If the same network with random weights, or TF-IDF of the
sentences, finds them as well, this says nothing about what the model learned: both are in the same table. A second
claim is that a domain word's experts are those that its members share. It would be refuted if the word's experts are in
its members' no more than these are in one another's, or no more than another domain's word is.

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

import ml_collections
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.similarity.beside_experts import experts_name, similarities_for_domains
from expertlens_jax.analysis.structure.organisation import tell_map
from expertlens_jax.analysis.structure.recovery import recover_domains
from expertlens_jax.analysis.tables import Tables
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.organisation_findings import conclude, tell

from .checks import check_organisation as check
from .launch import launch
from .run import start
from .sources import Sources


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check)
    threshold, tables = config.drawn_threshold, Tables()
    how = {"neighbours": config.organisation.neighbours, "permutations": config.permutations, "seed": config.seed}
    drawn = {name: config.organisation[name] for name in ("maps", "graph_domains", "graph_members", "graph_edges")}
    beside = {"thresholds": config.thresholds, "threshold": threshold, "random_weights": config.random_weights}
    for concepts in this.datasets:
        name = concepts.name
        expertise = this.expertise(this.model, concepts)
        experts = el.select_experts(expertise, threshold=threshold)
        words = [f" {word}" for word in concepts.concepts]  # with the space that stands before them in a sentence
        tokens = this.model.tokenizer(words, add_special_tokens=False)["input_ids"]
        found = el.analysis.organisation(el.jaccard(experts), tokens=tokens, **drawn, **how)
        for measure, overlap in similarities_for_domains(this.model, concepts, expertise, this.expertise, **beside):
            known = measure == experts_name(threshold)
            recovered = found.table if known else recover_domains(overlap, **how)
            tables.add("recovery", recovered, sentences=name, measure=measure)
        inherited = el.analysis.hierarchy(experts, **this.resampling)
        parts = found.tables | inherited.tables | {"hierarchy": inherited.table}
        for each, part in parts.items():
            tables.add({"within": "graph_within"}.get(each, each), part, sentences=name)
        for method, place in parts["map"].groupby("method", sort=False):
            this.draw(f"map_{method}_{name}", plot.map(place, title=f"{name}: {tell_map(place)}"))
        for each in ("domains", "graph"):
            this.draw(f"{each}_{name}", found.plot(each))
        this.draw(
            f"tree_{name}", plot.tree(el.jaccard(experts), quantity=f"Overlap of experts (Jaccard, τ = {threshold:g})")
        )
    this.write(joined := tables.joined())
    this.draw("recovery", plot.recovery(joined["recovery"]))
    this.draw("hierarchy", plot.hierarchy(joined["hierarchy"], joined["sharing"]))
    concluded = conclude(joined["recovery"], joined["hierarchy"], threshold=threshold, permutations=config.permutations)
    return this.finish(tell(joined), concluded)


if __name__ == "__main__":
    launch(run)
