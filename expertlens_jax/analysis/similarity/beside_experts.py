"""Similarities of concepts that an experiment compares with the overlap of experts, by name.

Other thresholds say how much hangs on one. Networks with random weights, TF-IDF of the sentences and embeddings of the
same model say what is there without experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import xarray as xr

from expertlens_jax.analysis.similarity.baselines import cosine_of_embeddings, tfidf_similarity
from expertlens_jax.analysis.similarity.control_tables import OWN_TOKENS
from expertlens_jax.analysis.similarity.embeddings import concept_embeddings
from expertlens_jax.analysis.tables import FindExperts
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.experts.overlap import cosine, jaccard
from expertlens_jax.experts.selection import select_experts
from expertlens_jax.models.loading import randomize_weights
from expertlens_jax.models.model import Model

AT_TOKENS = {"own_tokens": "at the word's own tokens", "other_tokens": "at all other tokens"}


def experts_name(threshold: float) -> str:
    """Return what tables call the overlap of experts at a threshold."""
    return f"experts, τ = {threshold:g}"


def similarities_for_domains(
    model: Model,
    concepts: ConceptDataset,
    expertise: xr.Dataset,
    find: FindExperts,
    *,
    thresholds: Sequence[float],
    threshold: float,
    random_weights: Sequence[int] = (0,),
) -> Iterator[tuple[str, xr.DataArray]]:
    """Yield the similarities in which an experiment looks for people's domains, by name.

    Args:
      model: whose experts these are.
      concepts: the sentences.
      expertise: their table.
      find: finds the experts of networks with random weights.
      thresholds: of the overlaps of the model's own experts.
      threshold: of those networks' overlaps.
      random_weights: seeds of these networks.

    Yields:
      A name, and a similarity (concept, other) with `domain`.
    """
    for each in thresholds:
        yield experts_name(each), jaccard(select_experts(expertise, threshold=each))
    yield "AP, cosine centred", cosine(expertise, centred=True)
    for seed in random_weights:
        random = find(randomize_weights(model, seed), concepts)
        yield f"random weights {seed}, τ = {threshold:g}", jaccard(select_experts(random, threshold=threshold))
        yield f"random weights {seed}, AP cosine", cosine(random, centred=True)
    yield "TF-IDF of the sentences", tfidf_similarity(concepts)


def similarities_for_senses(
    model: Model,
    concepts: ConceptDataset,
    expertise: xr.Dataset,
    find: FindExperts,
    *,
    thresholds: Sequence[float],
    threshold: float,
    tokens: bool = True,
    random_weights: Sequence[int] = (0,),
    truncate: bool = False,
) -> dict[str, xr.DataArray]:
    """Return the similarities that an experiment on words in several senses compares with its own, by name.

    Args:
      model: whose experts these are.
      concepts: the sentences.
      expertise: their table.
      find: finds experts at some of the tokens, and those of networks with random weights.
      thresholds: of the overlaps of the model's own experts; `threshold` is left out, which is the experiment's own.
      threshold: of all other overlaps.
      tokens: whether experts at the word's own tokens, and at all others, are among them.
      random_weights: seeds of networks with random weights.
      truncate: cut sentences that are longer than the model's context.
    """
    found = {}
    for each in thresholds:
        if each != threshold:
            found[experts_name(each)] = jaccard(select_experts(expertise, threshold=each))
    for name, pool_over in OWN_TOKENS.items() if tokens else ():
        table = find(model, concepts, pool_over=pool_over)
        found[f"experts {AT_TOKENS[name]}, τ = {threshold:g}"] = jaccard(select_experts(table, threshold=threshold))
    for seed in random_weights:
        random = find(randomize_weights(model, seed), concepts)
        found[f"random weights {seed}, τ = {threshold:g}"] = jaccard(select_experts(random, threshold=threshold))
    by_layer = concept_embeddings(model, concepts, truncate=truncate)
    by_layer = by_layer - by_layer.mean(1, keepdims=True)  # what all concepts have in common
    for layer in sorted({0, len(by_layer) // 2, len(by_layer) - 1}):
        found[f"embeddings of the sentences, layer {layer}"] = cosine_of_embeddings(by_layer[layer], concepts)
    return found | {"TF-IDF of the sentences": tfidf_similarity(concepts)}
