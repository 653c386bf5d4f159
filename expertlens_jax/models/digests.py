"""Digests of all that numbers follow from: weights, settings, sentences, and their tokens."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from expertlens_jax.models.tokens import Tokens


def digest_arrays(tree: Any) -> str:
    """Return a digest of a pytree's arrays: of a model's parameters, or a sparse autoencoder's.

    Computed where the arrays are, and the same however they are split over devices; it reads each once. Arrays count
    by their values in float32, so bfloat16 ones have the digest of the same values in float32.
    """
    return digest_sums(tree, bit_sums(jax.tree.leaves(tree)))


def digest_sums(tree: Any, sums: Sequence[jax.Array | int]) -> str:
    """Return the digest of a pytree's arrays by their shapes, which leaves may have without values, and `bit_sums`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = [
        [jax.tree_util.keystr(path, simple=True, separator="/"), list(np.shape(leaf)), int(of_leaf)]
        for (path, leaf), of_leaf in zip(leaves, sums, strict=True)
    ]
    return digest_json(named)


@jax.jit
def bit_sums(leaves: Sequence[jax.Array], layer: jax.Array | int | None = None) -> list[jax.Array]:
    """Return the sum modulo 2**32 over each array of its values' bits, mixed with the place of each.

    Args:
      leaves: the arrays.
      layer: if they are those of a layer, its number. All layers' sums, added up, are those of `[layers, ...]`.
    """
    return [_bit_sum(leaf, layer) for leaf in leaves]


@jax.jit  # traced once for all arrays of one shape
def _bit_sum(leaf: jax.Array, layer: jax.Array | int | None) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(jnp.asarray(leaf, jnp.float32), jnp.uint32)
    outer = 0 if layer is None else 1
    for axis, size in enumerate(bits.shape):
        along = _mix(jnp.arange(size, dtype=jnp.uint32) + np.uint32((axis + outer) << 28))
        bits += jnp.expand_dims(along, [other for other in range(bits.ndim) if other != axis])
    if layer is not None:
        bits += _mix(jnp.asarray(layer, jnp.uint32))
    return _mix(bits).sum(dtype=jnp.uint32)


def _mix(bits: jax.Array) -> jax.Array:
    """Return the last step of MurmurHash3 (Appleby): one to one, and each bit in changes about half of those out."""
    bits = (bits ^ (bits >> 16)) * np.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> 13)) * np.uint32(0xC2B2AE35)
    return bits ^ (bits >> 16)


def stated_options(options: Any) -> dict[str, Any]:
    """Return a dataclass's fields that differ from their defaults, as JSON has them; dataclasses within it alike.

    An option that is added later, and keeps its default, so changes nothing of what was written before. Arrays are
    left out: `digest_arrays` tells them apart.
    """
    stated = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if not isinstance(value, np.ndarray | jax.Array) and not _equals_default(field, value):
            stated[field.name] = _as_json(value)
    return stated


def default_options(kind: type[Any]) -> dict[str, Any]:
    """Return the defaults of a dataclass's fields, of those that have one."""
    with_default = (field for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING)
    return {field.name: _as_json(field.default) for field in with_default}


def _equals_default(field: dataclasses.Field, value: Any) -> bool:
    return field.default is not dataclasses.MISSING and _as_json(value) == _as_json(field.default)


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return stated_options(value)
    if isinstance(value, Mapping):
        return {str(key): _as_json(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_as_json(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def digest_json(value: Any) -> str:
    """Return the SHA-256 of a value's JSON, with keys in order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digest_tokenizer(tokenizer: Any) -> str:
    """Return a digest of how a tokenizer splits texts and what it adds to them.

    Its chat template is no part of that.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return digest_json([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items())])
    # How texts are cut and padded is the caller's, stands first in the file, and is left over from the last call.
    return hashlib.sha256(backend.to_str().partition('"added_tokens":')[2].encode()).hexdigest()


def digest_tokens(tokens: Tokens) -> str:
    """Return a digest of sentences as a model reads them, and of which tokens are pooled over."""
    sha = hashlib.sha256(np.array([len(ids) for ids in tokens.ids], np.int64).tobytes())
    for ids, own in zip(tokens.ids, tokens.in_pool, strict=True):
        sha.update(ids.astype(np.int32).tobytes() + own.astype(bool).tobytes())
    return sha.hexdigest()
