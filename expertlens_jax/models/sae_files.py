"""Reads sparse autoencoders from files: directories of SAELens, and of Gemma Scope and Gemma Scope 2.

What the files hold, and how features follow from it, is as in SAELens (github.com/decoderesearch/SAELens,
`sae_lens/saes` and `sae_lens/loading`) and Gemma Scope (Lieberum et al. 2024, arXiv 2408.05147). Every tensor and
setting is used, or known to change nothing, or refused.
"""

import os
import pathlib
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import numpy as np

from expertlens_jax.cards import counted
from expertlens_jax.errors import CheckpointError, ExpertLensWarning, UnsupportedSAEError
from expertlens_jax.models.sae import READABLE, SAE, Normalization, family_named
from expertlens_jax.models.sae_places import HOOKS, Place, agreed, place_of_hook, places_of_path
from expertlens_jax.models.sae_settings import BY_HAND, OWN_LAYER, OWN_SITE, flag, read_json, read_settings, table
from expertlens_jax.models.weights import DTYPES, safetensors

CONFIG, WEIGHTS, SCALE = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
GEMMA_SCOPE, GEMMA_SCOPE_2, GEMMA_SCOPE_2_CONFIG = "params.npz", "params.safetensors", "config.json"

ARCHITECTURES = {
    "standard": (),
    "jumprelu": ("threshold",),
    "topk": (),
    # Trained on the k largest of a batch, used with the threshold that this came to (Bussmann et al. 2024,
    # arXiv 2412.06410).
    "batchtopk": ("topk_threshold",),
    "matryoshka_batchtopk": ("topk_threshold",),
}
"""SAELens's kinds that can be read, and the tensors that each has beside W_enc, b_enc, W_dec and b_dec."""

WITH_LAYER_NORMS = ("gpt2", "gpt_neo", "gpt_neox", "gptj", "opt", "phi")
"""Families that TransformerLens centres unless told not to."""

NORMALIZATIONS: dict[str, Normalization] = {
    "none": "none",
    "constant_norm_rescale": "constant_norm",
    "layer_norm": "layer_norm",
}

OTHERS = {
    "sae.safetensors": "EleutherAI's sparsify: its encoder.weight transposed, encoder.bias, b_dec, and k of cfg.json",
    "ae.pt": "dictionary_learning: its encoder.weight transposed, encoder.bias, b_dec, and k or threshold",
    "hyperparams.json": "Llama Scope: its encoder.weight transposed, encoder.bias, and jump_relu_threshold",
}
"""Files that tell of a dictionary of another library: which, and what `el.SAE` takes of it."""


def load_sae(
    path: str | os.PathLike[str],
    *,
    layer: int | None = None,
    site: str | None = None,
    scale: float | None = None,
    centred: bool | None = None,
) -> SAE:
    """Read a sparse autoencoder that is on this machine.

        sae = el.load_sae("saes/blocks.8.hook_resid_pre")                     # SAELens
        sae = el.load_sae("gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82")   # Gemma Scope

    From the hub, fetch its directory first: `hf download REPOSITORY --include "FOLDER/*" --local-dir saes`. Keep the
    names of directories: what they say of layer, site and kind counts, and may not contradict what is given.

    Args:
      path: a directory of SAELens (`cfg.json`, `sae_weights.safetensors`); or Gemma Scope's `params.npz`, Gemma
        Scope 2's `params.safetensors`, or the directory that holds one.
      layer: the layer it reads, from 0; needed if neither files nor directories say.
      site: what it reads there: "resid" (the residual stream after the block), "mlp.down" or "attn.out"; for Gemma
        Scope "resid" unless given or said by a directory.
      scale: what activations are multiplied by first, for an SAELens directory with `normalize_activations`
        `expected_average_only_in` that keeps it elsewhere (SAELens's list of pretrained SAEs has it as
        `norm_scaling_factor`, checkpoints of a training in `activation_scaler.json`, which is read).
      centred: whether the residual stream it was trained on had its mean over channels removed; None goes by the
        files' `center_writing_weights`, and asks for it where files of the first versions don't say: those of
        `gpt2-small-res-jb` need True.

    Returns:
      For `model.with_sae`.

    Raises:
      CheckpointError: no such directory, or files that are damaged, incomplete, contradict each other, or hold NaN.
      UnsupportedSAEError: of another architecture; with tensors or settings that would change the features and can't
        be used; reads something else than a site; doesn't say what it reads; or says something else than is given.

    Warns:
      ExpertLensWarning: it was trained on some positions of texts only, or on one of a model's checkpoints; or its
        files don't say whether its model was centred, and may mean either.

    >>> import expertlens_jax as el, numpy as np, pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp()) / "layer_2" / "width_6"  # as Gemma Scope's are called
    >>> folder.mkdir(parents=True)
    >>> weights = {"W_enc": np.eye(8, 6), "b_enc": np.zeros(6), "W_dec": np.eye(6, 8), "b_dec": np.zeros(8)}
    >>> np.savez(folder / "params.npz", threshold=np.full(6, 0.1), **weights)
    >>> el.load_sae(folder)
    SAE width_6: 6 features (JumpReLU) of resid in layer 2
    """
    if not isinstance(centred, bool | None):
        raise UnsupportedSAEError(f"centred={centred!r} was given for {path}; wanted True, False or None.")
    path = pathlib.Path(path).expanduser()
    directory = path.parent if path.is_file() else path
    asked = (path.name,) if path.is_file() else (CONFIG, GEMMA_SCOPE, GEMMA_SCOPE_2)
    if CONFIG in asked and (directory / "sae.safetensors").is_file() and not (directory / WEIGHTS).is_file():
        asked = ()  # sparsify's settings have the same name
    found = [name for name in asked if (directory / name).is_file()]
    if len(found) > 1:
        raise CheckpointError(
            f"{path} holds {' and '.join(found)}, of different SAEs. Give the file that is meant, as in "
            f"load_sae({str(directory / found[-1])!r})."
        )
    match found:
        case ["cfg.json" | "sae_weights.safetensors"]:
            return _load_sae_lens(directory, layer, site, scale, centred)
        case ["params.npz" | "params.safetensors"]:
            if scale is not None:
                raise UnsupportedSAEError(f"scale={scale} was given; {found[0]} of Gemma Scope has none. Leave it out.")
            load = _load_gemma_scope if found[0] == GEMMA_SCOPE else _load_gemma_scope_2
            return load(directory / found[0], layer, site, bool(centred))
    other = next((name for name in OTHERS if (directory / name).is_file()), None)
    if other:
        raise UnsupportedSAEError(
            f"{directory} holds {other} of {OTHERS[other].partition(':')[0]}, which can't be read. Build it by hand: "
            f"el.SAE(encoder, bias, offset, threshold, layer=, site=, k=), with{OTHERS[other].partition(':')[2]}."
        )
    raise CheckpointError(
        f"{path} holds no sparse autoencoder: looked for {CONFIG} with {WEIGHTS} (SAELens), for {GEMMA_SCOPE} "
        f"(Gemma Scope) and for {GEMMA_SCOPE_2} (Gemma Scope 2). Give the directory that has them; from the hub, fetch "
        "it first with hf download."
    )


def load_decoder(directory: str | os.PathLike[str]) -> np.ndarray:
    """Return the decoder of a SAELens directory, which turns features back into activations: `W_dec`, float32.

    Raises:
      CheckpointError: there is none, or the file is damaged.

    >>> import expertlens_jax as el, numpy as np, pathlib, safetensors.numpy, tempfile
    >>> directory = pathlib.Path(tempfile.mkdtemp())
    >>> weights = {"W_enc": np.eye(2, 3, dtype=np.float32), "W_dec": np.eye(3, 2, dtype=np.float32)}
    >>> safetensors.numpy.save_file(weights, directory / "sae_weights.safetensors")
    >>> el.training.load_decoder(directory).shape
    (3, 2)
    """
    file = pathlib.Path(directory) / WEIGHTS
    if not file.is_file():
        raise CheckpointError(f"{directory} has no {WEIGHTS}. Give a directory that SAELens or el.training wrote.")
    stored = _open(file)
    if "W_dec" not in stored:
        raise CheckpointError(f"{file} lacks W_dec; it has {', '.join(sorted(stored)) or 'none'}. Get it again, whole.")
    return _read(file, stored, ["W_enc", "W_dec"], [name for name in stored if name not in ("W_enc", "W_dec")])["W_dec"]


def _load_gemma_scope(file: pathlib.Path, layer: int | None, site: str | None, centred: bool) -> SAE:
    place = agreed(file, places_of_path(file.parent), layer, site)
    if place.layer is None:
        raise UnsupportedSAEError(f"{file} doesn't say which layer it reads. Give it, as in load_sae(..., layer=12).")
    try:
        with np.load(file, allow_pickle=False) as stored:
            # Some of the files have w_enc for W_enc.
            tensors = {re.sub("^w_", "W_", name): partial(stored.__getitem__, name) for name in stored.files}
            if len(tensors) < len(stored.files):
                raise CheckpointError(f"{file} holds both of w_ and W_ among {', '.join(stored.files)}. Get it again.")
            arrays = _read(file, tensors, ["W_enc", "b_enc", "threshold"], ["W_dec", "b_dec"])
    except CheckpointError:
        raise
    except Exception as error:  # numpy and zipfile each raise their own for a damaged file
        raise CheckpointError(f"{file} can't be read: {error}. It is probably truncated; get it again.") from error
    return SAE(
        encoder=arrays["W_enc"],
        bias=arrays["b_enc"],
        threshold=arrays["threshold"],
        layer=place.layer,
        site=place.site or "resid",
        centred=centred,
        prepend_bos=True,
        # Its SAEs of the MLP read what comes after the norm on the MLP's output; named, so that this is refused.
        hook=f"Gemma Scope's {place.site}" if place.site else "",
        name=file.parent.name,
    )


def _load_gemma_scope_2(file: pathlib.Path, layer: int | None, site: str | None, centred: bool) -> SAE:
    config = file.parent / GEMMA_SCOPE_2_CONFIG
    if not config.is_file():
        raise CheckpointError(f"{file.parent} has {file.name} and no {config.name}. Get it again, whole.")
    stated = read_json(config)
    wanted = {"architecture": "jump_relu", "type": "sae", "affine_connection": False}
    for name, value in wanted.items():
        if stated.get(name, value) != value:
            raise UnsupportedSAEError(
                f"{config} says {name}={stated[name]!r}; of Gemma Scope 2 SAEs with {name}={value!r} can be read. Use "
                "another SAE."
            )
    known = (*wanted, "width", "l0", "model_name", "hf_hook_point_in", "hf_hook_point_out")
    unknown = [f"{name}={value!r}" for name, value in stated.items() if name not in known]
    if unknown:
        raise UnsupportedSAEError(
            f"{config} states {', '.join(unknown)}, which is unknown here and may change the features. Use another "
            f"SAE; {BY_HAND}."
        )
    hook = stated.get("hf_hook_point_in") or ""
    if stated.get("hf_hook_point_out", hook) != hook:
        raise UnsupportedSAEError(
            f"{config} describes a transcoder, from {hook} to {stated['hf_hook_point_out']}; only autoencoders can be "
            "read."
        )
    stated_place = place_of_hook(hook, str(config))
    said = [each for each in (stated_place, *places_of_path(file.parent)) if each is not None]
    place = agreed(file, said, layer, site)
    if place.layer is None:
        raise UnsupportedSAEError(f"{config} doesn't say which layer it reads. Give it, as in load_sae(..., layer=12).")
    tensors = {re.sub("^w_", "W_", name): read for name, read in _open(file).items()}
    arrays = _read(file, tensors, ["W_enc", "b_enc", "threshold"], ["W_dec", "b_dec"])
    if stated.get("width", arrays["b_enc"].size) != arrays["b_enc"].size:
        raise CheckpointError(
            f"{config} says width={stated['width']}, and {file.name} has {counted(arrays['b_enc'].size, 'feature')}. "
            "Do they belong to the same SAE?"
        )
    return SAE(
        encoder=arrays["W_enc"],
        bias=arrays["b_enc"],
        threshold=arrays["threshold"],
        layer=place.layer,
        site=place.site or "resid",
        centred=centred,
        prepend_bos=True,
        model_name=stated.get("model_name", ""),
        name=file.parent.name,
    )


def _load_sae_lens(
    directory: pathlib.Path, layer: int | None, site: str | None, scale: float | None, centred: bool | None
) -> SAE:
    config, weights = directory / CONFIG, directory / WEIGHTS
    if not config.is_file():
        raise CheckpointError(f"{directory} has {WEIGHTS} and no {CONFIG}. Get it again, whole.")
    settings = read_settings(config)
    architecture, k = _architecture(config, settings)
    place = _where(directory, settings, layer, site)
    assert place.layer is not None and place.site is not None  # or it would have raised
    if not weights.is_file():
        raise CheckpointError(f"{directory} has {CONFIG} and no {WEIGHTS}. Get it again, whole.")

    takes_off_bias = flag(settings, "apply_b_dec_to_input", True, config)
    by_decoder_norm = flag(settings, "rescale_acts_by_decoder_norm", False, config)
    # Fine-tuning's factor is a tensor; SAELens takes the setting as false where there is none, and so do we.
    flag(settings, "finetuning_scaling_factor", False, config)
    tensors = _open(weights)
    own = ARCHITECTURES[architecture]
    if architecture == "jumprelu" and "threshold" not in tensors and "log_threshold" in tensors:
        own = ("log_threshold",)  # as it is while it is trained
    used = ["W_enc", "b_enc", *own, *["b_dec"] * takes_off_bias, *["W_dec"] * by_decoder_norm]
    arrays = _read(weights, tensors, used, ["W_dec", "b_dec"])
    d_in, d_sae = arrays["W_enc"].shape
    for name, size in (("d_in", d_in), ("d_sae", d_sae), ("d_out", d_in)):
        if settings.get(name, size) != size:
            raise CheckpointError(
                f"{config} says {name}={settings[name]}, and W_enc in {WEIGHTS} is {[d_in, d_sae]}, [d_in, d_sae]. Do "
                "they belong to the same SAE?"
            )
    normalize, scale = _normalization(directory, settings.get("normalize_activations", "none"), scale)
    encoder, bias, offset = arrays["W_enc"], arrays["b_enc"], arrays.get("b_dec")
    if scale is not None:  # (x * scale - offset) @ encoder, written as a function of x
        encoder, offset = encoder * np.float32(scale), None if offset is None else offset / np.float32(scale)
    if by_decoder_norm:  # features are ordered, and compared with a threshold, by what they add to the reconstruction
        lengths = np.linalg.norm(arrays["W_dec"], axis=1)
        if architecture in ("standard", "jumprelu") and not np.allclose(lengths, 1, atol=1e-2):
            raise UnsupportedSAEError(
                f"{config} says rescale_acts_by_decoder_norm=True of a {architecture} SAE, which SAELens knows of topk "
                f"and batchtopk only, and W_dec has rows of {lengths.min():.3g} to {lengths.max():.3g} in length, not "
                f"of 1. Set it to false if these features are not rescaled; {BY_HAND}."
            )
        encoder, bias = encoder * lengths, bias * lengths
    threshold = arrays.get("threshold")
    if "log_threshold" in arrays:
        threshold = np.exp(arrays["log_threshold"])
    if "topk_threshold" in arrays:
        threshold = np.full(d_sae, arrays["topk_threshold"].item(), np.float32)
    return SAE(
        encoder=encoder,
        bias=bias,
        offset=offset,
        threshold=threshold,
        layer=place.layer,
        site=place.site,
        k=k,
        normalize=normalize,
        centred=_centring(config, settings) if centred is None else centred,
        prepend_bos=flag(settings, "prepend_bos", True, config),
        hook=settings["hook_name"] if place.block is not None else "",
        model_name=settings.get("model_name", ""),
        name=directory.resolve().name,
    )


def _architecture(config: pathlib.Path, settings: Mapping[str, Any]) -> tuple[str, int | None]:
    """Return the architecture that settings say, one of `ARCHITECTURES`, and how many features topk keeps."""
    architecture = settings.get("architecture", "standard")
    activation = settings.get("activation_fn", "relu")
    if architecture == "standard" and activation == "topk":
        architecture = "topk"  # as it was stated before there was an architecture of that name
    if architecture not in ARCHITECTURES or activation not in ("relu", *["topk"] * (architecture == "topk")):
        what = f"architecture {architecture!r}" if architecture not in ARCHITECTURES else f"activation {activation!r}"
        raise UnsupportedSAEError(
            f"{config} says {what}; SAEs of {', '.join(ARCHITECTURES)} with ReLU can be read. Transcoders, gated SAEs "
            "and other kinds can't: use another SAE."
        )
    for here, there in (("hook_name", "hook_name_out"), ("hook_layer", "hook_layer_out"), ("d_in", "d_out")):
        if settings.get(there, settings.get(here)) != settings.get(here):
            raise UnsupportedSAEError(
                f"{config} describes a transcoder, from {settings.get(here)} to {settings[there]}; only autoencoders "
                "can be read."
            )
    if settings.get("reshape_activations", "none") != "none" and settings.get(OWN_SITE) != "attn.z":
        raise UnsupportedSAEError(
            f"{config} says reshape_activations={settings['reshape_activations']!r}: it reads attention heads side by "
            "side, which is no site. Use an SAE of the residual stream or of a branch's output."
        )
    if settings.get("model_class_name", "HookedTransformer").startswith("HookedMamba"):
        raise UnsupportedSAEError(f"{config} says that its model is a {settings['model_class_name']}; use another SAE.")
    arguments = table(settings, "activation_fn_kwargs", config)
    unknown = [f"{name}={value!r}" for name, value in arguments.items() if name != "k" and value not in (None, False)]
    if unknown:
        raise UnsupportedSAEError(
            f"{config} says {', '.join(unknown)} of the activation (activation_fn_kwargs), which is unknown here. Use "
            f"another SAE; {BY_HAND}."
        )
    if architecture != "topk":
        return architecture, None
    k, other = settings.get("k", arguments.get("k")), arguments.get("k", settings.get("k"))
    if k is None or k != other:
        both = "" if k is None else f" and {other!r}"
        raise CheckpointError(f"{config} says k={k!r}{both}; a topk SAE needs how many features it keeps.")
    if not isinstance(k, int) or k < 1:
        raise CheckpointError(f"{config} says k={k!r}; a topk SAE needs how many features it keeps, a whole number.")
    return architecture, k


def _centring(config: pathlib.Path, settings: Mapping[str, Any]) -> bool | None:
    """Return whether the model wrote nothing along the mean over channels; None if the settings don't say.

    SAELens states how it loaded the model since it leaves it as it is by default (version 3.20, pull request 279).
    Before, TransformerLens's default applied, which is to centre; of the SAEs of that time that its authors list, only
    those of the first versions, when hook points were called `hook_point`, are much the worse without.
    """
    arguments = table(settings, "model_from_pretrained_kwargs", config)
    if "center_writing_weights" in arguments:
        return flag(arguments, "center_writing_weights", False, config)
    stated = read_json(config)
    if "hook_point" in stated:
        return None
    silent = "model_from_pretrained_kwargs" not in settings and "metadata" not in stated
    if silent and family_named(settings.get("model_name", "")) in WITH_LAYER_NORMS:
        warnings.warn(
            ExpertLensWarning(
                f"{config} doesn't say whether {settings['model_name']} was centred (center_writing_weights), as was "
                "usual before SAELens 3.20; it is taken not to have been. Say so: load_sae(..., centred=False), or "
                "True."
            ),
            stacklevel=4,
        )
    return False


def _where(directory: pathlib.Path, settings: Mapping[str, Any], layer: int | None, site: str | None) -> Place:
    """Return the layer and site that are read, by the hook point, the directories' names and what was given."""
    config, hook = directory / CONFIG, settings.get("hook_name")
    if OWN_SITE in settings or OWN_LAYER in settings:
        return agreed(directory, [_where_stated(config, settings), *places_of_path(directory)], layer, site)
    head = settings.get("hook_head_index", settings.get("hook_head_index_out"))
    stated = place_of_hook(hook or "", str(config)) if head is None else None
    module = place_of_hook(settings.get("hf_hook_name", ""), str(config))
    number = settings.get("hook_layer")
    numbered = [] if number is None else [Place(number, None, f"{config} says hook_layer={number}")]
    places = [place for place in (stated, module) if place]
    place = agreed(directory, [*places, *numbered, *places_of_path(directory)], layer, site)
    if head is not None or place.layer is None or place.site is None:
        where = f"{hook}, head {head}" if head is not None else hook or "nothing"
        raise UnsupportedSAEError(
            f"{config} says that it reads {where}; SAEs can read blocks.N. with {', '.join(HOOKS)}. If it reads one of "
            "these under another name, give layer= and site=."
        )
    return Place(place.layer, place.site, place.said, stated.block if stated else None)


def _where_stated(config: pathlib.Path, settings: Mapping[str, Any]) -> Place:
    """Return the layer and site that an SAE of this package's own training states.

    Raises:
      CheckpointError: it states one of the two, or what is no site.
    """
    site, layer = settings.get(OWN_SITE), settings.get(OWN_LAYER)
    if site not in READABLE or layer is None or layer < 0:
        raise CheckpointError(
            f"{config} says {OWN_SITE}={site!r} and {OWN_LAYER}={layer!r}; wanted one of {', '.join(READABLE)} and a "
            "layer from 0 on. Correct them, or take both out if hook_name says what it reads."
        )
    return Place(layer, site, f"{config} says that it reads {site} in layer {layer}")


def _normalization(
    directory: pathlib.Path, stated: str | bool, scale: float | None
) -> tuple[Normalization, float | None]:
    """Return what is done to each activation, and what all of them are multiplied by, if anything."""
    if isinstance(stated, bool):  # as it was in the first versions
        stated = "expected_average_only_in" if stated else "none"
    beside = read_json(directory / SCALE).get("scaling_factor") if (directory / SCALE).is_file() else None
    if stated == "expected_average_only_in":
        if scale is not None and beside not in (None, scale):
            raise UnsupportedSAEError(
                f"scale={scale} was given, and {directory / SCALE} says scaling_factor={beside}. Leave it out, or "
                "take the file away."
            )
        scale = beside if scale is None else scale
        if not isinstance(scale, int | float) or isinstance(scale, bool) or not 0 < scale < float("inf"):
            raise UnsupportedSAEError(
                f"{directory / CONFIG} says normalize_activations={stated}: activations are multiplied by a number "
                f"above 0 that it doesn't state, and scale={scale!r} was given. Give scale=, the norm_scaling_factor "
                "of SAELens's list of pretrained SAEs; or 1.0 if it was folded into the weights."
            )
        return "none", float(scale)
    if scale is not None:
        raise UnsupportedSAEError(
            f"scale={scale} was given, and {directory / CONFIG} says normalize_activations={stated}, which takes none. "
            "Leave it out."
        )
    if stated not in NORMALIZATIONS:
        raise UnsupportedSAEError(
            f"{directory / CONFIG} says normalize_activations={stated!r}; there are {', '.join(NORMALIZATIONS)} and "
            "expected_average_only_in."
        )
    if beside not in (None, 1):
        raise UnsupportedSAEError(
            f"{directory / SCALE} says scaling_factor={beside}, and {directory / CONFIG} says "
            f"normalize_activations={stated}, which takes none. Set it to expected_average_only_in, or take "
            f"{SCALE} away if the factor was folded into the weights."
        )
    return NORMALIZATIONS[stated], None


def _open(file: pathlib.Path) -> dict[str, Callable[[], np.ndarray]]:
    """Return the tensors of a safetensors file by name, none read yet."""
    stored = dict(safetensors(file))
    for name, tensor in stored.items():
        if tensor.dtype not in DTYPES:
            raise CheckpointError(
                f"the tensor {name} in {file} is stored as {tensor.dtype}; wanted floating point of 16 to 64 bits."
            )
    return {name: partial(tensor.read, (slice(None),) * len(tensor.shape)) for name, tensor in stored.items()}


def _read(
    file: pathlib.Path, stored: Mapping[str, Callable[[], np.ndarray]], used: list[str], decoding: Collection[str]
) -> dict[str, np.ndarray]:
    """Return the named tensors of a file as float32, found to fit each other; the first of them is W_enc.

    Args:
      file: for errors.
      stored: its tensors by name.
      used: those that are wanted.
      decoding: those that only turn features back into activations, and needn't be there; read for their shape.

    Raises:
      CheckpointError: some are missing, have another shape than W_enc asks for, or hold NaN or infinity.
      UnsupportedSAEError: there are others, or a decoder into another width.
    """
    missing = [name for name in used if name not in stored]
    if missing:
        raise CheckpointError(
            f"{file} lacks {', '.join(missing)} of an SAE's tensors; it has {', '.join(sorted(stored)) or 'none'}. Is "
            "it an SAE of the kind that was said? Get it again."
        )
    _check_others(file, {name: read for name, read in stored.items() if name not in (*used, *decoding)})
    names = [*used, *(name for name in decoding if name in stored and name not in used)]
    as_stored = {name: stored[name]() for name in names}
    for name, array in as_stored.items():
        if array.dtype not in DTYPES.values():
            raise CheckpointError(
                f"the tensor {name} in {file} is stored as {array.dtype}; wanted floating point of 16 to 64 bits."
            )
    arrays = {name: array.astype(np.float32) for name, array in as_stored.items()}
    shape = arrays["W_enc"].shape
    if len(shape) != 2:
        raise CheckpointError(f"W_enc in {file} has the shape {list(shape)}; it should be [d_in, d_sae].")
    d_in, d_sae = shape
    wanted = {"W_enc": shape, "b_dec": (d_in,), "W_dec": (d_sae, d_in), "topk_threshold": ()}
    for name, array in arrays.items():
        fitting = wanted.get(name, (d_sae,))
        if array.shape != fitting:
            raise CheckpointError(
                f"{name} in {file} has the shape {list(array.shape)}; with W_enc {list(shape)} it should be "
                f"{list(fitting)}."
            )
    for name in used:
        bad = np.count_nonzero(~np.isfinite(arrays[name]))
        if bad:
            raise CheckpointError(
                f"{name} in {file} holds {counted(bad, 'value that is', 'values that are')} NaN or infinite. Get it "
                "again."
            )
    return {name: arrays[name] for name in used}


def _check_others(file: pathlib.Path, others: Mapping[str, Callable[[], np.ndarray]]) -> None:
    """Refuse tensors that would go unused.

    SAELens wrote a `scaling_factor` of ones into all of its files for a while: no fine-tuning, so nothing to do.
    """
    left = [
        name
        for name, read in others.items()
        if name not in ("scaling_factor", "finetuning_scaling_factor")
        or not np.all(np.asarray(read(), np.float32) == 1)
    ]
    if left:
        raise UnsupportedSAEError(
            f"{file} holds {', '.join(sorted(left))}, which an SAE of the kind that was said has no use for: another "
            f"kind, or fine-tuned. Features would be others without. Use another SAE; {BY_HAND}."
        )
