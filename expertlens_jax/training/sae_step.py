"""One training step of a sparse autoencoder: its features, its loss, and the update that keeps the decoder's rows at 1.

All is computed of activations whose mean length is sqrt(channels), and divided by the number of channels, so that a
setting means the same in any site and model: an error of 1 is what an autoencoder that says nothing makes.
"""

import dataclasses
import functools
import math
import numbers
from collections.abc import Mapping
from typing import Literal, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from expertlens_jax.errors import SettingError

Kind = Literal["topk", "jumprelu", "relu"]
Frozen = Literal["", "decoder", "encoder"]
KINDS: tuple[str, ...] = get_args(Kind)
DEFAULT_PENALTIES = {"jumprelu": 0.002, "relu": 0.1}
DEFAULT_K = 32
Params = Mapping[str, jax.Array]
"""encoder `[channels, features]`, bias `[features]`, decoder `[features, channels]`, offset `[channels]`; of a JumpReLU
also log_threshold `[features]`. All float32."""


@dataclasses.dataclass(frozen=True)
class SAESettings:
    """How a sparse autoencoder is trained; hashable, so that it can be a static argument of `jax.jit`.

    >>> import expertlens_jax as el
    >>> settings = el.training.SAESettings(features=512, k=16, steps=200)
    >>> settings.activations
    204800
    """

    kind: Kind = "topk"
    """"topk": the k largest features of each activation stay (Gao et al. 2024, arXiv 2406.04093); "jumprelu": those
    above a threshold of their own, learned through a straight-through estimate, at a price for each (Rajamanoharan et
    al. 2024, arXiv 2407.14435); "relu": those above 0, at a price for what they sum to (Bricken et al. 2023)."""
    features: int = 1024
    k: int | None = None
    """How many features of an activation stay; of "topk" alone. None is 32."""
    penalty: float | None = None
    """The price of a feature of "jumprelu", or of a sum of features of sqrt(channels) of "relu", in shares of the
    activations' mean square. None is 0.002 or 0.1."""
    bandwidth: float | None = None
    """Of "jumprelu": how near to its threshold a feature teaches it. None is 0.2."""
    steps: int = 1000
    batch: int = 1024
    """Activations a step."""
    rate: float = 2e-3
    """Adam's learning rate: it rises over the first twentieth of the steps, and falls to 0 over the last fifth."""
    dead_after: int = 100
    """Steps without firing after which a feature is dead, and is taught by the auxiliary loss."""
    auxiliary: float = 1 / 32
    """The weight of that loss: what the dead features that fire most (as many as half the channels) leave of the error
    (AuxK, Gao et al. 2024, section A.2). 0 leaves it out."""
    frozen: Frozen = ""
    """What stays as it was drawn, for a control: "decoder" or "encoder"; "" trains both."""
    context: int = 128
    """Tokens of a text that are read at once; longer ones are cut into pieces."""
    buffer: int = 16
    """Batches of activations that are held, and shuffled, at once."""
    most_passes: int = 10
    """How often a text may be read at most."""
    held_out: float = 0.1
    """The share of texts that is kept from training, and measured on."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values, and those that only some kinds have.

        Raises:
          SettingError: an unknown kind, a setting of another kind, more features to keep than there are, or a number
            that can't be.
        """
        if self.kind not in KINDS:
            raise SettingError(f"an autoencoder of kind {self.kind!r} was asked for; there are {', '.join(KINDS)}.")
        if self.frozen not in get_args(Frozen):
            raise SettingError(f"frozen={self.frozen!r} was given; wanted 'decoder', 'encoder', or '' for neither.")
        for name, kinds in {"k": ("topk",), "penalty": ("jumprelu", "relu"), "bandwidth": ("jumprelu",)}.items():
            if getattr(self, name) is not None and self.kind not in kinds:
                raise SettingError(
                    f"{name}={getattr(self, name)!r} was given for the kind {self.kind!r}; only {' and '.join(kinds)} "
                    f"{'have' if len(kinds) > 1 else 'has'} it. Leave it out."
                )
        for name in ("features", "k", "steps", "batch", "dead_after", "context", "buffer", "most_passes", "seed"):
            _check(self, name, 0 if name == "seed" else 2 if name == "context" else 1, integer=True)
        for name in ("penalty", "bandwidth", "rate", "auxiliary", "held_out"):
            _check(self, name, 0, integer=False)
        for name in ("rate", "bandwidth", "held_out"):
            if getattr(self, name) == 0 or (name == "held_out" and self.held_out >= 1):
                wanted = "a share above 0 and below 1" if name == "held_out" else "a number above 0"
                raise SettingError(f"{name}={getattr(self, name)!r} was given; wanted {wanted}.")
        if self.kind == "topk" and self.kept > self.features:
            raise SettingError(f"k={self.kept} features of {self.features} can't be kept; wanted 1 to {self.features}.")

    @property
    def kept(self) -> int:
        """How many features of an activation "topk" keeps."""
        return DEFAULT_K if self.k is None else self.k

    @property
    def price(self) -> float:
        """What the loss charges for features; 0 for "topk"."""
        return DEFAULT_PENALTIES.get(self.kind, 0.0) if self.penalty is None else self.penalty

    @property
    def width(self) -> float:
        """The bandwidth of "jumprelu"."""
        return 0.2 if self.bandwidth is None else self.bandwidth

    @property
    def activations(self) -> int:
        """How many activations the training reads, repeats included."""
        return self.steps * self.batch

    def schedule(self) -> optax.Schedule:
        """Return the learning rate by step."""
        rise, fall = max(1, self.steps // 20), max(1, self.steps // 5)
        parts = [
            optax.linear_schedule(0.0, self.rate, rise),
            optax.constant_schedule(self.rate),
            optax.linear_schedule(self.rate, 0.0, fall),
        ]
        return optax.join_schedules(parts, [rise, max(rise, self.steps - fall)])

    def transformation(self) -> optax.GradientTransformation:
        """Return the clipped gradient's way to an update."""
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(self.schedule()))


def _check(settings: SAESettings, name: str, least: int, *, integer: bool) -> None:
    value = getattr(settings, name)
    if value is None:
        return
    kind = numbers.Integral if integer else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind) or not math.isfinite(value) or value < least:
        what = f"a whole number from {least} on" if integer else f"a number of at least {least}"
        raise SettingError(f"{name}={value!r} was given; wanted {what}.")


@struct.dataclass
class SAEState:
    """All that a step changes."""

    step: jax.Array
    """int32 scalar: how many steps were taken."""
    params: Params
    optimizer: optax.OptState
    silent: jax.Array
    """int32 `[features]`: for how many steps no activation of a batch has made a feature fire."""


def init_sae(channels: int, settings: SAESettings, mean: jax.Array | np.ndarray) -> SAEState:
    """Return an autoencoder before its first step.

    The decoder's rows are random directions, and the encoder is the decoder turned: times what makes the features of
    a random activation add up to about its length, where more than k of them fire.

    Args:
      channels: of the site.
      settings: of the training; the seed draws the directions. A frozen encoder has directions of its own.
      mean: `[channels]`, of activations of mean length sqrt(channels): what the decoder starts from.
    """
    decoder = _directions(jax.random.key(settings.seed), settings.features, channels)
    encoder = decoder.T
    if settings.frozen == "encoder":
        encoder = _directions(jax.random.fold_in(jax.random.key(settings.seed), 1), settings.features, channels).T
    if settings.kind != "topk":
        encoder = encoder * min(1.0, 2 * channels / settings.features)
    params = {
        "encoder": encoder,
        "bias": jnp.zeros(settings.features),
        "decoder": decoder,
        "offset": jnp.asarray(mean, jnp.float32),
    }
    if settings.kind == "jumprelu":
        params["log_threshold"] = jnp.full(settings.features, jnp.log(0.5))
    silent = jnp.zeros(settings.features, jnp.int32)
    return SAEState(jnp.zeros((), jnp.int32), params, settings.transformation().init(params), silent)


def _directions(key: jax.Array, count: int, channels: int) -> jax.Array:
    """Random directions of length 1: float32 `[count, channels]`."""
    drawn = jax.random.normal(key, (count, channels))
    return drawn / jnp.linalg.norm(drawn, axis=1, keepdims=True)


# A JumpReLU's threshold has no gradient, so its kernel estimate stands in: Rajamanoharan et al. 2024, equations 11, 12.


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def jump_relu(before: jax.Array, threshold: jax.Array, width: float) -> jax.Array:
    """Return `before` where it is above the threshold, 0 elsewhere; the threshold learns from what is near to it."""
    del width
    return jnp.where(before > threshold, before, 0.0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def fires(before: jax.Array, threshold: jax.Array, width: float) -> jax.Array:
    """Return 1.0 where `before` is above the threshold, 0 elsewhere; only the threshold has a gradient."""
    del width
    return (before > threshold).astype(before.dtype)


def _near(before: jax.Array, threshold: jax.Array, width: float) -> jax.Array:
    """Return the rectangle kernel: 1 / width within half a width of the threshold."""
    return (jnp.abs(before - threshold) < width / 2).astype(before.dtype) / width


def _jump_relu_back(width: float, kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple:
    before, threshold = kept
    through = jnp.where(before > threshold, gradient, 0.0)
    return through, (-threshold * _near(before, threshold, width) * gradient).sum(tuple(range(before.ndim - 1)))


def _fires_back(width: float, kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple:
    before, threshold = kept
    to_threshold = (-_near(before, threshold, width) * gradient).sum(tuple(range(before.ndim - 1)))
    return jnp.zeros_like(before), to_threshold


jump_relu.defvjp(lambda b, t, width: (jump_relu(b, t, width), (b, t)), _jump_relu_back)
fires.defvjp(lambda b, t, width: (fires(b, t, width), (b, t)), _fires_back)


def keep_largest(features: jax.Array, k: int) -> jax.Array:
    """Return each row's k largest features, and 0 in the place of the others; those that tie with the last all stay.

    Args:
      features: `[..., features]`, none below 0.
      k: how many.
    """
    # The minimum, and not the last: XLA takes a slice of the values for a wish to have all of them sorted.
    least = jax.lax.top_k(jax.lax.stop_gradient(features), k)[0].min(-1, keepdims=True)
    return jnp.where(features >= least, features, 0.0)


def sae_loss(
    params: Params, x: jax.Array, dead: jax.Array, settings: SAESettings
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return what a step makes smaller, and its parts.

    Args:
      params: of the autoencoder.
      x: float32 `[batch, channels]`, activations of mean length sqrt(channels).
      dead: bool `[features]`, those that the auxiliary loss teaches.
      settings: of the training.

    Returns:
      The loss, and float32 scalars `error` (the mean square of what isn't explained), `price`, `auxiliary` and `l0`
      (how many features fire); and `fired`, bool `[features]`, whether any activation made a feature fire.
    """
    channels = x.shape[-1]
    before = jax.nn.relu(jnp.matmul(x - params["offset"], params["encoder"]) + params["bias"])
    price = jnp.zeros(())
    match settings.kind:
        case "topk":
            features = keep_largest(before, settings.kept)
        case "jumprelu":
            threshold = jnp.exp(params["log_threshold"])
            features = jump_relu(before, threshold, settings.width)
            price = settings.price * fires(before, threshold, settings.width).sum(-1).mean()
        case "relu":
            features = before
            price = settings.price * features.sum(-1).mean() / math.sqrt(channels)
    error = x - (features @ params["decoder"] + params["offset"])
    square = jnp.square(error).sum(-1).mean() / channels
    auxiliary = jnp.zeros(())
    if settings.auxiliary:
        auxiliary = jax.lax.cond(
            dead.any(),
            lambda: settings.auxiliary * _auxiliary_loss(params, before, jax.lax.stop_gradient(error), dead),
            lambda: jnp.zeros(()),
        )
    fired = features > 0
    parts = {"error": square, "price": price, "auxiliary": auxiliary, "l0": fired.sum(-1).mean(dtype=jnp.float32)}
    return square + price + auxiliary, parts | {"fired": fired.any(0)}


def _auxiliary_loss(params: Params, before: jax.Array, error: jax.Array, dead: jax.Array) -> jax.Array:
    """Return what dead features, at most half as many as channels, leave of the error, as a share of it."""
    most = min(max(1, error.shape[-1] // 2), before.shape[-1])
    revived = keep_largest(jnp.where(dead, before, 0.0), most)
    left = jnp.square(error - revived @ params["decoder"]).sum(-1).mean()
    return left / jnp.maximum(jnp.square(error).sum(-1).mean(), 1e-12)


@functools.partial(jax.jit, static_argnames="settings", donate_argnames="state")
def sae_step(state: SAEState, x: jax.Array, settings: SAESettings) -> tuple[SAEState, dict[str, jax.Array]]:
    """Take one step on a batch, over all devices that it is split over.

    The gradient's part along a row of the decoder is taken off before Adam sees it, and the rows are brought back to
    length 1 after the update (Bricken et al. 2023).

    Args:
      state: before the step; its memory is reused.
      x: float32 `[batch, channels]`, activations of mean length sqrt(channels).
      settings: of the training.

    Returns:
      The state after the step, and float32 scalars of `sae_loss` with `loss` and `dead`, the number of dead features.
    """
    dead = state.silent >= settings.dead_after
    (loss, parts), gradient = jax.value_and_grad(sae_loss, has_aux=True)(state.params, x, dead, settings)
    rows = state.params["decoder"]
    along = (gradient["decoder"] * rows).sum(1, keepdims=True)
    gradient = gradient | {"decoder": gradient["decoder"] - along * rows}
    if settings.frozen:
        gradient = gradient | {settings.frozen: jnp.zeros_like(gradient[settings.frozen])}
    updates, optimizer = settings.transformation().update(gradient, state.optimizer, state.params)
    params = dict(cast(Mapping[str, jax.Array], optax.apply_updates(state.params, updates)))
    if settings.frozen != "decoder":
        params["decoder"] /= jnp.linalg.norm(params["decoder"], axis=1, keepdims=True)
    silent = jnp.where(parts.pop("fired"), 0, state.silent + 1)
    measured = {"loss": loss, **parts, "dead": dead.sum(dtype=jnp.float32)}
    return SAEState(state.step + 1, params, optimizer, silent), measured
