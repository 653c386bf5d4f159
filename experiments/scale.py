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

import math
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np
import pandas as pd
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.report.conclusions import Conclusion, Untestable, above, conclude_from, every, of_those_made
from expertlens_jax.run_directory import open_run, write_csv

from .launch import check_named, launch, load_named
from .measured import check_statistics, draw, load_datasets, refuse_single_concepts, saved_expertise
from .thresholds import describe, format_lines

GROWS = "Alignment with human similarity grows with the model's size."
FALLS = "Overlap falls less with the threshold in larger models."
CLAIMS = (GROWS, FALLS)


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """The experiment."""
    datasets = load_datasets(config)
    check(config, datasets)
    ratings = [el.load_ratings(name) for name in config.ratings]
    workdir = open_run(workdir, config.to_dict())
    print(f"Writing to {workdir}")

    parts = []
    for name in config.scale.models:
        model = load_named(name, config)
        size = {"model": name, "parameters": count_parameters(model), "units": 0}
        for concepts in datasets:
            expertise = saved_expertise(model, concepts, config, workdir)
            size["units"] = expertise.sizes["unit"]  # of the config's sites
            parts.append(describe(expertise, config, ratings, sentences=concepts.name, **size))
    table = pd.concat(parts, ignore_index=True).sort_values("parameters", kind="stable")
    fall = measure_fall(table)
    write_csv(workdir / "scale.csv", table)
    write_csv(workdir / "fall.csv", fall)
    statistics = ("experts", "share", "overlap", "alignment")
    note = "a dot per model; dashed: random sets as large; for the alignment, 0"
    draw(plot.lines(table, "parameters", "Parameters", statistics, note=note), workdir, "scale")

    print(f"\nBy model\n{format_lines(table, 'model')}\n\n{format_fall(fall)}\n")
    print(f"Tables and figures are in {workdir}")


def check(config: ml_collections.ConfigDict, datasets: list[el.ConceptDataset]) -> None:
    """Refuses what would fail after a model ran.

    Raises:
      SelectionError: thresholds that can't be drawn, or no draws.
      CheckpointError: fewer than two models, or ones that can't be.
      RatingsError: ratings that aren't there.
      UnfitConceptsError: sentences of one concept.
    """
    check_statistics(config)
    check_named("scale.models", config.scale.models, config, least=2)
    for name in config.ratings:
        el.load_ratings(name)
    refuse_single_concepts(datasets)


def count_parameters(model: el.Model) -> int:
    """All of them, embeddings included."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(model.params))


def measure_fall(table: pd.DataFrame) -> pd.DataFrame:
    """What is left of overlap and alignment at the highest threshold that has a value, of that at the lowest.

    Returns:
      A row per sentence set, model, statistic and ratings: those, parameters, low, high (thresholds), value_low,
      value_high, kept (their ratio).
    """
    rows = table[table["statistic"].isin(["overlap", "alignment"]) & table["value"].notna()]
    found = []
    for (sentences, model, statistic, ratings), line in rows.groupby(
        ["sentences", "model", "statistic", "ratings"], sort=False
    ):
        low, high = line.loc[line["threshold"].idxmin()], line.loc[line["threshold"].idxmax()]
        found.append(
            {
                "sentences": sentences,
                "model": model,
                "parameters": low["parameters"],
                "statistic": statistic,
                "ratings": ratings,
                "low": low["threshold"],
                "high": high["threshold"],
                "value_low": low["value"],
                "value_high": high["value"],
                "kept": high["value"] / low["value"] if low["value"] else np.nan,
            }
        )
    return pd.DataFrame(found)


def format_fall(fall: pd.DataFrame) -> str:
    """A row per quantity, a column per model."""
    names = fall["statistic"] + fall["ratings"].map(lambda name: f" {name}" if name else "")
    shown = [f"{r.value_low:.3f} to {r.value_high:.3f} (τ {r.low:g} to {r.high:g})" for r in fall.itertuples()]
    rows = fall.assign(statistic=names, shown=shown)
    table = rows.pivot_table(
        index=["sentences", "statistic"], columns="model", values="shown", aggfunc="first", sort=False
    )
    return f"Fall from the lowest threshold to the highest\n{table.to_string()}"


def conclude(workdir: epath.Path) -> list[Conclusion]:
    """Return what a finished run found of its claims: the smallest size, in all its seeds, against the largest.

    Both want models of two sizes. Alignment is testable where every model of these sizes has a correlation; overlap
    where thresholds differ, and there is overlap to lose and some left.
    """
    table = pd.read_csv(workdir / "scale.csv")
    fall = pd.read_csv(workdir / "fall.csv")
    sizes = table["parameters"].agg(["min", "max"])
    if sizes["min"] == sizes["max"]:
        found = f"all models have {sizes['min']:,} parameters: nothing can be compared."
        return [conclude_from(claim, found, Untestable("all models are of one size"), "scale") for claim in CLAIMS]
    small, large = (table.loc[table["parameters"] == size, "model"].unique() for size in sizes)
    named = f"{' and '.join(small)}, and then {' and '.join(large)},"
    best = table[table["statistic"] == "alignment"]
    grown, told = [], []
    for sentences, of_sentences in best.groupby("sentences", sort=False):
        outcomes = []
        for ratings, rows in of_sentences.groupby("ratings", sort=False):
            rows = rows.dropna(subset="value")
            tops = rows.loc[rows.groupby("model")["value"].idxmax()].set_index("model")
            ends = [tops.loc[tops.index.intersection(models)] for models in (small, large)]
            without = [name for name in (*small, *large) if name not in tops.index]
            if without:
                outcomes.append(Untestable(f"{' and '.join(without)} have no correlation with {ratings} ({sentences})"))
                continue
            outcomes.append(above(ends[1]["value"].min(), ends[0]["value"].max(), f"{sentences}, {ratings}"))
            shown = [
                " and ".join(f"{top.value:.2f} ({top.ci_low:.2f} to {top.ci_high:.2f})" for top in end.itertuples())
                for end in ends
            ]
            told.append(f"{sentences}, {ratings}: {shown[0]}, then {shown[1]}")
        grown.append(of_those_made(outcomes))
    if not grown:
        grown = [Untestable("no ratings were given")]
    return [
        conclude_from(
            claim=GROWS,
            found=f"at its best threshold, {named} align by " + ("; ".join(told) or "nothing computable") + ". Held if "
            "each model of the largest size is above each of the smallest in every case; intervals are wide, so a "
            "small difference proves nothing.",
            outcome=every(grown),
            figure="scale",
        ),
        conclude_falls(fall, small, large, named),
    ]


def conclude_falls(fall: pd.DataFrame, small: Sequence[str], large: Sequence[str], named: str) -> Conclusion:
    """Return whether overlap falls less with the threshold in the models `large` than in `small`."""
    overlaps = fall[(fall["statistic"] == "overlap") & fall["model"].isin([*small, *large])]
    less, kept = [], []
    for sentences, rows in overlaps.groupby("sentences", sort=False):
        rows = rows.set_index("model")
        ends = [rows["kept"].reindex(models) for models in (small, large)]
        shown = (" and ".join("nothing to keep" if pd.isna(each) else f"{each:.2f}" for each in end) for end in ends)
        kept.append(f"{sentences}: {', then '.join(shown)}")
        if (rows["low"] == rows["high"]).any():
            less.append(Untestable(f"{sentences} has overlap at one threshold only"))
        elif (rows["kept"] == 0).all():
            less.append(Untestable(f"{sentences}: no model has any overlap left at the highest threshold"))
        else:
            lowest, highest = ends[1].min(skipna=False), ends[0].max(skipna=False)
            less.append(above(lowest, highest, f"{sentences}: a share of no overlap at all"))
    return conclude_from(
        claim=FALLS,
        found=f"of the overlap at the lowest threshold, the highest keeps in {named} {'; '.join(kept)}. Held if each "
        "of the largest size keeps more than each of the smallest in every sentence set.",
        outcome=every(less),
        figure="scale",
    )


if __name__ == "__main__":
    launch(run)
