"""Pythia, with the checkpoints of its training: the suite that ExpertLens was developed on.

    python -m experiments.reproduce --config=configs/pythia.py:70m --workdir=runs/pythia-70m
    python -m experiments.training --config=configs/pythia.py:1b --workdir=runs/pythia-1b-training

Sizes are 70m, 160m, 410m, 1b, 1.4b, 2.8b, 6.9b and 12b; the literature has 70m, 1b and 12b. Weights of training steps
come as `pytorch_model.bin`, which wants torch installed: pip install -e '.[bin]'.
"""

import ml_collections
from expertlens_jax.configs.demo import get_config as get_demo

VARIANTS = ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
STEPS = (1, 512, 1000, 4000, 36000, 72000, 143000)


def get_config(size: str = "70m") -> ml_collections.ConfigDict:
    """Return every setting; `size` is one of VARIANTS."""
    if size not in VARIANTS:
        raise ValueError(f"Unknown suite configs/pythia.py:{size}. Choose from: {', '.join(VARIANTS)}.")
    c = get_demo()
    c.model = f"EleutherAI/pythia-{size}"
    c.dtype = "float32" if size in VARIANTS[:3] else "bfloat16"
    c.ratings = ("men", "simlex999", "wordsim353")
    c.thresholds = (0.5, 0.6, 0.7, 0.8, 0.9)
    c.stability.models = (c.model, "EleutherAI/pythia-160m" if size != "160m" else "EleutherAI/pythia-70m")
    c.training.checkpoints = tuple(f"{c.model}@step{step}" for step in STEPS)
    c.scale.models = tuple(f"EleutherAI/pythia-{each}" for each in ("70m", "1b", "12b"))
    return c
