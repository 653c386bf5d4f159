"""Compile time against depth: layers run in one scan, so 48 should compile about as fast as 6.

    python benchmarks/compile_depth.py

Prints seconds to trace and compile the recording of responses, best of `--repeats`, and their ratio.
"""

import argparse
import time

import jax
import jax.numpy as jnp

from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.model import respond
from expertlens_jax.models.rotary import Rotary
from expertlens_jax.models.taps import Taps
from expertlens_jax.models.transformer import Transformer


def seconds_to_compile(num_layers: int) -> float:
    """Seconds to trace and compile a Pythia-like model of so many layers, from nothing."""
    config = TransformerConfig(
        vocab_size=1000,
        num_layers=num_layers,
        d_model=256,
        num_heads=8,
        num_kv_heads=8,
        head_dim=32,
        d_mlp=1024,
        max_tokens=2048,
        residual="parallel",
        rotary=Rotary(dim=8),
        head="linear",
    )
    network = Transformer(config, Taps(config.default_sites()))
    ids, mask = jax.ShapeDtypeStruct((8, 32), jnp.int32), jax.ShapeDtypeStruct((8, 32), bool)
    params = jax.eval_shape(network.init, jax.random.key(0), ids, mask, mask)["params"]
    jax.clear_caches()
    start = time.perf_counter()
    respond.lower(network, params, ids, mask, mask, None).compile()
    return time.perf_counter() - start


def main() -> None:
    """Compiles shallow and deep by turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    seconds_to_compile(2)  # warms what isn't compilation
    times = [(seconds_to_compile(6), seconds_to_compile(48)) for _ in range(repeats)]
    shallow, deep = (min(column) for column in zip(*times, strict=True))
    print(f"6 layers {shallow:.2f} s, 48 layers {deep:.2f} s, ratio {deep / shallow:.2f}")


if __name__ == "__main__":
    main()
