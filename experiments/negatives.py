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

import json

import ml_collections
import pandas as pd
from etils import epath

import expertlens_jax as el
from experiments.launch import find_model, launch
from experiments.measured import check_statistics, draw, load_datasets, negatives, saved_expertise
from experiments.thresholds import describe, format_lines, label
from expertlens_jax.analysis.thresholds import describe_experts
from expertlens_jax.errors import SelectionError
from expertlens_jax.report import figures
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.run_directory import open_run, write_csv


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """The experiment."""
    check_statistics(config)
    datasets = load_datasets(config)
    check(config, datasets)
    ratings = [el.load_ratings(name) for name in config.ratings]
    model = find_model(config)
    refuse_high_top(config.negatives.top, model)
    workdir = open_run(workdir, config.to_dict())
    print(f"Writing to {workdir}")

    draws = {"resamples": config.resamples, "permutations": config.permutations, "seed": config.seed}
    parts = []
    for concepts in datasets:
        for ratio in config.negatives.ratios:
            expertise = saved_expertise(model, concepts, config, workdir, negatives_per_positive=float(ratio))
            source = {"sentences": concepts.name, "negatives_per_positive": float(ratio)}
            parts.append(describe(expertise, config, ratings, **source, top=pd.NA))
            for top in config.negatives.top:
                experts = el.select_experts(expertise, top=top)
                found = describe_experts(experts, ratings, **draws).assign(threshold=float("nan"))
                parts.append(label(found, **source, top=top))
    table = pd.concat(parts, ignore_index=True).astype({"top": "Int64"})
    write_csv(workdir / "negatives.csv", table)
    axis = ("negatives_per_positive", "Negatives per positive")
    note = "dashed: random sets as large; for the alignment, 0"
    draw(figures.plot_lines(table, *axis, ("experts", "overlap", "alignment"), note=note), workdir, "negatives")
    tops = table[table["top"].notna()].assign(threshold=table["top"].astype(float))
    draw(
        figures.plot_lines(tops, *axis, ("overlap", "alignment"), lines="top {:g}", note=note), workdir, "negatives_top"
    )

    print(f"\nBy negatives per positive\n{format_lines(table[table['top'].isna()], 'negatives_per_positive')}\n")
    tops = tops[tops["statistic"] != "experts"].rename(columns={"threshold": "τ", "top": "threshold"})
    print(f"The same number of experts per concept (τ: how many)\n{format_lines(tops, 'negatives_per_positive')}\n")
    print(f"Tables and figures are in {workdir}")


def check(config: ml_collections.ConfigDict, datasets: list[el.ConceptDataset]) -> None:
    """Refuses what would fail after the model ran.

    Raises:
      SelectionError: fewer than two ratios, one twice, or a top below 1.
      ConceptDataError: a ratio that isn't above 0, or that sampled negatives can't meet.
    """
    ratios, tops = config.negatives.ratios, config.negatives.top
    if len(set(ratios)) < max(2, len(ratios)):
        raise SelectionError(
            f"negatives.ratios is {tuple(ratios)}; wanted two or more numbers of negatives per positive, each once"
        )
    for top in tops:
        if top < 1:
            raise SelectionError(f"negatives.top holds {top}; wanted numbers of experts per concept, from 1 on")
    for concepts in datasets:
        for ratio in ratios:
            el.contrast_concepts(concepts, **negatives(config) | {"negatives_per_positive": float(ratio)})


def refuse_high_top(tops: tuple[int, ...], model: el.Model) -> None:
    """Refuses more experts than there are units.

    Raises:
      SelectionError: so it is.
    """
    for top in tops:
        if top > len(model.units):
            raise SelectionError(
                f"negatives.top holds {top}, and {model.name} has {len(model.units)} units; wanted at most that many"
            )


def conclude(workdir: epath.Path) -> list[Conclusion]:
    """What a finished run found of its claim: the fewest negatives against the most."""
    table = pd.read_csv(workdir / "negatives.csv")
    config = json.loads((workdir / "config.json").read_text())
    rows = table[table["statistic"] == "overlap"]
    high = max(config["thresholds"])
    ratio = "negatives_per_positive"
    fewest, most = rows[ratio].min(), rows[ratio].max()

    def told(line: pd.DataFrame) -> tuple[bool, str]:
        first, last = line.loc[line[ratio].idxmin()], line.loc[line[ratio].idxmax()]
        span = (f"{each['value']:.3f} ({each['ci_low']:.3f} to {each['ci_high']:.3f})" for each in (first, last))
        return bool(last["ci_high"] < first["ci_low"]), " and ".join(span)

    falls, found = [], []
    for sentences, some in rows.groupby("sentences", sort=False):
        lower, numbers = told(some[some["threshold"] == high])
        falls.append(lower)
        found.append(f"{sentences}: {numbers} at τ = {high:g}")
        for top, line in some[some["top"].notna()].groupby("top"):
            found.append(f"{sentences}: {told(line)[1]} among the top {top:g}")
    return [
        Conclusion(
            claim="More negatives lower the overlap of expert sets at high thresholds.",
            found=f"mean Jaccard overlap of different concepts with {fewest:g} and {most:g} negatives per positive: "
            + "; ".join(found)
            + ". Held if the intervals at the highest threshold lie apart in every sentence set.",
            held=all(falls),
            figure="negatives",
        )
    ]


if __name__ == "__main__":
    launch(run)
