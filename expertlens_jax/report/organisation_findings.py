"""What the overlap says of domains: tables for a terminal, and the verdicts on the claims."""

from collections.abc import Mapping

import pandas as pd

from expertlens_jax.analysis.similarity.beside_experts import experts_name
from expertlens_jax.analysis.statistics import least_p_of_signs
from expertlens_jax.analysis.structure.hierarchy import MEMBERS, OTHER
from expertlens_jax.data.rows import each_row
from expertlens_jax.report.conclusions import (
    Conclusion,
    Outcome,
    Untestable,
    above,
    conclude_from,
    enough,
    every,
    significant,
)


def tell(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return what a terminal shows of the tables recovery, hierarchy, misplaced and spelling."""
    return "\n\n".join(
        [
            format_recovery(tables["recovery"]),
            format_hierarchy(tables["hierarchy"]),
            format_misplaced(tables["misplaced"]),
            format_spelling(tables["spelling"]),
        ]
    )


def format_recovery(recovery: pd.DataFrame) -> str:
    """Return a row per measure, a column per statistic; the null's mean beside each."""
    shown = [f"{r.value:.2f} ({r.null_mean:.2f}){' ' if r.p_value <= 0.05 else '*'}" for r in each_row(recovery)]
    table = recovery.assign(shown=shown).pivot_table(
        index=["sentences", "measure"], columns="statistic", values="shown", aggfunc="first", sort=False
    )
    return f"Recovery of domains (mean of the null; * p > 0.05)\n{table.to_string()}"


def format_hierarchy(hierarchy: pd.DataFrame) -> str:
    """Return inclusion and lift by kind of pair."""
    table = pd.DataFrame(
        {
            "sentences": hierarchy["sentences"],
            "statistic": hierarchy["statistic"],
            "pair": hierarchy["pair"],
            "mean": [f"{r.mean:.3f} [{r.ci_low:.3f}, {r.ci_high:.3f}]" for r in each_row(hierarchy)],
            "own word less this": [
                "" if pd.isna(r.own_less_this) else f"{r.own_less_this:+.3f}" for r in each_row(hierarchy)
            ],
            "p": hierarchy["p_value"].map(lambda p: "" if pd.isna(p) else f"{p:.2g}"),
        }
    )
    return f"Inclusion of expert sets, over domains\n{table.to_string(index=False, justify='left')}"


def format_misplaced(misplaced: pd.DataFrame) -> str:
    """Return the concepts that sit with the same other domain in every sentence set, or the first few of one set."""
    if misplaced.empty:
        return "No concept sits elsewhere than people put it."
    counts = misplaced.groupby("sentences", sort=False).size()
    sets = misplaced.groupby(["concept", "domain", "sits_with"], sort=False)["sentences"].nunique()
    same = sets[sets == len(counts)].reset_index()
    listed = ", ".join(f"{r.concept} ({r.domain}: {r.sits_with})" for r in each_row(same.head(20)))
    numbers = ", ".join(f"{count} of {name}" for name, count in counts.items())
    return f"Concepts that sit elsewhere: {numbers}; with the same domain in every set, {len(same)}: {listed}"


def format_spelling(spelling: pd.DataFrame) -> str:
    """Return whether concepts are alike because their words are spelled alike."""
    kinds = [
        f"{'same' if row.same_domain else 'other'} domain, {'a' if row.shares_token else 'no'} token shared"
        for row in each_row(spelling)
    ]
    shown = spelling.assign(pair=kinds, shown=[f"{r.overlap:.3f} ({r.pairs})" for r in each_row(spelling)])
    table = shown.pivot_table(index="sentences", columns="pair", values="shown", aggfunc="first", sort=False)
    return f"Mean overlap (pairs), by domain and by the tokens of the concepts' words\n{table.to_string()}"


def conclude(
    recovery: pd.DataFrame, hierarchy: pd.DataFrame, *, threshold: float, permutations: int
) -> list[Conclusion]:
    """Return what recovery and hierarchy say of the claims.

    Recovery is testable with enough concepts in enough domains for a p below 0.05, enough permutations, and random
    weights beside it; hierarchy with enough domains that have their word among the concepts, for intervals over them.

    Args:
      recovery: of `recover_domains`, after columns sentences and measure, as `experts_name` and its like call them.
      hierarchy: of `summarise_inclusion`, after a column sentences.
      threshold: τ of the expert sets that the claims are about.
      permutations: that recovery was tested with.
    """
    neighbours = recovery[recovery["statistic"] == "knn_accuracy"]
    told, outcomes = [], []
    for sentences, rows in neighbours.groupby("sentences", sort=False):
        rows = rows.set_index("measure")
        experts = rows.loc[experts_name(threshold)]
        others = {name: rows["value"][name] for name in rows.index if name.startswith(("random", "TF-IDF"))}
        drawn = f"{permutations} permutations of {experts['concepts']} concepts in {experts['domains']} domains"
        random = [
            above(experts["value"], value, f"{sentences}: the accuracy of {name}")
            for name, value in others.items()
            if name.startswith("random")
        ]
        random = random or [Untestable("there are no random_weights to compare with")]
        outcomes.append(every([significant(experts["p_value"], experts["least_p"], drawn), *random]))
        beside = ", ".join(f"{name} {value:.2f}" for name, value in others.items())
        told.append(
            f"{sentences}: {experts['value']:.2f} (chance {experts['null_mean']:.2f}, p = {experts['p_value']:.2g}; "
            f"{beside})"
        )
    lifts = hierarchy[hierarchy["statistic"] == "lift"]
    lifted = "; ".join(
        f"{sentences}: " + ", ".join(f"{pair} {value:.1f}" for pair, value in row.items())
        for sentences, row in lifts.pivot_table(index="sentences", columns="pair", values="mean").iterrows()
    )
    return [
        conclude_from(
            claim="Domains come out of the overlap of expert sets, though nothing told the model of them.",
            found=f"A concept's nearest concepts by overlap at τ = {threshold:g} tell its domain with accuracy "
            f"{'; '.join(told)}. Held if above chance (p < 0.05) and above random weights in every sentence set.",
            outcome=every(outcomes),
            figure="recovery",
        ),
        conclude_from(
            claim="The experts of a domain's word are those that its members share.",
            found=f"Shared experts over what chance would have: {lifted or 'none'}. Held if a domain's own word is in "
            "its members more than they are in one another and more than another domain's word is, with the intervals.",
            outcome=every([outcome for _, rows in lifts.groupby("sentences") for outcome in compare_lifts(rows)]),
            figure="hierarchy",
        ),
    ]


def compare_lifts(lifts: pd.DataFrame) -> list[Outcome]:
    """Return whether the own word's lift is above that of either other kind of pair, in one sentence set."""
    outcomes = []
    for pair in (MEMBERS, OTHER):
        rows = lifts[lifts["pair"] == pair]
        if rows.empty:
            outcomes.append(Untestable("there is one domain's word, and no other to compare with"))
        for row in each_row(rows):
            low = above(row.difference_ci_low, 0.0, f"{row.sentences}: the lift over {pair}")
            sure = enough(least_p_of_signs(row.domains), f"{row.domains} domains")
            outcomes.append(low if sure is True else sure)
    return outcomes
