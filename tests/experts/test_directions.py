"""Directions: those of numpy by hand, beside units by name, compared, masked, and steered along where they can be."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

import expertlens_jax as el
from expertlens_jax.errors import ResponsesError, SelectionError
from expertlens_jax.experts import direction_fits as fits
from expertlens_jax.models.sites import SITES

WORDS = ("cat", "dog", "bread")


@pytest.fixture(scope="module")
def model():
    return el.load_model("lenslet-2m")


@pytest.fixture(scope="module")
def concepts():
    """Short sentences of one length, which compile once."""
    places = ("house", "field", "street", "river", "garden")
    sentences = [f"The {word} was in the {place}." for word in WORDS for place in places]
    labels = np.repeat(np.eye(3, dtype=bool), 5, axis=1)
    return el.ConceptDataset("short", tuple(sentences), WORDS, ("animal", "animal", "food"), labels, np.ones(15, bool))


@pytest.fixture(scope="module")
def responses(model, concepts):
    return el.record_responses(model, concepts.sentences, sites=("mlp.up", "resid"), pooling="mean")


@pytest.fixture(scope="module")
def directions(model, concepts):
    return el.find_directions(model, concepts)


def test_a_mean_difference_is_that_at_each_layer(model, concepts, responses, directions):
    resid = (responses.units["site"] == "resid").to_numpy()
    values = responses.values[:, resid]
    assert directions["layer"].values.tolist() == np.repeat(np.arange(4), 128).tolist()
    for concept, labels in zip(WORDS, concepts.labels, strict=True):
        wanted = values[labels].mean(axis=0) - values[~labels].mean(axis=0)
        row = directions.sel(concept=concept)
        np.testing.assert_allclose(row["step"], wanted, atol=1e-5)
        lengths = np.linalg.norm(wanted.reshape(4, 128), axis=1)
        np.testing.assert_allclose(row["direction"], (wanted.reshape(4, 128) / lengths[:, None]).ravel(), atol=1e-4)
    assert directions.attrs["weights"] == model.provenance.weights and directions.attrs["method"] == "mean_difference"
    assert directions["domain"].values.tolist() == ["animal", "animal", "food"]


@pytest.mark.parametrize("method", ["pca", "probe"])
def test_other_methods_are_unit_vectors_whose_step_ends_at_the_positives_mean(concepts, responses, method):
    found = el.find_directions(responses, concepts, method=method, sites="resid", layers=(2, 3))
    own = ((responses.units["site"] == "resid") & responses.units["layer"].isin((2, 3))).to_numpy()
    values = responses.values[:, own].reshape(15, 2, 128)
    direction, step = (found[name].values.reshape(3, 2, 128) for name in ("direction", "step"))
    np.testing.assert_allclose(np.linalg.norm(direction, axis=2), 1, atol=1e-5)
    for row, labels in enumerate(concepts.labels):
        difference = values[labels].mean(axis=0) - values[~labels].mean(axis=0)
        np.testing.assert_allclose((step[row] * direction[row]).sum(1), (difference * direction[row]).sum(1), atol=1e-4)
        assert ((difference * direction[row]).sum(1) > 0).all()
    again = fits.FITS[method](
        np.ascontiguousarray(values[:, 1]),
        concepts.labels.astype(np.int8),
        [fits.concept_key(0, word) for word in WORDS],
    )
    np.testing.assert_allclose(direction[:, 1], again / np.linalg.norm(again, axis=1, keepdims=True), atol=1e-3)


def test_a_mention_counts_on_neither_side(responses, concepts):
    mentioned = dataclasses.replace(
        concepts, sentences=(*concepts.sentences[:-1], "The bread was in the cat garden."),
    )  # fmt: skip
    values = responses.assign_coords(sentence=np.array(mentioned.sentences, object))
    found = el.find_directions(values, mentioned, sites="resid", layers=1)
    own = ((responses.units["site"] == "resid") & (responses.units["layer"] == 1)).to_numpy()
    wanted = responses.values[:5, own].mean(axis=0) - responses.values[5:14, own].mean(axis=0)
    np.testing.assert_allclose(found["step"].sel(concept="cat"), wanted, atol=1e-5)


def test_responses_that_do_not_differ_have_no_direction(responses, concepts):
    values = responses.values.copy()
    values[:, :512] = 1.0
    flat = el.find_directions(responses.copy(data=values), concepts, sites="mlp.up")
    first = flat.isel(unit=flat["layer"].values == 0)
    assert (first["direction"] == 0).all() and (first["step"] == 0).all() and np.isfinite(flat["direction"]).all()


def test_concepts_are_compared_by_the_cosine_of_their_directions(directions):
    similarity = el.cosine(directions, centred=False)
    vectors = directions["direction"].values.astype(np.float64)
    wanted = vectors @ vectors.T / 4  # lengths are 1 at each of four layers
    np.testing.assert_allclose(similarity, wanted, atol=1e-5)
    assert similarity.dims == ("concept", "other") and "domain" in similarity.coords
    np.testing.assert_array_equal(el.overlap(directions, "cosine", centred=False), similarity)
    with pytest.raises(SelectionError, match="by='auroc', sign='up' are of scores, and directions were given"):
        el.cosine(directions, by="auroc")


def test_a_mask_splits_the_square_of_a_direction(responses, concepts):
    expertise = el.measure_expertise(responses, concepts)
    experts = el.select_experts(expertise, top=100)
    directions = el.find_directions(responses, concepts)
    ours, others = (el.mask_directions(directions, experts, keep=keep) for keep in ("experts", "others"))
    np.testing.assert_allclose((ours + others)["direction"], directions["direction"])
    squares = [(each["direction"] ** 2).sum("unit") for each in (ours, others)]
    np.testing.assert_allclose(squares[0] + squares[1], 8, rtol=1e-5)  # two sites, four layers
    assert (ours["direction"] != 0).sum("unit").max() <= 100 and ours.attrs["kept"] == "experts"
    moved = experts.isel(unit=slice(None, None, -1), concept=slice(None, None, -1))  # lined up by name
    np.testing.assert_array_equal(el.mask_directions(directions, moved)["step"], ours["step"])


def test_steering_along_a_direction_shifts_the_stream_by_its_step(model, directions):
    ids = model.tokenizer(["The old house was"])["input_ids"]
    for layer, strength in ((1, 1.0), (3, -1.0), (2, 2.5)):
        steering = el.steer(directions, "cat", layers=layer, strength=strength)
        plain, steered = (model.capture(ids, sites="resid", steering=each)["resid"] for each in (None, steering))
        step = directions["step"].sel(concept="cat").values.reshape(4, 128)[layer]
        np.testing.assert_allclose(steered[layer], plain[layer] + strength * step, atol=1e-4)
        np.testing.assert_allclose(steered[:layer], plain[:layer], atol=1e-5)
    assert len(steering) == 128 and repr(steering).startswith("Steering of lenslet-2m: 2.5 of cat, along mean_diff")
    both = el.steer(directions, ["cat", "dog"], layers=[1])
    alone = [el.steer(directions, name, layers=1) for name in ("cat", "dog")]
    np.testing.assert_allclose(both.shift, alone[0].shift + alone[1].shift, atol=1e-6)


def test_units_too_are_chosen_in_some_layers(responses, concepts):
    expertise = el.measure_expertise(responses, concepts)
    steering = el.steer(expertise, "cat", top=10, layers=(1, 3))
    assert set(steering.table["layer"]) <= {1, 3} and len(steering) == 10
    with pytest.raises(SelectionError, match=r"layers=7 were given, and this table has layers 0, 1, 2, 3"):
        el.steer(expertise, "cat", top=10, layers=7)


def test_the_sites_that_write_to_the_stream_are_those_a_shift_of_which_moves_it():
    assert [name for name, site in SITES.items() if site.in_stream] == ["resid.pre", "attn.out", "mlp.down", "resid"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"of layers 0, 1, 2, 3, and would add up in the residual stream. Name one or more: .*layers=2"),
        ({"layers": 9}, "layers=9 were given, and this table has layers 0, 1, 2, 3"),
        ({"layers": ()}, r"layers=\(\) were given"),
        ({"layers": 2, "top": 50}, "top choose units and what they say, and directions were given"),
        ({"layers": 2, "method": "zero", "sign": "down"}, "method, sign choose units"),
        ({"layers": 2, "strength": float("nan")}, "strength=nan; wanted a number"),
        ({"layers": 2, "sites": "attn.out"}, "sites attn.out were given"),
    ],
)
def test_steering_that_means_nothing_is_refused(directions, settings, message):
    with pytest.raises(SelectionError, match=message):
        el.steer(directions, "cat", **settings)


def test_steering_is_refused_where_nothing_is_written_to_the_stream(responses, concepts):
    inside = el.find_directions(responses, concepts, sites="mlp.up", layers=2)
    with pytest.raises(
        SelectionError, match=r"are at mlp.up, which isn't written .* one of resid.pre, attn.out, mlp.d"
    ):
        el.steer(inside, "cat")
    with pytest.raises(SelectionError, match="'cut' isn't in this table"):
        el.steer(inside, "cut")


def nobody(*_, **__):
    pytest.fail("the model ran")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "median"}, "Unknown method of directions 'median'. Choose from: mean_difference, pca, probe"),
        ({"layers": 4}, "layers=4 were given, and lenslet-2m has layers 0 to 3"),
        ({"exclude": True}, "exclude"),
    ],
)
def test_bad_settings_are_told_before_the_model_runs(model, concepts, settings, message, monkeypatch):
    monkeypatch.setattr("expertlens_jax.experts.directions.record_responses", nobody)
    with pytest.raises(SelectionError, match=message):
        el.find_directions(model, concepts, **settings)


def test_responses_that_do_not_fit_are_told(responses, concepts):
    with pytest.raises(ResponsesError, match="to other sentences"):
        el.find_directions(responses, concepts.subset(("cat", "dog")))
    with pytest.raises(SelectionError, match="responses were given, which are recorded already, and pooling"):
        el.find_directions(responses, concepts, pooling="max")
    with pytest.raises(SelectionError, match="sites attn.q were given, and these responses have mlp.up, resid"):
        el.find_directions(responses, concepts, sites="attn.q")
    with pytest.raises(ResponsesError, match="NaN or infinity"):
        el.find_directions(responses.copy(data=responses.values * np.nan), concepts)


def test_masks_that_do_not_fit_are_told(responses, concepts, directions):
    expertise = el.measure_expertise(responses, concepts)
    experts = el.select_experts(expertise, top=5)
    up = experts.isel(unit=experts["site"].values == "mlp.up")
    for given, settings, message in (
        (experts, {"keep": "some"}, "keep='some'; wanted 'experts' or 'others'"),
        (expertise, {}, "experts aren't expert sets"),
        (experts.isel(concept=[0]), {}, "have a concept 'dog', which the expert sets don't"),
        (up, {}, r"512 of the 512 channels of these directions aren't among the units .* such as layer 0, resid, ch"),
    ):
        with pytest.raises(SelectionError, match=message):
            el.mask_directions(directions, given, **settings)
    with pytest.raises(SelectionError, match="a Dataset without directions was given"):
        el.mask_directions(expertise, experts)


def test_directions_are_a_table_that_a_file_holds(directions, tmp_path):
    directions.drop_vars(["hf_module"]).to_dataframe().to_csv(tmp_path / "directions.csv")
    assert len(pd.read_csv(tmp_path / "directions.csv")) == 3 * 512
    directions.to_zarr(tmp_path / "directions.zarr", mode="w", consolidated=False)
