"""Mixtures of experts: a router chooses some of a layer's MLPs at each token (Shazeer et al. 2017, arXiv 1701.06538).

What an expert holds at a token that isn't routed to it is 0: it adds nothing there. Its units' responses are pooled
over the tokens that are, see `taps.pool_by_expert`.

Products are computed in one of two ways, with the same results. Densely, every expert sees every token, and its weight
is 0 where it wasn't chosen: that is simple. Grouped, tokens are sorted by their experts, and each expert sees its own:
`num_experts / experts_per_token` times less work. Accelerators have an instruction for it (`jax.lax.ragged_dot`); on
CPUs XLA would multiply every pair of a token and an expert with all experts, and blocks of a few rows take its place.

Over a mesh, each device has its own experts, for all tokens of its rows, in both ways; what experts give is summed
between devices, and no expert's weights leave theirs.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh, PartitionSpec

from expertlens_jax.models.activations import ACTIVATIONS
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.declaring import parameter
from expertlens_jax.models.sharding import split_channels
from expertlens_jax.models.taps import LayerInputs, Tap, TappedLinear, Taps, tap
from expertlens_jax.parallel import DATA, MODEL

LARGE = 2**22
"""From so many weights of a layer's `mlp.up` on, of all experts together, products are grouped."""
ROWS_PER_BLOCK = 32
"""Of a grouped product on CPUs."""


@struct.dataclass
class Routing:
    """Which experts each token is routed to, and how much each counts in their sum."""

    experts: jax.Array
    """int32 `[batch, tokens, experts per token]`; a number that none has, of an expert on another device."""
    weights: jax.Array
    """float32 `[batch, tokens, experts per token]`: how much what the expert gives counts, or what it reads."""
    num_experts: int = struct.field(pytree_node=False)

    @property
    def reached(self) -> jax.Array:
        """Bool `[batch, tokens, experts]`: whether a token is routed to an expert."""
        return self._chosen.any(axis=2)

    @property
    def weights_by_expert(self) -> jax.Array:
        """float32 `[batch, tokens, experts]`: how much an expert counts at a token, 0 where it wasn't chosen."""
        return jnp.where(self._chosen, self.weights[..., None], 0).sum(axis=2)

    @property
    def _chosen(self) -> jax.Array:
        return self.experts[..., None] == jnp.arange(self.num_experts)


def route(logits: jax.Array, config: TransformerConfig, mesh: Mesh | None = None) -> Routing:
    """Choose the experts of each token: those of its highest logits.

    Args:
      logits: the router's, `[batch, tokens, experts]`.
      config: how many there are to a token, and whether their weights are shares of the softmax, which may be made to
        sum to one, or sigmoids.
      mesh: that rows are split over, if the pass is told it.
    """
    logits = logits.astype(jnp.float32)
    scores = logits if config.weighted_inputs else jax.nn.softmax(logits, axis=-1)
    choose = partial(jax.lax.top_k, k=config.experts_per_token)
    if mesh is not None:  # by itself the compiler gathers all rows for it
        rows = PartitionSpec(_axis_of_rows(scores, mesh))
        choose = jax.shard_map(choose, mesh=mesh, in_specs=rows, out_specs=rows)
    weights, experts = choose(scores)
    if config.weighted_inputs:
        weights = jax.nn.sigmoid(weights)
    if config.router_norm:
        weights /= weights.sum(axis=-1, keepdims=True)
    return Routing(experts, weights, config.num_experts)


def into_experts(x: jax.Array, kernels: jax.Array, routing: Routing, grouped: "Grouped | None" = None) -> jax.Array:
    """Multiply each token with its experts' kernels.

    Args:
      x: `[batch, tokens, inputs]`.
      kernels: `[experts, inputs, outputs]`.
      routing: of the tokens.
      grouped: computes the products in groups; None for densely.

    Returns:
      float32 `[batch, tokens, experts, outputs]`. Where a token isn't routed to an expert, it means nothing.
    """
    if grouped is None:
        return jnp.einsum("btd,edf->btef", x, kernels, preferred_element_type=jnp.float32)
    order = _by_expert(routing)
    rows = x.reshape(-1, x.shape[-1])[order.tokens]
    products = grouped(rows, kernels, order)
    shape = (x.shape[0] * x.shape[1], routing.num_experts, kernels.shape[-1])
    places = order.tokens, jnp.where(order.here, order.experts, routing.num_experts + order.places)  # each its own
    apart = jnp.zeros(shape, jnp.float32).at[places].set(products, mode="drop", unique_indices=True)
    return apart.reshape(*x.shape[:2], *shape[1:])


def out_of_experts(
    activations: jax.Array, kernels: jax.Array, routing: Routing, grouped: "Grouped | None" = None
) -> jax.Array:
    """Multiply experts' activations with their kernels, and sum them over each token's experts by their weights.

    Args:
      activations: `[batch, tokens, experts, inputs]`, 0 where a token isn't routed to an expert.
      kernels: `[experts, inputs, outputs]`.
      routing: of the tokens.
      grouped: computes the products in groups; None for densely.

    Returns:
      float32 `[batch, tokens, outputs]`.
    """
    batch, num_tokens = activations.shape[:2]
    if grouped is None:
        # Weighted before the product, so that no [batch, tokens, experts, outputs] is made.
        weighted = (activations * routing.weights_by_expert[..., None]).astype(activations.dtype)
        return jnp.einsum("btef,efd->btd", weighted, kernels, preferred_element_type=jnp.float32)
    order = _by_expert(routing)
    of_token = activations.reshape(-1, *activations.shape[2:])
    rows = of_token.at[order.tokens, order.experts].get(mode="clip")
    products = grouped(rows, kernels, order)
    products = jnp.where(order.here[:, None], products, 0)
    # Put back in the tokens' order before they are summed: adding them up where they lie has no fixed order on GPUs.
    own = products[jnp.argsort(order.places)].reshape(batch, num_tokens, -1, products.shape[-1])
    return (own * routing.weights[..., None]).sum(axis=2)


@struct.dataclass
class _Order:
    """All pairs of a token and one of its experts, sorted by expert; those of experts elsewhere last.

    int32 `[pairs]` each.
    """

    places: jax.Array
    """Where each stands among the pairs as they come, token by token."""
    tokens: jax.Array
    experts: jax.Array
    here: jax.Array
    """bool `[pairs]`: whether the expert is on this device. What is computed of the others means nothing."""
    counts: jax.Array
    """int32 `[experts]`: how many tokens each has."""


def _by_expert(routing: Routing) -> _Order:
    experts = routing.experts.reshape(-1)
    here = (experts >= 0) & (experts < routing.num_experts)
    experts = jnp.where(here, experts, routing.num_experts)
    places = jnp.argsort(experts)
    counts = (experts[:, None] == jnp.arange(routing.num_experts)).sum(axis=0, dtype=jnp.int32)
    return _Order(places, places // routing.experts.shape[-1], experts[places], here[places], counts)


Grouped = Callable[[jax.Array, jax.Array, _Order], jax.Array]
"""From rows `[pairs, inputs]`, sorted as the order is, and kernels `[experts, inputs, outputs]`, to each row's product
with its own expert's kernel, float32 `[pairs, outputs]`."""


def by_instruction(rows: jax.Array, kernels: jax.Array, order: _Order) -> jax.Array:
    """Multiply rows with their experts' kernels, by the accelerator's own grouped product."""
    return jax.lax.ragged_dot(rows, kernels, order.counts, preferred_element_type=jnp.float32)


def by_blocks(rows: jax.Array, kernels: jax.Array, order: _Order) -> jax.Array:
    """Multiply rows with their experts' kernels, one block of an expert's rows after the other.

    An expert's last block is filled up with rows of the next, whose products with it aren't looked at.
    """
    num_experts, size = len(kernels), ROWS_PER_BLOCK
    blocks = -(-order.counts // size)
    ends, starts = jnp.cumsum(blocks), jnp.cumsum(order.counts) - order.counts
    numbers = jnp.arange(len(rows) // size + num_experts)  # as many as there can be
    expert = jnp.searchsorted(ends, numbers, side="right")
    own = jnp.minimum(expert, num_experts - 1)
    first = starts[own] + (numbers - (ends - blocks)[own]) * size

    @jax.checkpoint  # or gradients would keep the kernel of every block
    def multiply_block(block: tuple[jax.Array, jax.Array]) -> jax.Array:
        first, expert = block
        taken = jnp.take(rows, first + jnp.arange(size), axis=0, mode="clip")
        kernel = jax.lax.dynamic_index_in_dim(kernels, expert, keepdims=False)
        return jnp.matmul(taken, kernel, preferred_element_type=jnp.float32)

    def unless_beyond(block: tuple[jax.Array, jax.Array]) -> jax.Array:
        # Of a number in the block, since `shard_map` wants both to differ over the same devices.
        nothing = jnp.full((size, kernels.shape[-1]), 0 * block[0], jnp.float32)
        return jax.lax.cond(block[1] < num_experts, multiply_block, lambda _: nothing, block)

    products = jax.lax.map(unless_beyond, (first, expert)).reshape(-1, kernels.shape[-1])
    of_row = jnp.minimum(order.experts, num_experts - 1)
    return jnp.take(
        products, (ends - blocks)[of_row] * size + jnp.arange(len(rows)) - starts[of_row], axis=0, mode="clip"
    )


def multiply(
    product,  # noqa: ANN001
    x: jax.Array,
    kernels: jax.Array,
    routing: Routing,
    mesh: Mesh | None,
    devices: int | None = None,
) -> jax.Array:
    """Compute `into_experts` or `out_of_experts` in the way that suits the experts and where they are.

    Grouped if they are `LARGE`: on one device by itself, and on CPUs also on each of a mesh whose `model` axis divides
    the experts, if blocks are at most half of the work. On accelerators products are dense over a mesh: of OLMoE over
    four TPU v5e, libtpu's compiler estimates 80 times as many cycles for grouped ones. Where a pass isn't told the mesh
    that rows are split over, they would be gathered to be sorted, and so products are dense; as they are where the axis
    doesn't divide the experts, each of which is then split by its channels.

    Args:
      product: which of the two.
      x: what it takes.
      kernels: `[experts, inputs, outputs]`.
      routing: of the tokens.
      mesh: that the pass is told, if any.
      devices: over how many devices it runs, whatever it is told; None: unknown, and then taken for all that there are.
    """
    num_experts, *size = kernels.shape
    small = num_experts * size[0] * size[1] < LARGE
    apart = num_experts % mesh.shape[MODEL] == 0 if mesh is not None else (devices or jax.device_count()) == 1
    if small or not apart:
        return product(x, kernels, routing)

    def way(grouped: Grouped | None) -> Callable[..., jax.Array]:
        if grouped is None or mesh is None:  # densely, the compiler splits products itself
            return partial(product, grouped=grouped)
        return partial(on_own_device, partial(product, grouped=grouped), mesh)

    pairs, tokens = routing.experts.size, routing.experts.size // routing.experts.shape[-1]
    worth_it = 2 * (pairs + num_experts * ROWS_PER_BLOCK) <= tokens * num_experts
    cpu, others = way(by_blocks if worth_it else None), way(by_instruction if mesh is None else None)
    return jax.lax.platform_dependent(x, kernels, routing, cpu=cpu, default=others)


def on_own_device(product, mesh: Mesh, x: jax.Array, kernels: jax.Array, routing: Routing) -> jax.Array:  # noqa: ANN001
    """Compute `into_experts` or `out_of_experts` grouped, each device with its own experts and its rows' tokens.

    Args:
      product: which of the two, and by which grouped product.
      mesh: `(data, model)`; `model` divides the experts.
      x: what `product` takes: `[batch, tokens, inputs]`, or `[batch, tokens, experts, inputs]`, split by experts.
      kernels: `[experts, inputs, outputs]`, split by experts.
      routing: of the tokens, the same on each device of the `model` axis.

    Returns:
      What `product` gives, split by experts; or summed over the `model` axis, and split by channels if it divides them.
    """
    by_expert = x.ndim == 4
    rows = _axis_of_rows(x, mesh)
    scattered = kernels.shape[-1] % mesh.shape[MODEL] == 0
    experts, channels = PartitionSpec(rows, None, MODEL), PartitionSpec(rows, None, MODEL if scattered else None)

    def of_own_experts(x: jax.Array, kernels: jax.Array, chosen: jax.Array, weights: jax.Array) -> jax.Array:
        first = jax.lax.axis_index(MODEL) * kernels.shape[0]
        own = product(x, kernels, Routing(chosen - first, weights, kernels.shape[0]))
        if not by_expert:
            return own
        return (
            jax.lax.psum_scatter(own, MODEL, scatter_dimension=2, tiled=True) if scattered else jax.lax.psum(own, MODEL)
        )

    return jax.shard_map(
        of_own_experts,
        mesh=mesh,
        in_specs=(experts if by_expert else PartitionSpec(rows), PartitionSpec(MODEL), *[PartitionSpec(rows)] * 2),
        out_specs=channels if by_expert else experts,
    )(x, kernels, routing.experts, routing.weights)


def _axis_of_rows(x: jax.Array, mesh: Mesh) -> str | None:
    """Return the mesh's axis that an array's rows are split over; None if it doesn't divide them."""
    return DATA if x.shape[0] % mesh.shape[DATA] == 0 else None


class IntoExperts(nn.Module):
    """Each expert's own linear layer from the residual stream, whose output channels are the units of a site.

    Parameters: `kernels` `[experts, inputs, channels]` and, if the config's MLPs have biases, `biases` `[experts,
    channels]`.
    """

    site: str
    config: TransformerConfig
    taps: Taps
    dtype: jnp.dtype
    mesh: Mesh | None = None
    devices: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, routing: Routing, inputs: LayerInputs) -> jax.Array:
        """Map `[batch, tokens, inputs]` to `[batch, tokens, experts * channels]`, steered, intervened on and sown."""
        c = self.config
        init = nn.initializers.normal(c.initializer_range)
        kernels = parameter(self, "kernels", init, (c.num_experts, x.shape[-1], c.d_mlp), self.dtype)
        outputs = multiply(into_experts, x, kernels, routing, self.mesh, self.devices)
        if c.weighted_inputs:  # behind the product, which is the same
            outputs *= routing.weights_by_expert[..., None]
        if c.mlp_bias:
            outputs += parameter(self, "biases", nn.initializers.zeros, (c.num_experts, c.d_mlp), self.dtype)
        outputs = outputs.astype(x.dtype).reshape(*x.shape[:2], -1)
        return tap(self, self.site, outputs, inputs, c, self.taps, routing.reached)


class OutOfExperts(nn.Module):
    """Each expert's own linear layer back to the residual stream, summed over a token's experts by their weights.

    Parameters: `kernels` `[experts, inputs, d_model]` and, if the config's MLPs have biases, `biases` `[experts,
    d_model]`.
    """

    config: TransformerConfig
    taps: Taps
    dtype: jnp.dtype
    mesh: Mesh | None = None
    devices: int | None = None

    @nn.compact
    def __call__(
        self, activations: jax.Array, routing: Routing, inputs: LayerInputs, shared: jax.Array | None = None
    ) -> jax.Array:
        """Map `[batch, tokens, experts * inputs]` to `[batch, tokens, d_model]`, the site `mlp.down`.

        What a `shared` expert gives, float32 of the same shape, is added to the sum.
        """
        c = self.config
        init = nn.initializers.normal(c.initializer_range)
        kernels = parameter(self, "kernels", init, (c.num_experts, c.d_mlp, c.d_model), self.dtype)
        by_expert = activations.reshape(*activations.shape[:2], c.num_experts, c.d_mlp)
        if c.weighted_inputs:
            routing = Routing(routing.experts, jnp.ones_like(routing.weights), routing.num_experts)
        outputs = multiply(out_of_experts, by_expert, kernels, routing, self.mesh, self.devices)
        if c.mlp_bias:
            biases = parameter(self, "biases", nn.initializers.zeros, (c.num_experts, c.d_model), self.dtype)
            outputs += jnp.matmul(routing.weights_by_expert, biases.astype(jnp.float32))
        if shared is not None:
            outputs += shared
        return tap(self, "mlp.down", outputs.astype(activations.dtype), inputs, c, self.taps)


def activate(gate: jax.Array | None, up: jax.Array, config: TransformerConfig) -> jax.Array:
    """Apply the nonlinearity of an expert's MLP, gated if there is a gate."""
    if config.clamped_gate is not None and gate is not None:
        factor, limit = config.clamped_gate
        gate, up = jnp.minimum(gate, limit), jnp.clip(up, -limit, limit)
        return (up + 1) * gate * jax.nn.sigmoid(factor * gate)
    activation = ACTIVATIONS[config.activation]
    return activation(up) if gate is None else activation(gate) * up


class RoutedMLP(nn.Module):
    """A mixture of experts in the MLP's place, tapped at the router, each expert's gate, up and act, and at down.

    Where the config has a shared expert, every token has that one too, maybe times the sigmoid of a number of its own.
    """

    config: TransformerConfig
    taps: Taps
    dtype: jnp.dtype
    mesh: Mesh | None = None
    devices: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, inputs: LayerInputs) -> jax.Array:
        """Map `[batch, tokens, d_model]` to the same shape."""
        c = self.config
        router = TappedLinear("mlp.router", c, use_bias=c.router_bias, taps=self.taps, dtype=self.dtype, name="router")
        routing = route(router(x, inputs), c, self.mesh)
        into = partial(IntoExperts, config=c, taps=self.taps, dtype=self.dtype, mesh=self.mesh, devices=self.devices)
        up = into("mlp.up", name="up")(x, routing, inputs)
        gate = into("mlp.gate", name="gate")(x, routing, inputs) if c.gated else None
        act = activate(gate, up, c)
        act = Tap("mlp.act", c, self.taps, name="act")(act, inputs, routing.reached)
        down = OutOfExperts(c, self.taps, self.dtype, self.mesh, self.devices, name="down")
        shared = self._shared(x, inputs) if c.d_shared else None
        return split_channels(down(split_channels(act, self.mesh), routing, inputs, shared), self.mesh)

    @nn.nowrap
    def _shared(self, x: jax.Array, inputs: LayerInputs) -> jax.Array:
        """Return what the shared expert adds, float32 `[batch, tokens, d_model]`."""
        c = self.config

        def linear(name: str, y: jax.Array) -> jax.Array:
            layer = TappedLinear(f"mlp.{name}", c, use_bias=c.mlp_bias, taps=self.taps, dtype=self.dtype, name=name)
            return layer(y, inputs)

        counts = jax.nn.sigmoid(linear("shared_router", x).astype(jnp.float32)) if c.shared_router else 1.0
        up = linear("shared_up", x)
        act = activate(linear("shared_gate", x), up, c)
        act = Tap("mlp.shared_act", c, self.taps, name="shared_act")(act, inputs)
        return counts * linear("shared_down", split_channels(act, self.mesh)).astype(jnp.float32)
