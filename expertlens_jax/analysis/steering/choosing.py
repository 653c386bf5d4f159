"""Which way of steering makes a model write of a concept most often, and still write well?

How many experts to steer, by which method and how strongly, differs from model to model. Here each candidate steers a
few concepts; of those whose text stays within a stated loss of fluency, the one that names the concept most often is
chosen. What it does is then told from other draws than those it was chosen by.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from expertlens_jax import plot
from expertlens_jax.analysis.result import Result
from expertlens_jax.analysis.statistics import bootstrap_mean
from expertlens_jax.analysis.steering.effects import (
    Continuations,
    Writing,
    count_mentions,
    surprise_of_each,
    write_each,
)
from expertlens_jax.analysis.steering.trials import count_together
from expertlens_jax.cards import counted
from expertlens_jax.data.concept_dataset import ConceptDataset
from expertlens_jax.errors import SelectionError, UnsupportedModelError
from expertlens_jax.experts.inspection import top_experts
from expertlens_jax.experts.learned_steering import Learning, learn_steering
from expertlens_jax.experts.steering import check_known_concepts, steer
from expertlens_jax.models.model import Model
from expertlens_jax.models.steering import Steering

PROMPTS = (
    *("They talked about the", "There was a", "She dreamt of a", "He pointed at the", "We looked for the"),
    *("The book was about a", "I have always liked the", "In the end it was the", "Nobody had seen the"),
    "It was the first time that he saw a",
)
LEARNED = "learned"
METHODS, TOPS, STRENGTHS = ("set_median", "set_p90", "mean_shift", "linear_ot"), (20, 50, 200, 1000), (0.5, 1.0)
SETTINGS = ["method", "top", "strength"]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SteeringChoice(Result):
    """The candidates, what each does, and which was chosen."""

    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of the chosen: `method`, `top`, `strength`; empty where no candidate stays within the loss of fluency."""
    steerings: dict[str, Steering] = dataclasses.field(default_factory=dict)
    """The chosen one of each concept."""


def choose_steering(
    model: Model,
    expertise: xr.Dataset,
    concepts: Sequence[str],
    *,
    sentences: ConceptDataset | None = None,
    methods: Sequence[str] | None = None,
    tops: Sequence[int] = TOPS,
    strengths: Sequence[float] = STRENGTHS,
    learning: Learning | None = None,
    most_perplexity: float = 1.5,
    prompts: Sequence[str] = PROMPTS,
    num_seeds: int = 2,
    max_new_tokens: int = 24,
    temperature: float = 1.0,
    resamples: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> SteeringChoice:
    """Find the method, number of units and strength that make a model write of a concept most often, and still well.

    >>> import expertlens_jax as el
    >>> model, concepts = el.load_model("lenslet-2m"), el.load_concepts("facts").subset(["cat", "rain"])
    >>> expertise = el.measure_expertise(el.record_responses(model, concepts.sentences, sites="attn.v"), concepts)
    >>> few = {"methods": ["zero", "mean_shift"], "tops": [20], "strengths": [1.0], "prompts": ["There was a"]}
    >>> choice = el.choose_steering(model, expertise, ["cat", "rain"], most_perplexity=99, max_new_tokens=4, **few)
    >>> sorted(choice.settings), len(choice.table)
    (['method', 'strength', 'top'], 2)

    Args:
      model: a causal language model.
      expertise: its table, with the concepts.
      concepts: to steer with each candidate; their names are the words that are looked for, in any form.
      sentences: of the concepts and of others, which "learned" learns from.
      methods, tops, strengths: the candidates are all their combinations: methods of `el.steer`, or "learned", which
        has `el.learn_steering` learn the shifts of the `top` experts. By default `METHODS`, and with `sentences`
        "learned" as well.
      learning: how "learned" learns; None for the defaults.
      most_perplexity: how many times the perplexity of unsteered text that of steered text may be, both as the
        unsteered model reads them.
      prompts: are continued.
      num_seeds: continuations of each prompt, and as many again for what is told of the chosen.
      max_new_tokens: of each.
      temperature: of each.
      resamples: of the intervals' bootstrap over concepts.
      seed: of all draws.
      progress: show a bar of candidates.

    Returns:
      A `Result` with `steerings`, by concept, and their `settings`, which `el.steer(expertise, concept,
      **choice.settings)` takes unless they are learned. Its table has a row per
      candidate: `method`, `top`, `strength`, `share` (of texts with the concept's word, mean over concepts), `ci_low`,
      `ci_high`, `chance` (of unsteered text), `perplexity` (times unsteered text's), `fits`, `chosen`. Beside it "held
      out" (the chosen, and no steering, by new draws, a row per concept: `texts`, `named`, `unsteered_named`,
      `perplexity`) and "examples".

    Raises:
      UnsupportedModelError: the model is an encoder.
      SelectionError: a concept that isn't in the table, no candidates, no prompts, "learned" without sentences, or see
        `el.steer` and `el.learn_steering`; told before anything is written.
    """
    if not model.config.causal:
        raise UnsupportedModelError(
            f"{model.name} is {model.config.kind} and writes nothing. Steer a causal language model."
        )
    concepts = [concepts] if isinstance(concepts, str) else list(concepts)
    check_known_concepts(expertise, concepts)
    if methods is None:
        methods = METHODS if sentences is None else (*METHODS, LEARNED)
    candidates: list[dict[str, Any]] = [
        dict(zip(SETTINGS, each, strict=True)) for each in dict.fromkeys(itertools.product(methods, tops, strengths))
    ]
    if not candidates or not concepts or not most_perplexity > 0:
        raise SelectionError(
            f"{counted(len(candidates), 'candidate')}, {counted(len(concepts), 'concept')} and "
            f"most_perplexity={most_perplexity} were given; wanted one or more of each, and a number above 0."
        )
    prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    if not prompts or num_seeds < 1:
        raise SelectionError(
            f"{counted(len(prompts), 'prompt')} and num_seeds={num_seeds} were given; wanted one prompt or more, each "
            "continued once or more."
        )
    if LEARNED in methods and sentences is None:
        raise SelectionError('method "learned" learns from sentences, and none were given: sentences=concepts.')

    @functools.cache
    def learned(concept: str, top: int) -> Steering:
        assert sentences is not None  # or it was refused
        units = top_experts(expertise, concept, top)
        return learn_steering(model, sentences, concept, units=units, learning=learning, progress=progress)

    def made(concept: str, method: str, top: int, strength: float) -> Steering:
        if method == LEARNED:
            return learned(concept, top).at_strength(strength)
        return steer(expertise, concept, method=method, top=top, strength=strength)

    steerings = {
        (number, concept): made(concept, **each) for number, each in enumerate(candidates) for concept in concepts
    }
    writing = Writing(prompts, (), num_seeds, max_new_tokens, temperature, seed=seed)
    together = min(count_together(model, expertise, writing), 1 + len(steerings))
    write = functools.partial(_write_in_groups, model, together=together)
    with tqdm(total=len(steerings), desc="choosing", unit="steering", disable=not progress) as bar:
        plain, *written = write([None, *steerings.values()], writing, told=bar.update)
    plain_surprise, *surprises = _mean_surprises(model, [plain, *written])
    named = [_names(texts, concept).mean() for texts, (_, concept) in zip(written, steerings, strict=True)]
    chance = np.mean([_names(plain, concept).mean() for concept in concepts])
    by_candidate = (len(candidates), len(concepts))
    rows = []
    of_candidates = (np.reshape(each, by_candidate) for each in (named, surprises))
    for each, shares, surprised in zip(candidates, *of_candidates, strict=True):
        share, low, high = bootstrap_mean(shares[:, None], resamples, seed)
        rows.append(
            {**each, "share": share, "ci_low": low, "ci_high": high, "chance": chance}
            | {"perplexity": float(np.exp(surprised.mean() - plain_surprise))}
        )
    table = pd.DataFrame(rows)
    table["fits"] = table["perplexity"] <= most_perplexity
    best = table[table["fits"]].sort_values(["share", "perplexity"], ascending=[False, True]).head(1)
    table["chosen"] = table.index.isin(best.index)
    drawn = functools.partial(plot.steering_choice, table, most_perplexity=most_perplexity)
    if best.empty:
        least = table.loc[table["perplexity"].idxmin()]
        said = (
            f"None of {len(table)} candidates stays within {most_perplexity:g} times the perplexity of unsteered text; "
            f"the nearest, {_words(least)}, has {least['perplexity']:.3g} times. Try fewer units or less strength.",
        )
        return SteeringChoice("steering's choice", table, said, {"choice": drawn}, {})
    number = int(best.index[0])
    chosen = {concept: steerings[number, concept] for concept in concepts}
    plain, *written = write([None, *chosen.values()], dataclasses.replace(writing, seed=seed + 1))
    held_out, examples = _tell_held_out(model, plain, dict(zip(chosen, written, strict=True)))
    texts, by_steering = held_out["texts"].sum(), held_out["named"].sum()
    said = (
        f"{_words(best.iloc[0])} names the concept most often of the {int(table['fits'].sum())} of {len(table)} "
        f"candidates within {most_perplexity:g} times the perplexity of unsteered text.",
        f"In new draws it does in {by_steering} of {texts} texts, where unsteered text does in "
        f"{held_out['unsteered_named'].sum()} (chance), at {held_out['perplexity'].mean():.3g} times its perplexity.",
    )
    tables = {"held out": held_out, "examples": examples}
    return SteeringChoice("steering's choice", table, said, {"choice": drawn}, tables, candidates[number], chosen)


def _write_in_groups(
    model: Model,
    steerings: Sequence[Steering | None],
    writing: Writing,
    *,
    together: int,
    told: Callable[[int], object] = lambda number: None,
) -> list[Continuations]:
    """Return what is written under each of several steerings, so many at a time, and tell how many are done."""
    written: list[Continuations] = []
    for start in range(0, len(steerings), together):
        group = steerings[start : start + together]
        written += write_each(model, group, writing, written_with=together)  # all batches have one shape
        told(sum(each is not None for each in group))
    return written


def _tell_held_out(
    model: Model, plain: Continuations, written: dict[str, Continuations]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what the chosen does by new draws, a row per concept; and its texts beside unsteered ones."""
    plain_surprise, *surprises = _mean_surprises(model, [plain, *written.values()])
    rows, examples = [], []
    for (concept, texts), surprise in zip(written.items(), surprises, strict=True):
        rows.append(
            {"concept": concept, "texts": texts.texts.size}
            | {"named": int(_names(texts, concept).sum())}
            | {"unsteered_named": int(_names(plain, concept).sum())}
            | {"perplexity": float(np.exp(surprise - plain_surprise))}
        )
        for prompt, steered, before in zip(texts.prompts, texts.texts[:, 0], plain.texts[:, 0], strict=True):
            examples.append({"concept": concept, "prompt": prompt, "steered": steered, "unsteered": before})
    return pd.DataFrame(rows), pd.DataFrame(examples)


def _names(written: Continuations, concept: str) -> np.ndarray:
    """Return whether each text has the concept's word: bool `[prompts, seeds]`."""
    return count_mentions(written.texts, [concept]) > 0


def _mean_surprises(model: Model, written: Sequence[Continuations]) -> list[float]:
    """Return, of each set of texts, the mean of their mean surprise under the unsteered model, in nats a token."""
    return [float(np.nanmean(each)) for each in surprise_of_each(model, written)]


def _words(row: pd.Series) -> str:
    strength = "" if row["strength"] == 1 else f" at strength {row['strength']:g}"
    return f"{row['method']} of the {row['top']:,} best units{strength}"
