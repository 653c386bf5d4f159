"""One run over several hosts: the bytes of one, and what happens when a host dies."""

import time

import numpy as np
import pytest
from launched import contents, finish, make_inputs, start, start_hosts, wait_for

import expertlens_jax as el
from expertlens_jax.errors import ExpertLensError


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """A run of one process."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    finish(start(inputs, workdir))
    return workdir


@pytest.mark.parametrize("num_hosts", [2, 4])
def test_hosts_change_no_byte(inputs, whole, tmp_path, num_hosts):
    said = [finish(process) for process in start_hosts(inputs, tmp_path / "run", num_hosts)]
    assert f"on {num_hosts} devices" in said[0] and f"of each of {num_hosts} hosts" in said[0]
    assert all("The table is in" not in each for each in said[1:])
    assert contents(tmp_path / "run") == contents(whole)


@pytest.mark.long
def test_a_model_split_over_hosts_gives_the_same_up_to_rounding(inputs, tmp_path):
    unrounded = "--config.significant_bits=0"  # which would make of one in a million one in four thousand, now and then
    finish(start(inputs, tmp_path / "whole", unrounded))
    for process in start_hosts(inputs, tmp_path / "run", 2, "--config.model_devices=2", unrounded):
        finish(process)
    split, want = el.open_expertise(tmp_path / "run"), el.open_expertise(tmp_path / "whole")
    medians = split["positive_median"].values, want["positive_median"].values
    np.testing.assert_allclose(*medians, atol=1e-5)
    # A response may change places with its neighbour, so AP itself may differ for a unit here and there.
    assert np.quantile(np.abs(split["average_precision"].values - want["average_precision"].values), 0.99) < 1e-6


@pytest.mark.long
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
    assert contents(tmp_path / "run") == contents(whole)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(num_hosts=2), "coordinator=None, num_hosts=2, host=None were given; give all three, or none where"),
        (
            dict(coordinator="127.0.0.1:1", num_hosts=2, host=2),
            "host=2 was given; with num_hosts=2 it goes from 0 to 1",
        ),
    ],
)
def test_hosts_must_be_told_whole_and_right(given, message):
    with pytest.raises(ExpertLensError, match=message):
        el.connect_hosts(**given)
