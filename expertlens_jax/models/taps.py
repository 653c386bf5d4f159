"""What happens at a site: steer its units, then sow their pooled response.

Three collections mirror each other by path: the parameters of the site `attn.q` are at
`params/layers/attn/q`, its responses at `responses/layers/attn/q/response` `[layers, batch, channels]`, and
its steering at `steering/layers/attn/q/{scale,shift}` `[layers, channels]`.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

Pooling = Literal["max", "mean", "last"]
POOLINGS: tuple[str, ...] = ("max", "mean", "last")


@dataclasses.dataclass(frozen=True)
class Taps:
    """Which sites sow their responses, and how these are pooled over a sentence's tokens.

    The site `sae` is sown by the stack, not by a block: see `transformer.py`.
    """

    sites: tuple[str, ...] = ()
    pooling: Pooling = "max"


def pool(activations: jax.Array, mask: jax.Array, pooling: Pooling) -> jax.Array:
    """Pools activations over tokens.

    Args:
      activations: `[batch, tokens, channels]`.
      mask: bool `[batch, tokens]`, True for the tokens that enter the pool; at least one a row.
      pooling: "max", "mean", or "last" (the last token of the mask).

    Returns:
      float32 `[batch, channels]`.
    """
    match pooling:
        case "max":
            lowest = jnp.asarray(-jnp.inf, activations.dtype)
            return jnp.where(mask[..., None], activations, lowest).max(axis=1).astype(jnp.float32)
        case "mean":
            total = jnp.where(mask[..., None], activations.astype(jnp.float32), 0.0).sum(axis=1)
            return total / mask.sum(axis=1, keepdims=True)
        case "last":
            last = mask.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
            return jnp.take_along_axis(activations, last[:, None, None], axis=1)[:, 0].astype(jnp.float32)
    raise ValueError(f"unknown pooling {pooling!r}; there are {', '.join(POOLINGS)}")


def tap(module: nn.Module, site: str, activations: jax.Array, mask: jax.Array, taps: Taps) -> jax.Array:
    """Steers a site's activations and sows their pooled response into `module`'s own scope.

    A `steering` collection or an asked-for site that isn't there costs nothing: the branches are decided while
    tracing.

    Args:
      module: the module that stands for the site; its path names it in every collection.
      site: the site's name, as in `Taps.sites`.
      activations: `[batch, tokens, channels]`.
      mask: bool `[batch, tokens]`, the tokens that enter the pool.
      taps: what to sow.

    Returns:
      The activations, steered: `activations * scale + shift`.
    """
    if module.has_variable("steering", "scale"):
        scale = module.get_variable("steering", "scale").astype(activations.dtype)
        shift = module.get_variable("steering", "shift").astype(activations.dtype)
        activations = activations * scale + shift
    if site in taps.sites:
        response = pool(activations, mask, taps.pooling)
        module.sow("responses", "response", response, reduce_fn=lambda _, new: new, init_fn=lambda: None)
    return activations


class Tap(nn.Module):
    """A site without parameters of its own, such as an activation function's output."""

    site: str
    taps: Taps

    def __call__(self, activations: jax.Array, mask: jax.Array) -> jax.Array:
        """Steers and sows; see `tap`."""
        return tap(self, self.site, activations, mask, self.taps)


class TappedLinear(nn.Module):
    """A linear layer whose output channels are units.

    Parameters: `kernel` `[inputs, features]` and, with `use_bias`, `bias` `[features]`.
    """

    site: str
    features: int
    use_bias: bool
    taps: Taps
    dtype: jnp.dtype
    initializer_range: float = 0.02

    @nn.compact
    def __call__(self, inputs: jax.Array, mask: jax.Array) -> jax.Array:
        """Maps `[batch, tokens, inputs]` to `[batch, tokens, features]`, steered and sown."""
        init = nn.initializers.normal(self.initializer_range)
        kernel = self.param("kernel", init, (inputs.shape[-1], self.features), self.dtype)
        # Summed and shifted in float32, rounded once: in bfloat16 a sum rounded before its bias is off by more.
        outputs = jnp.matmul(inputs, kernel, preferred_element_type=jnp.float32)
        if self.use_bias:
            outputs += self.param("bias", nn.initializers.zeros, (self.features,), self.dtype)
        outputs = outputs.astype(inputs.dtype)
        return tap(self, self.site, outputs, mask, self.taps)
