"""What each concept is told apart from: its positive sentences, its negative ones, and their weights.

The average precision of a unit that knows nothing is the share of positives, so expertise means something
only beside the number of negatives per positive. Here that number is set, and met by weights or by a sample.
"""

import dataclasses
from typing import Unpack

import numpy as np

from expertlens_jax.cards import counted
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.errors import ConceptDataError
from expertlens_jax.settings import Negatives, PlainNegatives, settings_of


@dataclasses.dataclass(frozen=True, eq=False)
class Contrast:
    """Which sentences stand for and against each concept, with what weight.

    Almost all concepts share almost all their negatives, so these are kept as one pool and, for each concept,
    the few sentences where it differs: ranks within the pool then serve every concept.

    Attributes:
      positives: int32 `[concepts, positives]`, sentence indices, ascending, padded with -1 at the end.
      pool: bool `[sentences]`, the sentences that are negatives of every concept, before corrections.
      corrected: int32 `[concepts, corrections]`, sentence indices, ascending, padded with -1 at the end.
      corrections: float32 `[concepts, corrections]`, what is added to the pool's 1 or 0 at those sentences:
        -1 takes one out (a positive, a mention), +1 puts one in (a sampled negative), and 0 pads.
      negative_weight: float32 `[concepts]`, the weight of each negative; each positive weighs 1.

    >>> import expertlens_jax as el
    >>> contrast = el.contrast_concepts(el.load_concepts("facts").subset(["cat", "rain"]))
    >>> contrast.num_positives.tolist(), contrast.base_rate.round(2).tolist()  # 2.5 negatives per positive, by weight
    ([40, 40], [0.29, 0.29])
    """

    positives: np.ndarray
    pool: np.ndarray
    corrected: np.ndarray
    corrections: np.ndarray
    negative_weight: np.ndarray

    @property
    def num_positives(self) -> np.ndarray:
        """int64 `[concepts]`: how many positives each concept has."""
        return (self.positives >= 0).sum(1)

    @property
    def num_negatives(self) -> np.ndarray:
        """int64 `[concepts]`: how many negatives each concept has."""
        return self.pool.sum() + self.corrections.sum(1).astype(np.int64)

    @property
    def base_rate(self) -> np.ndarray:
        """float64 `[concepts]`: the positives' share of the weight, and the AP of an uninformative unit."""
        positives = self.num_positives
        return positives / (positives + self.negative_weight * self.num_negatives)

    def weights(self) -> np.ndarray:
        """Return float32 `[concepts, sentences]`: scikit-learn's `sample_weight`, 0 where left out."""
        weights = np.outer(self.negative_weight, self.pool)
        for row, negative_weight in enumerate(self.negative_weight):
            real = self.corrected[row] >= 0
            weights[row, self.corrected[row, real]] += self.corrections[row, real] * negative_weight
            weights[row, self.positives[row, self.positives[row] >= 0]] = 1
        return weights


def contrast_concepts(
    dataset: ConceptDataset, negatives: Negatives | None = None, **settings: Unpack[PlainNegatives]
) -> Contrast:
    """Set each concept's positives against negatives from the dataset's pool.

    A concept that has negatives of its own is set against these and no others, whatever they mention: they were given
    as its negatives. The others are set against the pool.

    A concept's own positives are never its negatives. With `sampled=False` all other sentences of the pool (or all its
    own negatives) are, and weigh `negatives_per_positive * num_positives / num_negatives` each, so that the base rate
    is `1 / (1 + negatives_per_positive)` for every concept: exact, with no sentence wasted. With `sampled=True`,
    the protocol of Suau et al. (2022), `negatives_per_positive * num_positives` of them (rounded, at least
    one) are drawn without replacement, and weigh 1, or what makes up for the rounding.

    A draw depends on the seed, the concept's name and the sentences allowed, not on the concepts before it.

    Args:
      dataset: the sentences and their labels.
      negatives: which they are, and what they weigh.
      **settings: the same as plain keywords: `negatives_per_positive`, `exclude_mentions`, `sampled`, `seed`.

    Raises:
      ConceptDataError: a concept has no positives, or fewer negatives are allowed than needed (the message
        names the concept); or `negatives_per_positive` isn't above 0, or the seed is below.
      SettingError: an unknown setting, or one that is given twice.

    >>> import expertlens_jax as el
    >>> concepts = el.load_concepts("facts").subset(["cat", "rain"])
    >>> contrast = el.contrast_concepts(concepts, negatives_per_positive=4)
    >>> contrast.weights().shape, contrast.base_rate.round(2).tolist()  # [concepts, sentences]
    ((2, 80), [0.2, 0.2])
    """
    (negatives,) = settings_of("contrast_concepts", settings, {"negatives": (Negatives, negatives)})
    sampled = negatives.sampled

    pool = dataset.negative_pool
    barred = dataset.labels | dataset.mentions() if negatives.exclude_mentions else dataset.labels
    # Where concepts have negatives of their own, each has all its negatives listed, and there is no shared pool.
    listed = sampled or dataset.own_negatives is not None
    own = np.zeros_like(dataset.labels) if dataset.own_negatives is None else dataset.own_negatives
    positives, corrected, negative_weight = [], [], []
    for concept, labels, bars, given in zip(dataset.concepts, dataset.labels, barred, own, strict=True):
        positives.append(np.flatnonzero(labels))
        if not labels.any():
            raise ConceptDataError(f"concept {concept!r} has no positive sentences; leave it out")
        total = negatives.per_positive * labels.sum()
        wanted = max(1, round(total)) if sampled else 1
        allowed = np.flatnonzero(given if given.any() else pool & ~bars)
        if len(allowed) < wanted and given.any():
            raise ConceptDataError(
                f"concept {concept!r} needs at least {counted(wanted, 'negative sentence')} and has {len(allowed)} of "
                "its own; add some, or lower negatives_per_positive"
            )
        if len(allowed) < wanted:
            raise ConceptDataError(
                f"concept {concept!r} needs at least {counted(wanted, 'negative sentence')} and has {len(allowed)}: of "
                f"{pool.sum()} in the pool, "
                f"{counted((pool & bars).sum(), 'is its positive or mentions it', 'are its positives or mention it')}; "
                "add "
                "sentences" + (", or lower negatives_per_positive" if sampled and len(allowed) else "")
            )
        if sampled:
            generator = np.random.default_rng([negatives.seed, *concept.encode()])
            corrected.append(np.sort(generator.choice(allowed, wanted, replace=False)))
            negative_weight.append(total / wanted)
        else:
            corrected.append(allowed if listed else np.flatnonzero(pool & bars))
            negative_weight.append(total / len(allowed))

    corrected = _pad(corrected)
    return Contrast(
        positives=_pad(positives),
        pool=np.zeros_like(pool) if listed else pool.copy(),
        corrected=corrected,
        corrections=np.where(corrected < 0, 0, 1 if listed else -1).astype(np.float32),
        negative_weight=np.array(negative_weight, np.float32),
    )


def _pad(rows: list[np.ndarray]) -> np.ndarray:
    """Return int32 `[rows, longest row]`, padded with -1 at the end."""
    padded = np.full((len(rows), max(map(len, rows), default=0)), -1, np.int32)
    for padded_row, row in zip(padded, rows, strict=True):
        padded_row[: len(row)] = row
    return padded
