"""Does a model need its experts? What it loses without them, of their concept's word and of others' words.

Units that are active at a concept's sentences needn't be what the model goes by there. So they are silenced, and the
log-probability of the concept's word is read where the concept's sentences have it (necessity), beside that of other
concepts' words in theirs: units that anything needs lower both. What the same units do when they are made to speak
(sufficiency) stands beside.

Sets are chosen by scores, so they should be tried on sentences that the scores weren't measured on.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
import xarray as xr

from expertlens_jax.analysis.statistics import bootstrap_mean, least_p_of_signs, spearman
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.in_place import find_words_in_place
from expertlens_jax.data.words import word_forms
from expertlens_jax.experts.controls import place_matched_units
from expertlens_jax.experts.responses import record_responses
from expertlens_jax.experts.scores import score_units
from expertlens_jax.experts.steering import steer
from expertlens_jax.models.model import Model
from expertlens_jax.models.scoring import Continued, score_tokens, score_words, tokenize_continuations
from expertlens_jax.models.steering import Steering

ABLATIONS = ("zero", "median")
MEASURES = ("own", "others", "selective", "sufficiency")
_TOKENS_PER_BATCH = 256  # texts are few and short: larger batches would mostly be filler
_BYTES_TOGETHER = 2**29  # of steerings that are laid out side by side


def control_of(score: str) -> str:
    """Return what the random units are called that stand where the highest by a score do."""
    return f"random, placed as by {score}"


@dataclasses.dataclass(frozen=True)
class Ablation:
    """Which units are silenced, and how."""

    counts: tuple[int, ...]
    """Of units, the highest of a concept."""
    scores: tuple[str, ...]
    """By which they are the highest: names in `SCORES`."""
    values: tuple[str, ...] = ("zero",)
    """What silenced units say, of `ABLATIONS`."""

    def choose(self, expertise: xr.Dataset, row: int, seed: int) -> dict[tuple[str, int], np.ndarray]:
        """Return the sets of one concept: by what they are chosen and how many, values of the `unit` coordinate."""
        sets = {}
        for number, (score, count) in enumerate(itertools.product(self.scores, self.counts)):
            values = score_units(expertise, score).isel(concept=row).values
            highest = np.sort(expertise["unit"].values[np.argsort(-values, kind="stable")[:count]])
            sets[score, count] = highest
            drawn = np.random.SeedSequence([seed, row, number]).generate_state(1)[0]
            sets[control_of(score), count] = place_matched_units(expertise, highest, int(drawn))
        return sets


@dataclasses.dataclass(frozen=True, eq=False)
class WordsToRead:
    """Concepts' words where their own sentences have them: what is read with units silenced."""

    continued: Continued
    """Rows up to the first token of a word."""
    concept: np.ndarray
    """int `[rows]`: whose word it is."""
    words: tuple[str, ...]
    """`[concepts]`: two with one word aren't compared with each other."""

    def own(self, concept: int, most: int, seed: int) -> np.ndarray:
        """Return at most so many rows of a concept, drawn."""
        return self._draw(np.flatnonzero(self.concept == concept), most, [seed, concept, 0])

    def others(self, concept: int, most: int, seed: int) -> np.ndarray:
        """Return at most so many rows of concepts with other words, drawn."""
        same = np.array([word == self.words[concept] for word in self.words])
        return self._draw(np.flatnonzero(~same[self.concept]), most, [seed, concept, 1])

    @staticmethod
    def _draw(rows: np.ndarray, most: int, seeds: list[int]) -> np.ndarray:
        if len(rows) <= most:
            return rows
        return np.sort(np.random.default_rng(seeds).choice(rows, most, replace=False))


def read_words(model: Model, concepts: ConceptDataset) -> WordsToRead:
    """Return the words of all concepts in their places, tokenized for a model.

    Raises:
      ConceptDataError, UnfitConceptsError: see `find_words_in_place`.
      UnsupportedModelError, TokenizationError: see `tokenize_continuations`.
    """
    found = find_words_in_place(concepts)
    continued = tokenize_continuations(model, found.beginnings, found.words).first_tokens()
    words = concepts.words or concepts.concepts
    return WordsToRead(continued, found.concept, tuple(words))


def word_log_probs(model: Model, continued: Continued, steerings: Sequence[Steering | None]) -> np.ndarray:
    """Return the log-probability of each row's word under each of several steerings, in batches that they share.

    Returns:
      float64 `[steerings, rows]`.
    """
    rows = np.arange(len(continued.first))

    def read(group: Sequence[Steering | None], of_rows: list[Steering | None]) -> list[float]:
        repeated = continued.take(np.tile(rows, len(group)))
        scored = score_tokens(model, repeated, steering=of_rows, tokens_per_batch=_TOKENS_PER_BATCH)
        return [row.sum(dtype=np.float64) for row in scored]

    return _read_in_groups(model, steerings, len(rows), read)


def next_word_log_probs(
    model: Model, prompts: Sequence[str], forms: Sequence[str], steerings: Sequence[Steering | None]
) -> np.ndarray:
    """Return the log-probability that one of some words is next under each of several steerings, in shared batches.

    Returns:
      float64 `[steerings, prompts]`.
    """

    def read(group: Sequence[Steering | None], of_rows: list[Steering | None]) -> np.ndarray:
        repeated = [*prompts] * len(group)
        return score_words(model, repeated, forms, steering=of_rows, tokens_per_batch=_TOKENS_PER_BATCH)

    return _read_in_groups(model, steerings, len(prompts), read)


def _read_in_groups(
    model: Model,
    steerings: Sequence[Steering | None],
    num_rows: int,
    read: Callable[[Sequence[Steering | None], list[Steering | None]], Sequence[float] | np.ndarray],
) -> np.ndarray:
    """Return what `read` gives of so many rows under each steering, float64 `[steerings, rows]`.

    It is given as many steerings as are laid out at once, and the steering of each of their rows.
    """
    together = _count_together(model)
    groups = [steerings[start : start + together] for start in range(0, len(steerings), together)]
    found = [read(group, [steering for steering in group for _ in range(num_rows)]) for group in groups]
    return np.concatenate(found).reshape(len(steerings), num_rows)


def _count_together(model: Model) -> int:
    """Return how many steerings are laid out at once, each with a scale and a shift for every unit of the model."""
    bytes_each = 2 * 4 * model.config.num_layers * sum(model.config.site_channels().values())
    return max(_BYTES_TOGETHER // bytes_each, 1)


def typical_activations(model: Model, concepts: ConceptDataset, expertise: xr.Dataset) -> np.ndarray:
    """Return the median over all sentences of each unit's mean activation, float32 `[units]` in the table's order."""
    sites = tuple(dict.fromkeys(map(str, expertise["site"].values)))
    recorded = record_responses(model, concepts.sentences, sites=sites, pooling="mean", truncate=True)
    address = ["layer", "site", "channel"]
    places = pd.Series(range(len(recorded.units)), pd.MultiIndex.from_frame(recorded.units[address].astype(object)))
    wanted = list(zip(*(expertise[name].values.tolist() for name in address), strict=True))
    return np.median(recorded.values, axis=0)[places.loc[wanted].to_numpy()]


def silence(expertise: xr.Dataset, concept: str, units: np.ndarray, values: np.ndarray | None = None) -> Steering:
    """Return the steering that sets units to 0, or to their own values.

    Args:
      expertise: the table, or this concept's part of it.
      concept: one of its concepts, for the label.
      units: values of its `unit` coordinate.
      values: float `[units of the table]` to set them to; None for 0.
    """
    steering = steer(expertise, concept, units=units, method="zero")
    if values is None:
        return steering
    own = np.asarray(values, np.float32)[np.isin(expertise["unit"].values, units)]
    return dataclasses.replace(steering, shift=own)


def measure_concept(
    model: Model,
    expertise: xr.Dataset,
    row: int,
    ablation: Ablation,
    words: WordsToRead,
    typical: np.ndarray | None,
    *,
    sentences: int,
    prompts: Sequence[str],
    forms: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """Measure what becomes of one concept's word, and of others', without each of its sets of units.

    Args:
      model: a causal language model.
      expertise: its table, with the scores.
      row: of the concept.
      ablation: which sets, and how they are silenced.
      words: from `read_words`, whose concepts are the table's.
      typical: from `typical_activations`, where the median is asked for.
      sentences: at most so many of the concept, and as many of others.
      prompts: texts before which nothing is said of any concept; () to leave sufficiency out.
      forms: of the concept's word.
      seed: of what is drawn.

    Returns:
      Lists of one length, for JSON: `units`, `count`, `ablation`, `own` and `others` (mean falls of log-probability, in
      nats), and `sufficiency` (the rise of the word's log-probability after the prompts when the units say what they
      say at the concept's sentences), None without prompts.
    """
    concept = str(expertise["concept"].values[row])
    part = expertise.isel(concept=[row])
    mine, others = words.own(row, sentences, seed), words.others(row, sentences, seed)
    sets = ablation.choose(expertise, row, seed)
    silenced = [
        silence(part, concept, units, typical if value == "median" else None)
        for units in sets.values()
        for value in ablation.values
    ]
    continued = words.continued.take(np.concatenate([mine, others]))
    before, *after = word_log_probs(model, continued, [None, *silenced])
    rises: list[float | None] = [None] * len(sets)
    if prompts:
        speaking = [steer(part, concept, units=units, method="set_median") for units in sets.values()]
        unsteered, *steered = next_word_log_probs(model, prompts, forms, [None, *speaking])
        rises = [float(each.mean() - unsteered.mean()) for each in steered]
    found: dict[str, list] = {name: [] for name in ("units", "count", "ablation", "own", "others", "sufficiency")}
    of_sets = itertools.product(zip(sets, rises, strict=True), ablation.values)
    for (((name, count), risen), value), log_probs in zip(of_sets, after, strict=True):
        fall = before - log_probs
        falls = float(fall[: len(mine)].mean()), float(fall[len(mine) :].mean())
        for column, cell in zip(found, (name, count, value, *falls, risen), strict=True):
            found[column].append(cell)
    return found


def forms_of(concepts: ConceptDataset, row: int) -> list[str]:
    """Return the forms of a concept's word, as texts."""
    word = (concepts.words or concepts.concepts)[row]
    language = concepts.languages[row] if concepts.languages else "en"
    forms = concepts.forms[row] if concepts.forms else ()
    return sorted({" ".join(form) for form in word_forms(word, language=language, forms=forms)} | {word})


def summarise_falls(each: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Average over concepts.

    Args:
      each: a row per concept and set: `units`, `count`, `ablation`, and `MEASURES`.
      resamples: draws of the bootstrap over concepts.
      seed: of these.

    Returns:
      A row per set and measure: `units`, `count`, `ablation`, `measure`, `value`, `ci_low`, `ci_high`, `concepts`.
    """
    rows = []
    sets: Any = each.groupby(["units", "count", "ablation"], sort=False)
    for key, group in sets:
        for measure in MEASURES:
            values = group[measure].dropna().to_numpy(float)
            if len(values):
                rows.append((*key, measure, *bootstrap_mean(values[:, None], resamples, seed), len(values)))
    columns = ["units", "count", "ablation", "measure", "value", "ci_low", "ci_high", "concepts"]
    return pd.DataFrame(rows, columns=columns)


def compare_sets(each: pd.DataFrame, scores: Sequence[str], *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Compare sets concept by concept: those by each score with random ones in their places, and with one another.

    p is that of Wilcoxon's signed ranks, two-sided (scipy's; 1 where all differences are 0).

    Args:
      each: as for `summarise_falls`.
      scores: by which sets were chosen.
      resamples: draws of the bootstrap over concepts.
      seed: of these.

    Returns:
      A row per measure ("selective" and "sufficiency"), ablation, count and two sets: `measure`, `ablation`, `count`,
      `first`, `second`, `difference` (mean of first - second), `ci_low`, `ci_high`, `p_value`, `least_p`, `concepts`.
    """
    pairs = [*((score, control_of(score)) for score in scores), *itertools.combinations(scores, 2)]
    rows = []
    for measure in ("selective", "sufficiency"):
        sets: Any = each.groupby(["ablation", "count"], sort=False)
        for (ablation, count), group in sets:
            table = group.pivot_table(index="concept", columns="units", values=measure, sort=False)
            for first, second in pairs:
                if first not in table or second not in table:
                    continue
                differences = (table[first] - table[second]).dropna().to_numpy()
                p_value = float(scipy.stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
                told = bootstrap_mean(differences[:, None], resamples, seed)
                number = len(differences)
                rows.append((measure, ablation, count, first, second, *told, p_value, least_p_of_signs(number), number))
    columns = ["measure", "ablation", "count", "first", "second", "difference", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=[*columns, "p_value", "least_p", "concepts"])


def compare_orders(
    expertise: xr.Dataset,
    scores: Sequence[str],
    counts: Sequence[int],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Ask whether scores put units in one order: rank correlation over all units, and the overlap of the highest.

    Args:
      expertise: the table, with the scores.
      scores: two or more of them.
      counts: of the highest units.
      resamples: draws of the bootstrap over concepts.
      seed: of these.

    Returns:
      A row per two scores and number: `first`, `second`, `measure` ("spearman", "spearman_of_magnitude", of the second
      score's absolute values, or "shared", the share of the highest `count` by one that are the highest by the other),
      `count`, `value` (mean over concepts), `ci_low`, `ci_high`, `chance`, `concepts`.
    """
    values: Mapping[str, np.ndarray] = {score: score_units(expertise, score).values for score in scores}
    num_units = expertise.sizes["unit"]
    rows = []

    def add(pair: tuple[str, str], measure: str, count: int, found: list[float], chance: float) -> None:
        known = np.array([each for each in found if not np.isnan(each)])
        told = bootstrap_mean(known[:, None], resamples, seed) if len(known) else (np.nan,) * 3
        rows.append((*pair, measure, count, *told, chance, len(known)))

    for pair in itertools.combinations(scores, 2):
        one, other = (values[score] for score in pair)
        add(pair, "spearman", 0, [spearman(*each) for each in zip(one, other, strict=True)], 0.0)
        add(pair, "spearman_of_magnitude", 0, [spearman(a, np.abs(b)) for a, b in zip(one, other, strict=True)], 0.0)
        for count in counts:
            highest = (np.argsort(-each, axis=1, kind="stable")[:, :count] for each in (one, other))
            shared = [len(set(a) & set(b)) / count for a, b in zip(*map(np.ndarray.tolist, highest), strict=True)]
            add(pair, "shared", count, shared, count / num_units)
    columns = ["first", "second", "measure", "count", "value", "ci_low", "ci_high", "chance", "concepts"]
    return pd.DataFrame(rows, columns=columns)
