"""What a steering did: is the concept in what the model writes, do its experts see it there, and at what cost?"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.in_place import find_in_place
from expertlens_jax.data.words import mention_finder, word_forms
from expertlens_jax.errors import ResponsesError
from expertlens_jax.experts.responses import record_responses
from expertlens_jax.experts.selection import select_experts
from expertlens_jax.models.generation import generate
from expertlens_jax.models.model import Model
from expertlens_jax.models.provenance import differences, read_provenance
from expertlens_jax.models.scoring import score_continuations, score_tokens, score_words, tokenize_continuations
from expertlens_jax.models.steering import Steering

_TOKENS_PER_BATCH = 256  # texts are few and short: larger batches would mostly be filler


@dataclasses.dataclass(frozen=True, eq=False)
class Continuations:
    """Several continuations of each prompt."""

    prompts: tuple[str, ...]
    """`[prompts]`."""
    texts: np.ndarray
    """str `[prompts, seeds]`."""
    token_ids: tuple[np.ndarray, ...]
    """int32 `[new tokens]` a continuation, prompt by prompt."""

    @property
    def whole(self) -> list[str]:
        """`[prompts * seeds]` texts with their prompts."""
        return [prompt + text for prompt, row in zip(self.prompts, self.texts, strict=True) for text in row]


def continue_prompts(
    model: Model,
    prompts: Sequence[str],
    *,
    num_seeds: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float | None,
    seed: int,
    steering: Steering | None,
) -> Continuations:
    """Continue each prompt `num_seeds` times; the draws are the same ones whatever the steering."""
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p}
    (written,) = continue_each(model, prompts, [steering], num_seeds=num_seeds, seed=seed, **options)
    return written


def continue_each(
    model: Model,
    prompts: Sequence[str],
    steerings: Sequence[Steering | None],
    *,
    num_seeds: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float | None,
    seed: int,
) -> list[Continuations]:
    """Do what `continue_prompts` does under each of several steerings, in batches that they share."""
    repeated = [prompt for prompt in prompts for _ in range(num_seeds)]
    made = generate(
        model,
        repeated * len(steerings),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        draws=[*range(len(repeated))] * len(steerings),
        steering=[steering for steering in steerings for _ in repeated],
    )
    shape = len(steerings), len(prompts), num_seeds
    ids = np.fromiter(made.token_ids, dtype=object, count=len(made.token_ids)).reshape(shape[0], -1)
    texts = np.array(made.texts, dtype=object).reshape(shape)
    return [Continuations(tuple(prompts), *each) for each in zip(texts, map(tuple, ids), strict=True)]


def count_mentions(texts: np.ndarray, words: Sequence[str]) -> np.ndarray:
    """Return how often each text has one of the words, in any of its forms: int, in the texts' shape."""
    finders = [mention_finder(word) for word in words]

    def count(text: str) -> int:
        return len({span for find in finders for span in find(text)})

    return np.vectorize(count, otypes=[int])(texts)


def distinct(continuations: Continuations, length: int) -> np.ndarray:
    """Return the distinct-n (Li et al. 2016) of each continuation.

    That is the different runs of `length` tokens, over all its runs.

    Returns:
      float64 `[prompts, seeds]`, NaN for a continuation of fewer than `length` tokens.
    """

    def share(ids: list[int]) -> float:
        runs = [tuple(ids[i : i + length]) for i in range(len(ids) - length + 1)]
        return len(set(runs)) / len(runs) if runs else np.nan

    return np.reshape([share(ids.tolist()) for ids in continuations.token_ids], continuations.texts.shape)


def surprise(model: Model, continuations: Continuations, steering: Steering | None = None) -> np.ndarray:
    """Return the mean negative log-probability of a continuation's tokens under a model.

    Its exponential is the perplexity.

    Returns:
      float64 `[prompts, seeds]`, nats a token; NaN for an empty continuation.
    """
    return surprise_of_each(model, [continuations], steering)[0]


def surprise_of_each(
    model: Model, written: Sequence[Continuations], steering: Steering | None = None
) -> list[np.ndarray]:
    """Return the `surprise` of each of several sets of continuations, read in batches that they share."""
    flat = np.concatenate([each.texts.ravel() for each in written])
    repeated = np.concatenate([np.repeat(each.prompts, each.texts.shape[1]) for each in written])
    there = np.flatnonzero([bool(text) for text in flat])
    result = np.full(len(flat), np.nan)
    if len(there):
        scored = score_continuations(
            model,
            repeated[there].tolist(),
            flat[there].tolist(),
            steering=steering,
            tokens_per_batch=_TOKENS_PER_BATCH,
        )
        result[there] = [-row.mean(dtype=np.float64) for row in scored]
    return _split_as(result, written)


def _split_as(values: np.ndarray, written: Sequence[Continuations]) -> list[np.ndarray]:
    """Return values `[texts, ...]` of several sets of continuations, `[prompts, seeds, ...]` of each."""
    parts = np.split(values, np.cumsum([each.texts.size for each in written])[:-1])
    return [part.reshape(*each.texts.shape, *values.shape[1:]) for part, each in zip(parts, written, strict=True)]


def expert_response(
    model: Model, continuations: Continuations, expertise: xr.Dataset, concept: str, *, top: int = 50
) -> np.ndarray:
    """Return how much the concept's experts see it in what was written, as the model reads it without steering.

    Each expert's response, pooled as the table's were, is measured on its own scale, on which a negative sentence has
    0 on average and the median positive one 1; a text has the median over experts. An expert whose two are the same,
    as rare features' are, has no such scale and is left out.

    Args:
      model: not steered.
      continuations: read with their prompts.
      expertise: a table of the model.
      concept: one of its concepts.
      top: how many of its experts.

    Returns:
      float64 `[prompts, seeds]`; NaN where no expert has a scale.

    Raises:
      ResponsesError: the table doesn't say how its responses were pooled; no other text can have such responses, since
        they were pooled over some tokens only, or recorded of a steered model; or it is of another model.
    """
    (responses,) = _read_each(model, [continuations], expertise)
    return _on_scale(responses, expertise, concept, top)


def _read_each(model: Model, written: Sequence[Continuations], expertise: xr.Dataset) -> list[np.ndarray]:
    """Return a table's units' responses to several sets of continuations, `[prompts, seeds, units]` of each."""
    _check_readable(expertise, model)
    sites = tuple(dict.fromkeys(expertise["site"].values.tolist()))
    responses = record_responses(
        model,
        [text for each in written for text in each.whole],
        sites=sites,
        pooling=expertise.attrs["pooling"],
        truncate=True,
        tokens_per_batch=_TOKENS_PER_BATCH,
    )
    # A table may hold some of its sites' units only.
    names = ["layer", "site", "channel"]
    column = pd.Series(range(len(responses.units)), pd.MultiIndex.from_frame(responses.units[names]))
    wanted = list(zip(*(expertise[name].values.tolist() for name in names), strict=True))
    return _split_as(responses.values[:, column.loc[wanted].to_numpy()], written)


def _on_scale(responses: np.ndarray, expertise: xr.Dataset, concept: str, top: int = 50) -> np.ndarray:
    """Return what `expert_response` does, of responses `[prompts, seeds, units]` in the order of the table's units."""
    row = expertise.sel(concept=[concept])
    experts = np.flatnonzero(select_experts(row, top=top).values[0])
    row = row.isel(concept=0, unit=experts)
    low, high = row["negative_mean"].values, row["positive_median"].values
    scaled = high != low  # a unit that says the same at both has no such scale
    if not scaled.any():
        return np.full(responses.shape[:2], np.nan)
    on_scale = (responses[..., experts] - low)[..., scaled] / (high - low)[scaled]
    return np.median(on_scale, axis=-1)


def _check_readable(expertise: xr.Dataset, model: Model) -> None:
    """Raise ResponsesError unless a text's responses can be recorded as the table's were, from the same model."""
    said, table = expertise.attrs, read_provenance(expertise.attrs)
    of = f"a table of {said.get('model', 'an unnamed model')}"
    if "pooling" not in said:
        raise ResponsesError(
            f"{of} doesn't say how its responses were pooled over tokens, so texts can't be read alike. Measure it "
            'from el.record_responses(...); of responses of your own, say it: expertise.assign_attrs(pooling="max").'
        )
    for setting, plain in (("pool_over", "all"), ("steering", ""), ("chat", "")):
        if said.get(setting, plain) != plain:
            raise ResponsesError(
                f"{of} has {setting}={said[setting]!r}, and texts are read over all their tokens and without steering. "
                "Give a table that was measured so."
            )
    own = dataclasses.replace(model.provenance, saes=json.dumps(model.sae_settings, sort_keys=True))
    if table is None:
        why = "by their names" if said.get("model", model.name) != model.name else ""
    elif not table.same_model(own):
        why = differences(table, own, model_only=True)
    else:
        why = "other sparse autoencoders" if table.saes not in ("", own.saes) else ""
    if why:
        raise ResponsesError(
            f"{of} can't tell what experts of {model.name} see: they are two models ({why}). Measure a table of "
            f"{model.name}."
        )


@dataclasses.dataclass(frozen=True)
class Writing:
    """How continuations are written and what is asked of them; the same for every steering that is compared."""

    prompts: tuple[str, ...]
    held_out: tuple[str, ...]
    """Texts that the steered model should still find probable."""
    num_seeds: int
    max_new_tokens: int
    temperature: float = 1.0
    top_p: float | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Steered:
    """A steering whose effect is asked for, and on what."""

    steering: Steering | None
    concept: str
    """Whose experts read what is written."""
    words: tuple[str, ...]
    """The concept's; their other forms are counted too."""
    expertise: xr.Dataset
    """Has the concept; of the units of the table that all are read by."""


def measure_effect(
    model: Model,
    expertise: xr.Dataset,
    concept: str,
    words: Sequence[str],
    steering: Steering | None,
    writing: Writing,
) -> tuple[Continuations, dict[str, np.ndarray]]:
    """Measure all that is measured of one steering; of several, `measure_effects` does it in shared batches.

    Args:
      model: a causal language model.
      expertise: a table of its.
      concept: whose experts read what is written.
      words: the concept's; their other forms are counted too.
      steering: or none.
      writing: prompts and how they are continued.

    Returns:
      The continuations, and float64 arrays: `word_log_prob` `[prompts, 1]`, the log-probability that the word after
      the prompt is one of the concept's; `mention` `[prompts, seeds]`, 1 where the continuation has one;
      `mentions` `[prompts, seeds]`, how often; `expert_response` `[prompts, seeds]`; `surprise` `[prompts, seeds]`,
      nats a token of the continuation under the unsteered model; `held_out_surprise` `[texts, 1]`, nats a token of
      held-out text under the steered model; `distinct_1`, `distinct_2` and `distinct_3` `[prompts, seeds]`.
    """
    return measure_effects(model, expertise, [Steered(steering, concept, tuple(words), expertise)], writing)[0]


def write_each(
    model: Model, steerings: Sequence[Steering | None], writing: Writing, *, written_with: int = 0
) -> list[Continuations]:
    """Return what is written under each of several steerings; see `measure_effects`."""
    return continue_each(
        model,
        writing.prompts,
        [*steerings, *[None] * (written_with - len(steerings))],
        num_seeds=writing.num_seeds,
        max_new_tokens=writing.max_new_tokens,
        temperature=writing.temperature,
        top_p=writing.top_p,
        seed=writing.seed,
    )[: len(steerings)]


def measure_effects(
    model: Model, expertise: xr.Dataset, steered: Sequence[Steered], writing: Writing, *, written_with: int = 0
) -> list[tuple[Continuations, dict[str, np.ndarray]]]:
    """Measure the effect of each of several steerings, in batches that they share.

    Args:
      model: a causal language model.
      expertise: the table by whose units texts are read.
      steered: the steerings, and on what their effect is asked for.
      writing: prompts and how they are continued.
      written_with: fill up with unsteered ones, whose texts are dropped, to so many while texts are written: so that
        batches have the same shape, and nothing is compiled anew, however many there are.

    Returns:
      What `measure_effect` does, of each.
    """
    steerings = [each.steering for each in steered]
    written = write_each(model, steerings, writing, written_with=written_with)
    held_out = tokenize_continuations(model, [""] * len(writing.held_out), writing.held_out)
    scored = score_tokens(
        model,
        held_out.take(np.tile(np.arange(len(writing.held_out)), len(steered))),
        steering=[steering for steering in steerings for _ in writing.held_out],
        tokens_per_batch=_TOKENS_PER_BATCH,
    )
    of_held_out = np.array([-row.mean(dtype=np.float64) for row in scored]).reshape(len(steered), -1, 1)
    forms = [
        sorted({" ".join(form) for word in each.words for form in word_forms(word)} | {*each.words}) for each in steered
    ]
    next_word = score_words(
        model,
        [*writing.prompts] * len(steered),
        [words for words in forms for _ in writing.prompts],
        steering=[steering for steering in steerings for _ in writing.prompts],
        tokens_per_batch=_TOKENS_PER_BATCH,
    ).reshape(len(steered), -1, 1)
    measured = []
    responses, surprises = _read_each(model, written, expertise), surprise_of_each(model, written)
    for place, (each, texts) in enumerate(zip(steered, written, strict=True)):
        mentions = count_mentions(texts.texts, each.words)
        values = {
            "word_log_prob": next_word[place],
            "mention": (mentions > 0).astype(float),
            "mentions": mentions.astype(float),
            "expert_response": _on_scale(responses[place], each.expertise, each.concept),
            "surprise": surprises[place],
            "held_out_surprise": of_held_out[place],
            **{f"distinct_{length}": distinct(texts, length) for length in (1, 2, 3)},
        }
        measured.append((texts, values))
    return measured


def word_in_place(model: Model, dataset: ConceptDataset, concept: str, steering: Steering | None = None) -> np.ndarray:
    """Return the log-probability of a concept's word where it stands in its own sentences, given what stands before it.

    Args:
      model: a causal language model.
      dataset: has the concept.
      concept: see `find_in_place`.
      steering: of the model while it reads.

    Returns:
      float64 `[sentences]`.

    Raises:
      ConceptDataError: see `find_in_place`.
    """
    prompts, words = find_in_place(dataset, concept)
    by_row = [steering] * len(prompts)  # as held-out text is scored: by programs that are compiled already
    scored = score_continuations(model, prompts, words, steering=by_row, tokens_per_batch=_TOKENS_PER_BATCH)
    return np.array([row.sum(dtype=np.float64) for row in scored])
