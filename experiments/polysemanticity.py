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

import ml_collections
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.structure.matched_controls import compare_matched, summarise_matched
from expertlens_jax.analysis.tables import Tables
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.polysemanticity_findings import conclude, tell

from .checks import check_polysemanticity as check
from .launch import launch
from .run import start
from .sources import Sources


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check)
    settings, threshold = config.polysemanticity, config.drawn_threshold
    sizes = {name: settings[name] for name in ("draws", "minimum", "pairs")}
    expertise = {concepts.name: this.expertise(this.model, concepts) for concepts in this.datasets}
    names = list(expertise)
    tables = Tables()
    for i, name in enumerate(names):
        served = el.analysis.polysemanticity(expertise[name], threshold=threshold, **sizes, **this.draws)
        parts = {"services": served.tables["units"], "gathering": served.table}
        parts |= {each: served.tables[each] for each in ("spread", "shared", "shared_summary", "distributions")}
        for file, part in parts.items():
            tables.add(file, part, sentences=name)
        experts = el.select_experts(expertise[name], threshold=threshold)
        held_out = expertise[names[(i + 1) % len(names)]] if len(names) > 1 else None
        for match in settings.matches:
            matched = compare_matched(expertise[name], experts, held_out, match)
            tables.add("matched", matched, sentences=name, match=match)
            tables.add("matched_summary", summarise_matched(matched, **this.resampling), sentences=name, match=match)
    this.write(joined := tables.joined())
    this.draw("services", plot.services(joined["spread"], joined["gathering"]))
    if len(joined["shared_summary"]):
        this.draw("shared", plot.shared(joined["distributions"], joined["shared_summary"]))
    else:
        print(f"No two concepts share {settings.minimum} experts and differ in as many: nothing to compare.")
    this.draw("matched", plot.matched(joined["matched_summary"]))
    return this.finish(tell(joined), conclude(joined, threshold=threshold, permutations=config.permutations))


if __name__ == "__main__":
    launch(run)
