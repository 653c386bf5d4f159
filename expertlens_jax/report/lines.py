"""Expert sets along something (steps, sizes, negatives), as a table that people read."""

import pandas as pd


def format_lines(table: pd.DataFrame, along: str) -> str:
    """Return a row per sentence set, statistic and threshold; a column per place along the axis.

    Args:
      table: columns sentences, statistic, ratings, threshold, value, and the one of the axis.
      along: name of that column.
    """
    rows = table[~table["statistic"].isin(["share", "empty"])]
    names = rows["statistic"] + rows["ratings"].fillna("").map(lambda name: f" {name}" if name else "")
    rows = rows.assign(statistic=names, shown=rows["value"].map(_short), τ=rows["threshold"].map("{:g}".format))
    return rows.pivot_table(
        index=["sentences", "statistic", "τ"], columns=along, values="shown", aggfunc="first", sort=False
    ).to_string()


def _short(value: float) -> str:
    """Return three digits, or as many as a whole number has."""
    return "none" if pd.isna(value) else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
