"""What pairs of conditions say: a table for a terminal, and the verdicts on the claims."""

from typing import Any

import pandas as pd

from expertlens_jax.analysis.statistics import count_orders, least_p_of_permutations
from expertlens_jax.data.rows import each_row
from expertlens_jax.report.conclusions import (
    Conclusion,
    Outcome,
    Untestable,
    above,
    conclude_from,
    every,
    significant,
)


def tell(table: pd.DataFrame, threshold: float) -> str:
    """Return what a terminal shows of the comparisons at a threshold."""
    drawn = table[table["threshold"] == threshold]
    return f"At τ = {threshold:g}, 95% intervals over concepts\n{format_comparisons(drawn)}"


def format_comparisons(table: pd.DataFrame) -> str:
    """Return a row per comparison, a column per statistic."""
    shown = table.assign(
        shown=[f"{r.value:.2f} [{r.ci_low:.2f}, {r.ci_high:.2f}]{_against(r)}" for r in each_row(table)],
        conditions=table["first"] + " / " + table["second"],
    )
    return shown.pivot_table(
        index=["kind", "conditions", "count"], columns="statistic", values="shown", aggfunc="first", sort=False
    ).to_string(na_rep="")


def _against(row: Any) -> str:
    """Return chance in parentheses, where there is one, and a star where p isn't small."""
    chance = f" ({row.chance:.2g})" if row.chance > 0 else ""
    return chance + (" n.s." if row.p_value > 0.05 else "")


def conclude(table: pd.DataFrame, *, threshold: float, permutations: int) -> list[Conclusion]:
    """Return what pairs of conditions say of the claims.

    Both are testable with two sentence sets and enough concepts and permutations for a p below 0.05; the first also
    wants the network with random weights beside it.

    Args:
      table: of `compare_conditions`, after columns kind, first, second, threshold and concepts.
      threshold: at which the claims are tested.
      permutations: of the p-values.
    """
    rows = table[table["threshold"] == threshold]

    def told(kind: str, statistic: str) -> tuple[pd.DataFrame, str]:
        some = rows[(rows["kind"] == kind) & (rows["statistic"] == statistic)]
        numbers = (f"{r.value:.2f} ({r.ci_low:.2f} to {r.ci_high:.2f})" for r in each_row(some))
        return some, ", ".join(numbers) or "none"

    def test(some: pd.DataFrame, what: str) -> list[Outcome]:
        if some.empty:
            return [Untestable("there are no two sentence sets to compare")]
        least_p = least_p_of_permutations(permutations, count_orders(int(table["concepts"].min())))
        drawn = f"{permutations} permutations of {table['concepts'].min()} concepts"
        return [
            significant(row.p_value, least_p, f"{drawn}, for {what} of {row.first} and {row.second},")
            for row in each_row(some)
        ]

    correlated, correlations = told("sentences", "overlap_correlation")
    random, of_random = told("random weights", "overlap_correlation")
    if random.empty and len(correlated):
        over_random = [Untestable("there are no random_weights to compare with")]
    else:
        over_random = [
            above(row.ci_low, other.value, f"the correlation of {row.first} and {row.second}, or of {other.first}")
            for row in each_row(correlated)
            for other in each_row(random)
        ]
    same, shared = told("sentences", "jaccard_same")
    _, others = told("sentences", "jaccard_different")
    _, untrained = told("random weights", "jaccard_same")
    found, retrieval = told("sentences", "retrieval")
    recovered = [above(row.value, 0.5, f"retrieval of {row.first} and {row.second}") for row in each_row(found)]
    at = f"at τ = {threshold:g}"
    return [
        conclude_from(
            claim="Overlaps of expert sets arrange the concepts alike, whatever set of sentences finds them.",
            found=f"Spearman's correlation of the overlap matrices of two sentence sets {at}: {correlations}; in the "
            f"same network with random weights {of_random}. Held if it is significant (Mantel's test), and its "
            "interval lies above that value.",
            outcome=every([*test(correlated, "the correlation"), *over_random]),
            figure="stability",
        ),
        conclude_from(
            claim="A concept has the same experts, whatever set of sentences finds them.",
            found=f"Jaccard overlap of a concept's two expert sets {at}: {shared}; of different concepts' {others}; "
            f"a concept is found by its set among all in this share of cases: {retrieval}; in the same network with "
            f"random weights the overlap is {untrained}. Held if both are significant, and more than half are found: "
            "that concerns the method, and says nothing of what was learned where random weights do as well.",
            outcome=every([*test(same, "the overlap"), *test(found, "retrieval"), *recovered]),
            figure="stability",
        ),
    ]
