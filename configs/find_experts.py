"""Experts of one model in one set of sentences.

    python -m experiments.find_experts --config=configs/find_experts.py --workdir=runs/experts \
        --config.model=EleutherAI/pythia-1b
"""

import ml_collections
from expertlens_jax.configs.common import measuring_settings


def get_config() -> ml_collections.ConfigDict:
    """Return every setting."""
    c = measuring_settings("EleutherAI/pythia-70m-deduped")
    c.pool_over = "all"  # a sentence's tokens, those of its own "concept"'s word, or the "others"

    # With what: a packaged name or a file, and a file of sentences that are the only negatives
    c.sentences = "facts"
    c.negatives = ""

    # What is measured beside average precision, and told
    c.halves = True  # average precision in each half of the sentences too
    c.permutations = 100  # sets of permuted labels, for p- and q-values; 0 for none
    c.thresholds = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    return c
