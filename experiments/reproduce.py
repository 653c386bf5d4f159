"""Runs every experiment on one model and binds what they found into a page: claim, figure, number, held or not.

    python -m experiments.reproduce --config=configs/demo.py --workdir=runs/reproduce

Each experiment writes into a directory of its own in the run directory, and all share its tables of expertise, so that
a model reads each sentence set once. `conclusions.csv` has a row a claim; `report.html` holds everything in one file.
Killed and started again, it goes on where it was.
"""

import dataclasses
import importlib

import ml_collections
import pandas as pd
from etils import epath

from experiments.launch import launch
from expertlens_jax.errors import SelectionError
from expertlens_jax.report.conclusions import Conclusion
from expertlens_jax.report.pages import Page
from expertlens_jax.run_directory import open_run, write_csv, write_text

EXPERIMENTS = (
    *("alignment", "stability", "training", "scale", "localisation", "organisation", "polysemanticity", "negatives"),
    "steering",
)


def run(config: ml_collections.ConfigDict, workdir: epath.Path) -> None:
    """All experiments, and the page."""
    for name in config.experiments:
        if name not in EXPERIMENTS:
            raise SelectionError(f"experiments hold {name!r}; there are {', '.join(EXPERIMENTS)}.")
    workdir = open_run(workdir, config.to_dict())
    shared = ml_collections.ConfigDict(config.to_dict())
    shared.expertise = config.expertise or str(workdir / "expertise")
    found: dict[str, list[Conclusion]] = {}
    for name in config.experiments:
        print(f"\n== {name} ==")
        module = importlib.import_module(f"experiments.{name}")
        module.run(shared, workdir / name)
        found[name] = module.conclude(workdir / name)
    rows = [{"experiment": name} | dataclasses.asdict(each) for name, all_of in found.items() for each in all_of]
    write_csv(workdir / "conclusions.csv", pd.DataFrame(rows))
    write_text(workdir / "report.html", bind(found, config, workdir).html())
    print()
    for row in rows:
        print(f"{'held' if row['held'] else 'not held'}  {row['experiment']}: {row['claim']}\n    {row['found']}")
    print(f"\nEverything is in {workdir / 'report.html'}")


def bind(found: dict[str, list[Conclusion]], config: ml_collections.ConfigDict, workdir: epath.Path) -> Page:
    """The page: a section an experiment, a paragraph a claim."""
    page = Page(f"What the experts of {config.model} show")
    page.paragraph(
        "Each section puts a claim of the literature to the test on this one model: what is claimed, what was "
        "measured, whether it held here. What did not hold here may hold for other models, and the other way round."
    )
    for name, conclusions in found.items():
        page.heading(name.capitalize())
        for each in conclusions:
            page.paragraph(f"Claim: {each.claim}")
            page.paragraph(f"{'It held here' if each.held else 'It did not hold here'}: {each.found}")
            figure = workdir / name / "figures" / f"{each.figure}.svg"
            if figure.exists():  # there is none of what couldn't be compared
                page.figure(figure, each.claim)
    return page


if __name__ == "__main__":
    launch(run)
