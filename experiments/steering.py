"""Does a model write of a concept when the concept's experts are made to speak, and only then?

Claim (Suau et al. 2022; Fedzechkina et al. 2025): setting a concept's experts to what they say at its sentences raises
the probability of the concept in what the model writes; doing the same to units that are no experts does not. It would
be refuted by controls (as many random units, units equally active at the same sentences that don't know the concept,
another concept's experts) that raise it as much, or by an effect that is there only where the text falls apart: the
surprise of steered text under the unsteered model, of held-out text under the steered one, and its repetitions stand
beside it.

    python -m experiments.steering --config=configs/demo.py --workdir=runs/steering

Experts come from the config's first sentence set, held-out text from its last. Writes into the run directory
`effects.csv` (a row per steering and measure, with 95% intervals over prompts, each drawn with all its seeds),
`curves.csv` (means over concepts), `claim.csv` (experts against each control, over concepts), `away.csv` and
`moved.csv` (a concept removed, another spared: what became of their words, and of every concept's experts and its place
on the map of overlaps), `samples.csv`, `figures/`, and
`report.html`, where continuations stand side by side. Each steering that was measured is kept in `measured/`; a run
that was killed goes on.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
import pandas as pd
import xarray as xr
from etils import epath
from tqdm.auto import tqdm

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.analysis.statistics import least_p_of_signs
from expertlens_jax.analysis.steering.effects import Writing, find_in_place
from expertlens_jax.analysis.steering.summary import Trial, describe_claim, describe_curves, describe_effects
from expertlens_jax.errors import ConceptDataError, SelectionError, UnfitConceptsError, UnsupportedModelError
from expertlens_jax.experts.steering import METHODS, check_known_concepts
from expertlens_jax.report.conclusions import Conclusion, Untestable, above, conclude_from, enough, every
from expertlens_jax.report.pages import Page, Samples
from expertlens_jax.run_directory import open_run, write_csv, write_text

from .launch import find_model, launch
from .measured import draw, load_datasets, question_of, saved_expertise
from .steering_trials import CONTROLS, list_trials, make_steering, measure, saved_json, steer_away

MEASURES = {
    "word_log_prob": "log-probability of the word after the prompt (nats)",
    "mention": "share of continuations that mention it",
    "expert_response": "its experts' response to what was written",
}


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """The experiment."""
    s = config.steering
    datasets = load_datasets(config)
    check(config, datasets)
    concepts, elsewhere = datasets[0], datasets[-1]
    model = find_model(config)
    check_model(config, datasets, model)
    workdir = open_run(workdir, config.to_dict())
    print(f"Writing to {workdir}")
    expertise = saved_expertise(model, concepts, config, workdir)
    writing = Writing(
        prompts=tuple(s.prompts),
        held_out=held_out_texts(elsewhere, config),
        num_seeds=s.num_seeds,
        max_new_tokens=s.max_new_tokens,
        temperature=s.temperature,
        seed=config.seed,
    )

    files = {trial: workdir / "measured" / f"{trial.name}.json" for trial in list_trials(s)}
    for trial, file in files.items():
        if not file.exists():
            make_steering(expertise, trial, config)  # what can't be steered is refused before anything is measured
    open_run(workdir / "measured", question_of(expertise))
    measured = {}
    for trial, file in tqdm(files.items(), desc="steering", unit="steering"):
        measured[trial] = saved_json(file, lambda trial=trial: measure(model, expertise, trial, writing, config))
    effects = describe_effects(measured, config.resamples, config.seed)
    write_csv(workdir / "effects.csv", effects)
    curves = describe_curves(effects, s.concepts, config.resamples, config.seed)
    write_csv(workdir / "curves.csv", curves)
    claim = describe_claim(effects, s.method, s.drawn_count, s.controls, config.resamples, config.seed)
    write_csv(workdir / "claim.csv", claim)
    samples = pd.DataFrame([row for trial in measured for row in sample_rows(measured[trial], trial, config)])
    write_csv(workdir / "samples.csv", samples)
    draw(plot.steering(curves), workdir, "steering")
    draw(plot.steering_cost(curves), workdir, "cost")

    away, moved = steer_away(model, expertise, concepts, elsewhere, config, workdir)
    write_csv(workdir / "away.csv", away)
    write_csv(workdir / "moved.csv", moved)
    draw(plot.steered_away(away, moved), workdir, "away")

    report(model, config, claim, effects, samples, away, workdir)
    print(f"\n{claim.to_string(index=False, float_format='{:.3f}'.format)}\n")
    print(f"Tables, figures and report.html are in {workdir}")


def check(config: ml_collections.ConfigDict, datasets: list[el.ConceptDataset]) -> None:
    """Refuses what would fail late.

    Raises:
      SelectionError: an unknown method or control, a drawn count that isn't measured, nothing to steer, a concept that
        is asked for as a domain too, or a name that neither these sentences nor the packaged ones have.
      UnfitConceptsError: concepts or domains to steer that are packaged, but that these sentences lack; or words that
        stand in none of them.
      ConceptDataError: a concept to steer away from that there is nowhere.
    """
    settings = config.steering
    if config.resamples < 1:
        raise SelectionError(f"resamples is {config.resamples}; wanted 1 or more draws, and thousands for a paper.")
    for method in (settings.method, *settings.methods, *settings.away_methods):
        if method not in METHODS:
            raise SelectionError(f"steering.methods hold {method!r}; there are {', '.join(METHODS)}.")
    for control in settings.controls:
        if control not in CONTROLS:
            raise SelectionError(f"steering.controls hold {control!r}; there are {', '.join(CONTROLS)}.")
    if settings.drawn_count not in settings.counts:
        raise SelectionError(
            f"steering.drawn_count is {settings.drawn_count}, which is none of steering.counts {settings.counts}."
        )
    if 1.0 not in settings.strengths or not all(0 < strength <= 1 for strength in settings.strengths):
        raise SelectionError(
            f"steering.strengths are {settings.strengths}; wanted numbers above 0 and up to 1, and 1 among them."
        )
    if len(settings.concepts) < 2 or not settings.prompts or settings.num_seeds < 1:
        raise SelectionError(
            "steering wants two concepts or more, a prompt or more, and num_seeds of 1 or more; it was given "
            f"{len(settings.concepts)}, {len(settings.prompts)} and {settings.num_seeds}."
        )
    both = [name for name in settings.concepts if name in settings.domains]
    if both:
        raise SelectionError(
            f"{both[0]!r} is among steering.concepts and steering.domains; its word and what its members share are two "
            "things. Leave it in one of them."
        )
    check_names(config, datasets[0], datasets[-1])


def check_names(config: ml_collections.ConfigDict, concepts: el.ConceptDataset, elsewhere: el.ConceptDataset) -> None:
    """Refuses concepts and domains that aren't there: see `check`.

    The suites name packaged concepts. One of those, missing among a user's own, says that the sentences are of other
    concepts; a name that is nowhere is a slip.
    """
    s, packaged = config.steering, el.load_concepts("facts")
    table = xr.Dataset(coords={"concept": list(concepts.concepts)})
    asked = (*s.concepts, *(concept for concept, _ in s.away))
    check_known_concepts(table, [name for name in asked if name not in packaged.concepts])
    lacking = [name for name in dict.fromkeys(asked) if name not in concepts.concepts]
    if lacking:
        raise UnfitConceptsError(
            f"{concepts.name!r} has no concept {', '.join(map(repr, lacking))}, which steering.concepts and "
            "steering.away ask for. Name two or more of its own: --config.steering.concepts=\"'NAME','NAME'\" and "
            '--config.steering.away="()".'
        )
    for domain in s.domains:
        members = [
            name for name, of in zip(concepts.concepts, concepts.domains, strict=True) if of == domain and name != of
        ]
        if not members:
            known = domain in packaged.domains
            raise (UnfitConceptsError if known else SelectionError)(
                f"{concepts.name!r} has no concepts of a domain {domain!r}, which steering.domains ask for; there are "
                f"{', '.join(dict.fromkeys(concepts.domains)).strip(', ') or 'none'}. Name domains, or none: "
                '--config.steering.domains="()".'
            )
    for word in dict.fromkeys(word for pair in s.away for word in pair):
        try:
            find_in_place(elsewhere, word)
        except ConceptDataError as error:
            raise (UnfitConceptsError if word in packaged.concepts else ConceptDataError)(str(error)) from None


def check_model(config: ml_collections.ConfigDict, datasets: list[el.ConceptDataset], model: el.Model) -> None:
    """Refuses models that write nothing.

    Raises:
      UnsupportedModelError: an encoder.
    """
    del config, datasets  # any will do
    if not model.config.causal:
        raise UnsupportedModelError(f"{model.name} is an encoder and writes nothing. Steer a causal language model.")


def held_out_texts(dataset: el.ConceptDataset, config: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Sentences that mention none of the steered concepts, drawn by the config's seed."""
    mentions = dataset.mentions()[[name in config.steering.concepts for name in dataset.concepts]].any(0)
    free = np.flatnonzero(~mentions)
    rng = np.random.default_rng(config.seed)
    chosen = rng.choice(free, min(config.steering.held_out, len(free)), replace=False)
    return tuple(dataset.sentences[i] for i in np.sort(chosen))


def sample_rows(result: Mapping[str, Any], trial: Trial, config: ml_collections.ConfigDict) -> list[dict[str, Any]]:
    """The first continuation of each prompt."""
    return [
        {**dataclasses.asdict(trial), "prompt": prompt, "text": texts[0], "words": ", ".join(result["words"])}
        for prompt, texts in zip(config.steering.prompts, result["texts"], strict=True)
    ]


def conclude(workdir: epath.Path) -> list[Conclusion]:
    """Return what a finished run found of its claim.

    Testable with enough concepts for a p below 0.05 over them, and with a control of units that are no experts.
    """
    claim = pd.read_csv(workdir / "claim.csv")
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


def report(
    model: el.Model,
    config: ml_collections.ConfigDict,
    claim: pd.DataFrame,
    effects: pd.DataFrame,
    samples: pd.DataFrame,
    away: pd.DataFrame,
    workdir: epath.Path,
) -> None:
    """One self-contained page: the claim, its numbers and figures, and texts before and after, side by side."""
    s = config.steering
    page = Page(f"Steering {model.name} with its experts")
    page.paragraph(__doc__.split("\n\n")[1])
    page.paragraph(
        f"Experts against each control: {s.drawn_count} units, {named(s.method)}, strength 1. Differences of the "
        f"changes that each makes, mean over {len(s.concepts)} concepts, with 95% intervals from resampling the "
        "concepts; p by Wilcoxon's signed-rank test over them."
    )
    page.table(claim.replace({"measure": MEASURES, "control": {name: named(name) for name in CONTROLS}}))
    page.figure(
        workdir / "figures" / "steering.svg",
        f"Effects over the number of steered units and over strength ({named(s.method)}). Lines are means over "
        f"{len(s.concepts)} concepts, bands their 95% intervals from resampling the concepts, dashed is the model "
        "without steering. Another concept's experts are the experts' own steerings, each measured for a neighbour: "
        "what doesn't ask for a concept is the same for both.",
    )
    page.figure(
        workdir / "figures" / "cost.svg",
        "What each method's effect costs. Lines start at the model without steering (dashed) and go on to full "
        "strength; bars are 95% intervals from resampling the concepts.",
    )
    drawn = samples[(samples["count"] == s.drawn_count) & (samples["strength"] == 1)]
    for concept in (*s.concepts, *s.domains):
        plain = samples[(samples["concept"] == concept) & (samples["arm"] == "unsteered")]
        of_concept = drawn[(drawn["concept"] == concept) & (drawn["method"] == s.method)]
        columns = {"before": plain} | dict(iter(of_concept.groupby("arm", sort=False)))
        texts = {named(arm): rows["text"].tolist() for arm, rows in columns.items()}
        page.heading(concept)
        page.paragraph(describe_mentions(effects, concept, list(columns), config))
        page.samples(Samples(list(s.prompts), texts, plain["words"].iloc[0].split(", ")))
    if len(away):
        page.heading("Steering away")
        page.table(away.assign(method=[named(method) for method in away["method"]]))
        page.figure(
            workdir / "figures" / "away.svg",
            "One concept removed, another spared. Left: what becomes of their words, with 95% intervals from "
            f"resampling the sentences. Middle: how much of every concept's experts (τ = {config.drawn_threshold:g}) "
            f"the steered model shares with the model as it was ({named(s.away_methods[0])}, the other spared). Right: "
            "the map of overlaps, a line from where each concept was to where it went (multidimensional scaling of "
            "1 - overlap, all sets before and after on one map).",
        )
    write_text(workdir / "report.html", page.html())


def describe_mentions(effects: pd.DataFrame, concept: str, arms: list[str], config: ml_collections.ConfigDict) -> str:
    """How often the continuations of each arm have the concept's words, in a sentence."""
    s = config.steering
    rows = effects[(effects["concept"] == concept) & (effects["measure"] == "mention")]
    parts = []
    for arm in arms:
        here = rows[rows["arm"] == ("unsteered" if arm == "before" else arm)]
        if arm != "before":
            here = here[(here["method"] == s.method) & (here["count"] == s.drawn_count) & (here["strength"] == 1)]
        row = here.iloc[0]
        parts.append(f"{named(arm)} {100 * row.value:.1f}% ({100 * row.ci_low:.1f} to {100 * row.ci_high:.1f})")
    return (
        f"{s.drawn_count} units, {named(s.method)}, strength 1; the first of {s.num_seeds} continuations of each "
        f"prompt. Of all, these have a marked word (95% intervals over prompts): {', '.join(parts)}."
    )


def named(name: str) -> str:
    """A method's or an arm's name in words."""
    return name.replace("_", " ")


if __name__ == "__main__":
    launch(run)
