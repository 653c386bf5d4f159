"""Where a sparse autoencoder reads, from the names that files and directories give it.

Names of hook points are TransformerLens's (`blocks.8.hook_resid_pre`) or those of Hugging Face's modules
(`model.layers.8.mlp`, read at its output). Directories are named after hook points by SAELens, and after layer and
site by Gemma Scope (`gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82`).
"""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

from expertlens_jax.errors import UnsupportedSAEError
from expertlens_jax.models.sae import READABLE

HOOKS = {"hook_resid_post": "resid", "hook_resid_pre": "resid", "hook_mlp_out": "mlp.down", "hook_attn_out": "attn.out"}
"""TransformerLens's hook points that can be read, and our sites; what enters a block is what the one before gave."""

MODULES = {
    "resid": r"(output)?",
    "mlp.down": r"mlp(\.(c_proj|down_proj|dense_4h_to_h|fc_out|fc2))?(\.output)?",
    "attn.out": r"(attn|self_attn|attention|self_attention)(\.(c_proj|o_proj|out_proj|dense))?(\.output)?",
}
"""Our sites, and the modules of a Hugging Face block whose outputs they are, as a regular expression."""

OTHER_KINDS = {
    "transcoder": "a transcoder",
    "transcoders": "a transcoder",
    "crosscoder": "a crosscoder",
    "crosscoders": "a crosscoder",
    "clt": "a cross-layer transcoder",
    "embedding": "embeddings",
}
"""What a directory's name may say that is no autoencoder of a site."""

SITES = {
    "resid_post": "resid",
    "resid_pre": "resid",
    "resid": "resid",
    "res": "resid",
    "mlp_out": "mlp.down",
    "mlp": "mlp.down",
    "attn_out": "attn.out",
}
"""What a directory's name may say of the site."""

NEAR = 5
"""How many directories are asked: the repository's, the layer's and the width's stand no further up."""


@dataclasses.dataclass(frozen=True)
class Place:
    """A layer and site, either None where nothing says it, and what says so."""

    layer: int | None
    site: str | None
    said: str
    block: int | None = None
    """The number in a hook point's name: one above `layer` where that is what enters a block."""


def place_of_hook(name: str, where: str) -> Place | None:
    """Return the layer and site that a hook point's or a module's name says, or None if it says no layer.

    Args:
      name: such as `blocks.8.hook_resid_pre` or `model.layers.7.mlp`.
      where: what has the name, for errors.

    Raises:
      UnsupportedSAEError: it names what is no site.
    """
    said = f"{where} says that it reads {name}"
    lens = re.fullmatch(r"blocks\.(\d+)\.(\w+)", name)
    if lens and lens[2] in HOOKS:
        block = int(lens[1])
        layer = block - (lens[2] == "hook_resid_pre")
        if layer < 0:
            raise UnsupportedSAEError(
                f"{said}, the sum of embeddings before the first block, which is no site. Use an SAE of a later layer."
            )
        return Place(layer, HOOKS[lens[2]], said, block)
    if name.startswith("blocks.") or "hook_" in name:
        raise UnsupportedSAEError(
            f"{said}; SAEs can read blocks.N. with {', '.join(HOOKS)}. Use an SAE of one of these."
        )
    module = re.search(r"(?:^|\.)(?:layers?|h|blocks)\.(\d+)(?:\.(.+))?$", name)
    if module is None:
        return None
    site = next((site for site, output in MODULES.items() if re.fullmatch(output, module[2] or "")), None)
    if site is None:
        raise UnsupportedSAEError(
            f"{said}; of Hugging Face's modules SAEs can read the outputs of a block, of its MLP and of its attention. "
            "Use an SAE of one of these."
        )
    return Place(int(module[1]), site, said)


def places_of_path(path: pathlib.Path) -> list[Place]:
    """Return what the directories of a path say of layer and site, the innermost first.

    Raises:
      UnsupportedSAEError: one says that this is no autoencoder, or reads what is no site.
    """
    names = [path.absolute().name, *(parent.name for parent in path.absolute().parents)]
    return [place for name in names[: NEAR + 1] if (place := _place_of_directory(name, path))]


def _place_of_directory(name: str, path: pathlib.Path) -> Place | None:
    where = f"the directory {name} of {path}"
    hook = re.search(r"blocks\.\d+\.(?:\w+\.)*hook_[a-z]+(?:_[a-z]+)*", name)
    if hook:  # as SAELens names them, the width behind it in some
        return place_of_hook(hook[0], where)
    lower = name.lower()
    words = re.split(r"[-_.]", lower)
    of_gemma_scope = "gemmascope" in words or {"gemma", "scope"} <= set(words)
    # "embedding" within a longer name may mean anything.
    kind = next((word for word in (lower, *words) if word in OTHER_KINDS and (word == lower or "coder" in word)), None)
    if kind is not None:
        raise UnsupportedSAEError(
            f"{where} says that this is of {OTHER_KINDS[kind]}; only autoencoders of {', '.join(READABLE)} can be "
            "read. Use another SAE; or rename the directory, if it means something else."
        )
    if of_gemma_scope and {"att", "attn"} & set(words):
        raise UnsupportedSAEError(
            f"{where} says that it reads the outputs of attention heads before they are joined; SAEs can read "
            f"{', '.join(READABLE)}. Use another SAE."
        )
    found = re.search("resid_post|resid_pre|mlp_out|attn_out", lower)
    candidates = [found[0] if found else lower, *words * of_gemma_scope]
    site = next((SITES[word] for word in candidates if word in SITES), None)
    layer = re.search(r"(?:^|[-_.])layers?[-_.]?(\d+)(?:$|[-_.])", lower) or re.match(r"(\d+)-gemmascope", lower)
    if layer is None and site is None:
        return None
    layer, said = int(layer[1]) if layer else None, []
    said += [f"layer {layer}"] if layer is not None else []
    said += [f"site {site}"] if site is not None else []
    return Place(layer, site, f"{where} says {' and '.join(said)}")


def agreed(path: pathlib.Path, places: Sequence[Place], layer: int | None, site: str | None) -> Place:
    """Return the layer and site that were given or that names say, found not to contradict each other.

    Args:
      path: of the files, for errors.
      places: what names say, the surest first.
      layer: as given, or None.
      site: as given, or None.

    Raises:
      UnsupportedSAEError: two of them differ.
    """
    if site is not None and site not in READABLE:
        raise UnsupportedSAEError(f"site={site!r} was given for {path}; SAEs can read {', '.join(READABLE)}.")
    given = Place(layer, site, f"layer={layer}, site={site} were given")
    blocks = {place.block for place in places}  # a directory layer_8 may well mean what enters block 8
    first: dict[str, Place] = {}
    for place in (given, *places):
        for what in ("layer", "site"):
            says = getattr(place, what)
            holder = first.setdefault(what, place) if says is not None else place
            if says == getattr(holder, what) or (what == "layer" and place.block is None and says in blocks):
                continue
            means = "" if place.block is None else f": layer={place.layer}, site={place.site!r}"
            remedy = (
                "Leave them out; or rename a directory, if its name is wrong."
                if holder is given
                else "One of the two is wrong: correct the file, or rename the directory."
            )
            raise UnsupportedSAEError(f"{holder.said}, and {place.said}{means}. {remedy}")
    found_layer = first["layer"].layer if "layer" in first else None
    return Place(found_layer, first["site"].site if "site" in first else None, given.said)
