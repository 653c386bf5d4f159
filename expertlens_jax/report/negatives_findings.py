"""What numbers of negatives say: tables for a terminal, and the verdict on the claim."""

import pandas as pd

from expertlens_jax.analysis.statistics import least_p_of_signs
from expertlens_jax.report.conclusions import Conclusion, Untestable, above, conclude_from, enough, every
from expertlens_jax.report.lines import format_lines


def tell(table: pd.DataFrame) -> str:
    """Return what a terminal shows: each quantity by negatives per positive, at thresholds and among top experts."""
    along = "negatives_per_positive"
    tops = table[table["top"].notna() & (table["statistic"] != "experts")]
    tops = tops.drop(columns="threshold").rename(columns={"top": "threshold"})
    return (
        f"By negatives per positive\n{format_lines(table[table['top'].isna()], along)}\n\n"
        f"The same number of experts per concept (τ: how many)\n{format_lines(tops, along)}"
    )


def conclude(table: pd.DataFrame) -> list[Conclusion]:
    """Return what numbers of negatives say of the claim: the fewest against the most.

    Testable where, with the fewest negatives, experts at the highest threshold overlap at all, among enough concepts
    for an interval over them.

    Args:
      table: of `describe_thresholds` and `describe_experts`, after columns sentences, concepts, negatives_per_positive
        and top, which is missing where a threshold selects the experts.
    """
    rows = table[table["statistic"] == "overlap"]
    high = table["threshold"].max()
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
