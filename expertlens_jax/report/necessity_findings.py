"""What is lost without experts: a table for a terminal, and the verdicts on the claims."""

from collections.abc import Mapping

import pandas as pd

from expertlens_jax.analysis.statistics import least_p_of_signs
from expertlens_jax.analysis.steering.necessity import control_of
from expertlens_jax.data.rows import each_row
from expertlens_jax.report.conclusions import LEVEL, Conclusion, above, conclude_from, enough, every, significant

AP, ATTRIBUTION = "average_precision", "attribution"


def tell(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return a row per ablation, measure and set, a column per number of units; and how far the scores agree."""
    table = tables["necessity"]
    shown = table.assign(shown=[f"{r.value:.2f} [{r.ci_low:.2f}, {r.ci_high:.2f}]" for r in each_row(table)])
    wide = shown.pivot_table(
        index=["ablation", "measure", "units"], columns="count", values="shown", aggfunc="first", sort=False
    )
    told = "\n".join(
        f"  {row.measure.replace('_', ' ')}{f' of the highest {row.units}' if row.measure == 'shared' else ''}: "
        f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}], chance {row.chance:.2g}"
        for row in each_row(tables["agreement"].rename(columns={"count": "units"}))
    )
    return (
        f"Falls and rises of the log-probability of a word, in nats, by number of units; 95% intervals over concepts\n"
        f"{wide.to_string(na_rep='')}\n\nAverage precision and attribution\n{told}{_tell_learned(tables)}"
    )


def _tell_learned(tables: Mapping[str, pd.DataFrame]) -> str:
    if "learned" not in tables:
        return ""
    return "\n\nUnits that learned steering changes, among as many highest by a score\n" + "\n".join(
        f"  {row.score.replace('_', ' ')}: {row.shared:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}], chance "
        f"{row.chance:.2g}"
        for row in each_row(tables["learned"])
    )


def conclude(tables: Mapping[str, pd.DataFrame], *, count: int, ablation: str = "zero") -> list[Conclusion]:
    """Return what ablation says of the claims that experts are needed, and that attribution chooses the same units.

    Testable with enough concepts for a p below 0.05.

    Args:
      tables: necessity, comparisons and agreement, of `el.analysis.necessity`; and learned, of
        `el.analysis.learned_units`, if it was asked.
      count: how many units the claims are about.
      ablation: what silenced units say.
    """
    every_fall = tables["necessity"][tables["necessity"]["count"] == count].set_index(["units", "measure"])
    falls = every_fall[every_fall["ablation"] == ablation]
    compared = tables["comparisons"]
    compared = compared[(compared["count"] == count) & (compared["ablation"] == ablation)]
    compared = compared.set_index(["measure", "first", "second"])

    def number(units: str, measure: str, rows: pd.DataFrame = falls) -> str:
        row = rows.loc[(units, measure)]
        return f"{row['value']:.2f} ({row['ci_low']:.2f} to {row['ci_high']:.2f})"

    def difference(first: str, second: str, measure: str = "selective") -> str:
        row = compared.loc[(measure, first, second)]
        return f"{row['difference']:.2f} ({row['ci_low']:.2f} to {row['ci_high']:.2f}), p = {row['p_value']:.2g}"

    def larger(first: str, second: str) -> list:
        row = compared.loc[("selective", first, second)]
        what = f"{int(row['concepts'])} concepts"
        return [
            significant(row["p_value"], row["least_p"], what),
            above(row["ci_low"], 0.0, "the interval of the difference"),
        ]

    random = control_of(AP)
    row = compared.loc[("selective", AP, ATTRIBUTION)]
    better = "average precision" if row["difference"] > 0 else "attribution"
    sure = row["p_value"] < LEVEL
    rival = f"More necessary are those by {better}" if sure else "Neither choice is surely the more necessary"
    otherwise = ""
    for name, rows in every_fall[every_fall["ablation"] != ablation].groupby("ablation", sort=False):
        otherwise += (
            f" Silenced by {name} instead of {ablation}, units by average precision cost {number(AP, 'own', rows)} and "
            f"{number(AP, 'others', rows)}, those by attribution {number(ATTRIBUTION, 'own', rows)} and "
            f"{number(ATTRIBUTION, 'others', rows)}, random ones {number(random, 'own', rows)} and "
            f"{number(random, 'others', rows)}."
        )
    sufficient = ""
    if (AP, "sufficiency") in falls.index:
        sufficient = (
            f" Made to speak, the same units raise the word by {number(AP, 'sufficiency')}, those by attribution by "
            f"{number(ATTRIBUTION, 'sufficiency')}, random ones by {number(random, 'sufficiency')}."
        )
    necessary = conclude_from(
        claim="Experts are necessary: without them the model loses their concept's word, more than others' words.",
        found=f"Without the {count} units of highest average precision the log-probability of the concept's word falls "
        f"by {number(AP, 'own')} nats in new sentences of the concept, and that of other concepts' words in theirs "
        f"by {number(AP, 'others')}; without random units of the same layers and sites by {number(random, 'own')} "
        f"and {number(random, 'others')} (chance; difference of own and others against random: "
        f"{difference(AP, random)}). Without as many units by attribution it falls by {number(ATTRIBUTION, 'own')} "
        f"and {number(ATTRIBUTION, 'others')}. {rival} (average precision against attribution: "
        f"{difference(AP, ATTRIBUTION)}).{otherwise}{sufficient} Held if the concept's word falls "
        "more than others' do, beyond what random units do (Wilcoxon's p < 0.05, and the interval of the difference "
        "above 0).",
        outcome=every(larger(AP, random)),
        figure="necessity",
    )
    agreed = tables["agreement"]
    rank = agreed[agreed["measure"] == "spearman"].iloc[0]
    magnitude = agreed[agreed["measure"] == "spearman_of_magnitude"].iloc[0]
    shared = agreed[(agreed["measure"] == "shared") & (agreed["count"] == count)].iloc[0]
    least = compared.loc[("selective", AP, ATTRIBUTION), "least_p"]
    alike = conclude_from(
        claim="The units that a concept activates are those that its word needs: average precision and attribution "
        "choose alike.",
        found=f"Of the {count} highest units by average precision a share of {shared['value']:.3f} "
        f"({shared['ci_low']:.3f} to {shared['ci_high']:.3f}) is among the {count} highest by attribution (chance "
        f"{shared['chance']:.2g}); rank correlation over all units {rank['value']:.3f} ({rank['ci_low']:.3f} to "
        f"{rank['ci_high']:.3f}; with the magnitude of attribution {magnitude['value']:.3f}; chance 0). Held if at "
        "least half are shared, and the intervals of both lie above chance.",
        outcome=every(
            [
                enough(least, f"{int(shared['concepts'])} concepts"),
                bool(shared["value"] >= 0.5),
                above(shared["ci_low"], shared["chance"], "the interval of the share"),
                above(rank["ci_low"], 0.0, "the interval of the rank correlation"),
            ]
        ),
        figure="necessity",
    )
    return [necessary, alike, *([_conclude_learned(tables)] if "learned" in tables else [])]


def _conclude_learned(tables: Mapping[str, pd.DataFrame]) -> Conclusion:
    by_score = tables["learned"].set_index("score")
    row, other = by_score.loc[AP], by_score.loc[ATTRIBUTION]
    return conclude_from(
        claim="The units that steering is learned through are the concept's experts.",
        found=f"A steering is learned so that other sentences' responses are spread as the concept's are, at a price "
        f"for each unit (LinEAS). It changes a share of {row['chance']:.3f} of all units. Of as many units of highest "
        f"average precision a share of {row['shared']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f}) is among "
        f"them; of those by attribution {other['shared']:.3f} ({other['ci_low']:.3f} to {other['ci_high']:.3f}); "
        f"chance is {row['chance']:.3f}. Held if at least half are experts, and the interval lies above chance.",
        outcome=every(
            [
                enough(least_p_of_signs(int(row["concepts"])), f"{int(row['concepts'])} concepts"),
                bool(row["shared"] >= 0.5),
                above(row["ci_low"], row["chance"], "the interval of the share"),
            ]
        ),
        figure="learned",
    )
