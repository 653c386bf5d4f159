"""Sentences of concepts out of plain text: a seeded choice in one pass, with memory for what may be chosen only."""

import collections
import dataclasses
import hashlib
import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from expertlens_jax.data.words import place_finder
from expertlens_jax.errors import SelectionError
from expertlens_jax.sentences.acceptance import (
    Limits,
    flaw_of_prose,
    refusal_of_form,
    sentence_key,
    split_sentences,
    trim_torn_quotes,
)
from expertlens_jax.sentences.concept_list import Concept
from expertlens_jax.sentences.parts_of_speech import Fit, fits

_KEPT_PER_WANTED = 8
"""Sentences kept for a concept, for each that is wanted: enough where up to seven other concepts choose first."""

_BOOK = "# "
"""What a line begins with that names the book of the lines after it."""


@dataclasses.dataclass(frozen=True)
class Mined:
    """A sentence, the place it stands, and the book; "" where no line named one."""

    sentence: str
    place: str
    book: str = ""


def leave_out_books(
    lines: Iterable[tuple[str, str]], until: int = 0, left_out: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """Yield the lines of the books that are wanted, by the lines `# NAME` that name them.

    Args:
      lines: (place, text) of each line.
      until: the last year of a book that is wanted, where its name ends in a year; 0 for any.
      left_out: how the names of unwanted books begin.
    """
    wanted = True
    for place, line in lines:
        if line.startswith(_BOOK):
            year = re.search(r"\d{4}$", line)
            late = year is not None and 0 < until < int(year[0])
            wanted = not late and not line.removeprefix(_BOOK).startswith(tuple(left_out))
        if wanted:
            yield place, line


def mine_sentences(
    lines: Iterable[tuple[str, str]],
    concepts: Sequence[str | Concept],
    limits: Limits,
    *,
    most: int,
    seed: int,
    most_per_book: int = 0,
    prose: bool = False,
    complete: bool = False,
) -> tuple[dict[str, list[Mined]], dict[str, int]]:
    """Choose sentences that mention each concept.

    Lines are split by `split_sentences`; a sentence that runs over a line's end is lost, so a paragraph should be a
    line. Quotes that open or close in another sentence are cut off. The choice is by a hash of seed, concept and the
    sentence's words: the same whatever the order of the text, and with repeats counted once. A sentence that mentions
    several concepts serves one of them; the concept that is found least often chooses first. What a word means isn't
    looked at: a "bank" may be a river's.

    A concept with a part of speech is found only where its word is that, and no name (`parts_of_speech.fits`); what
    surely is it goes before what may be.

    Args:
      lines: (place, text) of each line; the place is passed on. A line `# NAME` says which book the next ones are of.
      concepts: `[concepts]`, each once.
      limits: of a sentence's length.
      most: the most sentences a concept gets.
      seed: of the choice.
      most_per_book: the most that it gets from one book; 0 for no limit.
      prose: whether to refuse what isn't whole, plain prose, see `flaw_of_prose`.
      complete: whether a concept gets `most` sentences or none, so that those of a rare one serve others.

    Returns:
      Of each concept its sentences, at most `most`, in random order; and how many were found, repeats included.

    Raises:
      SelectionError: `most` is below 1, or `most_per_book` below 0.
    """
    if most < 1:
        raise SelectionError(f"at most {most} sentences a concept were given; wanted 1 or more.")
    if most_per_book < 0:
        raise SelectionError(f"at most {most_per_book} sentences a book were given; wanted 0, for any, or more.")
    listed = [each if isinstance(each, Concept) else Concept(each) for each in concepts]
    kept_per_book = _KEPT_PER_WANTED * most_per_book or _KEPT_PER_WANTED * most
    kept = [_Lowest(_KEPT_PER_WANTED * most) for _ in listed]
    found = [0] * len(listed)
    find = place_finder([concept.word for concept in listed])
    for book, sentences in _by_book(lines, limits, prose):
        of_book: dict[int, _Lowest] = {}
        for place, sentence in sentences:
            rows = _mentioned(sentence, listed, find)
            key = sentence_key(sentence) if rows else ""
            for row, fit in rows.items():
                found[row] += 1
                drawn = _hash(seed, listed[row].word, key) + ((Fit.SURE - fit) << 64)
                of_book.setdefault(row, _Lowest(kept_per_book)).add(drawn, key, Mined(sentence, place, book))
        for row, lowest in of_book.items():
            for key, (drawn, mined) in lowest.items.items():
                kept[row].add(drawn, key, mined)
    order = sorted(range(len(listed)), key=lambda row: found[row])
    if complete:
        # First go those that don't reach it even alone, then those that others leave too few.
        order = [row for row in order if len(_choose(kept, [row], most, most_per_book)[row]) == most]
        short = [row for row, own in enumerate(_choose(kept, order, most, most_per_book)) if len(own) < most]
        order = [row for row in order if row not in short]
    chosen = _choose(kept, order, most, most_per_book)
    words = [concept.word for concept in listed]
    return dict(zip(words, chosen, strict=True)), dict(zip(words, found, strict=True))


def _by_book(
    lines: Iterable[tuple[str, str]], limits: Limits, prose: bool
) -> Iterator[tuple[str, Iterator[tuple[str, str]]]]:
    """Return each book and its sentences that can be taken, with their places.

    Each is read before the next is asked for.
    """
    lines = iter(lines)
    following: list[str] = [""]  # the book that comes next; none at the end

    def sentences() -> Iterator[tuple[str, str]]:
        for place, text in lines:
            if text.startswith(_BOOK):
                following.append(text.removeprefix(_BOOK).strip())
                return
            for sentence in map(trim_torn_quotes, split_sentences(text)):
                if refusal_of_form(sentence, limits) is None and not (prose and flaw_of_prose(sentence)):
                    yield place, sentence

    while following:
        yield following.pop(), sentences()


def _mentioned(
    sentence: str, concepts: Sequence[Concept], find: Callable[[str], list[tuple[int, int, int]]]
) -> dict[int, Fit]:
    """Return the rows of the concepts that a sentence mentions, and how well.

    That is how well the best mention fits the concept's part of speech.
    """
    rows: dict[int, Fit] = {}
    for row, start, end in find(sentence):
        concept = concepts[row]
        part = concept.part_of_speech
        fit = fits(sentence, start, end, concept.word, part) if part else Fit.SURE
        if fit is not Fit.NO:
            rows[row] = max(fit, rows.get(row, Fit.NO))
    return rows


class _Lowest:
    """The sentences with the lowest draws, each key once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.items: dict[str, tuple[int, Mined]] = {}  # by sentence key
        self._heap: list[tuple[int, str]] = []  # largest draw first

    def add(self, drawn: int, key: str, mined: Mined) -> None:
        """Keep a sentence if its draw is among the lowest so far."""
        if key in self.items:
            return
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, (-drawn, key))
        elif -drawn > self._heap[0][0]:
            del self.items[heapq.heapreplace(self._heap, (-drawn, key))[1]]
        else:
            return
        self.items[key] = drawn, mined


def _choose(kept: Sequence[_Lowest], order: Sequence[int], most: int, most_per_book: int) -> list[list[Mined]]:
    """Return the lowest draws of each concept, which choose in order: no sentence twice, and not too many of a book."""
    taken: set[str] = set()
    chosen: list[list[Mined]] = [[] for _ in kept]
    for row in order:
        of_book: collections.Counter[str] = collections.Counter()
        for key, (_, mined) in sorted(kept[row].items.items(), key=lambda item: item[1][0]):
            if len(chosen[row]) == most:
                break
            if key not in taken and not (most_per_book and of_book[mined.book] == most_per_book):
                of_book[mined.book] += 1
                chosen[row].append(mined)
                taken.add(key)
    return chosen


def _hash(seed: int, concept: str, key: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{concept}\0{key}".encode(), digest_size=8).digest(), "big")
