"""Mixtures of experts: do a mixture's experts divide concepts among them?

    python -m experiments.mixture --config=configs/mixture.py:olmoe --workdir=runs/mixture-olmoe
    python -m experiments.reproduce --config=configs/mixture.py:granite --workdir=runs/mixture-granite

`reproduce` asks all that is asked of one model, and `experiments.mixture` among it.
"""

import ml_collections
from expertlens_jax.configs.demo import get_config as get_demo

VARIANTS = {
    "olmoe": "allenai/OLMoE-1B-7B-0924",
    "qwen": "Qwen/Qwen1.5-MoE-A2.7B",
    "granite": "ibm-granite/granite-3.1-1b-a400m-base",
    "mixtral": "mistralai/Mixtral-8x7B-v0.1",
}


def get_config(size: str = "olmoe") -> ml_collections.ConfigDict:
    """Return every setting; `size` is one of VARIANTS."""
    if size not in VARIANTS:
        raise ValueError(f"Unknown suite configs/mixture.py:{size}. Choose from: {', '.join(VARIANTS)}.")
    c = get_demo()
    c.model = VARIANTS[size]
    c.dtype = "bfloat16"
    c.ratings = ("men", "simlex999", "wordsim353")
    c.random_weights = (0,)
    c.stability.models = ()
    c.experiments = (*(name for name in c.experiments if name not in ("training", "scale")), "mixture")
    return c
