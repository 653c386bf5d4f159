"""Are a model's experts arranged as people arrange the concepts?

Claim (Fedzechkina et al. 2025, arXiv 2502.15090): the more two concepts' expert sets overlap, the more alike
people say the concepts are, beyond what embeddings of the same model show. It would be refuted by overlaps that
align no better than those of the same network with random weights, or than TF-IDF of the sentences alone: both
stand in the same table.

    python -m experiments.alignment --config=configs/demo.py --workdir=runs/demo [--config.ratings=FILE]

Writes into the run directory `alignment.csv` (a row per sentence set, measure, threshold, negatives per positive and
ratings), `comparisons.csv` (the drawn measure's alignment less each other's, with p corrected by Holm's method),
`partial.csv` (what is left of it when a control is partialled out), `pairs.csv` (the rated pairs of the drawn measure),
`experts.csv` (per concept), `localisation.csv` (per layer and site), the overlap of each sentence set, `expertise/` (a
run of `el.find_experts` a table; `el.open_expertise` reads it), `word_vectors/` where they were trained, and
`figures/`. Killed and started again, it goes on where it was.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from typing import Any

import ml_collections
import pandas as pd
from etils import epath
from tqdm.auto import tqdm

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.similarity.alignment import MINIMUM_CONCEPTS, MINIMUM_PAIRS
from expertlens_jax.analysis.similarity.comparison import compare_alignments, partial_alignments
from expertlens_jax.analysis.similarity.measures import Measure
from expertlens_jax.analysis.statistics import count_orders, least_p_of_permutations
from expertlens_jax.analysis.structure.localisation import count_experts
from expertlens_jax.errors import ConceptDataError
from expertlens_jax.report.conclusions import (
    Conclusion,
    Untestable,
    above,
    conclude_from,
    every,
    most,
    significant,
)
from expertlens_jax.run_directory import open_run, write_csv

from . import similarities
from .launch import find_model, launch
from .measured import draw, load_datasets, saved_expertise

CLAIM = (
    "The more the expert sets of two concepts overlap, the more alike people say the concepts are, beyond what the "
    "sentences or the untrained network bring."
)
COLUMNS = [
    *("sentences", "measure", "threshold", "negatives_per_positive", "ratings", "pairs"),
    *("experts_median", "spearman", "ci_low", "ci_high", "p_value"),
]


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """The experiment."""
    datasets = load_datasets(config)
    check(config, datasets)
    ratings = [el.load_ratings(name) for name in config.ratings]
    model = find_model(config)
    similarities.check_own_words(model, config, datasets)
    carrying = similarities.carry_saes(model, config)
    workdir = open_run(workdir, config.to_dict())
    print(f"Writing to {workdir}")

    vectors = similarities.word_vector_files(config, workdir)
    aligned, pairs, compared, partialled, experts_of, localisation = [], [], [], [], [], []
    for concepts in datasets:
        print(f"\n{concepts!r}")
        expertise = saved_expertise(model, concepts, config, workdir)
        measures = similarities.measure(model, concepts, expertise, vectors, carrying, config, workdir)
        for measure, rated in tqdm(
            list(itertools.product(measures, ratings)), desc="aligning", unit="measure", mininterval=1
        ):
            result = el.align(
                measure.similarity,
                rated,
                resamples=config.resamples,
                permutations=config.permutations,
                seed=config.seed,
            )
            aligned.append(describe(concepts.name, measure, result) | {"ceiling": rated.ceiling})
            if is_drawn(measure, config):
                pairs.append(result.table.assign(sentences=concepts.name, ratings=rated.name))
        overlap = next(measure.similarity for measure in measures if is_drawn(measure, config))
        others = {each.name: each.similarity for each in measures if each.group != "ExpertLens"}
        controls = {each.name: each.similarity for each in measures if each.group == "Controls"}
        for rated in ratings:
            against = {"sentences": concepts.name, "ratings": rated.name}
            compared.append(compare_alignments(overlap, others, rated).assign(**against))
            partialled.append(partial_alignments(overlap, controls, rated).assign(**against))
        experts = el.select_experts(expertise, threshold=config.drawn_threshold)
        counts = experts.sum("unit").to_series()
        experts_of.append(counts.rename("experts").reset_index().assign(sentences=concepts.name))
        localisation.append(count_experts(experts).assign(sentences=concepts.name))
        write_csv(workdir / f"overlap_{concepts.name}.csv", overlap.to_pandas().reset_index())
        draw(plot.overlap(overlap), workdir, f"overlap_{concepts.name}")
        draw(plot.localisation(localisation[-1]), workdir, f"localisation_{concepts.name}")

    table = pd.DataFrame(aligned)
    write_csv(workdir / "alignment.csv", table[COLUMNS])
    write_csv(workdir / "pairs.csv", pd.concat(pairs))
    write_csv(workdir / "comparisons.csv", pd.concat(compared))
    write_csv(workdir / "partial.csv", pd.concat(partialled))
    write_csv(workdir / "experts.csv", pd.concat(experts_of))
    write_csv(workdir / "localisation.csv", pd.concat(localisation))
    shown = shown_rows(table, config)
    quantity = f"Overlap of experts (Jaccard, τ = {config.drawn_threshold:g})"
    draw(plot.alignment(pd.concat(pairs), drawn_rows(table, config), quantity=quantity), workdir, "alignment")
    compared, partialled = pd.concat(compared), pd.concat(partialled)
    if compared["difference"].notna().any():
        draw(plot.comparisons(compared, partialled), workdir, "comparisons")
    else:
        print("No alignment could be held against another: there is no figure of comparisons.")
    draw(plot.measures(shown.assign(measure=label_measures(shown))), workdir, "measures")

    jaccard = table[table["measure"] == "jaccard"]
    if len(set(jaccard["negatives_per_positive"])) > 1:
        at = (config.drawn_threshold, config.negatives_per_positive)
        draw(plot.base_rates(jaccard, drawn=at), workdir, "base_rates")

    print(f"\n{format_table(shown)}\n")
    for note in dict.fromkeys(shown.loc[shown["note"] != "", "note"]):
        print(f"No correlation where it says so: {note}")
    print(f"Tables and figures are in {workdir}")


check = similarities.check


def check_model(config: ml_collections.ConfigDict, datasets: list[el.ConceptDataset], model: el.Model) -> None:
    """Refuses what only the model can tell: words that its tokenizer or context doesn't leave, SAEs that don't fit.

    Raises:
      ConceptDataError, SelectionError, CheckpointError: see `similarities.check_own_words` and `carry_saes`.
    """
    similarities.check_own_words(model, config, datasets)
    similarities.carry_saes(model, config)


def without_unfit_controls(
    config: ml_collections.ConfigDict, datasets: list[el.ConceptDataset], model: el.Model
) -> tuple[ml_collections.ConfigDict, str]:
    """Return the config without the controls that these sentences can't have, and why, or "" where they have all."""
    try:
        for concepts in datasets if config.own_tokens else ():
            similarities.refuse_lacking_words(concepts)
        similarities.check_own_words(model, config, datasets)
    except ConceptDataError as error:
        config = ml_collections.ConfigDict(config.to_dict())
        config.own_tokens = False
        return config, str(error)
    return config, ""


def is_drawn(measure: Measure, config: ml_collections.ConfigDict) -> bool:
    """Whether it is the one that is drawn, and held against the others."""
    at = (measure.threshold, measure.negatives_per_positive)
    return measure.name == "jaccard" and at == (config.drawn_threshold, config.negatives_per_positive)


def shown_rows(table: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of alignment.csv but for those that are there for other base rates: of their numbers and thresholds."""
    of_rate = table["negatives_per_positive"].isna() | (
        table["negatives_per_positive"] == config["negatives_per_positive"]
    )
    return table[of_rate & (table["threshold"].isna() | table["threshold"].isin(config["thresholds"]))]


def drawn_rows(table: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """Rows of alignment.csv of the measure that is drawn: one a sentence set and ratings."""
    shown = shown_rows(table, config)
    return shown[(shown["measure"] == "jaccard") & (shown["threshold"] == config["drawn_threshold"])]


def describe(sentences: str, measure: Measure, result: el.Alignment) -> dict[str, object]:
    """A row of the table."""
    return {
        "group": measure.group,
        "sentences": sentences,
        "measure": measure.name,
        "threshold": measure.threshold,
        "negatives_per_positive": measure.negatives_per_positive,
        "experts_median": measure.experts_median,
        **{
            field.name: getattr(result, field.name)
            for field in dataclasses.fields(result)
            if field.name not in ("table", "missing")
        },
    }


def label_measures(table: pd.DataFrame) -> pd.Series:
    """Names of measures for people: with the threshold, without underscores."""
    names = table["measure"].str.replace("_", " ")
    thresholds = table["threshold"].map(lambda t: "" if pd.isna(t) else f", τ = {t:g}")
    return names + thresholds


def format_table(table: pd.DataFrame) -> str:
    """The table as people read it, a row per sentence set, measure and ratings."""
    number = "{:.3f}".format
    return pd.DataFrame(
        {
            "sentences": table["sentences"],
            "measure": label_measures(table),
            "ratings": table["ratings"],
            "experts": table["experts_median"].map(lambda n: "" if pd.isna(n) else f"{n:.0f}"),
            "pairs": table["pairs"],
            "Spearman": table["spearman"].map(lambda r: "none" if pd.isna(r) else number(r)),
            "95% interval": [
                "" if pd.isna(row.spearman) else f"{number(row.ci_low)} to {number(row.ci_high)}"
                for row in table.itertuples()
            ],
            "p": table["p_value"].map(lambda p: "" if pd.isna(p) else f"{p:.2g}"),
        }
    ).to_string(index=False, justify="left")


def conclude(workdir: epath.Path) -> list[Conclusion]:
    """Return what a finished run found of its claim, against random weights and TF-IDF on the same pairs.

    A correlation is testable with `MINIMUM_PAIRS` rated pairs that differ in overlap and rating, enough permutations
    for a p below 0.05, and every control's correlation beside it.
    """
    table = pd.read_csv(workdir / "alignment.csv")
    config = json.loads((workdir / "config.json").read_text())
    least_p = least_p_of_permutations(config["permutations"], count_orders(MINIMUM_CONCEPTS))
    found, left_out, outcomes = [], [], []
    for (sentences, ratings), rows in shown_rows(table, config).groupby(["sentences", "ratings"], sort=False):
        experts = drawn_rows(rows, config).iloc[0]
        name = f"{sentences}, {ratings}"
        if pd.isna(experts["spearman"]):
            few = experts["pairs"] < MINIMUM_PAIRS
            why = f", fewer than {MINIMUM_PAIRS}" if few else " without a difference to correlate (no experts there?)"
            left_out.append(f"{name}: {experts['pairs'] or 'no'} rated pairs{why}")
            outcomes.append(Untestable(left_out[-1]))
            continue
        by_name = rows.set_index("measure")["spearman"]
        controls = [(name, by_name[name]) for name in by_name.index if "random_weights" in name and "jaccard" in name]
        unmade = [] if controls else [Untestable("no random_weights were asked for to hold it against")]
        controls.append(("tfidf", by_name["tfidf"]))
        beaten = [
            above(experts["spearman"], value, f"{name}: the correlation of {control.replace('_', ' ')}")
            for control, value in controls
        ]
        p_value = significant(experts["p_value"], least_p, f"{config['permutations']} permutations")
        outcomes.append(every([p_value, *beaten, *unmade]))
        against = ", ".join(f"{control.replace('_', ' ')} {value:.2f}" for control, value in controls)
        found.append(
            f"{name}: {experts['spearman']:.2f} ({experts['ci_low']:.2f} to {experts['ci_high']:.2f}, "
            f"p = {experts['p_value']:.2g}) against {against}"
        )
    made = [outcome for outcome in outcomes if not isinstance(outcome, Untestable)]
    what = f"correlations with ratings (Spearman, Jaccard at τ = {config['drawn_threshold']:g})"
    if made:
        told = f"{sum(made)} of {len(made)} {what} are significant and above both controls; most had to be. "
    else:
        told = f"{what}, of which none could be put to the test: " if found else f"no {what} could be computed"
    told += f"{'; '.join(found)}."
    told += f" Left out: {'; '.join(left_out)}." if left_out and found else ""
    return [conclude_from(CLAIM, told, most(outcomes), "alignment")]


if __name__ == "__main__":
    launch(run)
