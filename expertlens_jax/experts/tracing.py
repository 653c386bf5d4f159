"""What chosen units say at every token: a response before it is pooled, to be read beside its sentence."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from expertlens_jax import parallel
from expertlens_jax.errors import SelectionError, TokenizationError
from expertlens_jax.experts.responses import prepare_recording
from expertlens_jax.experts.token_colours import ansi_trace, html_trace, text_trace
from expertlens_jax.models.addresses import Units, locate_units
from expertlens_jax.models.gated_maps import at_rows
from expertlens_jax.models.interventions import Intervention
from expertlens_jax.models.model import Model
from expertlens_jax.models.reading import choose_units, read_units
from expertlens_jax.models.sites import SITES
from expertlens_jax.models.steering import Steering
from expertlens_jax.models.taps import Pooling, Taps, check_pooling
from expertlens_jax.models.token_texts import texts_in_sentence
from expertlens_jax.models.tokens import row_shapes, tokenize
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.models.when import ReadText
from expertlens_jax.settings import Chat, Recording, check_chat


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """Activations of chosen units at every token of sentences; shown as coloured text.

    >>> import expertlens_jax as el
    >>> el.trace(el.load_model("lenslet-2m"), ["A cat sat there."], "L0 attn.v 28")
    Trace of lenslet-2m: 1 sentence, 1 unit
    L0 attn.v 28
      A [cat 0.93] sat there.
    """

    sentences: list[str]
    """`[S]`."""
    tokens: list[list[str]]
    """Of each sentence, the text of each token. Those of the sentence itself read, put together, as it does, except
    for characters of several tokens: each token is given as its bytes: `\\xf0`."""
    spans: list[np.ndarray]
    """Of each sentence, int32 `[tokens, 2]`: from which character of it up to which each token stands. What the
    tokenizer adds (CLS, SEP, BOS) has an empty span."""
    activations: list[np.ndarray]
    """Of each sentence, float32 `[tokens, units]`; of an expert's unit, 0 at tokens that aren't routed to it."""
    units: pd.DataFrame
    """A row per unit: `layer, site, channel, hf_module, hf_channel`."""
    in_pool: list[np.ndarray]
    """Of each sentence, bool `[tokens]`: False for what the tokenizer adds, which never enters a response."""
    model: str = ""
    """The model's name."""
    reached: list[np.ndarray] | None = None
    """Of each sentence, bool `[tokens, units]`: whether a token is routed to the expert whose unit it is; None where no
    unit is an expert's, and every token reaches every unit."""

    def __len__(self) -> int:
        return len(self.sentences)

    def pooled(self, pooling: Pooling = "max") -> np.ndarray:
        """Return each unit's response to each sentence: its activations pooled over the sentence's own tokens.

        Args:
          pooling: "max", "min", "mean" or "last".

        Returns:
          float32 `[sentences, units]`: of a model in float32, and in batches of the same size, what
          `el.record_responses` records, to the bit for "max", "min" and "last" (on CPUs; the programs are two,
          and another kind of processor may round them otherwise).

        Raises:
          SelectionError: an unknown pooling.
        """
        check_pooling(pooling)
        pool = {
            "max": lambda x: x.max(axis=0),
            "min": lambda x: x.min(axis=0),
            "mean": lambda x: x.mean(axis=0),
            "last": lambda x: x[-1],
        }[pooling]
        own = [values[mask] for values, mask in zip(self.activations, self.in_pool, strict=True)]
        if self.reached is None:
            return np.stack([pool(values) for values in own]).astype(np.float32)
        reached = [there[mask] for there, mask in zip(self.reached, self.in_pool, strict=True)]
        return np.stack([pool_reached(pool, *each) for each in zip(own, reached, strict=True)]).astype(np.float32)

    def __repr__(self) -> str:
        return text_trace(self)

    def _repr_html_(self) -> str:
        return html_trace(self)

    def ansi(self, unit: int = 0) -> str:
        """Return the text coloured for a terminal, by one unit.

        Args:
          unit: its place among the rows of `units`.

        Raises:
          SelectionError: there is no such place.
        """
        return ansi_trace(self, unit)


def pool_reached(pool: Callable[[np.ndarray], np.ndarray], values: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Pool each unit's activations over the tokens that reach it; 0 where none does, as `taps.pool_by_expert` says.

    Args:
      pool: from `[tokens]` to a number.
      values: `[tokens, units]`.
      reached: bool `[tokens, units]`.
    """
    return np.array([pool(own[there]) if there.any() else 0 for own, there in zip(values.T, reached.T, strict=True)])


def trace(
    model: Model,
    sentences: Sequence[str],
    units: Units,
    *,
    steering: Steering | None = None,
    interventions: Sequence[Intervention] | Intervention = (),
    tokens_per_batch: int | None = None,
    truncate: bool = False,
    chat: Chat | bool | None = None,
    progress: bool = False,
) -> Trace:
    """Read what chosen units say at every token of sentences.

    >>> import expertlens_jax as el
    >>> seen = el.trace(el.load_model("lenslet-2m"), ["A cat sat there."], ["L0 attn.v 28", (3, "mlp.act", 7)])
    >>> seen.tokens[0], seen.activations[0].shape, seen.pooled().shape
    (['A', ' cat', ' sat', ' there', '.'], (5, 2), (1, 2))

    The units are gathered within the layer that has them: nothing else leaves the device. Sentences are tokenized and
    batched as `el.record_responses` does it, so that its response is the maximum of what is read here, to the bit in
    float32; this also means that a single sentence takes as long as a batch does. Where that matters more, as for
    text that is being typed, give a small `tokens_per_batch`: results then agree up to rounding.

    Args:
      model: from `load_model`.
      sentences: `[S]` texts.
      units: rows of a units table, such as `el.top_experts` or `model.units` gives, or addresses:
        (3, "mlp.up", 417), or "L3 mlp.up 417", or a list of them. At any site, also those that aren't recorded by
        default; features of sparse autoencoders by themselves.
      steering: applied while reading; default none.
      interventions: from `el.intervene`, applied after the steering; default none.
      tokens_per_batch: about how many tokens, padding included, each device takes at a time; None for what
        `record_responses` takes.
      truncate: cut sentences longer than the model's context, rather than refuse them.
      chat: True, or `el.Chat`: each sentence stands in a conversation, by the model's chat template. The template's
        tokens are read and shown too, and aren't the sentence's own.
      progress: show a bar of sentences.

    Returns:
      A `Trace`.

    Raises:
      SelectionError: units that the model doesn't have, see `models.addresses.locate_units`; another model's steering,
        or an intervention that doesn't fit.
      TokenizationError: no sentences; one too long or empty, see `models.tokens.tokenize`.

    Warns:
      ExpertLensWarning: the units are another model's, that stand at the same places.
    """
    sentences = check_sentences(sentences)
    found = locate_units(model, units)
    chosen = choose_units(model, found)
    asked = Recording(sites=chosen.sites, tokens_per_batch=tokens_per_batch, truncate=truncate, chat=chat)
    longest, talk = model.config.max_tokens, check_chat(chat)
    tokens = tokenize(model.tokenizer, sentences, max_tokens=longest, truncate=truncate, offsets=True, chat=talk)
    recording = prepare_recording(model, sentences, asked, tokens=tokens)
    network = Transformer(
        model.config, Taps(captured=chosen.sites), jnp.dtype(model.dtype), mesh=recording.network.mesh
    )
    text = ReadText(model.tokenizer, tokens.ids, texts=sentences, offsets=tokens.offsets, own=tokens.in_pool)
    placed = model.place_steering(steering, text)
    acting = ()
    if interventions:
        acting = model.place_interventions(interventions, row_shapes(recording.batches()), recording.mesh)
    activations: list[np.ndarray] = [np.zeros(0, np.float32)] * len(sentences)

    def keep(rows: np.ndarray, values: jax.Array) -> None:
        for row, by_token in zip(rows, np.asarray(values), strict=False):  # beyond the last row is filler
            activations[row] = by_token[: len(tokens.ids[row]), : len(found)].copy()
        bar.update(len(rows))

    with tqdm(total=len(sentences), desc="tracing", unit="sentence", disable=not progress) as bar:
        waiting = None  # one batch is computed while the one before is copied to the host
        for batch in recording.batches():
            arrays = parallel.split_rows((batch.token_ids, batch.attention_mask, batch.pool_mask), recording.mesh)
            steered = at_rows(placed, batch.rows, batch.token_ids.shape)
            values = read_units(network, recording.params, *arrays, chosen, steered, recording.saes, acting)
            if waiting is not None:
                keep(*waiting)
            waiting = batch.rows, values
        assert waiting is not None  # since there is a sentence
        keep(*waiting)
    reached = None
    if any(SITES[site].by_expert for site in chosen.sites) and model.config.num_experts:
        reached = [~np.isnan(values) for values in activations]  # see `taps.take_channels`
        activations = [np.where(there, values, 0) for there, values in zip(reached, activations, strict=True)]
    assert tokens.offsets is not None  # since they were asked for
    spans = [
        np.where(own[:, None], places, 0).astype(np.int32)
        for places, own in zip(tokens.offsets, tokens.in_pool, strict=True)
    ]
    return Trace(
        sentences=sentences,
        tokens=[
            texts_in_sentence(model.tokenizer, *of_sentence)
            for of_sentence in zip(sentences, tokens.ids, tokens.in_pool, spans, strict=True)
        ],
        spans=spans,
        activations=activations,
        units=found,
        in_pool=list(tokens.in_pool),
        model=model.name,
        reached=reached,
    )


def check_sentences(sentences: Sequence[str]) -> list[str]:
    """Return sentences as a list.

    Raises:
      SelectionError: a single string.
      TokenizationError: none, or one that isn't a string.
    """
    if isinstance(sentences, str):
        raise SelectionError("a single string was given; wanted a sequence of sentences.")
    sentences = list(sentences)
    if not sentences:
        raise TokenizationError("no sentences were given; give one or more.")
    for number, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise TokenizationError(f"sentence {number} is a {type(sentence).__name__}, {sentence!r}; wanted a string.")
    return [str(sentence) for sentence in sentences]
