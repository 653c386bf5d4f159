"""Every similarity of concepts that an alignment stands beside: of experts, of embeddings, and of controls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import xarray as xr
from etils import epath

from expertlens_jax.analysis.similarity import measures as by
from expertlens_jax.analysis.similarity.control_tables import control_tables
from expertlens_jax.analysis.similarity.embeddings import embed_concepts
from expertlens_jax.analysis.tables import FindExperts
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.experts.response_store import ResponseStore
from expertlens_jax.models.model import Model
from expertlens_jax.settings import Negatives

Save = Callable[[Callable[[], xr.Dataset]], xr.Dataset]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Which similarities are compared."""

    measures: Sequence[str]
    """Of the model's own experts, names of `measures.measure_names`."""
    thresholds: Sequence[float]
    """Of these."""
    threshold: float
    """Of all other experts."""
    ratios: Sequence[float] = ()
    """Further numbers of negatives per positive, which the model's own experts are also found with."""
    ratio_thresholds: Sequence[float] = ()
    """Thresholds beside the others where there are `ratios`: what one means depends on the base rate."""
    every_layer: bool = True
    """Embeddings at each layer, and not at the last only."""
    word_vectors: Mapping[str, epath.PathLike] = dataclasses.field(default_factory=dict)
    """Files by the names of their measures."""
    sentence_models: Sequence[tuple[str, Callable[[], Model]]] = ()
    """Other models whose embeddings are compared: the measure's name, and what loads the model."""
    saes: Mapping[str, Model] = dataclasses.field(default_factory=dict)
    """The model with an autoencoder, by its name."""
    control_measures: Sequence[str] = ("jaccard",)
    random_weights: Sequence[int] = (0,)
    """Seeds of networks with random weights."""
    embedding: bool = True
    """Experts among the channels of the input embedding."""
    mask: str = "something"
    """What stands for the word in masked sentences; "" for none."""
    own_tokens: bool = True
    """Experts at the word's own tokens, and at all others."""


def compare_everything(
    model: Model,
    concepts: ConceptDataset,
    expertise: xr.Dataset,
    find: FindExperts,
    compared: Comparison,
    *,
    negatives: Negatives,
    truncate: bool = False,
    tokens_per_batch: int | None = None,
    save: Save = lambda compute: compute(),
    store: ResponseStore | None = None,
    progress: bool = False,
) -> list[by.Measure]:
    """Return every similarity of a sentence set's concepts.

    Args:
      model: whose experts these are.
      concepts: the sentences.
      expertise: the table of its experts.
      find: finds all other experts.
      compared: which similarities.
      negatives: that the experts were found with.
      truncate: cut sentences that are longer than the model's context.
      tokens_per_batch: as in `record_responses`.
      save: keeps the embeddings that it is given a way to compute, or reads them; computes them if left out.
      store: where responses may be kept that embeddings are made of, see `embeddings.EMBEDDED`.
      progress: show bars.

    Raises:
      SelectionError: an unknown measure, or a threshold that can't be.
      ConceptDataError: sentences that a control can't be made of.
    """
    embedded = save(
        lambda: embed_concepts(
            model,
            concepts,
            truncate=truncate,
            tokens_per_batch=tokens_per_batch,
            progress=progress,
            negatives=negatives,
            store=store,
        )
    )
    # Average precision depends on the base rate, and so does what a threshold on it means: with several numbers of
    # negatives per positive, all thresholds are measured at all of them.
    ratios = [ratio for ratio in dict.fromkeys(map(float, compared.ratios)) if ratio != negatives.per_positive]
    thresholds = sorted({*compared.thresholds, *(compared.ratio_thresholds if ratios else ())})
    tables = [expertise, *(find(model, concepts, negatives_per_positive=ratio) for ratio in ratios)]
    found = [each for table in tables for each in by.expert_measures(table, compared.measures, thresholds)]
    found += by.word_measures(model, concepts)
    found += by.sentence_measures(
        embedded["mean"].values,
        embedded["last_token"].values,
        concepts,
        directions=embedded["direction"].values,
        every_layer=compared.every_layer,
    )
    found += by.vector_measures(compared.word_vectors, concepts)
    for name, load in compared.sentence_models:
        found.append(by.model_measure(name, load(), concepts, tokens_per_batch=tokens_per_batch, progress=progress))
    features = ((name, find(other, concepts, sae=name)) for name, other in compared.saes.items())
    found += by.named_measures(features, ["jaccard"], compared.threshold, "Baselines")
    controls = control_tables(
        model,
        concepts,
        find,
        random_weights=compared.random_weights,
        embedding=compared.embedding,
        mask=compared.mask,
        own_tokens=compared.own_tokens,
        truncate=truncate,
        negatives=negatives.attributes(),
    )
    return found + by.named_measures(controls, compared.control_measures, compared.threshold, "Controls")
