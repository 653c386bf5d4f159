"""What models of several sizes say: tables for a terminal, and the verdicts on the claims."""

from collections.abc import Sequence

import pandas as pd

from expertlens_jax.data.rows import each_row
from expertlens_jax.report.conclusions import Conclusion, Untestable, above, conclude_from, every, of_those_made
from expertlens_jax.report.lines import format_lines

GROWS = "Alignment with human similarity grows with the model's size."
FALLS = "Overlap falls less with the threshold in larger models."
CLAIMS = (GROWS, FALLS)


def tell(table: pd.DataFrame, fall: pd.DataFrame) -> str:
    """Return what a terminal shows: each quantity by model, and its fall from the lowest threshold to the highest."""
    return f"By model\n{format_lines(table, 'model')}\n\n{format_fall(fall)}"


def format_fall(fall: pd.DataFrame) -> str:
    """Return a row per quantity, a column per model."""
    names = fall["statistic"] + fall["ratings"].map(lambda name: f" {name}" if name else "")
    shown = [f"{r.value_low:.3f} to {r.value_high:.3f} (τ {r.low:g} to {r.high:g})" for r in each_row(fall)]
    rows = fall.assign(statistic=names, shown=shown)
    table = rows.pivot_table(
        index=["sentences", "statistic"], columns="model", values="shown", aggfunc="first", sort=False
    )
    return f"Fall from the lowest threshold to the highest\n{table.to_string()}"


def conclude(table: pd.DataFrame, fall: pd.DataFrame) -> list[Conclusion]:
    """Return what models of several sizes say of the claims: the smallest, in all its seeds, against the largest.

    Both want models of two sizes. Alignment is testable where every model of these sizes has a correlation; overlap
    where thresholds differ, and there is overlap to lose and some left.

    Args:
      table: of `describe_thresholds`, after columns sentences, model and parameters.
      fall: of `measure_fall`.
    """
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
                " and ".join(f"{top.value:.2f} ({top.ci_low:.2f} to {top.ci_high:.2f})" for top in each_row(end))
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
