"""One launch of an experiment: its settings, what it looks at, and where its results go."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import ml_collections
import pandas as pd
import xarray as xr
from etils import epath

import expertlens_jax as el
from expertlens_jax import plot
from expertlens_jax.models.digests import digest_json
from expertlens_jax.report.conclusions import CONCLUSIONS, Conclusion, write_conclusions
from expertlens_jax.report.localisation_findings import TRAINED
from expertlens_jax.run_directory import open_run, write_csv

from .expertise import saved_expertise
from .sources import Sources

Made = TypeVar("Made")


@dataclasses.dataclass(frozen=True)
class Run:
    """A launch whose settings are checked, and whose directory is open: see `start`."""

    config: ml_collections.ConfigDict
    workdir: epath.Path
    sources: Sources

    @property
    def datasets(self) -> tuple[el.ConceptDataset, ...]:
        """The config's sentence sets."""
        return self.sources.datasets(self.config)

    @property
    def ratings(self) -> list[el.Ratings]:
        """The config's ratings."""
        return self.sources.ratings(self.config)

    @property
    def model(self) -> el.Model:
        """The config's model."""
        return self.sources.model(self.config)

    def named_model(self, name: str) -> el.Model:
        """Return another model: NAME, or NAME@REVISION."""
        return self.sources.named_model(name, self.config)

    def random_model(self, seed: int) -> el.Model:
        """Return the config's model with random weights."""
        return el.randomize_weights(self.model, seed)

    def by_weights(self, random_seeds: Sequence[int]) -> Iterator[tuple[str, el.Model]]:
        """Yield the config's model, and with random weights by each seed, after what the column `weights` calls it."""
        yield TRAINED, self.model
        for seed in random_seeds:
            yield f"random_weights_{seed}", self.random_model(seed)

    @property
    def resampling(self) -> dict[str, int]:
        """How often to draw for intervals, and the seed: arguments of functions in `expertlens_jax.analysis`."""
        return {"resamples": self.config.resamples, "seed": self.config.seed}

    @property
    def draws(self) -> dict[str, int]:
        """How often to draw for intervals and for p-values, and the seed."""
        return self.resampling | {"permutations": self.config.permutations}

    def expertise(self, model: el.Model, concepts: el.ConceptDataset, **changes: Any) -> xr.Dataset:
        """Return the table of a model and a sentence set, see `saved_expertise`.

        The responses of the config's own model to its own sentences are kept, since several tables are made of them,
        and with them what `beside` and `also_over` say.
        """
        own = any(concepts is each for each in self.datasets)
        keep = own and self.sources.holds(model, self.config) and not {"pool_over", "sae"} & changes.keys()
        return saved_expertise(model, concepts, self.config, self.workdir, keep=keep, own=own, **changes)

    def features(self, model: el.Model, concepts: el.ConceptDataset) -> xr.Dataset:
        """Return the table of the features that a model carries; its name tells these weights from others."""
        return self.expertise(model, concepts, sae=f"sae-{digest_json(list(model.sae_settings))[:8]}")

    def write(self, tables: Mapping[str, pd.DataFrame]) -> None:
        """Write tables, each as NAME.csv."""
        for name, table in tables.items():
            write_csv(self.workdir / f"{name}.csv", table)

    def draw(self, name: str, figure: plot.style.Figure) -> None:
        """Save a figure, as figures/NAME.png, .svg and .pdf."""
        plot.save_figure(figure, self.workdir / "figures" / name)

    def finish(self, text: str, conclusions: Sequence[Conclusion]) -> list[Conclusion]:
        """Print what was found, and keep and return the conclusions."""
        write_conclusions(self.workdir / CONCLUSIONS, conclusions)
        print(f"\n{text}\n")
        for each in conclusions:
            print(f"{each.verdict.capitalize()}: {each.claim}")
        print(f"\nTables and figures are in {self.workdir}")
        return list(conclusions)


def start(
    config: ml_collections.ConfigDict,
    workdir: epath.PathLike,
    sources: Sources | None,
    check: Callable[[ml_collections.ConfigDict, Sequence[el.ConceptDataset]], object],
    check_model: Callable[[ml_collections.ConfigDict, Sequence[el.ConceptDataset], el.Model], object] | None = None,
    *,
    own_model: bool = True,
) -> Run:
    """Check everything that can be wrong, then make or find the run's directory.

    Args:
      config: of the experiment.
      workdir: the directory to write to.
      sources: what experiments before this one have loaded; None starts with nothing.
      check: checks settings and sentences, before a model is loaded.
      check_model: checks what only the model can tell.
      own_model: whether the experiment looks into the config's model, and not only into others.

    Raises:
      ExpertLensError: what `check` and `check_model` raise, or what `find_model` and `open_run` do.
    """
    run = Run(config, epath.Path(workdir), sources or Sources())
    check(config, run.datasets)
    if own_model:
        model = run.model
        if check_model is not None:
            check_model(config, run.datasets, model)
    open_run(run.workdir, config.to_dict())
    print(f"Writing to {run.workdir}")
    return run


def describe_meanwhile(made: Iterable[Made], describe: Callable[[Made], pd.DataFrame]) -> pd.DataFrame:
    """Return the rows that describe all that is made: those of each are computed while the next is made."""
    describing = ThreadPoolExecutor(1)
    try:
        parts: list[Future[pd.DataFrame]] = []
        for each in made:
            parts.append(describing.submit(describe, each))
            for part in filter(Future.done, parts):
                part.result()  # tells at once of what went wrong
        return pd.concat([part.result() for part in parts], ignore_index=True)
    finally:
        describing.shutdown(cancel_futures=True)  # whatever has stopped it, what isn't begun is left
