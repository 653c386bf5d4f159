"""What the places of experts say: tables for a terminal, and the verdict on the claim."""

import pandas as pd

from expertlens_jax.analysis.statistics import least_p_of_signs
from expertlens_jax.analysis.structure.localisation import ALL
from expertlens_jax.data.rows import each_group, each_row
from expertlens_jax.report.conclusions import (
    FEWEST_CONCEPTS,
    LEVEL,
    Conclusion,
    Untestable,
    above,
    conclude_from,
    every,
)

TRAINED = "trained"
"""What the column `weights` calls the model itself, beside random weights."""


def tell(places: pd.DataFrame, depth: pd.DataFrame, threshold: float) -> str:
    """Return what a terminal shows: enrichment by site, and depth by kind of block.

    Args:
      places: of `locate_experts`, after columns sentences, weights and threshold.
      depth: of `trace_depth`, after columns sentences and weights.
      threshold: at which enrichment is shown.
    """
    return f"{format_places(places, threshold)}\n\n{format_depth(depth)}"


def format_places(places: pd.DataFrame, threshold: float) -> str:
    """Return the enrichment of each site at the drawn threshold, a column per sentence set and weights."""
    rows = places[(places["threshold"] == threshold) & (places["domain"] == ALL) & (places["layer"] == ALL)]
    rows = rows[rows["site"] != ALL]
    shown = rows.assign(shown=[f"{r.enrichment:.2f} [{r.ci_low:.2f}, {r.ci_high:.2f}]" for r in each_row(rows)])
    table = shown.pivot_table(
        index="site", columns=["sentences", "weights"], values="shown", aggfunc="first", sort=False
    )
    return f"Enrichment at τ = {threshold:g} with its 95% interval; 1 is chance\n{table.to_string()}"


def format_depth(depth: pd.DataFrame) -> str:
    """Return the depth at the lowest and the highest threshold that still has experts, and the change between them."""
    rows = []
    for (sentences, weights, block), line in each_group(depth, ["sentences", "weights", "block"]):
        line = line.dropna(subset="depth")
        if line.empty:
            continue
        low, high = line.iloc[0], line.iloc[-1]
        rows.append(
            {
                "sentences": sentences,
                "weights": weights,
                "block": block,
                "τ": f"{low['threshold']:g} to {high['threshold']:g}",
                "depth": f"{low['depth']:.2f} to {high['depth']:.2f}",
                "change": f"{high['change']:+.2f} [{high['change_ci_low']:+.2f}, {high['change_ci_high']:+.2f}]",
                "bimodality": f"{low['bimodality']:.2f} to {high['bimodality']:.2f}",
                "share of experts": f"{low['share']:.2f} to {high['share']:.2f}",
            }
        )
    table = pd.DataFrame(rows).to_string(index=False, justify="left") if rows else "no experts at any threshold"
    return f"Mean depth of experts, 0 (first layer) to 1 (last); bimodality 1 is an even spread\n{table}"


def conclude(depth: pd.DataFrame) -> list[Conclusion]:
    """Return what the depth of experts says of the claim.

    Testable where a model of several layers has, at two thresholds, experts in MLPs on enough concepts for an interval
    over these.

    Args:
      depth: of `trace_depth`, after columns sentences and weights, and with `layers`, how many the model has.
    """
    first = depth["sentences"].iloc[0]
    told, outcomes = [], []
    for sentences in dict.fromkeys(depth["sentences"]):
        of_sentences = depth[(depth["sentences"] == sentences) & (depth["block"] == "mlp")]
        if not (of_sentences["weights"] == TRAINED).any():
            outcomes.append(Untestable(f"{sentences}: no unit of an MLP was looked at"))
        for weights, line in of_sentences.groupby("weights", sort=False):
            enough = line[(line["concepts"].map(least_p_of_signs) < LEVEL) & line["depth"].notna()]
            if weights == TRAINED and len(enough) < 2:
                some = "one threshold" if len(enough) else "no threshold"
                outcomes.append(
                    Untestable(f"{sentences}: {some} has experts in MLPs on {FEWEST_CONCEPTS} concepts or more")
                )
            if len(enough) < 2:
                told.append(f"{sentences}, {weights.replace('_', ' ')}: too few experts")
                continue
            low, high = enough.iloc[0], enough.iloc[-1]
            if weights == TRAINED and low["layers"] < 2:
                outcomes.append(Untestable("the model has one layer"))
            elif weights == TRAINED:
                outcomes.append(above(0.0, high["change_ci_high"], f"{sentences}: the interval of a change"))
            told.append(
                f"{sentences}, {weights.replace('_', ' ')}: {low['depth']:.2f} at τ = {low['threshold']:g}, "
                f"{high['depth']:.2f} at {high['threshold']:g} (change {high['change']:+.2f}, "
                f"{high['change_ci_low']:+.2f} to {high['change_ci_high']:+.2f})"
            )
    return [
        conclude_from(
            claim="As the threshold rises, experts move toward early MLP layers.",
            found=f"Mean depth of the experts in MLPs, 0 (first layer) to 1 (last): {'; '.join(told) or 'none'}. Held "
            "if the change lies below 0 with its interval in every sentence set. What random weights show comes of the "
            "architecture and the words.",
            outcome=every(outcomes),
            figure=f"depth_{first}",
        )
    ]
