"""A step of a sparse autoencoder: gradients and updates are PyTorch's, and known directions are found again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from expertlens_jax.errors import SettingError
from expertlens_jax.training.sae_step import KINDS, SAESettings, init_sae, keep_largest, sae_loss, sae_step

CHANNELS, FEATURES, BATCH = 12, 30, 40
SETTINGS = {
    "topk": SAESettings(kind="topk", features=FEATURES, k=5, steps=20, batch=BATCH, dead_after=2),
    # Wide kernels, so that each threshold has activations within them.
    "jumprelu": SAESettings(kind="jumprelu", features=FEATURES, penalty=0.02, bandwidth=0.5, steps=20, batch=BATCH),
    "relu": SAESettings(kind="relu", features=FEATURES, penalty=0.1, steps=20, batch=BATCH, dead_after=2),
}


def random_params(settings: SAESettings, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    params = jax.device_get(init_sae(CHANNELS, settings, np.zeros(CHANNELS)).params)
    drawn = {name: rng.normal(0, 0.1, value.shape).astype(np.float32) for name, value in params.items()}
    return {name: value + (0 if name == "decoder" else drawn[name]) for name, value in params.items()}


def activations(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(BATCH, CHANNELS)).astype(np.float32)


class JumpReLU(torch.autograd.Function):
    """Rajamanoharan et al. 2024, equation 11, in its authors' words: a rectangle kernel over the bandwidth."""

    @staticmethod
    def forward(ctx, x, threshold, width):
        ctx.save_for_backward(x, threshold)
        ctx.width = width
        return x * (x > threshold)

    @staticmethod
    def backward(ctx, gradient):
        x, threshold = ctx.saved_tensors
        inside = ((x - threshold) / ctx.width).abs() < 0.5
        return gradient * (x > threshold), (-(threshold / ctx.width) * inside * gradient).sum(0), None


class Step(torch.autograd.Function):
    """Their equation 12."""

    @staticmethod
    def forward(ctx, x, threshold, width):
        ctx.save_for_backward(x, threshold)
        ctx.width = width
        return (x > threshold).to(x)

    @staticmethod
    def backward(ctx, gradient):
        x, threshold = ctx.saved_tensors
        inside = ((x - threshold) / ctx.width).abs() < 0.5
        return torch.zeros_like(x), (-(1 / ctx.width) * inside * gradient).sum(0), None


def largest(features: torch.Tensor, k: int) -> torch.Tensor:
    values, places = features.topk(k)
    return torch.zeros_like(features).scatter(-1, places, values)


def torch_loss(p: dict[str, torch.Tensor], x: torch.Tensor, dead: torch.Tensor, s: SAESettings) -> torch.Tensor:
    """The loss as the papers write it, in double precision."""
    before = torch.relu((x - p["offset"]) @ p["encoder"] + p["bias"])
    price = torch.zeros(())
    if s.kind == "topk":
        features = largest(before, s.k)
    elif s.kind == "jumprelu":
        threshold = p["log_threshold"].exp()
        features = JumpReLU.apply(before, threshold, s.bandwidth)
        price = s.penalty * Step.apply(before, threshold, s.bandwidth).sum(-1).mean()
    else:
        features = before
        price = s.penalty * features.abs().sum(-1).mean() / CHANNELS**0.5
    error = x - (features @ p["decoder"] + p["offset"])
    loss = (error**2).sum(-1).mean() / CHANNELS + price
    if dead.any():
        residual = error.detach()
        revived = largest(before * dead, CHANNELS // 2) @ p["decoder"]
        loss = loss + s.auxiliary * ((residual - revived) ** 2).sum(-1).mean() / (residual**2).sum(-1).mean()
    return loss


@pytest.mark.parametrize("some_dead", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradients_are_those_of_pytorch(kind, some_dead):
    settings, x = SETTINGS[kind], activations()
    params = random_params(settings)
    dead = np.arange(FEATURES) % 3 == 0 if some_dead else np.zeros(FEATURES, bool)
    (loss, parts), gradient = jax.value_and_grad(sae_loss, has_aux=True)(params, x, dead, settings)
    theirs = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in params.items()}
    reference = torch_loss(theirs, torch.tensor(x).double(), torch.tensor(dead), settings)
    reference.backward()
    assert float(loss) == pytest.approx(reference.item(), abs=1e-5)
    assert float(parts["auxiliary"]) > 0 if some_dead else float(parts["auxiliary"]) == 0
    for name, tensor in theirs.items():
        np.testing.assert_allclose(gradient[name], tensor.grad.numpy(), atol=1e-5, rtol=0)
        assert np.abs(gradient[name]).max() > 1e-4, name


def torch_steps(settings: SAESettings, params: dict[str, np.ndarray], batches: list[np.ndarray]):
    """Adam of PyTorch on clipped gradients, without their part along the decoder's rows, which stay of length 1."""
    p = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in params.items()}
    adam, silent = torch.optim.Adam(p.values(), lr=1.0), torch.zeros(FEATURES)
    for step, x in enumerate(batches):
        adam.zero_grad()
        x = torch.tensor(x).double()
        torch_loss(p, x, silent >= settings.dead_after, settings).backward()
        with torch.no_grad():
            rows = p["decoder"]
            rows.grad -= (rows.grad * rows).sum(1, keepdim=True) * rows
            torch.nn.utils.clip_grad_norm_(p.values(), 1.0)
            adam.param_groups[0]["lr"] = float(settings.schedule()(step))
            before = torch.relu((x - p["offset"]) @ p["encoder"] + p["bias"])
            least = p["log_threshold"].exp() if settings.kind == "jumprelu" else torch.zeros(())
            features = largest(before, settings.k) if settings.kind == "topk" else before * (before > least)
            silent = torch.where((features > 0).any(0), 0, silent + 1)
            adam.step()
            rows /= rows.norm(dim=1, keepdim=True)
    return {name: tensor.detach().numpy() for name, tensor in p.items()}, silent.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_pytorch(kind):
    settings = SETTINGS[kind]
    params, batches = random_params(settings), [activations(seed) for seed in range(5)]
    params["bias"][:4] = -20.0  # features that never fire: dead after two steps
    theirs, silent = torch_steps(settings, params, batches)
    state = dataclasses.replace(init_sae(CHANNELS, settings, np.zeros(CHANNELS)), params=dict(params))
    for x in batches:
        state, measured = sae_step(state, x, settings)
    for name, value in theirs.items():
        np.testing.assert_allclose(state.params[name], value, atol=1e-5, rtol=0, err_msg=name)
    np.testing.assert_array_equal(state.silent, silent)
    assert (np.asarray(state.silent[:4]) == 5).all() and int(state.step) == 5
    assert float(measured["dead"]) == (0 if kind == "jumprelu" else (silent >= 3).sum())
    np.testing.assert_allclose(np.linalg.norm(state.params["decoder"], axis=1), 1, atol=1e-6)


def test_the_k_largest_features_are_those_of_pytorch():
    features = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32).clip(0)
    for k in (1, 7, 64):
        ours, theirs = np.asarray(keep_largest(features, k)), largest(torch.tensor(features), k).numpy()
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(keep_largest(jnp.array([3.0, 1.0, 3.0, 2.0]), 1), [3, 0, 3, 0])  # a tie


@pytest.mark.parametrize("frozen", ["decoder", "encoder"])
def test_what_is_frozen_stays_as_it_was_drawn_and_the_rest_learns(frozen):
    settings = dataclasses.replace(SETTINGS["topk"], frozen=frozen)
    state = init_sae(CHANNELS, settings, np.zeros(CHANNELS))
    drawn = jax.device_get(state.params)
    for seed in range(3):
        state, _ = sae_step(state, activations(seed), settings)
    for name, value in drawn.items():
        assert np.array_equal(value, state.params[name]) == (name == frozen), name
    if frozen == "encoder":  # not the decoder turned, which learns
        assert not np.allclose(drawn["encoder"], drawn["decoder"].T)


def sparse_data(rng: np.random.Generator, directions: np.ndarray, count: int) -> np.ndarray:
    """Sums of about two of the directions, of random strength, and a little noise; of mean length sqrt(channels)."""
    codes = (rng.random((count, len(directions))) < 2 / len(directions)) * rng.uniform(1, 2, (count, len(directions)))
    x = codes @ directions + rng.normal(0, 0.02, (count, directions.shape[1]))
    return (x * np.sqrt(x.shape[1]) / np.linalg.norm(x, axis=1).mean()).astype(np.float32)


@pytest.mark.long
@pytest.mark.parametrize(
    "own",
    [dict(kind="topk", k=3), dict(kind="jumprelu", penalty=0.05, bandwidth=0.5), dict(kind="relu", penalty=0.3)],
    ids=KINDS,
)
def test_known_directions_are_found_again(own):
    settings = SAESettings(features=48, steps=500, batch=256, rate=1e-2, **own)
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(24, 16))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)  # more of them than channels
    state = init_sae(16, settings, np.zeros(16))
    started = np.abs(directions @ np.asarray(state.params["decoder"]).T).max(1).mean()
    for _ in range(settings.steps):
        state, measured = sae_step(state, sparse_data(rng, directions, settings.batch), settings)
    found = (directions @ np.asarray(state.params["decoder"]).T).max(1).mean()
    assert found > 0.95 and started < 0.7 and float(measured["error"]) < 0.12


def test_dead_features_come_back_by_the_auxiliary_loss_alone():
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    dead = {}
    for auxiliary in (0.0, 1 / 32):
        settings = SAESettings(features=32, k=2, steps=200, batch=128, rate=1e-2, dead_after=5, auxiliary=auxiliary)
        state = init_sae(16, settings, np.zeros(16))
        bias = state.params["bias"].at[:24].set(-0.5)  # behind all others, so never among the k largest
        encoder = state.params["encoder"].at[:, :24].multiply(0.2)
        state = dataclasses.replace(state, params=state.params | {"bias": bias, "encoder": encoder})
        for _ in range(settings.steps):
            state, measured = sae_step(state, sparse_data(rng, directions, 128), settings)
        dead[auxiliary] = float(measured["dead"])
    assert dead[1 / 32] < dead[0.0] / 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(kind="gated"), "an autoencoder of kind 'gated' was asked for; there are topk, jumprelu, relu"),
        (dict(features=16, k=17), "k=17 features of 16 can't be kept; wanted 1 to 16"),
        (dict(features=16), "k=32 features of 16 can't be kept; wanted 1 to 16"),
        (dict(kind="relu", k=3), "k=3 was given for the kind 'relu'; only topk has it. Leave it out"),
        (dict(penalty=0.1), "penalty=0.1 was given for the kind 'topk'; only jumprelu and relu have it"),
        (dict(kind="relu", bandwidth=0.1), "bandwidth=0.1 was given for the kind 'relu'; only jumprelu has it"),
        (dict(frozen="both"), "frozen='both' was given; wanted 'decoder', 'encoder', or ''"),
        (dict(steps=0), "steps=0 was given; wanted a whole number from 1 on"),
        (dict(batch=2.5), "batch=2.5 was given; wanted a whole number"),
        (dict(features=True), "features=True was given"),
        (dict(rate=float("nan")), "rate=nan was given; wanted a number of at least 0"),
        (dict(rate=0.0), "rate=0.0 was given; wanted a number above 0"),
        (dict(held_out=1.0), "held_out=1.0 was given; wanted a share above 0 and below 1"),
        (dict(seed=-1), "seed=-1 was given; wanted a whole number from 0 on"),
        (dict(kind="jumprelu", penalty=-1.0), "penalty=-1.0 was given; wanted a number of at least 0"),
        (dict(kind="jumprelu", bandwidth=0), "bandwidth=0 was given; wanted a number above 0"),
    ],
)
def test_settings_that_cannot_be_are_explained(given, message):
    with pytest.raises(SettingError, match=message):
        SAESettings(**given)
