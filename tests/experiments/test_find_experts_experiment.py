"""The launcher from outside: devices, hosts, hosts that die, SIGKILL at random moments; always the same bytes."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import families
import numpy as np
import pandas as pd
import pytest

import expertlens_jax as el

ROOT = pathlib.Path(__file__).parents[2]
KILLS = 20
WITHOUT_TORCH = (
    "import importlib.util as util, runpy; found = util.find_spec; "
    "util.find_spec = lambda name, *package: None if name == 'torch' else found(name, *package); "
    "runpy.run_module('experiments.find_experts', run_name='__main__', alter_sys=True)"
)
"""`python -m experiments.find_experts` where torch isn't installed, which is also where it starts fastest."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A model directory, and a sentence file of 12 concepts."""
    directory = tmp_path_factory.mktemp("inputs")
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


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """A run that nothing disturbed, in three passes."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    started = time.monotonic()
    said = finish(start(inputs, workdir, "--config.passes=3"))
    return workdir, said, time.monotonic() - started


def test_a_run_tells_its_plan_and_leaves_a_table(whole):
    workdir, said, _ = whole
    assert "96 sentences x 876 units x 12 concepts on 1 device: 3 passes over the sentences" in said
    experts = pd.read_csv(workdir / "experts.csv")
    expertise = el.open_expertise(workdir)
    for row in experts.sample(20, random_state=0).itertuples():
        own = expertise.sel(concept=row.concept)
        chosen = own["average_precision"].values >= np.float32(row.threshold)
        assert row.experts == chosen.sum()
        assert row.significant == (chosen & (own["q_value"].values <= 0.05)).sum()
        first, second = own["average_precision_halves"].values
        scores = [*second[first >= np.float32(row.threshold)], *first[second >= np.float32(row.threshold)]]
        np.testing.assert_allclose(row.held_out, np.mean(scores) if scores else np.nan, rtol=1e-5)
    assert (workdir / "figures" / "significance.png").stat().st_size > 10_000


@pytest.mark.parametrize("devices", [2, 8])
def test_devices_change_no_byte(inputs, whole, tmp_path, devices):
    said = finish(start(inputs, tmp_path / "run", devices=devices))
    assert f"on {devices} devices: 1 pass over" in said
    assert contents(tmp_path / "run") == contents(whole[0])


@pytest.mark.parametrize("num_hosts", [2, 4])
def test_hosts_change_no_byte(inputs, whole, tmp_path, num_hosts):
    said = [finish(process) for process in start_hosts(inputs, tmp_path / "run", num_hosts)]
    assert f"on {num_hosts} devices" in said[0] and f"of each of {num_hosts} hosts" in said[0]
    assert all("The table is in" not in each for each in said[1:])
    assert contents(tmp_path / "run") == contents(whole[0])


def test_a_model_split_over_hosts_gives_the_same_up_to_rounding(inputs, whole, tmp_path):
    for process in start_hosts(inputs, tmp_path / "run", 2, "--config.model_devices=2"):
        finish(process)
    split, want = el.open_expertise(tmp_path / "run"), el.open_expertise(whole[0])
    medians = split["positive_median"].values, want["positive_median"].values
    np.testing.assert_allclose(*medians, atol=1e-5)
    # A response may change places with its neighbour, so AP itself may differ for a unit here and there.
    assert np.quantile(np.abs(split["average_precision"].values - want["average_precision"].values), 0.99) < 1e-6


@pytest.mark.parametrize("victim", [0, 1])
def test_a_host_that_dies_stops_the_others_and_the_run_goes_on(inputs, whole, tmp_path, victim):
    hosts = start_hosts(inputs, tmp_path / "run", 2, "--config.passes=3")
    wait_for(tmp_path / "run" / "progress.json", hosts)
    hosts[victim].kill()
    killed_at = time.monotonic()
    said, _ = hosts[1 - victim].communicate(timeout=60)
    assert time.monotonic() - killed_at < 60
    if hosts[1 - victim].returncode:  # unless it was done before it noticed
        assert f"Error: host {1 - victim} of 2" in said and "and the run goes on where it was" in " ".join(said.split())
    hosts[victim].communicate()
    finish(start(inputs, tmp_path / "run"))  # on one host
    assert contents(tmp_path / "run") == contents(whole[0])


def wait_for(file: pathlib.Path, processes: list[subprocess.Popen]) -> None:
    """Until a file is there."""
    deadline = time.monotonic() + 120
    while not file.exists() and time.monotonic() < deadline:
        assert all(process.poll() is None for process in processes), [each.communicate()[0] for each in processes]
        time.sleep(0.01)


def test_killed_at_random_moments_it_ends_with_the_same_bytes(inputs, whole, tmp_path):
    want, _, seconds = whole
    rng = np.random.default_rng(0)
    stages, runs, kills = set(), 0, 0
    while kills < KILLS or runs == 0:
        workdir = tmp_path / f"run{runs}"
        process = start(inputs, workdir, "--config.passes=3")
        try:
            process.wait(timeout=rng.uniform(0, seconds) if kills < KILLS else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        said, _ = process.communicate()
        if process.returncode == -signal.SIGKILL:
            progress = workdir / "progress.json"
            stages.add(progress.read_text() if progress.exists() else "")
        else:  # it was done; the next launch starts another run
            assert process.returncode == 0, said
            assert contents(workdir) == contents(want)
            runs += 1
    assert len(stages) > 1  # it was killed in more than one state


def test_a_second_launch_on_a_directory_is_refused(inputs, tmp_path):
    first = start(inputs, tmp_path / "run")
    wait_for(tmp_path / "run" / ".lock", [first])
    os.kill(first.pid, signal.SIGSTOP)
    try:
        said = finish(start(inputs, tmp_path / "run"), code=1)
        assert "Error: another process is writing to" in " ".join(said.split())
    finally:
        os.kill(first.pid, signal.SIGCONT)
    finish(first)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--multihost", "--num_hosts=2"], "give all three, or none where jax finds the hosts by itself"),
        (
            ["--multihost", "--coordinator=127.0.0.1:1", "--num_hosts=2", "--host=2"],
            "with num_hosts=2 it goes from 0 to 1",
        ),
        (["--config.host_gigabytes=1e-6", "--config.disk_gigabytes=0"], "one layer's responses take"),
        (["--config.sites=('attn.z',)"], "sites attn.z were asked for; this model has"),
    ],
)
def test_mistakes_are_told_in_a_paragraph(inputs, tmp_path, flags, message):
    said = finish(start(inputs, tmp_path / "run", *flags), code=1)
    assert message in " ".join(said.split()) and "Traceback" not in said
