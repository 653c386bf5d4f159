"""Reads sparse autoencoders from files: directories of SAELens, and Gemma Scope's `params.npz`.

What the files hold, and how features follow from it, is as in SAELens (github.com/decoderesearch/SAELens,
`sae_lens/saes` and `sae_lens/loading`) and Gemma Scope (Lieberum et al. 2024, arXiv 2408.05147).
"""

import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from expertlens_jax.errors import CheckpointError, UnsupportedSAEError
from expertlens_jax.models.sae import READABLE, SAE
from expertlens_jax.models.weights import DTYPES, safetensors

CONFIG, WEIGHTS, SCALE, GEMMA_SCOPE = "cfg.json", "sae_weights.safetensors", "activation_scaler.json", "params.npz"

HOOKS = {"hook_resid_post": "resid", "hook_resid_pre": "resid", "hook_mlp_out": "mlp.down", "hook_attn_out": "attn.out"}
"""TransformerLens's hook points that can be read, and our sites; what enters a block is what the one before gave."""

ARCHITECTURES = ("standard", "jumprelu", "topk")

NORMALIZATIONS = {"none": "none", "constant_norm_rescale": "constant_norm", "layer_norm": "layer_norm"}


def load_sae(
    path: str | os.PathLike[str],
    *,
    layer: int | None = None,
    site: str | None = None,
    scale: float | None = None,
    centred: bool | None = None,
) -> SAE:
    """Reads a sparse autoencoder that is on this machine.

        sae = el.load_sae("saes/blocks.8.hook_resid_pre")                  # SAELens: its files say what it reads
        sae = el.load_sae("layer_12/width_16k/average_l0_82", layer=12)    # Gemma Scope: they don't

    From the hub, fetch its directory first: `hf download REPOSITORY --include "FOLDER/*" --local-dir saes`.

    Args:
      path: a directory of SAELens (`cfg.json`, `sae_weights.safetensors`); or Gemma Scope's `params.npz`, or the
        directory that holds it.
      layer: the layer it reads, from 0; needed if the files don't say.
      site: what it reads there: "resid" (the residual stream after the block), "mlp.down" or "attn.out"; for Gemma
        Scope "resid" unless given.
      scale: what activations are multiplied by first, for an SAELens directory with `normalize_activations`
        `expected_average_only_in` that keeps it elsewhere (SAELens's list of pretrained SAEs has it as
        `norm_scaling_factor`, checkpoints of a training in `activation_scaler.json`, which is read).
      centred: whether the residual stream it was trained on had its mean over channels removed; None goes by the
        files' `center_writing_weights`. Old SAEs of GPT-2 (`gpt2-small-res-jb`) need True and their files don't say.

    Returns:
      For `model.with_sae`.

    Raises:
      CheckpointError: no such directory, or files that are damaged, incomplete, or hold NaN.
      UnsupportedSAEError: of another architecture, reads something else than a site, or doesn't say what it reads.
    """
    path = pathlib.Path(path).expanduser()
    if (path / CONFIG).is_file():
        return _load_sae_lens(path, layer, site, scale, centred)
    file = path / GEMMA_SCOPE if path.is_dir() else path
    if file.name == GEMMA_SCOPE and file.is_file():
        if scale is not None:
            raise UnsupportedSAEError(f"scale={scale} was given; {GEMMA_SCOPE} of Gemma Scope has none. Leave it out.")
        return _load_gemma_scope(file, layer, site, bool(centred))
    raise CheckpointError(
        f"{path} holds no sparse autoencoder: looked for {CONFIG} with {WEIGHTS} (SAELens) and for {GEMMA_SCOPE} "
        "(Gemma Scope). Give the directory that has them; from the hub, fetch it first with hf download."
    )


def _load_gemma_scope(file: pathlib.Path, layer: int | None, site: str | None, centred: bool) -> SAE:
    if layer is None:
        raise UnsupportedSAEError(f"{file} doesn't say which layer it reads. Give it, as in load_sae(..., layer=12).")
    try:
        with np.load(file, allow_pickle=False) as stored:
            # Some of the files have w_enc for W_enc.
            tensors = {re.sub("^w_", "W_", name): partial(stored.__getitem__, name) for name in stored.files}
            arrays = _read(file, tensors, ["W_enc", "b_enc", "threshold"])
    except CheckpointError:
        raise
    except Exception as error:  # numpy and zipfile each raise their own for a damaged file
        raise CheckpointError(f"{file} can't be read: {error}. It is probably truncated; get it again.") from error
    return SAE(
        encoder=arrays["W_enc"],
        bias=arrays["b_enc"],
        threshold=arrays["threshold"],
        layer=layer,
        site=_known_site(site or "resid", file),
        centred=centred,
        prepend_bos=True,
        # Its SAEs of the MLP read what comes after the norm on the MLP's output; named, so that this is refused.
        hook=f"Gemma Scope's {site}" if site else "",
        name=file.parent.name,
    )


def _load_sae_lens(
    directory: pathlib.Path, layer: int | None, site: str | None, scale: float | None, centred: bool | None
) -> SAE:
    stated = _read_json(directory / CONFIG)
    metadata = stated.get("metadata") or {}
    # Before version 6 all settings stood side by side, and some had other names.
    older = {
        "hook_name": "hook_point",
        "hook_head_index": "hook_point_head_index",
        "activation_fn": "activation_fn_str",
    }

    def setting(name: str, default: Any = None) -> Any:
        found = (place.get(key) for place in (metadata, stated) for key in (name, older.get(name)))
        return next((value for value in found if value is not None), default)

    architecture = setting("architecture", "standard")
    activation = setting("activation_fn", "relu")
    if architecture == "standard" and activation == "topk":
        architecture = "topk"  # as it was stated before there was an architecture of that name
    if architecture not in ARCHITECTURES or activation not in ("relu", "topk"):
        what = f"architecture {architecture!r}" if architecture not in ARCHITECTURES else f"activation {activation!r}"
        raise UnsupportedSAEError(
            f"{directory / CONFIG} says {what}; SAEs of {', '.join(ARCHITECTURES)} with ReLU can be read. Transcoders, "
            "gated SAEs and other kinds can't: use another SAE."
        )
    if setting("hook_name_out", setting("hook_name")) != setting("hook_name"):
        raise UnsupportedSAEError(
            f"{directory / CONFIG} describes a transcoder, from {setting('hook_name')} to {setting('hook_name_out')}; "
            "only autoencoders can be read."
        )
    layer, site, hook = _where(directory, setting("hook_name"), setting("hook_head_index"), layer, site)
    k = setting("k", (setting("activation_fn_kwargs") or {}).get("k")) if architecture == "topk" else None
    if architecture == "topk" and (not isinstance(k, int) or k < 1):
        raise CheckpointError(f"{directory / CONFIG} says k={k!r}; a topk SAE needs how many features it keeps.")

    by_decoder_norm = architecture == "topk" and bool(setting("rescale_acts_by_decoder_norm", False))
    takes_off_bias = bool(setting("apply_b_dec_to_input", True))
    names = ["W_enc", "b_enc", *["threshold"] * (architecture == "jumprelu")]
    names += [*["b_dec"] * takes_off_bias, *["W_dec"] * by_decoder_norm]
    weights = directory / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"{directory} has {CONFIG} and no {WEIGHTS}. Get it again, whole.")
    stored = dict(safetensors(weights))
    for name in names:
        if name in stored and stored[name].dtype not in DTYPES:
            raise CheckpointError(
                f"the tensor {name} in {weights} is stored as {stored[name].dtype}; wanted floating point of 16 to 64 "
                "bits."
            )
    tensors = {name: partial(tensor.read, (slice(None),) * len(tensor.shape)) for name, tensor in stored.items()}
    arrays = _read(weights, tensors, names)
    for name, size in (("d_in", arrays["W_enc"].shape[0]), ("d_sae", arrays["W_enc"].shape[1])):
        if setting(name, size) != size:
            raise CheckpointError(
                f"{directory / CONFIG} says {name}={setting(name)}, and W_enc in {WEIGHTS} is "
                f"{list(arrays['W_enc'].shape)}, [d_in, d_sae]. Do they belong to the same SAE?"
            )
    normalize, scale = _normalization(directory, setting("normalize_activations", "none"), scale)
    encoder, bias, offset = arrays["W_enc"], arrays["b_enc"], arrays.get("b_dec")
    if scale is not None:  # (x * scale - offset) @ encoder, written as a function of x
        encoder, offset = encoder * np.float32(scale), None if offset is None else offset / np.float32(scale)
    if by_decoder_norm:  # features are ordered by what they add to the reconstruction
        lengths = np.linalg.norm(arrays["W_dec"], axis=1)
        encoder, bias = encoder * lengths, bias * lengths
    if centred is None:
        centred = bool((setting("model_from_pretrained_kwargs") or {}).get("center_writing_weights", False))
    return SAE(
        encoder=encoder,
        bias=bias,
        offset=offset,
        threshold=arrays.get("threshold"),
        layer=layer,
        site=site,
        k=k,
        normalize=normalize,
        centred=centred,
        prepend_bos=bool(setting("prepend_bos", True)),
        hook=hook,
        name=directory.resolve().name,
    )


def _where(
    directory: pathlib.Path, stated: str | None, head: int | None, layer: int | None, site: str | None
) -> tuple[int, str, str]:
    """The layer and site that are read, from TransformerLens's name or what was given, and that name if it counts."""
    given = layer is not None and site is not None
    if site is not None:
        _known_site(site, directory)
    parsed = re.fullmatch(r"blocks\.(\d+)\.(\w+)", stated or "")
    if parsed is None or parsed[2] not in HOOKS or head is not None:
        if given and head is None:
            return layer, site, ""  # trained on activations of another library, named as it names them
        where = f"{stated}, head {head}" if head is not None else stated or "nothing"
        raise UnsupportedSAEError(
            f"{directory / CONFIG} says that it reads {where}; SAEs can read blocks.N. with {', '.join(HOOKS)}. If it "
            "reads one of these under another name, give layer= and site=."
        )
    hook_layer = int(parsed[1]) - (parsed[2] == "hook_resid_pre")
    if hook_layer < 0:
        raise UnsupportedSAEError(
            f"{directory / CONFIG} says that it reads {stated}, the sum of embeddings before the first block, which is "
            "no site. Use an SAE of a later layer."
        )
    if layer not in (None, hook_layer) or site not in (None, HOOKS[parsed[2]]):
        raise UnsupportedSAEError(
            f"layer={layer}, site={site} were given, and {directory / CONFIG} says that it reads {stated}: "
            f"layer={hook_layer}, site={HOOKS[parsed[2]]!r}. Leave them out."
        )
    return hook_layer, HOOKS[parsed[2]], stated


def _known_site(site: str, where: pathlib.Path) -> str:
    if site not in READABLE:
        raise UnsupportedSAEError(f"site={site!r} was given for {where}; SAEs can read {', '.join(READABLE)}.")
    return site


def _normalization(directory: pathlib.Path, stated: str | bool, scale: float | None) -> tuple[str, float | None]:
    """What is done to each activation, and what all of them are multiplied by, if anything."""
    if isinstance(stated, bool):  # as it was in the first versions
        stated = "expected_average_only_in" if stated else "none"
    if stated == "expected_average_only_in":
        if scale is None and (directory / SCALE).is_file():
            scale = _read_json(directory / SCALE).get("scaling_factor")
        if not isinstance(scale, int | float) or not 0 < scale < float("inf"):
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
    return NORMALIZATIONS[stated], None


def _read(
    file: pathlib.Path, stored: Mapping[str, Callable[[], np.ndarray]], names: list[str]
) -> dict[str, np.ndarray]:
    """The named tensors of a file as float32, found to fit each other; the first of them is W_enc.

    Raises:
      CheckpointError: some are missing, have another shape than W_enc asks for, or hold NaN or infinity.
    """
    missing = [name for name in names if name not in stored]
    if missing:
        raise CheckpointError(
            f"{file} lacks {', '.join(missing)} of an SAE's tensors; it has {', '.join(sorted(stored)) or 'none'}. Is "
            "it an SAE of the kind that was said? Get it again."
        )
    arrays = {name: stored[name]().astype(np.float32) for name in names}
    shape = arrays["W_enc"].shape
    if len(shape) != 2:
        raise CheckpointError(f"W_enc in {file} has the shape {list(shape)}; it should be [d_in, d_sae].")
    d_in, d_sae = shape
    wanted = {"W_enc": shape, "b_enc": (d_sae,), "threshold": (d_sae,), "b_dec": (d_in,), "W_dec": (d_sae, d_in)}
    for name, array in arrays.items():
        if array.shape != wanted[name]:
            raise CheckpointError(
                f"{name} in {file} has the shape {list(array.shape)}; with W_enc {list(shape)} it should be "
                f"{list(wanted[name])}."
            )
        bad = np.count_nonzero(~np.isfinite(array))
        if bad:
            raise CheckpointError(f"{name} in {file} holds {bad} values that are NaN or infinite. Get it again.")
    return arrays


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        stated = json.loads(path.read_text())
    except ValueError as error:  # not JSON, or not even text
        raise CheckpointError(f"{path} is not JSON: {error}. Get it again.") from error
    if not isinstance(stated, dict):
        raise CheckpointError(f"{path} holds a {type(stated).__name__}; wanted settings by name. Get it again.")
    return stated
