"""What units that serve several concepts say: tables for a terminal, and the verdicts on the claims."""

from collections.abc import Mapping

import pandas as pd

from expertlens_jax.analysis.statistics import least_p_of_ks
from expertlens_jax.cards import counted
from expertlens_jax.data.rows import each_row
from expertlens_jax.report.conclusions import (
    LEVEL,
    Conclusion,
    Outcome,
    Untestable,
    above,
    conclude_from,
    enough,
    every,
    of_those_made,
)

FEWEST_PAIRS = 10  # of a kind: of fewer, a single one that differs is more than 10%


def tell(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return what a terminal shows of the tables services, gathering, shared_summary and matched_summary."""
    return "\n\n".join(
        [
            format_services(tables["services"], tables["gathering"]),
            format_shared(tables["shared_summary"]),
            format_matched(tables["matched_summary"]),
        ]
    )


def format_services(services: pd.DataFrame, gathering: pd.DataFrame) -> str:
    """Return how polysemantic units are."""
    rows = []
    for name, units in services.groupby("sentences", sort=False):
        several = gathering[(gathering["sentences"] == name) & (gathering["concepts"] == 0)]
        rows.append(
            {
                "sentences": name,
                "units": len(units),
                "serve none": (units["concepts"] == 0).sum(),
                "one": (units["concepts"] == 1).sum(),
                "several": (units["concepts"] > 1).sum(),
                "at most": units["concepts"].max(),
                "domains of several": "".join(
                    f"{r.domains:.2f} (by chance {r.null_mean:.2f}, p = {r.p_value:.2g})" for r in each_row(several)
                ),
            }
        )
    return f"Concepts that units serve\n{pd.DataFrame(rows).to_string(index=False, justify='left')}"


def format_shared(summary: pd.DataFrame) -> str:
    """Return shared against unshared experts."""
    title = "Average precision of shared and unshared experts of pairs that have enough of both"
    return f"{title}\n{_format_differences(summary)}"


def format_matched(summary: pd.DataFrame) -> str:
    """Return experts against equally active non-experts."""
    title = "Experts against non-experts of the same layer and site that respond as strongly"
    return f"{title}\n{_format_differences(summary)}"


def _format_differences(summary: pd.DataFrame) -> str:
    """Return each difference with its interval in one column."""
    shown = summary.assign(
        difference=[f"{r.difference:+.3f} [{r.ci_low:+.3f}, {r.ci_high:+.3f}]" for r in each_row(summary)]
    ).drop(columns=["ci_low", "ci_high"])
    return shown.to_string(index=False, justify="left", float_format="{:.3f}".format)


def conclude(tables: Mapping[str, pd.DataFrame], *, threshold: float, permutations: int) -> list[Conclusion]:
    """Return what units that serve several concepts say of the claims.

    The first is testable where units serve several concepts, and these can be grouped in enough ways; the second where
    `FEWEST_PAIRS` pairs of a kind share enough experts, and don't share enough, for the test to tell them apart.

    Args:
      tables: services, gathering, shared and shared_summary, of the functions in `analysis.structure.polysemanticity`,
        each after a column sentences.
      threshold: of the experts.
      permutations: that gathering was tested with.
    """
    gathering, shared, summary = (tables[name] for name in ("gathering", "shared", "shared_summary"))
    names = list(dict.fromkeys(tables["services"]["sentences"]))
    everything = gathering[gathering["concepts"] == 0].set_index("sentences")
    told = "; ".join(
        f"{sentences}: {row.domains:.2f} domains a unit, {row.null_mean:.2f} by chance ({row.null_low:.2f} to "
        f"{row.null_high:.2f})"
        for sentences, row in everything.iterrows()
    )
    pairs = "; ".join(
        f"{row.sentences}, {row.pair}: {100 * row.small_p:.0f}% of {row.pairs} pairs differ (p < 0.05), mean AP "
        f"{row.ap_shared:.3f} shared, {row.ap_unshared:.3f} not"
        for row in each_row(summary)
    )
    fewer, alike = [], []
    for name in names:
        if name not in everything.index:
            fewer.append(Untestable(f"{name}: no unit serves two concepts at τ = {threshold:g}"))
        else:
            row = everything.loc[name]
            drawn = f"{name}: {permutations} permutations of the concepts' domains"
            lower = above(row["null_low"], row["domains"], f"{name}: the null")
            possible = enough(row["least_p"], drawn)
            fewer.append(lower if possible is True else possible)
        alike.append(compare_kinds(name, summary[summary["sentences"] == name], shared[shared["sentences"] == name]))
    return [
        conclude_from(
            claim="Experts serve several concepts along human lines: those of one domain rather than any.",
            found=f"Units that serve several concepts: {told or 'none'}. Held if there are fewer domains than chance "
            "has in every sentence set.",
            outcome=every(fewer),
            figure="services",
        ),
        conclude_from(
            claim="Experts that two concepts share are as expert as those that they don't share.",
            found=f"{pairs or 'No two concepts share enough experts'}. Held if at most 10% of pairs of any kind differ "
            "by Kolmogorov and Smirnov's test (5% would by chance, were units independent).",
            outcome=every(alike),
            figure="shared",
        ),
    ]


def compare_kinds(sentences: str, summary: pd.DataFrame, shared: pd.DataFrame) -> Outcome:
    """Return whether at most 10% of the pairs differ, of each kind that has enough pairs to tell 10% from none."""
    outcomes = []
    for row in each_row(summary):
        sizes = shared.loc[shared["pair"] == row.pair, ["shared", "unshared"]]
        able = [least_p_of_ks(*pair) < LEVEL for pair in sizes.itertuples(index=False)]
        if sum(able) < FEWEST_PAIRS:
            outcomes.append(
                Untestable(
                    f"{sentences}, {row.pair}: {counted(sum(able), 'pair has', 'pairs have')} experts enough to "
                    f"differ, fewer than {FEWEST_PAIRS}"
                )
            )
        else:
            outcomes.append(above(0.1 + 1e-9, row.small_p * len(able) / sum(able), f"{sentences}, {row.pair}"))
    return of_those_made(outcomes or [Untestable(f"{sentences}: no two concepts share enough experts")])
