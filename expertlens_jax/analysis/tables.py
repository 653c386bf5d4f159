"""Tidy tables that grow by parts: of one sentence set, model or condition after another."""

from __future__ import annotations

from typing import Protocol

import pandas as pd
import xarray as xr

from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.models.model import Model


class FindExperts(Protocol):
    """Finds the experts of a model in a sentence set; what analyses of several tables are given.

    `el.find_experts` with a run directory of each table's own is one; `el.record_responses` and `el.measure_expertise`
    after one another make another.
    """

    def __call__(self, model: Model, concepts: ConceptDataset, **changes: object) -> xr.Dataset:
        """Return a table of expertise; `changes` are arguments of `el.find_experts`."""


def label(table: pd.DataFrame, **columns: object) -> pd.DataFrame:
    """Return a table with columns of one value before its own."""
    return table.assign(**columns)[[*columns, *(name for name in table.columns if name not in columns)]]


class Tables:
    """Tables by name, each made of parts."""

    def __init__(self) -> None:
        """Start with none."""
        self._parts: dict[str, list[pd.DataFrame]] = {}

    def add(self, name: str, part: pd.DataFrame, **source: object) -> pd.DataFrame:
        """Add rows to a table, after columns that tell where they are from; return these rows."""
        part = label(part, **source)
        self._parts.setdefault(name, []).append(part)
        return part

    def joined(self) -> dict[str, pd.DataFrame]:
        """Return each table whole."""
        return {name: pd.concat(parts, ignore_index=True) for name, parts in self._parts.items()}
