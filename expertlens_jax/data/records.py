"""Records of a user's file: tab- or comma-separated, or a JSON object a line; every line that doesn't fit is named."""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from expertlens_jax.data.text import TextFile, read_text
from expertlens_jax.errors import ConceptDataError

_DELIMITERS = {".tsv": "\t", ".csv": ","}
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


@dataclasses.dataclass(frozen=True)
class Records:
    """What a file holds.

    Attributes:
      rows: each record's line number, and its fields by column, as stripped text.
      columns: the columns that were read.
      unread: the columns that weren't, other than row numbers.
      problems: what is wrong with lines, each with file and line; their records aren't among the rows.
      remark: how the file's quotes were read, and how to say otherwise, where they may be read in two ways; else "".
    """

    rows: list[tuple[int, dict[str, str]]]
    columns: tuple[str, ...]
    unread: tuple[str, ...]
    problems: list[str]
    remark: str = ""


def read_records(
    file: TextFile, wanted: Sequence[str], optional: Sequence[str] = (), *, quoted: bool | None = None
) -> Records:
    """Read a file's records.

    Columns are told by name, whatever its case and the spaces around it. Rows without any content are passed over.

    Args:
      file: `.tsv`, `.csv`, `.jsonl`, or `.txt` where sentences are all that is wanted.
      wanted: columns that must be there.
      optional: columns that are read where they are.
      quoted: whether fields are in quotes, with their own quotes doubled, as spreadsheets and pandas write them, or
        hold their quotes as they are. None: a `.csv` file is quoted; a `.tsv` file is if all of it says so.

    Raises:
      ConceptDataError: the file can't be read at all, or lacks a column. The message names file and line.
    """
    suffix = "." + file.name.rpartition(".")[2].lower() if "." in file.name else ""
    plain = tuple(wanted) == ("sentence",)
    readable = [*_DELIMITERS, ".jsonl", *([".txt"] if plain else [])]
    if suffix not in readable:
        raise ConceptDataError(f"{file}: can't read a {suffix or 'suffixless'} file; give {', '.join(readable)}")
    text = read_text(file, ConceptDataError)
    if suffix == ".jsonl":
        return _read_jsonl(file, text, wanted, optional)
    if suffix == ".txt":
        lines = enumerate(io.StringIO(text, newline=None), 1)
        rows = [(line, {"sentence": sentence.strip()}) for line, sentence in lines if sentence.strip()]
        return Records(rows, ("sentence",), (), [])
    problems: list[str] = []
    remark = ""
    if suffix == ".tsv" and quoted is None:
        quoted, remark = _is_quoted(text)
        remark = f"{file}: {remark}. {_SAY_QUOTED}" if remark else ""
    lines = list(_split_rows(file, text, suffix, quoted is None or quoted, problems))
    if not lines:
        return Records([], tuple(wanted), (), problems)
    (line, header), *lines = lines
    columns = [_column(name) for name in header]
    _check_header(f"{file}:{line}", wanted, optional, header, suffix)
    rows = []
    for line, fields in lines:
        while len(fields) > len(columns) and not fields[-1]:
            fields = fields[:-1]
        if len(fields) != len(columns):
            problems.append(
                f"{file}:{line}: {len(fields)} fields, but the header names {len(columns)}: {', '.join(columns)}"
            )
            continue
        rows.append((line, {name: field for name, field in zip(columns, fields, strict=True)}))
    known = [name for name in columns if name in (*wanted, *optional)]
    unread = tuple(name for name in dict.fromkeys(columns) if name not in known and not _ROW_NUMBERS.fullmatch(name))
    rows = [(line, {name: record[name] for name in known}) for line, record in rows]
    return Records(rows, tuple(known), unread, problems, remark)


def check_no_problems(file: TextFile, problems: Sequence[str]) -> None:
    """Check that a file has no problems; tell all of them in one message.

    Raises:
      ConceptDataError: there is one or more.
    """
    if len(problems) == 1:
        raise ConceptDataError(problems[0])
    if problems:
        listed = "\n  ".join(problems[:_MOST_PROBLEMS])
        more = f"\n  ... and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
        raise ConceptDataError(f"{file}: {len(problems)} problems:\n  {listed}{more}")


def _column(name: str) -> str:
    return " ".join(name.split()).lower()


def _split_rows(
    file: TextFile, text: str, suffix: str, quoted: bool, problems: list[str]
) -> Iterator[tuple[int, list[str]]]:
    """Yield each row's first line and its fields, stripped; what is no row goes to the problems and ends it."""
    # With skipinitialspace a quote after a comma and a space opens a field, as whoever typed it meant.
    quoting = {"strict": True, "skipinitialspace": True} if quoted else {"quoting": csv.QUOTE_NONE}
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_DELIMITERS[suffix], **quoting)
    while True:
        line = reader.line_num + 1  # where the row starts: a quoted field may run over several lines
        try:
            row = [field.strip() for field in next(reader)]
        except StopIteration:
            return
        except csv.Error as problem:
            problems.append(
                f"{file}:{line}: not a {suffix} row: {problem}; a field in quotes has its own quotes doubled"
            )
            return
        if any(row):
            yield line, row


def _is_quoted(text: str) -> tuple[bool, str]:
    """Tell whether a tab-separated file's fields are quoted as pandas and spreadsheets quote, or hold quotes as text.

    The file itself says it, if all of it can be read as quoted: by quotes that are doubled within quotes, by a header
    or all fields in quotes, or by a line end or tab in quotes without which rows have other numbers of fields than the
    header.

    Returns:
      Whether it is; and what to tell the user where it may be either.
    """
    if '"' not in text:
        return False, ""
    rows: list[list[tuple[str | None, str]]] = []  # fields in quotes, or not
    row: list[tuple[str | None, str]] = []
    place = 0
    looks_quoted = 0
    while place < len(text) or row:
        match = _FIELD.match(text, place)
        if match is None:
            break
        row.append((match.group(1), match.group(2) or ""))
        place = match.end()
        if match.group(3) != "\t":
            if any(inside or outside.strip() for inside, outside in row):
                rows.append(row)
            row = []
    consistent = match is not None and len({len(each) for each in rows}) == 1
    literal_lengths = {
        len(each) for each in csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=3) if each
    }
    if not consistent:
        looks_quoted = len(re.findall(r'(?:^|\t)"[^"\t\r\n]*""[^\t\r\n]*"(?=[\t\r\n]|$)', text, re.MULTILINE))
        if not looks_quoted:
            return False, ""
        return False, (
            f"{looks_quoted} fields look quoted, with their own quotes doubled, but others hold quotes as they are: "
            "all quotes were read as part of the text"
        )
    fields = [field for each in rows for field in each]
    inside = [wrapped for wrapped, _ in fields if wrapped is not None]
    runs_on = any(re.search("[\t\r\n]", wrapped) for wrapped in inside)
    doubled = any('""' in wrapped for wrapped in inside)
    if len(literal_lengths) > 1 and runs_on:
        return True, ""
    if not runs_on and (doubled or all(wrapped is not None for wrapped, _ in rows[0])):
        return True, ""
    body = rows[1:]
    all_of_column = any(all(each[place][0] is not None for each in body) for place in range(len(rows[0])) if body)
    commas = [wrapped is not None for wrapped, bare in fields if "," in (bare if wrapped is None else wrapped)]
    spreadsheet = len(inside) > 1 and all(commas) and len(commas) == len(inside)
    if not runs_on and (all_of_column or spreadsheet):
        return True, f"{len(inside)} fields are in quotes, which were taken off"
    return False, f"{len(inside)} fields are in quotes, which were read as part of the text"


def _read_jsonl(file: TextFile, text: str, wanted: Sequence[str], optional: Sequence[str]) -> Records:
    rows, problems = [], []
    read, unread = dict.fromkeys(wanted), {}
    # Not splitlines(): a JSON string may hold U+2028 and its like unescaped.
    for line, content in enumerate(text.split("\n"), 1):
        place = f"{file}:{line}"
        if not content.strip():
            continue
        try:
            record = json.loads(content, object_pairs_hook=lambda pairs: pairs)
        except json.JSONDecodeError as problem:
            problems.append(f"{place}: broken JSON: {problem.msg} at column {problem.colno}")
            continue
        if not content.lstrip().startswith("{"):
            problems.append(f"{place}: wanted a JSON object with {', '.join(wanted)}, not {content!r}")
            continue
        found = [_column(name) for name, _ in record]
        problem = _header_problem(wanted, optional, found)
        fields = {}
        for name, (_, value) in zip(found, record, strict=True):
            if name not in (*wanted, *optional):
                if not _ROW_NUMBERS.fullmatch(name):
                    unread[name] = None
            elif value is not None or name in wanted:
                read[name] = None
                fields[name] = _as_text(name, value)
                if fields[name] is None and problem is None:
                    problem = f"{name!r} must be text, not {json.dumps(value)}"
        if problem:
            problems.append(f"{place}: {problem}")
        else:
            rows.append((line, fields))
    return Records(rows, tuple(read), tuple(unread), problems)


def _as_text(name: str, value: Any) -> str | None:
    """A JSON value as the text that a table would have in its place; None where there is none."""
    if name == "label" and isinstance(value, int | float):
        return str(value)
    if name == "forms" and isinstance(value, list) and all(isinstance(form, str) for form in value):
        value = "|".join(value)
    # A lone surrogate ("\ud83d" without its other half) is a JSON string, but no text.
    if not isinstance(value, str) or re.search("[\ud800-\udfff]", value):
        return None
    return value.strip()


def _check_header(
    place: str, wanted: Sequence[str], optional: Sequence[str], header: Sequence[str], suffix: str
) -> None:
    problem = _header_problem(wanted, optional, [_column(name) for name in header])
    if problem is None:
        return
    save = "save it with commas as .csv (Excel: 'CSV UTF-8'; pandas: to_csv without sep=), or with tabs as .tsv"
    for delimiter, (name, remedy) in {
        "\t": ("tabs", "name it .tsv"),
        ",": ("commas", "name it .csv"),
        ";": ("semicolons", save),
        "|": ("vertical bars", save),
    }.items():
        for field in header:
            if delimiter in field and {*wanted} <= {_column(part.strip('"')) for part in field.split(delimiter)}:
                problem += f"; its fields seem to be separated by {name}: {remedy}"
    raise ConceptDataError(f"{place}: {problem}")


def _header_problem(wanted: Sequence[str], optional: Sequence[str], found: Sequence[str]) -> str | None:
    for name in wanted:
        if name not in found:
            return f"missing column {name!r}; the columns found are {list(found)}"
    for name in (*wanted, *optional):
        if found.count(name) > 1:
            return f"column {name!r} is there twice; the columns found are {list(found)}"
    return None
