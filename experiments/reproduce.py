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
    FailedExperimentsError,
    SelectionError,
    UnfitConceptsError,
    UnsupportedModelError,
)
from expertlens_jax.report.conclusions import Conclusion, Verdict
from expertlens_jax.report.pages import Page, VerdictRow
from expertlens_jax.run_directory import open_run, write_csv, write_text

from .baselines import without_unfit_controls
from .launch import launch
from .run import CONCLUSIONS, read_conclusions
from .sources import Sources

EXPERIMENTS = (
    *("alignment", "stability", "training", "scale", "localisation", "organisation", "polysemanticity", "negatives"),
    *("senses", "detection", "sparse_features", "necessity", "steering"),
)
DONE, LEFT_OUT, FAILED, WAITING = "done", "left out", "failed", "waiting"
SENTENCES = {
    Verdict.HELD: "It held here",
    Verdict.NOT_HELD: "It did not hold here",
    Verdict.NOT_TESTABLE: "It is not testable here",
}


@dataclasses.dataclass
class Part:
    """One experiment of the suite, and how far it is."""

    name: str
    module: ModuleType
    config: ml_collections.ConfigDict
    state: str = WAITING
    reason: str = ""
    """Why it is left out, or failed; or what it goes without."""
    conclusions: list[Conclusion] = dataclasses.field(default_factory=list)


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
        bind(parts, config, workdir)
    tell(parts, workdir)


def plan(config: ml_collections.ConfigDict, workdir: epath.Path, sources: Sources | None = None) -> list[Part]:
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
    parts = [Part(name, importlib.import_module(f".{name}", __package__), shared) for name in names]
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


def check_models(parts: list[Part], datasets: Sequence[el.ConceptDataset], model: el.Model) -> None:
    """Check what only the model can tell; an experiment that it can't serve, as an encoder can't write, is left out."""
    for part in parts:
        if part.state == WAITING and hasattr(part.module, "check_model"):
            try:
                part.module.check_model(part.config, datasets, model)
            except (UnsupportedModelError, UnfitConceptsError) as error:
                part.state, part.reason = LEFT_OUT, str(error)


def recall(parts: list[Part], workdir: epath.Path) -> None:
    """Take over what an earlier launch of this run has done, so that no page is bound without it."""
    file = workdir / "experiments.csv"
    before = pd.read_csv(file).set_index("experiment")["state"].to_dict() if file.exists() else {}
    for part in parts:
        if part.state == WAITING and before.get(part.name) == DONE:
            with contextlib.suppress(OSError):  # what was taken away is made again
                part.conclusions, part.state = read_conclusions(workdir / part.name / CONCLUSIONS), DONE


def bind(parts: list[Part], config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """Write `experiments.csv`, `conclusions.csv` and `report.html`, of what is done so far."""
    states = [{"experiment": part.name, "state": part.state, "reason": part.reason} for part in parts]
    columns = ["experiment", *(field.name for field in dataclasses.fields(Conclusion))]
    rows = [{"experiment": part.name} | dataclasses.asdict(each) for part in parts for each in part.conclusions]
    write_csv(workdir / "experiments.csv", pd.DataFrame(states))
    write_csv(workdir / "conclusions.csv", pd.DataFrame(rows, columns=columns))
    write_text(workdir / "report.html", make_page(parts, config, workdir).html())


def make_page(parts: list[Part], config: ml_collections.ConfigDict, workdir: epath.Path) -> Page:
    """Return the page: a table of verdicts, then a section an experiment, with a paragraph a claim."""
    page = Page(f"What the experts of {config.model} show")
    page.paragraph(
        "Each section puts a claim of the literature to the test on this one model: what is claimed, what was "
        "measured, whether it held here. What did not hold here may hold for other models, and the other way round. "
        "Not testable is what these concepts, ratings or settings are too few for: it speaks neither for the claim nor "
        "against it."
    )
    page.paragraph(
        f"Model {config.model}{f' at {config.revision}' if config.revision else ''}; sentences "
        f"{', '.join(map(str, config.sentences))}; ratings {', '.join(map(str, config.ratings)) or 'none'}. τ is the "
        "least average precision of an expert; numbers in parentheses after another are its 95% interval, unless "
        "something else is said."
    )
    rows = []
    for part in parts:
        if part.state in (LEFT_OUT, FAILED, WAITING):
            rows.append(VerdictRow(part.name, "", part.state, part.reason))
        rows += [VerdictRow(part.name, each.claim, each.verdict, each.reason) for each in part.conclusions]
    page.verdicts(rows)
    for part in parts:
        page.heading(part.name.capitalize(), anchor=part.name)
        if part.state == DONE:
            if part.reason:
                page.paragraph(f"Left out of it: {part.reason}")
            write_section(page, part, workdir)
        else:
            told = {LEFT_OUT: "It was left out", FAILED: "It stopped with an error", WAITING: "It has not run yet"}
            page.paragraph(f"{told[part.state]}{f': {part.reason}' if part.reason else '.'}")
    return page


def write_section(page: Page, part: Part, workdir: epath.Path) -> None:
    """Add a finished experiment's claims, and each figure once, after the last claim that it shows."""
    for i, each in enumerate(part.conclusions):
        page.paragraph(f"Claim: {each.claim}")
        reason = f" ({each.reason})" if each.reason else ""
        page.paragraph(f"{SENTENCES[each.verdict]}{reason}: {each.found}", verdict=each.verdict)
        shown = [other.claim for other in part.conclusions if other.figure == each.figure]
        figure = workdir / part.name / "figures" / f"{each.figure}.svg"
        again = any(other.figure == each.figure for other in part.conclusions[i + 1 :])
        if not again and figure.exists():  # there is none of what couldn't be compared
            page.figure(figure, " ".join(shown))


def tell(parts: list[Part], workdir: epath.Path) -> None:
    """Print the verdicts, and where everything is.

    Raises:
      FailedExperimentsError: some experiments failed.
    """
    print()
    for part in parts:
        for each in part.conclusions:
            reason = f" ({each.reason})" if each.reason else ""
            print(f"{each.verdict:<12}  {part.name}: {each.claim}\n    {each.found}{reason}")
        if part.state == LEFT_OUT:
            print(f"{part.state:<12}  {part.name}: {part.reason}")
    print(f"\nEverything is in {workdir / 'report.html'}")
    failed = [part for part in parts if part.state == FAILED]
    if failed:
        told = "; ".join(f"{part.name}: {part.reason}" for part in failed)
        raise FailedExperimentsError(
            f"{len(failed)} of {len(parts)} experiments failed ({told}). The others are in {workdir / 'report.html'}; "
            "launch again to run what is missing."
        )


if __name__ == "__main__":
    launch(run)
