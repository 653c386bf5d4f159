"""Directions beside units: where a concept's sentences lie from the others, as a table that lines up with expertise.

A table of directions is over (concept, unit), as a table of expertise is, with the same units' table and provenance: so
expert sets mask it, `el.cosine` compares its concepts, and `el.steer` moves the model along it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np
import xarray as xr

from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.contrast import contrast_concepts
from expertlens_jax.errors import ResponsesError, SelectionError
from expertlens_jax.experts.direction_fits import FITS, check_fit, class_means, concept_key
from expertlens_jax.experts.expertise import check_same_sentences, expertise_coordinates
from expertlens_jax.experts.fingerprints import question
from expertlens_jax.experts.labelled_responses import Responses, as_responses
from expertlens_jax.experts.ratio import ratio
from expertlens_jax.experts.responses import record_responses
from expertlens_jax.models.model import Model
from expertlens_jax.models.sites import each_of
from expertlens_jax.settings import Chat, Negatives, PlainNegatives, settings_of


def find_directions(
    model: Model | Responses,
    concepts: ConceptDataset,
    sites: Sequence[str] | str | None = None,
    method: str = "mean_difference",
    *,
    layers: Sequence[int] | int | None = None,
    pooling: str | None = None,
    truncate: bool | None = None,
    tokens_per_batch: int | None = None,
    chat: Chat | bool | None = None,
    direction_seed: int = 0,
    negatives: Negatives | None = None,
    progress: bool = False,
    **settings: Unpack[PlainNegatives],
) -> xr.Dataset:
    """Find each concept's direction at each layer and site.

    Args:
      model: to read the sentences; or `Responses` to them that were recorded already.
      concepts: the sentences, and what each concept is told apart from.
      sites: whose channels the directions are in; default "resid", the residual stream, or all that were recorded.
      method: "mean_difference", the mean of the positives less that of the negatives (Rimsky et al. 2024); "pca", the
        first principal component of differences of a positive and a negative (Zou et al. 2023); "probe", the weights of
        a logistic regression, see `direction_fits`.
      layers: which, from 0; default all.
      pooling: over a sentence's tokens, by default the mean.
      truncate: cut sentences longer than the context, rather than refuse them.
      tokens_per_batch: as in `record_responses`.
      chat: see `record_responses`.
      direction_seed: of the negatives that "pca" draws.
      negatives: which sentences a concept is told apart from.
      progress: show a bar of sentences.
      **settings: the fields of `negatives` as plain keywords, as in `measure_expertise`. Negatives weigh alike: of
        `negatives_per_positive`, only a sample's size is heeded.

    Returns:
      A dataset over (concept, unit), float32, with the coordinates of a table of expertise: `direction`, of length 1 in
      each layer and site (0 where responses don't differ), pointing to the concept; and `step`, the direction times how
      far apart the means of positives and negatives lie along it, which is what `el.steer` adds at strength 1. Of
      "mean_difference", `step` is that difference.

    Raises:
      SelectionError: an unknown method, site, layer or pooling.
      ConceptDataError: a concept without positives or negatives.
      ResponsesError: responses to other sentences.
      SettingError: an unknown setting, or one that is given twice.

    >>> import expertlens_jax as el
    >>> words = el.load_concepts("facts").subset(("cat", "bread"))
    >>> directions = el.find_directions(el.load_model("lenslet-2m"), words, layers=2)
    >>> directions["direction"].sizes["unit"], round(float((directions["direction"] ** 2).sum("unit")[0]), 3)
    (128, 1.0)
    """
    check_fit(method)
    (negatives,) = settings_of(
        "find_directions",
        settings,
        {"negatives": (Negatives, negatives)},
        others=(
            "sites",
            "method",
            "layers",
            "pooling",
            "truncate",
            "tokens_per_batch",
            "chat",
            "direction_seed",
            "progress",
        ),
    )
    contrast = contrast_concepts(concepts, negatives)
    if not isinstance(model, Model):
        responses = as_responses(model)
        said = {"pooling": pooling, "truncate": truncate, "tokens_per_batch": tokens_per_batch, "chat": chat}
        if given := [name for name, value in said.items() if value is not None]:
            raise SelectionError(
                f"responses were given, which are recorded already, and {', '.join(given)}. Leave that out, or give "
                "the model."
            )
        check_same_sentences(responses.sentences, concepts.sentences)
        keep = _of_sites(responses.units["site"].astype(str).to_numpy(), sites)
    else:
        _of_layers(np.arange(model.config.num_layers), layers, model.name)
        responses = record_responses(
            model,
            concepts.sentences,
            sites="resid" if sites is None else sites,
            pooling=pooling or "mean",
            truncate=bool(truncate),
            tokens_per_batch=tokens_per_batch,
            chat=chat,
            progress=progress,
        )
        keep = np.ones(len(responses.units), bool)
    keep &= _of_layers(responses.units["layer"].to_numpy(), layers, responses.model)
    units, values = responses.units[keep], responses.values[:, keep]
    if not np.isfinite(values).all():
        raise ResponsesError("these responses hold NaN or infinity, so no direction can be found.")
    weights = contrast.weights()
    labels = np.where(concepts.labels, 1, np.where(weights > 0, 0, -1)).astype(np.int8)
    keys = [concept_key(direction_seed, concept) for concept in concepts.concepts]
    found = {name: np.zeros((len(labels), len(units)), np.float32) for name in ("direction", "step")}
    for own in blocks(units["layer"].to_numpy(), units["site"].astype(str).to_numpy()):
        here = np.ascontiguousarray(values[:, own])
        fitted = FITS[method](here, labels, keys)
        direction = ratio(fitted, np.linalg.norm(fitted, axis=1, keepdims=True), empty=0)
        positive, negative = class_means(here, labels)
        distance = ((positive - negative) * direction).sum(axis=1, keepdims=True)
        found["direction"][:, own], found["step"][:, own] = direction, direction * distance
    attributes = {"sentences": concepts.name, **negatives.attributes(), "model": responses.model}
    if responses.provenance is not None:
        asked = question(responses.provenance, concepts, [contrast], [negatives])
        attributes = asked | responses.provenance.attributes()
    return xr.Dataset(
        {name: (("concept", "unit"), array) for name, array in found.items()},
        coords=expertise_coordinates(units, concepts, contrast),
        attrs=attributes | {"method": method, "direction_seed": direction_seed},
    )


def mask_directions(directions: xr.Dataset, experts: xr.DataArray, *, keep: str = "experts") -> xr.Dataset:
    """Return directions with only the experts' channels, or with all but these; the others are 0.

    Lengths stay what is left: the squared length of a masked direction is the share of its square that the mask keeps.

    Args:
      directions: from `find_directions`.
      experts: bool (concept, unit), from `select_experts`, of the same units and concepts.
      keep: "experts" or "others".

    Raises:
      SelectionError: these aren't directions, or the experts are of other units or concepts, or an unknown `keep`.

    >>> import expertlens_jax as el
    >>> words = el.load_concepts("facts").subset(("cat", "bread"))
    >>> responses = el.record_responses(el.load_model("lenslet-2m"), words.sentences, sites=("mlp.up",))
    >>> experts = el.select_experts(el.measure_expertise(responses, words), top=50)
    >>> directions = el.find_directions(responses, words)
    >>> parts = [el.mask_directions(directions, experts, keep=keep) for keep in ("experts", "others")]
    >>> bool(abs(parts[0] + parts[1] - directions)["direction"].max() == 0)
    True
    """
    check_directions(directions)
    if keep not in ("experts", "others"):
        raise SelectionError(f"keep={keep!r}; wanted 'experts' or 'others'.")
    if not isinstance(experts, xr.DataArray) or experts.dtype != bool or experts.dims != ("concept", "unit"):
        raise SelectionError("experts aren't expert sets. Give what select_experts(expertise, threshold=0.5) returns.")
    absent = [name for name in directions["concept"].values if name not in experts["concept"].values]
    if absent:
        raise SelectionError(f"the directions have a concept {absent[0]!r}, which the expert sets don't.")
    places = [
        dict(zip(zip(*(each[name].values.tolist() for name in ("layer", "site", "channel")), strict=True),
                 range(each.sizes["unit"]), strict=True))
        for each in (directions, experts)
    ]  # fmt: skip
    lacking = [unit for unit in places[0] if unit not in places[1]]
    if lacking:
        layer, site, channel = lacking[0]
        raise SelectionError(
            f"{len(lacking)} of the {len(places[0])} channels of these directions aren't among the units of the expert "
            f"sets, such as layer {layer}, {site}, channel {channel}. Find directions at the sites that the expertise "
            "was measured at: el.find_directions(responses, concepts), of the same responses."
        )
    rows = [experts["concept"].values.tolist().index(name) for name in directions["concept"].values]
    chosen = experts.values[rows][:, [places[1][unit] for unit in places[0]]]
    mask = chosen if keep == "experts" else ~chosen
    masked = {
        name: (directions[name].dims, np.where(mask, directions[name].values, 0)) for name in ("direction", "step")
    }
    return directions.assign(masked).assign_attrs(directions.attrs | {"kept": keep})


def check_directions(directions: xr.Dataset) -> None:
    """Refuse what isn't a table of directions.

    Raises:
      SelectionError: it isn't one.
    """
    if not is_directions(directions):
        kind = type(directions).__name__
        raise SelectionError(
            f"a {kind} without directions was given; wanted what el.find_directions(model, concepts) returns."
        )


def is_directions(table: object) -> bool:
    """Return whether it is a table of directions."""
    return isinstance(table, xr.Dataset) and {"direction", "step"} <= set(table.data_vars)


def blocks(layers: np.ndarray, sites: np.ndarray) -> list[np.ndarray]:
    """Return the places of each layer's channels of each site, int arrays, in the order of the units."""
    of_block: dict[tuple[int, str], list[int]] = {}
    for place, key in enumerate(zip(layers.tolist(), sites.tolist(), strict=True)):
        of_block.setdefault(key, []).append(place)
    return [np.array(places) for places in of_block.values()]


def _of_sites(of_unit: np.ndarray, sites: Sequence[str] | str | None) -> np.ndarray:
    """bool [units]: at one of these sites."""
    wanted = of_unit if sites is None else [sites] if isinstance(sites, str) else list(sites)
    absent = [site for site in wanted if site not in of_unit]
    if absent or not len(wanted):
        raise SelectionError(
            f"sites {', '.join(absent) or 'of no name'} were given, and these responses have "
            f"{', '.join(dict.fromkeys(of_unit))}. Record others with el.record_responses(model, sentences, sites=...)."
        )
    return np.isin(of_unit, wanted)


def _of_layers(of_unit: np.ndarray, layers: Sequence[int] | int | None, model: str) -> np.ndarray:
    """bool [units]: of one of these layers."""
    if layers is None:
        return np.ones(len(of_unit), bool)
    wanted = each_of(layers)
    absent = [layer for layer in wanted if layer not in of_unit.tolist()]
    if absent or not wanted:
        raise SelectionError(
            f"layers={layers!r} were given, and {model} has layers {of_unit.min()} to {of_unit.max()}."
        )
    return np.isin(of_unit, wanted)
