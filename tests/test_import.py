"""Importing the package is quick and quiet, and gives every public name."""

import importlib.metadata
import pathlib
import subprocess
import sys

import pytest

import expertlens_jax as el

HEAVY = {"jax", "flax", "transformers", "orbax", "scipy", "sklearn", "pandas", "xarray", "zarr", "matplotlib"}
WITHOUT_TORCH = (
    "import importlib.util as util; found = util.find_spec; "
    "util.find_spec = lambda name, *package: None if name.partition('.')[0] == 'torch' else found(name, *package); "
)


def run(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_the_import_alone_loads_nothing_heavy():
    loaded = run("import sys, expertlens_jax; print(*{name.partition('.')[0] for name in sys.modules})").stdout.split()
    assert "expertlens_jax" in loaded
    assert not HEAVY & set(loaded)


def test_every_public_name_is_there_and_listed():
    assert len(set(el.__all__)) == len(el.__all__) >= 42
    for name in el.__all__:
        assert getattr(el, name).__module__.startswith("expertlens_jax."), name
    assert set(el.__all__) <= set(dir(el))


def test_the_version_is_the_installed_one():
    assert el.__version__ == importlib.metadata.version("expertlens-jax")


def test_types_are_announced_to_type_checkers():
    assert (pathlib.Path(el.__file__).parent / "py.typed").exists()


@pytest.mark.long
def test_without_torch_loading_a_model_says_nothing_of_it():
    program = "import transformers; print(transformers.is_torch_available())"
    quiet = run(WITHOUT_TORCH + "import expertlens_jax as el; el.load_model; " + program)
    loud = run(WITHOUT_TORCH + program)  # so that the test would see what is said
    assert quiet.stdout.split() == loud.stdout.split() == ["False"]
    assert "PyTorch was not found" in loud.stderr
    assert "PyTorch was not found" not in quiet.stderr
