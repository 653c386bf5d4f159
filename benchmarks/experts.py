"""A mixture's products on the CPU: every expert for every token, against each token's own experts.

    python benchmarks/experts.py

Each row is of one layer's `mlp.up`, float32, and seconds are of the process on all its cores, the least of three. Dense
and in blocks are the two ways of `models/routing.py` on CPUs; `ragged_dot` is what XLA makes there of the accelerators'
instruction. From `routing.LARGE` weights on, products are in blocks where `ROWS_PER_BLOCK` rows an expert and the
tokens' own are at most half of the dense work.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from expertlens_jax.models.routing import LARGE, Routing, by_blocks, by_instruction, into_experts

SHAPES = ((256, 8, 2, 512, 256), (256, 8, 2, 512, 1024), (256, 16, 4, 512, 512), (512, 64, 8, 512, 256))
"""Tokens, experts, experts a token, inputs, outputs."""
WAYS = {"dense": None, "in blocks": by_blocks, "ragged_dot": by_instruction}


def seconds(work: Callable[[], jax.Array]) -> float:
    """Return the process's seconds, the least of three calls after one."""
    jax.block_until_ready(work())
    taken = []
    for _ in range(3):
        start = time.process_time()
        jax.block_until_ready(work())
        taken.append(time.process_time() - start)
    return min(taken)


def main() -> None:
    """Measures every shape, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    print(f"{'tokens':>6} {'experts':>8} {'weights / LARGE':>16}", *(f"{name:>12}" for name in WAYS))
    for tokens, experts, own, inputs, outputs in SHAPES:
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=(1, tokens, inputs)), jnp.float32)
        kernels = jnp.asarray(rng.normal(size=(experts, inputs, outputs)), jnp.float32)
        chosen = jnp.asarray(np.stack([rng.permutation(experts)[:own] for _ in range(tokens)])[None], jnp.int32)
        routing = Routing(chosen, jnp.ones(chosen.shape, jnp.float32), experts)
        found = []
        for grouped in WAYS.values():
            product = jax.jit(
                lambda x, kernels, routing=routing, grouped=grouped: into_experts(x, kernels, routing, grouped)
            )
            found.append(seconds(partial(product, x, kernels)))
        said = f"{tokens:>6} {f'{own} of {experts}':>8} {experts * inputs * outputs / LARGE:>16.2g}"
        print(said, *(f"{each:>10.3f} s" for each in found), flush=True)


if __name__ == "__main__":
    main()
