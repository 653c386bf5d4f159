"""What the compilers for accelerators say of the package: run by `make accelerators`, which installs them."""

import json
import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.accelerators


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The small set, by target and program."""
    file = tmp_path_factory.mktemp("compiled") / "rows.json"
    subprocess.run([sys.executable, BENCHMARKS / "compile_for.py", "--small", f"--json={file}"], check=True)
    return {(row["target"], row["program"]): row for row in json.loads(file.read_text())["rows"]}


def test_every_program_compiles_and_fits(rows):
    assert len(rows) >= 6
    assert {target for target, _ in rows} == {"v5e:2x2", "h100"}
    for row in rows.values():
        assert row["fits"], row["why_not"]
        assert 0 < row["device_bytes"] <= row["device_memory"]


@pytest.mark.parametrize("program", ["recording Pythia-1b", "ranking"])
def test_no_loop_on_a_gpu_whose_turns_the_host_must_ask_for(rows, program):
    row = rows["h100", program]
    assert row["loops"] >= 1  # over layers or blocks
    assert row["unknown_loops"] == 0
    assert row["kernels"] > 0


@pytest.mark.parametrize("program", ["recording Pythia-1b", "recording Pythia-12b over 4"])
def test_recording_keeps_the_matrix_units_busy_by_the_estimate(rows, program):
    assert rows["v5e:2x2", program]["mfu"] >= 0.65


def test_a_layer_over_four_chips_gathers_once_and_scatters_twice(rows):
    # Of 36 layers; and to begin with the embeddings' sum, and to end with responses by rows.
    assert rows["v5e:2x2", "recording Pythia-12b over 4"]["collectives"] <= 3 * 36 + 8


def test_the_exchange_is_one_collective(rows):
    row = rows["v5e:2x2", "exchange of sentences for units"]
    assert row["collectives"] == 1
    assert row["collective_bytes"] > 0
