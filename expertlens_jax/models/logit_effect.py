"""Which tokens a unit speaks for: what it adds to the residual stream, read as the model's head reads it."""

import math
import numbers
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from expertlens_jax.errors import SelectionError, UnsupportedModelError
from expertlens_jax.models.addresses import Units, format_address, locate_units, one_address
from expertlens_jax.models.causal import check_predicts
from expertlens_jax.models.model import Model
from expertlens_jax.models.streaming import layer_parameters
from expertlens_jax.models.token_texts import texts_of_tokens

WRITES_THROUGH = {"attn.z": ("attn", "out"), "mlp.act": ("mlp", "down")}
"""The sites that a linear layer reads whose outputs are added to the residual stream, and that layer."""
ADDED = {"attn.out": "attn", "mlp.down": "mlp"}
"""The sites whose channels are added to the residual stream's, and their branch."""
STREAM = ("resid.pre", "resid")
_INSTEAD = {
    "mlp.up": "mlp.act",
    "mlp.gate": "mlp.act",
    "attn.q": "attn.z",
    "attn.k": "attn.z",
    "attn.v": "attn.z",
    "attn.head": "attn.z",
}


def logit_effect(model: Model, unit: Units, count: int = 10) -> pd.DataFrame:
    """Return the tokens whose logits a unit raises most and lowers most, by the straight way to the model's head.

    >>> import expertlens_jax as el
    >>> el.logit_effect(el.load_model("lenslet-2m"), (3, "mlp.act", 7), 2)["does"].tolist()
    ['raises', 'raises', 'lowers', 'lowers']

    A unit that says 1 more adds its direction to the residual stream: a row of `mlp.down`'s or `attn.out`'s kernel, or
    a channel. Read by the last norm and the head, it changes each logit by `effect`, divided by what the norms on its
    way divide by, which is the same for all tokens (direct logit attribution; Geva et al. 2022, arXiv 2203.14680). Of
    an expert's neuron, it is also times the weight that the router gives the expert, which differs by token.
    What later layers make of the direction isn't in it.

    Args:
      model: a causal language model.
      unit: one that writes to the residual stream: at `mlp.act`, `mlp.down`, `attn.z`, `attn.out`, `resid.pre` or
        `resid`; as `el.trace` takes them.
      count: of tokens that are raised, and as many that are lowered.

    Returns:
      A table `token, token_id, effect, does`, from the token that is raised most to the one that is lowered most.
      `does` is "raises" or "lowers", by the half of the table, whatever the signs of the effects are.

    Raises:
      SelectionError: a unit elsewhere, none or several, or one that the model doesn't have; or a count below 1.
      UnsupportedModelError: an encoder, or a model whose norms stand on the residual stream itself.
    """
    address = one_address(unit, model.config)
    locate_units(model, unit)
    if not isinstance(count, numbers.Integral) or isinstance(count, bool) or count < 1:
        raise SelectionError(f"count={count!r} was given; wanted a number of tokens, 1 or more.")
    _check_model(model)
    effects = np.asarray(effect_on_logits(model, _direction(model, address)))
    known = min(len(effects), len(model.tokenizer))  # a head may be longer than the vocabulary
    order = np.argsort(-effects[:known], kind="stable")
    count = min(int(count), known // 2)
    chosen = np.concatenate([order[:count], order[-count:]])
    return pd.DataFrame(
        {
            "token": texts_of_tokens(model.tokenizer, chosen.tolist()),
            "token_id": chosen,
            "effect": effects[chosen],
            "does": ["raises"] * count + ["lowers"] * count,
        }
    )


def effect_on_logits(model: Model, direction: jax.Array) -> jax.Array:
    """Return what a direction of the residual stream adds to each logit, float32 `[vocabulary]`.

    Args:
      model: a causal language model whose norms don't stand on the residual stream.
      direction: float32 `[d_model]`, as it stands in the stream.
    """
    params = model.params
    if model.config.final_norm:
        direction = _through_norm(model, direction, params.get("final_norm"))
    if model.config.token_width is not None:
        narrow = params["embed"]["project_out"].astype(jnp.float32)
        direction = jnp.matmul(narrow, direction, precision=jax.lax.Precision.HIGHEST)
    head = params["embed"]["token"].T if model.config.head == "tied" else params["head"]
    effect = jnp.matmul(direction, head.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
    return effect * model.config.logits_scale


def _through_norm(model: Model, direction: jax.Array, norm: Mapping[str, jax.Array] | None) -> jax.Array:
    """Return the direction after a norm, without what the norm divides by: centred, if layer norm does it, and scaled.

    `norm` are its parameters; None, if it has none.
    """
    if model.config.norm == "layer":
        direction -= direction.mean()
    if norm is None:
        return direction
    scale = norm["scale"].astype(jnp.float32)
    return direction * (1 + scale if model.config.norm_plus_one else scale)


def _direction(model: Model, address: tuple[int, str, int]) -> jax.Array:
    """Return what a unit that says 1 adds to the residual stream, float32 `[d_model]`, up to what a norm divides by."""
    layer, site, channel = address
    weights = layer_parameters(model.params, layer)
    if site in WRITES_THROUGH:
        branch, linear = WRITES_THROUGH[site]
        if "kernels" in weights[branch][linear]:  # an expert's
            kernels = weights[branch][linear]["kernels"]
            direction = jnp.asarray(kernels[divmod(channel, kernels.shape[1])], jnp.float32)
        else:
            direction = jnp.asarray(weights[branch][linear]["kernel"][channel], jnp.float32)
    elif site in ADDED or site in STREAM:
        branch = ADDED.get(site)
        direction = jnp.zeros(model.config.d_model, jnp.float32).at[channel].set(1)
    else:
        raise SelectionError(_why_not(address))
    direction = direction * _scalars(model, layer + (site == "resid"))
    if branch is None:
        return direction
    if model.config.norm_place in ("output", "both"):
        direction = _through_norm(model, direction, weights[f"{branch}_out_norm"])
    return direction * model.config.residual_scale


def _scalars(model: Model, first: int) -> float:
    """Return what layers from the first on multiply the stream by, together."""
    if not model.config.layer_scalars:
        return 1.0
    layers = range(first, model.config.num_layers)
    return math.prod(float(layer_parameters(model.params, layer)["scalar"][0]) for layer in layers)


def _why_not(address: tuple[int, str, int]) -> str:
    layer, site, channel = address
    if site in ("mlp.up", "mlp.gate"):
        instead = f" Ask for the neuron it feeds: {format_address((layer, 'mlp.act', channel))!r}."
    elif site == "mlp.router":
        instead = " It chooses which experts write."
    elif site.startswith("mlp.shared"):
        instead = " What a shared expert gives is weighted anew at every token; ask for mlp.down, the sum."
    elif site in _INSTEAD:
        instead = f" What attention writes is read at {_INSTEAD[site]}."
    else:
        instead = " Of an autoencoder the model carries the encoder only, and so not what a feature stands for."
    writers = ", ".join([*WRITES_THROUGH, *ADDED, *STREAM])
    return (
        f"the unit {format_address(address)} doesn't write to the residual stream, so it has no straight way to the "
        f"logits; units at {writers} do.{instead}"
    )


def _check_model(model: Model) -> None:
    check_predicts(model, "and has no logits", "Give a causal language model.")
    if model.config.norm_place == "post":
        raise UnsupportedModelError(
            f"{model.name} norms the residual stream after each block's additions, so no unit has a straight way to "
            "the logits. Give a model whose norms stand on its branches."
        )
