"""Test modules stand in rooms like the package's; reference code beside them is importable by name."""

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "models")]
