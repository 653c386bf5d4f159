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
from expertlens_jax import plot
from expertlens_jax.analysis.statistics import least_p_of_signs
from expertlens_jax.analysis.structure.thresholds import describe_experts
from expertlens_jax.errors import SelectionError
from expertlens_jax.report.conclusions import Conclusion, Untestable, above, conclude_from, enough, every
from expertlens_jax.run_directory import open_run, write_csv

from .launch import find_model, launch
from .measured import (
    check_contrasts,
    check_statistics,
    draw,
    load_datasets,
    refuse_single_concepts,
    saved_expertise,
)
from .thresholds import describe, format_lines, label


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """The experiment."""
    datasets = load_datasets(config)
    check(config, datasets)
    ratings = [el.load_ratings(name) for name in config.ratings]
    model = find_model(config)
    check_model(config, datasets, model)
    workdir = open_run(workdir, config.to_dict())
    print(f"Writing to {workdir}")

    draws = {"resamples": config.resamples, "permutations": config.permutations, "seed": config.seed}
    parts = []
    for concepts in datasets:
        for ratio in config.negatives.ratios:
            expertise = saved_expertise(model, concepts, config, workdir, negatives_per_positive=float(ratio))
            source = {"sentences": concepts.name, "concepts": len(concepts.concepts)}
            source |= {"negatives_per_positive": float(ratio)}
            parts.append(describe(expertise, config, ratings, **source, top=pd.NA))
            for top in config.negatives.top:
                experts = el.select_experts(expertise, top=top)
                found = describe_experts(experts, ratings, **draws).assign(threshold=float("nan"))
                parts.append(label(found, **source, top=top))
    table = pd.concat(parts, ignore_index=True).astype({"top": "Int64"})
    write_csv(workdir / "negatives.csv", table)
    axis = ("negatives_per_positive", "Negatives per positive")
    note = "dashed: random sets as large; for the alignment, 0"
    draw(plot.lines(table, *axis, ("experts", "overlap", "alignment"), note=note), workdir, "negatives")
    tops = table[table["top"].notna()].assign(threshold=table["top"].astype(float))
    draw(plot.lines(tops, *axis, ("overlap", "alignment"), lines="top {:g}", note=note), workdir, "negatives_top")

    print(f"\nBy negatives per positive\n{format_lines(table[table['top'].isna()], 'negatives_per_positive')}\n")
    tops = tops[tops["statistic"] != "experts"].rename(columns={"threshold": "τ", "top": "threshold"})
    print(f"The same number of experts per concept (τ: how many)\n{format_lines(tops, 'negatives_per_positive')}\n")
    print(f"Tables and figures are in {workdir}")


def check(config: ml_collections.ConfigDict, datasets: list[el.ConceptDataset]) -> None:
    """Refuses what would fail after the model ran.

    Raises:
      SelectionError: fewer than two ratios, one twice, a top below 1, or thresholds that can't be drawn.
      ConceptDataError: a ratio that isn't above 0.
      UnfitConceptsError: a ratio that sampled negatives can't meet, or sentences of one concept.
      RatingsError: ratings that aren't there.
    """
    check_statistics(config)
    ratios, tops = config.negatives.ratios, config.negatives.top
    if len(set(ratios)) < max(2, len(ratios)):
        raise SelectionError(
            f"negatives.ratios is {tuple(ratios)}; wanted two or more numbers of negatives per positive, each once"
        )
    for top in tops:
        if top < 1:
            raise SelectionError(f"negatives.top holds {top}; wanted numbers of experts per concept, from 1 on")
    for name in config.ratings:
        el.load_ratings(name)
    refuse_single_concepts(datasets)
    check_contrasts(config, datasets, ratios)


def check_model(config: ml_collections.ConfigDict, datasets: list[el.ConceptDataset], model: el.Model) -> None:
    """Refuses more experts than there are units.

    Raises:
      SelectionError: so it is.
    """
    del datasets  # any will do
    units = model.units[model.units["site"].isin(config.sites)] if config.sites else model.units
    for top in config.negatives.top:
        if top > len(units) > 0:  # none are known of sites beside the usual ones
            raise SelectionError(
                f"negatives.top holds {top}, and {model.name} has {len(units)} units; wanted at most that many"
            )


def conclude(workdir: epath.Path) -> list[Conclusion]:
    """Return what a finished run found of its claim: the fewest negatives against the most.

    Testable where, with the fewest negatives, experts at the highest threshold overlap at all, among enough concepts
    for an interval over them.
    """
    table = pd.read_csv(workdir / "negatives.csv")
    config = json.loads((workdir / "config.json").read_text())
    rows = table[table["statistic"] == "overlap"]
    high = max(config["thresholds"])
    ratio = "negatives_per_positive"
    fewest, most = rows[ratio].min(), rows[ratio].max()

    def ends(line: pd.DataFrame) -> tuple[pd.Series, pd.Series, str]:
        first, last = line.loc[line[ratio].idxmin()], line.loc[line[ratio].idxmax()]
        span = (f"{each['value']:.3f} ({each['ci_low']:.3f} to {each['ci_high']:.3f})" for each in (first, last))
        return first, last, " and ".join(span)

    falls, found = [], []
    for sentences, some in rows.groupby("sentences", sort=False):
        first, last, numbers = ends(some[some["threshold"] == high])
        sure = enough(least_p_of_signs(int(first["concepts"])), f"{sentences}: {first['concepts']} concepts")
        if first["value"] == 0:
            falls.append(Untestable(f"{sentences}: no two concepts share an expert at τ = {high:g}"))
        else:
            lower = above(first["ci_low"], last["ci_high"], f"{sentences}: the interval of an overlap")
            falls.append(lower if sure is True else sure)
        found.append(f"{sentences}: {numbers} at τ = {high:g}")
        for top, line in some[some["top"].notna()].groupby("top"):
            found.append(f"{sentences}: {ends(line)[2]} among the top {top:g}")
    return [
        conclude_from(
            claim="More negatives lower the overlap of expert sets at high thresholds.",
            found=f"mean Jaccard overlap of different concepts with {fewest:g} and {most:g} negatives per positive: "
            + "; ".join(found)
            + ". Held if the intervals at the highest threshold lie apart in every sentence set.",
            outcome=every(falls),
            figure="negatives",
        )
    ]


if __name__ == "__main__":
    launch(run)
