"""What every figure asks of the table that it draws."""

from __future__ import annotations

import pandas as pd

from expertlens_jax.errors import ExpertLensError


def require(table: pd.DataFrame, *columns: str, rows: bool = True) -> None:
    """Refuse a table that lacks a column, or, where `rows` are needed, has none."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ExpertLensError(
            f"the table lacks the columns {missing}; it has {list(table.columns)}, and the figure wants {list(columns)}"
        )
    if rows and table.empty:
        raise ExpertLensError(f"the table of {list(columns)} has no rows: there is nothing to draw")


def require_values(table: pd.DataFrame, column: str, *values: str) -> None:
    """Refuse a table that has no row of one of the values, which the figure draws, in a column."""
    there = list(dict.fromkeys(table[column]))
    missing = [value for value in values if value not in there]
    if missing:
        raise ExpertLensError(
            f"the table has no rows whose {column} is {' or '.join(map(repr, missing))}; there are "
            f"{', '.join(map(repr, there))}. The figure draws {', '.join(map(repr, values))}. Give all."
        )
