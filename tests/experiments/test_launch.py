"""What every launcher does first: it launches its own experiment, with flags of the command line or given to it."""

import pathlib
import runpy
import sys

import pytest
from absl import flags
from launched import launch_here

import experiments.launch
from expertlens_jax.errors import ExpertLensWarning

LAUNCHERS = sorted(
    path.stem for path in pathlib.Path(experiments.launch.__file__).parent.glob("*.py") if "launch(" in path.read_text()
)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", sorted(set(LAUNCHERS) - {"launch"}))
def test_each_launches_its_own_run(name, monkeypatch):
    launched = []
    monkeypatch.setattr(experiments.launch, "launch", lambda run, **options: launched.append((run, options)))
    runpy.run_module(f"experiments.{name}", run_name="__main__")
    ((run, options),) = launched
    assert run.__module__ == "__main__" and run.__name__ == "run"
    assert options == ({"several_hosts": True} if name == "find_experts" else {})


def test_launches_within_a_process_leave_no_flag_to_each_other(tmp_path, monkeypatch):
    """Nor read that process's own command line."""
    monkeypatch.setattr(sys, "argv", ["other", "--config.seed=5", "--workdir=elsewhere"])
    seen = []
    monkeypatch.setattr("experiments.negatives.run", lambda config, workdir: seen.append((config, str(workdir))))
    launch_here("negatives", "--config=configs/demo.py:small", f"--workdir={tmp_path}", "--config.seed=3")
    launch_here("negatives", "--config=configs/minilm.py:small", f"--workdir={tmp_path / 'other'}")
    assert [(config.seed, workdir) for config, workdir in seen] == [(3, str(tmp_path)), (0, str(tmp_path / "other"))]
    assert seen[0][0].model == "lenslet-2m" and "minilm" in seen[1][0].model
    assert launch_here("negatives", "--config=configs/demo.py:small").returncode == 1
    assert "config.seed" not in flags.FLAGS


def test_a_warning_is_a_note(tmp_path, monkeypatch):
    def run(config, workdir):
        import warnings

        warnings.warn("this is so.", ExpertLensWarning, stacklevel=2)

    monkeypatch.setattr("experiments.negatives.run", run)
    done = launch_here("negatives", "--config=configs/demo.py:small", f"--workdir={tmp_path}")
    assert done.returncode == 0 and done.stderr == "Note: this is so.\n"
