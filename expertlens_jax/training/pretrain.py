"""One training step of a causal language model, and its loss on text that training doesn't see."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from optax import contrib

from expertlens_jax.errors import SelectionError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.transformer import Transformer
from expertlens_jax.training.cross_entropy import linear_cross_entropy

OPTIMIZERS = ("adamw", "muon")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a model is trained; hashable, so that it can be a static argument of `jax.jit`.

    >>> import expertlens_jax as el
    >>> recipe = el.training.Recipe(steps=100, warmup_steps=10, peak_rate=1e-3)
    >>> [round(float(recipe.schedule()(step)), 3) for step in (0, 5, 10, 100)]
    [0.0, 0.5, 1.0, 0.0]
    """

    steps: int
    warmup_steps: int
    peak_rate: float
    """AdamW's learning rate after warming up; from there it falls to zero as a cosine."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """What updates the blocks' kernels; embeddings, norms and biases are AdamW's in any case."""
    muon_rate: float = 0.01
    """Muon's learning rate at the peak, on the same schedule."""
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip_norm: float = 1.0
    dtype: str = "float32"
    """Of the forward and backward pass; parameters and the optimizer's state are float32."""

    def __post_init__(self) -> None:
        """Check the optimizer.

        Raises:
          SelectionError: an unknown one.
        """
        if self.optimizer not in OPTIMIZERS:
            raise SelectionError(f"Unknown optimizer {self.optimizer!r}. Choose from: {', '.join(OPTIMIZERS)}.")

    def schedule(self, peak: float = 1.0) -> optax.Schedule:
        """Return the learning rate by step: a linear rise to `peak`, and a cosine down to zero."""
        return optax.warmup_cosine_decay_schedule(0.0, peak, self.warmup_steps, self.steps)

    def transformation(self) -> optax.GradientTransformation:
        """Return the clipped gradient's way to an update.

        AdamW is Loshchilov & Hutter's (2019), with decay of kernels and embeddings only. Muon (Jordan et al. 2024)
        orthogonalises the momentum of each kernel.
        """
        adamw = optax.adamw(
            self.schedule(self.peak_rate), self.beta1, self.beta2, weight_decay=self.weight_decay, mask=_decaying
        )
        if self.optimizer == "adamw":
            return optax.chain(optax.clip_by_global_norm(self.clip_norm), adamw)
        muon = contrib.muon(
            self.schedule(self.muon_rate),
            weight_decay=self.weight_decay,
            adam_b1=self.beta1,
            adam_b2=self.beta2,
            adam_learning_rate=self.schedule(self.peak_rate),
            muon_weight_dimension_numbers=_muon_dimensions,
        )
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), muon)


def _decaying(params: Mapping[str, Any]) -> Any:
    """Return which parameters weight decay applies to: kernels and embeddings."""
    return jax.tree.map_with_path(lambda path, _: path[-1].key in ("kernel", "token", "head", "position"), params)


def _muon_dimensions(params: Any) -> Any:
    """Return which parameters Muon updates: the blocks' kernels `[layers, inputs, outputs]`, layer by layer."""
    matrix = contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)
    return jax.tree.map_with_path(lambda path, _: matrix if path[-1].key == "kernel" else None, params)


@struct.dataclass
class TrainState:
    """All that a step changes.

    >>> import expertlens_jax as el, dataclasses, jax, numpy as np
    >>> config = dataclasses.replace(el.load_model("lenslet-2m").config, num_layers=1)
    >>> recipe = el.training.Recipe(steps=10, warmup_steps=1, peak_rate=1e-3)
    >>> state = el.training.init_state(config, recipe, jax.random.key(0))
    >>> isinstance(state, el.training.TrainState), int(state.step)
    (True, 0)
    """

    step: jax.Array
    """int32 scalar: how many steps were taken."""
    params: Mapping[str, Any]
    optimizer: optax.OptState


@functools.partial(jax.jit, static_argnames=("config", "recipe"))
def init_state(config: TransformerConfig, recipe: Recipe, key: jax.Array) -> TrainState:
    """Return a model before its first step, float32.

    >>> import expertlens_jax as el, dataclasses, jax, numpy as np
    >>> config = dataclasses.replace(el.load_model("lenslet-2m").config, num_layers=1)
    >>> recipe = el.training.Recipe(steps=10, warmup_steps=1, peak_rate=1e-3)
    >>> state = el.training.init_state(config, recipe, jax.random.key(0))
    >>> state.params["embed"]["token"].shape == (config.vocab_size, config.d_model)
    True
    """
    token, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    params = Transformer(config).init(key, token, mask, mask)["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, recipe.transformation().init(params))


def next_token_loss(
    params: Mapping[str, Any], config: TransformerConfig, blocks: jax.Array, dtype: str = "float32"
) -> jax.Array:
    """Return the mean cross-entropy of every next token, in nats.

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
    ours = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    changed = config.head_bias or config.logits_softcap is not None or config.logits_scale != 1.0
    if config.head is None or changed:
        logits: Any = Transformer(config, dtype=jnp.dtype(dtype)).apply({"params": ours}, inputs, mask, mask)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
    headless = dataclasses.replace(config, head=None)
    hidden: Any = Transformer(headless, dtype=jnp.dtype(dtype)).apply({"params": ours}, inputs, mask, mask)
    table = ours["embed"]["token"] if config.head == "tied" else ours["head"].T
    return linear_cross_entropy(hidden.reshape(-1, config.d_model), table, targets.reshape(-1))


@functools.partial(jax.jit, static_argnames=("config", "recipe"), donate_argnames="state")
def train_step(
    state: TrainState, blocks: jax.Array, config: TransformerConfig, recipe: Recipe
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Take one step on a batch, over all devices that `blocks` is split over.

    Args:
      state: before the step; its memory is reused.
      blocks: int32 `[rows, context + 1]`.
      config: of the model.
      recipe: of the training.

    Returns:
      The state after the step, and float32 scalars: `loss` (nats a token, of the parameters before the step),
      `gradient_norm` (before clipping), `rate` (the step's learning rate).

    >>> import expertlens_jax as el, dataclasses, jax, numpy as np
    >>> config = dataclasses.replace(el.load_model("lenslet-2m").config, num_layers=1)
    >>> recipe = el.training.Recipe(steps=10, warmup_steps=1, peak_rate=1e-3)
    >>> state = el.training.init_state(config, recipe, jax.random.key(0))
    >>> blocks = np.arange(18, dtype=np.int32).reshape(2, 9)
    >>> state, measured = el.training.train_step(state, blocks, config, recipe)
    >>> int(state.step), sorted(measured)
    (1, ['gradient_norm', 'loss', 'rate'])
    """
    loss, gradient = jax.value_and_grad(next_token_loss)(state.params, config, blocks, recipe.dtype)
    updates, optimizer = recipe.transformation().update(gradient, state.optimizer, state.params)
    measured: dict[str, Any] = {
        "loss": loss,
        "gradient_norm": optax.tree.norm(gradient),
        "rate": recipe.schedule(recipe.peak_rate)(state.step),
    }
    params = cast(Mapping[str, Any], optax.apply_updates(state.params, updates))
    return TrainState(state.step + 1, params, optimizer), measured


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def _evaluate_rows(params: Mapping[str, Any], blocks: jax.Array, config: TransformerConfig, dtype: str) -> jax.Array:
    return next_token_loss(params, config, blocks, dtype)


def held_out_loss(
    params: Mapping[str, Any], config: TransformerConfig, blocks: np.ndarray, *, rows: int, dtype: str = "float32"
) -> float:
    """Return the mean cross-entropy over blocks, in nats a token; its exponential is the perplexity.

    Args:
      params: float32.
      config: of the model.
      blocks: int32 `[blocks, context + 1]`; what doesn't fill a last batch is left out.
      rows: blocks a batch.
      dtype: of the pass.

    >>> import expertlens_jax as el, dataclasses, jax, numpy as np
    >>> config = dataclasses.replace(el.load_model("lenslet-2m").config, num_layers=1)
    >>> recipe = el.training.Recipe(steps=10, warmup_steps=1, peak_rate=1e-3)
    >>> state = el.training.init_state(config, recipe, jax.random.key(0))
    >>> blocks = np.arange(18, dtype=np.int32).reshape(2, 9)
    >>> loss = el.training.held_out_loss(state.params, config, blocks, rows=2)
    >>> bool(abs(loss - np.log(config.vocab_size)) < 0.5)  # it knows nothing yet
    True
    """
    whole = blocks[: len(blocks) // rows * rows].reshape(-1, rows, blocks.shape[1])
    return float(np.mean([_evaluate_rows(params, batch, config, dtype) for batch in whole], dtype=np.float64))
