"""What experiments that follow expert sets along something (steps, sizes, negatives) do alike at every threshold."""

from collections.abc import Sequence

import ml_collections
import pandas as pd
import xarray as xr

import expertlens_jax as el
from expertlens_jax.analysis.structure.thresholds import describe_thresholds


def describe(
    expertise: xr.Dataset, config: ml_collections.ConfigDict, ratings: Sequence[el.Ratings], **columns: object
) -> pd.DataFrame:
    """`describe_thresholds` by the config, after columns that tell what it is of."""
    table = describe_thresholds(
        expertise,
        config.thresholds,
        ratings,
        resamples=config.resamples,
        permutations=config.permutations,
        seed=config.seed,
    )
    return label(table, **columns)


def label(table: pd.DataFrame, **columns: object) -> pd.DataFrame:
    """The table with columns of one value before its own."""
    return table.assign(**columns)[[*columns, *(name for name in table.columns if name not in columns)]]


def format_lines(table: pd.DataFrame, along: str) -> str:
    """A row per sentence set, statistic and threshold; a column per place along the axis.

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
    """Three digits, or as many as a whole number has."""
    return "none" if pd.isna(value) else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
