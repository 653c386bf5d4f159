"""When in training do a concept's experts appear?

Claim (Fedzechkina et al. 2025): experts are there early and settle through training, the specialised ones (those that
meet a high threshold) later; the overlap's alignment with human similarity grows with them. It would be refuted by
overlap with the last checkpoint's expert sets that is as high at initialisation as later, or that reaches half no later
at high thresholds than at low ones; and by an alignment at step 0, of random weights, as high as at the end.

    python -m experiments.training --config=configs/demo.py --workdir=runs/training

`training.checkpoints` are NAME@REVISION, @REVISION of `model`, or directories, each ending in its training step
("step512", "checkpoint-36000"); () is all that a packaged model ships with. The last one's expert sets overlap with
themselves by 1, whatever the threshold. So with two sentence sets there is also the overlap with what it gives for the
other set (`final_overlap_held_out`): it ends where sentences agree, and half of that is where experts settled.

Writes into the run directory `training.csv` (a row per sentence set, step, threshold and statistic: experts, their
overlap with the last checkpoint's and with other concepts', alignment with ratings, with intervals over concepts and
chance levels), `settling.csv` (the step where overlap with the last sets reaches half of its end, which between two
checkpoints is a guess over the logarithm) and the figure `training`. Tables of expertise lie in `expertise/`; killed
and started again, it goes on where it was.
"""

import ml_collections
from etils import epath

from expertlens_jax import plot
from expertlens_jax.analysis.conditions.settling import follow_training
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.training_findings import conclude, tell

from .checks import check_training as check
from .launch import launch
from .run import start
from .sources import Sources, checkpoints_by_step


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check, own_model=False)
    tables = {concepts.name: {} for concepts in this.datasets}
    for step, name in checkpoints_by_step(config).items():
        for concepts in this.datasets:
            expertise = this.expertise(this.named_model(name), concepts)
            tables[concepts.name][step] = expertise[["average_precision"]]
    table, settled = follow_training(tables, config.thresholds, this.ratings, **this.draws)
    this.write({"training": table, "settling": settled})
    statistics = ("experts", "final_overlap", "final_overlap_held_out", "overlap", "alignment")
    note = "dashed: random sets as large; for the alignment, 0"
    this.draw("training", plot.lines(table, "step", "Training step", statistics, note=note))
    drawn = {"threshold": config.drawn_threshold, "permutations": config.permutations}
    return this.finish(tell(table, settled), conclude(table, settled, **drawn))


if __name__ == "__main__":
    launch(run)
