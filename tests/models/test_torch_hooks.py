"""Steerings as hooks in PyTorch; `test_parity.py` holds them against other hooks for every family and site."""

import families
import numpy as np
import pytest
import torch
import transformers

import expertlens_jax as el
from expertlens_jax.errors import SelectionError, UnsupportedModelError

IDS = torch.arange(4, 16)[None]


@pytest.fixture(scope="module")
def case():
    return next(case for case in families.CASES if case.name == "gpt2")


@pytest.fixture(scope="module")
def directory(case, tmp_path_factory):
    return families.save(families.make_hf_model(case), tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def model(directory):
    return el.load_model(directory, name="tiny")


@pytest.fixture
def hf_model(case, directory):
    return families.load_hf_model(case, directory, torch.float32)


@pytest.fixture(scope="module")
def steering(model):
    sites = ("attn.q", "attn.z", "mlp.act", "resid")
    units = [(layer, site, channel) for layer in (0, 2) for site in sites for channel in (1, 7)]
    return el.steer_units(model, el.trace(model, ["a"], units).units, scale=0.5, shift=2.0)


def logits(hf_model):
    with torch.no_grad():
        return hf_model(IDS).logits.numpy()


def test_the_model_is_steered_until_the_hooks_are_removed(model, hf_model, steering):
    plain = logits(hf_model)
    hooks = steering.to_torch(hf_model)
    ours = np.asarray(model(IDS.numpy(), steering=steering))
    np.testing.assert_allclose(logits(hf_model), ours, atol=1e-5)
    assert np.abs(ours - plain).max() > 0.1
    assert repr(hooks) == f"{steering!r}, 8 hooks in PyTorch"
    hooks.remove()
    hooks.remove()
    np.testing.assert_array_equal(logits(hf_model), plain)
    assert repr(hooks).endswith("removed from PyTorch")
    with pytest.raises(ZeroDivisionError), steering.to_torch(hf_model):
        1 / 0  # noqa: B018
    np.testing.assert_array_equal(logits(hf_model), plain)


def test_steered_text_is_the_same_in_both(model, hf_model, steering):
    ours = el.generate(model, [IDS[0].tolist()], max_new_tokens=6, temperature=0, steering=steering)
    with steering.to_torch(hf_model), torch.no_grad():
        theirs = hf_model.generate(IDS, max_new_tokens=6, do_sample=False, pad_token_id=0)
    np.testing.assert_array_equal(theirs[0, IDS.shape[1] :].numpy(), ours.token_ids[0])


def test_a_model_without_a_head_and_a_bfloat16_one_are_steered(hf_model, steering):
    with steering.to_torch(hf_model), torch.no_grad():
        whole = hf_model(IDS, output_hidden_states=True).hidden_states[-1]
    headless = hf_model.transformer
    with steering.to_torch(headless), torch.no_grad():
        torch.testing.assert_close(headless(IDS).last_hidden_state, whole)
    half = hf_model.to(torch.bfloat16)
    with steering.to_torch(half), torch.no_grad():
        assert half(IDS).logits.dtype == torch.bfloat16


def test_gradients_flow_through(hf_model, steering):
    with steering.to_torch(hf_model):
        hf_model(IDS).logits.sum().backward()
    assert hf_model.transformer.wte.weight.grad.abs().max() > 0


def test_what_does_not_fit_is_told_and_leaves_no_hook(model, hf_model, steering):
    plain = logits(hf_model)
    small = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=9))
    with pytest.raises(SelectionError, match="this steering is of tiny and doesn't fit GPT2LMHeadModel: .* channels"):
        steering.to_torch(small)
    other = transformers.T5Config(d_model=8, num_layers=1, num_heads=1, d_kv=4, d_ff=8, vocab_size=9)
    with pytest.raises(UnsupportedModelError, match="model_type is 't5', which no family"):
        steering.to_torch(transformers.T5ForConditionalGeneration(other))
    renamed = hf_model.transformer.h[2]
    renamed.old, renamed.mlp = renamed.mlp, torch.nn.Identity()
    with pytest.raises(SelectionError, match="GPT2LMHeadModel has no module 'transformer.h.2.mlp.c_proj', where this"):
        steering.to_torch(hf_model)
    renamed.mlp = renamed.old
    np.testing.assert_array_equal(logits(hf_model), plain)
