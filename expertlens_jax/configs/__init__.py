"""In a checkout the suites lie in the top-level `configs/`; an installed package has them here instead."""

import pathlib

__path__.append(str(pathlib.Path(__file__).parents[2] / "configs"))
