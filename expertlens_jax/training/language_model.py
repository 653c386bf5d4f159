"""A small causal language model from text files: a tokenizer, tokens, training, and revisions that others read."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import transformers
from etils import epath

from expertlens_jax.cards import counted
from expertlens_jax.errors import CorpusError
from expertlens_jax.models.families import family_of
from expertlens_jax.run_directory import open_run
from expertlens_jax.training.corpus import Mixture, read_lines
from expertlens_jax.training.loop import Schedule, train
from expertlens_jax.training.pretrain import Recipe
from expertlens_jax.training.saved import save_revision, saved_corpus, saved_tokenizer, text_digests

Files = str | os.PathLike | Sequence[str | os.PathLike]


def train_language_model(
    corpus: Files,
    workdir: epath.PathLike,
    *,
    architecture: Mapping[str, Any],
    recipe: Recipe,
    schedule: Schedule | None = None,
    model_type: str = "gpt_neox",
    passes: Sequence[int] | None = None,
    tokenizer: str | os.PathLike | None = None,
    vocab_size: int = 8192,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    progress: bool = False,
    after_checkpoint: Callable[[], object] = lambda: None,
) -> epath.Path:
    """Train a causal language model on text files, and keep its checkpoints.

    A batch is split over all devices. Killed and started again, it goes on from its last checkpoint, and on one device
    ends with the same bits.

    Args:
      corpus: a UTF-8 text file, or several: a paragraph a line, plain or `.xz`.
      workdir: `tokenizer/`, `tokens/`, `checkpoints/`, `training.csv`, `evaluation.csv` (held-out loss and perplexity
        of each file) and `revisions/stepN/` (Hugging Face directories) are written there.
      architecture: fields of the Hugging Face config, such as `hidden_size`.
      recipe: of a step.
      schedule: rows and tokens of a batch, and what is done at which step; `Schedule()` if left out.
      model_type: a causal family, as Hugging Face calls it.
      passes: how often an epoch reads each file; once if left out.
      tokenizer: a directory with one; byte-level BPE is trained on the corpus if left out.
      vocab_size: of that.
      seed: of the first weights and of the order of the text.
      settings: what `config.json` keeps, by which a later start knows the run; these arguments if left out.
      progress: print what is done, and show a bar.
      after_checkpoint: is called after each checkpoint.

    Returns:
      The directory of the last revision, for `el.load_model`.

    Raises:
      CorpusError: no corpus, a file that isn't there or is too short, two files of one name, other numbers of `passes`,
        no tokenizer in its directory, or rows that the devices can't share.
      RunDirectoryError: the directory holds another training.

    >>> import expertlens_jax as el, pathlib, tempfile
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (root / "cats.txt").write_text("The cat sat on the mat and slept.\\n" * 400)
    >>> revision = el.training.train_language_model(
    ...     root / "cats.txt", root / "run", vocab_size=300,
    ...     architecture=dict(hidden_size=16, num_attention_heads=2, intermediate_size=32, num_hidden_layers=1),
    ...     recipe=el.training.Recipe(steps=2, warmup_steps=1, peak_rate=1e-3),
    ...     schedule=el.training.Schedule(rows=4, context=8, evaluation_blocks=4),
    ... )
    >>> revision.name, el.load_model(revision).config.num_layers
    ('step2', 1)
    """
    workdir, schedule = epath.Path(workdir), schedule or Schedule()
    files = [os.fspath(file) for file in ([corpus] if isinstance(corpus, str | os.PathLike) else corpus)]
    passes = tuple(passes) if passes is not None else (1,) * len(files)
    tokenizer = None if tokenizer is None else os.fspath(tokenizer)
    check_training(files, passes, schedule, tokenizer)
    own: dict[str, Any] = {
        "corpus": files,
        "passes": passes,
        "tokenizer": tokenizer,
        "vocab_size": vocab_size,
        "seed": seed,
    }
    own |= {"model_type": model_type, "architecture": dict(architecture)}
    own |= {"recipe": vars(recipe), "schedule": vars(schedule)}
    workdir = open_run(workdir, own if settings is None else settings)
    if progress:
        print(f"Writing to {workdir}")
    lexicon = epath.Path(tokenizer) if tokenizer else workdir / "tokenizer"
    words = saved_tokenizer(files, lexicon, vocab_size=vocab_size, context=schedule.context, progress=progress)
    tokens = open_run(workdir / "tokens", text_digests(files, words))
    mixture = Mixture([saved_corpus(path, words, schedule.context, tokens) for path in files], passes, seed)
    hf_config = transformers.AutoConfig.for_model(
        model_type,
        vocab_size=len(words),
        max_position_embeddings=schedule.context,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        **architecture,
    )
    if progress:
        epoch, whole = mixture.blocks_per_epoch * schedule.context, recipe.steps * schedule.rows * schedule.context
        print(f"An epoch reads {epoch:,} tokens, the run {whole:,}")
    train(
        mixture,
        family_of(hf_config).translate(hf_config),
        recipe,
        schedule,
        workdir,
        functools.partial(save_revision, hf_config=hf_config, tokenizer=words),
        seed=seed,
        progress=progress,
        after_checkpoint=after_checkpoint,
    )
    return workdir / "revisions" / f"step{recipe.steps}"


def check_training(
    files: Sequence[str], passes: Sequence[int], schedule: Schedule, tokenizer: str | None = None
) -> None:
    """Check what would fail only after hours.

    Raises:
      CorpusError: see `train_language_model`.
    """
    if not files:
        raise CorpusError("there is no text to train on: corpus is empty. Give it a text file, or several.")
    for path in files:
        next(read_lines(path), None)
    if tokenizer and not (epath.Path(tokenizer) / "tokenizer_config.json").exists():
        raise CorpusError(f"there is no tokenizer in {tokenizer}. Leave tokenizer out to train one on the corpus.")
    if len(passes) != len(files) or min(passes) < 1:
        raise CorpusError(
            f"passes are {passes} for {counted(len(files), 'file')}; give each file a whole number of 1 or more, "
            "how often an epoch reads it, such as 1,3 for two files."
        )
    if schedule.rows % jax.local_device_count():
        raise CorpusError(
            f"a batch of {schedule.rows} rows can't be split over {jax.local_device_count()} devices. Set rows to a "
            "multiple of these."
        )
