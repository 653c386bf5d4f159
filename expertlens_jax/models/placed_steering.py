"""A steering laid out for a model's calls: as the collection that its taps read, for all rows of a batch or for each.

What doesn't fit the model is refused here, and what is another model's is told.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from expertlens_jax.cards import counted
from expertlens_jax.errors import ExpertLensWarning, SelectionError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.gated_maps import GatedMap, GatedRows, GatedSteering, UnitGate
from expertlens_jax.models.provenance import Provenance
from expertlens_jax.models.sites import node_at
from expertlens_jax.models.steering import Steering, put_values
from expertlens_jax.models.steering_fit import check_fit, why_other
from expertlens_jax.models.when import ReadText, When, listed_tokens

SteeringCollection = Mapping[str, Any]
"""`{scale, shift}`, float32 `[layers, channels]` each, at the sites' paths; where each row of a batch is steered by
itself, `[layers, rows, 1, channels]`."""

LaidOut = SteeringCollection | tuple[GatedMap, ...]
"""What a compiled program is given: the collection, or, of a steering that applies at some tokens only, its maps."""


def place_steering(
    steering: Steering | None,
    config: TransformerConfig,
    model: str,
    provenance: Provenance | None = None,
    text: ReadText | None = None,
    *,
    gated: bool = False,
) -> SteeringCollection | GatedSteering | None:
    """Lay a steering out for a model's forward pass, as the `steering` collection that its taps read.

    Of one that applies at some tokens only, it is what `gated_maps.at_rows` lays out for each batch.

    Args:
      steering: or none.
      config: of the model.
      model: its name, for errors.
      provenance: the model's, if it is known; without it, models are told by their names.
      text: what it will be given.
      gated: lay it out as one that applies at some tokens, though it may apply at all.

    Raises:
      SelectionError: the steering is another model's: units or sites don't fit; or it applies only where this text
        doesn't tell, or at none of its tokens, see `when.listed_tokens`.

    Warns:
      ExpertLensWarning: the steering is another model's, but fits: a step of its training, say, or a tuned sibling;
        and it wasn't said to be meant for this one (`Steering.transfer`).
    """
    if steering is None:
        return None
    if not isinstance(steering, Steering):
        raise SelectionError(
            f"a {type(steering).__name__} was given as steering; wanted what el.steer or el.steer_units returns."
        )
    check_fit(steering, config, model)
    own = config.site_channels()
    meant = provenance is not None and steering.transferred_to == provenance.model_digest
    if not meant and (why := why_other(steering, model, provenance)):
        warnings.warn(
            ExpertLensWarning(
                f"this steering is of {steering.model} and is applied to {model}, whose units are others that stand at "
                f"the same places{why} If that is meant, give steering.transfer(model)."
            ),
            stacklevel=4,
        )
    shapes = {site: (config.num_layers, own[site]) for site, _ in steering.channels}
    if steering.stages or gated:
        return _place_gated(steering, shapes, text or ReadText(None, ()))
    collection: dict[str, Any] = {}
    for site, (scale, shift) in _lay_out(steering, shapes).items():
        node = node_at(collection, site)
        node["scale"], node["shift"] = scale, shift
    return collection


def _lay_out(steering: Steering, shapes: Mapping[str, tuple[int, int]]) -> dict[str, tuple[Any, Any]]:
    """Return scale and shift, float32 `[layers, channels]`, of each of some sites."""
    laid_out = {}
    for site, shape in shapes.items():
        rows = np.array([i for i, unit in enumerate(steering.units) if unit[1] == site], int)
        at = tuple(np.array([(steering.units[i][0], steering.units[i][2]) for i in rows], int).reshape(-1, 2).T)
        laid_out[site] = (
            put_values(np.ones(shape, np.float32), at, steering.scale[rows]),
            put_values(np.zeros(shape, np.float32), at, steering.shift[rows]),
        )
    return laid_out


def _place_gated(steering: Steering, shapes: Mapping[str, tuple[int, int]], text: ReadText) -> GatedSteering:
    """Return a steering's parts in their order, each with what its condition says to the device and of the text."""
    maps, listed = [], []
    for part in steering.parts:
        when = part.when
        sites = {site for _, site, _ in part.units}
        laid_out = _lay_out(part, {site: shape for site, shape in shapes.items() if site in sites})
        if not isinstance(when, When):
            maps.append(GatedMap(laid_out, np.int32(0), None, np.bool_(True)))
            listed.append(None)
            continue
        gate = None
        if when.unit is not None:
            layer, site, channel = when.unit
            above, below = (-np.inf if when.above is None else when.above, np.inf if when.below is None else when.below)
            gate = UnitGate(np.int32(layer), np.int32(channel), np.float32(above), np.float32(below), site)
        beyond = np.bool_(text.goes_on and when.part == "continuation")
        maps.append(GatedMap(laid_out, np.int32(when.from_token or 0), None, beyond, gate))
        listed.append(listed_tokens(when, text))
    return GatedSteering(tuple(maps), tuple(listed))


@dataclasses.dataclass(frozen=True)
class PlacedRows:
    """The steering of each row of a call, laid out; a batch of rows takes its own with `of`."""

    collection: SteeringCollection | GatedSteering | GatedRows | None
    """`[layers, channels]` a leaf; with `of_row`, `[layers, steerings, 1, channels]`. Or what applies at some tokens
    only."""
    of_row: np.ndarray | None = None
    """int `[rows]`: which of the steerings; None where one is for all rows."""

    def of(self, rows: np.ndarray, num_positions: int) -> LaidOut | None:
        """Return the steering of a batch that holds these rows, int `[batch]`.

        Args:
          rows: of the call.
          num_positions: as many as the longest of them has tokens that are known, or more; other numbers compile
            another program, where a steering applies at some tokens only.
        """
        if isinstance(self.collection, GatedSteering | GatedRows):
            return self.collection.at_rows(rows, (len(rows), num_positions))
        if self.of_row is None:
            return self.collection
        which = self.of_row[rows]
        return jax.tree.map(lambda leaf: leaf[:, which], self.collection)


def check_row_steerings(steering: Any, num_rows: int) -> Sequence[Steering | None] | None:
    """Return the steering of each row if there are several, None if one is for all.

    Args:
      steering: one, or none, or a list with one or None for each row.
      num_rows: of the call.

    Raises:
      SelectionError: a list of another length.
    """
    if isinstance(steering, (Steering, str)) or not isinstance(steering, Sequence):
        return None
    if len(steering) != num_rows:
        raise SelectionError(
            f"{counted(len(steering), 'steering was', 'steerings were')} given for {counted(num_rows, 'row')}. Give "
            "one for all rows, or a list with one, or None, for each."
        )
    return steering


def stack_placed(placed: Sequence[SteeringCollection | None]) -> SteeringCollection:
    """Lay steerings, None for none, into one collection `[layers, steerings, 1, channels]`."""
    each = [traverse_util.flatten_dict(collection or {}) for collection in placed]
    known = {path: leaf for leaves in each for path, leaf in leaves.items()}

    def stack(path: tuple[str, ...]) -> np.ndarray | jax.Array:
        unchanged = np.full(known[path].shape, path[-1] == "scale", np.float32)
        leaves = [leaves.get(path, unchanged) for leaves in each]
        joined = jnp.stack if any(isinstance(leaf, jax.Array) for leaf in leaves) else np.stack
        return joined(leaves, axis=1)[:, :, None]

    return traverse_util.unflatten_dict({path: stack(path) for path in known})
