"""A module run as `python -m` runs it, or a script, in a process that is just forked."""

import atexit
import contextlib
import os
import runpy
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence


def run_module(name: str, argv: Sequence[str], cwd: str, environment: Mapping[str, str], pipe: str) -> None:
    """`python -m NAME ARGV`; what it says goes into a pipe."""
    with said_into(pipe):
        os.chdir(cwd)
        os.environ.update(environment)
        sys.argv = [name, *argv]
        runpy.run_module(name, run_name="__main__", alter_sys=True)


def run_script(script: str, argv: Sequence[str], environment: Mapping[str, str], optimised: bool, pipe: str) -> None:
    """`python -c SCRIPT ARGV`, with all of XLA's optimisations or none; what it says goes into a pipe."""
    with said_into(pipe):
        os.environ.update(environment)
        sys.modules["jax"].config.update("jax_disable_most_optimizations", not optimised)
        sys.argv = ["-c", *argv]
        exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})


@contextlib.contextmanager
def said_into(pipe: str) -> Iterator[None]:
    """What this process says goes into a pipe, and it ends as Python does."""
    written = os.open(pipe, os.O_WRONLY)
    os.dup2(written, 1)
    os.dup2(written, 2)
    os.close(written)
    try:
        yield
    finally:  # what Python does at its end, but not at that of a fork
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
