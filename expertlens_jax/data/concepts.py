"""Concept sentences: which sentences hold each concept, read from a packaged set or a user's own file."""

import collections
import csv
import dataclasses
import difflib
import io
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from importlib import resources

import numpy as np
from etils import epath

from expertlens_jax.data.text import TextFile, find_file, read_text
from expertlens_jax.data.words import find_mentions
from expertlens_jax.errors import ConceptDataError, ExpertLensWarning

PACKAGED = ("facts", "stories")

# A tab-separated field holds its quotes literally; a comma-separated one is quoted the usual way.
_DIALECTS = {
    ".tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE},
    ".csv": {"delimiter": ",", "strict": True},
}


@dataclasses.dataclass(frozen=True, eq=False)
class ConceptDataset:
    """Sentences, and which of them stand for which concept.

    Attributes:
      name: name of the set: a packaged name, or the file's name without its suffix.
      sentences: `[sentences]`, each once; the concepts' own, then those that serve as negatives only.
      concepts: `[concepts]`, each once, in order of appearance.
      domains: `[concepts]`, the category of each; "" where none is known.
      labels: bool `[concepts, sentences]`, True where the sentence is a positive of the concept.
      negative_pool: bool `[sentences]`, True where the sentence may be a negative (of concepts it isn't a
        positive of): all of them, unless sentences were given that are the only negatives.

    Raises:
      ConceptDataError: the fields don't fit together.
    """

    name: str
    sentences: tuple[str, ...]
    concepts: tuple[str, ...]
    domains: tuple[str, ...]
    labels: np.ndarray
    negative_pool: np.ndarray

    def __post_init__(self) -> None:
        num_concepts, num_sentences = len(self.concepts), len(self.sentences)
        if len(self.domains) != num_concepts:
            raise ConceptDataError(f"{num_concepts} concepts need as many domains, not {len(self.domains)}")
        wanted = {"labels": (num_concepts, num_sentences), "negative_pool": (num_sentences,)}
        for field, shape in wanted.items():
            array = getattr(self, field)
            if array.dtype != bool or array.shape != shape:
                raise ConceptDataError(
                    f"{field} must be bool {list(shape)} for {num_concepts} concepts and {num_sentences} "
                    f"sentences, not {array.dtype} {list(array.shape)}"
                )
        for field in ("concepts", "sentences"):
            for value, count in collections.Counter(getattr(self, field)).most_common(1):
                if count > 1:
                    raise ConceptDataError(f"{field} must be there once each, but {value!r} is {count} times")

    def __repr__(self) -> str:
        return (
            f"ConceptDataset({self.name!r}: {len(self.concepts)} concepts in {len(set(self.domains))} "
            f"domains, {len(self.sentences)} sentences)"
        )

    def mentions(self) -> np.ndarray:
        """Returns bool `[concepts, sentences]`: the sentence holds the concept's word or its plural.

        A concept's own positives are among them where they hold it. `words.find_mentions` has the rule.
        """
        return find_mentions(self.concepts, self.sentences)

    def subset(self, concepts: Sequence[str]) -> "ConceptDataset":
        """Returns the set of these concepts, in this order, and their sentences, in the order they have here.

        The other concepts' sentences go, also as negatives; sentences that are no concept's positives stay.

        Raises:
          ConceptDataError: a concept isn't there, is asked for twice, or none is asked for.
        """
        concepts = (concepts,) if isinstance(concepts, str) else tuple(concepts)
        if not concepts:
            raise ConceptDataError("a subset needs at least one concept")
        row_of = {concept: row for row, concept in enumerate(self.concepts)}
        for concept in concepts:
            if concept not in row_of:
                close = difflib.get_close_matches(concept, self.concepts) or list(self.concepts[:5])
                raise ConceptDataError(
                    f"no concept {concept!r} among the {len(self.concepts)} of {self.name!r}; "
                    f"there is {', '.join(close)}"
                )
        rows = [row_of[concept] for concept in concepts]
        keep = self.labels[rows].any(0) | ~self.labels.any(0)
        return ConceptDataset(
            name=self.name,
            sentences=tuple(sentence for sentence, kept in zip(self.sentences, keep, strict=True) if kept),
            concepts=concepts,
            domains=tuple(self.domains[row] for row in rows),
            labels=self.labels[rows][:, keep],
            negative_pool=self.negative_pool[keep],
        )


def load_concepts(
    name_or_path: epath.PathLike,
    *,
    negatives: epath.PathLike | None = None,
    minimum_sentences: int = 5,
) -> ConceptDataset:
    """Loads concept sentences.

    Args:
      name_or_path: "facts" or "stories", the sets that ship with the package (176 concepts in 16 domains, 40
        sentences each), or a file with columns `concept`, `sentence` and, optionally, `domain`:
        tab-separated (`.tsv`, quotes are literal), comma-separated (`.csv`) or a JSON object a line
        (`.jsonl`). It must be UTF-8; other columns are left alone.
      negatives: sentences that serve as the only negatives, of every concept: a `.txt` file with one a line,
        or any of the above with a `sentence` column. Without it, each concept's negatives are the other
        concepts' sentences.
      minimum_sentences: the fewest positive sentences a concept may have.

    Warns:
      ExpertLensWarning: sentences lack their own concept's word; one warning counts them.

    Raises:
      ConceptDataError: a file that isn't there or can't be read, a missing column, an empty or repeated
        sentence, a concept with too few sentences or with two domains. The message names file and line.
    """
    if minimum_sentences < 1:
        raise ConceptDataError(f"minimum_sentences must be at least 1, not {minimum_sentences}")
    source = _find(name_or_path)

    place_of: dict[str, str] = {}  # where each sentence stands: file:line
    concept_of: list[str] = []  # of each sentence
    first: dict[str, tuple[str, str]] = {}  # domain, and file:line of the first sentence, of each concept
    for line, record in _read_records(source, ("concept", "sentence")):
        place = f"{source}:{line}"
        concept, domain = record["concept"], record.get("domain", "")
        if not concept:
            raise ConceptDataError(f"{place}: the concept is empty")
        _add_sentence(place_of, record["sentence"], place)
        concept_of.append(concept)
        known_domain, known_place = first.setdefault(concept, (domain, place))
        if domain != known_domain:
            raise ConceptDataError(
                f"{place}: concept {concept!r} is in domain {domain!r} here and in {known_domain!r} at "
                f"{known_place}; give it one domain, or two names"
            )
    if not first:
        raise ConceptDataError(f"{source}: there are no sentences in this file")
    for concept, count in collections.Counter(concept_of).items():
        if count < minimum_sentences:
            raise ConceptDataError(
                f"{first[concept][1]}: concept {concept!r}, which starts here, has {count} sentences, but "
                f"at least {minimum_sentences} are needed; add some, leave it out, or lower minimum_sentences"
            )

    if negatives is not None:
        source_of_negatives = _find(negatives)
        for line, record in _read_records(source_of_negatives, ("sentence",)):
            _add_sentence(place_of, record["sentence"], f"{source_of_negatives}:{line}")
        if len(place_of) == len(concept_of):
            raise ConceptDataError(f"{source_of_negatives}: there are no sentences in this file")

    concepts, sentences = tuple(first), tuple(place_of)
    row_of = {concept: row for row, concept in enumerate(concepts)}
    labels = np.zeros((len(concepts), len(sentences)), bool)
    labels[[row_of[concept] for concept in concept_of], np.arange(len(concept_of))] = True
    dataset = ConceptDataset(
        name=source.name.rpartition(".")[0],
        sentences=sentences,
        concepts=concepts,
        domains=tuple(domain for domain, _ in first.values()),
        labels=labels,
        negative_pool=np.ones(len(sentences), bool) if negatives is None else ~labels.any(0),
    )

    lacking = np.flatnonzero((labels & ~dataset.mentions()).any(0))
    if lacking.size:
        examples = "; ".join(f"{place_of[sentences[i]]} ({concept_of[i]!r})" for i in lacking[:3])
        warnings.warn(
            f"{lacking.size} of {len(concept_of)} sentences lack their concept's word and its plural: "
            f"{examples}{' ...' if lacking.size > 3 else ''}. They count as positives all the same.",
            ExpertLensWarning,
            stacklevel=2,
        )
    return dataset


def _find(name_or_path: epath.PathLike) -> TextFile:
    if name_or_path in PACKAGED:
        return resources.files("expertlens_jax") / "data" / "concepts" / f"{name_or_path}.tsv"
    file = find_file(name_or_path)
    if file is None:
        raise ConceptDataError(
            f"no file {str(name_or_path)!r}; the sets that ship with the package are "
            f"{' and '.join(map(repr, PACKAGED))}"
        )
    return file


def _add_sentence(place_of: dict[str, str], sentence: str, place: str) -> None:
    if not sentence:
        raise ConceptDataError(f"{place}: the sentence is empty")
    if sentence in place_of:
        raise ConceptDataError(
            f"{place}: duplicate sentence, which is at {place_of[sentence]} too; keep one: {sentence!r}"
        )
    place_of[sentence] = place


def _read_records(file: TextFile, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields each record's line number and its fields, stripped; all have `columns`.

    Where a sentence is all that is wanted, a plain text file will do.
    """
    suffix = "." + file.name.rpartition(".")[2].lower() if "." in file.name else ""
    plain = columns == ("sentence",)
    readable = [*_DIALECTS, ".jsonl", *([".txt"] if plain else [])]
    if suffix not in readable:
        raise ConceptDataError(f"{file}: can't read a {suffix or 'suffixless'} file; give {', '.join(readable)}")
    text = read_text(file, ConceptDataError)
    if suffix == ".jsonl":
        yield from _read_jsonl(file, text, columns)
    elif suffix == ".txt":
        for line, sentence in enumerate(io.StringIO(text, newline=None), 1):
            if sentence.strip():
                yield line, {"sentence": sentence.strip()}
    else:
        yield from _read_delimited(file, text, columns, suffix)


def _read_delimited(
    file: TextFile, text: str, columns: tuple[str, ...], suffix: str
) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), **_DIALECTS[suffix])
    header = None
    while True:
        line = reader.line_num + 1  # where the row starts: a quoted field may run over several lines
        try:
            row = [field.strip() for field in next(reader)]
        except StopIteration:
            break
        except csv.Error as problem:
            raise ConceptDataError(f"{file}:{line}: not a {suffix} row: {problem}") from None
        if not row:  # a blank line
            continue
        if header is None:
            header = [name.lower() for name in row]
            _check_columns(f"{file}:{line}", columns, header)
        elif len(row) != len(header):
            raise ConceptDataError(
                f"{file}:{line}: {len(row)} fields, but the header names {len(header)}: {', '.join(header)}"
            )
        else:
            yield line, dict(zip(header, row, strict=True))


def _read_jsonl(file: TextFile, text: str, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    # Not splitlines(): a JSON string may hold U+2028 and its like unescaped.
    for line, content in enumerate(text.split("\n"), 1):
        place = f"{file}:{line}"
        if not content.strip():
            continue
        try:
            record = json.loads(content)
        except json.JSONDecodeError as problem:
            raise ConceptDataError(f"{place}: broken JSON: {problem.msg} at column {problem.colno}") from None
        if not isinstance(record, dict):
            raise ConceptDataError(f"{place}: wanted a JSON object with {', '.join(columns)}, not {content!r}")
        _check_columns(place, columns, list(record))
        names = columns if record.get("domain") is None else (*columns, "domain")
        for name in names:
            # A lone surrogate ("\ud83d" without its other half) is a JSON string, but no text.
            if not isinstance(record[name], str) or re.search("[\ud800-\udfff]", record[name]):
                raise ConceptDataError(f"{place}: {name!r} must be text, not {json.dumps(record[name])}")
        yield line, {name: record[name].strip() for name in names}


def _check_columns(place: str, wanted: tuple[str, ...], found: list[str]) -> None:
    for name in wanted:
        if name not in found:
            raise ConceptDataError(f"{place}: missing column {name!r}; the columns found are {found}")
        if found.count(name) > 1:
            raise ConceptDataError(f"{place}: column {name!r} is there twice; the columns found are {found}")
