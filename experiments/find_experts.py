"""Finds the experts of a model on many concepts: the table that other experiments read, at any size.

    python -m experiments.find_experts --config=configs/find_experts.py --workdir=runs/experts \
        --config.model=EleutherAI/pythia-1b --config.sentences=facts
    python -m experiments.find_experts ... --multihost                          # on every host of a TPU pod
    python -m experiments.find_experts ... --multihost --coordinator=10.0.0.1:8476 --num_hosts=2 --host=0   # elsewhere

Writes into the run directory `expertise.zarr`, which `el.open_expertise(workdir)` reads lazily: average precision, in
all sentences and in each half of them, p- and q-values, and what steering needs, by concept and unit; `experts.csv`, a
row per concept and threshold; and `figures/significance`, how many units pass each threshold and how many would by
chance. Killed and started again, on the same or on another number of devices, it goes on where it was.

Claim it tests (Fedzechkina et al. 2025): a concept has experts at all. It would be refuted by concepts whose best units
are no better than the best under permuted labels, or whose experts in one half of the sentences are none in the other.
"""

import ml_collections
import numpy as np
import pandas as pd
import xarray as xr
from etils import epath

import expertlens_jax as el
from expertlens_jax import parallel, plot
from expertlens_jax.run_directory import write_csv

from .launch import find_model, launch
from .measured import measuring


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """The experiment."""
    concepts = el.load_concepts(config.sentences, negatives=config.negatives or None)
    expertise = el.find_experts(
        find_model(config),
        concepts,
        workdir,
        progress=True,
        **measuring(config, workdir),
        **{name: config[name] for name in ("pool_over", "halves", "permutations")},
    )
    if not parallel.is_first_host():
        return
    counts = count_experts(expertise, config.thresholds)
    write_csv(workdir / "experts.csv", counts)
    plot.save_figure(plot.significance(counts), workdir / "figures" / "significance")
    print(f"\n{summary(counts).to_string(index=False)}\n\nThe table is in {workdir}; el.open_expertise reads it.")


def count_experts(expertise: xr.Dataset, thresholds: list[float]) -> pd.DataFrame:
    """How many units are experts on each concept, one concept's units in memory at a time.

    Returns:
      A row per concept and threshold: experts; with halves, `held_out` (the mean average precision, in one half of the
      sentences, of experts chosen in the other; both ways); with permutations, `significant` (experts with q <= 0.05),
      `familywise` (those with a family-wise p <= 0.05).
    """
    rows = []
    for i, concept in enumerate(expertise["concept"].values):
        own = expertise.isel(concept=i).load()
        for threshold in thresholds:
            experts = own["average_precision"].values >= threshold
            row = {"concept": concept, "threshold": threshold, "experts": int(experts.sum())}
            if "average_precision_halves" in own:
                first, second = own["average_precision_halves"].transpose("half", "unit").values
                chosen = np.concatenate([second[first >= threshold], first[second >= threshold]])
                row["held_out"] = float(chosen.mean()) if len(chosen) else np.nan
            if "q_value" in own:
                row["significant"] = int((experts & (own["q_value"].values <= 0.05)).sum())
                row["familywise"] = int((experts & (own["familywise_p"].values <= 0.05)).sum())
            rows.append(row)
    return pd.DataFrame(rows)


def summary(counts: pd.DataFrame) -> pd.DataFrame:
    """The medians over concepts, a row per threshold."""
    return counts.drop(columns="concept").groupby("threshold").median().round(3).reset_index()


if __name__ == "__main__":
    launch(run, several_hosts=True)
