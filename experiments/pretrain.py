"""Trains a small causal language model, with its checkpoints kept, for the experiments to look into.

Claim (Fedzechkina et al. 2025): experts arise with training, and specialised ones settle later. A test needs a model
with checkpoints of its training; this makes one from any text files.

    python -m experiments.pretrain --config=configs/lenslet.py:2m --workdir=runs/lenslet-2m \
        --config.corpus="'novels.txt','dictionary.txt'"

Writes into the run directory `tokenizer/`, `tokens/` (a file a corpus), `checkpoints/` (orbax, to go on from),
`training.csv`, `evaluation.csv` (held-out loss and perplexity a corpus), `figures/training`, and
`revisions/stepN/`, Hugging Face directories of the steps that the config lists and of the last. A batch is split
over all devices. Killed and started again, it goes on from its last checkpoint and, on one device, ends with the
bits it would have had.
"""

import functools

import jax
import ml_collections
import pandas as pd
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.training.language_model import train_language_model

from .launch import launch

SCHEDULE = ("rows", "context", "checkpoint_every", "log_every", "evaluate_every", "evaluation_blocks")


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """Train the model."""
    # bfloat16 where the devices compute it fast
    dtype = config.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    names = {name: config[name] for name in SCHEDULE}
    train_language_model(
        config.corpus,
        workdir,
        architecture=config.architecture.to_dict(),
        recipe=el.training.Recipe(steps=config.steps, dtype=dtype, **config.recipe),
        schedule=el.training.Schedule(revisions=tuple(config.revisions), **names),
        model_type=config.model_type,
        passes=config.passes,
        tokenizer=config.tokenizer or None,
        vocab_size=config.vocab_size,
        seed=config.seed,
        settings=config.to_dict(),
        progress=True,
        after_checkpoint=functools.partial(draw, workdir),
    )
    draw(workdir)
    print(f"The model and its revisions are in {workdir / 'revisions'}")


def draw(workdir: epath.Path) -> None:
    """Draw the loss curves, from the run's tables."""
    if (workdir / "training.csv").exists() and (workdir / "evaluation.csv").exists():
        figure = plot.training(pd.read_csv(workdir / "training.csv"), pd.read_csv(workdir / "evaluation.csv"))
        plot.save_figure(figure, workdir / "figures" / "training")


if __name__ == "__main__":
    launch(run)
