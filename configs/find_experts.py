"""Experts of one model in one set of sentences.

    python -m experiments.find_experts --config=configs/find_experts.py --workdir=runs/experts \
        --config.model=EleutherAI/pythia-1b
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Every setting."""
    c = ml_collections.ConfigDict()

    # What is looked into: a Hugging Face directory, a hub id, or package:NAME/FOLDER
    c.model = "EleutherAI/pythia-70m-deduped"
    c.revision = ""  # of a hub id
    c.model_sha256 = ""  # of model.safetensors, to be sure which it is
    c.dtype = "float32"
    c.model_devices = 1  # over how many devices each parameter is split
    c.sites = ()  # empty: the outputs of all linear layers
    c.pooling = "max"
    c.pool_over = "all"  # a sentence's tokens, those of its own "concept"'s word, or the "others"
    c.truncate = False  # cut sentences longer than the model's context, rather than refuse them

    # With what: a packaged name or a file, and a file of sentences that are the only negatives
    c.sentences = "facts"
    c.negatives = ""

    # Expertise
    c.negatives_per_positive = 2.5
    c.exclude_mentions = True
    c.sampled = False
    c.seed = 0
    c.halves = True  # average precision in each half of the sentences too
    c.permutations = 100  # sets of permuted labels, for p- and q-values; 0 for none
    c.thresholds = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

    # Memory for responses, in GB; -1 leaves it to the machine, 0 leaves a place out
    c.device_gigabytes = -1.0
    c.host_gigabytes = -1.0
    c.disk_gigabytes = -1.0
    c.passes = 0  # over the sentences; 0 makes as few as fit
    c.tokens_per_batch = 4096  # on each device
    return c
