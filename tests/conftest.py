"""Test modules stand in rooms like the package's; reference code beside them is importable by name."""

import pathlib
import sys

import pytest
import torch

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "models")]

# The reference models are tiny: a second thread only waits, and takes the core of another worker.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps a file's tests on one worker, whose fixtures they share, unless they name a group of their own."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
