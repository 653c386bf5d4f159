"""Finds the experts of a model on many concepts: the table that other experiments read, at any size.

    python -m experiments.find_experts --config=configs/find_experts.py --workdir=runs/experts \
        --config.model=EleutherAI/pythia-1b --config.sentences=facts
    python -m experiments.find_experts ... --multihost                          # on every host of a TPU pod
    python -m experiments.find_experts ... --multihost --coordinator=10.0.0.1:8476 --num_hosts=2 --host=0   # elsewhere

Writes into the run directory `expertise.zarr`, which `el.open_expertise(workdir)` reads lazily: average precision, in
all sentences and in each half of them, p- and q-values, and what steering needs, by concept and unit; `experts.csv`, a
row per concept and threshold; and `figures/significance`, how many units pass each threshold and how many would by
chance. Killed and started again, on the same or on another number of devices, it goes on where it was.

Claim it tests (Fedzechkina et al. 2025): a concept has experts at all. The claim would be refuted if a concept's best
units are no better than the best under permuted labels, or if its experts in one half of the sentences aren't in the
other.
"""

import dataclasses

import ml_collections
from etils import epath

import expertlens_jax as el
from expertlens_jax import parallel, plot
from expertlens_jax.analysis.structure.thresholds import count_by_concept, summarise_counts
from expertlens_jax.run_directory import write_csv

from .expertise import find_experts, read_recording
from .launch import launch
from .sources import find_model


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """Find the experts, count them, and draw how many there are."""
    concepts = el.load_concepts(config.sentences, negatives=config.negatives or None)
    expertise = find_experts(
        find_model(config),
        concepts,
        workdir,
        config,
        recording=dataclasses.replace(read_recording(config), pool_over=config.pool_over),
        statistics=el.Statistics(halves=config.halves, permutations=el.Resampling(config.permutations, config.seed)),
    )
    if not parallel.is_first_host():
        return
    counts = count_by_concept(expertise, config.thresholds)
    write_csv(workdir / "experts.csv", counts)
    plot.save_figure(plot.significance(counts), workdir / "figures" / "significance")
    summary = summarise_counts(counts).to_string(index=False)
    print(f"\n{summary}\n\nThe table is in {workdir}; el.open_expertise reads it.")


if __name__ == "__main__":
    launch(run, several_hosts=True)
