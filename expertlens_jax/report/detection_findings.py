"""What detectors say of experts: a table for a terminal, and the verdicts on the claims."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from expertlens_jax.analysis.detecting.question import spoken, typical_ratio
from expertlens_jax.data.rows import each_group, each_row
from expertlens_jax.report.conclusions import (
    LEVEL,
    Conclusion,
    Outcome,
    Untestable,
    above,
    conclude_from,
    enough,
    every,
)

DIFFERENCES = ("mean_difference", "scaled_difference")
RIVALS = ("probe", "bag_of_words")
WORDLESS = ("random_units",)
_SETS = ["train", "test"]


def tell(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return what a terminal shows of the tables detection, comparisons and shares: what experts lose against first.

    Args:
      tables: of `el.analysis.detection`, after a column kind.
    """
    table = shown_rows(tables["detection"])
    shown = table.assign(shown=[f"{r.value:.3f} [{r.ci_low:.3f}, {r.ci_high:.3f}]" for r in each_row(table)])
    wide = shown.pivot_table(index="detector", columns=_SETS, values="shown", aggfunc="first", sort=False)
    wide.columns = [f"{train} → {test}" for train, test in wide.columns]
    shares = tables["shares"].groupby("train", sort=False)[["share_of_units", "share_of_square"]].mean()
    told = "; ".join(
        f"{name}: {100 * row.share_of_units:.2g}% of the units hold {100 * row.share_of_square:.2g}%"
        for name, row in shares.iterrows()
    )
    ratio, chance = typical_ratio(tables["detection"]), table["chance"].iloc[0]
    return (
        f"{first_line(tables)}\n\nAverage precision at {ratio:g} negatives per positive (chance {chance:.3f})\n"
        f"{wide.to_string()}\n\nWhat experts hold of the squared difference of means over all units: {told}"
    )


def first_line(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return what experts lose against, and what they win against, in whole sentence sets, in a sentence."""
    compared = shown_rows(tables["comparisons"])
    whole = compared[compared["kind"] == compared["kind"].iloc[0]]
    said = {"lose against": [], "win against": []}
    for (train, test), rows in whole.groupby(_SETS, sort=False):
        sure = rows[rows["p_holm"] < LEVEL]
        for verb, names in (
            ("lose against", sure.loc[sure["difference"] < 0, "other"]),
            ("win against", sure.loc[sure["difference"] > 0, "other"]),
        ):
            said[verb].append(f"{', '.join(map(spoken, names)) or 'nothing'} ({train} to {test})")
    return "; ".join(f"Experts {verb} {' and '.join(each)}" for verb, each in said.items()) + "."


def shown_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of average precision at the typical base rate, of the most positives without wrong labels."""
    rows = table[table["measure"] == "average_precision"]
    rows = rows[rows["negatives_per_positive"] == typical_ratio(rows)]
    if "label_noise" in rows:
        rows = rows[rows["label_noise"] == 0]
        rows = rows[rows["positives"] == rows.groupby(_SETS)["positives"].transform("max")]
    return rows


def conclude(tables: Mapping[str, pd.DataFrame]) -> list[Conclusion]:
    """Return what detection says of the claims, by average precision with most to learn from.

    Testable where there are enough concepts for the paired test, and the detectors that a claim names were tried.

    Args:
      tables: detection and comparisons, of `el.analysis.detection`, after a column kind.
    """
    values = shown_rows(tables["detection"]).set_index([*_SETS, "detector"])
    compared = shown_rows(tables["comparisons"])
    first = compared["kind"].iloc[0]
    whole, masked = compared[compared["kind"] == first], compared[compared["kind"] == "masked"]
    reference = compared["detector"].iloc[0]
    ratio = typical_ratio(tables["detection"])

    def claimed(
        claim: str, rows: pd.DataFrame, others: Sequence[str], decide: Callable[[pd.Series, str], Outcome], rule: str
    ) -> Conclusion:
        outcomes, numbers, lost = [], [], []
        for (train, test), some in each_group(rows, _SETS):
            where = f"{train} to {test}"
            own = values.loc[(train, test, reference)]
            against = []
            for name in others:
                row = some[some["other"] == name]
                if row.empty:
                    outcomes.append(Untestable(f"{where}: {spoken(name)} was not tried"))
                    continue
                row = row.iloc[0]
                outcomes.append(decide(row, where))
                against.append(f"{row['other_value']:.3f} of {spoken(name)} (p = {row['p_holm']:.2g})")
                if row["difference"] < 0 and row["p_holm"] < LEVEL:
                    lost.append(f"{spoken(name)} ({where})")
            numbers.append(
                f"{where}: {own['value']:.3f} ({own['ci_low']:.3f} to {own['ci_high']:.3f}), chance "
                f"{own['chance']:.3f}, against {', '.join(against) or 'nothing'}"
            )
        head = f"Units lose against {', '.join(lost)}. " if lost else ""
        found = f"{head}Average precision at {ratio:g} negatives per positive, {'; '.join(numbers) or 'none'}. {rule}"
        outcome = every(outcomes) if outcomes else Untestable("there are no such sentences to try on")
        return conclude_from(claim, found, outcome, "detection")

    def better(row: pd.Series, where: str) -> Outcome:
        possible = enough(row["least_p"], f"{where}: {int(row['concepts'])} concepts")
        if possible is not True:
            return possible
        return every(
            [
                above(LEVEL, row["p_holm"], f"{where}: the p of {spoken(row['other'])}"),
                above(row["difference"], 0.0, f"{where}: the difference from {spoken(row['other'])}"),
            ]
        )

    rule = "Held if experts are better in every pair of sentence sets (Wilcoxon's signed ranks, p < 0.05 after Holm)."
    return [
        claimed(
            "Experts tell a concept's sentences from others that they were not chosen by.",
            whole,
            ("random_units",),
            better,
            rule,
        ),
        claimed(
            "Experts detect a concept better than a difference of means in the residual stream.",
            whole,
            DIFFERENCES,
            better,
            rule,
        ),
        claimed("Experts detect a concept better than a linear probe and a bag of words.", whole, RIVALS, better, rule),
        claimed(
            "Experts detect a concept, and not only its word: they do so where the word is masked.",
            masked,
            WORDLESS,
            better,
            rule,
        ),
    ]
