"""What experts among units say beside those among an autoencoder's features: a table, and verdicts on the claims."""

import pandas as pd

from expertlens_jax.analysis.conditions.equal_counts import FEATURES, UNITS
from expertlens_jax.analysis.statistics import least_p_of_signs
from expertlens_jax.data.rows import each_row
from expertlens_jax.report.conclusions import (
    Conclusion,
    Outcome,
    Untestable,
    above,
    conclude_from,
    enough,
    every,
)

FIGURE = "sparse_features"
NO_SETS = "there are no two sentence sets of the same concepts"


def tell(table: pd.DataFrame, autoencoders: pd.DataFrame) -> str:
    """Return what a terminal shows: how good the autoencoders are, and each source's numbers.

    Args:
      table: of `compare_at_equal_counts`.
      autoencoders: a row per trained autoencoder, see `describe_autoencoders`; empty if none was trained.
    """
    shown = table.assign(
        shown=[f"{r.value:.2f} [{r.ci_low:.2f}, {r.ci_high:.2f}]" for r in each_row(table)],
        of=table["sentences"] + table["ratings"].map(lambda name: f", {name}" if name else ""),
    )
    names = dict.fromkeys(f"{row.source} ({row.units})" for row in each_row(table))
    shown["among"] = [f"{row.source} ({row.units})" for row in each_row(table)]
    wide = shown.pivot_table(
        index=["statistic", "selection", "of"], columns="among", values="shown", aggfunc="first", sort=False
    )[list(names)]
    told = [f"{describe_autoencoders(autoencoders)}\n\n"] if len(autoencoders) else []
    return "".join([*told, f"95% intervals over concepts\n{wide.to_string(na_rep='')}"])


def describe_autoencoders(autoencoders: pd.DataFrame) -> str:
    """Return a line per autoencoder: what it explains, how sparsely, and what is lost with it.

    Args:
      autoencoders: a row each: source, layer, site, explained_variance, l0, dead_share, loss_recovered (or NaN).
    """
    lines = []
    for row in each_row(autoencoders):
        recovered = "" if pd.isna(row.loss_recovered) else f", {row.loss_recovered:.1%} of the loss recovered"
        lines.append(
            f"{row.source}, {row.site} of layer {row.layer}: {row.explained_variance:.1%} of the variance explained by "
            f"{row.l0:.1f} features at a token{recovered}, {row.dead_share:.1%} dead"
        )
    return "\n".join(lines)


def conclude(table: pd.DataFrame, autoencoders: pd.DataFrame) -> list[Conclusion]:
    """Return what became of the published claim at equal counts, and of what else was asked.

    Args:
      table: of `compare_at_equal_counts`; expert sets by threshold are tested.
      autoencoders: as in `tell`.
    """
    by_threshold = table[~table["selection"].astype(str).str.startswith("top")]
    features, units = (by_threshold[by_threshold["source"] == name] for name in (FEATURES, UNITS))
    counts = f"{features['units'].iloc[0]} features and {units['units'].iloc[0]} units"
    quality = describe_autoencoders(autoencoders[autoencoders["source"] == FEATURES]) if len(autoencoders) else ""
    conclusions = []
    for statistic, claim in CLAIMS.items():
        rows = features[features["statistic"] == statistic]
        ours = units[units["statistic"] == statistic]
        numbers = []
        for (_, of_features), (_, of_units) in zip(rows.iterrows(), ours.iterrows(), strict=True):
            numbers.append(
                f"{_named(of_features)}: {_interval(of_units)} among units, {_interval(of_features)} among "
                f"features, lead {_interval(of_features, 'units_lead')}"
            )
        conclusions.append(
            conclude_from(
                claim=claim,
                found=f"{WORDS[statistic]}, experts among {counts} of the same layers ({quality or 'given'}). "
                + ("; ".join(numbers) or "none")
                + ". Held if the interval of the units' lead lies above 0 throughout.",
                outcome=every(_outcomes(rows, "units_lead_low")),
                figure=FIGURE,
            )
        )
    twins = by_threshold[~by_threshold["source"].isin([FEATURES, UNITS])]
    if len(twins):
        told = twins[twins["statistic"].isin(["alignment", "detection"])]
        numbers = [
            f"{row['source']}, {row['statistic']}, {_named(row)}: {_interval(row, 'features_lead')}"
            for _, row in told.iterrows()
        ]
        conclusions.append(
            conclude_from(
                claim="What an autoencoder learned makes its features better than those of its random twins.",
                found="The features' lead in alignment (Spearman) and detection (average precision): "
                + "; ".join(numbers)
                + ". Held if its interval lies above 0 throughout.",
                outcome=every(_outcomes(told, "features_lead_low")),
                figure=FIGURE,
            )
        )
    return conclusions


CLAIMS = {
    "alignment": "Experts among a model's units align better with human judgement than sparse autoencoder features do.",
    "detection": "A concept's best unit detects it in other sentences better than its best autoencoder feature.",
    "stability": "A concept's experts are more alike across sentence sets among units than among autoencoder features.",
}
WORDS = {
    "alignment": "Spearman's correlation of the overlap with ratings",
    "detection": "Average precision in the other sentence set",
    "stability": "Jaccard overlap of a concept's experts in two sentence sets",
}


def _outcomes(rows: pd.DataFrame, low: str) -> list[Outcome]:
    if rows.empty:
        return [Untestable(NO_SETS)]
    found = []
    for _, row in rows.iterrows():
        what = f"{row['source']}, {row['statistic']}, {_named(row)}"
        if row["note"]:
            found.append(Untestable(f"{what}: {row['note']}"))
            continue
        sure = enough(least_p_of_signs(int(row["concepts"])), f"{what}: {row['concepts']:.0f} concepts")
        lead = above(row[low], 0, f"the lead of {what}")
        found.append(lead if sure is True else sure)
    return found


def _named(row: pd.Series) -> str:
    return f"{row['sentences']}, {row['ratings']}" if row["ratings"] else str(row["sentences"])


def _interval(row: pd.Series, name: str = "") -> str:
    value, low, high = (name, f"{name}_low", f"{name}_high") if name else ("value", "ci_low", "ci_high")
    if pd.isna(row[value]):
        return "none"
    return f"{row[value]:.2f} ({row[low]:.2f} to {row[high]:.2f})"
