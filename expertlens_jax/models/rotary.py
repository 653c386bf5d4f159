"""Rotary position embeddings, and the ways of stretching them to longer contexts.

Su et al. 2021, "RoFormer" (arXiv 2104.09864): channel pairs of queries and keys turn by an angle
`position * frequency`. The scalings are those of Hugging Face configs (`rope_parameters`), by their names
there.
"""

import dataclasses
import math
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

ROPE_SCALINGS = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")


@dataclasses.dataclass(frozen=True)
class Rotary:
    """A rotary embedding: which channels turn, and how fast."""

    dim: int
    """Channels of each head that turn, from the first; the rest pass unturned."""
    base: float = 10_000.0
    interleaved: bool = False
    """Pairs are neighbours (2i, 2i + 1), as in GPT-J, rather than halves (i, i + dim / 2)."""
    scaling: Literal["default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional"] = "default"
    factor: float = 1.0
    share: float = 1.0
    """Of the channel pairs that turn at all; those of the lowest frequencies don't (proportional)."""
    original_max_tokens: int = 0
    """The context the model was first trained on, where the scaling needs it."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    attention_factor: float = 1.0
    """Factor on sine and cosine (YaRN, LongRoPE)."""

    def frequencies(self, num_tokens: jax.Array) -> jax.Array:
        """Return the angle per position of each channel pair, float32 `[dim / 2]`.

        `num_tokens` (int scalar) is the length of the longest sequence of the batch: LongRoPE and dynamic NTK
        turn differently beyond the original context.
        """
        exponents = np.arange(0, self.dim, 2, dtype=np.float32) / self.dim
        plain = (1.0 / self.base**exponents).astype(np.float32)
        match self.scaling:
            case "default":
                return jnp.asarray(plain)
            case "linear":
                return jnp.asarray(plain / self.factor)
            case "dynamic":
                # Dynamic NTK: the base grows with the sequence once it is longer than the original context.
                length = jnp.maximum(num_tokens, self.original_max_tokens).astype(jnp.float32)
                stretch = self.factor * length / self.original_max_tokens - (self.factor - 1)
                return 1.0 / (self.base * stretch ** (self.dim / (self.dim - 2))) ** exponents
            case "longrope":
                longer = num_tokens > self.original_max_tokens
                factors = jnp.where(longer, jnp.asarray(self.long_factors), jnp.asarray(self.short_factors))
                return plain / factors.astype(jnp.float32)
            case "llama3":
                return jnp.asarray(self._llama3(plain))
            case "proportional":
                turns = np.arange(self.dim // 2) < int(self.share * self.dim // 2)
                return jnp.asarray(np.where(turns, plain, np.float32(0)) / np.float32(self.factor))
            case "yarn":
                return jnp.asarray(self._yarn(plain))
        raise ValueError(f"unknown rotary scaling {self.scaling!r}")

    def _llama3(self, plain: np.ndarray) -> np.ndarray:
        """Long wavelengths are stretched by `factor`, short ones kept, those between interpolated."""
        turns = self.original_max_tokens * plain / (2 * math.pi)  # over the original context
        smooth = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        smooth = np.clip(smooth, 0.0, 1.0)
        return ((1 - smooth) * plain / self.factor + smooth * plain).astype(np.float32)

    def _yarn(self, plain: np.ndarray) -> np.ndarray:
        """Peng et al. 2023, "YaRN" (arXiv 2309.00071): a ramp over channels from kept to stretched."""

        def channel(turns: float) -> float:  # the channel that makes so many turns over the original context
            wavelength = self.original_max_tokens / (turns * 2 * math.pi)
            return self.dim * math.log(wavelength) / (2 * math.log(self.base))

        low, high = channel(self.beta_fast), channel(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.dim - 1)
        if low == high:
            high += 0.001
        ramp = np.clip((np.arange(self.dim // 2) - low) / (high - low), 0.0, 1.0)
        return (plain / self.factor * ramp + plain * (1 - ramp)).astype(np.float32)


def rotate(
    heads: jax.Array, positions: jax.Array, frequencies: jax.Array, interleaved: bool, factor: jax.Array | float = 1.0
) -> jax.Array:
    """Turn the first `2 * len(frequencies)` channels of each head by their position.

    Args:
      heads: `[batch, tokens, heads, head_dim]`, queries or keys.
      positions: int `[batch, tokens]`.
      frequencies: float32 `[dim / 2]`; a frequency of zero leaves its channels as they are.
      interleaved: whether pairs are neighbours or halves, see `Rotary`.
      factor: on sine and cosine, see `Rotary.attention_factor`.

    Returns:
      An array like `heads`; the turning is done in float32.
    """
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies
    cos, sin = factor * jnp.cos(angles), factor * jnp.sin(angles)
    return jax.lax.platform_dependent(
        heads,
        cos,
        sin,
        tpu=partial(_turn_by_product, interleaved=interleaved),
        default=partial(_turn_by_parts, interleaved=interleaved),
    )


def _turn_by_parts(heads: jax.Array, cos: jax.Array, sin: jax.Array, interleaved: bool) -> jax.Array:
    """Return the channels that turn are cut out of the heads `[batch, tokens, heads, head_dim]`, and put back."""
    dim = 2 * cos.shape[-1]
    turning, rest = heads[..., :dim].astype(jnp.float32), heads[..., dim:]
    if interleaved:
        first, second = turning[..., 0::2], turning[..., 1::2]
    else:
        first, second = turning[..., : dim // 2], turning[..., dim // 2 :]
    turned = (first * cos - second * sin, second * cos + first * sin)
    if interleaved:
        turned = jnp.stack(turned, axis=-1).reshape(turning.shape)
    else:
        turned = jnp.concatenate(turned, axis=-1)
    return jnp.concatenate([turned.astype(heads.dtype), rest], axis=-1)


def _turn_by_product(heads: jax.Array, cos: jax.Array, sin: jax.Array, interleaved: bool) -> jax.Array:
    """Return the same on whole heads: each channel finds its partner by a product with a matrix of 0, 1 and -1.

    On a TPU that's far cheaper than to cut heads where no vector register ends, and no less exact: each sum has one
    term that isn't zero.
    """
    dim, head_dim = 2 * cos.shape[-1], heads.shape[-1]
    places = np.arange(dim).reshape((-1, 2) if interleaved else (2, -1))
    first, second = places.T if interleaved else places
    partners = np.zeros((head_dim, head_dim), np.float32)
    partners[second, first], partners[first, second] = -1, 1
    exact = jax.lax.Precision.HIGHEST if heads.dtype == jnp.float32 else None
    others = jnp.matmul(heads, partners.astype(heads.dtype), precision=exact, preferred_element_type=jnp.float32)
    spread = np.zeros(head_dim, np.int32)  # which frequency a channel has
    spread[first] = spread[second] = np.arange(dim // 2)
    turns = np.arange(head_dim) < dim
    cos, sin = jnp.where(turns, cos[..., spread], 1), jnp.where(turns, sin[..., spread], 0)
    return (heads * cos + others * sin).astype(heads.dtype)
