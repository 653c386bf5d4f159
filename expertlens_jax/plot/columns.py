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
