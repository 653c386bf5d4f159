"""Every family against Hugging Face PyTorch: outputs, every site's pooled responses, steering, and bfloat16."""

import families
import hooks
import jax
import numpy as np
import pytest
import torch

import expertlens_jax as el
from expertlens_jax.models.units import units_table

TOLERANCE = 1e-4  # absolute, float32, on activations of order 1 to 10
PADDING_TOLERANCE = 1e-5  # the same sentence among other padding

LENGTHS = (20, 11, 5, 3)  # longer and shorter than the windows and original contexts of the table's rows


@pytest.fixture(scope="module", params=families.CASES, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def directory(case, tmp_path_factory):
    """Where the case's PyTorch model and a tokenizer are saved."""
    return families.save(families.make_hf_model(case), tmp_path_factory.mktemp(case.name))


@pytest.fixture(scope="module")
def reference(case, directory):
    return families.load_hf_model(case, directory, torch.float32)


@pytest.fixture(scope="module")
def model(directory):
    return el.load_model(directory)


@pytest.fixture(autouse=True)
def compile_quickly(request):
    """Without XLA's optimisations, which take most of the time, except for the first test of each model."""
    jax.config.update("jax_disable_most_optimizations", request.function is not test_output_matches)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def batch(width: int = max(LENGTHS)):
    """Four sentences padded on the right, and the same four on the left; the padding is random tokens.

    The pool mask leaves out the first and the last token of each, as it does BOS, CLS and SEP.
    """
    rng = np.random.default_rng(0)
    sentences = [rng.integers(4, families.VOCABULARY, length) for length in LENGTHS]
    token_ids = rng.integers(4, families.VOCABULARY, (2 * len(LENGTHS), width))
    mask, pool_mask = np.zeros(token_ids.shape, bool), np.zeros(token_ids.shape, bool)
    for row, sentence in enumerate(sentences + sentences):
        start = 0 if row < len(sentences) else width - len(sentence)
        token_ids[row, start : start + len(sentence)] = sentence
        mask[row, start : start + len(sentence)] = True
        pool_mask[row, start + 1 : start + len(sentence) - 1] = True
    return token_ids, mask, pool_mask


def all_sites(model):
    """Every site's name, and the table of their units."""
    sites = tuple(model.config.site_channels())
    return sites, units_table(model.family, model.config, sites)


def test_output_matches(reference, model):
    token_ids, mask, _ = batch()
    ours = np.asarray(model(token_ids, mask))
    theirs = hooks.run(reference, token_ids, mask)
    assert ours.shape == theirs.shape and ours.dtype == np.float32
    np.testing.assert_allclose(ours[mask], theirs[mask], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("pooling", ["max", "mean", "last"])
def test_responses_of_every_site_match(reference, model, pooling):
    token_ids, mask, pool_mask = batch()
    sites, units = all_sites(model)
    ours = np.asarray(model.respond(token_ids, mask, pool_mask, sites=sites, pooling=pooling))
    theirs = hooks.pooled_responses(reference, units, token_ids, mask, pool_mask, pooling)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)
    right, left = np.split(ours, 2)
    np.testing.assert_allclose(right, left, atol=PADDING_TOLERANCE, rtol=0)


def test_default_units_are_the_linear_outputs_in_order_whatever_the_padding(model):
    sites, units = all_sites(model)
    linear = ~units["site"].isin(["mlp.act", "resid"]).to_numpy()
    assert len(model.units) == linear.sum()
    everything = np.asarray(model.respond(*batch(), sites=sites))[:, linear]
    by_default = np.asarray(model.respond(*batch(width=27)))
    np.testing.assert_allclose(by_default, everything, atol=PADDING_TOLERANCE, rtol=0)


def test_steering_matches_a_hook_that_does_the_same(reference, model):
    """A few units of every site scaled and shifted: the same output as PyTorch, and another than before."""
    token_ids, mask, _ = batch()
    units = all_sites(model)[1].groupby("site", observed=True).sample(8, random_state=1)
    rng = np.random.default_rng(2)
    scale, shift = rng.choice([0.0, 0.5, 1.0], len(units)), rng.normal(size=len(units))

    def steer(address, activations):
        rows = (units["hf_module"] == address).to_numpy()
        channels = torch.tensor(units.loc[rows, "hf_channel"].to_numpy())
        activations = activations.clone()
        activations[..., channels] *= torch.tensor(scale[rows], dtype=torch.float32)
        activations[..., channels] += torch.tensor(shift[rows], dtype=torch.float32)
        return activations

    with hooks.hooked(reference, list(units["hf_module"].unique()), steer):
        theirs = hooks.run(reference, token_ids, mask)
    ours = np.asarray(model(token_ids, mask, steering=el.steer_units(model, units, scale, shift)))
    np.testing.assert_allclose(ours[mask], theirs[mask], atol=TOLERANCE, rtol=0)
    assert np.abs(ours - np.asarray(model(token_ids, mask)))[mask].max() > 0.1


def test_units_set_move_their_own_response_to_the_value(model):
    """A unit of every site of the last layer; what comes before it is left as it was."""
    sites, units = all_sites(model)
    last = units["layer"] == model.config.num_layers - 1
    chosen = units[last].groupby("site", observed=True).sample(1, random_state=1)
    steering = el.steer_units(model, chosen, scale=0.0, shift=1.25)
    steered = np.asarray(model.respond(*batch(), sites=sites, steering=steering))
    plain = np.asarray(model.respond(*batch(), sites=sites))
    assert (steered[:, chosen.index] == 1.25).all()
    assert not np.isclose(plain[:, chosen.index], 1.25).all(axis=0).any()
    np.testing.assert_array_equal(steered[:, ~last], plain[:, ~last])


def test_bfloat16_is_as_close_to_float32_as_pytorch_is(case, directory, reference, model):
    """Root mean square differences from PyTorch's float32, of the output and of every site's responses.

    The mean is over some thousand values, so that its own chance is small; half as much again is allowed, since
    the two round in other places.
    """
    token_ids, mask, pool_mask = batch()
    sites, units = all_sites(model)
    ours = el.load_model(directory, dtype="bfloat16")
    theirs = families.load_hf_model(case, directory, torch.bfloat16)
    outputs = {
        "ours": np.asarray(ours(token_ids, mask), np.float32)[mask],
        "theirs": hooks.run(theirs, token_ids, mask)[mask],
        "truth": hooks.run(reference, token_ids, mask)[mask],
    }
    rest = (units, token_ids, mask, pool_mask, "max")
    responses = {
        "ours": np.asarray(ours.respond(token_ids, mask, pool_mask, sites=sites)),
        "theirs": hooks.pooled_responses(theirs, *rest),
        "truth": hooks.pooled_responses(reference, *rest),
    }
    compared = {"output": outputs} | {
        site: {name: values[:, units["site"] == site] for name, values in responses.items()} for site in sites
    }
    for name, values in compared.items():
        error, allowed = (rms(values[who] - values["truth"]) for who in ("ours", "theirs"))
        assert 0 < error <= 1.5 * allowed, name


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


def test_parameters_are_stacked_by_layer(model):
    for leaf in jax.tree.leaves(model.params["layers"]):
        assert leaf.shape[0] == model.config.num_layers
