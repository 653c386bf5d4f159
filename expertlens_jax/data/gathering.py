"""From records to concepts: which sentences stand for and against each, and all that is wrong with the records.

Columns are compared as whole arrays, for a data set of a million rows would take minutes and the memory otherwise.
"""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from expertlens_jax.data.languages import check_language
from expertlens_jax.data.records import Records
from expertlens_jax.errors import ConceptDataError

EVERY = "*"
"""In a table with labels, the concept of a sentence that is a negative of every concept without its own."""
NO_WORD = "-"
NUMBER = "sentence_number"
"""The column that says in what order sentences come, where that isn't the order of rows (`ConceptDataset.save`)."""
UNUSED = "unused"
"""The label of a sentence that is there and serves no concept."""

_STATED = ("domain", "word", "language")  # once of each concept
_LABELS = {
    **dict.fromkeys(("1", "1.0", "true", "t", "yes", "y", "positive", "pos", "+"), 1),
    **dict.fromkeys(("0", "0.0", "false", "f", "no", "n", "negative", "neg", "-"), 0),
}
_POSITIVE, _NEGATIVE, _SHARED, _NOTHING, _WRONG = 1, 0, 2, 3, -1
_EXAMPLES = 3
_UNNUMBERED = np.iinfo(np.int64).max


@dataclasses.dataclass(frozen=True)
class Gathered:
    """What records say.

    Attributes:
      concepts: in order of appearance.
      sentences: the same.
      positives: int64 `[positives, 2]`, row of the concept and column of the sentence.
      negatives: the same, of the concepts' own negatives.
      shared: int64, sentences that are negatives of every concept without its own; None where none were told.
      stated: of each concept, its domain, word and language, where they were told.
      forms: of each concept, other forms of its word.
      place_of: of a sentence's column, where it stands first.
      merged: what was told twice and counts once, in words; "" if nothing was.
    """

    concepts: tuple[str, ...]
    sentences: tuple[str, ...]
    positives: np.ndarray
    negatives: np.ndarray
    shared: np.ndarray | None
    stated: Mapping[str, Mapping[str, str]]
    forms: Mapping[str, Mapping[str, None]]
    place_of: Callable[[int], str]
    merged: str


def gather(
    parts: Sequence[Records], *, minimum_sentences: int, negatives: Records | None = None
) -> tuple[Gathered, list[str]]:
    """Gather what tables say of concepts.

    Args:
      parts: tables with concepts and sentences; later ones go on with earlier ones.
      minimum_sentences: the fewest positives of a concept.
      negatives: sentences that are negatives of every concept without its own, and positives of none.

    Returns:
      What they say; and what is wrong with them, in the order of their lines, if anything is: then the rest means
      nothing.
    """
    tables = [*parts, *([negatives] if negatives is not None else [])]
    starts = np.cumsum([0, *map(len, tables)])
    num_rows = int(starts[-1])

    def place(row: int) -> str:
        table = int(np.searchsorted(starts, row, "right")) - 1
        return tables[table].place(int(row - starts[table]))

    concept, sentence = _column(tables, "concept", EVERY), _column(tables, "sentence")
    labels, problems = _labels(tables, parts, place)
    named, said = concept != "", sentence != ""
    problems = [(row, message) for row, message in problems if named[row]]
    problems += [(row, f"{place(row)}: the concept is empty") for row in np.flatnonzero(~named)]
    every = np.repeat(["label" in table.columns for table in tables], np.diff(starts)) & (concept == EVERY)
    every[starts[len(parts)] :] = True
    of_concept = named & ~every
    known = np.full(len(concept), None, object)
    known[of_concept] = concept[of_concept]
    codes, concepts = _factorized(known)
    stated, forms, contradictions = _statements(tables, codes, concepts, place)
    problems += contradictions
    problems += [(row, f"{place(row)}: the sentence is empty") for row in np.flatnonzero(named & ~said)]

    columns, sentences = _factorized(sentence)
    counted = np.flatnonzero(named & said & (labels != _WRONG))
    kind = labels[counted]
    pair, pairs = pd.factorize((codes[counted] + 1) * np.int64(max(1, len(sentences))) + columns[counted])
    first = _first_rows(pair, len(pairs))[pair]  # among those counted, of each, where its like stands first
    repeats = np.flatnonzero(first != np.arange(len(counted)))
    for again in repeats[(kind[repeats] != kind[first[repeats]]) & of_concept[counted[repeats]]]:
        row, other = counted[again], counted[first[again]]
        message = (
            f"{place(row)}: the sentence is a positive of {concept[row]!r} here or at {place(other)}, and a negative "
            f"at the other; keep one: {sentence[row]!r}"
        )
        problems.append((row, message))
    # A concept's positives, as told, also where something is wrong with them, and without repetitions.
    positive = of_concept & (labels != _NEGATIVE)
    positive[counted[repeats]] = False
    numbers = np.bincount(codes[positive], minlength=len(concepts))
    for row, name, number in zip(_first_rows(codes, len(concepts)), concepts, numbers, strict=True):
        if number < minimum_sentences:
            message = (
                f"{place(row)}: concept {name!r}, which starts here, has {number} "
                f"sentence{'' if number == 1 else 's'}, but at least {minimum_sentences} are needed; add some, leave "
                "it out, or lower minimum_sentences"
            )
            problems.append((num_rows, message))
    if negatives is not None:
        is_positive = (kind == _POSITIVE) & of_concept[counted]
        at = _first_rows(np.where(is_positive, columns[counted], -1), len(sentences), missing=-1)
        for row in counted[counted >= starts[len(parts)]]:
            if (other := at[columns[row]]) >= 0:
                message = (
                    f"{place(row)}: duplicate sentence, which is at {place(counted[other])} too, as a positive; a "
                    f"negative of every concept can't be one: {sentence[row]!r}"
                )
                problems.append((row, message))

    if any(NUMBER in table.columns for table in tables):
        columns, sentences, disorder = _in_order(_column(tables, NUMBER), columns, sentences, place)
        problems += disorder
    first_row = _first_rows(columns, len(sentences))
    merged = [
        f"{place(row)} (as at {place(other)})"
        for row, other in zip(counted[repeats[:_EXAMPLES]], counted[first[repeats[:_EXAMPLES]]], strict=True)
    ]
    told_twice = (
        f"{len(repeats)} of {num_rows} rows repeat a sentence of the same concept, and count once: "
        f"{'; '.join(merged)}{' ...' if len(repeats) > _EXAMPLES else ''}"
    )
    at = np.stack([codes[counted], columns[counted]], axis=1)
    pool_told = negatives is not None or np.isin(kind, (_SHARED, _NOTHING)).any()
    gathered = Gathered(
        tuple(concepts),
        tuple(sentences),
        at[(kind == _POSITIVE) & of_concept[counted]],
        at[(kind == _NEGATIVE) & of_concept[counted]],
        np.unique(columns[counted][kind == _SHARED]) if pool_told else None,
        stated,
        forms,
        lambda column: place(first_row[column]),
        told_twice if len(repeats) else "",
    )
    return gathered, [message for _, message in sorted(_read_problems(tables, starts) + problems, key=_by_row)]


def _by_row(problem: tuple[float, str]) -> float:
    return problem[0]


def _factorized(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each one's number among the different values, -1 for None, and these."""
    codes, different = pd.factorize(values)
    return codes, np.asarray(different)


def _column(tables: Sequence[Records], name: str, missing: str = "") -> np.ndarray:
    """Object `[rows]` of all tables; `missing` where a table hasn't got the column, "" where a record has nothing."""
    parts = [table.columns.get(name, np.full(len(table), missing, object)) for table in tables]
    column = np.concatenate(parts) if parts else np.zeros(0, object)
    column[column == None] = ""  # noqa: E711 - of each element
    return column


def _labels(
    tables: Sequence[Records], parts: Sequence[Records], place: Callable[[int], str]
) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """int8 `[rows]`, and what is wrong with labels."""
    found, problems, start = [], [], 0
    for number, table in enumerate(tables):
        if number >= len(parts):
            found.append(np.full(len(table), _SHARED, np.int8))
        elif "label" not in table.columns:
            found.append(np.full(len(table), _POSITIVE, np.int8))
        else:
            codes, texts = pd.factorize(table.columns["label"], use_na_sentinel=False)
            meanings = np.array([_LABELS.get((text or "").casefold(), _WRONG) for text in texts], np.int8)
            unused = np.array([text == UNUSED for text in texts], bool)
            labels = meanings[codes] if len(texts) else np.zeros(0, np.int8)
            every = table.columns["concept"] == EVERY
            labels[every & unused[codes]] = _NOTHING
            labels[every & (labels == _NEGATIVE)] = _SHARED
            labels[every & (labels == _POSITIVE)] = _WRONG
            for row in np.flatnonzero(labels == _WRONG):
                if every[row]:
                    message = f"{EVERY!r} stands for all concepts, and takes negatives only (label 0)"
                else:
                    message = (
                        f"the label is {table.columns['label'][row] or ''!r}; write 1 for a positive of the concept "
                        "and 0 for a negative (or true and false, yes and no, positive and negative)"
                    )
                problems.append((start + row, f"{place(start + row)}: {message}"))
            found.append(labels)
        start += len(table)
    return np.concatenate(found) if found else np.zeros(0, np.int8), problems


def _statements(
    tables: Sequence[Records], codes: np.ndarray, concepts: np.ndarray, place: Callable[[int], str]
) -> tuple[dict[str, dict[str, str]], dict[str, dict[str, None]], list[tuple[int, str]]]:
    """Return what is stated of each concept, and where another row states something else."""
    stated: dict[str, dict[str, str]] = collections.defaultdict(dict)
    forms: dict[str, dict[str, None]] = collections.defaultdict(dict)
    problems: list[tuple[int, str]] = []
    for field in (*_STATED, "forms"):
        if not any(field in table.columns for table in tables):
            continue
        values = _column(tables, field)
        said = np.concatenate([np.full(len(table), field in table.columns) for table in tables])
        told = (codes >= 0) & said
        if field != "domain":  # said once, they hold for all of the concept's sentences
            told &= values != ""
        rows = np.flatnonzero(told)
        value_codes, texts = pd.factorize(values[rows])
        combined = pd.Series(codes[rows] * np.int64(max(1, len(texts))) + value_codes)
        distinct = rows[~combined.duplicated().to_numpy()]
        if field == "forms":
            for row in distinct:
                given = [form.strip() for form in values[row].split("|")]
                forms[concepts[codes[row]]] |= dict.fromkeys(form for form in given if form)
            continue
        refused = set()
        if field == "language":
            for text in texts:
                try:
                    check_language(text)
                except ConceptDataError as problem:
                    refused.add(text)
                    problems += [(row, f"{place(row)}: {problem}") for row in rows[values[rows] == text]]
        first_at: dict[int, int] = {}
        for row in distinct:
            if values[row] not in refused and codes[row] not in first_at:
                first_at[codes[row]] = row
                stated[concepts[codes[row]]][field] = values[row]
        contradicted = {
            codes[row] for row in distinct if row != first_at.get(codes[row]) and values[row] not in refused
        }
        if not contradicted:
            continue
        for row in rows[np.isin(codes[rows], list(contradicted))]:
            first = first_at[codes[row]]
            if values[row] != values[first] and values[row] not in refused:
                problems.append(
                    (
                        row,
                        f"{place(row)}: concept {concepts[codes[row]]!r} is in {field} {values[row]!r} here and in "
                        f"{values[first]!r} at {place(first)}; give it one {field}, or two names",
                    )
                )
    return stated, forms, problems


def _in_order(
    numbers: np.ndarray, columns: np.ndarray, sentences: np.ndarray, place: Callable[[int], str]
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, str]]]:
    """Columns and sentences in the order of their numbers, and what is wrong with these; those without come last."""
    remedy = f"mend the column {NUMBER}, or name it in ignore_columns"
    told = np.flatnonzero(numbers != "")
    wrong = [row for row in told if not (numbers[row].isascii() and numbers[row].isdigit())]
    if wrong:
        return (
            columns,
            sentences,
            [
                (row, f"{place(row)}: the sentence's number is {numbers[row]!r}, which isn't one; {remedy}")
                for row in wrong
            ],
        )
    number_of = np.full(len(sentences), _UNNUMBERED)
    problems, sentence_of = [], {}
    for row in told:
        number, column = int(numbers[row]), columns[row]
        if sentence_of.setdefault(number, column) != column or number_of[column] not in (number, _UNNUMBERED):
            problems.append((row, f"{place(row)}: the number {number} is another sentence's too; {remedy}"))
        number_of[column] = number
    order = np.argsort(number_of, kind="stable")
    at = np.empty_like(order)
    at[order] = np.arange(len(order))
    return at[columns], sentences[order], problems


def _read_problems(tables: Sequence[Records], starts: np.ndarray) -> list[tuple[float, str]]:
    """Return what reading found, before what is wrong with the rows of the same table."""
    found = []
    for start, table in zip(starts, tables, strict=False):
        for number, (_, message) in enumerate(table.problems):
            found.append((float(start) - 0.5 + number / (2 * len(table.problems)), message))
    return found


def _first_rows(codes: np.ndarray, count: int, *, missing: int = 0) -> np.ndarray:
    """int64 `[count]`: of each code, the first row that has it; -1 is no code."""
    first = np.full(count, missing, np.int64)
    rows = np.flatnonzero(codes >= 0)[::-1]
    first[codes[rows]] = rows
    return first
