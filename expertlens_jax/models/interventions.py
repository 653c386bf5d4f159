"""Interventions: a user's own pure function of the activations at a site, given to any call of a model.

    down = el.intervene("resid", lambda x, at: x - (x @ d)[..., None] * d, layers=[3, 4])
    model(token_ids, interventions=[down])

At a site, a call first steers (`steering.py`), then applies its interventions in the order in which they are given,
then reads: responses and captured activations are what the network goes on with. Steering is for maps of one unit,
which can be saved and joined; an intervention may mix channels and tokens.

The function is part of the compiled program, told from others by its identity: define it once, outside of loops, and
give what changes (directions, strengths, another run's activations) as `params`, a pytree of arrays. Neither other
values in it nor other layers compile anything new. In generation with its cache, the function sees the prompt's tokens
at once, and then one token at a time.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh

from expertlens_jax import parallel
from expertlens_jax.errors import SelectionError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.digests import digest_arrays, digest_json
from expertlens_jax.models.sites import SITES, check_activation_site, check_no_summaries, each_of


@struct.dataclass
class At:
    """Where the activations that an intervention is given stand.

    >>> import expertlens_jax as el, jax.numpy as jnp
    >>> def silence_first_token(x, at):
    ...     return jnp.where((at.positions == 0)[..., None], 0.0, x)
    >>> model = el.load_model("lenslet-2m")
    >>> silent = el.intervene("attn.v", silence_first_token)
    >>> values = model.capture([[5, 6, 7]], sites="attn.v", interventions=silent)["attn.v"]
    >>> values[0, 0].any(axis=-1).tolist()  # of layer 0, by token
    [False, True, True]
    """

    layer: jax.Array
    """int32 scalar, from 0; traced, since one program runs all layers: choose by it with `jnp.where` or indexing."""
    token_ids: jax.Array
    """int32 `[batch, tokens]`."""
    positions: jax.Array
    """int32 `[batch, tokens]`, counted from each row's first token; 0 at padding on the left."""
    mask: jax.Array
    """bool `[batch, tokens]`: False at padding."""
    pool_mask: jax.Array
    """bool `[batch, tokens]`: the tokens that enter the pooled responses; without padding, BOS, CLS and SEP."""


Function = Callable[..., jax.Array]
"""From activations `[batch, tokens, channels]` in the model's dtype, `At`, and `params` if they are given, to the same
shape and dtype."""


@struct.dataclass(eq=False, repr=False)
class Intervention:
    """What is done to the activations at a site, in some layers. A pytree of `params`, with all else static.

    >>> import expertlens_jax as el
    >>> def damp(x, at, strength):
    ...     return x * (1 - strength)
    >>> el.intervene("mlp.act", damp, layers=[2, 3], params=0.1)
    Intervention damp at mlp.act, layers 2, 3
    """

    params: Any
    """A pytree of arrays that the function is given; None if it takes none."""
    site: str = struct.field(pytree_node=False)
    function: Function = struct.field(pytree_node=False)
    layers: tuple[int, ...] | None = struct.field(pytree_node=False, default=None)
    """None for all."""

    def __repr__(self) -> str:
        where = "all layers" if self.layers is None else f"layers {', '.join(map(str, self.layers))}"
        return f"Intervention {name_of(self.function)} at {self.site}, {where}"


def intervene(
    site: str, function: Function, *, layers: Sequence[int] | int | None = None, params: Any = None
) -> Intervention:
    """Return an intervention, to give to any call of a model as one of its `interventions`.

        cut = el.intervene("resid", lambda x, at, d: x - (x @ d)[..., None] * d, layers=[3, 4], params=d)
        el.generate(model, "Once upon a time", steering=steering, interventions=[cut])

    Args:
      site: any that can be steered, such as "resid", "mlp.act", "attn.z".
      function: `function(x, at)`, or `function(x, at, params)` if `params` are given: a pure function of activations
        `[batch, tokens, channels]`, and of where they stand (`At`), to the same shape and dtype.
      layers: which, from 0; default all.
      params: a pytree of arrays.

    Raises:
      SelectionError: an unknown site, or one that is only read; a layer that isn't a whole number from 0 on, or none;
        or what can't be called with these arguments.

    >>> import expertlens_jax as el
    >>> def flip(x, at):
    ...     return -x
    >>> model = el.load_model("lenslet-2m")
    >>> plain = model.capture([[5, 6, 7]], sites="resid")["resid"]
    >>> turned = el.intervene("resid", flip, layers=0)
    >>> flipped = model.capture([[5, 6, 7]], sites="resid", interventions=turned)["resid"]
    >>> bool((flipped[0] == -plain[0]).all())
    True
    """
    check_no_summaries([site], "intervened on")
    if site not in SITES:
        raise SelectionError(
            f"the site {site!r} isn't known; the sites that can be intervened on are "
            f"{', '.join(name for name, each in SITES.items() if each.steered)}."
        )
    if layers is not None:
        given = each_of(layers)
        if not given or not all(_is_below(each) for each in given):
            raise SelectionError(f"layers={layers!r} was given; wanted numbers of layers, from 0, or None for all.")
        layers = tuple(sorted({int(each) for each in given}))
    _check_function(function, with_params=params is not None)
    return Intervention(params=params, site=site, function=function, layers=layers)


def _is_below(number: Any, end: float = np.inf) -> bool:
    """Return whether it is a whole number from 0 up to an end."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and 0 <= number < end


def name_of(function: Function) -> str:
    """Return a function's name, for people."""
    return getattr(function, "__name__", type(function).__name__)


def _check_function(function: Function, *, with_params: bool) -> None:
    wanted = "function(x, at, params)" if with_params else "function(x, at)"
    if not callable(function):
        raise SelectionError(f"a {type(function).__name__} was given for the function; wanted {wanted}.")
    try:
        hash(function)
    except TypeError as error:
        raise SelectionError(
            f"the function {name_of(function)} has no hash, by which its compiled program is found again. Give a plain "
            "function, and what changes as params."
        ) from error
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # of C code; what it takes shows when it is called
    try:
        signature.bind(*range(2 + with_params))
    except TypeError as error:
        hint = "" if with_params else " Give params= if it takes three."
        raise SelectionError(
            f"the function {name_of(function)}{signature} can't be called as {wanted} ({error}).{hint}"
        ) from error


@struct.dataclass
class PlacedIntervention:
    """An intervention laid out for a model's forward pass: which layers it is applied in is data, not program."""

    params: Any
    chosen: jax.Array | np.ndarray | None
    """bool `[layers]`; None for all of them."""
    site: str = struct.field(pytree_node=False)
    function: Function = struct.field(pytree_node=False)

    def __call__(self, activations: jax.Array, at: At) -> jax.Array:
        """Return the activations `[batch, tokens, channels]` as the network is to go on with them."""

        def act(activations: jax.Array) -> jax.Array:
            return self.function(activations, at, *(() if self.params is None else (self.params,)))

        if self.chosen is None:
            return act(activations)
        return jax.lax.cond(jnp.asarray(self.chosen)[at.layer], act, lambda activations: activations, activations)


def place_interventions(
    interventions: Sequence[Intervention] | Intervention | None,
    config: TransformerConfig,
    dtype: str,
    model: str,
    shapes: Sequence[tuple[int, int]],
    mesh: Mesh | None = None,
) -> tuple[PlacedIntervention, ...]:
    """Check interventions against a model and lay them out for its forward pass; nothing is run.

    Args:
      interventions: or none.
      config: of the model.
      dtype: of its activations.
      model: its name, for errors.
      shapes: (batch, tokens) of all that they will be given.
      mesh: of the devices that the model is on; their arrays are laid out whole on each.

    Raises:
      SelectionError: a site or layer that the model doesn't have; or a function that fails on these shapes, or changes
        shape or dtype.
    """
    if interventions is None:
        return ()
    interventions = (interventions,) if isinstance(interventions, Intervention) else tuple(interventions)
    placed = []
    for each in interventions:
        if not isinstance(each, Intervention):
            raise SelectionError(
                f"a {type(each).__name__} was given among interventions; wanted what el.intervene returns."
            )
        site = check_activation_site(config, each.site, model, "intervened on", alike=True)
        deepest = max(each.layers or (0,))
        if deepest >= config.num_layers:
            raise SelectionError(f"{each!r} names layer {deepest}; {model} has layers 0 to {config.num_layers - 1}.")
        for shape in dict.fromkeys(shapes):
            _result_shape(each, jax.ShapeDtypeStruct((*shape, site.channels(config)), dtype))
        params = each.params if mesh is None else parallel.replicate(each.params, mesh)
        chosen = None if each.layers is None else np.isin(np.arange(config.num_layers), each.layers)
        placed.append(PlacedIntervention(params, chosen, each.site, each.function))
    return tuple(placed)


def _result_shape(intervention: Intervention, activations: jax.ShapeDtypeStruct) -> None:
    """Refuses a function that fails on activations of this shape, or returns another shape or dtype."""
    given = _shown(activations)
    start = f"the function {name_of(intervention.function)} of an intervention at {intervention.site} was given {given}"
    placed = PlacedIntervention(intervention.params, None, intervention.site, intervention.function)
    try:
        result = jax.eval_shape(lambda placed, x, at: placed(x, at), placed, activations, _at_shapes(activations))
    except Exception as error:  # whatever a user's function may raise
        raise SelectionError(f"{start} and raised {type(error).__name__}: {error}") from error
    if not isinstance(result, jax.ShapeDtypeStruct):
        raise SelectionError(f"{start} and returned a {type(result).__name__}; wanted an array of that shape.")
    if (result.shape, result.dtype) != (activations.shape, activations.dtype):
        cast = "" if result.dtype == activations.dtype else " End it with .astype(x.dtype)."
        raise SelectionError(f"{start} and returned {_shown(result)}; it has to keep shape and dtype.{cast}")


def _at_shapes(activations: jax.ShapeDtypeStruct) -> At:
    def at() -> At:
        ids, mask = (jnp.zeros(activations.shape[:2], dtype) for dtype in (jnp.int32, bool))
        return At(jnp.zeros((), jnp.int32), ids, ids, mask, mask)

    return jax.eval_shape(at)


def _shown(array: jax.ShapeDtypeStruct) -> str:
    return f"{array.dtype} {list(array.shape)}"


def describe_interventions(
    interventions: Sequence[Intervention] | Intervention, config: TransformerConfig, dtype: str, num_tokens: int
) -> str:
    """Return what is done to a model, in words, with a digest of the functions' programs and arrays.

    The program is what jax traces of a function, with the arrays it closes over: no names, and no source.

    Args:
      interventions: checked by `place_interventions`.
      config: of the model.
      dtype: of its activations.
      num_tokens: of the row that a function is traced for.
    """
    said = []
    for each in (interventions,) if isinstance(interventions, Intervention) else interventions:
        placed = PlacedIntervention(each.params, None, each.site, each.function)
        activations = jax.ShapeDtypeStruct((1, num_tokens, config.site_channels()[each.site]), dtype)
        traced = jax.make_jaxpr(lambda placed, x, at: placed(x, at))(placed, activations, _at_shapes(activations))
        digest = digest_json([str(traced.jaxpr), digest_arrays(list(traced.consts)), digest_arrays(each.params)])
        said.append(f"{each!r}, digest {digest}")
    return "; ".join(said)


# A few that are often wanted.


def remove_direction(
    site: str, direction: jax.Array | np.ndarray, *, layers: Sequence[int] | int | None = None
) -> Intervention:
    """Return the intervention that takes a direction out of activations: `x - (x · d) d`, with d of length 1.

    Directional ablation (Arditi et al. 2024, "Refusal in language models is mediated by a single direction", eq. 4).

    Args:
      site: such as "resid".
      direction: `[channels]`, of any length but 0; or `[layers, channels]`, each layer's own.
      layers: which; default all.

    Raises:
      SelectionError: a direction of length 0 or not finite; or see `intervene`.

    >>> import expertlens_jax as el, numpy as np
    >>> model = el.load_model("lenslet-2m")
    >>> first = np.eye(1, model.config.d_model)[0]  # the direction of the first channel
    >>> seen = model.capture([[5, 6, 7]], sites="resid", interventions=el.remove_direction("resid", first))["resid"]
    >>> bool((seen[..., 0] == 0).all()), bool((seen[..., 1] == 0).any())
    (True, False)
    """
    lengths = np.linalg.norm(np.asarray(direction, np.float32), axis=-1)
    if np.ndim(direction) not in (1, 2) or not np.isfinite(lengths).all() or not lengths.all():
        raise SelectionError(
            f"a direction of shape {list(np.shape(direction))} was given; wanted [channels] or [layers, channels], "
            "finite and of a length above 0."
        )
    unit = jnp.asarray(direction, jnp.float32) / lengths[..., None]
    return intervene(site, _remove_direction, layers=layers, params=unit)


def _remove_direction(x: jax.Array, at: At, direction: jax.Array) -> jax.Array:
    d = direction[at.layer] if direction.ndim == 2 else direction
    along = jnp.einsum("btc,c->bt", x.astype(jnp.float32), d)
    return (x.astype(jnp.float32) - along[..., None] * d).astype(x.dtype)


def patch_tokens(
    site: str,
    activations: jax.Array | np.ndarray,
    positions: Sequence[int] | int,
    *,
    layers: Sequence[int] | int | None = None,
) -> Intervention:
    """Return the intervention that puts another run's activations in the place of this run's, at some tokens.

    Activation patching (Vig et al. 2020, "Investigating gender bias in language models using causal mediation
    analysis"; Meng et al. 2022, "Locating and editing factual associations in GPT").

        clean = model.capture(clean_ids, sites="resid")["resid"]
        model(corrupted_ids, interventions=[el.patch_tokens("resid", clean, positions=3, layers=4)])

    Args:
      site: where.
      activations: `[layers, batch, tokens, channels]` of all layers, as `model.capture` returns them, of rows without
        padding on the left. A batch of 1 is put into each row.
      positions: of the tokens, counted from each row's first, in both runs alike.
      layers: which; default all.

    Raises:
      SelectionError: activations of another shape, or a position that they don't have; or see `intervene`.

    >>> import expertlens_jax as el
    >>> model = el.load_model("lenslet-2m")
    >>> other = model.capture([[5, 6, 7]], sites="resid")["resid"]
    >>> patch = el.patch_tokens("resid", other, positions=1, layers=2)
    >>> seen = model.capture([[8, 9, 10]], sites="resid", interventions=patch)["resid"]
    >>> (seen[2, 0] == other[2, 0]).all(axis=-1).tolist()
    [False, True, False]
    """
    where = np.atleast_1d(np.asarray(positions))
    if np.ndim(activations) != 4:
        raise SelectionError(
            f"activations of shape {list(np.shape(activations))} were given; wanted [layers, batch, tokens, channels], "
            "as model.capture returns."
        )
    num_tokens = np.shape(activations)[2]
    if where.ndim != 1 or not len(where) or not all(_is_below(each, num_tokens) for each in where):
        raise SelectionError(
            f"positions={positions!r} were given; the activations have positions 0 to {num_tokens - 1}."
        )
    params = {"activations": activations, "chosen": np.isin(np.arange(num_tokens), where)}
    return intervene(site, _patch_tokens, layers=layers, params=params)


def _patch_tokens(x: jax.Array, at: At, params: Mapping[str, jax.Array]) -> jax.Array:
    there = params["activations"][at.layer].astype(x.dtype)
    there = jnp.broadcast_to(there, (x.shape[0], *there.shape[1:]))
    known = at.mask & (at.positions < there.shape[1])
    place = jnp.where(known, at.positions, 0)
    put = jnp.take_along_axis(there, place[..., None], axis=1)
    return jnp.where((known & params["chosen"][place])[..., None], put, x)


def cap(
    site: str, highest: jax.Array | np.ndarray | float, *, layers: Sequence[int] | int | None = None
) -> Intervention:
    """Return the intervention that lets no activation rise above a value: `min(x, highest)`.

    Args:
      site: where.
      highest: a number, or one for each channel `[channels]`; infinity leaves a channel as it is.
      layers: which; default all.

    Raises:
      SelectionError: see `intervene`.

    >>> import expertlens_jax as el
    >>> model = el.load_model("lenslet-2m")
    >>> low = el.cap("attn.v", 0.5)
    >>> responses = el.record_responses(model, ["A dog ran.", "A cat sat there."], sites="attn.v", interventions=low)
    >>> responses.max().item()
    0.5
    """
    return intervene(site, _cap, layers=layers, params=jnp.asarray(highest, jnp.float32))


def _cap(x: jax.Array, at: At, highest: jax.Array) -> jax.Array:
    return jnp.minimum(x.astype(jnp.float32), highest).astype(x.dtype)


def ablate_heads(model: Any, heads: Sequence[tuple[int, int]]) -> Intervention:
    """Return the intervention that silences attention heads: their part of `attn.z` is set to 0.

    Michel, Levy & Neubig 2019, "Are sixteen heads really better than one?", whose mask variables it sets to 0.

    Args:
      model: the `Model` whose heads they are.
      heads: (layer, head) of each, from 0.

    Raises:
      SelectionError: no head, or one that the model doesn't have.

    >>> import expertlens_jax as el
    >>> model = el.load_model("lenslet-2m")
    >>> silent = el.ablate_heads(model, [(0, 1), (3, 2)])
    >>> seen = model.capture([[5, 6, 7]], sites="attn.z", interventions=silent)["attn.z"]
    >>> heads = seen.reshape(*seen.shape[:-1], model.config.num_heads, model.config.head_dim)
    >>> heads[0, 0, 2].any(axis=-1).tolist()  # layer 0, the last token
    [True, False, True, True]
    """
    heads, config = list(heads), model.config
    shape = (config.num_layers, config.num_heads)
    absent = [each for each in heads if np.shape(each) != (2,) or not all(map(_is_below, each, shape))]
    if absent or not heads:
        raise SelectionError(
            f"heads {', '.join(map(str, absent)) or '(none)'} were given; wanted (layer, head) of {model.name}, which "
            f"has layers 0 to {shape[0] - 1} with heads 0 to {shape[1] - 1}."
        )
    kept = np.ones(shape, np.float32)
    kept[tuple(np.array(heads).T)] = 0.0
    layers = [layer for layer, _ in heads]
    return intervene("attn.z", _scale_by_layer, layers=layers, params=np.repeat(kept, config.head_dim, axis=1))


def _scale_by_layer(x: jax.Array, at: At, scale: jax.Array) -> jax.Array:
    return x * scale[at.layer].astype(x.dtype)
