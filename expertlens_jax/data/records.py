"""Records of a user's file: tab- or comma-separated, or a JSON object a line; every line that doesn't fit is named.

Records are kept by column, as a file of a million rows would fill the memory with a dictionary a row.
"""

import array
import csv
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from expertlens_jax.cards import counted
from expertlens_jax.data.text import Text, TextFile, decode
from expertlens_jax.errors import ConceptDataError

READABLE = (".tsv", ".csv", ".jsonl")
_DELIMITERS = {".tsv": "\t", ".csv": ","}
_NAMES = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "vertical bars"}
_ROW_NUMBERS = re.compile(r"(?:unnamed: [\d.]+|level_\d|index|id|source)?")
"""Row numbers, as pandas and spreadsheets add them, and where a sentence is from (`experiments.write_concepts` writes
that): nothing is lost where they aren't read."""

_SAY_QUOTED = (
    "If that is wrong, say quoted=True (fields in quotes, with their own quotes doubled, as pandas writes them) or "
    "quoted=False (quotes are text); saying it also silences this."
)

_MOST_PROBLEMS = 20  # named one by one

# A field of a file that quotes as spreadsheets and pandas do: in quotes, with its own quotes doubled; or without any.
_FIELD = re.compile('(?:"([^"]*(?:""[^"]*)*)"|([^"{tab}\r\n]*))({tab}|\r\n|\n|\r|\\Z)'.replace("{tab}", "\t"))
# A lone surrogate ("\ud83d" without its other half) is a JSON string, but no text.
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns are read of a table, and what the table calls them.

    Attributes:
      wanted: that must be there.
      optional: that are read where they are.
      called: of a column, its name in the table, where that is another.
      labels: which of them hold labels, which may be numbers and truth values.
      passed_over: names that are neither read nor told.
      fitted: of a table's columns, normalised, which are read instead of these; None for these, whatever it has.
    """

    wanted: tuple[str, ...]
    optional: tuple[str, ...] = ()
    called: Mapping[str, str] = dataclasses.field(default_factory=dict)
    labels: tuple[str, ...] = ("label",)
    passed_over: tuple[str, ...] = ()
    fitted: "Callable[[Sequence[str]], Columns] | None" = None

    def fit(self, found: Sequence[str]) -> "Columns":
        """Return which columns are read of a table that has these."""
        return self if self.fitted is None else self.fitted(found)

    def names(self) -> dict[str, str]:
        """Return each column by its name in the table, lower case."""
        return {column_name(self.called.get(name, name)): name for name in (*self.wanted, *self.optional)}

    def problem(self, found: Sequence[str]) -> str | None:
        """Tell what is wrong with a table's columns, normalised; None if nothing is."""
        for asked, name in sorted(self.names().items(), key=lambda each: each[1] not in self.called):
            if name in self.wanted and asked not in found:
                said = f" (asked for by {name}=)" if asked != name else ""
                remedy = f'; say which it is, as {name}="NAME"' if len(found) > 1 and name in _SAYABLE else ""
                return f"missing column {asked!r}{said}; the columns found are {list(found)}{remedy}"
            if name in self.called and asked not in found:
                return f"missing column {asked!r} (asked for by {name}=); the columns found are {list(found)}"
        for asked in self.names():
            if found.count(asked) > 1:
                return f"column {asked!r} is there twice; the columns found are {list(found)}"
        return None

    def unread(self, found: Sequence[str]) -> tuple[str, ...]:
        """Return what isn't read of a table's columns, normalised, and should be told."""
        names = self.names()
        passed = {*map(column_name, self.passed_over)}
        return tuple(
            name
            for name in dict.fromkeys(found)
            if name not in names and name not in passed and not _ROW_NUMBERS.fullmatch(name)
        )


_SAYABLE = ("concept", "sentence")


@dataclasses.dataclass(frozen=True)
class Records:
    """What a file or another table holds.

    Attributes:
      source: what messages call it.
      columns: of each column that was read, object `[rows]`: stripped text, or None where a record has nothing.
      place: of a row, where it stands, as "mine.csv:3".
      unread: the columns that weren't read, other than row numbers.
      problems: what is wrong with lines: where it comes among them, and a message with file and line. Their records
        aren't among the rows.
      remarks: what the user should know of how it was read.
      read: what the table calls the columns that were read.
    """

    source: str
    columns: dict[str, np.ndarray]
    place: Callable[[int], str]
    unread: tuple[str, ...] = ()
    problems: tuple[tuple[int, str], ...] = ()
    remarks: tuple[str, ...] = ()
    read: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def take(self, rows: np.ndarray, **columns: np.ndarray) -> "Records":
        """Return some of the rows, in this order, with columns put in the place of theirs or added."""
        rows, place = np.asarray(rows), self.place
        kept = {name: column[rows] for name, column in self.columns.items()}
        return dataclasses.replace(self, columns=kept | columns, place=lambda row: place(int(rows[row])))


def text_column(values: Sequence[str | None]) -> np.ndarray:
    """Return values as an object array, strings and None as they are."""
    column = np.empty(len(values), object)
    column[:] = values
    return column


def column_name(name: str) -> str:
    """Return a column's name without case and outer spaces."""
    return " ".join(name.split()).lower()


def suffix_of(name: str) -> str:
    """Return a file's suffix in lower case, as ".csv"; "" where there is none."""
    return "." + name.rpartition(".")[2].lower() if "." in name else ""


def read_records(
    file: TextFile, columns: Columns, *, quoted: bool | None = None, encoding: str | None = None
) -> Records:
    """Read a text file's records.

    Columns are told by name, whatever its case and the spaces around it. Rows without any content are passed over.

    Args:
      file: `.tsv`, `.csv`, `.jsonl`, or `.txt` where sentences are all that is wanted.
      columns: that are read.
      quoted: whether fields are in quotes, with their own quotes doubled, as spreadsheets and pandas write them, or
        hold their quotes as they are. None: fields between commas or semicolons are quoted, and those between tabs if
        all of the file says so.
      encoding: of the text; None to find out (`data.text.decode`).

    Raises:
      ConceptDataError: the file can't be read at all, or lacks a column. The message names file and line.
    """
    suffix = suffix_of(file.name)
    text = decode(file, ConceptDataError, encoding=encoding)
    if suffix == ".jsonl":
        return _read_jsonl(file, text, columns)
    if suffix == ".txt":
        return _read_lines(file, text)
    return _read_rows(file, text, columns, suffix, quoted)


def check_no_problems(source: str, problems: Sequence[str]) -> None:
    """Check that a file has no problems; tell all of them in one message.

    Raises:
      ConceptDataError: there is one or more.
    """
    if len(problems) == 1:
        raise ConceptDataError(problems[0])
    if problems:
        listed = "\n  ".join(problems[:_MOST_PROBLEMS])
        more = f"\n  ... and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
        raise ConceptDataError(f"{source}: {counted(len(problems), 'problem')}:\n  {listed}{more}")


def as_text(value: Any, name: str, columns: Columns) -> str | None:
    """Return a column's value as the text that a `.csv` file would have in its place; None where there is none."""
    if name in columns.labels and isinstance(value, int | float | np.number | np.bool_):
        return str(value)
    if name == "forms" and isinstance(value, list) and all(isinstance(form, str) for form in value):
        value = "|".join(value)
    if not isinstance(value, str) or (not value.isascii() and _SURROGATE.search(value)):
        return None
    return value.strip()


def lines_of(file: TextFile | str, lines: Sequence[int]) -> Callable[[int], str]:
    """Return what tells a row's place in a file with lines."""
    return lambda row: f"{file}:{lines[row]}"


def _read_lines(file: TextFile, text: Text) -> Records:
    """Sentences, one a line."""
    sentences, lines = [], array.array("q")
    with text.open(newline=None) as content:
        for line, sentence in enumerate(content, 1):
            if sentence.strip():
                sentences.append(sentence.strip())
                lines.append(line)
    column = text_column(sentences)
    return Records(
        str(file), {"sentence": column}, lines_of(file, lines), remarks=_remarks(text.remark), read=("sentence",)
    )


def _remarks(*remarks: str) -> tuple[str, ...]:
    return tuple(remark for remark in remarks if remark)


def _read_rows(file: TextFile, text: Text, columns: Columns, suffix: str, quoted: bool | None) -> Records:
    problems: list[tuple[int, str]] = []
    delimiter, remarks = _sniff(text, columns, _DELIMITERS[suffix]), [text.remark]
    if delimiter != _DELIMITERS[suffix]:
        remarks.append(
            f"{file}: its fields are between {_NAMES[delimiter]}, though {suffix} files have "
            f"{_NAMES[_DELIMITERS[suffix]]}; they were read so"
        )
    if delimiter == "\t" and quoted is None:
        quoted, remark = _is_quoted(text)
        remarks.append(f"{file}: {remark}. {_SAY_QUOTED}" if remark else "")
    rows = _split_rows(file, text, delimiter, suffix, quoted is None or quoted, problems)
    line, header = next(rows, (1, None))
    if header is None:
        return Records(str(file), {name: text_column([]) for name in columns.wanted}, str, problems=tuple(problems))
    found = [column_name(name) for name in header]
    columns = columns.fit(found)
    _check_header(f"{file}:{line}", columns, header, suffix)
    names = columns.names()
    kept = [(place, names[name]) for place, name in enumerate(found) if name in names]
    # What is the same in many rows is held once.
    fields: dict[str, list[str]] = {name: [] for _, name in kept}
    known: dict[str, str] = {}
    lines = array.array("q")
    for line, row in rows:
        while len(row) > len(found) and not row[-1]:
            row = row[:-1]
        if len(row) != len(found):
            problems.append(
                (
                    line,
                    f"{file}:{line}: {counted(len(row), 'field')}, but the header names {len(found)}: "
                    f"{', '.join(found)}",
                )
            )
            continue
        lines.append(line)
        for place, name in kept:
            fields[name].append(row[place] if name == "sentence" else known.setdefault(row[place], row[place]))
    return Records(
        str(file),
        {name: text_column(values) for name, values in fields.items()},
        lines_of(file, lines),
        unread=columns.unread(found),
        problems=tuple(problems),
        remarks=_remarks(*remarks),
        read=tuple(found[place] for place, _ in kept),
    )


def _sniff(text: Text, columns: Columns, own: str) -> str:
    """Return what separates the fields.

    It is what makes the header name the columns: the suffix's own where that does, or where none does.
    """
    with text.open() as content:
        header = next((line for line in content if line.strip()), "")
    wanted = {name for name, column in columns.names().items() if column in columns.wanted}
    for delimiter in (own, ",", ";", "\t"):
        try:
            (fields,) = csv.reader([header], delimiter=delimiter, skipinitialspace=True)
        except (csv.Error, ValueError):
            continue
        if wanted <= {column_name(field.strip('"')) for field in fields}:
            # One column is there whatever separates it from nothing.
            if delimiter == own or len(fields) > 1:
                return delimiter
    return own


def _split_rows(
    file: TextFile, text: Text, delimiter: str, suffix: str, quoted: bool, problems: list[tuple[int, str]]
) -> Iterator[tuple[int, list[str]]]:
    """Yield each row's first line and its fields, stripped; what is no row goes to the problems and ends it."""
    # With skipinitialspace a quote after a comma and a space opens a field, as whoever typed it meant.
    quoting: dict[str, Any] = {"strict": True, "skipinitialspace": True} if quoted else {"quoting": csv.QUOTE_NONE}
    with text.open() as content:
        reader = csv.reader(content, delimiter=delimiter, **quoting)
        while True:
            line = reader.line_num + 1  # where the row starts: a quoted field may run over several lines
            try:
                row = [field.strip() for field in next(reader)]
            except StopIteration:
                return
            except csv.Error as problem:
                said = "a field in quotes has its own quotes doubled"
                problems.append((line, f"{file}:{line}: not a {suffix} row: {problem}; {said}"))
                return
            if any(row):
                yield line, row


@dataclasses.dataclass
class _Quotes:
    """What a tab-separated file's rows show, read as quoted, without keeping them."""

    lengths: set[int] = dataclasses.field(default_factory=set)
    header_inside: bool = False  # all of the header is in quotes
    columns_inside: list[bool] = dataclasses.field(default_factory=list)  # of each column, all below the header
    num_rows: int = 0
    num_inside: int = 0
    runs_on: bool = False
    doubled: bool = False
    commas: int = 0
    commas_inside: int = 0

    def add(self, row: list[tuple[str | None, str]]) -> None:
        self.lengths.add(len(row))
        inside = [wrapped is not None for wrapped, _ in row]
        if not self.num_rows:
            self.header_inside, self.columns_inside = all(inside), [True] * len(row)
        else:
            self.columns_inside = [a and b for a, b in zip(self.columns_inside, inside, strict=False)]
        self.num_rows += 1
        for wrapped, bare in row:
            content = bare if wrapped is None else wrapped
            if "," in content:
                self.commas += 1
                self.commas_inside += wrapped is not None
            if wrapped is not None:
                self.num_inside += 1
                self.runs_on = self.runs_on or bool(re.search("[\t\r\n]", wrapped))
                self.doubled = self.doubled or '""' in wrapped


def _is_quoted(text: Text) -> tuple[bool, str]:
    """Tell whether a tab-separated file's fields are quoted as pandas and spreadsheets quote, or hold quotes as text.

    The file itself says it, if all of it can be read as quoted: by quotes that are doubled within quotes, by a header
    or all fields in quotes, or by a line end or tab in quotes without which rows have other numbers of fields than the
    header.

    Returns:
      Whether it is; and what to tell the user where it may be either.
    """
    content = text.whole()
    if '"' not in content:
        return False, ""
    quotes = _Quotes()
    row: list[tuple[str | None, str]] = []  # fields in quotes, or not
    place = 0
    while place < len(content) or row:
        match = _FIELD.match(content, place)
        if match is None:
            break
        row.append((match.group(1), match.group(2) or ""))
        place = match.end()
        if match.group(3) != "\t":
            if any(inside or outside.strip() for inside, outside in row):
                quotes.add(row)
            row = []
    if match is None or len(quotes.lengths) != 1:
        looks_quoted = len(re.findall(r'(?:^|\t)"[^"\t\r\n]*""[^\t\r\n]*"(?=[\t\r\n]|$)', content, re.MULTILINE))
        if not looks_quoted:
            return False, ""
        return False, (
            f"{counted(looks_quoted, 'field')} looked quoted, with quotes doubled within, but others hold quotes as "
            "they are: all quotes were read as part of the text"
        )
    if quotes.runs_on:
        with text.open() as lines:
            literal_lengths = {len(each) for each in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if each}
        if len(literal_lengths) > 1:
            return True, ""
    elif quotes.doubled or quotes.header_inside:
        return True, ""
    inside = counted(quotes.num_inside, "field is", "fields are")
    all_of_column = quotes.num_rows > 1 and any(quotes.columns_inside)
    spreadsheet = 1 < quotes.num_inside == quotes.commas == quotes.commas_inside
    if not quotes.runs_on and (all_of_column or spreadsheet):
        return True, f"{inside} in quotes, which were taken off"
    return False, f"{inside} in quotes, which were read as part of the text"


def _read_jsonl(file: TextFile, text: Text, columns: Columns) -> Records:
    gathered = Objects(columns)
    lines = array.array("q")
    # Lines end at "\n" alone: a JSON string may hold U+2028 and its like unescaped.
    with text.open(newline="\n") as content:
        for line, written in enumerate(content, 1):
            place = f"{file}:{line}"
            if not written.strip():
                continue
            try:
                record = json.loads(written, object_pairs_hook=lambda pairs: pairs)
            except json.JSONDecodeError as problem:
                gathered.problems.append((line, f"{place}: broken JSON: {problem.msg} at column {problem.colno}"))
                continue
            if not written.lstrip().startswith("{"):
                wanted = ", ".join(columns.wanted)
                said = f"{place}: wanted a JSON object with {wanted}, not {written.rstrip(chr(10))!r}"
                gathered.problems.append((line, said))
                continue
            if gathered.add(record, line, place):
                lines.append(line)
    return gathered.records(str(file), lines_of(file, lines), _remarks(text.remark))


class Objects:
    """Records that are JSON objects, one after the other."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.names = columns.names()
        self.fields: dict[str, list[str | None]] = {name: [] for name in columns.wanted}
        self.known: dict[str, str] = {}
        self.found: dict[str, None] = {}
        self.kinds: dict[tuple[str, ...], tuple[str | None, list[str | None]]] = {}
        self.problems: list[tuple[int, str]] = []

    def add(self, record: Sequence[tuple[str, Any]], number: int, place: str) -> bool:
        """Take a record, as pairs of names and values, or note what is wrong with it; tell whether it was taken."""
        keys = tuple([name for name, _ in record])
        if keys not in self.kinds:  # most records of a file have the same names
            self.kinds[keys] = self._kind([column_name(name) for name in keys])
        problem, names = self.kinds[keys]
        fields = {}
        for name, (key, value) in zip(names, record, strict=True):
            if name is None or (value is None and name not in self.columns.wanted):
                continue
            fields[name] = as_text(value, name, self.columns)
            if fields[name] is None and problem is None:
                problem = f"{column_name(key)!r} must be text, not {json.dumps(value)}"
        if problem:
            self.problems.append((number, f"{place}: {problem}"))
            return False
        for name, values in self.fields.items():
            value = fields.get(name)
            shared = value is not None and name != "sentence"
            values.append(self.known.setdefault(value, value) if shared else value)
        return True

    def _kind(self, found: list[str]) -> tuple[str | None, list[str | None]]:
        """Return what is wrong with records of these names, and which column each is."""
        if not self.found:
            self.columns = self.columns.fit(found)
            self.names = self.columns.names()
            self.fields = {name: [] for name in self.names.values()}
        self.found |= dict.fromkeys(found)
        problem = dataclasses.replace(
            self.columns,  # a record may lack what is optional, also where the user says what it is called
            called={name: asked for name, asked in self.columns.called.items() if column_name(asked) in found}
            | {name: asked for name, asked in self.columns.called.items() if name in self.columns.wanted},
        ).problem(found)
        return problem, [self.names.get(name) for name in found]

    def records(self, source: str, place: Callable[[int], str], remarks: tuple[str, ...] = ()) -> Records:
        """Return what was taken.

        Raises:
          ConceptDataError: no record has a column that the user named.
        """
        wanted = self.columns.wanted
        if self.found and not self.problems:
            if problem := self.columns.problem(list(self.found)):
                raise ConceptDataError(f"{source}: {problem}")
        kept = {
            name: text_column(values)
            for name, values in self.fields.items()
            if name in wanted or any(value is not None for value in values)
        }
        unread, read = self.columns.unread(tuple(self.found)), tuple(name for name in self.found if name in self.names)
        return Records(source, kept, place, unread, tuple(self.problems), remarks, read)


def _check_header(place: str, columns: Columns, header: Sequence[str], suffix: str) -> None:
    problem = columns.problem([column_name(name) for name in header])
    if problem is None:
        return
    wanted = {name for name, column in columns.names().items() if column in columns.wanted}
    save = "save it with commas as .csv (Excel: 'CSV UTF-8'; pandas: to_csv without sep=), or with tabs as .tsv"
    for delimiter, name in _NAMES.items():
        for field in header:
            if delimiter in field and wanted <= {column_name(part.strip('"')) for part in field.split(delimiter)}:
                problem += f"; its fields seem to be separated by {name}: {save}"
    raise ConceptDataError(f"{place}: {problem}")
