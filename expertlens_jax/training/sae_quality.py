"""How good a sparse autoencoder is: what it explains, how sparsely, and what a model loses by going on with it.

Cross-entropy recovered is (zero - spliced) / (zero - clean): of the loss of the model as it is, of the model that goes
on with what the decoder makes of the features, and of the model whose site holds zeros (Bricken et al. 2023; Gao et
al. 2024, section 4). Only a text's own tokens are put in place, not those that a tokenizer adds.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from expertlens_jax import parallel
from expertlens_jax.errors import UnsupportedSAEError
from expertlens_jax.models.causal import predicts
from expertlens_jax.models.interventions import At, PlacedIntervention, intervene
from expertlens_jax.models.model import Model
from expertlens_jax.models.sae import SAE, check_saes, encode
from expertlens_jax.models.streaming import program, run
from expertlens_jax.models.tokens import Tokens, bucket_lengths, padding_id, tokens_per_batch_of
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.training.activations import Texts, prepare_reading, read_texts, tokenize_pieces

ROWS = 1024
"""Activations that are encoded at once."""


@dataclasses.dataclass(frozen=True)
class SAEQuality:
    """What was measured of a sparse autoencoder on a number of activations.

    >>> import expertlens_jax as el
    >>> el.training.SAEQuality(activations=1000, explained_variance=0.8, l0=32.0, silent_share=0.1).loss is None
    True
    """

    activations: int
    explained_variance: float
    """1 - (what the reconstruction misses) / (what the mean activation misses), both squared."""
    l0: float
    """How many features fire at a token, on average."""
    silent_share: float
    """The share of features that fire at none of these tokens."""
    loss: float | None = None
    """The model's cross-entropy on the next token, in nats; None for an encoder, which predicts none."""
    loss_spliced: float | None = None
    loss_zero: float | None = None
    loss_recovered: float | None = None
    """Of the loss; 1 is as good as the model itself, 0 as bad as zeros."""


def measure_sae(model: Model, sae: SAE, decoder: np.ndarray, texts: Texts, *, context: int = 128) -> SAEQuality:
    """Measure a sparse autoencoder on texts.

    Args:
      model: that it was trained on.
      sae: from `el.load_sae` or `el.training.train_sae`.
      decoder: `[features, channels]`, as `el.training.load_decoder` reads it.
      texts: as in `train_sae`; better others than it was trained on.
      context: tokens of a text that are read at once.

    Raises:
      UnsupportedSAEError: it doesn't fit the model, or the decoder doesn't fit it, or it normalizes activations, which
        the decoder doesn't undo here.
      CorpusError: no texts.

    >>> import expertlens_jax as el, numpy as np
    >>> model, concepts = el.load_model("lenslet-2m"), el.load_concepts("facts")
    >>> identity = el.SAE(np.eye(128, dtype=np.float32), np.zeros(128, np.float32), layer=1, site="resid")
    >>> found = el.training.measure_sae(model, identity, np.eye(128, dtype=np.float32), concepts.sentences[:40])
    >>> 40 < found.l0 < 90, found.loss_recovered < 1  # a ReLU alone loses what is below 0
    (True, True)
    """
    pieces = tokenize_pieces(model.tokenizer, read_texts(texts), min(context, model.config.max_tokens))
    return measure_on_pieces(model, sae, decoder, pieces)


def measure_on_pieces(model: Model, sae: SAE, decoder: np.ndarray, pieces: Tokens) -> SAEQuality:
    """Measure a sparse autoencoder on tokens, see `measure_sae`."""
    (sae,) = check_saes([sae], model.config, model.name, model.family.network)
    if np.shape(decoder) != sae.encoder.shape[::-1]:
        raise UnsupportedSAEError(
            f"the decoder has the shape {list(np.shape(decoder))}; with an encoder {list(sae.encoder.shape)} it should "
            f"be {list(sae.encoder.shape[::-1])}."
        )
    if sae.normalize != "none" or sae.centred:
        raise UnsupportedSAEError(f"{sae.name} normalizes or centres activations, which no decoder here undoes.")
    x = prepare_reading(model, sae.layer, sae.site).read(pieces)
    quality = _explained(sae, jnp.asarray(decoder), x)
    if not predicts(model):
        return SAEQuality(len(x), *quality)
    clean, spliced, zeroed = losses_on(model, pieces, sae, jnp.asarray(decoder))
    recovered = (zeroed - spliced) / (zeroed - clean) if zeroed != clean else float("nan")
    return SAEQuality(len(x), *quality, clean, spliced, zeroed, recovered)


def reconstruct(sae: SAE, decoder: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return features `[..., features]` of activations `[..., channels]`, and what the decoder makes of them."""
    features = encode(sae, x)
    back = jnp.matmul(features, decoder, precision=jax.lax.Precision.HIGHEST)
    return features, back if sae.offset is None else back + sae.offset


@jax.jit
def _sums(sae: SAE, decoder: jax.Array, x: jax.Array, real: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    features, back = reconstruct(sae, decoder, x)
    fires = (features > 0) & real[:, None]
    return jnp.where(real, jnp.square(x - back).sum(1), 0).sum(), fires.sum(), fires.any(0)


def _explained(sae: SAE, decoder: jax.Array, x: np.ndarray) -> tuple[float, float, float]:
    missed, fired, ever = 0.0, 0, np.zeros(sae.num_features, bool)
    for start in range(0, len(x), ROWS):
        rows = x[start : start + ROWS]
        real = np.arange(ROWS) < len(rows)
        error, count, any_fired = _sums(sae, decoder, np.pad(rows, ((0, ROWS - len(rows)), (0, 0))), real)
        missed, fired, ever = missed + float(error), fired + int(count), ever | np.asarray(any_fired)
    spread = float(np.square(x - x.mean(0, dtype=np.float64)).sum(dtype=np.float64))
    explained = 1 - missed / spread if spread else float("nan")
    return explained, fired / len(x), float(1 - ever.mean())


CLEAN, SPLICED, ZEROED = range(3)
"""What a site holds: its activations, what the decoder makes of their features, or zeros."""


def _put(x: jax.Array, at: At, params: tuple[SAE, jax.Array, jax.Array]) -> jax.Array:
    """Put one of the three in the place of a text's own tokens' activations."""
    sae, decoder, which = params
    _, back = reconstruct(sae, decoder, x)
    put = jnp.where(which == CLEAN, x, jnp.where(which == SPLICED, back.astype(x.dtype), jnp.zeros_like(x)))
    return jnp.where(at.pool_mask[..., None], put, x)


def losses_on(model: Model, pieces: Tokens, sae: SAE, decoder: jax.Array) -> tuple[float, float, float]:
    """Return the mean cross-entropy of texts' own tokens, each given those before it, in nats.

    Args:
      model: causal.
      pieces: of texts.
      sae: that reads one of its sites.
      decoder: `[features, channels]`.

    Returns:
      Of the model as it is, of one that goes on with what the decoder makes of the features, and of one that goes on
      with zeros there. NaN where no token has one before it.
    """
    mesh, params = parallel.place(model.params)
    shards, multiple = mesh.shape[parallel.DATA], mesh.shape.get(parallel.MODEL, 1)
    network = Transformer(model.config, dtype=jnp.dtype(model.dtype))
    totals, count = np.zeros(3), 0
    tokens_per_batch = tokens_per_batch_of(mesh.devices.flat[0].platform)
    pad_id = padding_id(model.tokenizer, model.config.vocab_size)
    for arrays in _of_one_shape(pieces, pad_id, tokens_per_batch, shards, multiple):
        placed = parallel.split_rows(arrays, mesh)
        count += int(arrays[-1].sum())
        for which in (CLEAN, SPLICED, ZEROED):
            put = intervene(sae.site, _put, layers=[sae.layer], params=(sae, decoder, jnp.int32(which)))
            acting = model.place_interventions(put, [arrays[0].shape], mesh)
            totals[which] += float(_loss_sum(network, params, *placed, acting))
    clean, spliced, zeroed = (float(total) / count if count else float("nan") for total in totals)
    return clean, spliced, zeroed


def _of_one_shape(
    pieces: Tokens, pad_id: int, tokens_per_batch: int, shards: int, multiple: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Batches that are all of one shape, so that one program does: ids, real tokens, own tokens, and which are scored.

    A text's first token has nothing before it, and isn't scored; nor are those that the tokenizer adds.
    """
    length = int(bucket_lengths(np.array([max(map(len, pieces.ids))]))[0])
    rows = max(tokens_per_batch // length // multiple, 1) * multiple * shards
    for start in range(0, len(pieces.ids), rows):
        ids, own = np.full((rows, length), pad_id, np.int32), np.zeros((rows, length), bool)
        real = np.zeros((rows, length), bool)
        real[:, 0] = True  # filler rows attend to something
        some = slice(start, start + rows)
        for place, (row, mine) in enumerate(zip(pieces.ids[some], pieces.in_pool[some], strict=True)):
            ids[place, : len(row)], real[place, : len(row)], own[place, : len(row)] = row, True, mine
        yield ids, real, own, own[:, 1:]


@program()
def _loss_sum(
    network: Transformer,
    params: Mapping[str, Any],
    token_ids: jax.Array,
    attention_mask: jax.Array,
    pool_mask: jax.Array,
    scored: jax.Array,
    interventions: tuple[PlacedIntervention, ...],
) -> jax.Array:
    logits, _ = run(network, params, token_ids, attention_mask, pool_mask, interventions=interventions)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], token_ids[:, 1:])
    return jnp.where(scored, losses, 0.0).sum()
