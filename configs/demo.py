"""What every experiment asks, of one model: the suite of Lenslet, which ships with the package.

    python -m experiments.NAME --config=configs/demo.py --workdir=runs/NAME
    python -m experiments.NAME --config=configs/demo.py:small --workdir=runs/small_NAME
    python -m experiments.alignment --config=configs/demo.py:novels --workdir=runs/novels

NAME is alignment, stability, training, scale, localisation, organisation, polysemanticity, negatives, senses,
detection, sparse_features, necessity or steering (and mixture, of a mixture of experts: configs/mixture.py).
Settings that all of them read come first, then a section an experiment. `small` takes fewer concepts, to check the
whole path in less time; `novels` is for alignment: the words that people rated, and the ratings by part of speech.
Another model's suite imports `get_config` and changes what differs.
"""

import ml_collections
from expertlens_jax.configs.common import ask_novels, measuring_settings

STEPS = tuple(f"lenslet-2m@step{step}" for step in (0, 16, 64, 256, 1024, 4096))
# Of the packaged concepts, two dozen in four domains that people rated most pairs of: WordSim-353 has 14, SimLex-999
# 11; a correlation wants 10.
SMALL_CONCEPTS = (
    *("animal", "cat", "dog", "tiger", "jaguar"),
    *("vehicle", "car", "automobile", "train", "plane"),
    *("landscape", "forest", "woodland", "coast", "shore"),
    *("family", "father", "brother", "son", "child", "boy", "lad", "woman", "man"),
)
VARIANTS = ("full", "small", "novels")


def get_config(size: str = "full") -> ml_collections.ConfigDict:
    """Return every setting; `size` is one of `VARIANTS`."""
    if size not in VARIANTS:
        raise ValueError(f"Unknown suite configs/demo.py:{size}. Choose from: {', '.join(VARIANTS)}.")
    c = measuring_settings("lenslet-5m")

    # With what: packaged names or files; of the packaged concepts only these, () for all
    c.sentences = ("facts", "stories")
    c.concepts = ()
    c.ratings = ("wordsim353", "simlex999")
    c.expertise = ""  # where tables of expertise lie, to share them between runs; "" is the run directory
    c.kept_gigabytes = 4.0  # of responses, kept beside the tables for more tables of the same sentences; 0: none
    c.transport = True  # also slopes of the linear transport, half of ranking: only steering by linear_ot reads them

    # What experiments.reproduce runs
    c.experiments = (
        *("alignment", "stability", "training", "scale", "localisation", "organisation", "polysemanticity"),
        *("negatives", "senses", "detection", "sparse_features", "necessity", "steering"),
    )

    # Overlap
    c.thresholds = (0.4, 0.5, 0.6, 0.7, 0.8)
    c.measures = (
        *("jaccard", "weighted_jaccard", "overlap_coefficient"),
        *("cosine", "cosine_centred", "kl", "kl_centred", "js"),
    )
    c.drawn_threshold = 0.5

    # Baselines of alignment beside the model's own embeddings: files of word vectors, other models' embeddings
    c.every_layer = True  # the mean sentence embedding at each layer, and not at the last only
    c.word_vectors = ()
    c.vector_corpora = ()  # text files, a paragraph a line, plain or .xz, to train word vectors on; () for none
    c.word2vec = dict(dimensions=200, window=5, negative=5, epochs=3, minimum_count=5)
    c.sentence_models = ()
    # Sparse autoencoders of the model: PATH, PATH@LAYER, or PATH@layer=8,centred=True with what el.load_sae is told.
    c.saes = ()

    # Other base rates to measure the same at: negatives per positive (() for none), and thresholds beside those above
    c.base_rates = ml_collections.ConfigDict()
    c.base_rates.negatives_per_positive = (1, 5, 10, 25)
    c.base_rates.thresholds = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

    # Controls: seeds of networks with random weights; experts among the channels of the input embedding; and sentences
    # with the concept's word masked, by the tokenizer's mask or, where it has none, by this word ("" for no masking);
    # and responses pooled over the tokens of the concept's own word alone, and over all the others
    c.random_weights = (0, 1)
    c.embedding_experts = True
    c.masked = "something"
    c.own_tokens = True
    c.control_measures = ("jaccard",)

    # Statistics
    c.resamples = 2000
    c.permutations = 10_000

    c.detection = ml_collections.ConfigDict()
    c.detection.concepts = 32  # drawn domain by domain; 0 for all
    c.detection.detectors = ()  # names in el.DETECTORS; () for all that the model can be read for
    c.detection.positives = ()  # to learn from; () for 5, 10, 20 and 40, as far as all concepts have so many
    c.detection.training_negatives = 400  # of a concept
    c.detection.negatives_per_positive = (1, 10, 100)  # base rates to measure at
    c.detection.label_noise = (0.1, 0.25)  # shares of wrong labels, beside none
    c.detection.masked = True  # also try on sentences with the word masked, by `masked`
    c.detection.embedder = ""  # NAME of a model whose sentence embeddings are probed; "" for the model itself
    c.stability = ml_collections.ConfigDict()
    c.stability.counts = (5, 10, 20)  # sentences a concept, drawn from those there are
    c.stability.seeds = (0, 1, 2)  # of sampled negatives
    c.stability.models = ("lenslet-2m", "lenslet-2m-seed1", "lenslet-5m")  # NAME or NAME@REVISION; () to leave out
    c.stability.grid_positives = (5, 10, 20)  # of a concept of the first sentence set, crossed with; () to leave out
    c.stability.grid_negatives = (100, 400, 1600)  # sentences that all concepts share
    c.training = ml_collections.ConfigDict()
    c.training.checkpoints = STEPS  # NAME@REVISION, @REVISION of `model`, or directories; () all of a packaged model
    c.scale = ml_collections.ConfigDict()
    c.scale.models = ("lenslet-2m", "lenslet-2m-seed1", "lenslet-5m")  # seeds of one size, and sizes
    c.localisation = ml_collections.ConfigDict()
    c.localisation.controls = True  # also where the experts of the `random_weights` are
    c.organisation = ml_collections.ConfigDict()
    c.organisation.neighbours = 5  # that say where a concept sits, and that its map should keep
    c.organisation.maps = ("mds", "tsne")
    c.organisation.graph_domains = 10  # the first so many, in the graph of concepts
    c.organisation.graph_members = 4  # concepts of each: the first so many beside the domain's own word
    c.organisation.graph_edges = 3  # from each concept to those that it overlaps with most
    c.polysemanticity = ml_collections.ConfigDict()
    c.polysemanticity.draws = 200  # of random expert sets
    c.polysemanticity.minimum = 5  # experts shared, and not shared, by a pair that is compared
    c.polysemanticity.pairs = 2000  # compared, at most, of either kind
    c.polysemanticity.matches = ("concept", "others", "both")  # in what non-experts are as active
    c.negatives = ml_collections.ConfigDict()
    c.negatives.ratios = (1, 2.5, 5, 10, 25)  # negatives per positive, instead of negatives_per_positive
    c.negatives.top = (20, 100)  # experts per concept, where their number is to stay the same
    c.senses = ml_collections.ConfigDict()
    c.senses.sentences = ("senses",)  # with words in two senses, instead of `sentences`
    c.senses.tokens = True  # also experts at the word's own tokens, and at all others
    # Sparse autoencoders of `layers`, trained here, with random twins; or the model's own, as in `saes` above
    c.sparse_features = ml_collections.ConfigDict()
    c.sparse_features.layers = ()  # () for the middle one
    c.sparse_features.site = "resid"
    c.sparse_features.saes = ()
    c.sparse_features.texts = ()  # text files to train on, a paragraph a line, plain or .xz; () the sentences
    c.sparse_features.kind = "topk"  # or "jumprelu", "relu"; these and the next as in el.training.SAESettings
    c.sparse_features.features = 1024
    c.sparse_features.k = 0  # features of a token that "topk" keeps; 0 for 32
    c.sparse_features.penalty = 0.0  # of "jumprelu" and "relu"; 0 for the usual one
    c.sparse_features.steps = 300
    c.sparse_features.batch = 1024
    c.sparse_features.rate = 2e-3
    c.sparse_features.twins = ("frozen decoder", "frozen encoder", "random weights")
    c.sparse_features.draws = 20  # random subsets of units, as many as the live features
    c.sparse_features.top = 20  # experts per concept, where all have the same number
    # Steering: experts from the first sentence set, held-out text from the last
    c.steering = ml_collections.ConfigDict()
    c.steering.concepts = ("cat", "bread", "car", "rain", "piano", "mother", "ship", "church")
    c.steering.method = "set_median"
    c.steering.counts = (5, 20, 50, 200)  # of steered units
    c.steering.strengths = (0.25, 0.5, 0.75, 1.0)  # of the steering of `drawn_count` units
    c.steering.drawn_count = 50
    c.steering.controls = ("random", "matched", "another_concept")
    c.steering.methods = ("set_median", "set_p90", "mean_shift", "linear_ot")  # compared at all strengths
    c.steering.domains = ("animal", "food", "vehicle")  # steered with what their members share
    c.steering.away = (("cat", "dog"), ("bread", "cheese"), ("car", "truck"))  # remove the first, spare the second
    c.steering.away_methods = ("zero", "aura")
    c.steering.prompts = (
        *("They talked about the", "There was a", "She dreamt of a", "He pointed at the", "We looked for the"),
        *("The book was about a", "I have always liked the", "In the end it was the", "Nobody had seen the"),
        "It was the first time that he saw a",
    )
    c.steering.num_seeds = 8
    c.steering.max_new_tokens = 24
    c.steering.temperature = 1.0
    c.steering.held_out = 64  # texts
    # Necessity: units chosen on the first sentence set, silenced in the last, or in either half of a single one
    c.necessity = ml_collections.ConfigDict()
    c.necessity.concepts = 16  # drawn domain by domain; 0 for all
    c.necessity.sizes = (1, 10, 50, 200, 1000)  # of the highest units, silenced together
    c.necessity.drawn_size = 50  # the one that verdicts are about
    c.necessity.ablations = ("zero", "median")  # what silenced units say; verdicts are about the first
    c.necessity.sentences = 24  # of each concept, and as many of others
    c.necessity.prompts = c.steering.prompts  # after which the same units are made to speak; () to leave that out
    c.necessity.learned = 6  # concepts whose steering is learned, to see which units it changes; 0 for none
    c.necessity.learned_price = 10.0  # of a unit: the more, the fewer are changed
    c.necessity.learned_steps = 40

    if size == "small":
        c.model = "lenslet-2m"
        c.concepts = SMALL_CONCEPTS
        c.thresholds = (0.4, 0.5, 0.6)
        c.measures = ("jaccard", "cosine_centred")
        c.detection.concepts = 12  # of fewer, no p after Holm's correction is below 0.05
        c.detection.positives = (10, 40)
        c.detection.label_noise = (0.25,)
        c.stability.counts = (20,)
        c.stability.seeds = (0, 1)
        c.stability.grid_positives = ()
        c.stability.models = ("lenslet-2m", "lenslet-2m-seed1")
        c.training.checkpoints = (STEPS[0], STEPS[3], STEPS[5])
        c.scale.models = ("lenslet-2m", "lenslet-5m")
        c.negatives.ratios = (1, 10)
        c.negatives.top = (20,)
        c.senses.tokens = False
        c.sparse_features.features, c.sparse_features.k = 128, 8
        c.sparse_features.steps, c.sparse_features.batch = 40, 256
        c.sparse_features.twins = ("frozen decoder",)
        c.sparse_features.draws = 3
        c.sparse_features.top = 10
        c.base_rates.negatives_per_positive = (10,)
        c.base_rates.thresholds = ()
        c.random_weights = (0,)
        c.steering.concepts = ("cat", "car", "train", "forest", "father", "woman")  # six: of fewer, no p is below 0.05
        c.steering.counts = (5, 20)
        c.steering.strengths = (1.0,)
        c.steering.drawn_count = 20
        c.steering.methods = ("set_median",)
        c.steering.domains = ("animal",)
        c.steering.away = (("cat", "dog"),)
        c.steering.prompts = ("They talked about the", "There was a", "She dreamt of a")
        c.steering.num_seeds = 2
        c.steering.max_new_tokens = 8
        c.steering.held_out = 8
        c.necessity.concepts = 8
        c.necessity.sizes = (10, 50, 200)
        c.necessity.ablations = ("zero",)
        c.necessity.sentences = 6
        c.necessity.prompts = c.steering.prompts
        c.necessity.learned, c.necessity.learned_steps = 2, 8
        c.transport = False
        c.resamples = 200
        c.permutations = 500
    if size == "novels":
        ask_novels(c)
        c.experiments = ("alignment",)
    return c
