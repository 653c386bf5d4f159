"""Steering at some tokens only, on the device: affine maps of units, and a gate that says at which tokens they apply.

All that a condition says is data: other positions, words, units or bounds compile nothing new.
"""

import dataclasses
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from expertlens_jax.models.interventions import At


@struct.dataclass
class UnitGate:
    """Open at tokens where a unit's activation lies between two bounds."""

    layer: np.int32 | np.ndarray | jax.Array
    """int32 scalar; or `[batch, 1]`, like all that follow, if each row has its own."""
    channel: np.int32 | np.ndarray | jax.Array
    """int32 scalar."""
    above: np.float32 | np.ndarray | jax.Array
    """float32 scalar, or -inf."""
    below: np.float32 | np.ndarray | jax.Array
    """float32 scalar, or inf."""
    site: str = struct.field(pytree_node=False)

    def is_open(self, activations: jax.Array) -> jax.Array:
        """Return bool `[batch, tokens]`, by what stands at its site, `[batch, tokens, channels]`."""
        if jnp.ndim(self.channel):
            unit = jnp.take_along_axis(activations, jnp.asarray(self.channel)[..., None], axis=-1, mode="clip")[..., 0]
        else:
            unit = jnp.take(activations, self.channel, axis=-1, mode="clip")
        unit = unit.astype(jnp.float32)
        return (unit > self.above) & (unit < self.below)


@struct.dataclass
class GatedMap:
    """Affine maps of units, which apply at the tokens that all gates let through."""

    maps: Mapping[str, tuple[Any, Any]]
    """Of each site, scale and shift, float32 `[layers, channels]`; or `[layers, batch, 1, channels]`, if each row has
    its own."""
    first: np.int32 | np.ndarray | jax.Array
    """int32 scalar, or `[batch, 1]`: the position from which on they apply."""
    listed: np.ndarray | jax.Array | None
    """bool `[batch, positions]`: at which positions of each row; None for all."""
    beyond: np.bool_ | np.ndarray | jax.Array
    """bool scalar, or `[batch, 1]`: whether they apply at positions beyond those that are listed."""
    unit: UnitGate | None = None

    def act(
        self, site: str, activations: jax.Array, at: At, fired: MutableMapping[int, jax.Array], place: int
    ) -> jax.Array:
        """Return a site's activations `[batch, tokens, channels]` as the network is to go on with them.

        Args:
          site: where they stand.
          activations: before this map.
          at: where in the model and the text that is.
          fired: bool `[batch, tokens]` of each map that goes by a unit: whether it fires, once that is known. It is
            written where `site` is the unit's.
          place: this map's, among them.
        """
        if self.unit is not None and self.unit.site == site:
            fired[place] = jnp.where(at.layer == self.unit.layer, self.unit.is_open(activations), fired[place])
        if site not in self.maps:
            return activations
        scale, shift = (jnp.asarray(each)[at.layer].astype(activations.dtype) for each in self.maps[site])
        applies = at.positions >= self.first
        if self.listed is not None:
            listed = jnp.asarray(self.listed)
            known = at.positions < listed.shape[1]
            there = jnp.take_along_axis(listed, jnp.where(known, at.positions, 0), axis=1)
            applies &= jnp.where(known, there, self.beyond)
        if self.unit is not None:
            applies &= fired[place]
        return jnp.where(applies[..., None], activations * scale + shift, activations)


def start_fired(changes: Sequence[Any], shape: tuple[int, ...]) -> dict[int, jax.Array] | None:
    """Return what `GatedMap.act` writes of maps that go by a unit, before any is known; None if there is no such map.

    Args:
      changes: interventions and gated maps, in the order in which they are applied.
      shape: (batch, tokens).
    """
    places = [place for place, each in enumerate(changes) if isinstance(each, GatedMap) and each.unit is not None]
    return {place: jnp.zeros(shape, bool) for place in places} or None


@dataclasses.dataclass(frozen=True, eq=False)
class GatedSteering:
    """A steering that applies at some tokens only, laid out for a model, and the texts that it will be given."""

    maps: tuple[GatedMap, ...]
    """In the order in which they are applied, without what is listed."""
    listed: tuple[Sequence[np.ndarray] | None, ...]
    """Of each map, bool `[tokens]` a row of all texts; None where it applies whatever the text."""

    def at_rows(self, rows: Sequence[int] | np.ndarray, shape: tuple[int, int]) -> tuple[GatedMap, ...]:
        """Return the maps for a batch.

        Args:
          rows: which of the texts it holds, in its first rows; any others are filler.
          shape: (batch, positions) that are listed; as many positions as the longest of the rows has, or more.
        """
        laid_out = []
        for each, listed in zip(self.maps, self.listed, strict=True):
            table = None
            if listed is not None:
                table = np.full(shape, bool(each.beyond))
                for place, row in enumerate(rows):
                    table[place, : len(listed[row])] = listed[row]
            laid_out.append(dataclasses.replace(each, listed=table))
        return tuple(laid_out)


@dataclasses.dataclass(frozen=True, eq=False)
class GatedRows:
    """Steerings of which each row of a call has one, or none, and some of which apply at some tokens only."""

    steerings: tuple[GatedSteering | None, ...]
    """Without what is listed."""
    listed: tuple[tuple[Mapping[int, np.ndarray] | None, ...], ...]
    """Of each steering's maps, bool `[tokens]` by row of the call, for the rows that have it."""
    of_row: np.ndarray
    """int `[rows]`: which of the steerings."""

    @classmethod
    def of_steerings(cls, placed: Sequence[Any], of_row: np.ndarray) -> "GatedRows":
        """Return steerings beside each other, each laid out with the texts of its own rows.

        Args:
          placed: `GatedSteering` each, or None for none.
          of_row: int `[rows]`: which of them.
        """
        listed = []
        for number, each in enumerate(placed):
            rows = np.flatnonzero(of_row == number).tolist()
            by_map = () if each is None else each.listed
            listed.append(tuple(None if own is None else dict(zip(rows, own, strict=True)) for own in by_map))
        return cls(tuple(placed), tuple(listed), of_row)

    def at_rows(self, rows: Sequence[int] | np.ndarray, shape: tuple[int, int]) -> tuple[GatedMap, ...]:
        """Return the maps for a batch, see `GatedSteering.at_rows`.

        Steerings whose conditions go by units at the same sites share maps, where each row finds its own.
        """
        alike: dict[tuple[Any, ...], list[int]] = {}
        for number, each in enumerate(self.steerings):
            if each is not None:
                kind = tuple(None if one.unit is None else one.unit.site for one in each.maps)
                alike.setdefault(kind, []).append(number)
        return tuple(
            self._share(numbers, stage, rows, shape) for kind, numbers in alike.items() for stage in range(len(kind))
        )

    def _share(
        self, numbers: Sequence[int], stage: int, rows: Sequence[int] | np.ndarray, shape: tuple[int, int]
    ) -> GatedMap:
        """Return one map of the same stage of several steerings, for a batch; it leaves all other rows alone."""
        steerings = [self.steerings[number] for number in numbers]
        maps = [each.maps[stage] for each in steerings if each is not None]
        has = np.isin(self.of_row[rows], numbers)
        which = np.where(has, np.searchsorted(numbers, self.of_row[rows]), 0)
        listed, beyond = np.zeros(shape, bool), np.zeros((shape[0], 1), bool)
        for place, row in enumerate(rows):
            if has[place]:
                own = self.listed[self.of_row[row]][stage]
                beyond[place] = own is None or bool(maps[which[place]].beyond)
                listed[place] = beyond[place]
                if own is not None:
                    listed[place, : len(own[row])] = own[row]

        def by_row(values: Sequence[Any]) -> np.ndarray:
            return np.stack([np.asarray(value) for value in values])[which][:, None]

        laid_out = {}
        for site in dict.fromkeys(site for each in maps for site in each.maps):
            known = next(each.maps[site] for each in maps if site in each.maps)
            unchanged = tuple(np.full(np.shape(known[0]), value, np.float32) for value in (1.0, 0.0))
            pairs = [each.maps.get(site, unchanged) for each in maps]
            stack = jnp.stack if any(isinstance(leaf, jax.Array) for pair in pairs for leaf in pair) else np.stack
            scale, shift = (stack([pair[part] for pair in pairs], axis=1)[:, which][:, :, None] for part in (0, 1))
            laid_out[site] = scale, shift
        gates = [each.unit for each in maps if each.unit is not None]
        unit = None
        if gates:
            fields = ("layer", "channel", "above", "below")
            values = {name: by_row([getattr(gate, name) for gate in gates]) for name in fields}
            unit = dataclasses.replace(gates[0], **values)
        return GatedMap(laid_out, by_row([each.first for each in maps]), listed, beyond, unit)


def at_rows(placed: Any, rows: Sequence[int] | np.ndarray, shape: tuple[int, int]) -> Any:
    """Return a placed steering for a batch: by `GatedSteering.at_rows` if it applies at some tokens; else as it is."""
    return placed.at_rows(rows, shape) if isinstance(placed, GatedSteering) else placed
