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

import json
import re

import ml_collections
import pandas as pd
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.conditions.settling import trace_overlap
from expertlens_jax.analysis.conditions.stability import same_units
from expertlens_jax.analysis.similarity.alignment import MINIMUM_CONCEPTS
from expertlens_jax.analysis.statistics import count_orders, least_p_of_permutations, least_p_of_signs
from expertlens_jax.errors import CheckpointError, SelectionError
from expertlens_jax.models.packaged import packaged_models, packaged_revisions
from expertlens_jax.report.conclusions import (
    FEWEST_CONCEPTS,
    LEVEL,
    Conclusion,
    Untestable,
    above,
    conclude_from,
    every,
    most,
    significant,
)
from expertlens_jax.run_directory import open_run, write_csv

from .launch import check_named, launch, load_named
from .measured import check_statistics, draw, load_datasets, refuse_single_concepts, saved_expertise
from .thresholds import describe, format_lines, label


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """The experiment."""
    datasets = load_datasets(config)
    check(config, datasets)
    checkpoints = by_step(config)
    ratings = [el.load_ratings(name) for name in config.ratings]
    workdir = open_run(workdir, config.to_dict())
    print(f"Writing to {workdir}")

    tables = {concepts.name: {} for concepts in datasets}
    for step, name in checkpoints.items():
        model = load_named(name, config)
        for concepts in datasets:
            tables[concepts.name][step] = saved_expertise(model, concepts, config, workdir)[["average_precision"]]
    parts, settling = [], []
    for sentences, by_sentences in tables.items():
        refuse_other_units(by_sentences, checkpoints)
        for last_with, statistic in last_tables(list(tables), sentences).items():
            last = tables[last_with][max(checkpoints)]
            overlap, settled = trace_overlap(
                by_sentences, last, config.thresholds, resamples=config.resamples, seed=config.seed
            )
            settling.append(label(settled, sentences=sentences, last_with=last_with))
            parts.append(label(overlap, sentences=sentences, statistic=statistic))
        for step, expertise in by_sentences.items():
            parts.append(describe(expertise, config, ratings, sentences=sentences, step=step))
    table, settled = pd.concat(parts, ignore_index=True), pd.concat(settling, ignore_index=True)
    table["ratings"], table["note"] = table["ratings"].fillna(""), table["note"].fillna("")
    write_csv(workdir / "training.csv", table)
    write_csv(workdir / "settling.csv", settled)
    statistics = ("experts", "final_overlap", "final_overlap_held_out", "overlap", "alignment")
    note = "dashed: random sets as large; for the alignment, 0"
    draw(plot.lines(table, "step", "Training step", statistics, note=note), workdir, "training")

    print(f"\nBy training step\n{format_lines(table, 'step')}\n\n{format_settling(settled)}\n")
    print(f"Tables and figures are in {workdir}")


def check(config: ml_collections.ConfigDict, datasets: list[el.ConceptDataset]) -> None:
    """Refuses what would fail after a model ran.

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
    refuse_single_concepts(datasets)


def last_tables(names: list[str], sentences: str) -> dict[str, str]:
    """With which sentence sets the last checkpoint's experts were found, and what to call the overlap with them.

    The set's own, where the last checkpoint agrees with itself, and the next one in the config.
    """
    following = names[(names.index(sentences) + 1) % len(names)]
    return {sentences: "final_overlap"} | ({following: "final_overlap_held_out"} if following != sentences else {})


def by_step(config: ml_collections.ConfigDict) -> dict[int, str]:
    """The checkpoints by training step, ascending, as `load_named` takes them.

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


def refuse_other_units(tables: dict[int, object], checkpoints: dict[int, str]) -> None:
    """Refuses checkpoints of models that differ.

    Raises:
      SelectionError: a checkpoint's units are others than the last one's.
    """
    last = list(tables)[-1]
    for step, expertise in tables.items():
        if not same_units(expertise, tables[last]):
            raise SelectionError(
                f"{checkpoints[step]} has other units than {checkpoints[last]}, so they can't be checkpoints of one "
                "model; leave one out"
            )


def format_settling(settled: pd.DataFrame) -> str:
    """The step where half of the last sets is there, with its interval."""
    rows = pd.DataFrame(
        {
            "sentences": settled["sentences"],
            "last found with": settled["last_with"],
            "τ": settled["threshold"].map("{:g}".format),
            "concepts": settled["concepts"],
            "step": [
                "never" if pd.isna(row.step) else f"{row.step:.0f} [{row.ci_low:.0f}, {row.ci_high:.0f}]"
                for row in settled.itertuples()
            ],
        }
    )
    return (
        "Step where overlap with the last checkpoint's experts reaches half of its end, 95% interval over concepts\n"
        + rows.to_string(index=False, justify="left")
    )


def conclude(workdir: epath.Path) -> list[Conclusion]:
    """Return what a finished run found of its claims.

    When experts settle is testable where two thresholds have experts on enough concepts, for intervals over these;
    alignment where two checkpoints have a correlation, and enough permutations were drawn.
    """
    table = pd.read_csv(workdir / "training.csv")
    settled = pd.read_csv(workdir / "settling.csv")
    config = json.loads((workdir / "config.json").read_text())
    told, later = [], []
    steps = sorted(set(table["step"]))
    held_out = settled["last_with"] != settled["sentences"]
    settled = settled[held_out] if held_out.any() else settled
    for sentences, rows in settled.groupby("sentences", sort=False):
        rows = rows[rows["step"].notna() & (rows["concepts"].map(least_p_of_signs) < LEVEL)].sort_values("threshold")
        if len(rows) < 2:
            thresholds = "one threshold" if len(rows) else "no threshold"
            later.append(Untestable(f"{sentences}: {thresholds} has experts on {FEWEST_CONCEPTS} concepts or more"))
            continue
        low, high = rows.iloc[0], rows.iloc[-1]
        later.append(above(high["ci_low"], low["ci_high"], f"{sentences}: the interval of a step"))
        told.append(
            f"{sentences}: step {low['step']:.0f} ({low['ci_low']:.0f} to {low['ci_high']:.0f}) at τ = "
            f"{low['threshold']:g}, {high['step']:.0f} ({high['ci_low']:.0f} to {high['ci_high']:.0f}) at τ = "
            f"{high['threshold']:g}"
        )
    rows = table[(table["statistic"] == "alignment") & (table["threshold"] == config["drawn_threshold"])]
    least_p = least_p_of_permutations(config["permutations"], count_orders(MINIMUM_CONCEPTS))
    grown, ends = [], []
    for (sentences, ratings), line in rows.groupby(["sentences", "ratings"], sort=False):
        notes = line["note"].dropna()
        line = line.sort_values("step").dropna(subset="value")
        if len(line) < 2:
            why = f": {notes.iloc[-1]}" if len(notes) else ""
            grown.append(Untestable(f"{sentences}, {ratings} has a correlation at {len(line)} checkpoints{why}"))
            continue
        first, last = line.iloc[0], line.iloc[-1]
        sure = significant(last["p_value"], least_p, f"{config['permutations']} permutations")
        grown.append(every([sure, above(last["value"], first["value"], f"{sentences}, {ratings}: an end")]))
        ends.append(
            f"{sentences}, {ratings}: {first['value']:.2f} (p = {first['p_value']:.2g}) at step {first['step']:.0f}, "
            f"{last['value']:.2f} (p = {last['p_value']:.2g}) at step {last['step']:.0f}"
        )
    if rows.empty:
        grown = [Untestable("no ratings were given")]
    return [
        conclude_from(
            claim="Specialised experts, those of a high threshold, settle later in training.",
            found="the mean overlap with the last checkpoint's expert sets"
            + (", these found with other sentences," if held_out.any() else "")
            + f" reaches half of its end (between checkpoints {', '.join(map(str, steps))}, over the logarithm) at "
            + ("; ".join(told) or "no two thresholds")
            + ". Held if the intervals over concepts lie apart, in that order, in every sentence set.",
            outcome=every(later),
            figure="training",
        ),
        conclude_from(
            claim="Alignment with human similarity grows through training.",
            found=f"Spearman's correlation of the overlap at τ = {config['drawn_threshold']:g} with ratings: "
            + ("; ".join(ends) or "none could be computed")
            + ". Held if most end higher than they begin, and significant.",
            outcome=most(grown),
            figure="training",
        ),
    ]


if __name__ == "__main__":
    launch(run)
