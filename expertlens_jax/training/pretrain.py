"""One training step of a causal language model, and its loss on text that training doesn't see."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.transformer import Transformer


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is trained; hashable, so that it can be a static argument of `jax.jit`."""

    steps: int
    warmup_steps: int
    peak_rate: float
    """The learning rate after warming up; from there it falls as a cosine to `final_rate` times this."""
    final_rate: float = 0.0
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip_norm: float = 1.0
    dtype: str = "float32"
    """Of the forward and backward pass; parameters and the optimizer's state are float32."""

    def schedule(self) -> optax.Schedule:
        """The learning rate by step."""
        return optax.warmup_cosine_decay_schedule(
            0.0, self.peak_rate, self.warmup_steps, self.steps, self.peak_rate * self.final_rate
        )

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW (Loshchilov & Hutter 2019) behind a clipped gradient; matrices decay, norms and biases don't."""
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.adamw(
                self.schedule(),
                self.beta1,
                self.beta2,
                weight_decay=self.weight_decay,
                mask=lambda params: jax.tree.map_with_path(_decays, params),
            ),
        )


def _decays(path: tuple[Any, ...], leaf: jax.Array) -> bool:
    """Whether weight decay applies: to kernels and embeddings."""
    return path[-1].key in ("kernel", "token", "head", "position")


@struct.dataclass
class TrainState:
    """All that a step changes."""

    step: jax.Array
    """int32 scalar: how many steps were taken."""
    params: Mapping[str, Any]
    optimizer: optax.OptState


def init_state(config: TransformerConfig, recipe: Recipe, key: jax.Array) -> TrainState:
    """A model before its first step, float32."""
    token, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    params = Transformer(config).init(key, token, mask, mask)["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, recipe.optimizer().init(params))


def next_token_loss(
    params: Mapping[str, Any], config: TransformerConfig, blocks: jax.Array, dtype: str = "float32"
) -> jax.Array:
    """Mean cross-entropy of every next token, in nats.

    Args:
      params: float32.
      config: of the model.
      blocks: int32 `[rows, context + 1]`.
      dtype: of the pass.

    Returns:
      float32 scalar.
    """
    inputs, targets = blocks[:, :-1], blocks[:, 1:]
    mask = jnp.ones(inputs.shape, bool)
    cast = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    logits = Transformer(config, dtype=jnp.dtype(dtype)).apply({"params": cast}, inputs, mask, mask)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


@functools.partial(jax.jit, static_argnames=("config", "recipe"), donate_argnames="state")
def train_step(
    state: TrainState, blocks: jax.Array, config: TransformerConfig, recipe: Recipe
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step on a batch, over all devices that `blocks` is split over.

    Args:
      state: before the step; its memory is reused.
      blocks: int32 `[rows, context + 1]`.
      config: of the model.
      recipe: of the training.

    Returns:
      The state after the step, and float32 scalars: `loss` (nats a token, of the parameters before the step),
      `gradient_norm` (before clipping), `rate` (the step's learning rate).
    """
    loss, gradient = jax.value_and_grad(next_token_loss)(state.params, config, blocks, recipe.dtype)
    updates, optimizer = recipe.optimizer().update(gradient, state.optimizer, state.params)
    measured = {
        "loss": loss,
        "gradient_norm": optax.global_norm(gradient),
        "rate": recipe.schedule()(state.step),
    }
    return TrainState(state.step + 1, optax.apply_updates(state.params, updates), optimizer), measured


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def _evaluate_rows(params: Mapping[str, Any], blocks: jax.Array, config: TransformerConfig, dtype: str) -> jax.Array:
    return next_token_loss(params, config, blocks, dtype)


def held_out_loss(
    params: Mapping[str, Any], config: TransformerConfig, blocks: np.ndarray, *, rows: int, dtype: str = "float32"
) -> float:
    """Mean cross-entropy over blocks, in nats a token; its exponential is the perplexity.

    Args:
      params: float32.
      config: of the model.
      blocks: int32 `[blocks, context + 1]`; what doesn't fill a last batch is left out.
      rows: blocks a batch.
      dtype: of the pass.
    """
    whole = blocks[: len(blocks) // rows * rows].reshape(-1, rows, blocks.shape[1])
    return float(np.mean([_evaluate_rows(params, batch, config, dtype) for batch in whole], dtype=np.float64))
