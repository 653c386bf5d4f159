"""The question that a table of expertise answers: which responses, of which sentences, for and against what."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import Contrast
from expertlens_jax.models.digests import digest_json
from expertlens_jax.models.provenance import Provenance
from expertlens_jax.settings import Negatives

OTHERS = "other_negatives"
"""The setting that lists the negatives of a table beside the first."""


def question(
    provenance: Provenance,
    concepts: ConceptDataset,
    contrasts: Sequence[Contrast],
    negatives: Sequence[Negatives],
    **settings: Any,
) -> dict[str, Any]:
    """Return all that a table's numbers follow from, nested, for a run's `config.json`.

    The same question, the same table.

    Args:
      provenance: of the responses.
      concepts: whose experts are sought.
      contrasts: which sentences stand for and against them, as the negatives and the words' mentions make it.
      negatives: of each contrast.
      **settings: of what else is measured.
    """
    first, *others = (
        each.attributes() | {"contrast_sha256": digest_contrast(contrast)}
        for each, contrast in zip(negatives, contrasts, strict=True)
    )
    asked = {**provenance.settings(), "sentences": concepts.name, **negatives[0].attributes(), **settings}
    asked |= {"concepts_sha256": digest_concepts(concepts), "contrast_sha256": first["contrast_sha256"]}
    return asked | {OTHERS: others} if others else asked


def flat(question: Mapping[str, Any]) -> dict[str, str]:
    """Return what is nested in a question, without its provenance, as JSON: an attribute of any file format."""
    return {name: json.dumps(question[name]) for name in (OTHERS,) if name in question}


def digest_concepts(concepts: ConceptDataset) -> str:
    """Return a digest of a dataset's sentences, labels and names, and of the sentences that mention its concepts."""
    sha = hashlib.sha256(json.dumps([concepts.sentences, concepts.concepts, concepts.domains]).encode())
    sha.update(np.packbits(concepts.labels).tobytes() + np.packbits(concepts.negative_pool).tobytes())
    # What counts as a mention depends on words, languages and forms, and on the dictionary.
    sha.update(np.packbits(concepts.mentions()).tobytes())
    if concepts.own_negatives is not None:
        sha.update(b"own negatives" + np.packbits(concepts.own_negatives).tobytes())
    return sha.hexdigest()


def digest_contrast(contrast: Contrast) -> str:
    """Return a digest of which sentences are positives and negatives of each concept.

    Weights follow from the settings.
    """
    members = (contrast.positives, contrast.pool, contrast.corrected, contrast.corrections)
    return digest_json([[array.shape, hashlib.sha256(array.tobytes()).hexdigest()] for array in members])
