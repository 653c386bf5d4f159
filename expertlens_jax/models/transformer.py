"""The one Linen stack of every family: embeddings, a scan over blocks, and a head."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from expertlens_jax.models.activations import ACTIVATIONS
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.declaring import parameter
from expertlens_jax.models.gated_maps import GatedMap, start_fired
from expertlens_jax.models.interventions import PlacedIntervention
from expertlens_jax.models.layers import MLP, Attention, LayerOptions, Norm
from expertlens_jax.models.routing import RoutedMLP
from expertlens_jax.models.sae import SAE, read_features, which_reads
from expertlens_jax.models.sharding import gather_channels, split_channels
from expertlens_jax.models.taps import LayerInputs, Tap, Taps, chosen_channels, pool, sow_last, take_channels, tap

Carry = tuple[jax.Array, jax.Array | None, dict[int, jax.Array] | None, dict[str, jax.Array] | None]
"""What goes from layer to layer: the residual stream `[batch, tokens, d_model]`, and with it what SAEs have read,
`[saes, batch, features]`, or of chosen features `[saes, batch, tokens, chosen]`; None if that isn't asked for. Then at
which tokens units fire that a steering goes by, see `LayerInputs.fired`; and keys and values for layers that have none,
see `LayerInputs.shared`."""


class Block(nn.Module):
    """One layer: attention and MLP on the residual stream, in the order and with the norms of the config."""

    config: TransformerConfig
    taps: Taps
    dtype: jnp.dtype
    keeps: bool = False
    mesh: Mesh | None = None
    devices: int | None = None

    @nn.compact
    def __call__(
        self,
        carry: Carry,
        options: LayerOptions,
        inputs: LayerInputs,
        saes: tuple[SAE, ...],
    ) -> tuple[Carry, None]:
        """Map the residual stream, and what goes with it, to the next layer's; the None is scan's."""
        c = self.config
        x, features, fired, shared = carry
        fired, shared = None if fired is None else dict(fired), None if shared is None else dict(shared)
        held = None if features is None else {}
        told = {"layer": options.layer, "local": options.local, "held": held, "fired": fired, "shared": shared}
        inputs = dataclasses.replace(inputs, **told)
        x = Tap("resid.pre", c, self.taps, name="pre")(x, inputs)
        attention = Attention(c, self.taps, self.dtype, self.keeps, self.mesh, name="attn")
        layers = self.taps, self.dtype, self.mesh
        mlp = RoutedMLP(c, *layers, self.devices, name="mlp") if c.num_experts else MLP(c, *layers, name="mlp")

        def attend(y: jax.Array) -> jax.Array:
            return attention(gather_channels(y, self.mesh), inputs, options)

        def transform(y: jax.Array) -> jax.Array:
            return mlp(gather_channels(y, self.mesh), inputs)

        def norm(name: str, y: jax.Array) -> jax.Array:
            return Norm(c, self.dtype, name=name)(y)

        def norm_of_attention(name: str, y: jax.Array) -> jax.Array:
            normed = norm(name, y)
            return normed if options.unnormed is None else jnp.where(options.unnormed, y, normed)

        if c.residual == "sequential":
            x = self._add(x, attend, "attn", norm_of_attention)
            x = self._add(x, transform, "mlp", norm)
        else:
            whole = gather_channels(x, self.mesh)  # once, for both norms
            attention_input = norm("attn_norm", whole)
            mlp_input = attention_input if c.residual == "parallel_shared_norm" else norm("mlp_norm", whole)
            x = x + self._scaled(attend(attention_input)) + self._scaled(transform(mlp_input))
        if c.per_layer_width:
            x = x + self._of_tokens(gather_channels(x, self.mesh), options)
        if c.layer_scalars:
            x = x * parameter(self, "scalar", nn.initializers.ones, (1,), self.dtype)
        x = split_channels(x, self.mesh)
        x = tap(self, "resid", x, inputs, c, self.taps)
        if features is not None:
            assert options.sae is not None and inputs.held is not None  # as where SAEs are asked for
            features = read_features(saes, options.sae, inputs.held, self._keep(inputs), features)
        return (x, features, fired, shared), None

    @nn.nowrap
    def _of_tokens(self, x: jax.Array, options: LayerOptions) -> jax.Array:
        """Return what a layer adds of what each token gives it by itself, let through by the stream."""
        c = self.config
        assert options.of_tokens is not None  # as in every model that has such inputs
        linear = partial(nn.Dense, use_bias=False, dtype=self.dtype, param_dtype=self.dtype)
        gate = ACTIVATIONS[c.activation](linear(c.per_layer_width, name="per_layer_gate")(x))
        added = linear(c.d_model, name="per_layer_out")(gate * options.of_tokens)
        return Norm(c, self.dtype, name="per_layer_norm")(added)

    def _keep(self, inputs: LayerInputs) -> Callable[[int, jax.Array], jax.Array]:
        """Return what is kept of an SAE's features `[batch, tokens, features]`.

        They are pooled, or some of them are kept at each token.
        """
        chosen = inputs.features
        if chosen is None:
            return lambda _, features: pool(features, inputs.pool_mask, self.taps.pooling)
        return lambda place, features: take_channels(features, chosen[place])

    def _add(self, x: jax.Array, branch, name: str, norm) -> jax.Array:  # noqa: ANN001
        """Add a branch to the residual stream, with norms where `config.norm_place` puts them."""
        match self.config.norm_place:
            case "pre":
                return x + self._scaled(branch(norm(f"{name}_norm", x)))
            case "post":
                return norm(f"{name}_norm", x + self._scaled(branch(x)))
            case "output":
                return x + self._scaled(norm(f"{name}_out_norm", branch(x)))
            case "both":
                return x + self._scaled(norm(f"{name}_out_norm", branch(norm(f"{name}_norm", x))))
        raise ValueError(f"unknown norm place {self.config.norm_place!r}")

    def _scaled(self, y: jax.Array) -> jax.Array:
        """Return what a branch adds to the residual stream, times the config's factor; rounded once."""
        scale = self.config.residual_scale
        return y if scale == 1.0 else (y.astype(jnp.float32) * scale).astype(y.dtype)


class Embedder(nn.Module):
    """Token embeddings, with whatever the family adds to them; also reads them backwards for a tied head."""

    config: TransformerConfig
    dtype: jnp.dtype

    def setup(self) -> None:
        """Declare the tables: `token` `[vocabulary, d_model]`, `position`, `type`; and what widens and narrows them."""
        c = self.config
        init, width = nn.initializers.normal(c.initializer_range), c.embedding_width or c.d_model
        self.token = parameter(self, "token", init, (c.vocab_size, c.token_width or width), self.dtype)
        if c.token_width is not None:
            self.project_in = parameter(self, "project_in", init, (c.d_model, c.token_width), self.dtype)
            self.project_out = parameter(self, "project_out", init, (c.token_width, c.d_model), self.dtype)
        if c.learned_positions:
            rows = c.max_tokens + c.position_offset
            self.position = parameter(self, "position", init, (rows, width), self.dtype)
        if c.token_types:
            self.type = parameter(self, "type", init, (c.token_types, width), self.dtype)
        if c.embedding_norm:
            self.norm = Norm(c, self.dtype)
        if c.embedding_width is not None:
            self.projection = nn.Dense(c.d_model, dtype=self.dtype, param_dtype=self.dtype, kernel_init=init)
        if c.per_layer_width:
            inner = c.num_layers * c.per_layer_width
            self.per_layer_token = parameter(self, "per_layer_token", init, (c.per_layer_vocab, inner), self.dtype)
            self.per_layer = nn.Dense(inner, use_bias=False, dtype=self.dtype, param_dtype=self.dtype)
            self.per_layer_norm = Norm(c, self.dtype)

    def of_layers(self, token_ids: jax.Array, x: jax.Array) -> jax.Array:
        """Return what tokens give each layer by themselves, `[layers, batch, tokens, channels]`.

        Args:
          token_ids: int `[batch, tokens]`.
          x: their embeddings, `[batch, tokens, d_model]`.
        """
        c = self.config
        by_layer = (*token_ids.shape, c.num_layers, c.per_layer_width)
        own = self.per_layer_token[token_ids] * jnp.asarray(c.per_layer_width**0.5, x.dtype)
        read = self.per_layer_norm((self.per_layer(x) * jnp.asarray(c.d_model**-0.5, x.dtype)).reshape(by_layer))
        return jnp.moveaxis((read + own.reshape(by_layer)) * jnp.asarray(2**-0.5, x.dtype), 2, 0)

    def __call__(self, token_ids: jax.Array, positions: jax.Array) -> jax.Array:
        """Map int `[batch, tokens]` ids and positions to `[batch, tokens, d_model]`."""
        c = self.config
        x = self.token[token_ids]
        if c.token_width is not None:
            x = jnp.matmul(x, self.project_in.T, preferred_element_type=jnp.float32).astype(x.dtype)
        if c.embedding_scale != 1.0:
            x *= jnp.asarray(c.embedding_scale, x.dtype)
        if c.token_types:
            x += self.type[0]
        if c.learned_positions:
            x += self.position[positions + c.position_offset]
        x = self.norm(x) if c.embedding_norm else x
        return x if c.embedding_width is None else self.projection(x)

    def narrow(self, x: jax.Array) -> jax.Array:
        """Map `[batch, tokens, d_model]` to what the head reads: the same, but of a config with a `token_width`."""
        if self.config.token_width is None:
            return x
        return jnp.matmul(x, self.project_out.T, preferred_element_type=jnp.float32).astype(x.dtype)

    def unembed(self, x: jax.Array) -> jax.Array:
        """Map `[batch, tokens, d_model]` to logits, float32 `[batch, tokens, vocabulary]`."""
        return jnp.matmul(x, self.token.T, preferred_element_type=jnp.float32)


class Ends(nn.Module):
    """What stands before a transformer's layers and behind them."""

    config: TransformerConfig
    taps: Taps = Taps()
    dtype: jnp.dtype = jnp.float32
    keeps: bool = False
    """Whether keys and values are kept, for generation."""
    mesh: Mesh | None = None
    """What the parameters are split over, if activations are laid out on it too: see `sharding.py`."""
    devices: int | None = None
    """Over how many devices it runs, of which mixtures' products depend where there is no mesh; None: unknown, and then
    taken for all that there are. A `Program` tells it by itself."""

    @nn.nowrap
    def _enter(
        self,
        embedder: Embedder,
        token_ids: jax.Array,
        attention_mask: jax.Array,
        pool_mask: jax.Array,
        first_slot: jax.Array | int,
        saes: tuple[SAE, ...],
        interventions: tuple[PlacedIntervention | GatedMap, ...],
    ) -> tuple[Carry, LayerInputs, LayerOptions]:
        """Return what the first layer is given: the carry, what all layers are told, and each one's options."""
        c = self.config
        counted = jnp.maximum(jnp.cumsum(attention_mask, axis=1, dtype=jnp.int32) - 1, 0)
        positions = jax.lax.dynamic_slice_in_dim(counted, first_slot, token_ids.shape[1], axis=1)
        pool_mask, *other_pools = [pool_mask] if pool_mask.ndim == 2 else jnp.moveaxis(pool_mask, -1, 0)
        inputs = LayerInputs(
            positions,
            pool_mask,
            attention_mask,
            jnp.asarray(first_slot, jnp.int32),
            counted if c.alibi is not None or c.chunks else None,
            tuple(other_pools),
            interventions,
            token_ids=token_ids if interventions else None,
            features=chosen_channels(self, "sae"),
        )

        x = embedder(token_ids, positions)
        options, features, shared = layer_options(c, positions.max() + 1), None, None
        if c.per_layer_width:
            options = dataclasses.replace(options, of_tokens=embedder.of_layers(token_ids, x))
        if c.shared_kv_layers:
            none = jnp.zeros((2, *token_ids.shape, c.num_kv_heads, c.head_dim), x.dtype)
            shared = {"keys": none, "values": none}
        x = split_channels(x, self.mesh)
        if interventions:
            options = dataclasses.replace(options, layer=jnp.arange(c.num_layers))
        if saes:
            options = dataclasses.replace(options, sae=jnp.asarray(which_reads(saes, c.num_layers)))
            shape = (saes[0].num_features,) if inputs.features is None else (x.shape[1], inputs.features.shape[1])
            features = jnp.zeros((len(saes), len(x), *shape), jnp.float32)
        return (x, features, start_fired(interventions, token_ids.shape), shared), inputs, options

    @nn.nowrap
    def _leave(self, embedder: Embedder, carry: Carry, inputs: LayerInputs) -> jax.Array:
        """Return what the last layer's carry gives, see `__call__`."""
        c = self.config
        x, features, *_ = carry
        if features is not None and inputs.features is None:
            sow_last(self, "responses", "sae", {"response": features})
        elif features is not None:
            sow_last(self, "activations", "sae", {"activation": features})
        if self.keeps:
            x = x[:, -1:]  # only the last token's logits are wanted, and a vocabulary is large
        if c.final_norm:
            x = Norm(c, self.dtype, name="final_norm")(x)
        x = embedder.narrow(x)
        if c.head is None:
            return x
        # Summed in float32: in bfloat16, with 8 bits, the log-probabilities of a large vocabulary would come in steps.
        if c.head == "tied":
            logits = embedder.unembed(x)
        else:
            init = nn.initializers.normal(c.initializer_range)
            head = parameter(self, "head", init, (x.shape[-1], c.vocab_size), self.dtype)
            logits = jnp.matmul(x, head, preferred_element_type=jnp.float32)
        if c.head_bias:
            logits += parameter(self, "head_bias", nn.initializers.zeros, (c.vocab_size,), self.dtype)
        if c.logits_scale != 1.0:
            logits *= c.logits_scale
        if c.logits_softcap is not None:
            logits = c.logits_softcap * jnp.tanh(logits / c.logits_softcap)
        return logits


class Transformer(Ends):
    """A language model that taps its units.

    With `keeps`, the tokens' keys and values are sown as `new`, `[layers, batch, kv_heads, tokens, head_dim]` each,
    and logits are those of the last token only. Whoever calls puts them into the `cache` collection of the next call,
    `[layers, batch, kv_heads, slots, head_dim]`; `attention_mask` then covers the slots, and `first_slot` says where
    the given tokens stand among them.
    """

    @nn.compact
    def __call__(
        self,
        token_ids: jax.Array,
        attention_mask: jax.Array,
        pool_mask: jax.Array,
        first_slot: jax.Array | int = 0,
        saes: tuple[SAE, ...] = (),
        interventions: tuple[PlacedIntervention | GatedMap, ...] = (),
    ) -> jax.Array:
        """Run the model.

        Args:
          token_ids: int `[batch, tokens]`.
          attention_mask: bool `[batch, tokens]` (`[batch, slots]` with a cache), False at padding, on
            whichever side; positions count from each row's first True.
          pool_mask: bool `[batch, tokens]`, the tokens whose activations enter the pooled responses; or
            `[batch, tokens, pools]`, for responses over each, see `taps.response_over`.
          first_slot: int scalar, the first token's slot in the cache.
          saes: sparse autoencoders that `check_saes` passed, if `taps` asks for the site `sae`.
          interventions: applied after any steering at all tokens, in this order; see `place_interventions`.

        Returns:
          Logits float32 `[batch, tokens, vocabulary]`; of a config without a head, the last hidden state
          `[batch, tokens, d_model]`. Responses are sown, see `taps`.
        """
        c = self.config
        embedder = Embedder(c, self.dtype, name="embed")
        carry, inputs, options = self._enter(
            embedder, token_ids, attention_mask, pool_mask, first_slot, saes, interventions
        )
        blocks = nn.scan(
            Block,
            variable_axes=dict.fromkeys(
                ("params", "responses", "activations", "chosen", "steering", "cache", "new"), 0
            ),
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=c.num_layers,
            check_constancy_invariants=False,  # for which the block would be traced twice
        )(c, self.taps, self.dtype, self.keeps, self.mesh, self.devices, name="layers")
        carry, _ = blocks(carry, options, inputs, saes)
        return self._leave(embedder, carry, inputs)


class Entrance(Ends):
    """What stands before a transformer's layers, by itself: takes its arguments, and those parameters alone."""

    @nn.compact
    def __call__(self, *arguments: Any) -> tuple[Carry, LayerInputs, LayerOptions]:
        """Return what the first layer is given, see `Ends._enter`."""
        return self._enter(Embedder(self.config, self.dtype, name="embed"), *arguments)


class Exit(Ends):
    """What stands behind a transformer's layers, by itself."""

    @nn.compact
    def __call__(self, carry: Carry, inputs: LayerInputs) -> jax.Array:
        """Return what `Transformer.__call__` does, of the last layer's carry."""
        return self._leave(Embedder(self.config, self.dtype, name="embed"), carry, inputs)


def layer_options(c: TransformerConfig, num_tokens: jax.Array) -> LayerOptions:
    """Return the options that change by layer, stacked `[layers, ...]`, for sequences of up to `num_tokens`."""
    windows = np.array(c.windows or (0,) * c.num_layers, dtype=np.int32)
    scale = c.head_dim**-0.5 if c.attention_scale is None else c.attention_scale
    scales = np.full(c.num_layers, scale, dtype=np.float32)
    if c.attention_scale_by_layer:
        scales /= np.arange(1, c.num_layers + 1)
    layers = np.arange(c.num_layers)
    unnormed, own_keys = np.isin(layers, c.unnormed_layers), layers < c.num_layers - c.shared_kv_layers
    chunks = np.array(c.chunks, dtype=np.int32)
    return LayerOptions(
        unnormed=jnp.asarray(unnormed) if c.unnormed_layers else None,
        local=jnp.asarray(windows > 0) if c.layers_differ else None,
        own_keys=jnp.asarray(own_keys) if c.shared_kv_layers else None,
        window=jnp.asarray(np.where(windows > 0, windows, np.iinfo(np.int32).max)),
        chunk=jnp.asarray(np.where(chunks > 0, chunks, np.iinfo(np.int32).max)) if c.chunks else None,
        attention_scale=jnp.asarray(scales),
        rotated=jnp.asarray(~np.isin(np.arange(c.num_layers), c.unrotated_layers)),
        **_rotary_options(c, windows > 0, num_tokens),
    )


def _rotary_options(c: TransformerConfig, local: np.ndarray, num_tokens: jax.Array) -> dict[str, jax.Array]:
    """Return each layer's frequencies and factor: the global ones, those of layers with a window, or none at all."""
    if c.rotary is None:
        return {"frequencies": jnp.zeros((c.num_layers, 0)), "rotary_factor": jnp.ones(c.num_layers)}
    frequencies = jnp.tile(c.rotary.frequencies(num_tokens), (c.num_layers, 1))
    factors = np.full(c.num_layers, c.rotary.attention_factor, np.float32)
    if c.local_rotary is not None:
        of_local = c.local_rotary.frequencies(num_tokens)
        if len(of_local) < frequencies.shape[1]:  # of heads that are narrower
            of_local = jnp.pad(of_local, (0, frequencies.shape[1] - len(of_local)))
        frequencies = jnp.where(local[:, None], of_local, frequencies)
        factors = np.where(local, np.float32(c.local_rotary.attention_factor), factors)
    unrotated = np.isin(np.arange(c.num_layers), c.unrotated_layers)
    return {
        "frequencies": jnp.where(unrotated[:, None], 0.0, frequencies),
        "rotary_factor": jnp.asarray(np.where(unrotated, np.float32(1.0), factors)),
    }
