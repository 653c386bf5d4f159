"""GPT-2 in its four sizes.

python -m experiments.reproduce --config=configs/gpt2.py:small --workdir=runs/gpt2
"""

import ml_collections
from expertlens_jax.configs.demo import get_config as get_demo

VARIANTS = {"small": "gpt2", "medium": "gpt2-medium", "large": "gpt2-large", "xl": "gpt2-xl"}


def get_config(size: str = "small") -> ml_collections.ConfigDict:
    """Return every setting; `size` is one of VARIANTS."""
    if size not in VARIANTS:
        raise ValueError(f"Unknown suite configs/gpt2.py:{size}. Choose from: {', '.join(VARIANTS)}.")
    c = get_demo()
    c.model = f"openai-community/{VARIANTS[size]}"
    c.ratings = ("men", "simlex999", "wordsim353")
    c.stability.models = tuple(f"openai-community/{VARIANTS[each]}" for each in ("small", "medium"))
    c.scale.models = tuple(f"openai-community/{name}" for name in VARIANTS.values())
    c.experiments = tuple(name for name in c.experiments if name != "training")  # its checkpoints were never given out
    return c
