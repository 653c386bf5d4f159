"""Which models predict next tokens, and one refusal for those that don't."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expertlens_jax.errors import UnsupportedModelError

if TYPE_CHECKING:
    from expertlens_jax.models.model import Model


def predicts(model: Model) -> bool:
    """Return whether a model predicts next tokens: encoders don't, and nor does a decoder without its head."""
    return model.config.causal and model.config.head is not None


def check_predicts(model: Model, lacks: str, remedy: str) -> None:
    """Refuse a model that predicts no next token.

    Args:
      model: of any family.
      lacks: what it therefore doesn't do, as the end of a sentence about it: "and predicts no next token".
      remedy: what to do instead.

    Raises:
      UnsupportedModelError: it predicts none.
    """
    if not predicts(model):
        encodes = model.family.encodes(model.config)
        raise UnsupportedModelError(f"{model.name} is {model.config.kind} ({encodes}) {lacks}. {remedy}")
