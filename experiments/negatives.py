"""What do more negatives do to expert sets?

Claim (Fedzechkina et al. 2025): with more negative sentences per positive, expert sets overlap less at high thresholds.
It would be refuted by overlaps that don't fall as negatives are added. Part of it is arithmetic: average precision
falls with the base rate, so fewer units reach a threshold. So the same number of experts per concept (the `top`, by
average precision) stands beside: if their overlap doesn't fall, then negatives make sets smaller, but don't change who
is in them.

    python -m experiments.negatives --config=configs/demo.py --workdir=runs/negatives

Writes into the run directory `negatives.csv` (a row per sentence set, negatives per positive, threshold or top, and
statistic: experts, their overlap, alignment with ratings, with intervals over concepts and chance levels) and the
figures `negatives` and `negatives_top`. Tables of expertise lie in `expertise/`; killed and started again, it goes on
where it was.
"""

import ml_collections
import pandas as pd
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.structure.thresholds import describe_experts, describe_thresholds
from expertlens_jax.analysis.tables import label
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.negatives_findings import conclude, tell

from .checks import check_negatives as check
from .checks import check_top as check_model
from .launch import launch
from .run import start
from .sources import Sources


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check, check_model)
    parts = []
    for concepts in this.datasets:
        for ratio in map(float, config.negatives.ratios):
            expertise = this.expertise(this.model, concepts, negatives_per_positive=ratio)
            source = {"sentences": concepts.name, "concepts": len(concepts.concepts), "negatives_per_positive": ratio}
            found = describe_thresholds(expertise, config.thresholds, this.ratings, **this.draws)
            parts.append(label(found, **source, top=pd.NA))
            for top in config.negatives.top:
                found = describe_experts(el.select_experts(expertise, top=top), this.ratings, **this.draws)
                parts.append(label(found.assign(threshold=float("nan")), **source, top=top))
    table = pd.concat(parts, ignore_index=True).astype({"top": "Int64"})
    this.write({"negatives": table})
    axis = ("negatives_per_positive", "Negatives per positive")
    note = "dashed: random sets as large; for the alignment, 0"
    this.draw("negatives", plot.lines(table, *axis, ("experts", "overlap", "alignment"), note=note))
    tops = table[table["top"].notna()].assign(threshold=table["top"].astype(float))
    this.draw("negatives_top", plot.lines(tops, *axis, ("overlap", "alignment"), lines="top {:g}", note=note))
    return this.finish(tell(table), conclude(table))


if __name__ == "__main__":
    launch(run)
