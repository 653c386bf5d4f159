"""Steering that is learned: the maps of all units together, by gradients through the steered model.

`el.steer` reads each unit's map from the unit's own responses. What a change in one layer does to the layers above is
left out there. Here it isn't: the maps are learned together, so that the steered model does what is wanted.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypedDict, Unpack, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from tqdm.auto import tqdm

from expertlens_jax import parallel
from expertlens_jax.cards import counted
from expertlens_jax.data.concept_dataset import ConceptDataset
from expertlens_jax.errors import ConceptDataError, SelectionError, SettingError
from expertlens_jax.experts.responses import record_responses
from expertlens_jax.experts.steering_objectives import (
    Learnable,
    Maps,
    TextBatch,
    WordBatch,
    distribution_loss,
    shrink,
    word_loss,
)
from expertlens_jax.models.causal import check_predicts
from expertlens_jax.models.model import Model, at_path
from expertlens_jax.models.scoring import tokenize_continuations
from expertlens_jax.models.sites import check_no_summaries, check_sites
from expertlens_jax.models.steering import Steering, steer_units
from expertlens_jax.models.streaming import check_loaded
from expertlens_jax.models.taps import Taps
from expertlens_jax.models.tokens import padding_id, tokenize
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.models.units import units_table
from expertlens_jax.settings import settings_of

Objective = Literal["word", "distribution"]
_SCALED_ON = 64
"""Sentences, of the concept and of others, that each unit's mean and spread are measured on."""
_MEMORY = 0.95
_ADAM = optax.scale_by_adam(b1=0.8, b2=_MEMORY)  # shorter memories than usual: there are few steps


@dataclasses.dataclass(frozen=True)
class Learning:
    """How a steering is learned; hashable, so that it can be a static argument of `jax.jit`.

    >>> import expertlens_jax as el
    >>> el.Learning(steps=100, sparsity=0.01).objective
    'word'
    """

    objective: Objective = "word"
    """"word": the model is to write the concept's word, and still well. "distribution": other sentences' responses are
    to be spread as the concept's are (LinEAS; Rodriguez et al. 2025, arXiv 2503.10679)."""
    scales: bool | None = None
    """Whether units' scales are learned as well as their shifts. None is True of "distribution" and False of "word"."""
    fluency: float = 6.0
    """Of "word": the price of a nat a token of divergence from what the model writes unsteered, in nats of the word's
    log-probability. The more, the rarer the word and the better the text."""
    sparsity: float = 0.0
    """The price of moving a unit by its spread, or of scaling it to twice that: the more, the fewer are changed."""
    steps: int = 30
    rate: float | None = None
    """Adam's learning rate, in units of each unit's spread; it falls to 0 as a cosine. None is 0.2 of "word", and 0.05
    of "distribution"."""
    sentences: int = 16
    """Read at each step: of "distribution", so many of the concept and so many others."""
    most_tokens: int = 24
    """Of a sentence; longer ones are cut off."""
    seed: int = 0
    """Of the sentences that are drawn."""

    plain: ClassVar[Mapping[str, str]] = {
        name: name
        for name in ("objective", "scales", "fluency", "sparsity", "steps", "rate", "sentences", "most_tokens", "seed")
    }
    """Its fields by the keywords that functions take in their place."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
          SettingError: an unknown objective, or a number out of its range.
        """
        if self.objective not in get_args(Objective):
            raise SettingError(
                f"objective={self.objective!r} was given; wanted one of {', '.join(get_args(Objective))}."
            )
        for name, least in (("steps", 1), ("sentences", 2), ("most_tokens", 3)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise SettingError(f"{name}={value!r} was given; wanted a whole number of {least} or more.")
        for name in ("fluency", "sparsity"):
            value = getattr(self, name)
            if not (_is_number(value) and value >= 0):
                raise SettingError(f"{name}={value!r} was given; wanted a number of 0 or more.")
        if self.rate is not None and not (_is_number(self.rate) and self.rate > 0):
            raise SettingError(f"rate={self.rate!r} was given; wanted a number above 0.")

    @property
    def with_scales(self) -> bool:
        """Whether units' scales are learned."""
        return self.objective == "distribution" if self.scales is None else self.scales

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step."""
        rate = self.rate or (0.2 if self.objective == "word" else 0.05)
        return rate * (1 + math.cos(math.pi * step / self.steps)) / 2


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


class PlainLearning(TypedDict, total=False):
    """The fields of `Learning` as plain keywords."""

    objective: Objective
    scales: bool | None
    fluency: float
    sparsity: float
    steps: int
    rate: float | None
    sentences: int
    most_tokens: int
    seed: int


def learn_steering(
    model: Model,
    concepts: ConceptDataset,
    concept: str,
    *,
    units: pd.DataFrame | None = None,
    sites: Sequence[str] | str | None = None,
    learning: Learning | None = None,
    progress: bool = False,
    **settings: Unpack[PlainLearning],
) -> Steering:
    """Learn a steering of a concept, by gradients through the steered model.

    By default shifts of units are learned that make the model write the concept's word, and change little of what it
    writes besides.

        experts = el.top_experts(expertise, "cat", 1000)
        steering = el.learn_steering(model, concepts, "cat", units=experts)
        el.generate(model, "There was a", steering=steering)

    With `objective="distribution"` it is LinEAS (Rodriguez et al. 2025, arXiv 2503.10679): responses to other sentences
    are to be spread as those to the concept's, at every site; and with `sparsity`, by changing few units.

    `el.steer` reads a unit's map from its responses, takes no time, and needs no word; try it first. This one sees
    what a change does to the layers above. It makes do with any units: that experts were given doesn't say that it is
    they who know the concept. Learn random units beside them (`units=model.units.sample(1000)`).

    Args:
      model: from `load_model`; for "word" a causal language model.
      concepts: sentences. For "word" those of other concepts alone are read; for "distribution", the concept's too.
      concept: one of them.
      units: which may be changed: a table with `layer`, `site`, `channel`, as `el.top_experts` or `model.units` gives
        it; None for all units of `sites`.
      sites: names of sites, or one; None for those of `units`, or the outputs of linear layers.
      learning: how; None for the defaults.
      progress: show a bar of steps, with the loss.
      **settings: the same as plain keywords, see `el.Learning`: `objective`, `scales`, `fluency`, `sparsity`, `steps`,
        `rate`, `sentences`, `most_tokens`, `seed`.

    Returns:
      A `Steering` of those units that are changed at all.

    Raises:
      SelectionError: units or sites that the model doesn't have, units and sites both, or none that is changed; or
        the model's layers are streamed (`offload=`).
      SettingError: a setting that isn't known or is out of range; or settings and `learning` both.
      ConceptDataError: no such concept, or too few sentences beside it.
      UnfitConceptsError: "word", of a concept without a word.
      UnsupportedModelError: "word", of an encoder.
      TokenizationError: a word that the model has no token for.

    >>> import expertlens_jax as el
    >>> model, concepts = el.load_model("lenslet-2m"), el.load_concepts("facts").subset(["cat", "rain"])
    >>> units = model.units.query("site == 'attn.v' and layer == 2")
    >>> el.learn_steering(model, concepts, "cat", units=units, steps=2, sentences=2)
    Steering of lenslet-2m: cat, learned (word); 128 units (128 at attn.v)
    """
    (learning,) = settings_of(
        "learn_steering", settings, {"learning": (Learning, learning)}, others=("units", "sites", "progress")
    )
    check_loaded(model.params, model.name, "learning a steering")
    if concept not in concepts.concepts:
        raise ConceptDataError(
            f"{concepts.name!r} has no concept {concept!r}; it has {counted(len(concepts.concepts), 'other')}."
        )
    if learning.objective == "word":
        concepts.check_words("steering that is learned by a concept's word", [concept])
        check_predicts(model, "and writes no words", 'Learn its steering with objective="distribution".')
    table = _choose_units(model, units, sites)
    row = concepts.concepts.index(concept)
    others = [concepts.sentences[i] for i in _other_sentences(concepts, row)]
    own = [concepts.sentences[i] for i in np.flatnonzero(concepts.labels[row])]
    mesh, params = parallel.place(model.params)
    rows = -(-learning.sentences // mesh.shape[parallel.DATA]) * mesh.shape[parallel.DATA]
    names = check_sites(model.config, list(dict.fromkeys(table["site"])))
    learnable = parallel.replicate(_learnable(model, table, names, others[:_SCALED_ON] + own[:_SCALED_ON]), mesh)
    if learning.objective == "word":
        word = " " + (concepts.words or concepts.concepts)[row].replace("_", " ")
        draw = _draw_words(model, word, others, rows, learning)
    else:
        draw = _draw_texts(model, others, own, rows, learning)
    network = Transformer(model.config, Taps(names, "mean"), jnp.dtype(model.dtype), devices=mesh.size)

    widths = model.config.site_channels()
    zeros = {site: np.zeros((model.config.num_layers, widths[site]), np.float32) for site in names}
    maps: Maps = parallel.replicate({site: (each, each) for site, each in zeros.items()}, mesh)
    state = parallel.replicate(_ADAM.init(cast(Any, maps)), mesh)  # as a step returns it: else it compiles twice
    with tqdm(range(learning.steps), desc=f"steering {concept}", unit="step", disable=not progress) as bar:
        for step in bar:
            batch = draw(np.random.default_rng([learning.seed, row, step])).laid_out(mesh)
            numbers = (learning.fluency, learning.rate_at(step), learning.sparsity)
            maps, state, loss = _take_step(
                network, params, maps, state, batch, learnable, numbers, learning.with_scales
            )
            if progress:
                bar.set_postfix(loss=f"{float(loss):.3f}")
    return _as_steering(model, table, learnable, maps, f"{concept}, learned ({learning.objective})")


def _choose_units(model: Model, units: pd.DataFrame | None, sites: Sequence[str] | str | None) -> pd.DataFrame:
    """Return the units that may be changed, as `layer`, `site`, `channel`, and `expert` if they say it."""
    if units is not None and sites is not None:
        raise SelectionError("units and sites were both given; units are those of their own sites. Give one of them.")
    if units is None:
        given = () if sites is None else (sites,) if isinstance(sites, str) else tuple(sites)
        check_no_summaries(given, "steered")
        units = units_table(model.family, model.config, check_sites(model.config, given or None))
    told = [name for name in ("layer", "site", "channel", "expert") if name in units or name != "expert"]
    units = units.assign(site=units["site"].astype(str))[told]
    if not len(units):
        raise SelectionError("no units were given to learn a steering of.")
    steer_units(model, units, scale=1.0)  # which refuses those that the model doesn't have
    return units


def _other_sentences(concepts: ConceptDataset, row: int) -> np.ndarray:
    """Return which sentences can stand against a concept's, in an order of their own.

    Raises:
      ConceptDataError: there are fewer than two.
    """
    own = None if concepts.own_negatives is None else concepts.own_negatives[row]
    if own is None or not own.any():
        own = concepts.negative_pool & ~concepts.labels[row]
    if not concepts.words or concepts.words[row]:
        find = concepts.mention_finders()[row]
        own = own & np.array([not find(sentence) for sentence in concepts.sentences])
    found = np.flatnonzero(own)
    if len(found) < 2:
        raise ConceptDataError(
            f"{concepts.name!r} has {counted(len(found), 'sentence')} that can stand against those of "
            f"{concepts.concepts[row]!r}; wanted 2 or more. Load it with other concepts."
        )
    return np.random.default_rng(0).permutation(found)


def _learnable(model: Model, table: pd.DataFrame, sites: tuple[str, ...], sentences: list[str]) -> Learnable:
    """Return the units that may be changed, with the mean and the spread of each over sentences."""
    told = record_responses(model, sentences, sites=sites, pooling="mean", truncate=True)
    mean, spread = (np.asarray(each, np.float32) for each in (told.values.mean(axis=0), told.values.std(axis=0)))
    at_layer, at_site, at_channel = (told[name].values for name in ("layer", "site", "channel"))
    chosen, means, spreads = {}, {}, {}
    for site in sites:
        shape = (model.config.num_layers, model.config.site_channels()[site])
        chosen[site], means[site], spreads[site] = np.zeros(shape, bool), *np.zeros((2, *shape), np.float32)
        here = table[table["site"] == site]
        chosen[site][here["layer"].to_numpy(int), here["channel"].to_numpy(int)] = True
        rows = at_site == site
        means[site][at_layer[rows], at_channel[rows]] = mean[rows]
        spreads[site][at_layer[rows], at_channel[rows]] = spread[rows]
    return Learnable(chosen, means, spreads)


def _draw_words(
    model: Model, word: str, others: list[str], rows: int, learning: Learning
) -> Callable[[np.random.Generator], WordBatch]:
    """Return what draws a step's beginnings of other sentences, with the word after each.

    Raises:
      SettingError: `most_tokens` leaves no room for the word.
    """
    pieces = [sentence.split(" ") for sentence in others]
    pad_id = padding_id(model.tokenizer, model.config.vocab_size)

    def draw(rng: np.random.Generator) -> WordBatch:
        drawn = [pieces[i] for i in rng.integers(len(pieces), size=rows)]
        beginnings = [" ".join(sentence[: rng.integers(1, max(len(sentence), 2))]) for sentence in drawn]
        continued = tokenize_continuations(model, beginnings, [word] * rows)
        token_ids = np.full((rows, learning.most_tokens), pad_id, np.int32)
        mask, before, rest, last = np.zeros((4, *token_ids.shape), bool)
        for row, (ids, first) in enumerate(zip(continued.tokens.ids, continued.first, strict=True)):
            start = max(len(ids) - learning.most_tokens, 0)  # the word stays, and what stands right before it
            if first <= start:
                raise SettingError(
                    f"most_tokens={learning.most_tokens} was given, and {word!r} alone has "
                    f"{counted(len(ids) - first, 'token')}; wanted {len(ids) - first + 1} or more."
                )
            end = len(ids) - start
            token_ids[row, :end] = ids[start:]
            mask[row, :end], before[row, : first - start], last[row, end - 1] = True, True, True
            rest[row, first - start + 1 : end] = True
        first_id = np.asarray(continued.tokens.ids[0][continued.first[0]], np.int32)
        return WordBatch(token_ids, mask, before, rest, last, first_id)

    return draw


def _draw_texts(
    model: Model, others: list[str], own: list[str], rows: int, learning: Learning
) -> Callable[[np.random.Generator], TextBatch]:
    """Return what draws a step's sentences: others, and the concept's, as many of each."""
    pad_id = padding_id(model.tokenizer, model.config.vocab_size)
    most = min(learning.most_tokens, model.config.max_tokens)
    read = [tokenize(model.tokenizer, texts, max_tokens=most, truncate=True) for texts in (others, own)]

    def draw(rng: np.random.Generator) -> TextBatch:
        token_ids = np.full((rows, 2, learning.most_tokens), pad_id, np.int32)
        mask, pooled = np.zeros((2, *token_ids.shape), bool)
        for which, tokens in enumerate(read):
            for row, number in enumerate(rng.integers(len(tokens.ids), size=rows)):
                length = len(tokens.ids[number])
                token_ids[row, which, :length], mask[row, which, :length] = tokens.ids[number], True
                pooled[row, which, :length] = tokens.in_pool[number]
        return TextBatch(token_ids, mask, pooled)

    return draw


@functools.partial(jax.jit, static_argnames=("network", "with_scales"))
def _take_step(
    network: Transformer,
    params: Mapping[str, Any],
    maps: Maps,
    state: optax.OptState,
    batch: WordBatch | TextBatch,
    units: Learnable,
    numbers: tuple[jax.Array | float, jax.Array | float, jax.Array | float],
    with_scales: bool,
) -> tuple[Maps, optax.OptState, jax.Array]:
    """Return the maps after one step, the optimizer's state, and the loss before it.

    Numbers are the price of divergence, the learning rate, and the price of being changed.
    """
    fluency, rate, sparsity = numbers

    def loss_of(maps: Maps) -> jax.Array:
        steering = units.collection(maps)
        if isinstance(batch, WordBatch):
            return word_loss(network, params, steering, batch, fluency)
        return distribution_loss(network, params, steering, batch, units)

    loss, gradients = jax.value_and_grad(loss_of)(maps)
    if not with_scales:
        gradients = {site: (jnp.zeros_like(change), shift) for site, (change, shift) in gradients.items()}
    updates, state = _ADAM.update(gradients, state)
    # The price is taken in Adam's own metric: a number that hardly matters is moved as far as others, and drawn back
    # farther.
    squares = optax.tree.bias_correction(optax.tree.get(state, "nu"), _MEMORY, optax.tree.get(state, "count"))
    price = jax.tree.map(lambda square: rate * sparsity / (jnp.sqrt(square) + 1e-8), squares)
    moved = jax.tree.map(lambda value, update: value - rate * update, maps, updates)
    return shrink(moved, price), state, loss


def _as_steering(model: Model, table: pd.DataFrame, units: Learnable, maps: Maps, label: str) -> Steering:
    """Return the maps as a steering of the units that they change.

    Raises:
      SelectionError: they change none.
    """
    laid_out = units.collection(maps)
    scale, shift = np.ones(len(table), np.float32), np.zeros(len(table), np.float32)
    for site in maps:
        here = np.flatnonzero(table["site"] == site)
        place = tuple(table[name].to_numpy(int)[here] for name in ("layer", "channel"))
        node = at_path(laid_out, site)
        scale[here], shift[here] = np.asarray(node["scale"])[place], np.asarray(node["shift"])[place]
    changed = (scale != 1) | (shift != 0)
    if not changed.any():
        raise SelectionError(
            "no unit is changed: being changed is dearer than what it would bring, or no unit ever says anything else "
            "than it does. Give less sparsity, or other units."
        )
    return steer_units(model, table[changed], scale=scale[changed], shift=shift[changed], label=label)
