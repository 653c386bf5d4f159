"""Parameters of modules, declared so that a model is traced quickly."""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from flax.errors import ScopeParamShapeError


def parameter(
    module: nn.Module, name: str, init: Callable[..., Any], shape: tuple[int, ...], dtype: jax.typing.DTypeLike
) -> jax.Array:
    """Return a module's parameter; where there is none yet, `init` makes it, as `module.param` does.

    Of a parameter that is there, `module.param` traces how it would be drawn to learn its shape, which takes a third of
    all the time that a model takes to trace. Here the shape is known.

    Args:
      module: that the parameter belongs to.
      name: within the module.
      init: takes a key, a shape and a dtype.
      shape: of the parameter.
      dtype: that it is made in; one that is there keeps its own.

    Raises:
      flax.errors.ScopeParamShapeError: the parameter that is there has another shape.
    """
    if not module.has_variable("params", name):
        return module.param(name, init, shape, dtype)
    value = module.get_variable("params", name)
    if value.shape != shape:
        raise ScopeParamShapeError(name, "/".join(module.path), value.shape, shape)
    return value
