"""Lenslet: miniatures of Pythia, trained on public-domain novels and a dictionary's glosses.

    python -m experiments.pretrain --config=configs/lenslet.py:2m --workdir=runs/lenslet-2m \
        --config.corpus="'novels.txt.xz','wordnet.txt.xz'"

Sizes are `2m` (1.8 M parameters), `5m` (5.3 M) and `tiny`, which trains in seconds and knows nothing. `2m` and `5m` are
trained alike, so that they differ in size only; `--config.seed=1` draws other weights and another order of the text.
"""

import ml_collections

VARIANTS = {
    "2m": dict(hidden_size=128, num_attention_heads=4, intermediate_size=512, num_hidden_layers=4),
    "5m": dict(hidden_size=256, num_attention_heads=4, intermediate_size=1024, num_hidden_layers=4),
    "tiny": dict(hidden_size=16, num_attention_heads=2, intermediate_size=64, num_hidden_layers=2),
}


def get_config(size: str = "2m") -> ml_collections.ConfigDict:
    """Return every setting of the training; `size` is "2m", "5m" or "tiny"."""
    if size not in VARIANTS:
        raise ValueError(f"Unknown suite configs/lenslet.py:{size}. Choose from: {', '.join(VARIANTS)}.")
    c = ml_collections.ConfigDict()

    # Text: UTF-8 files, a paragraph a line, plain or .xz; and how often an epoch reads each
    c.corpus = ("novels.txt.xz", "wordnet.txt.xz")
    c.passes = (1, 3)
    c.tokenizer = ""  # a directory with one; "" trains byte-level BPE on the corpus
    c.vocab_size = 8192
    c.context = 128  # tokens

    # Model: any causal family; what its Hugging Face config wants
    c.model_type = "gpt_neox"
    c.architecture = VARIANTS[size] | {"tie_word_embeddings": True}

    # Training: a step reads rows * context tokens, 16.8 million in all, whatever the size
    c.rows = 32
    c.steps = 4096
    c.recipe = {"optimizer": "muon", "warmup_steps": 100, "peak_rate": 4e-3, "muon_rate": 1.4e-2, "weight_decay": 0.1}
    c.dtype = ""  # of the passes; "" is bfloat16, on a CPU float32
    c.seed = 0

    # What is kept
    c.revisions = (0, 16, 64, 256, 1024)  # steps, and always the last
    c.checkpoint_every = 256
    c.log_every = 10
    c.evaluate_every = 512
    c.evaluation_blocks = 256  # of each file's held-out blocks

    if size == "tiny":
        c.vocab_size = 320
        c.context = 16
        c.rows = 8
        c.steps = 12
        c.recipe.warmup_steps = 2
        c.recipe.optimizer = "adamw"  # compiles faster
        c.revisions = (0, 4)
        c.checkpoint_every = 4
        c.log_every = 2
        c.evaluate_every = 4
    return c
