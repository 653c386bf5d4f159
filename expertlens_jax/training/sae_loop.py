"""The steps of sparse autoencoders that are trained on one stream of activations, with what is kept on the way.

Each training logs, and keeps checkpoints to go on from, in its own directory.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Generator, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pandas as pd
from etils import epath
from jax.sharding import Mesh
from tqdm.auto import tqdm

from expertlens_jax import parallel
from expertlens_jax.errors import CorpusError, ExpertLensError
from expertlens_jax.run_directory import saved_json, write_csv
from expertlens_jax.training.activations import ActivationStream
from expertlens_jax.training.checkpoints import kept_checkpoints, rows_before
from expertlens_jax.training.sae_step import SAESettings, SAEState, init_sae, sae_step


@dataclasses.dataclass
class BegunTraining:
    """A training that isn't finished."""

    workdir: epath.Path
    directory: epath.Path
    settings: SAESettings
    checkpoints: ocp.CheckpointManager
    scale: float
    """What activations are multiplied by."""
    state: SAEState
    logged: list[dict[str, Any]]
    """Rows of its table."""

    def take(self, step: int, x: jax.Array, keep: bool) -> str:
        """Take a step on activations, and `keep` a checkpoint; return how it went where that is logged, else ""."""
        self.state, numbers = sae_step(self.state, x, self.settings)
        done, told = step + 1, ""
        if done % max(1, self.settings.steps // 50) == 0 or done == self.settings.steps:
            numbers = {name: float(value) for name, value in numbers.items()}
            self._check_finite(numbers, done)
            self.logged.append({"step": done, "activations": done * self.settings.batch, **numbers})
            told = f"error {numbers['error']:.3f}, L0 {numbers['l0']:.1f}"
        if keep:
            write_csv(self.workdir / "training.csv", pd.DataFrame(self.logged))
            self.checkpoints.save(done, args=ocp.args.StandardSave(self.state))
        return told

    def _check_finite(self, numbers: dict[str, float], step: int) -> None:
        if not math.isfinite(numbers["loss"]):
            raise ExpertLensError(
                f"the loss is {numbers['loss']} at step {step} in {self.workdir}: the training came apart. Use a lower "
                f"rate than {self.settings.rate:g} in SAESettings, and another workdir."
            )


@contextlib.contextmanager
def begun_training(
    workdir: epath.Path, directory: epath.Path, settings: SAESettings, stream: ActivationStream, mesh: Mesh
) -> Generator[BegunTraining]:
    """Give a training at its start, or at its last checkpoint."""
    spread = saved_json(workdir / "activations.json", lambda: _spread(stream))
    mean = np.array(spread["mean"], np.float32)
    state = parallel.replicate(init_sae(len(mean), settings, mean), mesh)
    with kept_checkpoints(workdir, state) as (checkpoints, state):
        logged = rows_before(workdir / "training.csv", int(state.step) + 1)
        yield BegunTraining(workdir, directory, settings, checkpoints, spread["scale"], state, logged)


def take_steps(
    begun: Sequence[BegunTraining],
    stream: ActivationStream,
    mesh: Mesh,
    checkpoint_every: int,
    progress: bool,
    after_checkpoint: Callable[[], object],
) -> None:
    """Take all steps that aren't taken yet, of all trainings on one batch of activations after the other."""
    taken = [int(each.state.step) for each in begun]
    first, last = min(taken, default=0), max((each.settings.steps for each in begun), default=0)
    what = "training an SAE" if len(begun) < 2 else f"training {len(begun)} SAEs"
    with tqdm(
        range(first, last), initial=first, total=last, desc=what, unit="step", disable=not (progress and begun)
    ) as bar:
        for step in bar:
            activations = stream.at(step)
            for each, already in zip(begun, taken, strict=True):
                if not already <= step < each.settings.steps:
                    continue
                x = parallel.split_rows(activations * np.float32(each.scale), mesh)
                keep = (step + 1) % checkpoint_every == 0 or step + 1 == each.settings.steps
                if told := each.take(step, x, keep):
                    bar.set_postfix_str(told, refresh=False)
                if keep:
                    after_checkpoint()


def _spread(stream: ActivationStream) -> dict[str, Any]:
    """Return what activations are multiplied by, to have the mean length sqrt(channels), and their mean then."""
    x = np.concatenate([stream.at(step) for step in range(stream.buffer)])
    length = float(np.linalg.norm(x, axis=1).mean(dtype=np.float64))
    if not math.isfinite(length) or length == 0:
        what = "0 everywhere" if length == 0 else "not finite"
        raise CorpusError(f"the activations of this site are {what}, so there is nothing to learn. Choose another one.")
    scale = math.sqrt(x.shape[1]) / length
    return {"scale": scale, "mean": [float(each) for each in (x.mean(0, dtype=np.float64) * scale).astype(np.float32)]}
