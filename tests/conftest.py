"""Test modules stand in rooms like the package's; reference code beside them is importable by name."""

import pathlib
import sys

import torch

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "models")]

# The reference models are tiny: a second thread only waits, and takes the core of another worker.
torch.set_num_threads(1)
