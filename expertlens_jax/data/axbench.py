"""AxBench's data sets as concepts: model answers that hold a concept, and answers that hold none."""

import numpy as np
import pandas as pd

from expertlens_jax.data.records import Columns, Records, column_name, text_column

COLUMNS = ("input", "output", "output_concept", "concept_genre", "category", "dataset_category", "concept_id")
"""As the cards of pyvene/axbench-concept10, -concept500, -concept16k and -conceptFD document them."""

_NONE = "EEEEE"  # the concept of an answer that holds none


def is_axbench(names: list[str]) -> bool:
    """Return whether a table's columns are AxBench's."""
    return {*COLUMNS} <= {column_name(name) for name in names}


def axbench_columns(columns: Columns) -> Columns:
    """Return what is read of such a table: as the sentence the answer, unless another column is asked for."""
    called = {"sentence": "output"} | dict(columns.called)
    called |= {"concept": "output_concept", "domain": "concept_genre", "label": "category", "number": "concept_id"}
    return Columns(
        wanted=("concept", "sentence", "domain", "label", "number"),
        called=called,
        labels=("label", "number"),
        passed_over=(*columns.passed_over, *COLUMNS, "sae_link", "sae_id"),
    )


def from_axbench(records: Records) -> Records:
    """Return AxBench's records as concepts, with labels.

    Answers without a concept are negatives of each concept of their genre (text, code, math), as in AxBench's own
    training. Answers that its evaluation calls negative or hard negative (the concept's words in another sense) are
    negatives of the concept with their number. A concept is described, and has no word.
    """
    concept, domain, label, number = (records.columns[name] for name in ("concept", "domain", "label", "number"))
    positive = label == "positive"
    # By its number, the concept of negatives, which name another one; the first positive says a concept's genre.
    positives = pd.DataFrame({"concept": concept, "genre": domain, "number": number})[positive]
    first = positives.drop_duplicates("concept")
    name_of = dict(zip(first["number"], first["concept"], strict=True))
    none = (concept == _NONE) & ~positive
    listed = np.flatnonzero(~none)
    rows, names = [listed], [text_column([name_of.get(number[row], concept[row]) for row in listed])]
    names[0][positive[listed]] = concept[listed][positive[listed]]
    labels = [np.where(positive[listed], "1", np.where(_is_negative(label[listed]), "0", label[listed]))]
    of_genre = {genre: np.flatnonzero(none & (domain == genre)) for genre in pd.unique(domain[none])}
    for each, genre in zip(first["concept"], first["genre"], strict=True):
        shared = of_genre.get(genre, np.zeros(0, int))
        rows.append(shared)
        names.append(text_column([each] * len(shared)))
        labels.append(np.full(len(shared), "0", object))
    rows, names, labels = np.concatenate(rows), np.concatenate(names), np.concatenate(labels).astype(object)
    genre_of = dict(zip(first["concept"], first["genre"], strict=True))
    found = records.take(
        rows,
        concept=names,
        label=labels,
        domain=text_column([genre_of.get(each) for each in names]),
        word=text_column(["-"] * len(rows)),
    )
    found.columns.pop("number")
    return found


def _is_negative(label: np.ndarray) -> np.ndarray:
    return (label == "negative") | (label == "hard negative")
