"""Are a model's experts arranged as people arrange the concepts?

Claim (Fedzechkina et al. 2025, arXiv 2502.15090): the more two concepts' expert sets overlap, the more alike people say
the concepts are, beyond what embeddings of the same model show. The claim would be refuted if overlaps align no better
than those of the same network with random weights, or than TF-IDF of the sentences alone: both are in the same table.

    python -m experiments.alignment --config=configs/demo.py --workdir=runs/demo [--config.ratings=FILE]

Writes into the run directory `alignment.csv` (a row per sentence set, measure, threshold, negatives per positive and
ratings), `comparisons.csv` (the drawn measure's alignment less each other's, with p corrected by Holm's method),
`partial.csv` (what is left of it when a control is partialled out), `pairs.csv` (the rated pairs of the drawn measure),
`experts.csv` (per concept), `localisation.csv` (per layer and site), the overlap of each sentence set, `expertise/` (a
run of `el.find_experts` a table; `el.open_expertise` reads it), `word_vectors/` where they were trained, and
`figures/`. Killed and started again, it goes on where it was.
"""

import ml_collections
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.similarity.aligned_measures import align_measures
from expertlens_jax.analysis.structure.localisation import count_experts
from expertlens_jax.analysis.tables import Tables
from expertlens_jax.models.sae_named import carry_each
from expertlens_jax.report.alignment_findings import COLUMNS, conclude, drawn_rows, label_measures, shown_rows, tell
from expertlens_jax.report.conclusions import Conclusion

from .baselines import check, check_model, compare_concepts, kept_beside, word_vector_files
from .launch import launch
from .run import start
from .sources import Sources


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check, check_model)
    threshold, ratio = config.drawn_threshold, config.negatives_per_positive
    vectors, carrying = word_vector_files(config, this.workdir), carry_each(this.model, config.saes)
    tables = Tables()
    for concepts in this.datasets:
        print(f"\n{concepts!r}")
        expertise = this.expertise(this.model, concepts, **kept_beside(config))
        experts = el.select_experts(expertise, threshold=threshold)
        counts = count_experts(experts)
        this.draw(f"overlap_{concepts.name}", plot.overlap(el.jaccard(experts)))
        this.draw(f"localisation_{concepts.name}", plot.localisation(counts))
        print(f"Its first figures are in {this.workdir / 'figures'}")
        measures = compare_concepts(this, concepts, expertise, vectors, carrying)
        drawn = next(
            m for m in measures if (m.name, m.threshold, m.negatives_per_positive) == ("jaccard", threshold, ratio)
        )
        found = align_measures(measures, drawn, this.ratings, concepts.name, progress=True, **this.draws)
        found["experts"] = experts.sum("unit").to_series().rename("experts").reset_index()
        found["localisation"] = counts
        for name, table in found.items():
            tables.add(name, table.assign(sentences=concepts.name))
        this.write({f"overlap_{concepts.name}": drawn.similarity.to_pandas().reset_index()})

    joined = tables.joined()
    table = joined["alignment"]
    this.write(joined | {"alignment": table[COLUMNS]})
    shown = shown_rows(table, config.thresholds, ratio)
    quantity = f"Overlap of experts (Jaccard, τ = {threshold:g})"
    this.draw("alignment", plot.alignment(joined["pairs"], drawn_rows(shown, threshold), quantity=quantity))
    if joined["comparisons"]["difference"].notna().any():
        this.draw("comparisons", plot.comparisons(joined["comparisons"], joined["partial"]))
    else:
        print("No two alignments can be compared: there is no figure of comparisons.")
    this.draw("measures", plot.measures(shown.assign(measure=label_measures(shown))))
    jaccard = table[table["measure"] == "jaccard"]
    if len(set(jaccard["negatives_per_positive"])) > 1:
        this.draw("base_rates", plot.base_rates(jaccard, drawn=(threshold, ratio)))
    return this.finish(tell(shown), conclude(shown, threshold=threshold, permutations=config.permutations))


if __name__ == "__main__":
    launch(run)
