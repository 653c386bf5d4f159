"""In a checkout the launchers lie in the top-level `experiments/`; an installed package has them here instead."""

import pathlib

__path__.append(str(pathlib.Path(__file__).parents[2] / "experiments"))
