"""Gemma 2B and its instruction-tuned sibling: does tuning move the experts?

    python -m experiments.reproduce --config=configs/gemma.py:2b --workdir=runs/gemma-2b
    python -m experiments.reproduce --config=configs/gemma.py:2b-it --workdir=runs/gemma-2b-it

Gemma's weights are given out on conditions: accept them on the model's page, and log in with `hf auth login`.
"""

import ml_collections
from expertlens_jax.configs.demo import get_config as get_demo

VARIANTS = ("2b", "2b-it")


def get_config(size: str = "2b") -> ml_collections.ConfigDict:
    """Return every setting; `size` is "2b" or "2b-it"."""
    if size not in VARIANTS:
        raise ValueError(f"Unknown suite configs/gemma.py:{size}. Choose from: {', '.join(VARIANTS)}.")
    c = get_demo()
    c.model = f"google/gemma-{size}"
    c.dtype = "bfloat16"
    c.ratings = ("men", "simlex999", "wordsim353")
    c.thresholds = (0.5, 0.6, 0.7, 0.8, 0.9)
    c.stability.models = tuple(f"google/gemma-{each}" for each in VARIANTS)
    c.experiments = tuple(name for name in c.experiments if name not in ("training", "scale"))  # one size, one step
    return c
