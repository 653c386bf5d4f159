"""The question that a table of expertise answers: which responses, of which sentences, for and against what."""

import hashlib
import json
from typing import Any

import numpy as np

from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import Contrast
from expertlens_jax.models.digests import digest_json
from expertlens_jax.models.provenance import Provenance


def question(provenance: Provenance, concepts: ConceptDataset, contrast: Contrast, **settings: Any) -> dict[str, Any]:
    """All that a table's numbers follow from, nested, for a run's `config.json`: the same question, the same table.

    Args:
      provenance: of the responses.
      concepts: whose experts are sought.
      contrast: which sentences stand for and against them, as `settings` and the words' mentions make it.
      **settings: of the negatives, and of what else is measured.
    """
    return {
        **provenance.settings(),
        "sentences": concepts.name,
        **settings,
        "concepts_sha256": digest_concepts(concepts),
        "contrast_sha256": digest_contrast(contrast),
    }


def digest_concepts(concepts: ConceptDataset) -> str:
    """A digest of a dataset's sentences, labels and names, and of the sentences that mention its concepts."""
    sha = hashlib.sha256(json.dumps([concepts.sentences, concepts.concepts, concepts.domains]).encode())
    sha.update(np.packbits(concepts.labels).tobytes() + np.packbits(concepts.negative_pool).tobytes())
    # What counts as a mention depends on words, languages and forms, and on the dictionary.
    sha.update(np.packbits(concepts.mentions()).tobytes())
    if concepts.own_negatives is not None:
        sha.update(b"own negatives" + np.packbits(concepts.own_negatives).tobytes())
    return sha.hexdigest()


def digest_contrast(contrast: Contrast) -> str:
    """A digest of which sentences are positives and negatives of each concept; weights follow from the settings."""
    members = (contrast.positives, contrast.pool, contrast.corrected, contrast.corrections)
    return digest_json([[array.shape, hashlib.sha256(array.tobytes()).hexdigest()] for array in members])
