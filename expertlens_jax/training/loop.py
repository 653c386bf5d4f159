"""The training of a causal language model from its first step to its last, or from a checkpoint on.

On the way it logs, evaluates, keeps checkpoints to go on from, and exports revisions.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pandas as pd
from etils import epath
from tqdm.auto import tqdm

from expertlens_jax import parallel
from expertlens_jax.models.config import TransformerConfig
from expertlens_jax.run_directory import write_csv
from expertlens_jax.training.checkpoints import kept_checkpoints, rows_before
from expertlens_jax.training.corpus import Corpus, Mixture
from expertlens_jax.training.pretrain import Recipe, TrainState, held_out_loss, init_state, train_step


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What a batch is, and what is done at which step, beside training.

    >>> import expertlens_jax as el
    >>> schedule = el.training.Schedule(rows=8, revisions=(0, 512))
    >>> schedule.rows * schedule.context  # tokens a step
    1024
    """

    rows: int = 32
    """Blocks a batch."""
    context: int = 128
    """Tokens a block that are predicted; a block has one more."""
    revisions: tuple[int, ...] = ()
    """Steps that are exported, beside the last."""
    checkpoint_every: int = 256
    log_every: int = 10
    evaluate_every: int = 512
    evaluation_blocks: int = 256
    """Of each corpus's held-out blocks."""


def train(
    mixture: Mixture,
    config: TransformerConfig,
    recipe: Recipe,
    schedule: Schedule,
    workdir: epath.Path,
    export: Callable[[epath.Path, TrainState], object],
    *,
    seed: int = 0,
    progress: bool = True,
    after_checkpoint: Callable[[], object] = lambda: None,
) -> TrainState:
    """Train a model, split over all devices; started again, go on from the last checkpoint.

    On one device a run that was killed ends with the bits that it would have had.

    Args:
      mixture: the text.
      config: of the model.
      recipe: of the steps.
      schedule: of all else.
      workdir: `checkpoints/` (orbax), `training.csv`, `evaluation.csv` and `revisions/stepN/` are written there.
      export: writes a revision into a directory.
      seed: of the first weights.
      progress: print what is done, and show a bar.
      after_checkpoint: is called after each checkpoint.

    Returns:
      The state after the last step.
    """
    state = parallel.replicate(init_state(config, recipe, jax.random.key(seed)), parallel.data_mesh())
    if progress:
        print(f"{sum(leaf.size for leaf in jax.tree.leaves(state.params)):,} parameters")
    with kept_checkpoints(workdir, state) as (checkpoints, state):
        if progress and checkpoints.latest_step() is not None:
            print(f"Going on from step {int(state.step)}")

        def checkpoint(step: int, state: TrainState) -> None:
            checkpoints.save(step, args=ocp.args.StandardSave(state))
            after_checkpoint()

        return _steps(state, mixture, config, recipe, schedule, workdir, export, checkpoint, progress)


def _steps(
    state: TrainState,
    mixture: Mixture,
    config: TransformerConfig,
    recipe: Recipe,
    schedule: Schedule,
    workdir: epath.Path,
    export: Callable[[epath.Path, TrainState], object],
    checkpoint: Callable[[int, TrainState], None],
    progress: bool,
) -> TrainState:
    first = int(state.step)
    logged = rows_before(workdir / "training.csv", first + 1)
    evaluated = rows_before(workdir / "evaluation.csv", first)
    mesh = parallel.data_mesh()
    tokens_per_step = schedule.rows * schedule.context
    started, started_at = time.perf_counter(), first
    steps = range(first, recipe.steps + 1)
    bar = tqdm(steps, initial=first, total=recipe.steps, desc="training", unit="step", disable=not progress)
    for step in bar:
        last = step == recipe.steps
        if step in schedule.revisions or last:
            export(workdir / "revisions" / f"step{step}", state)
        if step % schedule.evaluate_every == 0 or last:
            rows = evaluate(state, mixture.corpora, config, recipe, schedule)
            evaluated += [row | {"step": step, "tokens": step * tokens_per_step} for row in rows]
            write_csv(workdir / "evaluation.csv", pd.DataFrame(evaluated))
        if (step % schedule.checkpoint_every == 0 or last) and step > first:
            checkpoint(step, state)
        if last:
            break
        batch = parallel.split_rows(mixture.batch(step, schedule.rows), mesh)
        state, numbers = train_step(state, batch, config, recipe)
        if (step + 1) % schedule.log_every == 0 or step + 1 == recipe.steps:
            numbers = {name: float(value) for name, value in numbers.items()}
            now = time.perf_counter()
            speed = tokens_per_step * (step + 1 - started_at) / (now - started)
            started, started_at = now, step + 1
            logged.append(
                {"step": step + 1, "tokens": (step + 1) * tokens_per_step, **numbers, "tokens_per_second": speed}
            )
            write_csv(workdir / "training.csv", pd.DataFrame(logged))
            bar.set_postfix_str(f"loss {numbers['loss']:.3f}, {speed:,.0f} tokens/s")
    return state


def evaluate(
    state: TrainState, corpora: Sequence[Corpus], config: TransformerConfig, recipe: Recipe, schedule: Schedule
) -> list[dict[str, Any]]:
    """Return held-out loss and perplexity of each corpus, on its first `evaluation_blocks` held-out blocks."""
    rows = []
    for corpus in corpora:
        blocks = np.flatnonzero(corpus.held_out)[: schedule.evaluation_blocks]
        if len(blocks) >= schedule.rows:
            loss = held_out_loss(state.params, config, corpus.read(blocks), rows=schedule.rows, dtype=recipe.dtype)
            rows.append({"corpus": corpus.name, "loss": loss, "perplexity": float(np.exp(loss))})
    return rows
