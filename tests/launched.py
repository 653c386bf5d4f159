"""Launches experiments for tests: any of them within this process, and `find_experts` as processes of its own."""

import contextlib
import importlib
import io
import os
import pathlib
import socket
import subprocess
import sys
import time
import warnings

import families
import numpy as np
import pandas as pd

from experiments.launch import format_warning, launch

ROOT = pathlib.Path(__file__).parents[1]
WITHOUT_TORCH = (
    "import importlib.util as util, runpy; found = util.find_spec; "
    "util.find_spec = lambda name, *package: None if name == 'torch' else found(name, *package); "
    "runpy.run_module('experiments.find_experts', run_name='__main__', alter_sys=True)"
)
"""`python -m experiments.find_experts` where torch isn't installed, which is also where it starts fastest."""


def launch_here(name: str, *flags: str) -> subprocess.CompletedProcess:
    """Launches `experiments.NAME` without the seconds that a new process takes to import what it needs.

    Only an error of the user's making ends it with a status, as in a process; any other is raised.
    """
    run = importlib.import_module(f"experiments.{name}").run
    said, told, status = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(ROOT),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(told),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        for quiet in DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning:  # as Python is
            warnings.simplefilter("ignore", quiet)
        warnings.showwarning = lambda message, category, *_: sys.stderr.write(format_warning(message, category))
        try:
            launch(run, argv=[f"experiments.{name}", *flags])
        except SystemExit as end:
            status = end.code or 0
    return subprocess.CompletedProcess([name, *flags], status, said.getvalue(), told.getvalue())


def make_inputs(directory: pathlib.Path) -> pathlib.Path:
    """A model directory, and a sentence file of 12 concepts."""
    case = next(case for case in families.CASES if case.name == "gpt_neox")
    families.save(families.make_hf_model(case), directory / "model")
    rng = np.random.default_rng(0)
    syllables = np.array([consonant + vowel for consonant in "bdfklmnp" for vowel in "aeiou"])
    rows = [
        {"concept": word, "sentence": f"{word} {' '.join(rest)}"}
        for word in syllables[:12]
        for rest in rng.choice(syllables[12:], (8, 7))
    ]
    pd.DataFrame(rows).to_csv(directory / "syllables.tsv", sep="\t", index=False)
    return directory


def start(inputs, workdir, *flags, devices: int = 1) -> subprocess.Popen:
    """Launches one process of a run; its output goes into one pipe."""
    settings = [
        f"--config.model={inputs / 'model'}",
        f"--config.sentences={inputs / 'syllables.tsv'}",
        "--config.permutations=5",
        "--config.tokens_per_batch=256",
        f"--workdir={workdir}",
    ]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        # What one launch has compiled serves the next.
        "JAX_COMPILATION_CACHE_DIR": str(inputs / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-c", WITHOUT_TORCH, "--config=configs/find_experts.py", *settings, *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen, code: int = 0) -> str:
    """Waits for a process, and gives what it said."""
    said, _ = process.communicate(timeout=300)
    assert process.returncode == code, said
    return said


def start_hosts(inputs, workdir, num_hosts: int, *flags) -> list[subprocess.Popen]:
    """Launches a run of several processes on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = ["--multihost", f"--coordinator=127.0.0.1:{port}", f"--num_hosts={num_hosts}"]
    return [start(inputs, workdir, *shared, f"--host={host}", *flags) for host in range(num_hosts)]


def contents(workdir: pathlib.Path) -> dict[str, bytes]:
    """Every file of a run's table."""
    store = workdir / "expertise.zarr"
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


def wait_for(file: pathlib.Path, processes: list[subprocess.Popen]) -> None:
    """Until a file is there."""
    deadline = time.monotonic() + 120
    while not file.exists() and time.monotonic() < deadline:
        assert all(process.poll() is None for process in processes), [each.communicate()[0] for each in processes]
        time.sleep(0.01)
