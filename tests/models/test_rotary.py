"""Rotary positions: the way of turning that TPUs take gives the bits that every other device's gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from expertlens_jax.models.rotary import _turn_by_parts, _turn_by_product


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("dim", [16, 64])
def test_turning_by_a_product_is_turning_by_parts_to_the_bit(interleaved, dtype, dim):
    random = np.random.default_rng(0)
    heads = jnp.asarray(random.normal(size=(3, 5, 4, 64)), dtype)
    angles = jnp.asarray(random.normal(size=(3, 5, 1, dim // 2)), jnp.float32)
    by_parts, by_product = (
        jax.jit(turn, static_argnums=3)(heads, jnp.cos(angles), jnp.sin(angles), interleaved)
        for turn in (_turn_by_parts, _turn_by_product)
    )
    assert by_parts.dtype == by_product.dtype == dtype
    assert np.array_equal(by_parts, by_product)
    assert not np.array_equal(by_parts, heads)
