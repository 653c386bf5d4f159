"""What steerings say: the verdict on the claim, and a page of numbers, figures and texts side by side."""

from collections.abc import Mapping, Sequence

import pandas as pd
from etils import epath

from expertlens_jax.analysis.statistics import least_p_of_signs
from expertlens_jax.analysis.steering.trials import CONTROLS, Design
from expertlens_jax.report.conclusions import Conclusion, Untestable, above, conclude_from, enough, every
from expertlens_jax.report.pages import Page, Samples

MEASURES = {
    "word_log_prob": "log-probability of the word after the prompt (nats)",
    "mention": "share of continuations that mention it",
    "expert_response": "its experts' response to what was written",
}


def make_page(
    model: str,
    claim: str,
    tables: Mapping[str, pd.DataFrame],
    figures: epath.Path,
    *,
    design: Design,
    prompts: Sequence[str],
    num_seeds: int,
    threshold: float,
) -> Page:
    """Return one self-contained page: the claim, its numbers and figures, and texts before and after, side by side.

    Args:
      model: its name.
      claim: what is claimed, as a paragraph.
      tables: claim, effects, samples and away, of the functions in `analysis.steering`.
      figures: where steering.svg, cost.svg and away.svg lie.
      design: of the trials.
      prompts: that were continued.
      num_seeds: continuations of each.
      threshold: of the experts that were found anew when a concept was removed.
    """
    effects, samples, away = (tables[name] for name in ("effects", "samples", "away"))
    count, method = design.drawn_count, design.method
    page = Page(f"Steering {model} with its experts")
    page.paragraph(claim)
    page.paragraph(
        f"Experts against each control: {count} units, {named(method)}, strength 1. Differences of the "
        f"changes that each makes, mean over {len(design.concepts)} concepts, with 95% intervals from resampling the "
        "concepts; p by Wilcoxon's signed-rank test over them."
    )
    page.table(tables["claim"].replace({"measure": MEASURES, "control": {name: named(name) for name in CONTROLS}}))
    page.figure(
        figures / "steering.svg",
        f"Effects over the number of steered units and over strength ({named(method)}). Lines are means over "
        f"{len(design.concepts)} concepts, bands their 95% intervals from resampling the concepts, dashed is the model "
        "without steering. Another concept's experts are the experts' own steerings, each measured for a neighbour: "
        "what doesn't ask for a concept is the same for both.",
    )
    page.figure(
        figures / "cost.svg",
        "What each method's effect costs. Lines start at the model without steering (dashed) and go on to full "
        "strength; bars are 95% intervals from resampling the concepts.",
    )
    drawn = samples[(samples["count"] == count) & (samples["strength"] == 1)]
    for concept in (*design.concepts, *design.domains):
        plain = samples[(samples["concept"] == concept) & (samples["arm"] == "unsteered")]
        of_concept = drawn[(drawn["concept"] == concept) & (drawn["method"] == method)]
        columns = {"before": plain} | dict(iter(of_concept.groupby("arm", sort=False)))
        texts = {named(arm): rows["text"].tolist() for arm, rows in columns.items()}
        page.heading(concept)
        page.paragraph(describe_mentions(effects, concept, list(columns), design, num_seeds))
        page.samples(Samples(list(prompts), texts, plain["words"].iloc[0].split(", ")))
    if len(away):
        page.heading("Steering away")
        page.table(away.assign(method=[named(method) for method in away["method"]]))
        page.figure(
            figures / "away.svg",
            "One concept removed, another spared. Left: what becomes of their words, with 95% intervals from "
            f"resampling the sentences. Middle: how much of every concept's experts (τ = {threshold:g}) "
            f"the steered model shares with the model as it was ({named(away['method'].iloc[0])}, the other spared). "
            "Right: the map of overlaps, a line from where each concept was to where it went (multidimensional scaling "
            "of 1 - overlap, all sets before and after on one map).",
        )
    return page


def conclude(claim: pd.DataFrame) -> list[Conclusion]:
    """Return what experts, against each control, say of the claim.

    Testable with enough concepts for a p below 0.05 over them, and with a control of units that are no experts.

    Args:
      claim: of `describe_claim`.
    """
    rows = claim[claim["measure"] == "word_log_prob"].set_index("control")
    against = "; ".join(
        f"{name.replace('_', ' ')} {row.difference:.2f} ({row.ci_low:.2f} to {row.ci_high:.2f}, p = {row.p_value:.2g})"
        for name, row in rows.iterrows()
    )
    outcomes = []
    for name, row in rows.iterrows():
        named_so = f"{named(name)}: {row.concepts:.0f} concepts"
        sure = enough(least_p_of_signs(int(row.concepts)), named_so)
        outcomes.append(above(row.ci_low, 0.0, f"{named(name)}: the interval") if sure is True else sure)
    if set(rows.index) <= {"unsteered", "another_concept"}:
        outcomes.append(Untestable("no units that are no experts were steered: steering.controls hold neither kind"))
    mentions = claim[claim["measure"] == "mention"].set_index("control")["difference"]["unsteered"]
    return [
        conclude_from(
            claim="Making a concept's experts speak raises the probability of the concept; doing the same to units "
            "that are no experts does not.",
            found=f"log-probability of the concept's word under steered experts, above that under each control (nats, "
            f"mean over {rows['concepts'].iloc[0]} concepts, all intervals had to lie above 0): {against}. "
            f"Continuations mention the concept in {100 * mentions:+.1f} percentage points more cases.",
            outcome=every(outcomes),
            figure="steering",
        )
    ]


def describe_mentions(effects: pd.DataFrame, concept: str, arms: Sequence[str], design: Design, num_seeds: int) -> str:
    """Return how often the continuations of each arm have the concept's words, in a sentence."""
    rows = effects[(effects["concept"] == concept) & (effects["measure"] == "mention")]
    parts = []
    for arm in arms:
        here = rows[rows["arm"] == ("unsteered" if arm == "before" else arm)]
        if arm != "before":
            here = here[
                (here["method"] == design.method) & (here["count"] == design.drawn_count) & (here["strength"] == 1)
            ]
        row = here.iloc[0]
        parts.append(f"{named(arm)} {100 * row.value:.1f}% ({100 * row.ci_low:.1f} to {100 * row.ci_high:.1f})")
    return (
        f"{design.drawn_count} units, {named(design.method)}, strength 1; the first of {num_seeds} continuations of "
        f"each prompt. Of all, these have a marked word (95% intervals over prompts): {', '.join(parts)}."
    )


def named(name: str) -> str:
    """Return a method's or an arm's name in words."""
    return name.replace("_", " ")
