"""Records responses: one number a sentence and unit, pooled over the sentence's tokens on the device."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.sharding import Mesh
from tqdm.auto import tqdm

from expertlens_jax import parallel
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.budget import free_for_model
from expertlens_jax.experts.labelled_responses import Responses
from expertlens_jax.models.checkpoint import up_to_layer
from expertlens_jax.models.digests import digest_json, digest_tokenizer, digest_tokens
from expertlens_jax.models.gated_maps import at_rows
from expertlens_jax.models.interventions import Intervention, PlacedIntervention, describe_interventions
from expertlens_jax.models.model import Model, respond
from expertlens_jax.models.placed_steering import LaidOut
from expertlens_jax.models.provenance import Provenance
from expertlens_jax.models.sae import SAE
from expertlens_jax.models.sites import SITES, check_sites, layer_widths, own_columns
from expertlens_jax.models.steering import Steering
from expertlens_jax.models.streaming import streamed_layers
from expertlens_jax.models.taps import Taps, check_pooling
from expertlens_jax.models.tokens import (
    Batch,
    Tokens,
    batches,
    check_token_ids,
    padding_id,
    row_shapes,
    tokenize,
    tokens_per_batch_of,
)
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.models.units import units_table
from expertlens_jax.models.when import ReadText, goes_by_words
from expertlens_jax.settings import PlainRecording, Recording, check_chat, settings_of

Item = TypeVar("Item")


def record_responses(
    model: Model,
    sentences: Sequence[str],
    *,
    recording: Recording | None = None,
    steering: Steering | None = None,
    interventions: Sequence[Intervention] | Intervention = (),
    progress: bool = False,
    **settings: Unpack[PlainRecording],
) -> Responses:
    """Run every sentence through the model once and keep each unit's pooled activation.

    Rows of a batch are split over this process's devices, or over the `data` axis of the mesh that the model was
    loaded onto. What the tokenizer adds (CLS, SEP, BOS) and padding
    never enter the pool.

    Args:
      model: from `load_model`.
      sentences: `[S]` texts.
      recording: which sites, and how their activations are pooled over a sentence's tokens.
      steering: applied while recording; default none.
      interventions: from `el.intervene`, applied after the steering; default none. Sentences are read in any order and
        batches, so a function has to take any row.
      progress: show a bar of sentences.
      **settings: the fields of `recording` as plain keywords: `sites` (names, or one; default the outputs of linear
        layers; "sae" for the features of `model.with_sae`), `pooling` ("max" as in Suau et al. 2022, "min", "mean" or
        "last"), `tokens_per_batch` (about how many tokens, padding included, each device takes at a time), `truncate`
        (cut sentences longer than the model's context, rather than refuse them), `chat` (True or `el.Chat`: each
        sentence as a turn of a conversation, by the model's chat template, which isn't pooled over),
        `significant_bits` (to so many each response is rounded, so that what differs by rounding alone ties; default
        none).

    Returns:
      Responses `[S, units]`.

    Raises:
      SelectionError: an unknown site or pooling, tokens of concepts' words, another model's steering, or an
        intervention that doesn't fit.
      SettingError: an unknown setting, or one that is given twice.
      TokenizationError: a sentence too long or empty, see `models.tokens.tokenize`.

    >>> import expertlens_jax as el
    >>> model = el.load_model("lenslet-2m")
    >>> responses = el.record_responses(model, ["A dog ran.", "A cat sat there."], sites="attn.v")
    >>> responses.dims, responses.shape == (2, model.config.num_layers * model.config.d_model)
    (('sentence', 'unit'), True)
    """
    (recording,) = settings_of(
        "record_responses",
        settings,
        {"recording": (Recording, recording)},
        others=("steering", "interventions", "progress"),
        without=("pool_over",),
    )
    if recording.pool_over != "all":
        raise SelectionError(
            f"record_responses was given pool_over={recording.pool_over!r}, and knows no concepts whose words these "
            "would be. Give it to el.find_experts."
        )
    acts = steering is not None or bool(interventions)
    prepared = prepare_recording(model, sentences, recording, offsets=goes_by_words(steering), all_layers=acts)
    tokens = prepared.tokens
    text = ReadText(model.tokenizer, tokens.ids, texts=sentences, offsets=tokens.offsets, own=tokens.in_pool)
    placed = model.place_steering(steering, text)
    provenance = prepared.provenance
    done = [] if steering is None else [f"{steering!r}, digest {steering.digest}"]
    acting = ()
    if interventions:
        shapes = row_shapes(prepared.batches())
        acting = model.place_interventions(interventions, shapes, prepared.mesh)
        longest = max(length for _, length in shapes)
        done.append(describe_interventions(interventions, model.config, model.dtype, longest))
    provenance = dataclasses.replace(provenance, steering="; ".join(done))
    values = np.empty((len(sentences), len(prepared.units)), np.float32)

    def respond_to(batch: Batch) -> jax.Array:
        steered = at_rows(placed, batch.rows, batch.token_ids.shape)
        return prepared.respond(batch, steering=steered, interventions=acting)

    with tqdm(total=len(sentences), desc="recording responses", unit="sentence", disable=not progress) as bar:
        shown = SentenceBar(bar)
        for batch, responses in one_behind((batch, respond_to(batch)) for batch in prepared.batches()):
            values[batch.rows] = np.asarray(responses)[: len(batch.rows)]
            shown.show(batch, prepared.params)
    return Responses.of(values, prepared.units, model.name, sentences, provenance)


def one_behind(begun: Iterable[Item]) -> Iterator[Item]:
    """Yield each item when the next has begun, so that one batch is computed while the one before is copied."""
    waiting = None
    for each in begun:
        if waiting is not None:
            yield waiting
        waiting = each
    if waiting is not None:
        yield waiting


@dataclasses.dataclass
class SentenceBar:
    """A bar of sentences; where layers are streamed, it says so, and how fast tokens are read."""

    bar: tqdm
    tokens: int = 0

    def show(self, batch: Batch, params: Mapping[str, Any]) -> None:
        """Tell that the model with these parameters has read a batch."""
        layers = streamed_layers(params)
        if layers is not None and not self.bar.disable:
            self.tokens += int(batch.attention_mask[: len(batch.rows)].sum())
            speed = self.tokens / max(self.bar.format_dict["elapsed"], 1e-9)
            self.bar.set_postfix_str(f"{speed:,.0f} tokens/s, layers streamed from {layers.place}", refresh=False)
        self.bar.update(len(batch.rows))


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedRecording:
    """A model on its devices and the sentences to put through it: everything checked, nothing run yet."""

    network: Transformer
    params: Mapping[str, Any]
    mesh: Mesh
    tokens: Tokens
    pad_id: int
    tokens_per_batch: int
    units: pd.DataFrame
    provenance: Provenance
    saes: tuple[SAE, ...] = ()
    """Those whose features are recorded, if they are what is recorded."""
    significant_bits: int | None = None
    """To how many responses are rounded; None for none."""

    @property
    def num_layers(self) -> int:
        """How many layers may have units: all, or those that an SAE reads."""
        return len(self.saes) or self.network.config.num_layers

    @property
    def units_by_layer(self) -> tuple[int, ...]:
        """Of each of those layers, how many units there are."""
        if self.saes:
            return (len(self.units) // self.num_layers,) * self.num_layers
        widths = [layer_widths(SITES[site], self.network.config) for site in self.network.taps.sites]
        return tuple(map(sum, zip(*widths, strict=True)))

    def batches(self) -> Iterator[Batch]:
        """Return the batches of one pass over all sentences, always the same."""
        return batches(
            self.tokens,
            pad_id=self.pad_id,
            tokens_per_batch=self.tokens_per_batch,
            shards=self.mesh.shape[parallel.DATA],
            rows_multiple=self.mesh.shape.get(parallel.MODEL, 1),
        )

    def respond(
        self,
        batch: Batch,
        *,
        layers: tuple[int, int] | None = None,
        steering: LaidOut | None = None,
        interventions: tuple[PlacedIntervention, ...] = (),
    ) -> jax.Array:
        """Return the responses to a batch, float32 `[batch, units]`, of all layers or from one up to another.

        They are not computed yet.

        Layers are counted among those that have units, see `num_layers`.
        """
        arrays = parallel.split_rows((batch.token_ids, batch.attention_mask, batch.pool_mask), self.mesh)
        first, last = layers or (0, self.num_layers)
        counted = np.int32(first), last - first
        own = None if self.saes else own_columns(self.network.config, self.network.taps.sites, (first, last))
        responses = respond(self.network, self.params, *arrays, steering, *counted, self.saes, interventions, own)
        return round_to_bits(responses, self.significant_bits)


@functools.partial(jax.jit, static_argnames="significant_bits")
def round_to_bits(responses: jax.Array, significant_bits: int | None) -> jax.Array:
    """Round float32 responses to so many significant bits, to even where they are in the middle; None: to none.

    Those that differ by rounding alone then tie, except the few on two sides of a middle.
    """
    if significant_bits is None:
        return responses
    return jax.lax.reduce_precision(responses, exponent_bits=8, mantissa_bits=significant_bits - 1)


def prepare_recording(
    model: Model,
    sentences: Sequence[str],
    recording: Recording | None = None,
    *,
    tokens: Tokens | None = None,
    offsets: bool = False,
    all_hosts: bool = False,
    all_layers: bool = True,
) -> PreparedRecording:
    """Check what will be recorded, and lay the model out on its devices.

    Args:
      model: from `load_model`.
      sentences: `[S]` texts.
      recording: how they are read; None for the defaults.
      tokens: the sentences' tokens, where fewer are pooled over than `tokenize` would; which those
        are (`recording.pool_over`, see `token_masks`) is only written down.
      offsets: whether it should be known where in its sentence each token stands.
      all_hosts: whether the devices of all processes work on each batch, or this process's only.
      all_layers: whether the layers above the last that an SAE reads are run too, where features are recorded. What
        steers or intervenes goes by all of them.

    Raises:
      SelectionError: an unknown site or pooling.
      TokenizationError: a sentence too long or empty, or with a token that the model has no embedding for.
    """
    if isinstance(sentences, str):
        raise SelectionError("a single string was given; wanted a sequence of sentences.")
    recording = recording or Recording()
    pooling, chat = check_pooling(recording.pooling), check_chat(recording.chat)
    sites = check_sites(model.config, recording.sites, model.saes)
    if tokens is None:
        longest = model.config.max_tokens
        told = {"truncate": recording.truncate, "offsets": offsets, "chat": chat}
        tokens = tokenize(model.tokenizer, sentences, max_tokens=longest, **told)
    check_token_ids(
        tokens.ids,
        vocab_size=model.config.vocab_size,
        model=model.name,
        tokenizer=model.tokenizer,
        texts=sentences,
    )
    config, params, saes = model.config, model.params, model.saes_at(sites)
    if saes and not all_layers:
        config, params = up_to_layer(config, params, max(sae.layer for sae in saes), most_bytes=free_for_model() // 2)
    mesh, params = parallel.place(params, all_hosts=all_hosts)
    tokens_per_batch = recording.tokens_per_batch
    if tokens_per_batch is None:
        tokens_per_batch = tokens_per_batch_of(mesh.devices.flat[0].platform)
    saes = parallel.replicate(saes, mesh)
    provenance = dataclasses.replace(
        model.provenance,
        tokenizer=digest_tokenizer(model.tokenizer),
        sites=tuple(sites),
        pooling=recording.pooling,
        pool_over=recording.pool_over,
        truncate=bool(recording.truncate),
        chat=chat.attribute() if chat else "",
        significant_bits=int(recording.significant_bits or 0),
        tokens_per_batch=int(tokens_per_batch),
        sentences_sha256=digest_json(list(sentences)),
        tokens_sha256=digest_tokens(tokens),
        saes=json.dumps(model.sae_settings, sort_keys=True) if saes else "",
    )
    split = mesh if mesh.shape.get(parallel.MODEL, 1) > 1 else None
    return PreparedRecording(
        network=Transformer(config, Taps(sites, pooling), jnp.dtype(model.dtype), mesh=split),
        params=params,
        mesh=mesh,
        tokens=tokens,
        pad_id=padding_id(model.tokenizer, model.config.vocab_size),
        tokens_per_batch=tokens_per_batch,
        units=units_table(model.family, model.config, sites, model.saes),
        provenance=provenance,
        saes=saes,
        significant_bits=recording.significant_bits,
    )
