"""Responses are an xarray array with labels, through files, pickles and selections."""

import pickle

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import expertlens_jax as el
from expertlens_jax.errors import ResponsesError
from expertlens_jax.experts.labelled_responses import Responses, as_responses

SENTENCES = (
    "The cat sat.",
    "A dog ran off.",
    "Rain fell on us.",
    "Ein Übel: rain.",
    "A cat again?",
    "No dog is here.",
)


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def responses(model):
    return el.record_responses(model, SENTENCES, sites=("attn.v", "mlp.act"))


def same(got: xr.DataArray, want: Responses) -> None:
    got = as_responses(got)
    np.testing.assert_array_equal(got.values, want.values)
    assert got.values.dtype == np.float32
    pd.testing.assert_frame_equal(got.units, want.units)
    assert (got.sentences, got.model, got.provenance) == (want.sentences, want.model, want.provenance)


def test_units_are_the_models(model, responses):
    recorded = model.units[model.units["site"].isin(["attn.v", "mlp.act"])]
    everything = el.record_responses(model, SENTENCES[:1])
    own = everything.units.astype({"site": str})
    pd.testing.assert_frame_equal(own, model.units.astype({"site": str}))
    assert len(responses.units) >= len(recorded) and responses.dims == ("sentence", "unit")
    assert responses.sel(sentence="A cat again?").values.tolist() == responses.values[4].tolist()


def test_selections_are_responses(responses):
    late = responses.isel(unit=responses["layer"].values == 1)
    assert isinstance(late, Responses) and late.provenance == responses.provenance
    keep = (responses.units["layer"] == 1).to_numpy()
    np.testing.assert_array_equal(late.values, responses.values[:, keep])
    assert late.units["layer"].unique().tolist() == [1] and "Responses of lenslet-2m: 6 sentences" in repr(late)
    assert "Responses" not in repr(late.isel(sentence=0)).splitlines()[0].replace("<xarray.Responses", "")
    np.testing.assert_array_equal(late.T.values, late.values.T)
    same(late.T, late)


@pytest.mark.parametrize("kept", ["netcdf", "zarr", "pickle", "dataset"])
def test_they_come_back_from_files(responses, kept, tmp_path):
    if kept == "netcdf":
        responses.to_netcdf(tmp_path / "responses.nc")
        back = xr.load_dataarray(tmp_path / "responses.nc")
    elif kept == "zarr":
        responses.to_zarr(str(tmp_path / "responses.zarr"), consolidated=False)
        back = xr.open_dataarray(str(tmp_path / "responses.zarr"), engine="zarr", consolidated=False).load()
    elif kept == "pickle":
        back = pickle.loads(pickle.dumps(responses))
        assert isinstance(back, Responses)
    else:
        back = responses.to_dataset(name="z")["z"]
    same(back, responses)


def test_pandas_has_them(responses):
    frame = responses.isel(unit=slice(0, 3)).to_pandas()
    assert frame.loc["A cat again?"].tolist() == responses.values[4, :3].tolist()


def test_read_from_a_file_they_are_ranked_as_before(responses, tmp_path):
    concepts = el.load_concepts(_write_concepts(tmp_path), minimum_sentences=2)
    responses.to_netcdf(tmp_path / "responses.nc")
    back = xr.load_dataarray(tmp_path / "responses.nc")
    want = el.measure_expertise(responses, concepts)
    xr.testing.assert_identical(el.measure_expertise(back, concepts), want)
    pd.testing.assert_frame_equal(
        el.top_sentences(back, "L0 attn.v 2", 3), el.top_sentences(responses, "L0 attn.v 2", 3)
    )
    xr.testing.assert_identical(el.measure_distributions(want, back, concepts), want)


def _write_concepts(folder):
    rows = zip(("cat", "dog", "rain", "rain", "cat", "dog"), SENTENCES, strict=True)
    file = folder / "pets.tsv"
    file.write_text("concept\tsentence\tword\n" + "".join(f"{name}\t{text}\t\n" for name, text in rows))
    return file


def test_arrays_of_your_own_become_responses(responses):
    units = responses.units.head(2)
    made = Responses.of(np.ones((1, 2), np.float32), units, "mine", ["a cat"])
    assert (made.model, made.provenance, made.sentences) == ("mine", None, ("a cat",))
    again = as_responses(xr.DataArray(made))
    same(again, made)


def test_what_is_not_responses_is_refused(responses):
    units = responses.units
    with pytest.raises(ResponsesError, match="the units' table has 2 rows, the responses 3 columns; wanted a row for"):
        Responses.of(np.ones((1, 3)), units.head(2), "mine", ["a"])
    with pytest.raises(ResponsesError, match=r"responses of shape \[1, 2\] were given for 2 sentences; wanted"):
        Responses.of(np.ones((1, 2)), units.head(2), "mine", ["a", "b"])
    with pytest.raises(ResponsesError, match="a ndarray was given for responses; wanted what el.record_responses"):
        as_responses(np.ones((2, 2)))
    with pytest.raises(ResponsesError, match="an array over sentence with coordinates .* wanted one over sentence and"):
        as_responses(responses.isel(unit=0))
    with pytest.raises(ResponsesError, match="that has channel, layer, sentence, site beside it"):
        as_responses(responses.drop_vars("layer"))
