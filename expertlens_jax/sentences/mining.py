"""Sentences of concepts out of plain text: a seeded choice in one pass, with memory for what may be chosen only."""

import collections
import dataclasses
import hashlib
import heapq
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from expertlens_jax.data.words import find_mentions
from expertlens_jax.errors import SelectionError
from expertlens_jax.sentences.acceptance import Limits, refusal, sentence_key, split_sentences, trim_torn_quotes

_SENTENCES_AT_A_TIME = 4096
_KEPT_PER_WANTED = 8
"""Sentences kept for a concept, for each that is wanted: enough where up to seven other concepts choose first."""


@dataclasses.dataclass(frozen=True)
class Mined:
    """A sentence, and the place it stands."""

    sentence: str
    place: str


def mine_sentences(
    lines: Iterable[tuple[str, str]], concepts: Sequence[str], limits: Limits, *, most: int, seed: int
) -> tuple[dict[str, list[Mined]], dict[str, int]]:
    """Chooses sentences that mention each concept.

    Lines are split by `split_sentences`; a sentence that runs over a line's end is lost, so a paragraph should be a
    line. Quotes that open or close in another sentence are cut off. The choice is by a hash of seed, concept and the
    sentence's words: the same whatever the order of the text, and with repeats counted once. A sentence that mentions
    several concepts serves one of them; the concept that is found least often chooses first. What a word means isn't
    looked at: a "bank" may be a river's.

    Args:
      lines: (place, text) of each line; the place is passed on.
      concepts: `[concepts]`, each once.
      limits: of a sentence's length.
      most: the most sentences a concept gets.
      seed: of the choice.

    Returns:
      Of each concept its sentences, at most `most`, in random order; and how many were found, repeats included.

    Raises:
      SelectionError: `most` is below 1.
    """
    if most < 1:
        raise SelectionError(f"at most {most} sentences a concept were given; wanted 1 or more.")
    found = dict.fromkeys(concepts, 0)
    heaps: dict[str, list[tuple[int, str]]] = {concept: [] for concept in concepts}  # largest hash first
    kept: dict[str, dict[str, Mined]] = {concept: {} for concept in concepts}  # by sentence key
    candidates = (
        Mined(sentence, place)
        for place, text in lines
        for sentence in map(trim_torn_quotes, split_sentences(text))
        if limits.min_words <= len(sentence.split()) <= limits.max_words
    )
    while batch := list(itertools.islice(candidates, _SENTENCES_AT_A_TIME)):
        mentions = find_mentions(concepts, [mined.sentence for mined in batch])
        for column in np.flatnonzero(mentions.any(0)):
            mined = batch[column]
            rows = np.flatnonzero(mentions[:, column])
            if refusal(mined.sentence, concepts[rows[0]], limits) is not None:
                continue
            key = sentence_key(mined.sentence)
            for row in rows:
                concept = concepts[row]
                found[concept] += 1
                if key not in kept[concept]:
                    _keep(heaps[concept], kept[concept], _hash(seed, concept, key), key, mined, _KEPT_PER_WANTED * most)
    return _choose(heaps, kept, found, most), found


def _keep(heap: list[tuple[int, str]], kept: dict[str, Mined], drawn: int, key: str, mined: Mined, size: int) -> None:
    """Keeps a sentence if its hash is among the `size` lowest."""
    if len(heap) < size:
        heapq.heappush(heap, (-drawn, key))
    elif -drawn > heap[0][0]:
        del kept[heapq.heapreplace(heap, (-drawn, key))[1]]
    else:
        return
    kept[key] = mined


def _choose(
    heaps: dict[str, list[tuple[int, str]]], kept: dict[str, dict[str, Mined]], found: dict[str, int], most: int
) -> dict[str, list[Mined]]:
    """The lowest hashes of each concept, no sentence twice; in the concepts' own order."""
    taken: set[str] = set()
    chosen: dict[str, list[Mined]] = collections.defaultdict(list)
    for concept in sorted(heaps, key=lambda concept: found[concept]):
        keys = [key for _, key in sorted(heaps[concept], reverse=True) if key not in taken][:most]
        chosen[concept] = [kept[concept][key] for key in keys]
        taken.update(keys)
    return {concept: chosen[concept] for concept in heaps}


def _hash(seed: int, concept: str, key: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{concept}\0{key}".encode(), digest_size=8).digest(), "big")
