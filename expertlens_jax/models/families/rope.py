"""Reads the `rope_parameters` of a Hugging Face config."""

import math
from collections.abc import Mapping
from typing import Any

from expertlens_jax.errors import UnsupportedModelError
from expertlens_jax.models.rotary import ROPE_SCALINGS, Rotary


def read_rotary(hf: Any, head_dim: int, *, layer_type: str | None = None, partial: bool = False) -> Rotary:
    """The rotary embedding that a config asks for.

    Args:
      hf: the Hugging Face config.
      head_dim: channels a head.
      layer_type: which entry of `rope_parameters` to read, in configs that have one per layer type.
      partial: whether this family's models can turn a part of each head's channels only.

    Raises:
      UnsupportedModelError: the config's `rope_type` is none of `ROPE_SCALINGS`, or it wants a part of the
        channels turned in a family that transformers doesn't do that for.
    """
    rope: Mapping[str, Any] = hf.rope_parameters
    if layer_type is not None:
        rope = rope[layer_type]
    scaling = rope.get("rope_type", "default")
    if scaling not in ROPE_SCALINGS:
        raise UnsupportedModelError(f"the config's rope_type is {scaling!r}; supported are {', '.join(ROPE_SCALINGS)}.")
    share = rope.get("partial_rotary_factor", 1.0)
    if share != 1.0 and not partial:
        raise UnsupportedModelError(
            f"the config's partial_rotary_factor is {share}; transformers' {hf.model_type} models turn whole "
            "heads only."
        )
    original = rope.get("original_max_position_embeddings") or hf.max_position_embeddings
    if scaling == "dynamic":  # counts from the context in the config
        original = hf.max_position_embeddings
    factor = rope.get("factor") or hf.max_position_embeddings / original
    return Rotary(
        dim=int(head_dim * share),
        base=float(rope.get("rope_theta", 10_000.0)),
        scaling=scaling,
        factor=float(factor),
        original_max_tokens=int(original),
        low_freq_factor=float(rope.get("low_freq_factor", 1.0)),
        high_freq_factor=float(rope.get("high_freq_factor", 4.0)),
        beta_fast=float(rope.get("beta_fast") or 32),
        beta_slow=float(rope.get("beta_slow") or 1),
        truncate=bool(rope.get("truncate", True)),
        short_factors=tuple(rope.get("short_factor", ())),
        long_factors=tuple(rope.get("long_factor", ())),
        attention_factor=_attention_factor(rope, scaling, factor, original),
    )


def longest_context(hf: Any, rotary: Rotary) -> int:
    """How many tokens a config's model takes.

    Dynamic NTK and YaRN may be switched on in a config that still states the context from before them; then
    it is `factor` times longer.
    """
    if rotary.scaling in ("dynamic", "yarn"):
        return max(hf.max_position_embeddings, int(rotary.factor * rotary.original_max_tokens))
    return hf.max_position_embeddings


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
