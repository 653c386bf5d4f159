"""Concepts that sentences are wanted for: words and their domains, from a file or a packaged set."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from etils import epath

from expertlens_jax.cards import counted
from expertlens_jax.data.concepts import PACKAGED, load_concepts
from expertlens_jax.data.ratings import load_ratings
from expertlens_jax.data.text import find_file, read_text
from expertlens_jax.data.words import split_words
from expertlens_jax.errors import ConceptDataError, SelectionError
from expertlens_jax.sentences.parts_of_speech import check_part_of_speech

_COLUMNS = ("concept", "domain", "part_of_speech")


@dataclasses.dataclass(frozen=True)
class Concept:
    """A concept's word or words, its category, and what part of speech it is; "" where none is known.

    >>> import expertlens_jax as el
    >>> el.sentences.Concept("bat", "animal", "noun")
    Concept(word='bat', domain='animal', part_of_speech='noun')

    Raises:
      SelectionError: `part_of_speech` isn't "noun", "verb", "adjective", or "".
    """

    word: str
    domain: str = ""
    part_of_speech: str = ""

    def __post_init__(self) -> None:
        check_part_of_speech(self.part_of_speech)


def list_concepts(words: Iterable[str]) -> list[Concept]:
    """Return concepts without domains.

    Raises:
      ConceptDataError: see `check_concepts`.
    """
    concepts = [Concept(word.strip()) for word in words]
    check_concepts(concepts)
    return concepts


def list_rated_words(
    parts_of_speech: Mapping[str, str], *, exceptions: Mapping[str, str] | None = None, domains_from: str = ""
) -> list[Concept]:
    """Return the words that people rated, in order of the alphabet.

    Args:
      parts_of_speech: of the words of each data set, by its name or file; the first that has a word tells its.
      exceptions: parts of speech of single words.
      domains_from: a packaged set, whose concepts keep their domain; "" for none.

    Raises:
      RatingsError: as `load_ratings`.
      SelectionError: no part of speech, or an exception that nobody rated.
    """
    parts: dict[str, str] = {}
    for name, part in parts_of_speech.items():
        for pair in load_ratings(name).pairs:
            for word in pair:
                parts.setdefault(word, part)
    for word, part in (exceptions or {}).items():
        if word not in parts:
            raise SelectionError(f"{word!r} is none of the words that {', '.join(parts_of_speech)} rate.")
        parts[word] = part
    domains: dict[str, str] = {}
    if domains_from:
        packaged = load_concepts(domains_from)
        domains = dict(zip(packaged.concepts, packaged.domains, strict=True))
    concepts = [Concept(word, domains.get(word, ""), part) for word, part in sorted(parts.items())]
    check_concepts(concepts)
    return concepts


def read_concept_list(name_or_path: epath.PathLike) -> list[Concept]:
    """Read which concepts there are.

    Args:
      name_or_path: a packaged set, as "facts", for its concepts; or a UTF-8 text file with a concept a line and, after
        tabs, its domain and part of speech. A first line of `concept`, `domain`, `part_of_speech` names the columns.

    Raises:
      ConceptDataError: no such file, a line with other fields, a packaged set of concepts without words, or see
        `check_concepts`.
    """
    if name_or_path in PACKAGED:
        packaged = load_concepts(name_or_path)
        packaged.check_words("sentences that hold a concept's word")
        concepts = [Concept(*pair) for pair in zip(packaged.words or packaged.concepts, packaged.domains, strict=True)]
        check_concepts(concepts, f"{name_or_path}: ")
        return concepts
    file = find_file(name_or_path)
    if file is None:
        raise ConceptDataError(
            f"no file {str(name_or_path)!r} of concepts; give a text file with a concept a line and, after a tab, its "
            f"domain, or one of {', '.join(map(repr, PACKAGED[:-1]))} and {PACKAGED[-1]!r}"
        )
    columns, concepts = _COLUMNS, []
    for number, line in enumerate(read_text(file, ConceptDataError).splitlines(), start=1):
        fields = [field.strip() for field in line.split("\t")]
        if not any(fields):
            continue
        if not concepts and "concept" in map(str.lower, fields) and {*map(str.lower, fields)} <= {*_COLUMNS}:
            columns = tuple(map(str.lower, fields))
            continue
        if len(fields) > len(columns):
            raise ConceptDataError(
                f"{file}:{number}: {counted(len(fields), 'field')} separated by tabs; wanted {' and '.join(columns)}"
            )
        record = dict(zip(columns, fields, strict=False))
        try:
            part = check_part_of_speech(record.get("part_of_speech", ""))
        except SelectionError as problem:
            raise ConceptDataError(f"{file}:{number}: {problem}") from None
        concepts.append(Concept(record.get("concept", ""), record.get("domain", ""), part))
    check_concepts(concepts, f"{file}: ")
    return concepts


def check_concepts(concepts: Sequence[Concept], where: str = "") -> None:
    """Refuse a list that sentences can't be found for.

    Raises:
      ConceptDataError: no concepts, one without a word, or one that is there twice (whatever the case).
    """
    if not concepts:
        raise ConceptDataError(f"{where}there are no concepts; give at least one")
    seen: dict[tuple[str, ...], str] = {}
    for concept in concepts:
        words = split_words(concept.word)
        if not words or not concept.word.isprintable():
            raise ConceptDataError(f"{where}the concept {concept.word!r} has no word that a sentence could hold")
        if words in seen:
            raise ConceptDataError(
                f"{where}the concepts {seen[words]!r} and {concept.word!r} are the same word; keep one of them"
            )
        seen[words] = concept.word
