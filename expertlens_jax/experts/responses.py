"""Records responses: one number a sentence and unit, pooled over the sentence's tokens on the device."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from expertlens_jax import parallel
from expertlens_jax.errors import SelectionError
from expertlens_jax.models.model import Model, Steering, respond
from expertlens_jax.models.taps import POOLINGS, Pooling, Taps
from expertlens_jax.models.tokens import batches, padding_id, tokenize
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.models.units import check_sites, units_table


@dataclasses.dataclass(frozen=True)
class Responses:
    """What a model's units said to sentences."""

    values: np.ndarray
    """float32 `[sentences, units]`."""
    units: pd.DataFrame
    """A row per unit: `layer, site, channel, hf_module, hf_channel`."""
    model: str
    """The model's name."""
    sentences: tuple[str, ...]
    """`[sentences]`, in the order of the rows."""


def record_responses(
    model: Model,
    sentences: Sequence[str],
    *,
    sites: Sequence[str] | None = None,
    pooling: Pooling = "max",
    steering: Steering | None = None,
    tokens_per_batch: int = 4096,
    truncate: bool = False,
    progress: bool = False,
) -> Responses:
    """Runs every sentence through the model once and keeps each unit's pooled activation.

    Rows of a batch are split over this process's devices, or over the `data` axis of the mesh that the model was
    loaded onto. What the tokenizer adds (CLS, SEP, BOS) and padding
    never enter the pool.

    Args:
      model: from `load_model`.
      sentences: `[S]` texts.
      sites: names of sites; default the outputs of linear layers.
      pooling: over a sentence's tokens: "max" (Suau et al. 2022), "mean" or "last".
      steering: applied while recording; default none.
      tokens_per_batch: about how many tokens, padding included, go through the model at a time.
      truncate: cut sentences longer than the model's context, rather than refuse them.
      progress: show a bar of sentences.

    Returns:
      Responses `[S, units]`.

    Raises:
      SelectionError: an unknown site or pooling.
      TokenizationError: a sentence too long or empty, see `models.tokens.tokenize`.
    """
    if isinstance(sentences, str):
        raise SelectionError("a single string was given; record_responses wants a sequence of sentences.")
    if pooling not in POOLINGS:
        raise SelectionError(f"pooling {pooling!r} was asked for; there are {', '.join(POOLINGS)}.")
    sites = check_sites(model.config, sites)
    units = units_table(model.family, model.config, sites)
    tokens = tokenize(model.tokenizer, sentences, max_tokens=model.config.max_tokens, truncate=truncate)
    mesh, params = parallel.place(model.params)
    network = Transformer(model.config, Taps(sites, pooling), jnp.dtype(model.dtype))
    values = np.empty((len(sentences), len(units)), np.float32)

    def keep(rows: np.ndarray, responses: jax.Array) -> None:
        values[rows] = np.asarray(responses)[: len(rows)]
        bar.update(len(rows))

    with tqdm(total=len(sentences), desc="recording responses", unit="sentence", disable=not progress) as bar:
        waiting = None  # one batch is computed while the one before is copied to the host
        for batch in batches(
            tokens,
            pad_id=padding_id(model.tokenizer),
            tokens_per_batch=tokens_per_batch,
            rows_multiple=mesh.shape[parallel.DATA],
        ):
            arrays = parallel.split_rows((batch.token_ids, batch.attention_mask, batch.pool_mask), mesh)
            responses = respond(network, params, *arrays, steering)
            if waiting is not None:
                keep(*waiting)
            waiting = batch.rows, responses
        if waiting is not None:
            keep(*waiting)
    return Responses(values, units, model.name, tuple(sentences))
