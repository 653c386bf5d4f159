"""Sparse autoencoders as sites: what a dictionary's features say, computed inside the block whose output it reads.

A sparse autoencoder (Cunningham et al. 2023, arXiv 2309.08600; Bricken et al. 2023, "Towards Monosemanticity") writes
an activation as a sparse sum of learned directions. Only its encoder is needed here: each feature is a unit of the
site `sae`, in the layer that it reads. `sae_files.py` reads them from files.
"""

import dataclasses
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from expertlens_jax.cards import counted
from expertlens_jax.errors import ExpertLensWarning, UnsupportedSAEError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.sites import SITES, layer_widths

USUAL = ("attn.out", "mlp.down", "resid")
"""The sites that most are trained on: what a block's branches add to the residual stream, and that stream after it."""

READABLE = (*USUAL, *(name for name, site in SITES.items() if site.steered and name not in USUAL))
"""The sites that can be read: all that hold activations, the usual ones first."""

Normalization = Literal["none", "constant_norm", "layer_norm"]


@struct.dataclass(eq=False, repr=False)
class SAE:
    """The encoder of a sparse autoencoder, and where it reads.

    The features of an activation x `[channels]` are `max(p, 0)` of `p = (normalize(x) - offset) @ encoder + bias`
    where `p > threshold` (JumpReLU: Rajamanoharan et al. 2024, arXiv 2407.14435) and, with `k`, where p is among the k
    largest (TopK: Gao et al. 2024, arXiv 2406.04093); 0 elsewhere. With neither it is a ReLU.

    A pytree of its arrays, float32, with all else static. One of your own making needs no file:
    `el.SAE(encoder, bias, layer=5, site="resid")`.

    >>> import expertlens_jax as el, numpy as np
    >>> model = el.load_model("lenslet-2m")
    >>> sae = el.SAE(np.eye(model.config.d_model, 6, dtype=np.float32), np.zeros(6, np.float32), layer=2, site="resid")
    >>> sae
    SAE by hand: 6 features (ReLU) of resid in layer 2
    >>> el.record_responses(model.with_sae(sae), ["A dog ran.", "A cat sat there."], sites="sae").shape
    (2, 6)
    """

    encoder: jax.Array | np.ndarray
    """`[channels, features]`, with as many channels as the site has: d_model of the residual stream."""
    bias: jax.Array | np.ndarray
    """`[features]`."""
    offset: jax.Array | np.ndarray | None = None
    """`[channels]`, taken off the activations first: the decoder's bias, in most; None takes off nothing."""
    threshold: jax.Array | np.ndarray | None = None
    """`[features]`; None is 0."""
    layer: int = struct.field(pytree_node=False, kw_only=True)
    """Of the block it reads, from 0."""
    site: str = struct.field(pytree_node=False, kw_only=True)
    """What it reads there, one of `READABLE`."""
    k: int | None = struct.field(pytree_node=False, kw_only=True, default=None)
    normalize: Normalization = struct.field(pytree_node=False, kw_only=True, default="none")
    """Of each activation: to the length sqrt(channels), or to mean 0 and deviation 1 over channels, before `offset`."""
    centred: bool | None = struct.field(pytree_node=False, kw_only=True, default=False)
    """Whether it was trained on a model whose residual stream has mean 0 over channels, as TransformerLens makes it
    (`center_writing_weights`) where layer norms take that mean off anyway; None if its files don't say."""
    prepend_bos: bool = struct.field(pytree_node=False, kw_only=True, default=False)
    """Whether the texts it was trained on began with a BOS token."""
    hook: str = struct.field(pytree_node=False, kw_only=True, default="")
    """TransformerLens's name of what it reads, where its file has one."""
    model_name: str = struct.field(pytree_node=False, kw_only=True, default="")
    """The model it was trained on, where its file names one."""
    name: str = struct.field(pytree_node=False, kw_only=True, default="by hand")

    def __post_init__(self) -> None:
        """Check what can be checked without a model, where it holds arrays and not what jax puts in their place."""
        if isinstance(self.encoder, list | tuple):
            raise UnsupportedSAEError(
                f"the encoder of {self.name} is a {type(self.encoder).__name__}; give a numpy or jax array, "
                "[d_model, features]."
            )
        if all(isinstance(array, np.ndarray | jax.Array) for array in self.arrays.values()):
            _check_itself(self)

    @property
    def num_features(self) -> int:
        """How many units it makes."""
        return self.encoder.shape[1]

    @property
    def arrays(self) -> Mapping[str, jax.Array | np.ndarray]:
        """Its weights by name, without those it lacks."""
        named = {name: getattr(self, name) for name in ("encoder", "bias", "offset", "threshold")}
        return {name: array for name, array in named.items() if array is not None}

    @property
    def settings(self) -> dict[str, Any]:
        """All that is said of it beside `arrays` and its name, as JSON can hold it: with `arrays`, its identity."""
        return {
            "activation": "jumprelu" if self.threshold is not None else "relu",
            "layer": int(self.layer),
            "site": self.site,
            "k": None if self.k is None else int(self.k),
            "normalize": self.normalize,
            "centred": self.centred,
            "takes_off_offset": self.offset is not None,
            "prepend_bos": self.prepend_bos,
            "hook": self.hook,
            "model_name": self.model_name,
        }

    def __repr__(self) -> str:
        kind = f"top {self.k}" if self.k else "ReLU" if self.threshold is None else "JumpReLU"
        options = [kind, *[self.normalize] * (self.normalize != "none"), *["centred"] * bool(self.centred)]
        return (
            f"SAE {self.name}: {self.num_features} features ({', '.join(options)}) of {self.site} in layer {self.layer}"
        )


def encode(sae: SAE, activations: jax.Array) -> jax.Array:
    """Return a sparse autoencoder's features of activations.

    Args:
      sae: its weights as jax's arrays.
      activations: `[..., channels]`, of any floating-point dtype.

    Returns:
      float32 `[..., features]`, none below 0.
    """
    x = activations.astype(jnp.float32)
    if sae.centred:
        x -= x.mean(-1, keepdims=True)
    match sae.normalize:
        case "constant_norm":
            x *= math.sqrt(x.shape[-1]) / jnp.linalg.norm(x, axis=-1, keepdims=True)
        case "layer_norm":  # SAELens's own: the unbiased deviation, and a constant added to it, not to the variance
            x -= x.mean(-1, keepdims=True)
            x /= x.std(-1, ddof=1, keepdims=True) + 1e-5
    if sae.offset is not None:
        x -= sae.offset
    # In full float32 on accelerators too: what is rounded across a threshold isn't off by a little but lost.
    before = jnp.matmul(x, sae.encoder, precision=jax.lax.Precision.HIGHEST) + sae.bias
    kept = before > (0.0 if sae.threshold is None else sae.threshold)
    if sae.k is not None:  # features that tie with the k-th largest all stay, as no order among them is right
        # The minimum, and not the last: XLA takes a slice of the values for a wish to have all of them sorted.
        kept &= before >= jax.lax.top_k(before, sae.k)[0].min(-1, keepdims=True)
    return jnp.where(kept, jnp.maximum(before, 0.0), 0.0)


def never_fires(sae: SAE) -> np.ndarray:
    """Return which features are dead by their weights alone: they read nothing, and aren't above their threshold then.

    Returns:
      bool `[features]`. Others may be dead too: that shows on activations only.
    """
    bias = np.asarray(sae.bias)
    threshold = np.zeros_like(bias) if sae.threshold is None else np.asarray(sae.threshold)
    return ~np.asarray(sae.encoder).any(0) & (bias <= np.maximum(threshold, 0)) | np.isposinf(threshold)


def which_reads(saes: Sequence[SAE], num_layers: int) -> np.ndarray:
    """Return, of each layer, which of `saes` reads it, or -1: int32 `[layers]`."""
    which = np.full(num_layers, -1, np.int32)
    which[[sae.layer for sae in saes]] = np.arange(len(saes))
    return which


def read_features(
    saes: Sequence[SAE],
    which: jax.Array,
    outputs: Mapping[str, jax.Array],
    keep: Callable[[int, jax.Array], jax.Array],
    features: jax.Array,
) -> jax.Array:
    """Fill in what is kept of the features of a layer, if one of `saes` reads it; costs nothing in the others.

    Args:
      saes: `[S]`, all with the same number of features.
      which: int32, which of them reads this layer, or -1.
      outputs: `[batch, tokens, channels]` of each of the `READABLE` sites, steered.
      keep: from an SAE's place among `saes` and its features `[batch, tokens, features]` to what is kept of them.
      features: float32 `[S, ...]`, what was kept in the layers before.

    Returns:
      `features` with this layer's.
    """

    def fill_in(i: int) -> jax.Array:
        return features.at[i].set(keep(i, encode(saes[i], outputs[saes[i].site])))

    branches = [lambda: features, *[lambda i=i: fill_in(i) for i in range(len(saes))]]
    return jax.lax.switch(which + 1, branches)


def check_saes(saes: Sequence[SAE], config: TransformerConfig, model: str, family: str = "") -> tuple[SAE, ...]:
    """Return sparse autoencoders as a model can carry them: found to fit it and each other, in order of their layers.

    Args:
      saes: as loaded.
      config: of the model.
      model: its name, for errors.
      family: its `model_type`, compared with the model that each SAE says it was trained on; "" compares nothing.

    Raises:
      UnsupportedSAEError: one that doesn't fit: in width, layer or site, or because it reads what isn't a site of
        this family; one of another family's model; one that doesn't say whether it was trained on centred
        activations, where that matters; two in one layer; or different numbers of features.

    Warns:
      ExpertLensWarning: it was trained on a model of another size, or tuned otherwise, by its name.
    """
    for sae in saes:
        if not isinstance(sae, SAE):
            raise UnsupportedSAEError(f"{sae!r} was given to with_sae; wanted el.load_sae(...) or el.SAE(...).")
        _check_sae(sae, config, model)
        _check_trained_on(sae, model, family)
    layers = [sae.layer for sae in saes]
    widths = sorted({sae.num_features for sae in saes})
    if len(set(layers)) < len(layers):
        twice = next(layer for layer in layers if layers.count(layer) > 1)
        raise UnsupportedSAEError(
            f"{layers.count(twice)} SAEs read layer {twice}; a model carries one a layer. Make a model for each: "
            "model.with_sae(first), model.with_sae(second)."
        )
    if len(widths) > 1:
        raise UnsupportedSAEError(
            f"SAEs of {', '.join(map(str, widths))} features were given together; a model carries several of the same "
            "number. Make a model for each: model.with_sae(first), model.with_sae(second)."
        )
    # TransformerLens centres only where layer norms would; with RMS norms it leaves the weights as they are.
    fitting = [dataclasses.replace(sae, centred=bool(sae.centred) and config.norm == "layer") for sae in saes]
    return tuple(sorted(fitting, key=lambda sae: sae.layer))


def _check_itself(sae: SAE) -> None:
    """Check shapes, dtypes and settings against each other."""
    shapes = {name: array.shape for name, array in sae.arrays.items()}
    if len(shapes["encoder"]) != 2:
        raise UnsupportedSAEError(
            f"the encoder of {sae.name} has the shape {list(shapes['encoder'])}; it should be [d_model, features]."
        )
    d_model, features = shapes["encoder"]
    wanted = {"encoder": (d_model, features), "bias": (features,), "offset": (d_model,), "threshold": (features,)}
    for name, shape in shapes.items():
        if shape != wanted[name]:
            raise UnsupportedSAEError(
                f"the {name} of {sae.name} has the shape {list(shape)}; with an encoder [{d_model}, {features}] it "
                f"should be {list(wanted[name])}."
            )
    for name, array in sae.arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise UnsupportedSAEError(f"the {name} of {sae.name} is of {array.dtype}; it should be float32.")
    if sae.site not in READABLE:
        raise UnsupportedSAEError(f"{sae.name} is said to read {sae.site!r}; SAEs can read {', '.join(READABLE)}.")
    for name, number in (("layer", sae.layer), ("k", sae.k)):
        if number is not None and (not isinstance(number, int | np.integer) or isinstance(number, bool)):
            raise UnsupportedSAEError(f"{name}={number!r} was given for {sae.name}; wanted a whole number.")
    if sae.layer < 0:
        raise UnsupportedSAEError(f"layer={sae.layer} was given for {sae.name}; layers are counted from 0.")
    if not isinstance(sae.centred, bool | None):
        raise UnsupportedSAEError(f"centred={sae.centred!r} was given for {sae.name}; wanted True, False or None.")
    if sae.k is not None and not 1 <= sae.k <= features:
        raise UnsupportedSAEError(
            f"{sae.name} keeps the {counted(sae.k, 'largest feature')}; wanted 1 to the {features} it has."
        )
    if sae.normalize not in get_args(Normalization):
        raise UnsupportedSAEError(
            f"{sae.name} normalizes its input by {sae.normalize!r}; there are {', '.join(get_args(Normalization))}."
        )


def _check_sae(sae: SAE, config: TransformerConfig, model: str) -> None:
    for name, array in sae.arrays.items():
        if not isinstance(array, np.ndarray | jax.Array):
            raise UnsupportedSAEError(
                f"the {name} of {sae.name} is a {type(array).__name__}; give a numpy or jax array of float32."
            )
        bad = np.count_nonzero(~np.isfinite(np.asarray(array, np.float32)))
        if bad:
            raise UnsupportedSAEError(
                f"the {name} of {sae.name} holds {counted(bad, 'value that is', 'values that are')} NaN or infinite."
            )
    _check_itself(sae)
    read, channels = sae.encoder.shape[0], SITES[sae.site].channels(config)
    if not channels:
        raise UnsupportedSAEError(
            f"{sae.name} reads {sae.site}, which {model} doesn't have: it was trained on another model."
        )
    if SITES[sae.site].by_expert and config.num_experts:
        raise UnsupportedSAEError(
            f"{sae.name} reads {sae.site}. Each of {model}'s experts has its own, at its own tokens. Use an "
            "SAE of mlp.down or the residual stream."
        )
    if 0 <= sae.layer < config.num_layers:
        channels = layer_widths(SITES[sae.site], config)[sae.layer]
    if channels != SITES[sae.site].channels(config):
        raise UnsupportedSAEError(
            f"{sae.name} reads {sae.site} of layer {sae.layer}, where {model} has {channels} channels and other layers "
            f"{SITES[sae.site].channels(config)}: autoencoders there aren't read. Use one of the residual stream."
        )
    if read != channels:
        raise UnsupportedSAEError(
            f"{sae.name} reads {counted(read, 'channel')}, and {sae.site} of {model} has {channels}: it was trained on "
            "another model."
        )
    if not 0 <= sae.layer < config.num_layers:
        raise UnsupportedSAEError(
            f"{sae.name} reads layer {sae.layer}; {model} has layers 0 to {config.num_layers - 1}: it was trained on "
            "another model, or the layer is given wrongly."
        )
    if sae.hook and sae.site in ("attn.out", "mlp.down") and config.norm_place in ("output", "both"):
        raise UnsupportedSAEError(
            f"{sae.name} reads {sae.hook}, which in models like {model} stands after a norm on the branch's output; "
            f"{sae.site} is what the linear layer gives before that norm. Use an SAE of the residual stream."
        )
    if sae.hook.endswith("hook_resid_post") and config.norm_place == "post":
        raise UnsupportedSAEError(
            f"{sae.name} reads {sae.hook}, which in models like {model} stands before the block's last norm; resid is "
            "what that norm gives. Use an SAE of hook_resid_pre, of the next layer."
        )
    if sae.centred is None and config.norm == "layer" and config.norm_place != "post":
        raise UnsupportedSAEError(
            f"the files of {sae.name} don't say whether the model it was trained on was centred "
            f"(center_writing_weights), as TransformerLens does to models with layer norms like {model} unless told "
            "not to. Say so: el.load_sae(..., centred=True), right for gpt2-small-res-jb, or centred=False."
        )


FAMILIES_BY_NAME = {
    "gpt-?neox|pythia": "gpt_neox",
    "gpt-?neo(?!x)": "gpt_neo",
    "gpt-?j(?![a-z])": "gptj",
    "gpt-?2": "gpt2",
    "gemma-?3": "gemma3_text",
    "gemma-?2(?![a-z0-9])": "gemma2",
    "gemma-?(2b|7b|1\\.1)": "gemma",
    "llama": "llama",
    "mistral": "mistral",
    "olmo-?3": "olmo3",
    "olmo-?2": "olmo2",
    "olmo-?[17]": "olmo",
    "stablelm": "stablelm",
    "falcon-(7|11|40|180)b": "falcon",
    "bloom": "bloom",
    "opt-[0-9]": "opt",
    "phi-?3": "phi3",
    "phi-?(1|2)": "phi",
    "qwen-?3-?vl": "qwen3_vl_text",
    "qwen-?2\\.5-?vl": "qwen2_5_vl_text",
    "qwen-?3(?!\\.)": "qwen3",
    "qwen-?(2|1\\.5)": "qwen2",
    "xlm-?roberta": "xlm-roberta",
    "roberta": "roberta",
    "distilbert": "distilbert",
    "electra": "electra",
    "modernbert": "modernbert",
    "(?<![a-z])bert": "bert",
}
"""What names of models say, the first that is found, and the `model_type` of theirs."""


def family_named(model_name: str) -> str | None:
    """Return the `model_type` that a model's name tells, or None."""
    name = model_name.lower().rpartition("/")[2]
    return next((family for told, family in FAMILIES_BY_NAME.items() if re.search(told, name)), None)


def _check_trained_on(sae: SAE, model: str, family: str) -> None:
    """Hold the model that an SAE's file names against the one that is to carry it."""
    stated = family_named(sae.model_name)
    if not family or stated is None:
        return
    if stated != family:
        raise UnsupportedSAEError(
            f"{sae.name} was trained on {sae.model_name}, a model of {stated}, and {model} is one of {family}. Use an "
            "SAE of this model; if the name in its file is wrong, sae.replace(model_name='')."
        )
    trained_on, ours = (name.lower().rpartition("/")[2] for name in (sae.model_name, model))
    sizes = [
        set(re.findall(r"(?:^|[-_])(\d+(?:\.\d+)?[bm]|small|medium|large|xl)(?=$|[-_])", name))
        for name in (trained_on, ours)
    ]
    tuned = [bool({"it", "instruct", "chat"} & set(re.split("[-_]", name))) for name in (trained_on, ours)]
    if all(sizes) and (sizes[0] != sizes[1] or tuned[0] != tuned[1]):
        warnings.warn(
            ExpertLensWarning(
                f"{sae.name} was trained on {sae.model_name}, and is put on {model}. Its features mean what they were "
                "trained to mean on that model only."
            ),
            stacklevel=4,
        )
