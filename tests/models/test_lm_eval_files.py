"""Files for lm-evaluation-harness, read as its `steered` models read them, against the steering itself."""

import families
import numpy as np
import pytest
import torch

import expertlens_jax as el
from expertlens_jax.errors import SelectionError

IDS = torch.arange(4, 16)[None]


def load_case(name, folder):
    case = next(case for case in families.CASES if case.name == name)
    directory = families.save(families.make_hf_model(case), folder)
    return el.load_model(directory, name="tiny"), families.load_hf_model(case, directory, torch.float32)


@pytest.fixture(scope="module", params=["gpt2", "gpt_neox"])
def both(request, tmp_path_factory):
    return load_case(request.param, tmp_path_factory.mktemp(request.param))


def shifts(model, sites, scale=1.0):
    units = [(layer, site, channel) for layer in (0, 1) for site in sites for channel in (1, 7)]
    return el.steer_units(
        model, el.trace(model, ["a"], units).units, scale=scale, shift=np.linspace(0.5, 2, len(units))
    )


def steered_as_the_harness_does(hf_model, path):
    """Its hooks: vectors by the name of a module of `base_model`, added to what the module returns."""
    vectors = torch.load(path, weights_only=True)
    handles = []
    for name, told in vectors.items():
        assert set(told) == {"action", "steering_coefficient", "steering_vector", "bias"}
        assert told["action"] == "add" and told["bias"] is None
        added = told["steering_coefficient"] * told["steering_vector"]

        def hook(module, args, output, added=added):
            return (output[0] + added, *output[1:]) if isinstance(output, tuple) else output + added

        handles.append(hf_model.base_model.get_submodule(name).register_forward_hook(hook))
    with torch.no_grad():
        logits = hf_model(IDS).logits.numpy()
    for handle in handles:
        handle.remove()
    return logits, list(vectors)


def test_what_the_harness_reads_steers_as_the_steering_does(both, tmp_path):
    """Among the sites are three that share one module in both families."""
    model, hf_model = both
    steering = shifts(model, ("attn.q", "attn.v", "mlp.down", "resid"))
    steering.save_lm_eval(tmp_path / "cat.pt", hf_model)
    theirs, names = steered_as_the_harness_does(hf_model, tmp_path / "cat.pt")
    assert len(names) == 6  # two layers of: the fused projection, the MLP's output, the block
    ours, plain = (np.asarray(model(IDS.numpy(), steering=each)) for each in (steering, None))
    np.testing.assert_allclose(theirs, ours, atol=2e-5)
    assert np.abs(ours - plain).max() > 0.05


def test_what_the_harness_cannot_carry_is_told(both, tmp_path):
    model, hf_model = both
    with pytest.raises(
        SelectionError, match=r"4 of its 4 units are scaled, and a vector can only be added: .* L0 resid 1"
    ):
        shifts(model, ("resid",), scale=0.0).save_lm_eval(tmp_path / "no.pt", hf_model)
    with pytest.raises(SelectionError, match="units are the input of a .*, and only outputs change: L0 attn.z 1"):
        shifts(model, ("attn.z",)).save_lm_eval(tmp_path / "no.pt", hf_model)
    with pytest.raises(SelectionError, match="reads vectors from a file that ends in .pt"):
        shifts(model, ("resid",)).save_lm_eval(tmp_path / "no.csv", hf_model)
    with pytest.raises(SelectionError, match="this steering changes no unit; there is nothing to write"):
        el.steer_units(model, model.units.head(0)).save_lm_eval(tmp_path / "no.pt", hf_model)
    assert not list(tmp_path.iterdir())
