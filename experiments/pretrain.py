"""Trains a small causal language model, with its checkpoints kept, for the experiments to look into.

Claim (Fedzechkina et al. 2025): experts arise with training, and specialised ones settle later. To test it takes a
model whose training is at hand; this makes one from any text files.

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
import transformers
from etils import epath

from expertlens_jax import plot
from expertlens_jax.errors import CorpusError, SelectionError
from expertlens_jax.models.families import family_of
from expertlens_jax.run_directory import open_run
from expertlens_jax.training.corpus import Mixture, read_lines
from expertlens_jax.training.loop import Schedule, train
from expertlens_jax.training.pretrain import Recipe
from expertlens_jax.training.saved import save_revision, saved_corpus, saved_tokenizer, text_digests

from .launch import launch


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """Train the model."""
    check(config)
    workdir = open_run(workdir, config.to_dict())
    print(f"Writing to {workdir}")
    lexicon = epath.Path(config.tokenizer) if config.tokenizer else workdir / "tokenizer"
    tokenizer = saved_tokenizer(config.corpus, lexicon, vocab_size=config.vocab_size, context=config.context)
    tokens = open_run(workdir / "tokens", text_digests(config.corpus, tokenizer))
    corpora = [saved_corpus(path, tokenizer, config.context, tokens) for path in config.corpus]
    mixture = Mixture(corpora, config.passes, config.seed)
    hf_config = transformers.AutoConfig.for_model(
        config.model_type,
        vocab_size=len(tokenizer),
        max_position_embeddings=config.context,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **config.architecture,
    )
    names = ("rows", "context", "checkpoint_every", "log_every", "evaluate_every", "evaluation_blocks")
    schedule = Schedule(revisions=tuple(config.revisions), **{name: config[name] for name in names})
    print(
        f"An epoch reads {mixture.blocks_per_epoch * config.context:,} tokens, "
        f"the run {config.steps * config.rows * config.context:,}"
    )
    train(
        mixture,
        family_of(hf_config).translate(hf_config),
        read_recipe(config),
        schedule,
        workdir,
        functools.partial(save_revision, hf_config=hf_config, tokenizer=tokenizer),
        seed=config.seed,
        after_checkpoint=functools.partial(draw, workdir),
    )
    draw(workdir)
    print(f"The model and its revisions are in {workdir / 'revisions'}")


def check(config: ml_collections.ConfigDict) -> None:
    """Check what would fail only after hours.

    Raises:
      CorpusError: no corpus, a file that isn't there, other numbers of `passes`, or rows that devices can't share.
      SelectionError: an unknown optimizer.
    """
    if not config.corpus:
        raise CorpusError(
            "there is no text to train on. Give a file, --config.corpus=FILE, or several, "
            "--config.corpus=\"'FILE','FILE'\"."
        )
    for path in config.corpus:
        next(read_lines(path), None)
    if config.tokenizer and not (epath.Path(config.tokenizer) / "tokenizer_config.json").exists():
        raise CorpusError(f"there is no tokenizer in {config.tokenizer}; leave --config.tokenizer out to train one.")
    if len(config.passes) != len(config.corpus) or min(config.passes) < 1:
        raise CorpusError(
            f"passes are {config.passes} for {len(config.corpus)} files; give each file a whole number of 1 or more, "
            "how often an epoch reads it, as in --config.passes=1,3"
        )
    if config.recipe.optimizer not in ("adamw", "muon"):
        raise SelectionError(f"Unknown optimizer {config.recipe.optimizer!r}. Choose from: adamw, muon.")
    if config.rows % jax.local_device_count():
        raise CorpusError(
            f"a batch of {config.rows} rows can't be split over {jax.local_device_count()} devices; "
            "set --config.rows to a multiple of these."
        )


def read_recipe(config: ml_collections.ConfigDict) -> Recipe:
    """Return the config's recipe; bfloat16 where the devices compute it fast."""
    dtype = config.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    return Recipe(steps=config.steps, dtype=dtype, **config.recipe)


def draw(workdir: epath.Path) -> None:
    """Draw the loss curves, from the run's tables."""
    if (workdir / "training.csv").exists() and (workdir / "evaluation.csv").exists():
        figure = plot.training(pd.read_csv(workdir / "training.csv"), pd.read_csv(workdir / "evaluation.csv"))
        plot.save_figure(figure, workdir / "figures" / "training")


if __name__ == "__main__":
    launch(run)
