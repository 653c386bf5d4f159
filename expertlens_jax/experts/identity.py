"""Digests that tell a run from another: of a model's weights, of a set of sentences, and of their tokens."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.models.tokens import Tokens


def fingerprint(params: Mapping[str, Any]) -> str:
    """A digest of a model's weights, so that a run isn't gone on with by another model of the same name.

    Computed where the weights are, and the same however they are split over devices.
    """
    sums = [int(each) for each in jax.tree.leaves(_bit_sums(params))]
    paths = ["/".join(key.key for key in path) for path, _ in jax.tree.leaves_with_path(params)]
    return hashlib.sha256(json.dumps([paths, sums]).encode()).hexdigest()


@jax.jit
def _bit_sums(params: Mapping[str, Any]) -> Mapping[str, jax.Array]:
    """Of each array, the sum of its values' bits, each times a number that depends on its place; modulo 2**32."""

    def bit_sum(leaf: jax.Array) -> jax.Array:
        bits = jax.lax.bitcast_convert_type(leaf.astype(jnp.float32), jnp.uint32)
        for axis in range(leaf.ndim):
            place = jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
            bits *= 2 * place + 1  # odd, so that no bit is lost
            bits ^= bits >> 15
        return bits.sum(dtype=jnp.uint32)

    return jax.tree.map(bit_sum, params)


def digest(concepts: ConceptDataset) -> str:
    """A digest of a dataset's sentences and labels, and of the sentences that mention its concepts."""
    sha = hashlib.sha256(json.dumps([concepts.sentences, concepts.concepts, concepts.domains]).encode())
    sha.update(np.packbits(concepts.labels).tobytes() + np.packbits(concepts.negative_pool).tobytes())
    # What counts as a mention depends on words, languages and forms, and on the dictionary.
    sha.update(np.packbits(concepts.mentions()).tobytes())
    if concepts.own_negatives is not None:
        sha.update(b"own negatives" + np.packbits(concepts.own_negatives).tobytes())
    return sha.hexdigest()


def digest_tokens(tokens: Tokens) -> str:
    """A digest of sentences as a model reads them: another tokenizer, or one that adds other tokens, has another."""
    sha = hashlib.sha256(np.array([len(ids) for ids in tokens.ids], np.int64).tobytes())
    for ids, own in zip(tokens.ids, tokens.in_pool, strict=True):
        sha.update(ids.astype(np.int32).tobytes() + own.astype(bool).tobytes())
    return sha.hexdigest()
