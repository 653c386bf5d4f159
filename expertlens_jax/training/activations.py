"""The activations that a site holds while a model reads text, as a shuffled stream: a function of key and step.

Only a buffer of them is ever held. The texts stand in an order of their own each time they are read through, and their
tokens one after another; a buffer is a stretch of these, shuffled. So a run that goes on from a step reads what it
would have read.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from expertlens_jax import parallel
from expertlens_jax.cards import counted
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import CorpusError, SelectionError
from expertlens_jax.models.checkpoint import first_layers
from expertlens_jax.models.model import Model, capture
from expertlens_jax.models.sites import check_activation_site
from expertlens_jax.models.streaming import check_loaded
from expertlens_jax.models.taps import Taps
from expertlens_jax.models.tokens import Tokens, batches, padding_id, tokens_per_batch_of
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.training.corpus import read_lines

Texts = ConceptDataset | Sequence[str] | str | epath.PathLike


def read_texts(texts: Texts) -> list[str]:
    """Return texts, of whatever is given for them.

    Args:
      texts: a list; sentences of concepts; or a text file, a paragraph or sentence a line, plain or .xz.

    Raises:
      CorpusError: the file isn't there or can't be read, or there is no text, or something else than text.
    """
    if isinstance(texts, ConceptDataset):
        return list(texts.sentences)
    if isinstance(texts, str | pathlib.PurePath | epath.Path):
        found = list(read_lines(texts))
        if not found:
            raise CorpusError(f"{texts} holds no text. Give UTF-8 text, a paragraph or sentence a line.")
        return found
    if not isinstance(texts, Iterable):
        raise CorpusError(f"a {type(texts).__name__} was given for texts; wanted a list of strings, or a file of text.")
    found = list(texts)
    wrong = next((each for each in found if not isinstance(each, str)), None)
    if wrong is not None or not found:
        what = "no texts were" if not found else f"{wrong!r}, a {type(wrong).__name__}, was"
        raise CorpusError(f"{what} given; wanted a list of strings, concepts, or a file of text.")
    return found


def tokenize_pieces(tokenizer: Any, texts: Sequence[str], context: int) -> Tokens:
    """Return the tokens of texts, those longer than the context as several pieces; texts without a token have none.

    Args:
      tokenizer: a fast Hugging Face tokenizer.
      texts: `[T]`.
      context: tokens a piece at most, those that the tokenizer adds among them.

    Raises:
      CorpusError: the tokenizer adds so many that a piece has no room for text.
    """
    added = tokenizer.num_special_tokens_to_add(pair=False)
    if added >= context:
        raise CorpusError(
            f"context={context} has no room beside the {counted(added, 'token')} that the tokenizer adds."
        )
    ids: list[np.ndarray] = []
    own: list[np.ndarray] = []
    for start in range(0, len(texts), 4096):
        encoded = tokenizer(
            list(texts[start : start + 4096]),
            truncation=True,
            max_length=context,
            return_overflowing_tokens=True,
            return_special_tokens_mask=True,
            return_attention_mask=False,
            verbose=False,
        )
        for row, special in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
            mine = np.asarray(special) == 0
            if mine.any():
                ids.append(np.asarray(row, np.int32))
                own.append(mine)
    return Tokens(tuple(ids), tuple(own))


def choose_rows(tokens: Tokens, rows: Iterable[int]) -> Tokens:
    """Return some texts' tokens, in the order of their numbers."""
    rows = list(rows)
    return Tokens(tuple(tokens.ids[row] for row in rows), tuple(tokens.in_pool[row] for row in rows))


@dataclasses.dataclass(frozen=True, eq=False)
class SiteReader:
    """A model up to one layer, laid out on its devices, and the site whose activations are read there."""

    network: Transformer
    params: Mapping[str, Any]
    mesh: jax.sharding.Mesh
    layer: int
    pad_id: int

    @property
    def tokens_per_batch(self) -> int:
        """About how many tokens each device takes at a time."""
        return tokens_per_batch_of(self.mesh.devices.flat[0].platform)

    def read(self, tokens: Tokens) -> np.ndarray:
        """Return the activations at the texts' own tokens, one after another: float32 `[tokens, channels]`."""
        found: list[np.ndarray] = [np.zeros(0)] * len(tokens.ids)
        waiting = None  # one batch is computed while the one before is copied to the host
        shards = self.mesh.shape[parallel.DATA]
        multiple = self.mesh.shape.get(parallel.MODEL, 1)
        sizes = {"tokens_per_batch": self.tokens_per_batch, "shards": shards, "rows_multiple": multiple}
        for batch in itertools.chain(batches(tokens, pad_id=self.pad_id, **sizes), [None]):
            if waiting is not None:
                earlier, activations = waiting
                held = np.asarray(activations, np.float32)
                for place, row in enumerate(earlier.rows):
                    found[row] = held[place][earlier.pool_mask[place]]
            if batch is not None:
                arrays = parallel.split_rows((batch.token_ids, batch.attention_mask), self.mesh)
                waiting = batch, _at_layer(self.network, self.params, *arrays, self.layer)
        return np.concatenate(found)


@functools.partial(jax.jit, static_argnames=("network", "layer"))
def _at_layer(
    network: Transformer, params: Mapping[str, Any], token_ids: jax.Array, attention_mask: jax.Array, layer: int
) -> jax.Array:
    return capture(network, params, token_ids, attention_mask, None)[0][layer]


def prepare_reading(model: Model, layer: int, site: str) -> SiteReader:
    """Return what reads a site's activations; the layers above aren't run.

    Args:
      model: from `load_model`.
      layer: from 0.
      site: that holds activations.

    Raises:
      SelectionError: the model doesn't have the layer or the site, or the site is a summary, is within the experts of
        a mixture, or is wider in some layers than in others; or its layers are streamed.
    """
    check_loaded(model.params, model.name, "reading activations for an autoencoder")
    if check_activation_site(model.config, site, model.name, "read", alike=True).by_expert and model.config.num_experts:
        raise SelectionError(
            f"no autoencoder can be trained on {site} of {model.name}: each of its experts has its own, at the tokens "
            "that are routed to it. Read mlp.down or resid."
        )
    layers = model.config.num_layers
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer) or not 0 <= layer < layers:
        raise SelectionError(f"layer={layer!r} was given; {model.name} has layers 0 to {layers - 1}.")
    layer = int(layer)
    mesh, params = parallel.place(model.params)
    config = dataclasses.replace(model.config.first_layers(layer + 1), head=None, head_bias=False)
    network = Transformer(config, Taps(captured=(site,)), jnp.dtype(model.dtype), devices=mesh.size)
    lower = first_layers(params, config)
    return SiteReader(network, lower, mesh, layer, padding_id(model.tokenizer, model.config.vocab_size))


@dataclasses.dataclass(frozen=True, eq=False)
class ActivationStream:
    """Activations of a site, in shuffled batches; each text is read as often as the others, except the last time."""

    reader: SiteReader
    tokens: Tokens
    batch: int
    """Activations a batch."""
    buffer: int
    """Batches that are held at once."""
    seed: int

    @functools.cached_property
    def _lengths(self) -> np.ndarray:
        return np.array([own.sum() for own in self.tokens.in_pool])

    def __len__(self) -> int:
        """Return how many activations the texts have."""
        return int(self._lengths.sum())

    def at(self, step: int) -> np.ndarray:
        """Return the batch of a step, counted from 0: float32 `[batch, channels]`."""
        held, place = divmod(step, self.buffer)
        return self._buffer(held)[place * self.batch : (place + 1) * self.batch]

    @functools.lru_cache(maxsize=1)  # noqa: B019 - the one buffer of the one stream of a run
    def _buffer(self, number: int) -> np.ndarray:
        size = self.batch * self.buffer
        first, last = number * size, (number + 1) * size
        parts = []
        for epoch in range(first // len(self), -(-last // len(self))):
            start, end = max(first - epoch * len(self), 0), min(last - epoch * len(self), len(self))
            order = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self._lengths))
            ends = np.cumsum(self._lengths[order])
            texts = slice(np.searchsorted(ends, start, "right"), np.searchsorted(ends, end, "left") + 1)
            before = ends[texts.start] - self._lengths[order[texts.start]]
            read = self.reader.read(choose_rows(self.tokens, order[texts]))
            parts.append(read[start - before : end - before])
        shuffled = np.random.default_rng((self.seed, 1, number)).permutation(size)
        return np.concatenate(parts)[shuffled]
