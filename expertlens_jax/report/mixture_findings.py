"""What a mixture's experts say of concepts: tables for a terminal, and the verdicts on the claims."""

from collections.abc import Mapping

import pandas as pd

from expertlens_jax.analysis.result import interval
from expertlens_jax.analysis.statistics import least_p_of_signs
from expertlens_jax.analysis.structure.localisation import ALL
from expertlens_jax.analysis.structure.together import CONCEPT, OTHERS
from expertlens_jax.cards import counted
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
from expertlens_jax.report.localisation_findings import TRAINED


def tell(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return what a terminal shows of the tables together and router."""
    return f"{format_together(tables['together'])}\n\n{format_routers(tables['router'])}"


def format_together(together: pd.DataFrame) -> str:
    """Return each kind of pair over all layers, a column per sentence set and weights."""
    rows = together[together["layer"] == ALL]
    shown = rows.assign(shown=[interval(row, "times_chance") for row in rows.to_dict("records")])
    table = shown.pivot_table(
        index="pair", columns=["sentences", "weights"], values="shown", aggfunc="first", sort=False
    )
    title = "Two experts in one of the mixture's experts, times chance, with its 95% interval; 1 is chance"
    return f"{title}\n{table.to_string()}"


def format_routers(routers: pd.DataFrame) -> str:
    """Return the scores of the logits that choose a concept's experts, and of all in their layers."""
    table = pd.DataFrame(
        {
            "sentences": routers["sentences"],
            "weights": routers["weights"],
            "concepts": routers["concepts"],
            **{
                title: [interval(row, name, f"{name}_ci_low", f"{name}_ci_high") for row in routers.to_dict("records")]
                for name, title in (("own", "its own logits"), ("layer", "all of the layer"), ("lead", "lead"))
            },
        }
    )
    title = "Average precision of the router's logits for what holds a concept's experts; a lead of 0 is chance"
    return f"{title}\n{table.to_string(index=False, justify='left')}"


def conclude(tables: Mapping[str, pd.DataFrame], *, threshold: float) -> list[Conclusion]:
    """Return what a mixture's experts say of the claims.

    Both are testable with random weights beside them, and with experts on enough concepts for intervals over these: the
    first where two of a concept's experts are in one layer, and concepts are of several domains (or of none); the
    second where the router was measured.

    Args:
      tables: together, of `summarise_together`, and router, of `score_routers`, after columns sentences and weights.
      threshold: of the experts.
    """
    together = tables["together"][tables["together"]["layer"] == ALL]
    of_others = together[together["pair"] == OTHERS]
    times = together.pivot_table(
        index=["sentences", "weights"], columns="pair", values="times_chance", sort=False, dropna=False
    )
    told = []
    for (sentences, weights), row in times.iterrows():
        pairs = ", ".join(f"{pair} {value:.2f}" for pair, value in row.dropna().items())
        told.append(f"{sentences}, {str(weights).replace('_', ' ')}: {pairs or 'none'}")
    divided: list[Outcome] = []
    for sentences in dict.fromkeys(together["sentences"]):
        rows = together[(together["sentences"] == sentences) & (together["weights"] == TRAINED)]
        (own,) = each_row(rows[rows["pair"] == CONCEPT])
        divided.append(_ahead(of_others, sentences, "two domains with experts in one layer"))
        if own.concepts:
            divided.append(above(own.ci_low, 1.0, f"{sentences}: the interval of {CONCEPT}"))
    leads = "; ".join(
        f"{row.sentences}, {row.weights.replace('_', ' ')}: {row.own:.2f} against {row.layer:.2f} (lead {row.lead:+.3f}"
        f", {row.lead_ci_low:+.3f} to {row.lead_ci_high:+.3f})"
        for row in each_row(tables["router"])
        if row.concepts
    )
    known = [
        _ahead(tables["router"], sentences, "experts in a mixture whose mlp.router was measured")
        for sentences in dict.fromkeys(tables["router"]["sentences"])
    ]
    return [
        conclude_from(
            claim="A mixture's experts divide concepts among them: a concept's units are together in few of them.",
            found=f"Two units of one layer that are experts at τ = {threshold:g} are in one and the same of the "
            f"mixture's experts, in times of chance (1): {'; '.join(told)}. Held if two on one concept are so oftener "
            "than chance, and than two on concepts of other domains, with the intervals, and by more than with random "
            "weights, in every sentence set.",
            outcome=every(divided),
            figure="together",
        ),
        conclude_from(
            claim="The router knows the concept: it chooses what holds the concept's units by logits that tell it.",
            found=f"Average precision of these logits, against all of their layers: {leads or 'none'}. Held if they "
            "lead with the interval, and by more than with random weights, in every sentence set.",
            outcome=every(known),
            figure="together",
        ),
    ]


def _ahead(table: pd.DataFrame, sentences: str, what: str) -> Outcome:
    """Return whether the trained model leads by more than 0, with the interval, and than random weights do."""
    rows = table[table["sentences"] == sentences]
    trained = next(iter(each_row(rows[(rows["weights"] == TRAINED) & (rows["concepts"] > 0)])), None)
    if trained is None:
        return Untestable(f"{sentences}: no concept has {what}")
    sure = enough(least_p_of_signs(trained.concepts), f"{sentences}: {counted(trained.concepts, 'concept')}")
    if sure is not True:
        return sure
    random: list[Outcome] = [
        above(trained.lead, row.lead, f"{sentences}: the lead of {row.weights.replace('_', ' ')}")
        for row in each_row(rows[rows["weights"] != TRAINED])
    ]
    random = random or [Untestable("there are no random_weights to compare with")]
    return every([above(trained.lead_ci_low, 0.0, f"{sentences}: the interval of a lead"), *random])
