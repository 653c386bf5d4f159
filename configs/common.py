"""The settings that configs share: each stands here once, so that no suite lacks one.

`model_settings` are read by `experiments.sources`, and go to `el.load_model`; `measuring_settings` by
`experiments.expertise`, and go to `el.find_experts`. No launcher takes this file for its own.
"""

import ml_collections


def model_settings(model: str) -> ml_collections.ConfigDict:
    """Return what says which model is looked into, and how it is loaded."""
    c = ml_collections.ConfigDict()
    c.model = model  # a packaged model, a Hugging Face directory, a hub id, or package:NAME/FOLDER
    c.revision = ""  # of a hub id or a packaged model
    c.model_sha256 = ""  # of model.safetensors, to be sure which it is
    c.dtype = "float32"
    c.model_devices = 1  # over how many devices each parameter is split
    return c


def measuring_settings(model: str) -> ml_collections.ConfigDict:
    """Return `model_settings`, and how experts are found: responses, negatives, memory."""
    c = model_settings(model)

    # Responses
    c.sites = ()  # of units; () for the outputs of all linear layers
    c.pooling = "max"
    c.truncate = False  # cut sentences longer than the model's context, rather than refuse them
    # Each response is rounded to so many significant bits; 0: as computed, which is what el.find_experts does untold.
    # Where a causal model's sentences begin alike, many responses are equal but for rounding, and average precision
    # would order them by the size of batches or the kind of processor. At 12 bits they tie.
    c.significant_bits = 12
    c.chat = ""  # whose turn sentences are, in the model's chat template: "user" or "assistant"; "" for plain text
    c.chat_system = ""  # the system prompt
    c.chat_asked = ""  # what the user said before an assistant's turn
    c.tokens_per_batch = 0  # about how many tokens each device takes at a time; 0: what suits its kind

    # Expertise
    c.negatives_per_positive = 2.5
    c.exclude_mentions = True
    c.sampled = False
    c.seed = 0  # of all that is drawn

    # Memory for responses, in GB; -1 leaves it to the machine, 0 leaves a place out
    c.device_gigabytes = -1.0
    c.host_gigabytes = -1.0
    c.disk_gigabytes = -1.0
    c.passes = 0  # over the sentences; 0 makes as few as fit
    return c


def ask_novels(config: ml_collections.ConfigDict) -> None:
    """Turn a suite to the packaged set `novels`: 961 rated words, and SimLex-999 by part of speech; alignment only."""
    config.sentences = ("novels",)
    config.ratings = ("simlex999", "simlex999_nouns", "simlex999_verbs", "simlex999_adjectives", "wordsim353")
    config.thresholds = (0.5,)
    config.measures = ("jaccard", "weighted_jaccard", "cosine_centred")
    config.kept_gigabytes = 0.0
    config.base_rates.negatives_per_positive = ()
    config.random_weights = (0,)
    config.embedding_experts, config.masked, config.own_tokens = False, "", False
