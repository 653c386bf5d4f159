"""The sites of a block, a row each: where they are, how wide, where Hugging Face has them, and what may be done there.

All else reads this table: the config counts its channels, `units.py` its units, the taps what to pool, steering and
interventions what they may change, and figures the order of a block. A new site is a row here and a call of `tap`
where its activations are computed.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from expertlens_jax.errors import SelectionError

if TYPE_CHECKING:
    from expertlens_jax.models.config import TransformerConfig


@dataclasses.dataclass(frozen=True)
class Site:
    """A named place in a block, the same in every family.

    Most sites hold activations: numbers that the network goes on with, which can be steered and intervened on. Others
    are summaries of those: they can be recorded, and no more.
    """

    name: str
    what: str
    """What its units are, in one line."""
    count: Callable[[TransformerConfig], int]
    """How many units a layer has there, of a config whose layers are all alike; 0 in a model without the site."""
    path: tuple[str, ...]
    """Where it stands in the collections of responses, activations and steering."""
    address: str | None
    """In Hugging Face's model: the output of a linear layer, by its site's name, or of the "block"; followed by
    "#input", what enters it; None if no module's input or output has the units."""
    default: bool = False
    """Whether it is recorded when no sites are named."""
    summary_of: str | None = None
    """The site whose activations its units are computed of; "" for what an SAE reads."""
    summarize: Callable[[jax.Array, TransformerConfig, jax.Array | None], jax.Array] | None = None
    """How: from activations `[batch, tokens, channels]`, the config, and whether the layer has a window (None where
    layers are alike) to `[batch, tokens, units]`, which is then pooled over tokens like all else. None where they are
    the activations themselves, and for SAEs."""
    by_expert: bool = False
    """Whether each expert of a mixture of experts has channels of its own there, the first expert's first. At a token
    that isn't routed to an expert, these hold nothing: see `routing.py`."""
    in_stream: bool = False
    """Whether what is added here is added to the residual stream: it is the stream, or is written to it as it is."""

    def channels(self, config: TransformerConfig) -> int:
        """Return how many units a layer has there, or has at most; 0 in a model without the site."""
        return max(layer_widths(self, config))

    @property
    def steered(self) -> bool:
        """Whether its units can be steered and intervened on: they are activations, which the network goes on with."""
        return self.summary_of is None

    @property
    def by_sae(self) -> bool:
        """Whether units are the features of the SAEs that a model carries, in the layers that those read."""
        return self.summary_of == ""


def norm_by_head(z: jax.Array, config: TransformerConfig, local: jax.Array | None = None) -> jax.Array:
    """Return the Euclidean length of each head's part of z.

    That is from `[batch, tokens, channels]` to float32 `[..., heads]`. `local` is whether the layer has a window, where
    heads of those are narrower.
    """

    def lengths(head_dim: int) -> jax.Array:
        own = z[..., : config.num_heads * head_dim].astype(jnp.float32)
        return jnp.linalg.norm(own.reshape(*z.shape[:-1], config.num_heads, head_dim), axis=-1)

    if config.local_head_dim is None or local is None:
        return lengths(config.head_dim)
    return jnp.where(local, lengths(config.local_head_dim), lengths(config.head_dim))


def _rows() -> Iterable[Site]:
    def linear(name: str, what: str, channels: Callable[[TransformerConfig], int], **more: Any) -> Site:
        return Site(name, what, channels, ("layers", *name.split(".")), address=name, default=True, **more)

    def inner(c: TransformerConfig) -> int:
        return c.d_mlp * max(1, c.num_experts)

    yield Site(
        "resid.pre",
        "the residual stream before the block",
        lambda c: c.d_model,
        ("layers", "pre"),
        "block#input",
        in_stream=True,
    )
    yield linear("attn.q", "queries, before rotary positions and norms", lambda c: c.num_heads * c.head_dim)
    yield linear("attn.k", "keys", lambda c: c.num_kv_heads * c.head_dim if c.has_keys else 0)
    yield linear("attn.v", "values", lambda c: c.num_kv_heads * c.head_dim if c.has_values else 0)
    yield Site(
        "attn.z",
        "attention heads' outputs, before the output projection: head h has the channels from h × head_dim on",
        lambda c: c.num_heads * c.head_dim,
        ("layers", "attn", "z"),
        "attn.out#input",
    )
    yield Site(
        "attn.head",
        "attention heads, a unit each: the length of the head's part of `attn.z` at a token",
        lambda c: c.num_heads,
        ("layers", "attn", "z", "head"),
        None,
        summary_of="attn.z",
        summarize=norm_by_head,
    )
    yield linear("attn.out", "what attention adds to the residual stream", lambda c: c.d_model, in_stream=True)
    yield linear("mlp.router", "of mixtures of experts: the router's logits, one an expert", lambda c: c.num_experts)
    yield linear(
        "mlp.gate",
        "of gated MLPs: the gate, before the nonlinearity",
        lambda c: inner(c) if c.gated else 0,
        by_expert=True,
    )
    yield linear("mlp.up", "the MLP's inner layer, before the nonlinearity", inner, by_expert=True)
    yield Site(
        "mlp.act",
        "what most people call a neuron: the MLP's inner layer after the nonlinearity (and times the gate)",
        inner,
        ("layers", "mlp", "act"),
        "mlp.down#input",
        by_expert=True,
    )
    yield linear(
        "mlp.shared_router",
        "of mixtures with a shared expert: how much that one counts at a token, before the sigmoid",
        lambda c: 1 if c.d_shared and c.shared_router else 0,
    )
    yield linear("mlp.shared_gate", "the shared expert's gate, before the nonlinearity", lambda c: c.d_shared)
    yield linear("mlp.shared_up", "its inner layer, before the nonlinearity", lambda c: c.d_shared)
    yield Site(
        "mlp.shared_act",
        "its inner layer after the nonlinearity, times the gate",
        lambda c: c.d_shared,
        ("layers", "mlp", "shared_act"),
        "mlp.shared_down#input",
    )
    yield linear("mlp.shared_down", "what it gives, before it is weighted", lambda c: c.d_model if c.d_shared else 0)
    yield linear("mlp.down", "what the MLP adds to the residual stream", lambda c: c.d_model, in_stream=True)
    yield Site(
        "resid", "the residual stream after the block", lambda c: c.d_model, ("layers",), "block", in_stream=True
    )
    yield Site(
        "sae",
        "features of the sparse autoencoders that a model carries (`model.with_sae`), by themselves",
        lambda c: 0,  # as many as the autoencoders have
        ("sae",),
        None,
        summary_of="",
    )


@functools.lru_cache(maxsize=1024)
def layer_widths(site: Site, config: TransformerConfig) -> tuple[int, ...]:
    """Return how many units of a site each layer has, `[layers]`.

    What the stack computes has as many channels in all layers; beyond a layer's own they hold 0, and are no units.
    """
    if not config.layers_differ:
        return (site.count(config),) * config.num_layers
    return tuple(site.count(config.of_layer(layer)) for layer in range(config.num_layers))


def own_columns(config: TransformerConfig, sites: Sequence[str], layers: tuple[int, int] | None = None) -> Any:
    """Return which of the columns that layers' channels are laid out as are units.

    Args:
      config: of the model.
      sites: whose channels stand beside each other in each layer.
      layers: from which layer up to which; None for all.

    Returns:
      int `[units]`, counted from the first of these layers on; None where all columns are units.
    """
    widths = np.array([layer_widths(SITES[site], config) for site in sites if not SITES[site].by_sae])
    if not widths.size or (widths == widths[:, :1]).all():
        return None
    first, last = layers or (0, config.num_layers)
    own = [np.arange(each.max()) < each[first:last, None] for each in widths]
    return np.flatnonzero(np.concatenate(own, axis=1))


def check_alike(config: TransformerConfig, site: str, model: str, what: str) -> None:
    """Refuse a site that isn't equally wide in all layers of a model, where one array is of all of them.

    Raises:
      SelectionError: it isn't.
    """
    widths = layer_widths(SITES[site], config)
    if len(set(widths)) > 1:
        alike = [name for name, each in block_sites(config).items() if len(set(layer_widths(each, config))) == 1]
        raise SelectionError(
            f"the site {site} was given to be {what}; layers of {model} have {listed_widths(widths)} channels there, "
            f"and this takes layers that are alike: {', '.join(alike)}. Single units of {site} can be recorded, traced "
            "and steered."
        )


def listed_widths(widths: Sequence[int]) -> str:
    """Return the different widths of layers, as messages say them."""
    return " or ".join(f"{each:,}" for each in sorted(set(widths)))


SITES: dict[str, Site] = {site.name: site for site in _rows()}
"""Every site by name, in the order of a block and of the units table."""


def block_sites(config: TransformerConfig) -> dict[str, Site]:
    """Return the sites that a model's blocks have, in order, summaries too; features of SAEs aren't among them."""
    return {name: site for name, site in SITES.items() if site.channels(config)}


def node_at(collection: dict[str, Any], site: str) -> dict[str, Any]:
    """Return a site's node in a Flax collection, which mirrors the parameters; it is made where it isn't there."""
    node = collection
    for name in SITES[site].path:
        node = node.setdefault(name, {})
    return node


def in_block_order(names: Iterable[str]) -> list[str]:
    """Return each name once, from a block's input to its output; names that are no site's follow as they came."""
    order = list(SITES)
    return sorted(dict.fromkeys(names), key=lambda name: order.index(name) if name in SITES else len(order))


def check_sites(config: TransformerConfig, sites: Sequence[str] | str | None, saes: Sequence = ()) -> tuple[str, ...]:
    """Return the sites that were given, in the order of the units table.

    Args:
      config: of the model.
      sites: names, or one; None asks for the default sites, the linear layers' outputs.
      saes: the sparse autoencoders that the model carries.

    Raises:
      SelectionError: a site that this model doesn't have, or none at all; or features of SAEs beside others.
    """
    if sites is None:
        return config.default_sites()
    sites = (sites,) if isinstance(sites, str) else tuple(sites)
    known = block_sites(config)
    of_saes = [site for site in sites if site in SITES and SITES[site].by_sae]
    if of_saes:
        if not saes:
            raise SelectionError(
                f"the site {of_saes[0]} was given and the model carries no sparse autoencoder. Give it one: "
                "model.with_sae(el.load_sae(PATH))."
            )
        if set(sites) != set(of_saes):
            raise SelectionError(
                f"sites {', '.join(sites)} were given; {of_saes[0]} is recorded by itself, since only some layers "
                "have it. Record the others in a call of their own."
            )
        return (of_saes[0],)
    unknown = [site for site in sites if site not in known]
    if unknown or not sites:
        raise SelectionError(
            f"sites {', '.join(map(str, unknown)) or '(none)'} were given; this model has {', '.join(known)}."
            + _meant(unknown, known)
        )
    return tuple(site for site in known if site in sites)


def check_no_summaries(sites: Iterable[str], what: str = "steered") -> None:
    """Raise SelectionError if a site is only read off the model: nothing that the network goes on with stands there.

    Args:
      sites: names; unknown ones pass.
      what: can't be done, as "steered".
    """
    for name in dict.fromkeys(sites):
        site = SITES.get(name)
        if site is None or site.steered:
            continue
        if site.by_sae:
            raise SelectionError(
                f"units of the site {name} can't be {what}: a sparse autoencoder's features are read off the model's "
                f"activations and aren't part of it. Use units of the model's own sites, from a table of those."
            )
        raise SelectionError(
            f"units of the site {name} can't be {what}: they are {site.what}, which the model doesn't go on with. "
            f"Use channels of {site.summary_of}."
        )


def check_activation_site(config: TransformerConfig, site: str, model: str, what: str, *, alike: bool = False) -> Site:
    """Return a site that holds activations.

    Args:
      config: of the model.
      site: its name.
      model: the model's name, for errors.
      what: the user wants to do there, as "intervened on".
      alike: whether all layers have to have as many channels there.

    Raises:
      SelectionError: the model has no such site, or it is a summary; or layers differ.
    """
    check_no_summaries([site], what)
    known = config.site_channels()
    if site not in known:
        raise SelectionError(
            f"the site {site!r} is to be {what}; {model} has {', '.join(known)}.{_meant([site], known)}"
        )
    if alike:
        check_alike(config, site, model, what)
    return SITES[site]


def each_of(given: Any) -> list[Any]:
    """Return what was given as a list: one layer, or several."""
    return [given] if np.ndim(given) == 0 else list(given)


def _meant(unknown: Sequence[str], known: Iterable[str]) -> str:
    near = [each for site in unknown for each in difflib.get_close_matches(str(site), list(known), n=1)]
    return f" Did you mean {' and '.join(dict.fromkeys(near))}?" if near else ""


def sites_table() -> str:
    """Return a Markdown table of all sites, as the README has it."""
    rows = [("Site", "Its units", "In Hugging Face", "Recorded by default", "Can be steered"), ("---",) * 5]
    rows += [
        (f"`{site.name}`", site.what, _place(site), *("yes" if each else "" for each in (site.default, site.steered)))
        for site in SITES.values()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _place(site: Site) -> str:
    if site.by_sae:
        return "the module that is read, and the feature's number"
    if site.address is None:
        return "none"
    name, _, is_input = site.address.partition("#")
    what = {"block": "the block", site.name: "its linear layer"}.get(name, f"the linear layer of `{name}`")
    return f"{'input' if is_input else 'output'} of {what}"
