"""XLA at its quickest, for tests of what is computed, where it doesn't matter how: most of their time is compilation.

What XLA optimises, and how it fuses, changes roundings; tests of bytes that only the compiler of every day can give, or
of figures near what their tolerance allows, leave it as it is.
"""

import contextlib
import os
from collections.abc import Iterator

import jax

FLAGS = {
    "xla_cpu_use_fusion_emitters": False,  # each fusion goes through MLIR's passes: half of all that's left
    "xla_cpu_parallel_codegen_split_count": 1,  # into 32 parts for as many threads: a third of what's left then
}
MOST_MAPS = 20_000
"""A compiled program takes several memory maps, of which Linux gives a process 65,530: the next one crashes it."""

compiler = jax._src.compiler
get_compile_options = compiler.get_compile_options
quickly = False  # how a program is compiled now
kept: set[bool] = set()  # how those were that this process keeps: quickly, as users do, or some this way and some that


def options_as_wanted(*args, env_options_overrides=None, **options):
    """Stands for JAX's own function in the process of the tests, and marks how each program is compiled."""
    kept.add(quickly)
    overrides = FLAGS | (env_options_overrides or {}) if quickly else env_options_overrides
    return get_compile_options(*args, env_options_overrides=overrides, **options)


compiler.get_compile_options = options_as_wanted


@contextlib.contextmanager
def quick_compilation(wanted: bool = True) -> Iterator[None]:
    """Within it, what this process compiles is not optimised; or, within one that says so, is again, if not wanted."""
    global quickly
    before = jax.config.read("jax_disable_most_optimizations"), quickly
    jax.config.update("jax_disable_most_optimizations", wanted)
    quickly = wanted
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before[0])
        quickly = before[1]


def clear_programs(wanted: bool) -> None:
    """Forgets all programs when they are many, and when one was compiled the other way.

    A table recorded by programs of both ways has ties broken by their roundings: sentences that begin alike.
    """
    if kept - {wanted} or num_maps() > MOST_MAPS:
        jax.clear_caches()
        kept.clear()


def num_maps() -> int:
    """How many memory maps this process has; all there could be where the system doesn't say."""
    try:
        with open("/proc/self/maps", "rb") as maps:
            return sum(1 for _ in maps)
    except FileNotFoundError:
        return MOST_MAPS + 1


def device_flag(devices: int) -> str:
    """The flag that gives a process so many CPU devices."""
    return f"--xla_force_host_platform_device_count={devices}"


def quick_environment(devices: int = 1, **settings: str) -> dict[str, str]:
    """The environment of a process that compiles as within `quick_compilation`, with so many CPU devices."""
    quick = {
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XLA_FLAGS": " ".join([*(f"--{name}={value}".lower() for name, value in FLAGS.items()), device_flag(devices)]),
    }
    return os.environ | quick | settings
