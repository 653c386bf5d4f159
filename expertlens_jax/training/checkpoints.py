"""What a training that was killed goes on from: its last checkpoint, and the rows of its tables up to there."""

import contextlib
from collections.abc import Generator
from typing import Any, TypeVar

import orbax.checkpoint as ocp
import pandas as pd
from etils import epath

from expertlens_jax.run_directory import is_local

State = TypeVar("State")


@contextlib.contextmanager
def kept_checkpoints(workdir: epath.Path, state: State) -> Generator[tuple[ocp.CheckpointManager, State]]:
    """Give a run's checkpoints, and the state of the last one, or the state that is given if there is none."""
    kept = workdir / "checkpoints"
    kept = kept.resolve() if is_local(kept) else kept  # orbax takes no relative path
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    with ocp.CheckpointManager(kept, options=options) as checkpoints:
        if checkpoints.latest_step() is not None:
            state = checkpoints.restore(checkpoints.latest_step(), args=ocp.args.StandardRestore(state))
        yield checkpoints, state


def rows_before(path: epath.Path, step: int) -> list[dict[str, Any]]:
    """Return the rows of a run's table of steps before this one; those after are made again."""
    if not path.exists():
        return []
    table = pd.read_csv(path)
    return table[table["step"] < step].to_dict("records")
