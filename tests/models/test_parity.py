"""Every family against Hugging Face PyTorch: outputs, every site's pooled responses, and steering."""

import families
import hooks
import jax
import numpy as np
import pytest
import torch

import expertlens_jax as el
from expertlens_jax.models.model import steer_units
from expertlens_jax.models.units import units_table

TOLERANCE = 1e-4  # absolute, float32, on activations of order 1 to 10


@pytest.fixture(scope="module", params=families.CASES, ids=lambda case: case.name)
def pair(request, tmp_path_factory):
    """A PyTorch model and ours, loaded from the directory the former was saved to."""
    reference = families.make_hf_model(request.param)
    directory = families.save(reference, tmp_path_factory.mktemp(request.param.name))
    return reference, el.load_model(directory)


def batch(side: str, length: int = 17):
    """Ragged random rows padded on one side, and a pool mask that leaves out two real tokens a row."""
    rng = np.random.default_rng(0)
    token_ids = rng.integers(4, families.VOCABULARY, (4, length))
    lengths = np.array([length, 11, 5, 3])
    mask = np.arange(length) < lengths[:, None]
    pool_mask = (np.arange(length) >= 1) & (np.arange(length) < lengths[:, None] - 1)
    if side == "left":
        mask, pool_mask = mask[:, ::-1].copy(), pool_mask[:, ::-1].copy()
    return token_ids, mask, pool_mask


@pytest.mark.parametrize("side", ["right", "left"])
def test_output_matches(pair, side):
    reference, model = pair
    token_ids, mask, _ = batch(side)
    ours = np.asarray(model(token_ids, mask))
    theirs = hooks.run(reference, token_ids, mask)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours[mask], theirs[mask], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("pooling", ["max", "mean", "last"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_responses_of_every_site_match(pair, side, pooling):
    reference, model = pair
    token_ids, mask, pool_mask = batch(side)
    sites = tuple(model.config.site_channels())
    units = units_table(model.family, model.config, sites)
    ours = np.asarray(model.respond(token_ids, mask, pool_mask, sites=sites, pooling=pooling))
    theirs = hooks.pooled_responses(reference, units, token_ids, mask, pool_mask, pooling)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)


def test_default_units_are_the_linear_outputs_in_order(pair):
    _, model = pair
    token_ids, mask, pool_mask = batch("right")
    everything = units_table(model.family, model.config, tuple(model.config.site_channels()))
    linear = ~everything["site"].isin(["mlp.act", "resid"])
    assert len(model.units) == linear.sum()
    all_responses = model.respond(token_ids, mask, pool_mask, sites=tuple(model.config.site_channels()))
    np.testing.assert_allclose(
        model.respond(token_ids, mask, pool_mask), all_responses[:, linear.to_numpy()], atol=1e-5
    )


def test_steering_matches_a_hook_that_does_the_same(pair):
    """A few units of every site set, scaled and shifted: the same output as PyTorch, and another than before."""
    reference, model = pair
    token_ids, mask, _ = batch("left")
    sites = tuple(model.config.site_channels())
    units = units_table(model.family, model.config, sites).sample(60, random_state=1)
    assert set(units["site"].unique()) == set(sites)
    rng = np.random.default_rng(2)
    scale, shift = rng.choice([0.0, 0.5, 1.0], len(units)), rng.normal(size=len(units))

    def steer(address, activations):
        rows = (units["hf_module"] == address).to_numpy()
        channels = torch.tensor(units.loc[rows, "hf_channel"].to_numpy())
        activations = activations.clone()
        activations[..., channels] = (
            activations[..., channels] * torch.tensor(scale[rows], dtype=torch.float32)
            + torch.tensor(shift[rows], dtype=torch.float32)
        )
        return activations

    with hooks.hooked(reference, list(units["hf_module"].unique()), steer):
        theirs = hooks.run(reference, token_ids, mask)
    ours = np.asarray(model(token_ids, mask, steering=steer_units(model, units, scale, shift)))
    np.testing.assert_allclose(ours[mask], theirs[mask], atol=TOLERANCE, rtol=0)
    assert np.abs(ours - np.asarray(model(token_ids, mask)))[mask].max() > 0.1


def test_one_unit_set_moves_its_own_response_to_the_value(pair):
    _, model = pair
    token_ids, mask, _ = batch("right")
    position = len(model.units) // 2
    steering = steer_units(model, model.units.iloc[[position]], scale=0.0, shift=1.25)
    steered = np.asarray(model.respond(token_ids, mask, steering=steering))
    plain = np.asarray(model.respond(token_ids, mask))
    assert (steered[:, position] == 1.25).all()
    earlier = (model.units["layer"] < model.units["layer"][position]).to_numpy()
    np.testing.assert_array_equal(steered[:, earlier], plain[:, earlier])


def test_padding_does_not_matter(pair):
    """The same rows padded left, right or further give the same responses."""
    _, model = pair
    token_ids, mask, pool_mask = batch("right")
    wide = np.zeros((4, 25), int)
    wide_mask, wide_pool = np.zeros((4, 25), bool), np.zeros((4, 25), bool)
    for row, real in enumerate(mask):
        count = real.sum()
        wide[row, 25 - count :] = token_ids[row, real]
        wide_mask[row, 25 - count :] = True
        wide_pool[row, 25 - count :] = pool_mask[row, real]
    np.testing.assert_allclose(
        model.respond(token_ids, mask, pool_mask), model.respond(wide, wide_mask, wide_pool), atol=1e-5
    )


def test_parameters_are_stacked_by_layer(pair):
    _, model = pair
    for leaf in jax.tree.leaves(model.params["layers"]):
        assert leaf.shape[0] == model.config.num_layers
