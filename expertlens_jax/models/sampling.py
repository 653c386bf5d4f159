"""Draws tokens from logits: filters on logits, as pure functions, and a draw whose key is folded from its place.

In a filter's result, what isn't to be drawn is -inf.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

_PIECE = 128


@struct.dataclass
class Sampling:
    """How a token is drawn; None switches an option off, and without a temperature decoding is greedy."""

    key: jax.Array
    temperature: float | None
    top_p: float | None
    top_k: int | None = struct.field(pytree_node=False)


def draw_tokens(
    sampling: Sampling,
    draws: jax.Array | np.ndarray,
    step: jax.Array,
    logits: jax.Array,
    of_row: jax.Array | None = None,
) -> jax.Array:
    """Draw a token for each row; a draw depends on the seed, its number and the step, on nothing else.

    Args:
      sampling: how.
      draws: int32 `[draws]`, numbers of the draws: of the rows, one by one; or those that `of_row` chooses from.
      step: int32 scalar, how many tokens were drawn before.
      logits: float32 `[rows, vocabulary]`.
      of_row: int32 `[rows]`, which of the draws a row takes. Rows that take the same cost one: noise for a whole
        vocabulary takes a small model longer than all else.

    Returns:
      int32 `[rows]`; without a temperature the likeliest tokens.
    """
    if sampling.temperature is None:
        return first_largest(logits)
    filtered = divide_by_temperature(logits, sampling.temperature)
    if sampling.top_k is not None:
        filtered = keep_top_k(filtered, sampling.top_k)
    if sampling.top_p is not None:
        filtered = keep_top_p(filtered, sampling.top_p)

    def noise(draw: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(sampling.key, draw), step)
        return jax.random.gumbel(key, filtered.shape[1:], filtered.dtype)

    # The largest of logits and Gumbel's noise, as jax.random.categorical draws. The barrier keeps the noise out of the
    # loop that looks for the largest: there each row would make its own, and XLA's CPU would take twice as long for it.
    noises = jax.lax.optimization_barrier(jax.vmap(noise)(jnp.asarray(draws)))
    if of_row is not None:
        noises = noises[of_row]
    return first_largest(noises + filtered)


def first_largest(values: jax.Array) -> jax.Array:
    """Return where the largest of each row `[..., vocabulary]` stands, the first of equals: int32 `[...]`, as argmax.

    XLA's CPU takes forty times as long for the place of a maximum as for the maximum. So there the largest is looked
    for in pieces, and its place in one piece alone.
    """
    return jax.lax.platform_dependent(values, cpu=_first_largest_by_pieces, default=_argmax)


def _argmax(values: jax.Array) -> jax.Array:
    return values.argmax(-1).astype(jnp.int32)


def _first_largest_by_pieces(values: jax.Array) -> jax.Array:
    beyond = -values.shape[-1] % _PIECE
    padded = jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, beyond)], constant_values=-jnp.inf)
    pieces = jax.lax.optimization_barrier(padded).reshape(*values.shape[:-1], -1, _PIECE)
    piece = _argmax(pieces.max(-1))
    within = _argmax(jnp.take_along_axis(pieces, piece[..., None, None], axis=-2)[..., 0, :])
    return piece * _PIECE + within


def divide_by_temperature(logits: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """Sharpen (below 1) or flatten (above 1) the distribution of `[..., vocabulary]` logits."""
    return logits / temperature


def keep_top_k(logits: jax.Array, k: int) -> jax.Array:
    """Keep the `k` largest of `[..., vocabulary]` logits, and ties with the least.

    Top-k sampling (Fan et al. 2018, arXiv 1805.04833).
    """
    lowest = jax.lax.top_k(logits, k)[0][..., -1:]
    return jnp.where(logits < lowest, -jnp.inf, logits)


def keep_top_p(logits: jax.Array, p: jax.Array | float) -> jax.Array:
    """Keep the fewest of `[..., vocabulary]` logits that reach probability `p`, and ties with the least.

    Nucleus sampling (Holtzman et al. 2020, arXiv 1904.09751). At least one is kept.
    """
    probs = jax.nn.softmax(logits, axis=-1)
    # The least probability to keep is the largest below which there is at most 1 - p. It is found by halving,
    # much faster than by a sort, among the bits of floats: those of positive ones are ordered as they are.
    bits = jax.lax.bitcast_convert_type(probs.astype(jnp.float32), jnp.int32)

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high + 1) // 2  # at most twice the bits of 1.0, which is less than 2 ** 31
        enough = jnp.where(bits < middle, probs, 0.0).sum(-1, keepdims=True) <= 1 - p
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle - 1)

    most = bits.max(-1, keepdims=True)
    least, _ = jax.lax.fori_loop(0, 31, halve, (jnp.zeros_like(most), most))
    return jnp.where(bits < least, -jnp.inf, logits)
