"""Llama 3.2, 1B and 3B, and their instruction-tuned siblings.

    python -m experiments.reproduce --config=configs/llama.py:1b --workdir=runs/llama-1b

Llama's weights are given out on conditions: accept them on the model's page, and log in with `hf auth login`.
"""

import ml_collections
from expertlens_jax.configs.demo import get_config as get_demo

VARIANTS = {
    "1b": "Llama-3.2-1B",
    "1b-it": "Llama-3.2-1B-Instruct",
    "3b": "Llama-3.2-3B",
    "3b-it": "Llama-3.2-3B-Instruct",
}


def get_config(size: str = "1b") -> ml_collections.ConfigDict:
    """Return every setting; `size` is one of VARIANTS."""
    if size not in VARIANTS:
        raise ValueError(f"Unknown suite configs/llama.py:{size}. Choose from: {', '.join(VARIANTS)}.")
    c = get_demo()
    c.model = f"meta-llama/{VARIANTS[size]}"
    c.dtype = "bfloat16"
    c.ratings = ("men", "simlex999", "wordsim353")
    c.stability.models = tuple(f"meta-llama/{VARIANTS[each]}" for each in ("1b", "1b-it"))
    c.scale.models = tuple(f"meta-llama/{VARIANTS[each]}" for each in ("1b", "3b"))
    c.experiments = tuple(name for name in c.experiments if name != "training")  # its checkpoints were never given out
    return c
