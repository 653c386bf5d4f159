"""Records of tables that aren't text: data frames, Parquet files, workbooks, and Hugging Face datasets."""

import array
import importlib
import io
import itertools
import json
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from expertlens_jax.data.records import Columns, Records, as_text, column_name, text_column
from expertlens_jax.data.text import TextFile
from expertlens_jax.errors import ConceptDataError

_BATCH = 50_000  # rows at a time, so that a long table is never there twice
_HUB_ID = re.compile(r"[\w.-]+/[\w-]+")
HUB = "hf://datasets/"
_EXTRAS = {"pyarrow": "parquet", "openpyxl": "xlsx", "datasets": "datasets"}

Batch = tuple[Sequence[int], dict[int, Sequence[Any]], Callable[[int], bool]]
"""Numbers of rows, their values by the column's place, and whether one has any content, in whatever column."""


def read_frame(frame: pd.DataFrame, columns: Columns, source: str = "the data frame") -> Records:
    """Read a data frame's records; rows are numbered from 0 in messages, as `iloc` does.

    Raises:
      ConceptDataError: it lacks a column.
    """

    def batches(read: Sequence[int]) -> Iterator[Batch]:
        for start in range(0, len(frame), _BATCH):
            part = frame.iloc[start : start + _BATCH]
            values = {place: part.iloc[:, place].astype(object).tolist() for place in read}
            yield range(start, start + len(part)), values, lambda row, part=part: _has_content(part.iloc[row])

    return _collect(source, [str(name) for name in frame.columns], batches, columns, _row_of(source))


def read_parquet(file: TextFile, columns: Columns) -> Records:
    """Read a Parquet file's records; rows are numbered from 0 in messages.

    Raises:
      ConceptDataError: it can't be read, or lacks a column; or pyarrow isn't installed.
    """
    pyarrow = needed("pyarrow", f"{file} is a Parquet file", "save it as .csv")
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        table = parquet.ParquetFile(io.BytesIO(file.read_bytes()))
    except (pyarrow.ArrowException, OSError) as problem:
        raise ConceptDataError(f"{file}: not a Parquet file: {problem}") from None
    names = table.schema_arrow.names

    def batches(read: Sequence[int]) -> Iterator[Batch]:
        start = 0
        for part in table.iter_batches(batch_size=_BATCH):
            values = {place: part.column(place).to_pylist() for place in read}
            yield (
                range(start, start + part.num_rows),
                values,
                lambda row, part=part: _has_content(column[row].as_py() for column in part.columns),
            )
            start += part.num_rows

    return _collect(str(file), names, batches, columns, _row_of(str(file)))


def read_workbook(file: TextFile, columns: Columns, *, sheet: str | None = None) -> Records:
    """Read the records of a workbook's sheet, with the names of its columns in the first row that has any content.

    Numbers and truth values stand there as a spreadsheet shows them: a concept 7 is "7".

    Args:
      file: `.xlsx`.
      columns: that are read.
      sheet: its name; by default the first that has any content, and others that have are told.

    Raises:
      ConceptDataError: it can't be read, has no such sheet, or lacks a column; or openpyxl isn't installed.
    """
    openpyxl = needed("openpyxl", f"{file} is a workbook", "save it as .csv (Excel: 'CSV UTF-8')")
    try:
        book = openpyxl.load_workbook(io.BytesIO(file.read_bytes()), read_only=True, data_only=True)
    except Exception as problem:  # zipfile, xml and openpyxl each have their own
        raise ConceptDataError(f"{file}: not a workbook (.xlsx): {problem}") from None
    sheets = {each.title: each for each in book.worksheets}
    if sheet is not None and sheet not in sheets:
        raise ConceptDataError(f"{file}: no sheet {sheet!r}; there is {', '.join(map(repr, sheets))}")
    full = [name for name, each in sheets.items() if any(any(map(_cell, row)) for row in _rows(each))]
    name = sheet if sheet is not None else next(iter(full), next(iter(sheets)))
    rows = ((number, [_cell(value) for value in row]) for number, row in enumerate(_rows(sheets[name]), 1))
    rows = ((number, row) for number, row in rows if any(row))
    line, header = next(rows, (1, []))
    while header and not header[-1]:
        header.pop()
    others = [each for each in full if each != name]
    remark = f"{file}: sheet {name!r} was read, and not {', '.join(map(repr, others))}; sheet= names another"

    def batches(read: Sequence[int]) -> Iterator[Batch]:
        yield from _batched(rows, read)  # none without content

    if not header:
        return Records(f"{file}, sheet {name!r}", {each: text_column([]) for each in columns.wanted}, str)
    return _collect(
        str(file),
        header,
        batches,
        columns,
        lambda number: f"{file}:{number}",
        remarks=(remark,) if others and sheet is None else (),
        header_at=f"{file}:{line}",
    )


def read_dataset(dataset: Any, columns: Columns, source: str = "the dataset") -> Records:
    """Read a Hugging Face dataset's records; class labels that stand for concepts are read by their names.

    Args:
      dataset: a `datasets.Dataset` or `IterableDataset`; only its methods are used, so that the package needn't be
        there.
      columns: that are read.
      source: what messages call it.

    Raises:
      ConceptDataError: it lacks a column.
    """
    names = list(dataset.column_names or next(iter(dataset), {}))  # a stream may not say before its first record
    asked = columns.fit([column_name(name) for name in names]).names()
    classes = {}
    for place, name in enumerate(names):
        labels = getattr((dataset.features or {}).get(name), "names", None)
        if labels and asked.get(column_name(name)) in ("concept", "domain"):
            classes[place] = list(labels)

    def batches(read: Sequence[int]) -> Iterator[Batch]:
        start = 0
        part = dataset.select_columns([names[place] for place in read]).with_format(None)
        for batch in part.iter(batch_size=_BATCH):
            values: dict[int, Sequence[Any]] = {place: list(batch[names[place]]) for place in read}
            for place in classes.keys() & values.keys():
                values[place] = [_class_name(each, classes[place]) for each in values[place]]
            number = len(next(iter(values.values())))
            yield range(start, start + number), values, lambda row: True  # other columns may be pictures or sound
            start += number

    return _collect(source, names, batches, columns, _row_of(source))


def _class_name(value: Any, names: Sequence[str]) -> Any:
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value


def is_dataset(value: Any) -> bool:
    """Return whether this is a Hugging Face dataset, by what it can do."""
    return all(hasattr(value, name) for name in ("column_names", "features", "iter", "select_columns"))


def is_hub_id(name: str) -> bool:
    """Return whether a name that is no file's may be a dataset's on the hub, as "owner/name".

    One with a dot in it would look like a file's: it is called "hf://datasets/owner/na.me".
    """
    return bool(_HUB_ID.fullmatch(name))


def load_hub_dataset(name: str, split: str | None) -> Any:
    """Load a dataset of the Hugging Face hub.

    Args:
      name: "owner/name", or the same after "hf://datasets/".
      split: such as "train"; None where there is one.

    Raises:
      ConceptDataError: the package `datasets` isn't installed, there is no such dataset, or it can't be reached, or it
        has several splits and none is named.
    """
    name = name.removeprefix(HUB)
    datasets = needed("datasets", f"{name!r} is no file here, and to read it from the Hugging Face hub", "give a file")
    try:
        splits = list(datasets.get_dataset_split_names(name))
        if split is None and len(splits) != 1:
            raise ConceptDataError(f"{name!r} has the splits {', '.join(splits)}; say which, as split={splits[0]!r}")
        if split is not None and split not in splits:
            raise ConceptDataError(f"{name!r} has no split {split!r}; it has {', '.join(splits)}")
        return datasets.load_dataset(name, split=split or splits[0])
    except ConceptDataError:
        raise
    except Exception as problem:  # of the network, the hub, or the dataset's own files
        said = " ".join(str(problem).split()) or type(problem).__name__
        raise ConceptDataError(
            f"{name!r} is no file here, and the Hugging Face hub gave no such dataset: {said} (If it has several "
            "configurations or needs other settings, load it with datasets.load_dataset, and give what that returns.)"
        ) from None


def needed(package: str, what: str, otherwise: str) -> types.ModuleType:
    """Import a package that only some files need.

    Raises:
      ConceptDataError: it isn't installed; the message says what needs it, and what else would do.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ConceptDataError(
            f"{what}, which needs the package {package}: pip install 'expertlens-jax[{_EXTRAS[package]}]'; "
            f"or {otherwise}"
        ) from None


def _row_of(source: str) -> Callable[[int], str]:
    return lambda number: f"{source}, row {number}"


def _has_content(values: Iterable[Any]) -> bool:
    return not all(_is_missing(value) or (isinstance(value, str) and not value.strip()) for value in values)


def _rows(sheet: Any) -> Iterator[tuple[Any, ...]]:
    """Return a sheet's rows; a chart's sheet has none."""
    return sheet.iter_rows(values_only=True) if hasattr(sheet, "iter_rows") else iter(())


def _cell(value: Any) -> str:
    """Return a cell's content as the spreadsheet shows it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _batched(rows: Iterable[tuple[int, list[str]]], read: Sequence[int]) -> Iterator[Batch]:
    while batch := list(itertools.islice(rows, _BATCH)):
        numbers = [number for number, _ in batch]
        values: dict[int, Sequence[Any]] = {
            place: [row[place] if place < len(row) else "" for _, row in batch] for place in read
        }
        yield numbers, values, lambda row: True


def _collect(
    source: str,
    header: Sequence[str],
    batches: Callable[[Sequence[int]], Iterator[Batch]],
    columns: Columns,
    place_at: Callable[[int], str],
    *,
    remarks: tuple[str, ...] = (),
    header_at: str | None = None,
) -> Records:
    """Return the records of a table that comes in batches; what isn't text is told, row by row.

    Args:
      source: what messages call the table.
      header: all its columns.
      batches: of the columns at these places, the rows.
      columns: that are read.
      place_at: where the row with a number stands.
      remarks: what the user should know of it.
      header_at: where the header stands.
    """
    found = [column_name(name) for name in header]
    columns = columns.fit(found)
    problem = columns.problem(found)
    if problem:
        raise ConceptDataError(f"{header_at or source}: {problem}")
    names: Mapping[str, str] = columns.names()
    kept = {place: names[name] for place, name in enumerate(found) if name in names}
    fields: dict[str, list[str]] = {name: [] for name in kept.values()}
    known: dict[str, str] = {}  # what is the same in many rows is held once
    numbers_kept, problems = array.array("q"), []
    for numbers, values, has_content in batches(tuple(kept)):
        left_out: set[int] = set()
        texts = {}
        for place, name in kept.items():
            texts[name], bad = _texts(values[place], name, columns)
            for row in bad:
                number = int(numbers[row])
                shown = _shown(values[place][row])
                problems.append((number, f"{place_at(number)}: {found[place]!r} must be text, not {shown}"))
            left_out.update(bad)
        blank = (row for row, texts_of_row in enumerate(zip(*texts.values(), strict=True)) if not any(texts_of_row))
        left_out.update([row for row in blank if not has_content(row)])
        for name, column in texts.items():
            if left_out:
                column = [text for row, text in enumerate(column) if row not in left_out]
            fields[name] += column if name == "sentence" else [known.setdefault(text, text) for text in column]
        numbers_kept.extend(int(number) for row, number in enumerate(numbers) if row not in left_out)
    return Records(
        source,
        {name: text_column(values) for name, values in fields.items()},
        lambda row: place_at(numbers_kept[row]),
        unread=columns.unread(found),
        problems=tuple(problems),
        remarks=remarks,
        read=tuple(found[place] for place in kept),
    )


def _texts(values: Sequence[Any], name: str, columns: Columns) -> tuple[list[str], list[int]]:
    """Return a column's values as text, "" where there are none, and the rows of those that aren't text."""
    texts, bad = [], []
    for row, value in enumerate(values):
        text = "" if _is_missing(value) else as_text(value, name, columns)
        if text is None:
            bad.append(row)
        texts.append(text or "")
    return texts, bad


def _is_missing(value: Any) -> bool:
    """Return whether a table has nothing there: None, NaN, NaT, pandas' NA."""
    return value is None or (not isinstance(value, str) and np.isscalar(value) and value != value) or value is pd.NA


def _shown(value: Any) -> str:
    try:
        return json.dumps(value)
    except TypeError:
        return repr(value)
