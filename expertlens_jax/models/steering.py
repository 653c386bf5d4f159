"""Steering: one affine map a unit, `x * scale + shift`, given to any call of a model; at every token, or some (`When`).

A `Steering` names the units it changes. Calls lay it out (`placed_steering.py`) as a Flax collection that mirrors the
parameters, where the sites read it (`taps.py`).
"""

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from etils import epath
from flax import struct
from jax.core import Tracer

from expertlens_jax.cards import Card, counted, listed
from expertlens_jax.errors import ExpertLensWarning, SelectionError
from expertlens_jax.models.digests import digest_json
from expertlens_jax.models.provenance import Provenance
from expertlens_jax.models.sites import SITES, check_no_summaries, layer_widths
from expertlens_jax.models.steering_fit import check_fit, check_unit_there, why_other
from expertlens_jax.models.units import check_experts, experts_of
from expertlens_jax.models.when import When, check_comes_first, check_when

if TYPE_CHECKING:
    from expertlens_jax.models.torch_hooks import TorchHooks


@struct.dataclass(eq=False, repr=False)
class Steering:
    """What is done to some units of a model.

    A pytree of two leaves, `scale` and `shift`, with all else static: steerings of the same units can be averaged,
    interpolated, and differentiated through.

        steering.at_strength(0.5)     # half way from what the units say to what they would be made to say
        steering.then(other)          # both, one after the other
        steering.only(el.When(part="continuation"))  # at some tokens, and not at every one
        steering.table                # a row per unit
        steering.transfer(tuned)      # meant for another model with the same units, such as a tuned sibling
        steering.save("cat.json")     # el.load_steering("cat.json")
        steering.save_gguf("cat.gguf")  # a control vector of llama.cpp, where it is one
        steering.save_lm_eval("cat.pt", hf_model)  # for lm-evaluation-harness
        steering.to_torch(hf_model)   # the same in PyTorch, until its .remove(), or within a `with`

    >>> import expertlens_jax as el
    >>> model = el.load_model("lenslet-2m")
    >>> units = model.units.query("site == 'attn.v' and layer == 0").head(2)
    >>> steering = el.steer_units(model, units, scale=0.0, shift=1.0, label="to one")
    >>> steering.at_strength(0.5).table[["layer", "site", "channel", "scale", "shift"]].values.tolist()
    [[0, 'attn.v', 0, 0.5, 0.5], [0, 'attn.v', 1, 0.5, 0.5]]
    """

    scale: jax.Array | np.ndarray
    """float32 `[units]`."""
    shift: jax.Array | np.ndarray
    """float32 `[units]`."""
    units: tuple[tuple[int, str, int], ...] = struct.field(pytree_node=False)
    """`[units]` of (layer, site, channel)."""
    channels: tuple[tuple[str, int | None], ...] = struct.field(pytree_node=False)
    """(site, channels) of each site that calls lay out, steered or not; None where it isn't known how many there are,
    because the steering is of a table that holds some of the model's units only."""
    model: str = struct.field(pytree_node=False)
    """The name of the model whose units they are."""
    label: str = struct.field(pytree_node=False, default="")
    """What it is meant to do, for people."""
    provenance: Provenance | None = struct.field(pytree_node=False, default=None)
    """Of the responses that its numbers are from, or of the model it was made for by hand; None if that isn't known."""
    transferred_to: str = struct.field(pytree_node=False, default="")
    """The digest of another model that it is meant for, see `transfer`."""
    stages: tuple[tuple[int, When | None], ...] = struct.field(pytree_node=False, default=())
    """Of the steerings that it is made of, in their order: how many of `units` are theirs, and when they apply; () if
    all apply at every token. A unit may be in several."""
    experts: tuple[int, ...] | None = struct.field(pytree_node=False, default=None)
    """`[units]`: which expert of a mixture each is of, as in the column `expert` of `model.units`, and -1 of none; None
    where the model is no mixture, or it isn't known."""

    @property
    def when(self) -> When | tuple[When | None, ...] | None:
        """At which tokens it applies; None for all. Of steerings that are joined and differ in this, each one's."""
        whens = tuple(when for _, when in self.stages)
        return whens if len(whens) > 1 else whens[0] if whens else None

    def only(self, when: When) -> "Steering":
        """Return the same steering, which applies only at some tokens.

        Args:
          when: from `el.When`.

        Raises:
          SelectionError: it applies at some tokens only already; or it steers what the model computes before the unit
            that the condition goes by.
          SettingError: `when` is no condition.
        """
        if self.stages:
            raise SelectionError(
                f"this steering applies only {self._where} already, and was to apply only {when}. Give all that has to "
                "hold as one el.When, to the steering that applies at every token."
            )
        check_comes_first(check_when(when), self.units)
        return dataclasses.replace(self, stages=((len(self), when),))

    @property
    def parts(self) -> "tuple[Steering, ...]":
        """The steerings that it is made of, in their order, each of which has a single `when`.

        Raises:
          SelectionError: `stages` are of another number of units.
        """
        if self.stages and sum(count for count, _ in self.stages) != len(self):
            raise SelectionError(
                f"stages of {', '.join(str(count) for count, _ in self.stages)} units were given to a steering of "
                f"{len(self)}; wanted as many. Join steerings with .then(other)."
            )
        if len(self.stages) < 2:
            return (self,)
        ends = np.cumsum([count for count, _ in self.stages]).tolist()
        return tuple(
            dataclasses.replace(
                self,
                scale=self.scale[end - count : end],
                shift=self.shift[end - count : end],
                units=self.units[end - count : end],
                experts=None if self.experts is None else self.experts[end - count : end],
                stages=() if when is None else ((count, when),),
            )
            for end, (count, when) in zip(ends, self.stages, strict=True)
        )

    @property
    def _where(self) -> str:
        """At which tokens it applies, as "only ..." goes on."""
        return "; then ".join("at every token" if when is None else str(when) for _, when in self.stages)

    @property
    def table(self) -> pd.DataFrame:
        """A row per unit: `layer, site, channel, scale, shift`.

        Of a mixture of experts, `expert` is after `channel`, as in `model.units`. If it isn't at every token, `when` is
        last, in words.
        """
        table = pd.DataFrame(self.units, columns=["layer", "site", "channel"])
        if self.experts is not None:
            table["expert"] = np.array(self.experts, int)
        table = table.assign(scale=np.asarray(self.scale), shift=np.asarray(self.shift))
        if not self.stages:
            return table
        return table.assign(when=[str(when or "at every token") for count, when in self.stages for _ in range(count)])

    def __len__(self) -> int:
        return len(self.units)

    def __repr__(self) -> str:
        by_site = pd.Series([site for _, site, _ in self.units], dtype=object).value_counts()
        where = f" ({', '.join(f'{count} at {site}' for site, count in by_site.items())}" if len(self) else ""
        within = sorted({*(self.experts or ())} - {-1})
        whose = "expert" if len(within) == 1 else f"{len(within)} experts:" if len(within) > 8 else "experts"
        where += f"; of {whose} {listed(within)}" if within else ""
        where += ")" if where else ""
        when = f", only {self._where}" if self.stages else ""
        return f"Steering of {self.model}: {self.label or 'by hand'}; {counted(len(self), 'unit')}{where}{when}"

    def _repr_html_(self) -> str:
        more = f"... of {len(self):,} units: .table" if len(self) > 8 else ""
        return Card(repr(self), {}, self.table.head(8), more).html()

    def at_strength(self, strength: float) -> "Steering":
        """Return the part `strength` of the way from doing nothing (0) to this steering (1), as in Linear-AcT.

        Rodriguez et al., "Controlling language and diffusion models by transporting activations" (ICLR 2025):
        `(1 - strength) * x + strength * (x * scale + shift)`, which is affine again. A steering that only shifts, as
        `mean_shift` does, may be made stronger (2) or turned round (-1) as well.

        Raises:
          SelectionError: a strength outside 0 to 1, of a steering that sets or scales units; or none that is finite.
        """
        beyond = not 0 <= strength <= 1
        if beyond and not (math.isfinite(strength) and _only_shifts(self)):
            raise SelectionError(
                f"strength={strength!r}; wanted a number from 0 (nothing) to 1 (the whole steering). Only steerings "
                "that shift units and don't set or scale them, as method='mean_shift' makes them, can be stronger, or "
                "turned round by a number below 0."
            )
        return dataclasses.replace(
            self,
            scale=1 + strength * (self.scale - 1),
            shift=strength * self.shift,
            label=f"{strength:g} of {self.label}" if strength != 1 else self.label,
        )

    @property
    def digest(self) -> str:
        """Tells what is done, to which units and when, from any other steering."""
        done = [self.units, *(np.asarray(each, np.float64).tolist() for each in (self.scale, self.shift))]
        stages = [[count, None if when is None else when.given] for count, when in self.stages]
        return digest_json([*done, stages] if stages else done)

    def transfer(self, model: Any) -> "Steering":
        """Return the same steering, meant for another model whose units stand at the same places.

        It is then applied unwarned.

        It is what asks whether a tuned sibling, or a later step of training, still has the base model's experts.

        Args:
          model: the `Model` that it will be given to.

        Raises:
          SelectionError: its units don't fit.
        """
        check_fit(self, model.config, model.name)
        keys = pd.DataFrame(self.units, columns=["layer", "site", "channel"])
        experts = tuple(experts_of(keys, model.config).tolist()) if model.config.num_experts else None
        return dataclasses.replace(self, transferred_to=model.digest, experts=experts)

    def then(self, other: "Steering") -> "Steering":
        """Return both steerings in one: of a unit that both change, this one's result goes through `other`'s map.

        Each applies when it did. Where one of them doesn't say which experts its units are of, neither does the result.

        Raises:
          SelectionError: they are of models with other sites.

        Warns:
          ExpertLensWarning: they are of different models whose sites fit, told by their weights and options where both
            are known, and else by their names; the result counts as the first's.
        """
        widths = dict(self.channels)
        for site, width in other.channels:
            if widths.get(site) is None:
                widths[site] = width
            elif width not in (None, widths[site]):
                raise SelectionError(
                    f"a steering of {self.model} can't be joined with one of {other.model}: "
                    f"{site} has {widths[site]} channels there and {width} here."
                )
        if why := why_other(self, other.model, other.provenance):
            warnings.warn(
                ExpertLensWarning(
                    f"a steering of {self.model} is joined with one of {other.model}, whose units are others that "
                    f"stand at the same places{why}"
                ),
                stacklevel=2,
            )
        provenance = self.provenance
        if provenance is not None and provenance != other.provenance:
            provenance = provenance.model_alone()
        joined = dataclasses.replace(
            self,
            channels=tuple(widths.items()),
            label="; ".join(filter(None, [self.label, other.label])),
            provenance=provenance,
            transferred_to=self.transferred_to if self.transferred_to == other.transferred_to else "",
        )
        *before, last = self.parts
        first, *after = other.parts
        parts = [*before, *([_join(last, first)] if _is_one_stage(last, first) else [last, first]), *after]
        stages = tuple((len(part), part.when) for part in parts)
        numbers = jnp if any(isinstance(part.scale, jax.Array) for part in parts) else np
        return dataclasses.replace(
            joined,
            scale=numbers.concatenate([part.scale for part in parts]),
            shift=numbers.concatenate([part.shift for part in parts]),
            units=tuple(unit for part in parts for unit in part.units),
            experts=_joined_experts(parts),
            stages=() if stages[1:] == () and stages[0][1] is None else stages,
        )

    def to_torch(self, hf_model: Any) -> "TorchHooks":
        """Steer a PyTorch model of transformers, see `models.torch_hooks.hook_torch`.

        with steering.to_torch(hf_model):
            hf_model.generate(**tokenizer("Once upon a time", return_tensors="pt"))
        """
        from expertlens_jax.models.torch_hooks import hook_torch  # it imports this file

        return hook_torch(self, hf_model)

    def save_gguf(self, path: epath.PathLike, *, model_hint: str = "") -> None:
        """Write it as a control vector of llama.cpp, if one can carry it, see `models.gguf_files.save_gguf`."""
        from expertlens_jax.models.gguf_files import save_gguf

        save_gguf(self, path, model_hint=model_hint)

    def save_lm_eval(self, path: epath.PathLike, hf_model: Any) -> None:
        """Write it for lm-evaluation-harness's `steered` models, if they can carry it; see `models.lm_eval_files`."""
        from expertlens_jax.models.lm_eval_files import save_lm_eval  # it imports this file

        save_lm_eval(self, path, hf_model)

    def save(self, path: epath.PathLike) -> None:
        """Write it as JSON, numbers exactly.

        Versions that don't know `when` refuse the file of a steering that has one, and read all others.
        """
        from expertlens_jax.models.steering_files import save_steering  # it imports this file

        save_steering(self, path)


def _is_one_stage(first: Steering, second: Steering) -> bool:
    """Return whether two steerings in this order are one: what the second goes by is as it was for the first."""
    when = first.when
    return when == second.when and not (isinstance(when, When) and when.unit in first.units)


def _joined_experts(parts: Sequence[Steering]) -> tuple[int, ...] | None:
    """Return the experts of all units of some steerings, or None where one doesn't know its own."""
    known = [part.experts for part in parts if part.experts is not None]
    return tuple(expert for each in known for expert in each) if len(known) == len(parts) else None


def _join(first: Steering, second: Steering) -> Steering:
    """Return two steerings that apply at the same tokens as one, with the first's other fields."""
    units = tuple(dict.fromkeys((*first.units, *second.units)))
    place = {unit: i for i, unit in enumerate(units)}
    (scale, shift), (factor, term) = (
        (
            put_values(np.ones(len(units), np.float32), at, part.scale),
            put_values(np.zeros(len(units), np.float32), at, part.shift),
        )
        for part in (first, second)
        for at in [np.array([place[unit] for unit in part.units], int)]
    )
    stages = tuple((len(units), when) for _, when in first.stages)
    experts = None
    if first.experts is not None and second.experts is not None:
        of_unit = dict(zip((*first.units, *second.units), (*first.experts, *second.experts), strict=True))
        experts = tuple(of_unit[unit] for unit in units)
    return dataclasses.replace(
        first, scale=scale * factor, shift=shift * factor + term, units=units, stages=stages, experts=experts
    )


def _only_shifts(steering: Steering) -> bool:
    """Return whether all scales are known, and 1."""
    return not isinstance(steering.scale, Tracer) and bool((np.asarray(steering.scale) == 1).all())


def put_values(
    table: np.ndarray, at: np.ndarray | tuple[np.ndarray, ...], values: np.ndarray | jax.Array
) -> np.ndarray | jax.Array:
    """Put `values` at these places of a table; into a device's array only if values are one, to be traced through."""
    if isinstance(values, jax.Array):
        return jnp.asarray(table).at[at].set(values)
    table[at] = values
    return table


def steer_units(
    model: Any,
    units: pd.DataFrame,
    scale: np.ndarray | float = 0.0,
    shift: np.ndarray | float = 0.0,
    label: str = "",
    when: When | None = None,
) -> Steering:
    """Return the steering that maps each unit's activation x to `x * scale + shift` at every token, or at some.

    Setting a unit to a value is scale 0 and shift the value; ablating it, both 0. `el.steer` chooses units and
    values from a table of expertise.

    Args:
      model: the `Model` whose units they are.
      units: rows of the units table, of any sites; of other columns than `layer`, `site`, `channel`, `expert` is
        checked, and all else is ignored.
      scale: float, or `[units]`.
      shift: float, or `[units]`.
      label: what it is meant to do, for people.
      when: at which tokens it applies, from `el.When`; default all.

    Returns:
      A pytree to give as `steering` to any call of the model.

    Raises:
      SelectionError: a unit that the model doesn't have, or has in another expert, or one given twice; a scale or
        shift of another length, or that isn't finite; or a condition by a unit that the model doesn't have, or has too
        late.

    >>> import expertlens_jax as el
    >>> model = el.load_model("lenslet-2m")
    >>> units = model.units.query("site == 'attn.v' and layer == 0").head(2)
    >>> steering = el.steer_units(model, units, scale=0.0, shift=[1.0, 2.0], label="to one and two")
    >>> steering
    Steering of lenslet-2m: to one and two; 2 units (2 at attn.v)
    >>> sentences = ["A dog ran.", "A cat sat there."]
    >>> el.record_responses(model, sentences, sites="attn.v", steering=steering).values[:, :2].tolist()
    [[1.0, 2.0], [1.0, 2.0]]
    """
    check_no_summaries(units["site"])
    channels = model.config.site_channels()
    table = pd.DataFrame(
        {
            "layer": units["layer"].to_numpy(),
            "site": units["site"].astype(str).to_numpy(),
            "channel": units["channel"].to_numpy(),
        }
    )
    widths = {
        (layer, site): width for site in channels for layer, width in enumerate(layer_widths(SITES[site], model.config))
    }
    width = np.array([widths.get(place, 0) for place in zip(table["layer"], table["site"], strict=True)], int)
    absent = table[~table["channel"].between(0, width - 1)]
    if len(absent):
        row = absent.iloc[0]
        raise SelectionError(
            f"{model.name} has no unit layer {row.layer}, site {row.site}, channel {row.channel} "
            f"({len(absent)} of {len(table)} units don't fit). Its sites are {', '.join(channels)}, "
            f"its layers 0 to {model.config.num_layers - 1}."
        )
    check_no_repeats(table)
    if "expert" in units:
        check_experts(units, table.assign(expert=experts_of(table, model.config)), model.name)
    for name, values in (("scale", scale), ("shift", shift)):
        if np.shape(values) not in ((), (len(table),)):
            raise SelectionError(
                f"{name} has shape {np.shape(values)}; wanted a number, or one for each of {len(table)}."
            )
        if not np.isfinite(np.asarray(values, np.float32)).all():
            raise SelectionError(f"{name} holds a number that isn't finite; every token would be lost to it.")
    steering = Steering(
        scale=np.broadcast_to(np.asarray(scale, np.float32), len(table)).copy(),
        shift=np.broadcast_to(np.asarray(shift, np.float32), len(table)).copy(),
        units=unit_keys(table),
        channels=tuple((site, channels[site]) for site in channels if (table["site"] == site).any()),
        model=model.name,
        label=label,
        provenance=model.provenance,
        experts=tuple(experts_of(table, model.config).tolist()) if model.config.num_experts else None,
    )
    if when is None:
        return steering
    check_unit_there(check_when(when), model.config, model.name)
    return steering.only(when)


def unit_keys(table: pd.DataFrame) -> tuple[tuple[int, str, int], ...]:
    """Return (layer, site, channel) of each row, as Python's own types."""
    return tuple(
        (int(layer), str(site), int(channel))
        for layer, site, channel in zip(table["layer"], table["site"], table["channel"], strict=True)
    )


def check_no_repeats(table: pd.DataFrame) -> None:
    """Raise SelectionError if a unit stands in two rows."""
    repeated = table.duplicated(["layer", "site", "channel"])
    if repeated.any():
        raise SelectionError(f"{counted(repeated.sum(), 'unit is', 'units are')} given twice; steer each once.")
