"""Test modules stand in rooms like the package's; each room's own reference code is importable by name."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "models"))
