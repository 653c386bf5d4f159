"""The parts of a block: norms, attention, and MLP, each reading its options from the one config."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh

from expertlens_jax.models.activations import ACTIVATIONS
from expertlens_jax.models.config import ALiBi, QueryScale, TransformerConfig
from expertlens_jax.models.declaring import parameter
from expertlens_jax.models.rotary import rotate
from expertlens_jax.models.sharding import split_channels, split_heads
from expertlens_jax.models.sites import SITES
from expertlens_jax.models.taps import LayerInputs, Tap, TappedLinear, Taps


@struct.dataclass
class LayerOptions:
    """The options that change by layer; stacked `[layers, ...]` outside the scan, one layer's inside."""

    window: jax.Array
    """int32: how many tokens back a token sees, itself included."""
    attention_scale: jax.Array
    """float32: factor on the attention scores."""
    frequencies: jax.Array
    """float32 `[dim / 2]`: the rotary embedding's; zeros turn nothing."""
    rotary_factor: jax.Array
    """float32: factor on what the rotary embedding turns, see `Rotary.attention_factor`."""
    rotated: jax.Array
    """bool: whether the rotary embedding turns anything."""
    chunk: jax.Array | None = None
    """int32: tokens to a chunk, beyond which a token sees none; None where no layer has chunks."""
    local: jax.Array | None = None
    """bool: the layer has a window; None where all layers are alike."""
    own_keys: jax.Array | None = None
    """bool: the layer has keys and values of its own; None where all have."""
    of_tokens: jax.Array | None = None
    """`[batch, tokens, channels]`: what each token gives this layer by itself; None where tokens give none."""
    unnormed: jax.Array | None = None
    """bool: the attention reads the residual stream without a norm; None where no layer's does."""
    sae: jax.Array | None = None
    """int32: which sparse autoencoder reads the layer, -1 for none; None if none is asked for."""
    layer: jax.Array | None = None
    """int32: the layer's number, from 0; None without interventions, which alone ask for it."""


class Norm(nn.Module):
    """Layer norm or RMS norm over the last axis, computed in float32."""

    config: TransformerConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises `[..., channels]`."""
        c = self.config
        y = x.astype(jnp.float32)
        if c.norm == "layer":
            y -= y.mean(-1, keepdims=True)
        y = of_unit_length(y, c.norm_eps)
        if not c.norm_parameters:
            return y.astype(x.dtype)
        init = nn.initializers.zeros if c.norm_plus_one else nn.initializers.ones
        scale = parameter(self, "scale", init, (x.shape[-1],), self.dtype).astype(jnp.float32)
        y *= scale + 1.0 if c.norm_plus_one else scale
        if c.norm == "layer" and c.norm_bias:
            y += parameter(self, "bias", nn.initializers.zeros, (x.shape[-1],), self.dtype).astype(jnp.float32)
        return y.astype(x.dtype)


class HeadNorm(nn.Module):
    """RMS norm within heads, of which some layers' are narrower: what is beyond a layer's own channels is 0."""

    config: TransformerConfig
    dtype: jnp.dtype
    scaled: bool = True

    @nn.compact
    def __call__(self, heads: jax.Array, local: jax.Array) -> jax.Array:
        """Normalises `[..., heads, head_dim]`, laid out by `into_heads`."""
        c = self.config
        y, width = heads.astype(jnp.float32), heads.shape[-1]
        own = jnp.where(local, c.local_head_dim or width, width)
        y *= jax.lax.rsqrt(jnp.square(y).sum(-1, keepdims=True) / own + c.norm_eps)
        if self.scaled:
            scale = parameter(self, "scale", nn.initializers.ones, (width,), self.dtype)
            y *= into_heads(scale[None, None], 1, 1, c, local)[..., 0, :].astype(jnp.float32)[..., None, :]
        return y.astype(heads.dtype)


def into_heads(
    channels: jax.Array, num_heads: int, num_global: int, c: TransformerConfig, local: jax.Array | None
) -> jax.Array:
    """Lay a layer's channels out as heads.

    Where layers differ, all have as many heads of the same width here. A narrow head has its halves at the beginnings
    of the halves, so that the same channels are turned together, and 0 elsewhere; where a layer has fewer heads, each
    stands for several.

    Args:
      channels: `[batch, tokens, channels]`, heads one after the other from the first channel on.
      num_heads: of layers with a window, or of all.
      num_global: heads of layers without one.
      c: of the model.
      local: bool scalar, whether the layer has a window; None where layers are alike.

    Returns:
      `[batch, tokens, num_heads, head_dim]`.
    """
    start = channels.shape[:2]
    if local is None:
        return channels.reshape(*start, num_heads, c.head_dim)
    narrow_dim = c.local_head_dim or c.head_dim
    wide = _as_many(channels, num_global * c.head_dim).reshape(*start, num_global, c.head_dim)
    halves = _as_many(channels, num_heads * narrow_dim).reshape(*start, num_heads, 2, narrow_dim // 2)
    narrow = _as_many(halves, c.head_dim // 2).reshape(*start, num_heads, c.head_dim)
    return jnp.where(local, narrow, jnp.repeat(wide, num_heads // num_global, axis=2))


def out_of_heads(heads: jax.Array, c: TransformerConfig, local: jax.Array | None) -> jax.Array:
    """Lay `[batch, tokens, heads, head_dim]` out as a layer's channels, the inverse of `into_heads`.

    There are as many as the widest layer has.
    """
    start = heads.shape[:2]
    wide = heads.reshape(*start, -1)
    if local is None or c.local_head_dim is None:
        return wide
    width = SITES["attn.z"].channels(c)
    halves = heads.reshape(*start, heads.shape[2], 2, -1)[..., : c.local_head_dim // 2]
    return jnp.where(local, _as_many(halves.reshape(*start, -1), width), wide[..., :width])


def _as_many(x: jax.Array, number: int) -> jax.Array:
    """Return the first so many channels `[..., channels]`; zeros where there are fewer."""
    x = x[..., :number]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, number - x.shape[-1])])


def of_unit_length(y: jax.Array, eps: float) -> jax.Array:
    """Return float32 `[..., channels]` divided by their root mean square."""
    return y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + eps)


class Attention(nn.Module):
    """Multi-head attention with grouped keys and values, tapped at q, k, v (before any turning), z and out."""

    config: TransformerConfig
    taps: Taps
    dtype: jnp.dtype
    keeps: bool = False
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, x: jax.Array, inputs: LayerInputs, options: LayerOptions) -> jax.Array:
        """Map `[batch, tokens, d_model]` to the same shape."""
        c = self.config
        num_tokens = x.shape[1]
        linear = partial(TappedLinear, config=c, taps=self.taps, dtype=self.dtype)
        q = linear("attn.q", use_bias=c.qkv_bias, name="q")(x, inputs)
        k = linear("attn.k", use_bias=c.qkv_bias, name="k")(x, inputs) if c.has_keys else jnp.zeros_like(q)
        v = linear("attn.v", use_bias=c.qkv_bias, name="v")(x, inputs) if c.has_values else k
        local, num_global = options.local, c.global_kv_heads or c.num_kv_heads

        def norm_projection(name: str, y: jax.Array) -> jax.Array:
            return Norm(c, self.dtype, name=name)(y)

        def norm_heads(name: str, y: jax.Array) -> jax.Array:
            return norm_projection(name, y) if local is None else HeadNorm(c, self.dtype, name=name)(y, local)

        if c.qk_norm == "projection":
            q, k = norm_projection("q_norm", q), norm_projection("k_norm", k)
        if c.qkv_clip is not None:
            q, k, v = (jnp.clip(each, -c.qkv_clip, c.qkv_clip) for each in (q, k, v))
        q, k, v = (split_heads(split_channels(each, self.mesh), self.mesh, c.num_kv_heads) for each in (q, k, v))
        q = into_heads(q, c.num_heads, c.num_heads, c, local)
        k, v = (into_heads(each, c.num_kv_heads, num_global, c, local) for each in (k, v))
        if c.global_values_are_keys:
            assert local is not None  # since layers differ
            v = jnp.where(local, v, k)
        if c.qk_norm == "head":
            q, k = norm_heads("q_norm", q), norm_heads("k_norm", k) if c.has_keys else k
        if c.value_norm and local is None:
            v = of_unit_length(v.astype(jnp.float32), c.norm_eps).astype(v.dtype)
        elif c.value_norm:
            assert local is not None
            v = HeadNorm(c, self.dtype, scaled=False, name="v_norm")(v, local)
        if c.rotary is not None:
            turn = partial(
                rotate,
                positions=inputs.positions,
                frequencies=options.frequencies,
                interleaved=c.rotary.interleaved,
                factor=options.rotary_factor,
            )
            q, k = turn(q), turn(k)
        if c.qk_norm == "rotated":
            normed = (of_unit_length(each.astype(jnp.float32), c.norm_eps).astype(each.dtype) for each in (q, k))
            q, k = (jnp.where(options.rotated, *each) for each in zip(normed, (q, k), strict=True))
        if c.query_scale is not None:
            factors = query_factors(inputs.positions, c.query_scale)
            if c.query_scale.unrotated_only:
                factors = jnp.where(options.rotated, 1.0, factors)
            q *= factors.astype(q.dtype)[..., None, None]
        if inputs.shared is not None:
            k, v = take_shared({"keys": k, "values": v}, inputs.shared, options)
        if self.keeps:
            self.sow("new", "keys", k.swapaxes(1, 2), reduce_fn=lambda _, new: new, init_fn=lambda: None)
            self.sow("new", "values", v.swapaxes(1, 2), reduce_fn=lambda _, new: new, init_fn=lambda: None)
        earlier, slots = None, 0
        if self.has_variable("cache", "keys"):
            earlier = self.get_variable("cache", "keys"), self.get_variable("cache", "values")
            slots = earlier[0].shape[2]

        mask = attention_mask(inputs, num_tokens, options.window, c.causal, slots, options.chunk)
        bias = None if c.alibi is None else alibi_bias(inputs, slots, c.num_heads, c.alibi)
        sinks = None
        if c.attention_sinks:
            sinks = parameter(self, "sinks", nn.initializers.normal(c.initializer_range), (c.num_heads,), self.dtype)
        mixed = attend(q, k, v, mask, options, c, earlier, bias, sinks)
        mixed = split_heads(out_of_heads(mixed, c, local), self.mesh, c.num_kv_heads)
        mixed = Tap("attn.z", c, self.taps, name="z")(mixed, inputs)
        out = linear("attn.out", use_bias=c.attention_out_bias, name="out")
        return split_channels(out(split_channels(mixed, self.mesh), inputs), self.mesh)


def take_shared(
    own: dict[str, jax.Array], shared: dict[str, jax.Array], options: LayerOptions
) -> tuple[jax.Array, jax.Array]:
    """Return the keys and values that a layer attends to, and keep them in `shared` for layers without their own.

    Args:
      own: `keys` and `values`, `[batch, tokens, kv_heads, head_dim]` each; of a layer without its own, anything.
      shared: see `LayerInputs.shared`; changed where it is.
      options: the layer's own.
    """
    assert options.local is not None and options.own_keys is not None  # as in every model that has such layers
    kind = options.local.astype(jnp.int32)
    for name, values in own.items():
        earlier = jax.lax.dynamic_index_in_dim(shared[name], kind, keepdims=False)
        own[name] = jnp.where(options.own_keys, values, earlier)
        shared[name] = jax.lax.dynamic_update_index_in_dim(shared[name], own[name], kind, axis=0)
    return own["keys"], own["values"]


def query_factors(positions: jax.Array, scale: QueryScale) -> jax.Array:
    """Return the factor on each token's queries, float32 `[batch, tokens]`, from positions of the same shape."""
    return 1 + scale.beta * jnp.log1p(((positions + scale.first) // scale.context).astype(jnp.float32))


def attention_mask(
    inputs: LayerInputs,
    num_tokens: int,
    window: jax.Array,
    causal: bool,
    cache_slots: int = 0,
    chunk: jax.Array | None = None,
) -> jax.Array:
    """Return which key each token sees: bool `[batch, tokens, cache slots + tokens]`.

    A slot is seen if it was filled: if it stands before the first of the tokens, whose own keys come after the cache's.
    """

    own = inputs.first_slot + jnp.arange(num_tokens)
    back = own[:, None] - own
    seen = (back >= 0) & (back < window) if causal else jnp.abs(back) < window
    seen &= jax.lax.dynamic_slice_in_dim(inputs.key_mask, inputs.first_slot, num_tokens, axis=1)[:, None, :]
    if chunk is not None:
        seen &= in_chunk(inputs.positions, inputs.positions, chunk)
    if not cache_slots:
        return seen
    slots = jnp.arange(cache_slots)
    earlier = (slots < inputs.first_slot) & (own[:, None] - slots < window) & inputs.key_mask[:, None, :]
    if chunk is not None:
        assert inputs.key_positions is not None  # as in every model that has chunks
        earlier &= in_chunk(inputs.key_positions, inputs.positions, chunk)
    return jnp.concatenate([earlier, seen], axis=-1)


def in_chunk(keys: jax.Array, positions: jax.Array, chunk: jax.Array) -> jax.Array:
    """Return whether keys at positions `[batch, keys]` are of each token's chunk, bool `[batch, tokens, keys]`."""
    return keys[:, None, :] // chunk == positions[..., None] // chunk


def alibi_bias(inputs: LayerInputs, cache_slots: int, num_heads: int, alibi: ALiBi) -> jax.Array:
    """Return aLiBi's bias on attention scores, float32 `[batch, heads, cache slots + tokens]`.

    It is a slope of the head's own times the key's position. What depends on the query alone, softmax takes away; so
    that is ALiBi's bias by distance, as transformers has it.
    """
    positions = inputs.positions
    if cache_slots and inputs.key_positions is not None:
        positions = jnp.concatenate([inputs.key_positions, positions], axis=1)
    slopes, positions = jnp.asarray(alibi_slopes(num_heads)), positions.astype(jnp.float32)
    if not alibi.in_bfloat16:
        return slopes[:, None] * positions[:, None]
    # reduce_precision, which no optimisation takes away, unlike a cast to bfloat16 and back.
    round_down = partial(jax.lax.reduce_precision, exponent_bits=8, mantissa_bits=7)
    return round_down(round_down(slopes)[:, None] * round_down(positions)[:, None])


def alibi_slopes(num_heads: int) -> np.ndarray:
    """Return each head's slope, float32 `[heads]`.

    Powers of two for a power of two of heads, else some between them too.
    """
    power = 2 ** int(math.log2(num_heads))
    steps = np.arange(1, power + 1) * 8 / power
    between = np.arange(1, 2 * (num_heads - power), 2) * 4 / power
    return (2.0 ** -np.concatenate([steps, between])).astype(np.float32)


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    options: LayerOptions,
    c: TransformerConfig,
    earlier: tuple[jax.Array, jax.Array] | None = None,
    bias: jax.Array | None = None,
    sinks: jax.Array | None = None,
) -> jax.Array:
    """Attend by softmax in float32, each key head serving `heads / kv_heads` query heads.

    Args:
      q: `[batch, tokens, heads, head_dim]`.
      k: `[batch, tokens, kv_heads, head_dim]`, the tokens' own.
      v: like `k`.
      mask: bool `[batch, tokens, keys]`, the earlier keys first.
      options: the layer's own; its scale is used.
      c: the model's config; its softcap is used.
      earlier: keys and values of a cache, `[batch, kv_heads, slots, head_dim]`. They are read where they lie: putting
        them together with the new ones would copy the cache at every token.
      bias: on the scores, float32 `[batch, heads, keys]`; see `alibi_bias`.
      sinks: `[heads]`, a score of each that stands beside the keys' and has no value; None for none.

    Returns:
      `[batch, tokens, heads, head_dim]`.
    """
    batch, num_tokens, num_heads, head_dim = q.shape
    grouped = q.reshape(batch, num_tokens, c.num_kv_heads, num_heads // c.num_kv_heads, head_dim)
    scores = jnp.einsum("btkgd,bskd->bkgts", grouped, k, preferred_element_type=jnp.float32)
    if earlier:
        of_cache = jnp.einsum("btkgd,bksd->bkgts", grouped, earlier[0], preferred_element_type=jnp.float32)
        scores = jnp.concatenate([of_cache, scores], axis=-1)
    if bias is not None:
        bias = bias.reshape(batch, c.num_kv_heads, -1, 1, bias.shape[-1])
    bias_is_scaled = c.alibi is not None and c.alibi.scaled
    if bias is not None and bias_is_scaled:
        scores += bias
    scores *= options.attention_scale
    if bias is not None and not bias_is_scaled:
        scores += bias
    if c.attention_softcap is not None:
        scores = c.attention_softcap * jnp.tanh(scores / c.attention_softcap)
    # A finite floor: a padding token that sees no key at all then averages instead of giving NaN.
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    if sinks is not None:
        beside = sinks.astype(jnp.float32).reshape(1, c.num_kv_heads, -1, 1, 1)
        scores = jnp.concatenate([scores, jnp.broadcast_to(beside, (*scores.shape[:-1], 1))], axis=-1)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    if sinks is not None:
        weights = weights[..., :-1]
    if not earlier:
        return jnp.einsum("bkgts,bskd->btkgd", weights, v).reshape(q.shape)
    slots = earlier[1].shape[2]
    mixed = jnp.einsum("bkgts,bksd->btkgd", weights[..., :slots], earlier[1])
    return (mixed + jnp.einsum("bkgts,bskd->btkgd", weights[..., slots:], v)).reshape(q.shape)


class MLP(nn.Module):
    """Plain or gated MLP, tapped at gate, up (before the nonlinearity), act (what down reads) and down."""

    config: TransformerConfig
    taps: Taps
    dtype: jnp.dtype
    mesh: Mesh | None = None

    @nn.compact
    def __call__(self, x: jax.Array, inputs: LayerInputs) -> jax.Array:
        """Map `[batch, tokens, d_model]` to the same shape."""
        c = self.config
        linear = partial(TappedLinear, config=c, use_bias=c.mlp_bias, taps=self.taps, dtype=self.dtype)
        activation = ACTIVATIONS[c.activation]
        up = linear("mlp.up", name="up")(x, inputs)
        act = activation(linear("mlp.gate", name="gate")(x, inputs)) * up if c.gated else activation(up)
        act = Tap("mlp.act", c, self.taps, name="act")(act, inputs)
        return split_channels(linear("mlp.down", name="down")(split_channels(act, self.mesh), inputs), self.mesh)
