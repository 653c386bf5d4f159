"""What every experiment asks, of one model: the suite of Lenslet, which ships with the package.

    python -m experiments.NAME --config=configs/experiments.py --workdir=runs/NAME
    python -m experiments.NAME --config=configs/experiments.py:small --workdir=runs/small_NAME

NAME is alignment, stability, training, scale, localisation, organisation, polysemanticity, negatives or steering.
Settings that all of them read come first, then a section an experiment. `small` takes fewer concepts, to check the
whole path in less time. Another model's suite imports `get_config` and changes what differs.
"""

import ml_collections

SMALL_CONCEPTS = (
    *("animal", "cat", "dog", "horse", "rabbit", "lion"),
    *("food", "bread", "cheese", "soup", "salad", "potato"),
    *("vehicle", "car", "truck", "train", "bicycle", "ship"),
)


def get_config(size: str = "full") -> ml_collections.ConfigDict:
    """Every setting; `size` is "full" or "small"."""
    if size not in ("full", "small"):
        raise ValueError(f"configs/experiments.py:{size} was asked for; there are full and small.")
    c = ml_collections.ConfigDict()

    # What is looked into: a packaged model, a Hugging Face directory, a hub id, or package:NAME/FOLDER
    c.model = "lenslet-2m"
    c.revision = ""
    c.model_sha256 = ""
    c.dtype = "float32"
    c.pooling = "max"
    c.truncate = False  # cut sentences longer than the model's context, rather than refuse them

    # With what: packaged names or files; of the packaged concepts only these, () for all
    c.sentences = ("facts", "stories")
    c.concepts = ()
    c.ratings = ("wordsim353", "simlex999")
    c.expertise = ""  # where tables of expertise lie, to share them between runs; "" is the run directory

    # Expertise
    c.negatives_per_positive = 2.5
    c.exclude_mentions = True
    c.sampled = False

    # Overlap
    c.thresholds = (0.4, 0.5, 0.6, 0.7, 0.8)
    c.measures = ("jaccard", "weighted_jaccard", "cosine", "cosine_centred", "kl", "kl_centred")
    c.drawn_threshold = 0.5
    c.random_weights = (0,)
    c.random_weights_measures = ("jaccard", "cosine_centred")

    # Statistics
    c.resamples = 2000
    c.permutations = 10_000
    c.seed = 0

    c.stability = ml_collections.ConfigDict()
    c.training = ml_collections.ConfigDict()
    c.scale = ml_collections.ConfigDict()
    c.localisation = ml_collections.ConfigDict()
    c.organisation = ml_collections.ConfigDict()
    c.polysemanticity = ml_collections.ConfigDict()
    c.negatives = ml_collections.ConfigDict()
    c.steering = ml_collections.ConfigDict()

    if size == "small":
        c.concepts = SMALL_CONCEPTS
        c.thresholds = (0.4, 0.5, 0.6)
        c.measures = ("jaccard", "cosine_centred")
        c.resamples = 200
        c.permutations = 500
    return c
