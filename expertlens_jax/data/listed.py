"""Records of lists of sentences: dictionaries, JSON files of them, and the concepts of ml-selfcond and ml-act."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from expertlens_jax.data.records import Columns, Objects, Records, as_text, column_name, suffix_of, text_column
from expertlens_jax.data.text import TextFile, decode
from expertlens_jax.errors import ConceptDataError

_CONCEPT_LIST = "concept_list.csv"
_SIDES = {"positive": "1", "negative": "0", "positives": "1", "negatives": "0"}
_FORMS = (
    'a list of objects with columns, {"CONCEPT": ["a sentence", ...]}, or {"concept": "CONCEPT", "sentences": '
    '{"positive": [...], "negative": [...]}}'
)


def read_json(file: TextFile, columns: Columns, *, encoding: str | None = None) -> Records:
    """Read a JSON file's records, in any of the forms in which people keep sentences.

    These are a list of objects with columns; lists of sentences by concept, as ml-act has them; columns as lists;
    and a concept's positive and negative sentences, as ml-selfcond has them, or a list of such.

    Raises:
      ConceptDataError: the file isn't JSON, or in none of these forms.
    """
    text = decode(file, ConceptDataError, encoding=encoding)
    try:
        content = json.loads(text.whole(), object_pairs_hook=_no_key_twice)
    except json.JSONDecodeError as problem:
        said = f"{file}:{problem.lineno}: broken JSON: {problem.msg} at column {problem.colno}"
        lines = "; a file with an object a line is called .jsonl" if problem.msg == "Extra data" else ""
        raise ConceptDataError(said + lines) from None
    except _KeyTwice as problem:
        raise ConceptDataError(f"{file}: {problem.args[0]!r} is there twice; put its sentences together") from None
    remarks = (text.remark,) if text.remark else ()
    if isinstance(content, Mapping):
        return read_mapping(content, columns, str(file), remarks)
    if not isinstance(content, list) or not all(isinstance(each, Mapping) for each in content):
        raise ConceptDataError(f"{file}: wanted {_FORMS}, not {_kind(content)}")
    if content and all(isinstance(each.get("sentences"), Mapping) for each in content):
        parts = [_read_sides(each, f"{file}, concept {number}") for number, each in enumerate(content)]
        return join_records(parts, str(file), remarks)
    gathered, kept = Objects(columns), []
    for number, record in enumerate(content):
        if gathered.add(list(record.items()), number, f"{file}, record {number}"):
            kept.append(number)
    return gathered.records(str(file), lambda row: f"{file}, record {kept[row]}", remarks)


def read_mapping(
    content: Mapping[str, Any], columns: Columns, source: str = "the dictionary", remarks: tuple[str, ...] = ()
) -> Records:
    """Read a dictionary: sentences by concept, columns as lists, or one concept as ml-selfcond has it.

    Of a concept there may be a list of sentences, or its positive and negative ones: `{"positive": [...],
    "negative": [...]}`.

    Raises:
      ConceptDataError: it is none of these.
    """
    if isinstance(content.get("sentences"), Mapping) and "concept" in content and not columns.called:
        return join_records([_read_sides(content, source)], source, remarks)
    found = {column_name(str(name)) for name in content}
    asked = columns.fit([*found])
    if columns.called or {name for name, column in asked.names().items() if column in asked.wanted} <= found:
        return _read_columns(content, columns, source, remarks)
    parts = []
    for concept, sentences in content.items():
        if not isinstance(concept, str):
            raise ConceptDataError(f"{source}: a concept's name must be text, not {concept!r}")
        place = f"{source}[{concept!r}]"
        if isinstance(sentences, Mapping):
            parts.append(_read_sides({"concept": concept, "sentences": sentences}, place))
        else:
            parts.append(listed_sentences(sentences, place, concept))
    if not parts:
        raise ConceptDataError(f"{source}: there is nothing in it; give {_FORMS}")
    return join_records(parts, source, remarks)


def read_folder(folder: epath.Path, columns: Columns, *, encoding: str | None = None) -> Records:
    """Read a folder of ml-selfcond's JSON files, a concept each.

    Where there is a `concept_list.csv`, with columns `group` and `concept`, it says which files are read and in what
    order: GROUP/CONCEPT.json. Otherwise all are, in the order of their paths, those in folders within it too.

    Raises:
      ConceptDataError: there are no such files, one that is listed is missing, or one can't be read.
    """
    files = {str(file.relative_to(folder)): file for file in _json_files(folder)}
    listed = folder / _CONCEPT_LIST
    remarks = []
    if listed.exists():
        with decode(listed, ConceptDataError).open() as text:
            rows = list(csv.DictReader(text))
        wanted = [f"{row.get('group')}/{row.get('concept')}.json" for row in rows]
        if not wanted or not {"group", "concept"} <= rows[0].keys():
            raise ConceptDataError(f"{listed}: wanted the columns group and concept, and a concept a row")
        missing = [name for name in wanted if name not in files]
        if missing:
            raise ConceptDataError(f"{listed}: no file {', '.join(missing[:5])}, which it lists")
        left = [name for name in files if name not in wanted]
        if left:
            remarks.append(f"{listed} doesn't list {', '.join(left[:5])}{' ...' * (len(left) > 5)}: not read")
        files = {name: files[name] for name in dict.fromkeys(wanted)}
    if not files:
        raise ConceptDataError(f"no file of concepts in the folder {folder}: it should hold .json files, each {_FORMS}")
    parts = []
    for file in files.values():
        parts.append(read_json(file, columns, encoding=encoding))
    return join_records(parts, str(folder), tuple(remarks))


def listed_sentences(sentences: Any, source: str, concept: str | None, label: str | None = None) -> Records:
    """Read a list of sentences, of one concept.

    Raises:
      ConceptDataError: it is no list.
    """
    if isinstance(sentences, str) or not isinstance(sentences, Sequence | np.ndarray | set | tuple):
        if hasattr(sentences, "tolist"):  # a pandas Series
            sentences = sentences.tolist()
        else:
            raise ConceptDataError(f"{source}: wanted a list of sentences, not {_kind(sentences)}")
    if isinstance(sentences, set):
        raise ConceptDataError(f"{source}: a set has no order, so results would differ from run to run; give a list")
    texts, kept, problems = [], [], []
    for number, sentence in enumerate(sentences):
        text = as_text(sentence, "sentence", Columns(("sentence",)))
        if text is None:
            problems.append((number, f"{source}, sentence {number}: must be text, not {sentence!r}"))
        else:
            texts.append(text)
            kept.append(number)
    columns = {"sentence": text_column(texts)}
    if concept is not None:
        columns["concept"] = text_column([concept] * len(texts))
    if label is not None:
        columns["label"] = text_column([label] * len(texts))
    return Records(
        source, columns, lambda row: f"{source}, sentence {kept[row]}", problems=tuple(problems), read=("sentence",)
    )


def join_records(parts: Sequence[Records], source: str, remarks: tuple[str, ...] = ()) -> Records:
    """Return the records of all parts; where one lacks a column of another, its records have None there.

    Where some have labels, the sentences of the others are positives.
    """
    starts = np.cumsum([0, *map(len, parts)])
    names = dict.fromkeys(name for part in parts for name in part.columns)
    columns = {
        name: np.concatenate(
            [part.columns.get(name, np.full(len(part), "1" if name == "label" else None, object)) for part in parts]
        )
        for name in names
    }

    def place(row: int) -> str:
        part = int(np.searchsorted(starts, row, "right")) - 1
        return parts[part].place(row - int(starts[part]))

    problems = tuple(
        (int(start) + number, message)
        for start, part in zip(starts, parts, strict=False)
        for number, message in part.problems
    )
    unread = tuple(dict.fromkeys(name for part in parts for name in part.unread))
    remarks = (*remarks, *(remark for part in parts for remark in part.remarks))
    return Records(source, columns, place, unread, problems, remarks, tuple(names))


def _read_sides(content: Mapping[str, Any], source: str) -> Records:
    """Return a concept's positive and negative sentences, as ml-selfcond's files hold them."""
    concept, group = content.get("concept"), content.get("group", "")
    for name, value in (("concept", concept), ("group", group)):
        if not isinstance(value, str):
            raise ConceptDataError(f"{source}: {name!r} must be text, not {value!r}")
    sides = content["sentences"]
    unknown = [side for side in sides if side not in _SIDES]
    if unknown or not sides:
        raise ConceptDataError(
            f"{source}: the sentences of {concept!r} must be 'positive' or 'negative', not "
            f"{', '.join(map(repr, unknown)) or 'none'}"
        )
    parts = [
        listed_sentences(sentences, f"{source}, {side}", concept, _SIDES[side]) for side, sentences in sides.items()
    ]
    records = join_records(parts, source)
    more = {}
    if group:
        more["domain"] = text_column([group] * len(records))
    if word := _word_of_sense(str(concept)):
        more["word"] = text_column([word] * len(records))
    return records.take(np.arange(len(records)), **more)


def _word_of_sense(concept: str) -> str:
    """Return the word of a sense's key in WordNet, by which ml-selfcond calls its concepts; else "".

    >>> _word_of_sense("ice_cream-1_13_00__")
    'ice cream'
    """
    lemma, _, key = concept.rpartition("-")
    return lemma.replace("_", " ") if lemma and key.count("_") >= 3 and key.replace("_", "").isdigit() else ""


def _read_columns(content: Mapping[str, Any], columns: Columns, source: str, remarks: tuple[str, ...]) -> Records:
    lengths = {
        str(name): len(values) if isinstance(values, Sequence | np.ndarray) and not isinstance(values, str) else -1
        for name, values in content.items()
    }
    if len({*lengths.values()}) != 1 or -1 in lengths.values():
        said = ", ".join(f"{name!r} {'no list' if each < 0 else each}" for name, each in lengths.items())
        raise ConceptDataError(f"{source}: its columns must be lists of one length; they are: {said}")
    found = [column_name(str(name)) for name in content]
    if problem := columns.fit(found).problem(found):
        raise ConceptDataError(f"{source}: {problem}")
    gathered, kept = Objects(columns), []
    for number, values in enumerate(zip(*content.values(), strict=True)):
        record = [(str(name), value) for name, value in zip(content, values, strict=True)]
        if gathered.add(record, number, f"{source}, row {number}"):
            kept.append(number)
    return gathered.records(source, lambda row: f"{source}, row {kept[row]}", remarks)


def _json_files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.is_dir():
            yield from _json_files(path)
        elif suffix_of(path.name) == ".json":
            yield path


class _KeyTwice(Exception):
    pass


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise _KeyTwice(next(name for name in names if names.count(name) > 1))
    return content


def _kind(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"
