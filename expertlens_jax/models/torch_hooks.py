"""Steerings in PyTorch: the same affine maps of the same units, as forward hooks on a model of transformers.

Torch isn't imported: hooks are methods of the model that is given, and tensors make tensors of their own kind.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

import numpy as np
import pandas as pd

from expertlens_jax.cards import counted
from expertlens_jax.errors import SelectionError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.families import family_of
from expertlens_jax.models.sites import SITES
from expertlens_jax.models.steering import Steering
from expertlens_jax.models.steering_fit import check_fit
from expertlens_jax.models.units import site_units
from expertlens_jax.models.when import When


class TorchHooks:
    """Hooks that steer a PyTorch model until they are removed, or until the `with` block that they stand in ends."""

    def __init__(self, steering: Steering, handles: list[Any]) -> None:
        """Take the handles of hooks that are registered."""
        self._steering, self._handles = steering, handles

    def remove(self) -> None:
        """Take the hooks off the model; a second time does nothing."""
        while self._handles:
            self._handles.pop().remove()

    def __enter__(self) -> TorchHooks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        state = f"{counted(len(self._handles), 'hook')} in PyTorch" if self._handles else "removed from PyTorch"
        return f"{self._steering!r}, {state}"


def hook_torch(steering: Steering, hf_model: Any) -> TorchHooks:
    """Steer a PyTorch model of transformers by forward hooks at its units' Hugging Face addresses.

    >>> import expertlens_jax as el
    >>> import transformers  # which needs torch for its models
    >>> small = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 8, "vocab_size": 9}
    >>> hf_model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**small))
    >>> steering = el.Steering([0.0], [3.0], units=((0, "mlp.act", 5),), channels=(("mlp.act", None),), model="mine")
    >>> with steering.to_torch(hf_model) as hooks:
    ...     print(hooks)  # hf_model(...) and hf_model.generate(...) are steered here
    Steering of mine: by hand; 1 unit (1 at mlp.act), 1 hook in PyTorch

    Args:
      steering: from `el.steer` or `el.steer_units`. One that applies at some tokens only is told where by what enters
        the model: `part` needs a cache (`hf_model.generate` makes one), whose first filling is the prompt.
      hf_model: a `transformers` model of a supported family, with or without its head; in any dtype, on any device.

    Returns:
      The hooks. The model is steered from now on, in every call: at all tokens, prompts' and new ones alike, or where
      the steering's `when` says, as `model(..., steering=...)` and `el.generate` are.

    Raises:
      SelectionError: the steering doesn't fit the model's config, a unit's module isn't in it, or a unit is of a router
        or within an expert, where no hook of PyTorch reaches; or it applies at words, of which no hook is told. And,
        when the model is called, what doesn't say where its tokens stand, see `TorchPass`.
      UnsupportedModelError: the model is of no supported family.
    """
    worded = [when for _, when in steering.stages if when is not None and when.words]
    if worded:
        raise SelectionError(
            f"a steering that applies only {worded[0]} can't be carried to PyTorch: a hook is given token ids, and not "
            "the text whose words these are. Steer here: model(..., steering=...), or el.generate."
        )
    handles: list[Any] = []
    try:
        steps = TorchPass(any(isinstance(when, When) and when.part for _, when in steering.stages))
        if steering.stages:
            handles.append(hf_model.base_model.register_forward_pre_hook(steps.enter, with_kwargs=True))
        for number, part in enumerate(steering.parts):
            when = part.when if isinstance(part.when, When) else None
            if when is not None and when.unit is not None:
                none = np.zeros(1, np.float32)
                gate = Steering(none, none, units=(when.unit,), channels=((when.unit[1], None),), model=part.model)
                for each in find_places(gate, hf_model):
                    handles.append(_register(each, steps.notes(number, when, each.channels)))
            for each in find_places(part, hf_model):
                change = _affine(each.channels, each.rows["scale"], each.rows["shift"])
                handles.append(_register(each, change if when is None else steps.gated(number, when, change)))
    except BaseException:
        TorchHooks(steering, handles).remove()
        raise
    return TorchHooks(steering, handles)


class TorchPass:
    """Where the tokens stand that a PyTorch model is given, in the forward pass that it is in, and which units fire.

    Positions are counted as here, from each row's first token that the attention mask doesn't hide.
    """

    def __init__(self, by_part: bool) -> None:
        """Take whether a prompt has to be told from its continuation."""
        self._by_part = by_part
        self._positions: Any = None
        self._in_prompt = True
        self._fired: dict[int, Any] = {}

    def enter(self, module: Any, args: tuple, kwargs: dict) -> None:
        """Take what a forward pass is given: where its tokens stand. It is a hook before the model's own pass.

        Raises:
          SelectionError: an attention mask that isn't `[batch, tokens]`, of all tokens so far; or, of a steering that
            applies in a part of the text, no cache, or several tokens after a cache that is filled already.
        """
        given: dict[str, Any] = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        tokens = given["inputs_embeds"] if given.get("input_ids") is None else given["input_ids"]
        cache, mask = given.get("past_key_values"), given.get("attention_mask")
        before = 0 if cache is None else int(cache.get_seq_length())
        batch, number = tokens.shape[:2]
        if mask is None:
            mask = tokens.new_ones((batch, before + number))
        if mask.ndim != 2 or mask.shape[1] != before + number:
            raise SelectionError(
                f"this steering applies at some tokens only, and PyTorch's attention mask is {list(mask.shape)}, which "
                f"doesn't say where the {counted(number, 'token stands', 'tokens stand')}; wanted [batch, tokens], of "
                "all tokens so far."
            )
        if self._by_part and (cache is None or (before and number > 1)):
            raise SelectionError(
                "this steering applies only in the prompt or in its continuation, and this call of the PyTorch model "
                + (
                    "has no cache"
                    if cache is None
                    else f"adds {counted(number, 'token')} to a cache that is filled already"
                )
                + ", so which of the two its tokens are isn't known. Use hf_model.generate(..., use_cache=True)."
            )
        self._positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, before:]
        self._in_prompt = not before
        self._fired = {}

    def notes(self, number: int, when: When, channels: np.ndarray) -> Callable[[Any], Any]:
        """Return what notes whether a unit fires that a condition goes by, and changes nothing."""
        (channel,) = channels.tolist()
        bounds = [None if bound is None else float(np.float32(bound)) for bound in (when.above, when.below)]

        def note(x: Any) -> Any:
            unit = x[..., channel].float().reshape(self._positions.shape)
            fires = unit == unit
            if bounds[0] is not None:
                fires = fires & (unit > bounds[0])
            if bounds[1] is not None:
                fires = fires & (unit < bounds[1])
            self._fired[number] = fires
            return x

        return note

    def gated(self, number: int, when: When, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a change that is made at the tokens alone where a condition holds."""

        def change_some(x: Any) -> Any:
            applies = self._positions >= (when.from_token or 0)
            if when.part is not None and (when.part == "prompt") != self._in_prompt:
                applies = applies & False
            if when.unit is not None:
                if number not in self._fired:
                    raise SelectionError(
                        f"a steering that applies only {when} can't be carried to this PyTorch model, which computes "
                        "what is steered before that unit, or within what is recomputed. Steer here: model(..., "
                        "steering=...)."
                    )
                applies = applies & self._fired[number]
            return change(x).where(applies.reshape(x.shape[:-1])[..., None], x)

        return change_some


def _register(place: TorchPlace, change: Callable[[Any], Any]) -> Any:
    """Register a change of what a module takes or gives, and return the hook's handle."""
    if place.is_input:
        return place.module.register_forward_pre_hook(_at_input(change), with_kwargs=True)
    return place.module.register_forward_hook(_at_output(change), with_kwargs=True)


@dataclasses.dataclass(frozen=True, eq=False)
class TorchPlace:
    """A module of PyTorch that holds steered units, of one site."""

    module: Any
    is_input: bool
    """Whether the units are the module's input, or its output."""
    channels: np.ndarray
    """int `[units]`: where each is in that tensor's last dimension."""
    rows: pd.DataFrame
    """`[units]` of the steering's table."""


def find_places(steering: Steering, hf_model: Any) -> Iterator[TorchPlace]:
    """Yield the modules of a PyTorch model where a steering's units are.

    Raises:
      SelectionError, UnsupportedModelError: see `hook_torch`.
    """
    family = family_of(hf_model.config)
    config, name = family.translate(hf_model.config), type(hf_model).__name__
    check_fit(steering, config, name)
    table = steering.table
    _check_hooked(table["site"], config, name)
    for site in dict.fromkeys(table["site"]):
        at_site = table[table["site"] == site]
        for layer, _, address, channels in site_units(SITES[site], family, config, ()):
            rows = at_site[at_site["layer"] == layer]
            if rows.empty:
                continue
            module_name, is_input, _ = address.partition("#input")
            module = _find_module(hf_model, module_name, name)
            yield TorchPlace(module, bool(is_input), channels[rows["channel"].to_numpy()], rows)


def _check_hooked(sites: Iterable[str], config: TransformerConfig, model: str) -> None:
    """Refuses units that no hook on a module can steer, though the model here can."""
    for site in dict.fromkeys(sites):
        if config.num_experts and SITES[site].by_expert:
            raise SelectionError(
                f"units of the site {site} can't be steered in PyTorch: {model} computes all its experts within one "
                f"module, and none has these activations as its input or output. Use units of mlp.down, attention or "
                "the residual stream, or steer here: model(..., steering=...)."
            )
        if site == "mlp.router":
            raise SelectionError(
                f"units of the site {site} can't be steered in PyTorch: {model}'s router chooses experts within the "
                "module that gives the logits, before a hook has them. Steer here: model(..., steering=...)."
            )


def _find_module(hf_model: Any, name: str, model: str) -> Any:
    """Return the module of an address, in a model with a head, without one, or with another one."""
    prefix = getattr(hf_model, "base_model_prefix", "")
    for candidate in (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"):
        try:
            return hf_model.get_submodule(candidate)
        except AttributeError:
            continue
    raise SelectionError(
        f"{model} has no module {name!r}, where this steering's units are. Give the model as transformers loads it, "
        "before anything wraps or renames its modules."
    )


def _affine(channels: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> Callable[[Any], Any]:
    """`x * scale + shift` of these channels of a tensor `[..., channels]`, as a new tensor; computed in float32."""
    places, scale, shift = channels.tolist(), np.asarray(scale).tolist(), np.asarray(shift).tolist()

    def change(x: Any) -> Any:
        changed = x.clone()
        own = changed[..., places].float()
        changed[..., places] = (own * own.new_tensor(scale) + own.new_tensor(shift)).to(x.dtype)
        return changed

    return change


def _at_output(change: Callable[[Any], Any]) -> Callable[..., Any]:
    def hook(module: Any, args: tuple, kwargs: dict, output: Any) -> Any:
        del module, args, kwargs
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    return hook


def _at_input(change: Callable[[Any], Any]) -> Callable[..., Any]:
    def hook(module: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        del module
        if args:
            return (change(args[0]), *args[1:]), kwargs
        first = next(iter(kwargs))
        return args, kwargs | {first: change(kwargs[first])}

    return hook
