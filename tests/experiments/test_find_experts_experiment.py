"""The launcher from outside: its table and figures, SIGKILL at random moments, and mistakes; always the same bytes."""

import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
from launched import contents, finish, make_inputs, start

import expertlens_jax as el
from expertlens_jax.run_directory import only_writer

KILLS = 20


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """A run that nothing disturbed, in three passes."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    said = finish(start(inputs, workdir, "--config.passes=3"))
    return workdir, said


def test_a_run_tells_its_plan_and_leaves_a_table(whole):
    workdir, said = whole
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


@pytest.mark.long
def test_killed_at_random_moments_it_ends_with_the_same_bytes(inputs, whole, tmp_path):
    want, _ = whole
    started = time.monotonic()
    finish(start(inputs, tmp_path / "timed", "--config.passes=3"))  # now that its programs are compiled
    seconds = time.monotonic() - started
    assert contents(tmp_path / "timed") == contents(want)
    rng = np.random.default_rng(0)
    stages, runs, kills = set(), 0, 0
    while kills < KILLS or runs == 0:
        workdir = tmp_path / f"run{runs}"
        process = start(inputs, workdir, "--config.passes=3")
        try:
            process.wait(timeout=rng.uniform(0, seconds) if kills < KILLS else None)
        except subprocess.TimeoutExpired:
            process.kill()  # SIGKILL
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
    with only_writer(tmp_path / "run"):  # as the first launch has it
        said = finish(start(inputs, tmp_path / "run"), code=1)
    assert "Error: another process is writing to" in " ".join(said.split()) and "Traceback" not in said
