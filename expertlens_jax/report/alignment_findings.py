"""What alignment with human ratings says: a table for a terminal, and the verdict on the claim."""

from collections.abc import Sequence

import pandas as pd

from expertlens_jax.analysis.similarity.alignment import MINIMUM_CONCEPTS, MINIMUM_PAIRS
from expertlens_jax.analysis.statistics import count_orders, least_p_of_permutations
from expertlens_jax.data.rows import each_group, each_row
from expertlens_jax.report.conclusions import (
    Conclusion,
    Untestable,
    above,
    conclude_from,
    every,
    most,
    significant,
)

CLAIM = (
    "The more the expert sets of two concepts overlap, the more alike people say the concepts are, beyond what the "
    "sentences or the untrained network bring."
)


COLUMNS = [
    *("sentences", "measure", "threshold", "negatives_per_positive", "ratings", "pairs"),
    *("experts_median", "spearman", "ci_low", "ci_high", "p_value"),
]
"""Of the table of alignments that people read."""


def tell(shown: pd.DataFrame) -> str:
    """Return what a terminal shows of the alignments: the table, and why there is no number where there is none."""
    notes = dict.fromkeys(shown.loc[shown["note"] != "", "note"])
    return "\n".join(
        [format_table(shown), "", *(f"No correlation where it says so: {note}" for note in notes)]
    ).rstrip()


def shown_rows(table: pd.DataFrame, thresholds: Sequence[float], negatives_per_positive: float) -> pd.DataFrame:
    """Return the rows without those of other base rates."""
    of_rate = table["negatives_per_positive"].isna() | (table["negatives_per_positive"] == negatives_per_positive)
    return table[of_rate & (table["threshold"].isna() | table["threshold"].isin(list(thresholds)))]


def drawn_rows(shown: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the rows of the measure that is drawn: one a sentence set and ratings."""
    return shown[(shown["measure"] == "jaccard") & (shown["threshold"] == threshold)]


def label_measures(table: pd.DataFrame) -> pd.Series:
    """Return names of measures for people: with the threshold, without underscores."""
    names = table["measure"].str.replace("_", " ")
    thresholds = table["threshold"].map(lambda t: "" if pd.isna(t) else f", τ = {t:g}")
    return names + thresholds


def format_table(table: pd.DataFrame) -> str:
    """Return the table as people read it, a row per sentence set, measure and ratings."""
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
                for row in each_row(table)
            ],
            "p": table["p_value"].map(lambda p: "" if pd.isna(p) else f"{p:.2g}"),
        }
    ).to_string(index=False, justify="left")


def conclude(shown: pd.DataFrame, *, threshold: float, permutations: int) -> list[Conclusion]:
    """Return what the alignment says of the claim, against random weights and TF-IDF on the same pairs.

    A correlation is testable with `MINIMUM_PAIRS` rated pairs that differ in overlap and rating, enough permutations
    for a p below 0.05, and every control's correlation beside it.

    Args:
      shown: of `align_measures`, after a column sentences; see `shown_rows`.
      threshold: of the experts whose overlap is tested.
      permutations: of its p.
    """
    least_p = least_p_of_permutations(permutations, count_orders(MINIMUM_CONCEPTS))
    found, left_out, outcomes = [], [], []
    for (sentences, ratings), rows in each_group(shown, ["sentences", "ratings"]):
        experts = drawn_rows(rows, threshold).iloc[0]
        name = f"{sentences}, {ratings}"
        if pd.isna(experts["spearman"]):
            few = experts["pairs"] < MINIMUM_PAIRS
            why = f", fewer than {MINIMUM_PAIRS}" if few else " without a difference to correlate (no experts there?)"
            left_out.append(f"{name}: {experts['pairs'] or 'no'} rated pairs{why}")
            outcomes.append(Untestable(left_out[-1]))
            continue
        by_name = rows.set_index("measure")["spearman"]
        controls = [(name, by_name[name]) for name in by_name.index if "random_weights" in name and "jaccard" in name]
        unmade = [] if controls else [Untestable("there are no random_weights to compare with")]
        controls.append(("tfidf", by_name["tfidf"]))
        beaten = [
            above(experts["spearman"], value, f"{name}: the correlation of {control.replace('_', ' ')}")
            for control, value in controls
        ]
        p_value = significant(experts["p_value"], least_p, f"{permutations} permutations")
        outcomes.append(every([p_value, *beaten, *unmade]))
        against = ", ".join(f"{control.replace('_', ' ')} {value:.2f}" for control, value in controls)
        found.append(
            f"{name}: {experts['spearman']:.2f} ({experts['ci_low']:.2f} to {experts['ci_high']:.2f}, "
            f"p = {experts['p_value']:.2g}) against {against}"
        )
    made = [outcome for outcome in outcomes if not isinstance(outcome, Untestable)]
    what = f"correlations with ratings (Spearman, Jaccard at τ = {threshold:g})"
    if made:
        told = f"{sum(made)} of {len(made)} {what} are significant and above both controls; most had to be. "
    else:
        told = f"{what}, and none could be put to the test: " if found else f"no {what} could be computed"
    told += f"{'; '.join(found)}."
    told += f" Left out: {'; '.join(left_out)}." if left_out and found else ""
    return [conclude_from(CLAIM, told, most(outcomes), "alignment")]
