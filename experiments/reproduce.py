"""Runs every experiment on one model and binds what they found into a page: claim, figure, number, verdict.

    python -m experiments.reproduce --config=configs/demo.py --workdir=runs/reproduce

All settings are checked before the first experiment runs: a wrong one stops the launch. An experiment that these
sentences or this model can't serve (concepts without domains have no organisation) is left out, by name and with the
reason; the others run. One that stops with an error doesn't stop the others, but the launch ends with status 1.

Each experiment writes into a directory of its own in the run directory, and all share its tables of expertise, so that
a model reads each sentence set once. After each of them `conclusions.csv` has a row a claim that was put to the test,
`experiments.csv` a row an experiment (done, left out, failed or waiting, and why), and `report.html` everything in one
file. A verdict is "held", "not held" or "not testable", and then the column `reason` says why. Killed and started
again, it goes on where it was.
"""

import contextlib
import dataclasses
import importlib
import textwrap
import traceback
from collections.abc import Sequence
from types import ModuleType

import ml_collections
import pandas as pd
from etils import epath

import expertlens_jax as el
from expertlens_jax.errors import (
    ExpertLensError,
    SelectionError,
    UnfitConceptsError,
    UnsupportedModelError,
)
from expertlens_jax.report.conclusions import CONCLUSIONS, read_conclusions
from expertlens_jax.report.suite_pages import DONE, FAILED, LEFT_OUT, WAITING, Part, Subject, bind, tell
from expertlens_jax.run_directory import open_run

from .baselines import without_unfit_controls
from .launch import launch
from .sources import Sources

EXPERIMENTS = (
    *("alignment", "stability", "training", "scale", "localisation", "organisation", "polysemanticity", "negatives"),
    *("senses", "mixture", "detection", "sparse_features", "necessity", "steering"),
)


@dataclasses.dataclass
class Planned(Part):
    """One experiment of the suite, how it is run, and how far it is."""

    module: ModuleType = dataclasses.field(kw_only=True)
    config: ml_collections.ConfigDict = dataclasses.field(kw_only=True)


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """Run all experiments that can be run, and write the page.

    Raises:
      ExpertLensError: a wrong setting, before anything is written.
      UnfitConceptsError: these sentences serve none of the experiments.
      FailedExperimentsError: some stopped with an error; the page holds the others.
    """
    workdir, sources = epath.Path(workdir), Sources()
    parts = plan(config, workdir, sources)
    open_run(workdir, config.to_dict())
    recall(parts, workdir)
    about = Subject(config.model, config.revision, [*map(str, config.sentences)], [*map(str, config.ratings)])
    for part in parts:
        if part.state == LEFT_OUT:
            continue
        print(f"\n== {part.name} ==", flush=True)
        try:
            part.conclusions = part.module.run(part.config, workdir / part.name, sources)
            part.state = DONE
        except Exception as error:  # whatever it is: what the others found is not lost by it
            part.state, part.conclusions = FAILED, []
            part.reason = str(error) if isinstance(error, ExpertLensError) else f"{type(error).__name__}: {error}"
            if not isinstance(error, ExpertLensError):
                traceback.print_exc()
            print(f"{part.name} failed: {part.reason}", flush=True)
        bind(parts, about, workdir)
    tell(parts, workdir)


def plan(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Planned]:
    """Return the experiments that the config names, checked: those that can't be run are left out, with the reason.

    Raises:
      ExpertLensError: a setting that is wrong whatever the sentences are, or a model that can't be loaded.
      UnfitConceptsError: these sentences serve none of the experiments.
    """
    sources = sources or Sources()
    for name in config.experiments:
        if name not in EXPERIMENTS:
            raise SelectionError(f"experiments hold {name!r}; there are {', '.join(EXPERIMENTS)}.")
    if not config.experiments:
        raise SelectionError(f"experiments is empty; name one or more of {', '.join(EXPERIMENTS)}.")
    shared = ml_collections.ConfigDict(config.to_dict())
    shared.expertise = config.expertise or str(workdir / "expertise")
    names = dict.fromkeys(config.experiments)
    parts = [Planned(name, module=importlib.import_module(f".{name}", __package__), config=shared) for name in names]
    datasets = sources.datasets(config)
    for part in parts:
        if part.name == "alignment":  # it isn't lost with the controls that these sentences can't have
            part.config, part.reason = without_unfit_controls(part.config, datasets, sources.model(config))
    for part in parts:
        try:
            part.module.check(part.config, datasets)
        except UnfitConceptsError as error:
            part.state, part.reason = LEFT_OUT, str(error)
    if any(part.state == WAITING for part in parts):
        check_models(parts, datasets, sources.model(config))
    told = [part for part in parts if part.reason]
    if all(part.state == LEFT_OUT for part in parts):
        reasons = " ".join(f"{part.name}: {part.reason}" for part in told)
        raise UnfitConceptsError(f"none of the experiments can be run on these sentences. {reasons}")
    for part in told:
        kept = "is left out" if part.state == LEFT_OUT else "goes without some controls"
        print(textwrap.fill(f"{part.name} {kept}: {part.reason}", 100, break_long_words=False))
    return parts


def check_models(parts: list[Planned], datasets: Sequence[el.ConceptDataset], model: el.Model) -> None:
    """Check what only the model can tell; an experiment that it can't serve, as an encoder can't write, is left out."""
    for part in parts:
        if part.state == WAITING and hasattr(part.module, "check_model"):
            try:
                part.module.check_model(part.config, datasets, model)
            except (UnsupportedModelError, UnfitConceptsError) as error:
                part.state, part.reason = LEFT_OUT, str(error)


def recall(parts: list[Planned], workdir: epath.Path) -> None:
    """Take over what an earlier launch of this run has done, so that no page is bound without it."""
    file = workdir / "experiments.csv"
    before = pd.read_csv(file).set_index("experiment")["state"].to_dict() if file.exists() else {}
    for part in parts:
        if part.state == WAITING and before.get(part.name) == DONE:
            with contextlib.suppress(OSError):  # what was taken away is made again
                part.conclusions, part.state = read_conclusions(workdir / part.name / CONCLUSIONS), DONE


if __name__ == "__main__":
    launch(run)
