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

import re
from collections.abc import Sequence

import ml_collections
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.conditions.settling import follow_training
from expertlens_jax.errors import CheckpointError
from expertlens_jax.models.packaged import packaged_models, packaged_revisions
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.training_findings import conclude, tell

from .checks import check_several_concepts, check_statistics
from .launch import launch
from .run import start
from .sources import Sources, check_named


def run(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Conclusion]:
    """Run the experiment."""
    this = start(config, workdir, sources, check, own_model=False)
    tables = {concepts.name: {} for concepts in this.datasets}
    for step, name in by_step(config).items():
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


def check(config: ml_collections.ConfigDict, datasets: Sequence[el.ConceptDataset]) -> None:
    """Check settings and sentences before a model runs.

    Raises:
      SelectionError: thresholds that can't be drawn, or no draws.
      CheckpointError: see `by_step`.
      RatingsError: ratings that aren't there.
      UnfitConceptsError: sentences of one concept.
    """
    check_statistics(config)
    by_step(config)
    for name in config.ratings:
        el.load_ratings(name)
    check_several_concepts(datasets)


def by_step(config: ml_collections.ConfigDict) -> dict[int, str]:
    """Return the checkpoints by training step, ascending, as `Run.named_model` takes them.

    Raises:
      CheckpointError: fewer than two, ones that can't be, or that don't tell their step or share it.
    """
    names = tuple(config.training.checkpoints)
    if not names:
        if config.model not in packaged_models():
            raise CheckpointError(
                f"training.checkpoints is empty, which asks for all that a packaged model ships with, and "
                f"{config.model} is none. Name them: --config.training.checkpoints=\"('@step512','@step143000')\"."
            )
        names = tuple(f"{config.model}@{revision}" for revision in packaged_revisions(config.model))
    check_named("training.checkpoints", names, config, least=2)
    found: dict[int, str] = {}
    for name in names:
        digits = re.search(r"(\d+)\D*$", name.rpartition("@")[2].rstrip("/").rpartition("/")[2])
        if digits is None:
            raise CheckpointError(
                f"training.checkpoints holds {name!r}, which doesn't end in a training step as in NAME@step512. "
                "Use a revision that does, or a directory that is named so."
            )
        if found.setdefault(int(digits.group(1)), name) != name:
            raise CheckpointError(
                f"training.checkpoints holds {found[int(digits.group(1))]!r} and {name!r}, both of step "
                f"{digits.group(1)}; leave one out"
            )
    return dict(sorted(found.items()))


if __name__ == "__main__":
    launch(run)
