"""Responses that are pooled in several ways, from one pass over the sentences: what costs is to read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
from tqdm.auto import tqdm

from expertlens_jax import parallel
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import SelectionError
from expertlens_jax.experts.labelled_responses import Responses
from expertlens_jax.experts.responses import (
    PreparedRecording,
    SentenceBar,
    one_behind,
    prepare_recording,
    round_to_bits,
)
from expertlens_jax.experts.token_masks import SomeTokens, pool_over_words
from expertlens_jax.models.digests import digest_tokens
from expertlens_jax.models.model import Model, respond_together
from expertlens_jax.models.sites import SITES, check_sites
from expertlens_jax.models.taps import Taps, check_pooling
from expertlens_jax.models.tokens import Batch, Tokens, pool_mask_of
from expertlens_jax.models.units import units_table
from expertlens_jax.settings import Recording, check_chat

if TYPE_CHECKING:
    from expertlens_jax.experts.response_store import ResponseStore


def record_poolings(
    model: Model,
    sentences: Sequence[str],
    site: str,
    poolings: Sequence[str],
    *,
    recording: Recording | None = None,
    store: ResponseStore | None = None,
    progress: bool = False,
) -> list[Responses]:
    """Read sentences once, and return a site's responses in each of several poolings.

    Args:
      model: from `load_model`.
      sentences: `[S]` texts.
      site: its name; not "sae".
      poolings: one or more, each once.
      recording: how the sentences are read else.
      store: what it holds of these is taken from there; nothing new is kept.
      progress: show a bar of sentences.

    Returns:
      What `record_responses` returns of each pooling, to the last bit on a CPU.

    Raises:
      SelectionError, TokenizationError: see `record_responses`.
    """
    if not poolings:
        raise SelectionError("no poolings were given; give one or more.")
    plain = dataclasses.replace(recording or Recording(), sites=site, pooling=poolings[0])
    first = prepare_recording(model, sentences, plain)
    wanted = [pooled_otherwise(model, first, site, each) for each in poolings]
    kept = [None if store is None else store.find(each) for each in wanted]
    values = [
        np.empty((len(sentences), len(each.units)), np.float32) if found is None else found.of_all_units()
        for each, found in zip(wanted, kept, strict=True)
    ]
    missing = [number for number, found in enumerate(kept) if found is None]
    if missing:
        respond = reading_together([wanted[number] for number in missing])
        with tqdm(total=len(sentences), desc="recording responses", unit="sentence", disable=not progress) as bar:
            shown = SentenceBar(bar)
            for batch, parts in one_behind((batch, respond(batch)) for batch in first.batches()):
                for number, part in zip(missing, parts, strict=True):
                    values[number][batch.rows] = np.asarray(part)[: len(batch.rows)]
                shown.show(batch, first.params)
    return [
        Responses.of(each, prepared.units, model.name, sentences, prepared.provenance)
        for each, prepared in zip(values, wanted, strict=True)
    ]


def pooled_otherwise(model: Model, recording: PreparedRecording, site: str, pooling: str) -> PreparedRecording:
    """Return a recording of the same tokens, read in the same way, of a site's units with another pooling.

    Args:
      model: the recording's.
      recording: of any sites.
      site: its name; not "sae".
      pooling: of its units.

    Raises:
      SelectionError: an unknown site or pooling, or features of sparse autoencoders.
    """
    sites, pooling = check_sites(model.config, site, model.saes), check_pooling(pooling)
    if any(SITES[each].by_sae for each in sites):
        raise SelectionError(f"site {site!r} was given; features of autoencoders are recorded by themselves.")
    return dataclasses.replace(
        recording,
        network=recording.network.clone(taps=Taps(sites, pooling)),
        units=units_table(model.family, model.config, sites),
        saes=(),
        provenance=dataclasses.replace(recording.provenance, sites=tuple(sites), pooling=pooling, saes=""),
    )


def tokens_over(model: Model, concepts: ConceptDataset, pool_over: SomeTokens, recording: Recording) -> Tokens:
    """Return the sentences' tokens with some of them in the pool.

    Args:
      model: whose tokenizer and context they are of.
      concepts: the sentences.
      pool_over: which tokens.
      recording: how the sentences are read else.

    Raises:
      ConceptDataError, TokenizationError: see `pool_over_words`.
    """
    return pool_over_words(
        model.tokenizer,
        concepts,
        pool_over,
        max_tokens=model.config.max_tokens,
        truncate=recording.truncate,
        chat=check_chat(recording.chat),
    )


def pooled_over(
    model: Model, prepared: PreparedRecording, concepts: ConceptDataset, pool_over: SomeTokens, recording: Recording
) -> PreparedRecording:
    """Return a recording of the same sentences and units, pooled over other tokens: see `tokens_over`."""
    tokens = tokens_over(model, concepts, pool_over, recording)
    provenance = dataclasses.replace(prepared.provenance, pool_over=pool_over, tokens_sha256=digest_tokens(tokens))
    return dataclasses.replace(prepared, tokens=tokens, provenance=provenance)


def reading_together(
    recordings: Sequence[PreparedRecording], layers: tuple[int, int] | None = None
) -> Callable[[Batch], tuple[jax.Array, ...]]:
    """Return what reads a batch of the first recording once, and gives the responses of all, `[batch, units]` each.

    They are not computed yet when it returns.

    Args:
      recordings: of the same sentences, those after the first from `pooled_otherwise` or `pooled_over`.
      layers: of one recording alone, from which layer up to which; None for all.
    """
    first, *others = recordings
    if not others:
        return lambda batch: (first.respond(batch, layers=layers),)
    otherwise = [each for each in others if each.tokens is first.tokens]
    over = [each for each in others if each.tokens is not first.tokens]
    taps = [each.network.taps for each in otherwise]
    beside = tuple((each.sites[0], each.pooling) for each in taps)
    network = first.network.clone(taps=dataclasses.replace(first.network.taps, beside=beside))
    given = first, *otherwise, *over  # as `respond_together` gives their responses

    def respond(batch: Batch) -> tuple[jax.Array, ...]:
        masks = [pool_mask_of(each.tokens, batch.rows, batch.token_ids.shape) for each in over]
        pool_mask = np.stack([batch.pool_mask, *masks], axis=-1) if masks else batch.pool_mask
        arrays = parallel.split_rows((batch.token_ids, batch.attention_mask, pool_mask), first.mesh)
        found = dict(zip(given, respond_together(network, first.params, *arrays), strict=True))
        return tuple(round_to_bits(found[each], each.significant_bits) for each in recordings)

    return respond
