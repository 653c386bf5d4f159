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

import hashlib
import itertools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
import pandas as pd
import transformers
from etils import epath
from tqdm.auto import tqdm

from expertlens_jax import parallel, plot
from expertlens_jax.errors import CorpusError, SelectionError
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.models.digests import digest_tokenizer
from expertlens_jax.models.families import family_of
from expertlens_jax.models.saving import save_model
from expertlens_jax.models.tokenizer import read_tokenizer
from expertlens_jax.run_directory import is_local, open_run, write_csv
from expertlens_jax.training.corpus import Corpus, Mixture, read_lines, tokenize_file
from expertlens_jax.training.pretrain import Recipe, TrainState, held_out_loss, init_state, train_step
from expertlens_jax.training.tokenizer import train_tokenizer

from .launch import launch


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """The training."""
    check(config)
    workdir = open_run(workdir, config.to_dict())
    print(f"Writing to {workdir}")
    tokenizer = saved_tokenizer(config, workdir)
    open_run(workdir / "tokens", texts(config, tokenizer))
    corpora = [saved_corpus(path, tokenizer, config, workdir) for path in config.corpus]
    mixture = Mixture(corpora, config.passes, config.seed)
    hf_config = transformers.AutoConfig.for_model(
        config.model_type,
        vocab_size=len(tokenizer),
        max_position_embeddings=config.context,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **config.architecture,
    )
    model_config = family_of(hf_config).translate(hf_config)
    recipe = read_recipe(config)

    mesh = parallel.data_mesh()
    state = parallel.replicate(init_state(model_config, recipe, jax.random.key(config.seed)), mesh)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    print(
        f"{count:,} parameters; an epoch reads {mixture.blocks_per_epoch * config.context:,} tokens, "
        f"the run {config.steps * config.rows * config.context:,}"
    )
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    kept = workdir / "checkpoints"
    kept = kept.resolve() if is_local(kept) else kept  # orbax takes no relative path
    with ocp.CheckpointManager(kept, options=options) as checkpoints:
        if checkpoints.latest_step() is not None:
            state = checkpoints.restore(checkpoints.latest_step(), args=ocp.args.StandardRestore(state))
            print(f"Going on from step {int(state.step)}")
        state = train(state, mixture, model_config, recipe, config, workdir, checkpoints, (hf_config, tokenizer))
    draw(workdir)
    print(f"The model and its revisions are in {workdir / 'revisions'}")


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses what would fail only after hours.

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
    if len(config.passes) != len(config.corpus) or min(config.passes) < 1:
        raise CorpusError(
            f"passes are {config.passes} for {len(config.corpus)} files; give each file a whole number of 1 or more, "
            "how often an epoch reads it, as in --config.passes=1,3"
        )
    if config.recipe.optimizer not in ("adamw", "muon"):
        raise SelectionError(f"the optimizer {config.recipe.optimizer!r} was asked for; there are adamw and muon.")
    if config.rows % jax.local_device_count():
        raise CorpusError(
            f"a batch of {config.rows} rows can't be split over {jax.local_device_count()} devices; "
            "set --config.rows to a multiple of these."
        )


def read_recipe(config: ml_collections.ConfigDict) -> Recipe:
    """The config's recipe; bfloat16 where the devices compute it fast."""
    dtype = config.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    return Recipe(steps=config.steps, dtype=dtype, **config.recipe)


def train(
    state: TrainState,
    mixture: Mixture,
    model_config: TransformerConfig,
    recipe: Recipe,
    config: ml_collections.ConfigDict,
    workdir: epath.Path,
    checkpoints: ocp.CheckpointManager,
    exported: tuple[transformers.PretrainedConfig, Any],
) -> TrainState:
    """Steps until the last, logging, evaluating, keeping checkpoints and exporting revisions on the way."""
    first = int(state.step)
    logged = rows_before(workdir / "training.csv", first)
    evaluated = rows_before(workdir / "evaluation.csv", first)
    mesh = parallel.data_mesh()
    tokens_per_step = config.rows * config.context
    started, started_at = time.perf_counter(), first
    bar = tqdm(range(first, config.steps + 1), initial=first, total=config.steps, desc="training", unit="step")
    for step in bar:
        last = step == config.steps
        if step in config.revisions or last:
            save_revision(workdir / "revisions" / f"step{step}", state, *exported)
        if step % config.evaluate_every == 0 or last:
            rows = evaluate(state, mixture.corpora, model_config, recipe, config)
            evaluated += [row | {"step": step, "tokens": step * tokens_per_step} for row in rows]
            write_csv(workdir / "evaluation.csv", pd.DataFrame(evaluated))
        if (step % config.checkpoint_every == 0 or last) and step > first:
            checkpoints.save(step, args=ocp.args.StandardSave(state))
            draw(workdir)
        if last:
            break
        state, measured = train_step(
            state, parallel.split_rows(mixture.batch(step, config.rows), mesh), model_config, recipe
        )
        if (step + 1) % config.log_every == 0 or step + 1 == config.steps:
            numbers = {name: float(value) for name, value in measured.items()}
            now = time.perf_counter()
            speed = tokens_per_step * (step + 1 - started_at) / (now - started)
            started, started_at = now, step + 1
            logged.append(
                {"step": step + 1, "tokens": (step + 1) * tokens_per_step, **numbers, "tokens_per_second": speed}
            )
            write_csv(workdir / "training.csv", pd.DataFrame(logged))
            bar.set_postfix_str(f"loss {numbers['loss']:.3f}, {speed:,.0f} tokens/s")
    return state


def rows_before(path: epath.Path, step: int) -> list[dict[str, Any]]:
    """The rows of a run's table up to the step it goes on from; those after are made again."""
    if not path.exists():
        return []
    table = pd.read_csv(path)
    return table[table["step"] < step if path.name == "evaluation.csv" else table["step"] <= step].to_dict("records")


def evaluate(
    state: TrainState,
    corpora: Sequence[Corpus],
    model_config: TransformerConfig,
    recipe: Recipe,
    config: ml_collections.ConfigDict,
) -> list[dict[str, Any]]:
    """Held-out loss and perplexity of each corpus, on its first `evaluation_blocks` held-out blocks."""
    rows = []
    for corpus in corpora:
        blocks = np.flatnonzero(corpus.held_out)[: config.evaluation_blocks]
        if len(blocks) >= config.rows:
            loss = held_out_loss(state.params, model_config, corpus.read(blocks), rows=config.rows, dtype=recipe.dtype)
            rows.append({"corpus": corpus.name, "loss": loss, "perplexity": float(np.exp(loss))})
    return rows


def saved_tokenizer(config: ml_collections.ConfigDict, workdir: epath.Path) -> Any:
    """The config's tokenizer, or one trained on the corpus and kept in the run directory."""
    directory = epath.Path(config.tokenizer) if config.tokenizer else workdir / "tokenizer"
    if not (directory / "tokenizer_config.json").exists():
        if config.tokenizer:
            raise CorpusError(f"there is no tokenizer in {directory}; leave --config.tokenizer out to train one.")
        print(f"Training a tokenizer of {config.vocab_size} tokens")
        lines = itertools.chain.from_iterable(map(read_lines, config.corpus))
        write_directory(
            directory,
            train_tokenizer(lines, vocab_size=config.vocab_size, max_tokens=config.context).save_pretrained,
        )
    return read_tokenizer(Path(directory))


def texts(config: ml_collections.ConfigDict, tokenizer: Any) -> dict[str, Any]:
    """What the tokens that are kept follow from: each text, by what its file is called, and the tokenizer.

    Raises:
      CorpusError: two texts of one name, of which one would be taken for the other.
    """
    digests: dict[str, str] = {}
    for path in config.corpus:
        name = epath.Path(path).name.partition(".")[0]
        if name in digests:
            raise CorpusError(f"corpus holds two files called {name}: {', '.join(config.corpus)}. Rename one.")
        with epath.Path(path).open("rb") as opened:
            digests[name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"texts": digests, "tokenizer": digest_tokenizer(tokenizer)}


def saved_corpus(path: str, tokenizer: Any, config: ml_collections.ConfigDict, workdir: epath.Path) -> Corpus:
    """A text file's tokens, kept in the run directory."""
    name = epath.Path(path).name.partition(".")[0]
    file = workdir / "tokens" / f"{name}.npy"
    if not file.exists():
        tokens = tokenize_file(tokenizer, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(file.name + ".partial")
        with partial.open("wb") as opened:
            np.save(opened, tokens)
        partial.replace(file)
    with file.open("rb") as opened:
        corpus = Corpus(name, np.load(opened), config.context)
    if not (~corpus.held_out).sum():
        raise CorpusError(f"{path} holds {len(corpus.tokens)} tokens, less than a block of {config.context + 1}.")
    return corpus


def save_revision(
    directory: epath.Path, state: TrainState, hf_config: transformers.PretrainedConfig, tokenizer: Any
) -> None:
    """A step's parameters as a Hugging Face directory, bfloat16, whole or not at all."""
    params = jax.device_get(state.params)
    write_directory(directory, lambda path: save_model(path, params, hf_config, tokenizer, dtype="bfloat16"))


def write_directory(directory: epath.Path, write: Any) -> None:
    """Lets `write(path)` fill a local directory and moves it, whole, to where it belongs."""
    with tempfile.TemporaryDirectory() as local:
        write(Path(local) / "files")
        partial = directory.with_name(directory.name + ".partial")
        if partial.exists():
            partial.rmtree()
        partial.mkdir(parents=True)
        for file in (Path(local) / "files").iterdir():
            (partial / file.name).write_bytes(file.read_bytes())
        if directory.exists():
            directory.rmtree()
        partial.rename(directory)


def draw(workdir: epath.Path) -> None:
    """The loss curves, from the run's tables."""
    if (workdir / "training.csv").exists() and (workdir / "evaluation.csv").exists():
        figure = plot.training(pd.read_csv(workdir / "training.csv"), pd.read_csv(workdir / "evaluation.csv"))
        plot.save_figure(figure, workdir / "figures" / "training")


if __name__ == "__main__":
    launch(run)
