"""The options in which transformer families differ: one dataclass, translated from a Hugging Face config."""

import dataclasses
from typing import Literal

from expertlens_jax.cards import counted
from expertlens_jax.errors import UnsupportedModelError
from expertlens_jax.models.activations import ACTIVATIONS
from expertlens_jax.models.rotary import Rotary
from expertlens_jax.models.sites import block_sites

NormPlace = Literal["pre", "post", "output", "both"]
Residual = Literal["sequential", "parallel", "parallel_shared_norm"]


@dataclasses.dataclass(frozen=True)
class ALiBi:
    """Positions as a bias on attention scores that falls with the distance (Press et al. 2022, arXiv 2108.12409)."""

    scaled: bool = False
    """The bias is added before the scores are scaled, and so scaled with them (Falcon), rather than after (BLOOM)."""
    in_bfloat16: bool = False
    """The bias is computed in bfloat16, whatever the model's dtype (Falcon)."""


@dataclasses.dataclass(frozen=True)
class QueryScale:
    """A factor on queries that grows by their position: 1 + beta * log(1 + floor(position / context)) (Ministral 3)."""

    beta: float
    context: int
    """Positions after which it grows: up to there it is 1."""
    first: int = 0
    """What the first position counts as."""
    unrotated_only: bool = False
    """Only layers without positions have it (Llama 4)."""


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """What a transformer is built of; hashable, so that it can be a static argument of `jax.jit`.

    Sizes are counts of channels, layers, heads or tokens. `windows`, `chunks`, `unrotated_layers` and
    `unnormed_layers` are the options that change from layer to layer.
    """

    vocab_size: int
    num_layers: int
    d_model: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    d_mlp: int
    max_tokens: int
    """The longest sequence the model's positions were made for."""

    # Embeddings
    learned_positions: bool = False
    position_offset: int = 0
    """Rows at the start of the position table that no token uses (OPT 2, RoBERTa padding index + 1)."""
    token_types: int = 0
    """Segments of BERT's kind; every token is of the first."""
    embedding_norm: bool = False
    embedding_scale: float = 1.0
    embedding_width: int | None = None
    """Channels of the tables, where a linear layer makes d_model of them (ELECTRA's small models); None is d_model."""

    token_width: int | None = None
    """Channels of the token table, where a linear layer without bias makes d_model of them before positions are added,
    and another makes as many of d_model before the head reads them (OPT-350m); None is d_model."""

    # Norms and residual stream
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = 1e-5
    norm_parameters: bool = True
    """Whether norms have a scale at all, and layer norms a bias (OLMo 1's have neither)."""
    norm_plus_one: bool = False
    """Gemma stores a norm's scale less one."""
    norm_bias: bool = True
    """Whether layer norms that have parameters have a bias (ModernBERT's have none)."""
    norm_place: NormPlace = "pre"
    """Around a branch f: pre x + f(n(x)), post n(x + f(x)), output x + n(f(x)), both x + n(f(n(x)))."""
    residual: Residual = "sequential"
    """Whether the MLP reads the attention's output or, in parallel, the block's own input."""
    unnormed_layers: tuple[int, ...] = ()
    """Layers whose attention reads the residual stream without a norm (ModernBERT's first)."""
    residual_scale: float = 1.0
    """Factor on what each branch adds to the residual stream (Granite)."""
    final_norm: bool = True

    # Attention
    causal: bool = True
    qkv_bias: bool = True
    attention_out_bias: bool = True
    attention_scale: float | None = None
    """Factor on the scores; None is head_dim ** -0.5."""
    attention_scale_by_layer: bool = False
    """Divide the scores by the layer's number, counted from one (an option of GPT-2's config)."""
    query_scale: QueryScale | None = None
    """Factor on turned queries, by position."""
    attention_softcap: float | None = None
    qkv_clip: float | None = None
    """Queries, keys and values are clipped to this size, behind their sites and norms (OLMo 1.7, OLMoE)."""
    alibi: ALiBi | None = None
    qk_norm: Literal["head", "projection", "rotated"] | None = None
    """Norm of queries and keys: within each head (Qwen 3, Gemma 3), over the whole projection (OLMo 2), or within each
    head without parameters, after they are turned and only in layers that turn them (Llama 4)."""
    attention_sinks: bool = False
    """Whether each head has a number that takes a share of the softmax and gives nothing (gpt-oss)."""
    windows: tuple[int, ...] = ()
    """Per layer, how many tokens back a token sees, itself included; 0, or no tuple at all: every token."""
    chunks: tuple[int, ...] = ()
    """Per layer, how many tokens there are to a chunk, counted from the first: a token sees those of its own (Llama 4);
    0, or no tuple at all: every token."""
    value_norm: bool = False
    """Whether values are normed within each head, without parameters (Gemma 4)."""
    local_head_dim: int | None = None
    """Channels of a head in layers with a window, where they are fewer than in others (Gemma 4)."""
    global_kv_heads: int | None = None
    """Key-value heads of layers without a window, where they are fewer than in others (Gemma 4)."""
    global_values_are_keys: bool = False
    """Whether layers without a window take their values to be their keys, before any norm (Gemma 4)."""
    shared_kv_layers: int = 0
    """So many layers, the last, have no keys and values of their own: each takes those of the last layer before them
    that has a window, or none, as it (Gemma 4's E2B and E4B)."""
    rotary: Rotary | None = None
    local_rotary: Rotary | None = None
    """Rotary embedding of the layers with a window, where it differs (Gemma 3)."""
    unrotated_layers: tuple[int, ...] = ()

    # MLP
    d_mlps: tuple[int, ...] = ()
    """Per layer, inner channels of the MLP, where they differ (Gemma 4's E2B); d_mlp is the most."""
    gated: bool = False
    activation: str = "gelu"
    mlp_bias: bool = True
    clamped_gate: tuple[float, float] | None = None
    """The factor a and the limit l of gpt-oss's gated unit `(up + 1) * gate * sigmoid(a * gate)`, with gate cut at l,
    and up at l and -l, in the place of the activation."""

    # Mixtures of experts
    num_experts: int = 0
    """MLPs of a layer; a router chooses some at each token. 0: there is one, for every token."""
    experts_per_token: int = 0
    router_norm: bool = False
    """Whether the weights of a token's experts are made to sum to one, after the softmax over all experts."""
    router_bias: bool = False
    weighted_inputs: bool = False
    """Whether an expert reads its tokens times the sigmoid of their logit, and what experts give is summed as it is
    (Llama 4); else what they give is weighted, by their shares of the softmax."""
    d_shared: int = 0
    """Inner channels of an MLP that every token has beside its experts (Qwen1.5-MoE)."""
    shared_router: bool = True
    """Whether what that one gives is weighted, by the sigmoid of a logit of its own."""

    # Inputs of layers
    per_layer_width: int = 0
    """Channels of what each token gives each layer by itself, which gates an addition to the stream (Gemma 4); 0 for
    none."""
    per_layer_vocab: int = 0
    """Rows of the table of those."""
    layer_scalars: bool = False
    """Whether the stream is multiplied by a number of the layer's at its end (Gemma 4)."""

    # Head
    head: Literal["tied", "linear"] | None = "tied"
    """What turns the last hidden state into logits; None gives the hidden state itself (encoders, classifiers)."""
    head_bias: bool = False
    logits_scale: float = 1.0
    """Factor on the logits (Granite)."""
    logits_softcap: float | None = None

    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        """Refuses what the layers couldn't be built of.

        Raises:
          UnsupportedModelError: an activation function without an implementation, or query heads that the key
            heads can't be shared out to.
        """
        if self.activation not in ACTIVATIONS:
            raise UnsupportedModelError(
                f"the config's activation function is {self.activation!r}; supported are {', '.join(ACTIVATIONS)}."
            )
        if self.num_heads % self.num_kv_heads:
            raise UnsupportedModelError(
                f"the config has {counted(self.num_heads, 'attention head')} and "
                f"{counted(self.num_kv_heads, 'key-value head')}; the first should be a multiple of the second."
            )

    @property
    def kind(self) -> str:
        """What the model is, with its article, as messages say it."""
        if not self.causal:
            return "an encoder"
        return "a decoder without a language head" if self.head is None else "a causal language model"

    def first_layers(self, count: int) -> "TransformerConfig":
        """Return the config of the network of the first `count` layers."""
        own = max(self.num_layers - self.shared_kv_layers, 0)
        return dataclasses.replace(
            self,
            num_layers=count,
            shared_kv_layers=max(count - own, 0),
            d_mlps=self.d_mlps[:count],
            windows=self.windows[:count],
            chunks=self.chunks[:count],
            unrotated_layers=tuple(layer for layer in self.unrotated_layers if layer < count),
            unnormed_layers=tuple(layer for layer in self.unnormed_layers if layer < count),
        )

    @property
    def layers_differ(self) -> bool:
        """Whether layers differ in the width of a site."""
        return bool(
            self.local_head_dim
            or self.global_kv_heads
            or self.global_values_are_keys
            or self.shared_kv_layers
            or self.d_mlps
        )

    @property
    def has_keys(self) -> bool:
        """Whether any layer has keys of its own."""
        return self.shared_kv_layers < self.num_layers

    @property
    def has_values(self) -> bool:
        """Whether any layer has values that aren't its keys."""
        own = self.num_layers - self.shared_kv_layers
        return own > 0 and not (self.global_values_are_keys and not any(self.windows[:own]))

    def of_layer(self, layer: int) -> "TransformerConfig":
        """Return the config of a network that is the one layer, whose sizes are all its own."""
        if not self.layers_differ:
            return self
        local = any(self.windows[layer : layer + 1])
        rotary = (self.local_rotary or self.rotary) if local else self.rotary
        return dataclasses.replace(
            self,
            num_layers=1,
            windows=self.windows[layer : layer + 1],
            head_dim=self.local_head_dim or self.head_dim if local else self.head_dim,
            num_kv_heads=self.num_kv_heads if local else self.global_kv_heads or self.num_kv_heads,
            local_head_dim=None,
            global_kv_heads=None,
            rotary=rotary,
            local_rotary=None,
            shared_kv_layers=int(layer >= self.num_layers - self.shared_kv_layers),
            d_mlp=self.d_mlps[layer] if self.d_mlps else self.d_mlp,
            d_mlps=(),
        )

    def site_channels(self) -> dict[str, int]:
        """Return every site that holds activations, in the order of the units table, and its channels.

        Where layers differ, those of the layers that have most.

        See `sites.py`.
        """
        return {name: site.channels(self) for name, site in block_sites(self).items() if site.steered}

    def default_sites(self) -> tuple[str, ...]:
        """Return the outputs of a block's linear layers, where the paper's line of work reads units."""
        return tuple(name for name, site in block_sites(self).items() if site.default)
