"""What a model's checkpoints say: tables for a terminal, and the verdicts on the claims."""

import pandas as pd

from expertlens_jax.analysis.similarity.alignment import MINIMUM_CONCEPTS
from expertlens_jax.analysis.statistics import count_orders, least_p_of_permutations, least_p_of_signs
from expertlens_jax.cards import counted
from expertlens_jax.data.rows import each_row
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
from expertlens_jax.report.lines import format_lines


def tell(table: pd.DataFrame, settled: pd.DataFrame) -> str:
    """Return what a terminal shows: each quantity by training step, and where overlap settles."""
    return f"By training step\n{format_lines(table, 'step')}\n\n{format_settling(settled)}"


def format_settling(settled: pd.DataFrame) -> str:
    """Return the step where half of the last sets is there, with its interval."""
    rows = pd.DataFrame(
        {
            "sentences": settled["sentences"],
            "last found with": settled["last_with"],
            "τ": settled["threshold"].map("{:g}".format),
            "concepts": settled["concepts"],
            "step": [
                "never" if pd.isna(row.step) else f"{row.step:.0f} [{row.ci_low:.0f}, {row.ci_high:.0f}]"
                for row in each_row(settled)
            ],
        }
    )
    return (
        "Step where overlap with the last checkpoint's experts reaches half of its end, 95% interval over concepts\n"
        + rows.to_string(index=False, justify="left")
    )


def conclude(table: pd.DataFrame, settled: pd.DataFrame, *, threshold: float, permutations: int) -> list[Conclusion]:
    """Return what checkpoints say of the claims.

    When experts settle is testable where two thresholds have experts on enough concepts, for intervals over these;
    alignment where two checkpoints have a correlation, and enough permutations were drawn.

    Args:
      table: overlap with the last checkpoint's expert sets, and `describe_thresholds`, see `follow_training`.
      settled: where the overlap reaches half of its end, see `follow_training`.
      threshold: at which alignment is tested.
      permutations: of its p.
    """
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
    rows = table[(table["statistic"] == "alignment") & (table["threshold"] == threshold)]
    least_p = least_p_of_permutations(permutations, count_orders(MINIMUM_CONCEPTS))
    grown, ends = [], []
    for (sentences, ratings), line in rows.groupby(["sentences", "ratings"], sort=False):
        notes = line["note"][line["note"].fillna("") != ""]
        line = line.sort_values("step").dropna(subset="value")
        if len(line) < 2:
            why = f": {notes.iloc[-1]}" if len(notes) else ""
            grown.append(
                Untestable(f"{sentences}, {ratings} has a correlation at {counted(len(line), 'checkpoint')}{why}")
            )
            continue
        first, last = line.iloc[0], line.iloc[-1]
        sure = significant(last["p_value"], least_p, f"{permutations} permutations")
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
            found=f"Spearman's correlation of the overlap at τ = {threshold:g} with ratings: "
            + ("; ".join(ends) or "none could be computed")
            + ". Held if most end higher than they begin, and significant.",
            outcome=most(grown),
            figure="training",
        ),
    ]
