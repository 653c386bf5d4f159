"""A training step: its loss is transformers' own, it learns, and devices share it out."""

import dataclasses
import pickle

import families
import jax
import numpy as np
import optax
import pytest
import torch
from launched import run_script

import expertlens_jax as el
from expertlens_jax.training.pretrain import Recipe, held_out_loss, init_state, next_token_loss, train_step

next_token_loss = jax.jit(next_token_loss, static_argnums=(1, 3))
RECIPE = Recipe(steps=30, warmup_steps=3, peak_rate=1e-2)


@pytest.fixture(scope="module")
def neox(tmp_path_factory):
    case = next(case for case in families.CASES if case.name == "gpt_neox")
    directory = families.save(families.make_hf_model(case), tmp_path_factory.mktemp("neox"))
    return el.load_model(directory), families.load_hf_model(case, directory, torch.float32)


def blocks(rows: int = 8, seed: int = 0) -> np.ndarray:
    """Sentences that count upwards by one: next tokens can be learnt."""
    starts = np.random.default_rng(seed).integers(0, families.VOCABULARY, (rows, 1))
    return ((starts + np.arange(13)) % families.VOCABULARY).astype(np.int32)


def test_the_loss_is_that_of_transformers(neox):
    model, reference = neox
    tokens = blocks()
    with torch.no_grad():
        theirs = reference(torch.tensor(tokens).long(), labels=torch.tensor(tokens).long()).loss.item()
    assert float(next_token_loss(model.params, model.config, tokens)) == pytest.approx(theirs, abs=1e-5)
    held_out = held_out_loss(model.params, model.config, np.tile(tokens, (2, 1)), rows=8)
    assert held_out == pytest.approx(theirs, abs=1e-5)
    half = float(next_token_loss(model.params, model.config, tokens, "bfloat16"))
    assert half == pytest.approx(theirs, rel=2e-2) and half != pytest.approx(theirs, abs=1e-6)


def test_gradients_are_those_of_transformers(neox):
    model, reference = neox
    tokens = blocks()
    reference.zero_grad()
    reference(torch.tensor(tokens).long(), labels=torch.tensor(tokens).long()).loss.backward()
    ours = jax.jit(jax.grad(next_token_loss), static_argnums=1)(model.params, model.config, tokens)
    theirs = reference.gpt_neox.layers[1].mlp.dense_h_to_4h.weight.grad.T.numpy()
    np.testing.assert_allclose(ours["layers"]["mlp"]["up"]["kernel"][1], theirs, atol=1e-6)
    np.testing.assert_allclose(ours["embed"]["token"], reference.gpt_neox.embed_in.weight.grad.numpy(), atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_learns(neox, optimizer):
    model, _ = neox
    recipe = Recipe(steps=30, warmup_steps=3, peak_rate=1e-2, optimizer=optimizer)
    state = init_state(model.config, recipe, jax.random.key(0))
    losses, rates = [], []
    for step in range(30):
        state, measured = train_step(state, blocks(seed=step), model.config, recipe)
        losses.append(float(measured["loss"]))
        rates.append(float(measured["rate"]))
    assert losses[0] == pytest.approx(np.log(families.VOCABULARY), rel=0.05)  # knows nothing
    assert losses[-1] < 0.5 * losses[0]
    np.testing.assert_allclose(rates, [float(recipe.schedule(1e-2)(step)) for step in range(30)], rtol=1e-5)
    assert rates[3] == max(rates) and rates[-1] < 0.02 * rates[3]


def test_only_kernels_and_embeddings_decay(neox):
    model, _ = neox
    recipe = Recipe(steps=10, warmup_steps=0, peak_rate=1e-3, weight_decay=0.5)
    params = jax.tree.map(lambda leaf: leaf + 1.0, dict(model.params))
    none = jax.tree.map(np.zeros_like, params)
    move = recipe.transformation()
    updates, _ = jax.jit(lambda params: move.update(none, move.init(params), params))(params)
    moved = {"/".join(key.key for key in path) for path, leaf in jax.tree.leaves_with_path(updates) if np.any(leaf)}
    everything = {"/".join(key.key for key in path) for path, _ in jax.tree.leaves_with_path(params)}
    assert moved == {path for path in everything if path.endswith(("kernel", "token", "head"))} != everything
    assert optax.tree.norm(updates) > 0


def test_eight_devices_take_the_same_step(neox, tmp_path):
    model, _ = neox
    state = init_state(model.config, RECIPE, jax.random.key(0))
    state, measured = train_step(state, blocks(), model.config, RECIPE)
    script = f"""
import jax, numpy as np, pickle
from expertlens_jax import parallel
from expertlens_jax.training.pretrain import Recipe, init_state, train_step
RECIPE = Recipe(**{dataclasses.asdict(RECIPE)!r})
assert len(jax.devices()) == 8
config = pickle.load(open({str(tmp_path / "config")!r}, "rb"))
mesh = parallel.data_mesh()
state = parallel.replicate(init_state(config, RECIPE, jax.random.key(0)), mesh)
rows = parallel.split_rows(np.array({blocks().tolist()!r}, np.int32), mesh)
state, measured = train_step(state, rows, config, RECIPE)
np.savez({str(tmp_path / "eight.npz")!r}, loss=measured["loss"], token=state.params["embed"]["token"])
"""
    (tmp_path / "config").write_bytes(pickle.dumps(model.config))
    run_script(script)
    eight = np.load(tmp_path / "eight.npz")
    assert float(eight["loss"]) == pytest.approx(float(measured["loss"]), abs=1e-6)
    np.testing.assert_allclose(eight["token"], state.params["embed"]["token"], atol=1e-4)
