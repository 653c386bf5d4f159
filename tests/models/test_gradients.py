"""What is attributed to units: gradient times activation of PyTorch, of every site, and of jax.grad by hand."""

import families
import hooks
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import expertlens_jax as el
from expertlens_jax.models.gradients import attribute_rows
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.models.units import units_table

pytestmark = pytest.mark.compiled_quickly

CASES = [case for case in families.CASES if case.name in ("gpt2", "gpt_neox", "llama", "gemma4_text")]
LENGTHS, TARGETS = (9, 6, 4), (8, 3, 1)
"""Of the sentences, and the first of their tokens that is a target; all after it are too."""


def batch():
    rng = np.random.default_rng(0)
    token_ids = rng.integers(4, families.VOCABULARY, (len(LENGTHS), max(LENGTHS)))
    places = np.arange(max(LENGTHS))
    mask = places < np.array(LENGTHS)[:, None]
    return token_ids, mask, mask & (places >= np.array(TARGETS)[:, None])


def by_pytorch(reference, units, token_ids, mask, targets):
    """Log-probabilities `[batch]`, and activation times gradient summed over tokens, `[batch, units]`."""
    seen = {}

    def keep(address, activations):
        activations.retain_grad()
        seen[address] = activations

    ids = torch.tensor(token_ids)
    positions = torch.clamp(torch.tensor(mask).long().cumsum(1) - 1, min=0)
    with hooks.hooked(reference, list(units["hf_module"].unique()), keep):
        logits = reference(input_ids=ids, attention_mask=torch.tensor(mask).long(), position_ids=positions).logits
    log_probs = logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    rows = (log_probs * torch.tensor(targets[:, 1:])).sum(1)
    rows.sum().backward()
    products = {address: (each * each.grad).sum(1).detach().numpy() for address, each in seen.items()}
    columns = np.empty((len(ids), len(units)))
    for address, here in units.groupby("hf_module", sort=False):
        columns[:, here.index] = products[address][:, here["hf_channel"].to_numpy()]
    return rows.detach().numpy(), columns


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_attribution_at_every_site_is_gradient_times_activation_of_pytorch(case, tmp_path):
    directory = families.save(families.make_hf_model(case), tmp_path)
    model, reference = el.load_model(directory), families.load_hf_model(case, directory, torch.float32)
    sites = tuple(model.config.site_channels())
    units = units_table(model.family, model.config, sites)
    log_probs, ours = attribute_rows(Transformer(model.config), model.params, *batch(), sites)
    wanted, theirs = by_pytorch(reference, units, *batch())
    assert np.abs(theirs).max() > 1e-2
    np.testing.assert_allclose(log_probs, wanted, atol=1e-4, rtol=0)
    # Of Gemma 4's first layer PyTorch's gradient is that of the embeddings, which all layers read by themselves too.
    shared = (units["layer"] == 0) & (units["site"] == "resid.pre") & (model.config.per_layer_width > 0)
    shared = shared.to_numpy()
    theirs[:, shared] = ours[:, shared]
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1, np.abs(theirs).max()), rtol=0)


def test_attribution_is_the_derivative_by_the_scale_of_a_steering():
    model = el.load_model("lenslet-2m")
    token_ids = np.asarray(model.tokenizer(["They saw a small cat"])["input_ids"])
    units = units_table(model.family, model.config, ("attn.v", "mlp.act"))
    steering = el.steer_units(model, units, scale=1.0)

    def log_prob(scale):
        logits = model(token_ids, steering=steering.replace(scale=scale))[0, -2]
        return jax.nn.log_softmax(logits)[token_ids[0, -1]]

    by_hand = jax.grad(log_prob)(jnp.ones(len(units)))
    targets = np.arange(token_ids.shape[1])[None] == token_ids.shape[1] - 1
    mask = np.ones(token_ids.shape, bool)
    _, ours = attribute_rows(Transformer(model.config), model.params, token_ids, mask, targets, ("attn.v", "mlp.act"))
    np.testing.assert_allclose(ours[0], by_hand, atol=1e-5, rtol=0)
