"""Steerings that are compared: experts, controls, other methods; and a concept that is removed while another is spared.

Trials are measured several at a time, in batches that they share, and given one by one, so that whoever calls can keep
each result.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from etils import epath
from tqdm.auto import tqdm

from expertlens_jax.analysis.statistics import bootstrap_mean
from expertlens_jax.analysis.steering.effects import Steered, Writing, measure_effects, word_in_place
from expertlens_jax.analysis.steering.summary import (
    Trial,
    describe_claim,
    describe_curves,
    describe_effects,
    list_samples,
    unsteered,
)
from expertlens_jax.analysis.structure.organisation import map_concepts
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.experts.controls import matched_units, random_units
from expertlens_jax.experts.expertise import measure_expertise
from expertlens_jax.experts.overlap import jaccard
from expertlens_jax.experts.responses import record_responses
from expertlens_jax.experts.selection import select_experts
from expertlens_jax.experts.steering import share_expertise, steer
from expertlens_jax.models.model import Model
from expertlens_jax.models.steering import Steering
from expertlens_jax.models.tokens import bucket_lengths
from expertlens_jax.run_directory import open_run, saved_json

_TOKENS_TOGETHER, _BYTES_TOGETHER, _MOST_TOGETHER = 16384, 2**30, 16
CONTROLS = ("random", "matched", "another_concept")
AWAY = ("concept", "spared", "method", "sparing", "word", "units", "change", "ci_low", "ci_high")
MOVED = ("concept", "spared", "of", "domain", "kept", "x", "y", "x_after", "y_after")

Kept = Callable[[str, Callable[[], Mapping[str, Any]]], Mapping[str, Any]]
"""Returns the result of a name, which it may have kept; else it calls the function that makes it."""


@dataclasses.dataclass(frozen=True)
class Design:
    """Which steerings are compared."""

    concepts: tuple[str, ...]
    """Steered with their experts."""
    counts: tuple[int, ...]
    """Of steered units."""
    drawn_count: int
    """One of them, at which strengths and methods are compared."""
    method: str = "set_median"
    strengths: tuple[float, ...] = (1.0,)
    methods: tuple[str, ...] = ()
    """Compared at all strengths."""
    controls: tuple[str, ...] = CONTROLS
    domains: tuple[str, ...] = ()
    """Steered with what their members share."""

    def trials(self) -> list[Trial]:
        """Return every steering to measure, each once: curves over counts, over strengths, other methods, domains."""
        wanted = []
        for concept in self.concepts:
            wanted.append(unsteered(concept))
            for arm in ("experts", *self.controls):
                wanted += [Trial(concept, arm, self.method, count, 1.0) for count in self.counts]
                wanted += [Trial(concept, arm, self.method, self.drawn_count, s) for s in self.strengths]
            for method in self.methods:
                wanted += [Trial(concept, "experts", method, self.drawn_count, s) for s in self.strengths]
        for domain in self.domains:
            wanted.append(unsteered(domain))
            wanted += [Trial(domain, "shared", self.method, count, 1.0) for count in self.counts]
        return list(dict.fromkeys(wanted))


def make_steering(expertise: xr.Dataset, trial: Trial, design: Design, *, seed: int = 0) -> Steering | None:
    """Return a trial's steering, or None; controls are given the concept's own values on units that aren't its experts.

    Args:
      expertise: the table of the model that is steered.
      trial: one of the design's.
      design: has the concepts, of which the next one is the control "another_concept".
      seed: of random units.

    Raises:
      SelectionError: there are too few units, or see `steer`.
    """
    if trial.arm == "unsteered":
        return None
    expertise = _table_of(expertise, trial, design)
    options: dict[str, Any] = {"method": trial.method, "strength": trial.strength}
    experts = select_experts(expertise.sel(concept=[trial.concept]), top=trial.count)
    experts = expertise["unit"].values[experts.values[0]]
    match trial.arm:
        case "random":
            units = random_units(expertise, experts, seed=seed)
        case "matched":
            units = matched_units(expertise, trial.concept, experts)
        case "another_concept":
            other = design.concepts[(design.concepts.index(trial.concept) + 1) % len(design.concepts)]
            return steer(expertise, other, top=trial.count, **options)
        case _:
            units = experts
    return steer(expertise, trial.concept, units=units, **options)


def _table_of(expertise: xr.Dataset, trial: Trial, design: Design) -> xr.Dataset:
    """Return the table that has the trial's concept; a domain's is what its members share."""
    return share_expertise(expertise, trial.concept) if trial.concept in design.domains else expertise


def measure_trials(
    model: Model,
    expertise: xr.Dataset,
    trials: Sequence[Trial],
    writing: Writing,
    design: Design,
    *,
    seed: int = 0,
    together: int | None = None,
) -> Iterator[tuple[Trial, dict[str, Any]]]:
    """Measure trials, several at a time.

    A trial's texts and numbers don't depend on which others are measured with it: of those that a killed run left, too.

    Args:
      model: that is steered.
      expertise: its table.
      trials: some of the design's.
      writing: how continuations are written.
      design: has the concepts and domains.
      seed: see `make_steering`.
      together: how many share a batch; None for as many as `count_together` says.

    Yields:
      Each trial as soon as it is measured, with its measures `[rows, columns]`, the continuations, and the steering in
      words; all as JSON has it.
    """
    together = together or min(count_together(model, expertise, writing), len(design.trials()))
    for start in range(0, len(trials), together):
        group = trials[start : start + together]
        steered = [_steer_trial(expertise, trial, design, seed) for trial in group]
        measured = measure_effects(model, expertise, steered, writing, written_with=together)
        for trial, each, (written, values) in zip(group, steered, measured, strict=True):
            yield (
                trial,
                {
                    "steering": repr(each.steering) if each.steering else "none",
                    "words": each.words,
                    "texts": written.texts.tolist(),
                    "measures": {name: _without_nan(value) for name, value in values.items()},
                },
            )


def keep_trials(
    model: Model,
    expertise: xr.Dataset,
    writing: Writing,
    design: Design,
    kept: epath.Path,
    question: Mapping[str, Any],
    *,
    seed: int = 0,
    progress: bool = False,
) -> dict[Trial, dict[str, Any]]:
    """Measure a design's trials, each kept in a directory as soon as it is measured, and read from there the next time.

    Args:
      model: that is steered.
      expertise: its table.
      writing: how continuations are written.
      design: the trials.
      kept: the directory, which is made if need be.
      question: what the table follows from, see `run_directory.open_run`.
      seed: see `make_steering`.
      progress: shows a bar.

    Returns:
      What `measure_trials` gives of each trial.

    Raises:
      SelectionError: a trial that isn't measured yet can't be steered; before any is measured, or anything is written.
      RunDirectoryError: what is kept there is of another table.
    """
    files = {trial: kept / f"{trial.name}.json" for trial in design.trials()}
    waiting = [trial for trial, file in files.items() if not file.exists()]
    for trial in waiting:
        make_steering(expertise, trial, design, seed=seed)
    open_run(kept, question)
    done = len(files) - len(waiting)
    with tqdm(desc="steering", unit="steering", total=len(files), initial=done, disable=not progress) as bar:
        for trial, measured in measure_trials(model, expertise, waiting, writing, design, seed=seed):
            saved_json(files[trial], lambda measured=measured: measured)
            bar.update()
    return {trial: json.loads(file.read_text()) for trial, file in files.items()}


def describe_trials(
    results: Mapping[Trial, Mapping[str, Any]],
    design: Design,
    prompts: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:
    """Return the tables of what `keep_trials` measured, by name; see `summary.py`.

    Args:
      results: of each of the design's trials.
      design: says which concepts curves are of, and which method and number of units the claim is of.
      prompts: that were continued.
      resamples: of the intervals.
      seed: of those.
    """
    effects = describe_effects(results, resamples, seed)
    return {
        "effects": effects,
        "curves": describe_curves(effects, design.concepts, resamples, seed),
        "claim": describe_claim(effects, design.method, design.drawn_count, design.controls, resamples, seed),
        "samples": list_samples(results, prompts),
    }


def _steer_trial(expertise: xr.Dataset, trial: Trial, design: Design, seed: int) -> Steered:
    steering, table = make_steering(expertise, trial, design, seed=seed), _table_of(expertise, trial, design)
    words = tuple(table.attrs["members"]) if trial.concept in design.domains else (trial.concept,)
    return Steered(steering, trial.concept, words, table)


def count_together(model: Model, expertise: xr.Dataset, writing: Writing) -> int:
    """Return how many steerings share a batch: as many as a batch of generation takes, within a gigabyte, up to 16.

    Bytes are those of a row's keys and values, its scales and shifts, and its units' responses. Of more than 16, a run
    that is killed would lose too much, and a batch would gain little.
    """
    config = model.config
    rows = len(writing.prompts) * writing.num_seeds
    longest = np.array(max(map(len, model.tokenizer(list(writing.prompts))["input_ids"])))
    tokens = int(bucket_lengths(bucket_lengths(longest) + writing.max_new_tokens))  # as generation pads them
    cached = 2 * config.num_layers * config.num_kv_heads * config.head_dim * tokens
    steered = 3 * config.num_layers * sum(config.site_channels()[str(site)] for site in set(expertise["site"].values))
    most = min(_TOKENS_TOGETHER // (rows * tokens), _BYTES_TOGETHER // (4 * rows * (cached + steered)), _MOST_TOGETHER)
    return max(most, 1)


def _without_nan(values: np.ndarray) -> list[Any]:
    """Numbers as JSON has them, which has no NaN: None."""
    numbers = values.astype(object)
    numbers[np.isnan(values)] = None
    return numbers.tolist()


def held_out_texts(dataset: ConceptDataset, concepts: Sequence[str], count: int, *, seed: int = 0) -> tuple[str, ...]:
    """Draw sentences that mention none of some concepts, and are positives of none: at most `count`."""
    chosen = [name in concepts for name in dataset.concepts]
    mentions = dataset.mentions()[chosen].any(0) | dataset.labels[chosen].any(0)
    free = np.flatnonzero(~mentions)
    chosen = np.random.default_rng(seed).choice(free, min(count, len(free)), replace=False)
    return tuple(dataset.sentences[i] for i in np.sort(chosen))


def steer_away(
    model: Model,
    expertise: xr.Dataset,
    concepts: ConceptDataset,
    elsewhere: ConceptDataset,
    pairs: Sequence[tuple[str, str]],
    *,
    methods: Sequence[str],
    top: int,
    threshold: float,
    kept: Kept = lambda name, make: make(),
    reading: Mapping[str, Any] | None = None,
    negatives: Mapping[str, Any] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Remove a concept and spare another, and measure what became of both.

    That is their words' probability where they stand in held-out sentences, and every concept's experts as the steered
    model has them.

    Args:
      model: that is steered.
      expertise: its table.
      concepts: the sentences that the table is of.
      elsewhere: other sentences of the same concepts.
      pairs: each a concept to remove, and one to spare.
      methods: of `steer`; with the first one, experts are found anew.
      top: how many experts are steered.
      threshold: on AP, of the experts that are found anew.
      kept: see `Kept`.
      reading: arguments of `record_responses`, as the table's were.
      negatives: arguments of `measure_expertise`, as the table's were.
      resamples: of the intervals, over sentences.
      seed: of those.

    Returns:
      `away`: a row per pair, method, whether the other was spared, and whose word: `change` of its log-probability,
      with interval over sentences. `moved`: a row per pair and concept (`of`), by the first method, sparing:
      see `find_moved`.
    """
    away, moved = [], []

    @functools.cache
    def unsteered_in_place(word: str) -> np.ndarray:  # the same for all steerings of a pair
        return word_in_place(model, elsewhere, word, None)

    for concept, spared in pairs:
        steerings = {
            (method, sparing): steer(expertise, concept, top=top, method=method, sparing=(spared,) if sparing else ())
            for method in methods
            for sparing in (False, True)
        }
        for (method, sparing), steering in steerings.items():
            for word in (concept, spared):

                def change(word: str = word, steering: Steering = steering) -> dict[str, Any]:
                    after = word_in_place(model, elsewhere, word, steering)
                    return {"change": (after - unsteered_in_place(word)).tolist()}

                name = f"away_{concept}_{spared}_{method}_{'sparing' if sparing else 'all'}_{word}"
                values = np.array(kept(name, change)["change"])
                mean, low, high = bootstrap_mean(values[:, None], resamples, seed)
                away.append((concept, spared, method, sparing, word, len(steering), mean, low, high))

        def move(steering: Steering = steerings[methods[0], True]) -> dict[str, Any]:
            responses = record_responses(model, concepts.sentences, steering=steering, progress=True, **(reading or {}))
            after = measure_expertise(responses, concepts, **(negatives or {}))
            sets = (select_experts(table, threshold=threshold) for table in (expertise, after))
            return find_moved(*sets).to_dict("list")

        values = pd.DataFrame(kept(f"moved_{concept}_{spared}", move))
        moved.append(pd.DataFrame({"concept": concept, "spared": spared}, index=values.index).join(values))
    if not pairs:
        return pd.DataFrame(columns=AWAY), pd.DataFrame(columns=MOVED)
    return pd.DataFrame(away, columns=AWAY), pd.concat(moved, ignore_index=True)[list(MOVED)]


def find_moved(before: xr.DataArray, after: xr.DataArray) -> pd.DataFrame:
    """Measure how far steering moved each concept's expert set, and where to on the map of overlaps.

    The map is one of all sets, those before and those after, so that only what changed its experts moves on it.

    Args:
      before: bool (concept, unit).
      after: bool (concept, unit), of the steered model.

    Returns:
      A row per concept: `of`, `domain`, `kept` (Jaccard overlap of the set before with that after; 1 if both are
      empty), and its places `x`, `y`, `x_after`, `y_after`.
    """
    names, domains = ([str(name) for name in before[key].values] for key in ("concept", "domain"))
    sets = np.concatenate([before.values, after.values])
    twice = [*names, *(f"{name} (steered)" for name in names)]
    both = xr.DataArray(sets, {"concept": twice, "domain": ("concept", [*domains, *domains])}, ("concept", "unit"))
    overlap = jaccard(both)
    kept = np.diag(overlap.values[: len(names), len(names) :])
    places = map_concepts(overlap)[["x", "y"]].to_numpy()
    return pd.DataFrame(
        {
            **{"of": names, "domain": domains},
            "kept": np.where(before.values.any(1) | after.values.any(1), kept, 1.0),
            **dict(zip(("x", "y"), places[: len(names)].T, strict=True)),
            **dict(zip(("x_after", "y_after"), places[len(names) :].T, strict=True)),
        }
    )
