"""Sentences to learn from and sentences to try on: two sets of the same concepts, or two halves of one."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np

from expertlens_jax.analysis.detecting.examples import concept_labels, plan_examples
from expertlens_jax.cards import counted
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import contrast_concepts
from expertlens_jax.data.resampling import split_halves
from expertlens_jax.errors import ConceptDataError, ExpertLensWarning, UnfitConceptsError
from expertlens_jax.sentences.masking import mask_words

FEWEST_OF_A_HALF = 2


def pair_sets(
    train: ConceptDataset, test: ConceptDataset | None, *, seed: int = 0
) -> tuple[ConceptDataset, ConceptDataset]:
    """Return sentences to learn from and to try on, of the same concepts in the same order.

    Args:
      train: to learn from.
      test: to try on; None to halve the first.
      seed: of the halves.

    Raises:
      UnfitConceptsError: they have no concept in common, or the same sentences; or a concept has too few to halve.

    Warns:
      ExpertLensWarning: concepts that only one has are left out.
    """
    if test is None:
        counts = train.labels.sum(axis=1)
        least = int(counts.min())
        if least < 2 * FEWEST_OF_A_HALF:
            raise UnfitConceptsError(
                f"the concept {train.concepts[int(counts.argmin())]!r} of {train.name!r} has {least} positive "
                f"sentence{'s' * (least != 1)}, too few to learn from a half and try on the other; wanted "
                f"{2 * FEWEST_OF_A_HALF} or more. Add sentences, leave the concept out, or give a test set."
            )
        first, second = split_halves(contrast_concepts(train), seed=seed)
        return _part(train, first, "first half"), _part(train, second, "second half")
    common = [concept for concept in train.concepts if concept in test.concepts]
    if not common:
        raise UnfitConceptsError(
            f"{train.name!r} and {test.name!r} have no concept in common: {_few(train.concepts)} there, "
            f"{_few(test.concepts)} here. Give sentence sets of the same concepts."
        )
    for each, other in ((train, test), (test, train)):
        alone = [concept for concept in each.concepts if concept not in other.concepts]
        if alone:
            warnings.warn(
                ExpertLensWarning(
                    f"{len(alone)} of the {len(each.concepts)} concepts of {each.name!r} aren't in {other.name!r} and "
                    f"are left out, and so are their sentences: {_few(alone)}."
                ),
                stacklevel=3,
            )
    if list(train.concepts) != common:
        train = train.subset(common)
    if list(test.concepts) != common:
        test = test.subset(common)
    same = set(train.sentences) & set(test.sentences)
    if same:
        raise UnfitConceptsError(
            f"{counted(len(same), 'sentence')} of {test.name!r} {'is' if len(same) == 1 else 'are'} in {train.name!r} "
            f"too, such as {min(same)!r}: what is learned from can't be tried on. Take them out of one, or give one "
            "set alone, to try on a half of it."
        )
    return train, test


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (" ..." if len(names) > 3 else "")


def _part(concepts: ConceptDataset, keep: np.ndarray, name: str) -> ConceptDataset:
    """Return the set with the kept sentences alone."""
    return dataclasses.replace(
        concepts,
        name=f"{concepts.name}, {name}",
        sentences=tuple(np.array(concepts.sentences, object)[keep]),
        labels=concepts.labels[:, keep],
        negative_pool=concepts.negative_pool[keep],
        own_negatives=None if concepts.own_negatives is None else concepts.own_negatives[:, keep],
    )


def draw_concepts(concepts: ConceptDataset, number: int, *, seed: int = 0) -> ConceptDataset:
    """Return the set of so many of its concepts, one of each domain in turn; the others' sentences are gone.

    Args:
      concepts: the whole set.
      number: of concepts; 0, or more than there are, for all.
      seed: of the order within a domain, by name: sets of the same concepts give the same ones.
    """
    if not 0 < number < len(concepts.concepts):
        return concepts
    order = np.random.default_rng(seed).permutation(len(concepts.concepts))
    names = [sorted(concepts.concepts)[i] for i in order]
    domain_of = dict(zip(concepts.concepts, concepts.domains, strict=True))
    of_domain: dict[str, int] = {}
    rounds = []
    for name in names:
        of_domain[domain_of[name]] = of_domain.get(domain_of[name], 0) + 1
        rounds.append(of_domain[domain_of[name]])
    chosen = {names[i] for i in np.argsort(rounds, kind="stable")[:number]}
    return concepts.subset([name for name in concepts.concepts if name in chosen])


def choose_and_try(
    datasets: Sequence[ConceptDataset], number: int = 0, *, seed: int = 0
) -> tuple[ConceptDataset, ConceptDataset, ConceptDataset]:
    """Return sentences to choose units on, and others of the same concepts to try them on.

    Args:
      datasets: units are chosen on the first and tried on the last; on the halves of a single one.
      number: of concepts that are drawn, see `draw_concepts`; 0 for all.
      seed: of the draw, and of the halves.

    Returns:
      All sentences to choose on; those of the drawn concepts; and sentences of these to try on.

    Raises:
      UnfitConceptsError: two sets without a concept in common, or with the same sentences; or a single one whose
        concepts have too few sentences for two halves.
    """
    whole = datasets[0]
    if len(datasets) > 1:
        chosen_on, tried_on = pair_sets(whole, datasets[-1])
    else:
        try:
            whole, tried_on = whole.split(2, seed=seed)
        except ConceptDataError as error:
            raise UnfitConceptsError(f"experts are found in one half and tried on the other: {error}") from None
        chosen_on = whole
    chosen_on = draw_concepts(chosen_on, number, seed=seed)
    return whole, chosen_on, tried_on.subset(chosen_on.concepts)


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """Sentences to learn from, and sentences to try on."""

    train: ConceptDataset
    test: ConceptDataset
    kind: str
    """"sets"; "masked", where the concepts' words are masked in the second; or "halves"."""


def pairs_to_try(datasets: Sequence[ConceptDataset], *, mask: str = "", seed: int = 0) -> list[Pair]:
    """Return which sentences to learn from and which to try on.

    Each set and each other one; each set and another with the words masked; and the halves of each.

    Args:
      datasets: one or more.
      mask: what replaces a concept's word; "" for no such sets.
      seed: of the halves.

    Raises:
      UnfitConceptsError: see `pair_sets`.
    """
    ordered = [(one, other) for one in datasets for other in datasets if one is not other]
    whole = [Pair(*pair_sets(*each), "sets") for each in ordered]
    masked = [Pair(*pair_sets(one, mask_words(other, mask)), "masked") for one, other in ordered if mask]
    return [*whole, *masked, *(Pair(*pair_sets(each, None, seed=seed), "halves") for each in datasets)]


def check_pair(pair: Pair, positives: Sequence[int] | None, label_noise: Sequence[float]) -> None:
    """Check that a pair has the sentences to learn from that are asked for, and some to try on.

    Args:
      pair: of sentence sets.
      positives: numbers of them to learn from; None for those there are.
      label_noise: shares of wrong labels.

    Raises:
      UnfitConceptsError: a concept with too few positives.
      ConceptDataError: a concept without positives or negatives.
    """
    labels, _ = concept_labels(pair.train), concept_labels(pair.test)
    plan_examples(labels, pair.train.concepts, positives, label_noise, pair.train.name)
