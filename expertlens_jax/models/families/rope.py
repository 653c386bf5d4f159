"""Reads the `rope_parameters` of a Hugging Face config."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

from expertlens_jax.errors import ExpertLensWarning, UnsupportedModelError
from expertlens_jax.models.rotary import ROPE_SCALINGS, Rotary

ROPE_FIELDS = (
    *("rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor"),
    *("max_position_embeddings", "original_max_position_embeddings"),
)
"""Fields that `read_rotary` reads, or the config's class for it."""

LONGROPE = ("factor", "attention_factor", "original_max_position_embeddings", "short_factor", "long_factor")
YARN = ("factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")
PARAMETERS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "proportional": ("factor",),
    "dynamic": ("factor",),
    "yarn": (*YARN, "original_max_position_embeddings"),
    "longrope": LONGROPE,
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""What else a config's `rope_parameters` hold, by their `rope_type`."""


def read_rotary(
    hf: Any,
    head_dim: int,
    *,
    layer_type: str | None = None,
    partial: bool = False,
    proportional: bool = False,
    of_images_too: bool = False,
    others: tuple[str, ...] = (),
) -> Rotary:
    """Return the rotary embedding that a config asks for.

    Args:
      hf: the Hugging Face config.
      head_dim: channels a head.
      layer_type: which entry of `rope_parameters` to read, in configs that have one per layer type.
      partial: whether this family's models can turn a part of each head's channels only.
      proportional: whether this family's models know the `rope_type` of that name.
      of_images_too: whether the channels are shared out to positions of time, height and width. Of text these are all
        the same, so it doesn't matter how.
      others: parameters that the family reads itself, or that its models have and never read.

    Raises:
      UnsupportedModelError: the config's `rope_type` is none of `ROPE_SCALINGS`, or it wants a part of the
        channels turned in a family that transformers doesn't do that for, or states parameters by layer type where
        there are none of layer types, or the reverse.

    Warns:
      ExpertLensWarning: `rope_parameters` hold more than their `rope_type` asks for.
    """
    hf.standardize_rope_params()  # as models do: what the config's class saw too late goes in now
    rope: Mapping[str, Any] = hf.rope_parameters
    by_type = {key: value for key, value in rope.items() if isinstance(value, Mapping)}
    if by_type.keys() != (set() if layer_type is None else rope.keys()):
        wanted = "of one kind for all layers" if layer_type is None else "by layer type only"
        raise UnsupportedModelError(
            f"the config's rope_parameters hold {', '.join(rope)}; transformers' {hf.model_type} models read them "
            f"{wanted}."
        )
    if layer_type is not None:
        rope = rope[layer_type]
    scaling = rope.get("rope_type", "default")
    known = (*ROPE_SCALINGS, *(("proportional",) if proportional else ()))
    if scaling not in known:
        raise UnsupportedModelError(f"the config's rope_type is {scaling!r}; supported are {', '.join(known)}.")
    others += ("mrope_section", "mrope_interleaved") if of_images_too else ()
    _tell_unread(hf.model_type, {key: rope[key] for key in rope if key not in others}, scaling)
    share = rope.get("partial_rotary_factor", 1.0)
    if share != 1.0 and not partial and scaling != "proportional":
        raise UnsupportedModelError(
            f"the config's partial_rotary_factor is {share}; transformers' {hf.model_type} models turn whole "
            "heads only."
        )
    original = rope.get("original_max_position_embeddings") or hf.max_position_embeddings
    if scaling == "dynamic":  # counts from the context in the config
        original = hf.max_position_embeddings
    factor = rope.get("factor") or (1.0 if scaling == "proportional" else hf.max_position_embeddings / original)
    return Rotary(
        dim=head_dim if scaling == "proportional" else int(head_dim * share),
        share=float(share) if scaling == "proportional" else 1.0,
        base=float(rope.get("rope_theta", 10_000.0)),
        scaling=scaling,
        factor=float(factor),
        original_max_tokens=int(original),
        low_freq_factor=float(rope.get("low_freq_factor", 1.0)),
        high_freq_factor=float(rope.get("high_freq_factor", 4.0)),
        beta_fast=float(rope.get("beta_fast") or 32),
        beta_slow=float(rope.get("beta_slow") or 1),
        truncate=bool(hf.rope_parameters.get("truncate", True)),  # never from a layer type's own
        short_factors=tuple(rope.get("short_factor", ())),
        long_factors=tuple(rope.get("long_factor", ())),
        attention_factor=_attention_factor(rope, scaling, factor, original),
    )


def longest_context(hf: Any, rotary: Rotary) -> int:
    """Return how many tokens a config's model takes.

    Dynamic NTK and YaRN may be switched on in a config that still states the context from before them; then
    it is `factor` times longer.
    """
    if rotary.scaling in ("dynamic", "yarn"):
        return max(hf.max_position_embeddings, int(rotary.factor * rotary.original_max_tokens))
    return hf.max_position_embeddings


def _tell_unread(model_type: str, rope: Mapping[str, Any], scaling: str) -> None:
    """Warns of parameters that mean nothing to this `rope_type`."""
    read = {"rope_type", "type", "rope_theta", "partial_rotary_factor", *PARAMETERS[scaling]}
    unread = [f"{key}={value!r}" for key, value in rope.items() if key not in read and value is not None]
    if unread:
        warnings.warn(
            f"the rope_parameters of this {model_type} config say {', '.join(unread)}, which rope_type={scaling!r} "
            "doesn't use, here as in transformers. Is the rope_type right?",
            ExpertLensWarning,
            stacklevel=2,
        )


def _attention_factor(rope: Mapping[str, Any], scaling: str, factor: float, original: int) -> float:
    """Factor on sine and cosine: the config's own, or the default of YaRN or LongRoPE."""
    if scaling not in ("yarn", "longrope"):
        return 1.0
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    if factor <= 1.0:
        return 1.0
    if scaling == "longrope":
        return math.sqrt(1 + math.log(factor) / math.log(original))

    def yarn(scale: float = 1.0) -> float:
        return 0.1 * scale * math.log(factor) + 1.0

    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return yarn(rope["mscale"]) / yarn(rope["mscale_all_dim"])
    return yarn()
