"""Responses as one labelled array: a number a sentence and unit, with where each unit stands beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from expertlens_jax.cards import Card, counted, listed, shortened
from expertlens_jax.errors import ResponsesError
from expertlens_jax.models.provenance import Provenance, read_provenance

DIMENSIONS = ("sentence", "unit")
UNIT_COLUMNS = ("layer", "site", "channel", "expert", "hf_module", "hf_channel")
"""The columns of a table of units, in order; `expert` where the model is a mixture of experts."""


class Responses(xr.DataArray):
    """What a model's units said to sentences: an `xr.DataArray` float32 over (sentence, unit).

    Its coordinates are the sentences and the units' table: `layer, site, channel, hf_module, hf_channel` of each unit.
    Its attributes say which network it is of, and how it was read. All that xarray does with an array it does with
    these, and gives back these: `.sel(sentence=...)`, `.where(...)`, `.to_netcdf(path)`, `.to_dataset(name="z")`.

    >>> import expertlens_jax as el
    >>> responses = el.record_responses(el.load_model("lenslet-2m"), ["A dog ran.", "A cat sat there."])
    >>> late = responses.isel(unit=responses.layer.values == 3)
    >>> late.sel(sentence="A dog ran.").sizes["unit"], sorted(set(late.units["layer"]))
    (1152, [3])

    An array that was read from a file, or is of your own making, becomes responses by `Responses(array)`; one that has
    no labels yet by `Responses.of(values, units, model, sentences)`.
    """

    __slots__ = ()

    @classmethod
    def of(
        cls,
        values: np.ndarray,
        units: pd.DataFrame,
        model: str,
        sentences: Sequence[str],
        provenance: Provenance | None = None,
    ) -> Responses:
        """Return labelled responses.

        Args:
          values: `[sentences, units]`; not copied.
          units: a row per unit, as `model.units` has them: `layer, site, channel, hf_module, hf_channel`.
          model: the model's name.
          sentences: `[sentences]` texts.
          provenance: which network they are of, and how it was read; None for responses of your own making.

        Raises:
          ResponsesError: values, units and sentences don't fit together.
        """
        values = np.asarray(values)
        if values.ndim != 2 or values.shape[0] != len(sentences):
            raise ResponsesError(
                f"responses of shape {list(values.shape)} were given for {counted(len(sentences), 'sentence')}; wanted "
                "a row for each sentence, and a column for each unit."
            )
        if len(units) != values.shape[1]:
            raise ResponsesError(
                f"the units' table has {counted(len(units), 'row')}, the responses "
                f"{counted(values.shape[1], 'column')}; wanted a row for each column, in the same order."
            )
        read = {} if provenance is None else provenance.attributes()
        beside = {name: ("unit", as_column(units[name])) for name in UNIT_COLUMNS if name in units}
        return cls(
            values,
            dims=DIMENSIONS,
            coords={"sentence": as_text(sentences), "unit": np.asarray(units.index), **beside},
            name="response",
            attrs={"model": model, **read},
        )

    @property
    def units(self) -> pd.DataFrame:
        """A row per unit: `layer, site, channel, hf_module, hf_channel`."""
        there = [name for name in UNIT_COLUMNS if name in self.coords]
        columns: dict[str, Any] = {name: _plain(self.coords[name].values) for name in there}
        if "site" in columns:
            columns["site"] = pd.Categorical(columns["site"], categories=list(dict.fromkeys(columns["site"])))
        return pd.DataFrame(columns, index=pd.Index(_plain(self.coords["unit"].values)))

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.attrs.get("model", "an unnamed model"))

    @property
    def sentences(self) -> tuple[str, ...]:
        """`[sentences]`, in the order of the rows."""
        return tuple(map(str, self.coords["sentence"].values))

    @property
    def provenance(self) -> Provenance | None:
        """Which network they are of, and how it was read; None for responses of your own making."""
        return read_provenance(self.attrs)

    @property
    def _card(self) -> Card:
        counts = self.units["site"].astype(str).value_counts(sort=False)
        layers, values, sentences = self.units["layer"], self.values, self.sentences
        read = self.provenance
        return Card(
            f"Responses of {self.model}: {counted(len(sentences), 'sentence')} x {counted(len(layers), 'unit')}",
            {
                "units": listed([f"{site} {count:,}" for site, count in counts.items()], most=20),
                "layers": f"{layers.min()} to {layers.max()}" if len(layers) else "",
                "values": f"{values.dtype}, {values.nbytes / 1e6:,.1f} MB",
                "pooled": "" if read is None else f"{read.pooling} over tokens",
                "steered": "" if read is None else shortened(read.steering, 200),
                "sentences": listed([repr(shortened(each)) for each in sentences[:2]])
                + (" ..." if len(sentences) > 2 else ""),
            },
            more="numbers: .values [sentences, units]; .units tells where each stands",
        )

    @property
    def _whole(self) -> bool:
        return self.dims == DIMENSIONS and {"sentence", "layer", "site"} <= set(self.coords)

    def __repr__(self) -> str:
        return self._card.text() if self._whole else super().__repr__()

    def _repr_html_(self) -> str:
        return self._card.html() if self._whole else super()._repr_html_()


def as_responses(given: object) -> Responses:
    """Return responses as such: those of `record_responses`, or the same read from a file as an `xr.DataArray`.

    Raises:
      ResponsesError: it isn't an array over (sentence, unit) that names its sentences and its units' places.
    """
    if not isinstance(given, xr.DataArray):
        raise ResponsesError(
            f"a {type(given).__name__} was given for responses; wanted what el.record_responses returns, or the "
            "xr.DataArray that it was saved as."
        )
    needed = {"sentence", "layer", "site", "channel"}
    if set(given.dims) != set(DIMENSIONS) or not needed <= set(given.coords):
        raise ResponsesError(
            f"an array over {', '.join(map(str, given.dims)) or 'nothing'} with coordinates "
            f"{', '.join(map(str, given.coords)) or 'none'} was given for responses; wanted one over sentence and unit "
            f"that has {', '.join(sorted(needed))} beside it. Take a part with .isel(unit=[...]), which keeps both."
        )
    given = given.transpose(*DIMENSIONS)
    return given if isinstance(given, Responses) else Responses(given)


def _plain(values: np.ndarray) -> np.ndarray:
    # Files have types of their own: netCDF 3 no integers of 64 bits, zarr text of any length.
    return values.astype(np.int64 if np.issubdtype(values.dtype, np.integer) else object)


def as_column(values: pd.Series) -> np.ndarray:
    """Return a column of the units' table as a coordinate."""
    return values.to_numpy() if pd.api.types.is_numeric_dtype(values) else as_text(values.tolist())


def as_text(strings: Sequence[str]) -> np.ndarray:
    """Return texts as objects: zarr's format specifies text of any length, and numpy's of fixed length isn't in it."""
    return np.asarray(list(strings), dtype=object)
