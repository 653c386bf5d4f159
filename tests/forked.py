"""A module run as `python -m` runs it, in a process that is just forked."""

import atexit
import os
import runpy
import sys
import threading
from collections.abc import Mapping, Sequence


def run_module(name: str, argv: Sequence[str], cwd: str, environment: Mapping[str, str], pipe: str) -> None:
    """`python -m NAME ARGV`; what it says goes into a pipe."""
    written = os.open(pipe, os.O_WRONLY)
    os.dup2(written, 1)
    os.dup2(written, 2)
    os.close(written)
    os.chdir(cwd)
    os.environ.update(environment)
    sys.argv = [name, *argv]
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    finally:  # what Python does at its end, but not at that of a fork
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
