"""Does a model need its experts, or does it only have them?

Claim: experts are necessary. A unit that is active at a concept's sentences needn't be one that the model goes by when
it comes to the concept's word (CRANE, arXiv 2601.04664). So the highest units of each concept are silenced, and the
word's log-probability is read where new sentences of the concept have it, beside that of other concepts' words in
theirs. It would be refuted by a fall no larger than of random units in the same layers and sites, or by other words
that fall as far. Beside the order by average precision stands that by attribution, gradient times activation on the
same log-probability: do both choose the same units, and which are more necessary? And what do the same units do when
they are made to speak (sufficiency)?

A third order comes from steering that is learned, at a price for each unit that it changes (LinEAS, arXiv 2503.10679),
of a few concepts, `necessity.learned`: does it change the units that average precision or attribution chooses?

    python -m experiments.necessity --config=configs/demo.py --workdir=runs/necessity

Units are chosen on the config's first sentence set, and tried on its last; of a single set, on one half and the other.
Concepts are `necessity.concepts`, drawn domain by domain; 0 takes all. Writes into the run directory `necessity.csv` (a
row per set of units, number, ablation and measure: mean and 95% interval over concepts), `comparisons.csv` (sets
compared concept by concept), `agreement.csv` (rank correlation of the two orders, and the share of the highest in
common, with chance), `concepts.csv` (each number by concept), `learned.csv` (the share of learned units among the
highest by either order), and the figures `necessity` and `learned`. Each concept that was measured is kept in
`measured/`; a run that was killed goes on.
"""

import ml_collections
from etils import epath

import expertlens_jax as el
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.necessity_findings import conclude, tell
from expertlens_jax.run_directory import open_run, saved_json

from .expertise import question_of
from .launch import launch
from .necessity_settings import check, check_model, find_sentences, read_learning
from .run import start
from .sources import Sources


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check, check_model)
    settings = config.necessity
    whole, chosen_on, tried_on = find_sentences(config, this.datasets)
    table = this.expertise(this.model, whole).sel(concept=list(chosen_on.concepts))
    quarter = -(-config.tokens_per_batch // 4) or None  # gradients take about four times the memory
    table = el.attribute(this.model, chosen_on, expertise=table, tokens_per_batch=quarter)
    kept = this.workdir / "measured"
    open_run(kept, question_of(table))
    keep = {"kept": lambda name, make: saved_json(kept / f"{name}.json", make), "progress": True, **this.resampling}
    found = el.analysis.necessity(
        this.model,
        table,
        tried_on,
        counts=tuple(settings.sizes),
        ablations=tuple(settings.ablations),
        sentences=settings.sentences,
        prompts=tuple(settings.prompts),
        **keep,
    )
    tables = {"necessity": found.table, **found.tables}
    if settings.learned:
        learned = el.analysis.learned_units(
            this.model,
            table,
            chosen_on,
            chosen_on.concepts[: settings.learned],
            learning=read_learning(config),
            by=("average_precision", "attribution"),
            **keep,
        )
        tables |= {"learned": learned.table, "learned_concepts": learned.tables["concepts"]}
        this.draw("learned", learned.plot())
    this.write(tables)
    this.draw("necessity", found.plot())
    told = conclude(tables, count=settings.drawn_size, ablation=settings.ablations[0])
    return this.finish(tell(tables), told)


if __name__ == "__main__":
    launch(run)
