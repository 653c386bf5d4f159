"""Are the experts of larger models more specialised, and better aligned with people?

Claim (Fedzechkina et al. 2025): alignment with human similarity grows with the model's size (0.70, 0.77, 0.79 for
Pythia-70m, 1b, 12b on MEN), and overlap and alignment fall less as the threshold rises in larger models. It would be
refuted by an alignment that doesn't grow with the number of parameters beyond its interval, and by a fall from the
lowest to the highest threshold that is as steep in the largest model as in the smallest. Two or three models of one
family can refute it, but hardly prove it: sizes differ in training, too. Seeds of one size, named beside one another,
show how much a model's chance counts.

    python -m experiments.scale --config=configs/demo.py --workdir=runs/scale

Writes into the run directory `scale.csv` (a row per sentence set, model, threshold and statistic: experts, also as a
share of all units, their overlap, alignment with ratings, with intervals over concepts and chance levels), `fall.csv`
(the change from the lowest to the highest threshold, per model) and the figure `scale`. Tables of expertise lie in
`expertise/`; killed and started again, it goes on where it was.
"""

import jax
import ml_collections
import pandas as pd
from etils import epath

from expertlens_jax import plot
from expertlens_jax.analysis.structure.thresholds import describe_thresholds, measure_fall
from expertlens_jax.analysis.tables import label
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.scale_findings import conclude, tell

from .checks import check_scale as check
from .launch import launch
from .run import start
from .sources import Sources


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check, own_model=False)
    parts = []
    for name in config.scale.models:
        for concepts in this.datasets:
            model = this.named_model(name)
            parameters = sum(leaf.size for leaf in jax.tree.leaves(model.params))  # embeddings included
            expertise = this.expertise(model, concepts)
            size = {"model": name, "parameters": parameters, "units": expertise.sizes["unit"]}  # of the config's sites
            found = describe_thresholds(expertise, config.thresholds, this.ratings, **this.draws)
            parts.append(label(found, sentences=concepts.name, **size))
    table = pd.concat(parts, ignore_index=True).sort_values("parameters", kind="stable")
    fall = measure_fall(table)
    this.write({"scale": table, "fall": fall})
    statistics = ("experts", "share", "overlap", "alignment")
    note = "a dot per model; dashed: random sets as large; for the alignment, 0"
    this.draw("scale", plot.lines(table, "parameters", "Parameters", statistics, note=note))
    return this.finish(tell(table, fall), conclude(table, fall))


if __name__ == "__main__":
    launch(run)
