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

import jax
import ml_collections
import numpy as np
import pandas as pd
from etils import epath

import expertlens_jax as el
from experiments.launch import check_named, launch, load_named
from experiments.measured import check_statistics, draw, load_datasets, saved_expertise
from experiments.thresholds import describe, format_lines
from expertlens_jax.report import figures
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.run_directory import open_run, write_csv

GROWS = "Alignment with human similarity grows with the model's size."
FALLS = "Overlap falls less with the threshold in larger models."


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """The experiment."""
    check_statistics(config)
    check_named("scale.models", config.scale.models, config, least=2)
    datasets = load_datasets(config)
    ratings = [el.load_ratings(name) for name in config.ratings]
    workdir = open_run(workdir, config.to_dict())
    print(f"Writing to {workdir}")

    parts = []
    for name in config.scale.models:
        model = load_named(name, config)
        size = {"model": name, "parameters": count_parameters(model), "units": len(model.units)}
        for concepts in datasets:
            expertise = saved_expertise(model, concepts, config, workdir)
            parts.append(describe(expertise, config, ratings, sentences=concepts.name, **size))
    table = pd.concat(parts, ignore_index=True).sort_values("parameters", kind="stable")
    fall = measure_fall(table)
    write_csv(workdir / "scale.csv", table)
    write_csv(workdir / "fall.csv", fall)
    statistics = ("experts", "share", "overlap", "alignment")
    note = "a dot per model; dashed: random sets as large; for the alignment, 0"
    draw(figures.plot_lines(table, "parameters", "Parameters", statistics, note=note), workdir, "scale")

    print(f"\nBy model\n{format_lines(table, 'model')}\n\n{format_fall(fall)}\n")
    print(f"Tables and figures are in {workdir}")


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
    """What a finished run found of its claims: the smallest size, in all its seeds, against the largest."""
    table = pd.read_csv(workdir / "scale.csv")
    fall = pd.read_csv(workdir / "fall.csv")
    sizes = table["parameters"].agg(["min", "max"])
    if sizes["min"] == sizes["max"]:
        return [
            Conclusion(claim, f"all models have {sizes['min']:,} parameters: nothing can be compared.", False, "scale")
            for claim in (GROWS, FALLS)
        ]
    small, large = (table.loc[table["parameters"] == size, "model"].unique() for size in sizes)
    named = f"{' and '.join(small)}, and then {' and '.join(large)},"
    best = table[table["statistic"] == "alignment"].dropna(subset="value")
    grown, told = [], []
    for (sentences, ratings), rows in best.groupby(["sentences", "ratings"], sort=False):
        tops = rows.loc[rows.groupby("model")["value"].idxmax()].set_index("model")
        ends = [tops.loc[tops.index.intersection(models)] for models in (small, large)]
        if any(end.empty for end in ends):
            continue
        grown.append(bool(ends[1]["value"].min() > ends[0]["value"].max()))
        shown = [
            " and ".join(f"{top.value:.2f} ({top.ci_low:.2f} to {top.ci_high:.2f})" for top in end.itertuples())
            for end in ends
        ]
        told.append(f"{sentences}, {ratings}: {shown[0]}, then {shown[1]}")
    overlaps = fall[fall["statistic"] == "overlap"].pivot_table(index="sentences", columns="model", values="kept")
    less = overlaps[large].min(axis=1) > overlaps[small].max(axis=1)

    def tell(values: pd.Series) -> str:
        return " and ".join(f"{value:.2f}" for value in values)

    kept = "; ".join(f"{name}: {tell(row[small])}, then {tell(row[large])}" for name, row in overlaps.iterrows())
    return [
        Conclusion(
            claim=GROWS,
            found=f"at its best threshold, {named} align by " + ("; ".join(told) or "nothing computable") + ". Held if "
            "each model of the largest size is above each of the smallest in every case; intervals are wide, so a "
            "small difference proves nothing.",
            held=bool(grown) and all(grown),
            figure="scale",
        ),
        Conclusion(
            claim=FALLS,
            found=f"of the overlap at the lowest threshold, the highest keeps in {named} {kept}. Held if each of the "
            "largest size keeps more than each of the smallest in every sentence set.",
            held=bool(less.all()),
            figure="scale",
        ),
    ]


if __name__ == "__main__":
    launch(run)
