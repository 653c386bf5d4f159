"""The script for a machine with an accelerator: its table comes out whatever its steps do."""

import json
import pathlib
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(BENCHMARKS := pathlib.Path(__file__).parents[2] / "benchmarks"))

import on_device


def fails(so_far):
    raise ValueError("no such kernel\nand more")


def hangs(so_far):
    time.sleep(60)


def test_the_table_comes_out_though_steps_fail_hang_or_lack_what_others_gave():
    steps = [
        ("first", 10, lambda so_far: ("7 of them", "5", True, {"sevens": 7.0})),
        ("failing", 10, fails),
        ("hanging", 0.2, hangs),
        ("using", 10, lambda so_far: (f"{so_far['sevens']:.0f}", "8", so_far["sevens"] > 8, {})),
        ("lacking", 10, lambda so_far: ("", "", None, {"x": so_far["peak"]})),
    ]
    start = time.perf_counter()
    done = on_device.run_steps(steps, total=30)
    assert time.perf_counter() - start < 20
    assert [step.name for step in done] == ["first", "failing", "hanging", "using", "lacking"]
    table = on_device.format_table("Measured on a toy", done).splitlines()
    assert table[0] == "Measured on a toy"
    assert table[2].split() == ["first", "7", "of", "them", "5", "yes", "0.0"]
    assert "nothing: ValueError: no such kernel" in table[3] and "and more" not in table[3]
    assert "nothing: stopped after 0 s" in table[4]
    assert table[5].split()[:4] == ["using", "7", "8", "NO"]
    assert "nothing: needs peak, which no step before gave" in table[6]


def test_no_step_starts_when_the_time_is_up():
    done = on_device.run_steps([("late", 10, lambda so_far: ("", "", None, {}))], total=0)
    assert done[0].why_not == "no time was left"


def test_steps_take_less_than_eight_minutes_together():
    assert on_device.TOTAL_SECONDS < 480
    assert sum(most for _, most, _ in on_device.all_steps(on_device.FULL)) <= 460


def test_a_cpu_alone_is_refused_unless_small(capsys):
    assert on_device.main([]) == 1
    assert "only a CPU here; give --small" in capsys.readouterr().err


@pytest.mark.long
def test_small_sizes_run_on_a_cpu(tmp_path):
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "on_device.py", "--small", f"--json={file}"], capture_output=True, text=True
    )
    written = json.loads(file.read_text())
    assert not any(step["why_not"] for step in written["steps"]), done.stderr
    assert [step["name"] for step in written["steps"]][:4] == [
        "matrix product",
        "recording against the CPU",
        "ranking against scikit-learn",
        "ranking over a sort",
    ]
    by_name = {step["name"]: step for step in written["steps"]}
    assert by_name["recording against the CPU"]["met"] and by_name["ranking against scikit-learn"]["met"]
    assert "small sizes: figures mean nothing" in done.stdout
