"""A table's rows, by the names of its columns."""

from collections.abc import Iterable
from typing import Any

import pandas as pd


def each_row(table: pd.DataFrame) -> Iterable[Any]:
    """Return the rows of a table one by one: `row.column`, and `row.Index`.

    They are `table.itertuples()`; pandas' types say that those are tuples and have no fields.

    >>> [row.word for row in each_row(pd.DataFrame({"word": ["cat", "dog"]}))]
    ['cat', 'dog']
    """
    return table.itertuples()


def each_group(table: pd.DataFrame, by: str | list[str], **options: Any) -> Iterable[tuple[Any, pd.DataFrame]]:
    """Return a table's rows by what columns say, in the order of the first: that, as a tuple of several, and the rows.

    They are `table.groupby(by, sort=False)`; pandas' types say that the first is anything that can be hashed.

    >>> [(word, len(rows)) for word, rows in each_group(pd.DataFrame({"word": ["dog", "cat", "dog"]}), "word")]
    [('dog', 2), ('cat', 1)]
    """
    return table.groupby(by, sort=False, **options)
