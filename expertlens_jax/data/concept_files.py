"""Concepts as rows of a table, and as a file of these, from which they are read back as they were."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from etils import epath

from expertlens_jax.data.gathering import EVERY, NO_WORD, UNUSED
from expertlens_jax.data.records import suffix_of
from expertlens_jax.data.tables import needed
from expertlens_jax.errors import ConceptDataError

if TYPE_CHECKING:
    from expertlens_jax.data.concept_dataset import ConceptDataset

_WRITABLE = (".csv", ".tsv", ".jsonl", ".parquet")
_BROKEN = re.compile("[\0\ud800-\udfff]")


def to_rows(dataset: ConceptDataset) -> pd.DataFrame:
    """Return a dataset as a table; see `ConceptDataset.to_frame`.

    Raises:
      ConceptDataError: no table can hold it.
    """
    _check_writable(dataset)
    labels, own, pool = dataset.labels, dataset.own_negatives, dataset.negative_pool
    serves = labels if own is None else labels | own
    # Sentence by sentence, so that both orders are those in which they appear, where that can be.
    columns, rows = np.nonzero(serves.T)
    concepts = np.array([*dataset.concepts, EVERY], object)
    label = np.where(labels[rows, columns], "1", "0").astype(object)
    unserving = ~serves.any(0)
    told_pool = bool((pool != labels.any(0)).any() or unserving.any())
    if told_pool:
        every = np.flatnonzero(pool | unserving)
        unused = ~pool[every]
        if not len(every):  # nothing is in the pool, which has to be said somewhere
            every, unused = np.zeros(1, int), np.ones(1, bool)
        columns, rows = np.concatenate([columns, every]), np.concatenate([rows, np.full(len(every), -1)])
        label = np.concatenate([label, np.where(unused, UNUSED, "0").astype(object)])
        order = np.argsort(columns, kind="stable")
        columns, rows, label = columns[order], rows[order], label[order]
    numbered = False
    if list(dict.fromkeys(rows[rows >= 0])) != list(range(len(dataset.concepts))):
        numbered = True
        order = np.argsort(np.where(rows < 0, len(dataset.concepts), rows), kind="stable")
        columns, rows, label = columns[order], rows[order], label[order]
    sentences = np.array([*dataset.sentences, None], object)[:-1]
    frame = pd.DataFrame({"concept": concepts[rows], "sentence": sentences[columns]}, dtype=object)

    def of_each(values: tuple[str, ...]) -> np.ndarray:
        return np.array([*values, ""], object)[rows]

    if any(dataset.domains):
        frame["domain"] = of_each(dataset.domains)
    if own is not None or told_pool:
        frame["label"] = label
    if dataset.words:
        frame["word"] = of_each(tuple(word or NO_WORD for word in dataset.words))
    if dataset.forms:
        frame["forms"] = of_each(tuple("|".join(forms) for forms in dataset.forms))
    if dataset.languages:
        frame["language"] = of_each(dataset.languages)
    if numbered:
        frame["sentence_number"] = columns.astype(str).astype(object)
    return frame


def write_rows(frame: pd.DataFrame, path: epath.PathLike) -> epath.Path:
    """Write a table as a file, and return its path.

    Raises:
      ConceptDataError: a suffix that isn't written, or text that the file can't hold.
    """
    file = epath.Path(path).expanduser()
    suffix = suffix_of(file.name)
    if suffix not in _WRITABLE:
        raise ConceptDataError(f"{file}: can't write a {suffix or 'suffixless'} file; give {', '.join(_WRITABLE)}")
    if suffix == ".parquet":
        needed("pyarrow", f"{file} is a Parquet file", "save it as .csv")
        written = io.BytesIO()
        frame.to_parquet(written, index=False)
        content = written.getvalue()
    elif suffix == ".jsonl":
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in frame.to_dict("records"))
        content = "".join(lines).encode()
    else:
        content = _as_text(frame, file, suffix).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def _as_text(frame: pd.DataFrame, file: epath.Path, suffix: str) -> str:
    out = io.StringIO(newline="")
    if suffix == ".csv":
        # Python 3.11 leaves a lone "\r" without the quotes that it needs.
        returns = any("\r" in value for column in frame for value in frame[column])
        how = csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL
        csv.writer(out, lineterminator="\n", quoting=how).writerows([frame.columns, *frame.itertuples(index=False)])
        return out.getvalue()
    for number, row in enumerate(frame.itertuples(index=False)):
        if any(re.search("[\t\r\n]", value) for value in row):
            raise ConceptDataError(
                f"{file}: a .tsv file can't hold the tab or line end of row {number}: {list(row)}; save it as .csv, "
                ".jsonl or .parquet"
            )
    # Where there are quotes, all fields are in quotes, by which they are read back.
    quoted = any('"' in value for column in frame for value in frame[column])
    quoting: dict[str, Any] = {"quoting": csv.QUOTE_ALL} if quoted else {"quoting": csv.QUOTE_NONE, "quotechar": None}
    csv.writer(out, delimiter="\t", lineterminator="\n", **quoting).writerows(
        [frame.columns, *frame.itertuples(index=False)]
    )
    return out.getvalue()


def _check_writable(dataset: ConceptDataset) -> None:
    """Refuse what can't be read back from a table as it is.

    Raises:
      ConceptDataError: the message names the first such thing.
    """
    if EVERY in dataset.concepts:
        raise ConceptDataError(f"a concept can't be called {EVERY!r} in a table, where that stands for all of them")
    serves = dataset.labels if dataset.own_negatives is None else dataset.labels | dataset.own_negatives
    empty = [concept for concept, row in zip(dataset.concepts, serves, strict=True) if not row.any()]
    if empty or not dataset.sentences:
        raise ConceptDataError(
            f"a table has a row a sentence, and {', '.join(map(repr, empty)) or repr(dataset.name)} has none"
        )
    words = [word for word in dataset.words if word]
    forms = [form for each in dataset.forms for form in each]
    for form in forms:
        if "|" in form:
            raise ConceptDataError(f"a table has forms between '|', and so can't hold {form!r}")
    for kind, texts in (
        ("name", dataset.concepts),
        ("sentence", dataset.sentences),
        ("domain", dataset.domains),
        ("word", words),
        ("form", forms),
    ):
        for text in texts:
            if text != text.strip() or (not text and kind != "domain") or _BROKEN.search(text):
                raise ConceptDataError(
                    f"the {kind} {text!r} is empty, has spaces around it, or characters that aren't text; a table "
                    "can't hold it as it is"
                )
            if kind == "word" and not any(map(str.isalnum, text)):
                raise ConceptDataError(
                    f"the word {text!r} has no letter or digit, by which a table says that there is none"
                )
