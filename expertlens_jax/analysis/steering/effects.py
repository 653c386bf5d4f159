"""What a steering did: is the concept in what the model writes, do its experts see it there, and at what cost?"""

import dataclasses
import json
from collections.abc import Sequence

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
from expertlens_jax.models.scoring import score_continuations, score_words
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
    repeated = [prompt for prompt in prompts for _ in range(num_seeds)]
    made = generate(
        model,
        repeated,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        steering=steering,
    )
    texts = np.array(made.texts, dtype=object).reshape(len(prompts), num_seeds)
    return Continuations(tuple(prompts), texts, made.token_ids)


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
    flat = continuations.texts.ravel()
    repeated = np.repeat(continuations.prompts, continuations.texts.shape[1])
    written = np.flatnonzero([bool(text) for text in flat])
    result = np.full(len(flat), np.nan)
    if len(written):
        scored = score_continuations(
            model,
            repeated[written].tolist(),
            flat[written].tolist(),
            steering=steering,
            tokens_per_batch=_TOKENS_PER_BATCH,
        )
        result[written] = [-row.mean(dtype=np.float64) for row in scored]
    return result.reshape(continuations.texts.shape)


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
    _check_readable(expertise, model)
    row = expertise.sel(concept=[concept])
    experts = np.flatnonzero(select_experts(row, top=top).values[0])
    row = row.isel(concept=0, unit=experts)
    sites = tuple(dict.fromkeys(expertise["site"].values.tolist()))
    responses = record_responses(
        model,
        continuations.whole,
        sites=sites,
        pooling=expertise.attrs["pooling"],
        truncate=True,
        tokens_per_batch=_TOKENS_PER_BATCH,
    )
    # A table may hold some of its sites' units only.
    names = ["layer", "site", "channel"]
    column = pd.Series(range(len(responses.units)), pd.MultiIndex.from_frame(responses.units[names]))
    wanted = list(zip(*(row[name].values.tolist() for name in names), strict=True))
    responses = responses.values[:, column.loc[wanted].to_numpy()]
    low, high = row["negative_mean"].values, row["positive_median"].values
    scaled = high != low  # a unit that says the same at both has no such scale
    if not scaled.any():
        return np.full(continuations.texts.shape, np.nan)
    on_scale = (responses - low)[:, scaled] / (high - low)[scaled]
    return np.median(on_scale, axis=1).reshape(continuations.texts.shape)


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


def measure_effect(
    model: Model,
    expertise: xr.Dataset,
    concept: str,
    words: Sequence[str],
    steering: Steering | None,
    writing: Writing,
) -> tuple[Continuations, dict[str, np.ndarray]]:
    """Measure all that is measured of one steering.

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
    written = continue_prompts(
        model,
        writing.prompts,
        num_seeds=writing.num_seeds,
        max_new_tokens=writing.max_new_tokens,
        temperature=writing.temperature,
        top_p=writing.top_p,
        seed=writing.seed,
        steering=steering,
    )
    forms = sorted({" ".join(form) for word in words for form in word_forms(word)} | set(words))
    mentions = count_mentions(written.texts, words)
    held_out = score_continuations(
        model, [""] * len(writing.held_out), writing.held_out, steering=steering, tokens_per_batch=_TOKENS_PER_BATCH
    )
    next_word = score_words(model, writing.prompts, forms, steering=steering, tokens_per_batch=_TOKENS_PER_BATCH)
    return written, {
        "word_log_prob": next_word[:, None],
        "mention": (mentions > 0).astype(float),
        "mentions": mentions.astype(float),
        "expert_response": expert_response(model, written, expertise, concept),
        "surprise": surprise(model, written),
        "held_out_surprise": np.array([[-row.mean(dtype=np.float64)] for row in held_out]),
        **{f"distinct_{length}": distinct(written, length) for length in (1, 2, 3)},
    }


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
    scored = score_continuations(
        model, *find_in_place(dataset, concept), steering=steering, tokens_per_batch=_TOKENS_PER_BATCH
    )
    return np.array([row.sum(dtype=np.float64) for row in scored])
