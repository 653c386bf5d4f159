"""Launches experiments for tests: any of them within this process, and `find_experts` as processes of its own.

Scripts too have processes of their own: those that want several devices.
"""

import contextlib
import functools
import importlib
import io
import multiprocessing
import multiprocessing.forkserver
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import unittest.mock
import warnings

import families
import forked
import numpy as np
import pandas as pd
from quick_compilation import device_flag, quick_environment

from experiments.launch import format_warning, launch

ROOT = pathlib.Path(__file__).parents[1]


class Launched:
    """A process of its own, as `subprocess.Popen` has it; what it and its children say comes through a pipe."""

    def __init__(self, process: multiprocessing.Process, pipe: pathlib.Path) -> None:
        self.process, self.said = process, b""
        os.mkfifo(pipe)
        self.pipe = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        process.start()

    def poll(self) -> int | None:
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()

    def wait(self, timeout: float | None = None) -> None:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(self.process.name, timeout)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Waits for the process, and until nobody writes to its pipe any more."""
        deadline = time.monotonic() + (timeout or 3600)
        while True:
            ended = self.process.exitcode is not None
            try:
                part = os.read(self.pipe, 1 << 16)
            except BlockingIOError:
                part = None
            self.said += part or b""
            if part == b"" and ended:
                return self.said.decode(), None
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.process.name, timeout)
            if not part:
                time.sleep(0.01)

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode


@functools.cache
def forks() -> multiprocessing.context.ForkServerContext:
    """Where processes are forked from: a process that has imported what they need and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    # Where Python 3.11 looks for what it imports before a fork, and what jax reads when it is imported.
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    with unittest.mock.patch.dict(os.environ, quick_environment(PYTHONPATH=path)):
        multiprocessing.forkserver.ensure_running()
    first = context.Process(target=time.monotonic)  # once it has run, all is imported
    first.start()
    first.join()
    return context


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


def start(inputs, workdir, *flags, devices: int = 1) -> Launched:
    """Launches one process of a run."""
    settings = [
        "--config=configs/find_experts.py",
        f"--config.model={inputs / 'model'}",
        f"--config.sentences={inputs / 'syllables.tsv'}",
        "--config.permutations=5",
        "--config.tokens_per_batch=256",
        f"--workdir={workdir}",
    ]
    environment = {"XLA_FLAGS": quick_environment(devices)["XLA_FLAGS"]}
    pipe = pathlib.Path(tempfile.mkdtemp(dir=inputs)) / "said"
    given = "experiments.find_experts", [*settings, *flags], str(ROOT), environment, str(pipe)
    return Launched(forks().Process(target=forked.run_module, args=given), pipe)


def run_script(script: str, *arguments: object, devices: int = 8, optimised: bool = False) -> str:
    """Runs a script in a process that has so many CPU devices, and gives what it said.

    There is no torch for transformers there. It compiles as within `quick_compilation`, or as users do.
    """
    environment = {"XLA_FLAGS": device_flag(devices) if optimised else quick_environment(devices)["XLA_FLAGS"]}
    with tempfile.TemporaryDirectory() as directory:
        pipe = pathlib.Path(directory) / "said"
        given = script, [str(argument) for argument in arguments], environment, optimised, str(pipe)
        return finish(Launched(forks().Process(target=forked.run_script, args=given), pipe))


def finish(process: Launched, code: int = 0) -> str:
    """Waits for a process, and gives what it said."""
    said, _ = process.communicate(timeout=300)
    assert process.returncode == code, said
    return said


def start_hosts(inputs, workdir, num_hosts: int, *flags) -> list[Launched]:
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


def wait_for(file: pathlib.Path, processes: list[Launched]) -> None:
    """Until a file is there."""
    deadline = time.monotonic() + 120
    while not file.exists() and time.monotonic() < deadline:
        assert all(process.poll() is None for process in processes), [each.communicate()[0] for each in processes]
        time.sleep(0.01)
