"""A site of plain files that shows a run: its concepts, units, pairs, maps, sentences and verdicts."""

import dataclasses
import importlib.resources
import os
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from etils import epath

import expertlens_jax
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.ratings import Ratings, load_ratings
from expertlens_jax.errors import CheckpointError, RunDirectoryError, SelectionError
from expertlens_jax.experts.run_sources import check_given, find_model, find_sentences, load_given
from expertlens_jax.explorer.chunks import rows_of, write_chunk
from expertlens_jax.explorer.compared_tables import write_compared
from expertlens_jax.explorer.comparing import common_concepts, match_tables, name_runs
from expertlens_jax.explorer.linked_report import link_report
from expertlens_jax.explorer.runs import REPRODUCE, Run, Table, read_run, tell_notes
from expertlens_jax.explorer.tables import Bounds, write_table
from expertlens_jax.models.model import Model

_MARKER = "expertlens-explore"
_PACKAGED_RATINGS = "wordsim353"
_TOLD = ("conclusions.csv", "experiments.csv")  # which the page shows itself
_LARGEST_TABLE = 2 * 10**6
"""Bytes of a table of numbers that is copied into the page."""
_GIVE_MODEL = "Give the model with --model."


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """A page that was written."""

    page: epath.Path
    """Its file."""
    index: Mapping[str, Any]
    """What the page loads first."""
    models: Mapping[str, tuple[Table, Model]]
    """By the tables' ids, those whose model was loaded."""


def explore(
    run: epath.PathLike,
    out: epath.PathLike | None = None,
    *,
    experts: int = 100,
    speaking: int = 5,
    model: Model | epath.PathLike | None = None,
    sentences: Sequence[ConceptDataset | epath.PathLike] = (),
    tokens: bool = True,
    compare: Sequence[epath.PathLike] = (),
    progress: bool = False,
) -> epath.Path:
    """Write a page to explore a run: its concepts, units, pairs, sentences and verdicts, each view with its own link.

    >>> import tempfile
    >>> import expertlens_jax as el
    >>> run, model = tempfile.mkdtemp(), el.load_model("lenslet-2m")
    >>> concepts = el.load_concepts("facts").subset(["cat", "dog", "tiger"])
    >>> expertise = el.find_experts(model, concepts, run, sites="attn.v", permutations=0)
    >>> page = el.explore(run)  # or el.explore(run, out="site")
    >>> page.name, page.parent.name  # open it in a browser
    ('index.html', 'explore')

    The page is a folder of plain files. It opens from the file system and from any web host, needs no network, and
    loads data as it is looked at. Of each concept it shows the `experts` units with the highest average precision;
    all that is counted (experts at each τ, where they are, overlaps) is counted over all units.

    Sentences show what the best units say at each token where the sentences and the model are found: the run's own,
    if they ship with the package or are still where the run's config says, or those given here. What isn't what the run
    was measured with is refused, and what isn't found is left out; the page says so, and shows all else.

    Args:
      run: the directory of a run: of `el.find_experts`, of `expertlens find`, `align`, `reproduce` or another
        experiment.
      out: the folder to write; default `explore` in the run. One that is there is replaced if it holds such a page.
      experts: how many units of each concept to show, its best.
      speaking: how many of these to read at every token.
      model: the run's model, or where it is, if the run's own name for it doesn't load it.
      sentences: the run's sentence sets, or their files, if they aren't where the run's config says.
      tokens: whether to read tokens at all: it takes about as long as recording the sentences did.
      compare: directories of further runs, to be shown in the same page and held beside this one, as `el.compare_runs`
        does it.
      progress: show bars.

    Returns:
      The page's file, `out/index.html`.

    Raises:
      RunDirectoryError: `run` is no run or has ranked no unit, or one of `compare` is; or `out` holds something else.
      SelectionError: `experts` or `speaking` is below 1.
      SelectionError: the runs that are compared have no sentences or no concepts in common.
      ConceptDataError, CheckpointError: `model` or `sentences` that can't be loaded, or aren't the run's.

    Warns:
      ExpertLensWarning: that the run isn't done, or of another version; what the page leaves out, and why.
    """
    return write_site(
        run,
        out,
        experts=experts,
        speaking=speaking,
        model=model,
        sentences=sentences,
        tokens=tokens,
        compare=compare,
        progress=progress,
    ).page


def write_site(
    run: epath.PathLike,
    out: epath.PathLike | None = None,
    *,
    experts: int = 100,
    speaking: int = 5,
    model: Model | epath.PathLike | None = None,
    sentences: Sequence[ConceptDataset | epath.PathLike] = (),
    tokens: bool = True,
    compare: Sequence[epath.PathLike] = (),
    live: bool = False,
    progress: bool = False,
) -> Site:
    """Write a page as `explore` does; with `live`, the models are loaded whether or not tokens are read.

    Raises:
      CheckpointError: `live`, and no table's model is found; and as `explore`.
    """
    for name, number in (("experts", experts), ("speaking", speaking)):
        if number < 1:
            raise SelectionError(f"{name} is {number}; wanted 1 or more units of each concept.")
    compare = [compare] if isinstance(compare, str | os.PathLike) else list(compare)
    directories = [epath.Path(each) for each in (run, *compare)]
    runs = dict(zip(name_runs(directories), map(read_run, directories), strict=True))
    main, found = next(iter(runs.items()))
    groups = match_tables(runs) if compare else {}
    common = {name: common_concepts(tables) for name, tables in groups.items()}
    site = found.directory / "explore" if out is None else epath.Path(out)
    check_no_other_files(site)
    given = load_given(model, sentences)
    check_given(given, [table.expertise for each in runs.values() for table in each.tables])
    shown = {
        f"t{number}": (name, table)
        for number, (name, table) in enumerate((name, table) for name, each in runs.items() for table in each.tables)
    }

    loaded: dict[tuple[str, str], tuple[Model | None, str]] = {}

    def model_of(table_id: str) -> tuple[Model | None, str]:
        """Return a table's model, loaded once for all tables of one network."""
        name, table = shown[table_id]
        network = str(table.expertise.attrs.get("model")), str(table.expertise.attrs.get("weights"))
        if network not in loaded:
            loaded[network] = find_model(table.expertise, given, runs[name].config)
        return loaded[network]

    if live and not any(model_of(table_id)[0] for table_id in shown):
        raise CheckpointError(f"a live page needs the run's model: {model_of(next(iter(shown)))[1]}. {_GIVE_MODEL}")
    clear(site)
    rated = found.rated if len(found.rated) else _packaged_ratings()
    notes = [note if name == main else f"{name}: {note}" for name, each in runs.items() for note in each.notes]
    entries = []
    for table_id, (name, table) in shown.items():
        concepts, why_not = find_sentences(table.expertise, given, runs[name].config, runs[name].directory)
        told, reader = [why_not and f"Its sentences aren't shown: {why_not}. Give them with --sentences."], None
        if live or (tokens and concepts is not None):
            reader, why_not = model_of(table_id)
            told.append(why_not and f"What units say at each token isn't shown: {why_not}. {_GIVE_MODEL}")
        title = f"{name}: {table.title}" if compare else table.title
        notes += [f"{title}: {each}" for each in told if each]
        bounds = Bounds(experts, speaking, progress)
        entry = write_table(site, table_id, table, concepts, reader if tokens else None, rated, bounds)
        entries.append(entry | {"title": title, "run": name})
    unread = [] if tokens else ["What units say at each token isn't shown: it wasn't asked for."]
    ids = {id(table): table_id for table_id, (_, table) in shown.items()}
    compared = write_compared(site, runs, groups, common, ids) if compare else None
    index = write_page(site, found, entries, [*notes, *unread], compared)
    tell_notes(notes)
    models = {}
    for table_id, (_, table) in shown.items() if live else ():
        reader, _ = model_of(table_id)
        if reader is not None:
            models[table_id] = table, reader
    return Site(site / "index.html", index, models)


def check_no_other_files(site: epath.Path) -> None:
    """Check that a folder holds nothing but a page of before.

    Raises:
      RunDirectoryError: it does, or it is a file.
    """
    if not site.exists():
        return
    if not site.is_dir():
        raise RunDirectoryError(f"{site} is a file, and a page is a folder. Choose another --out.")
    page = site / "index.html"
    if any(site.iterdir()) and not (page.exists() and _MARKER in page.read_text()):
        raise RunDirectoryError(f"{site} holds files that aren't a page to explore a run. Choose another --out.")


def clear(site: epath.Path) -> None:
    """Make the folder, without the data of a page of before."""
    site.mkdir(parents=True, exist_ok=True)
    for name in ("data", "figures", "numbers"):
        if (site / name).exists():
            (site / name).rmtree()
    # The page first: a launch that is killed leaves a folder that the next one knows as its own.
    _copy_page(site)


def _copy_page(site: epath.Path) -> None:
    def copy(source: Any, target: epath.Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for each in source.iterdir():
            if each.is_dir():
                copy(each, target / each.name)
            else:
                (target / each.name).write_bytes(each.read_bytes())

    copy(importlib.resources.files("expertlens_jax.explorer") / "page", site)


def _packaged_ratings() -> pd.DataFrame:
    """Return the ratings that ship with the package, for a run that has none of its own."""
    ratings: Ratings = load_ratings(_PACKAGED_RATINGS)
    words = pd.DataFrame(list(ratings.pairs), columns=["word_1", "word_2"])
    return words.assign(rating=ratings.scores, ratings=ratings.name)


def write_page(
    site: epath.Path,
    run: Run,
    entries: Sequence[dict[str, Any]],
    notes: Sequence[str],
    compared: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Write the index, which the page loads first, and copy the run's figures and report beside it.

    Returns:
      What is in the index.
    """
    figures, numbers = copy_figures(site, run), copy_numbers(site, run)
    report = run.directory / "report.html"
    if report.exists():
        (site / "report.html").write_text(link_report(report.read_text()))
    index = {
        "version": expertlens_jax.__version__,
        "run": run.directory.resolve().name,
        "kind": run.kind,
        "started": str(run.environment.get("started", "")),
        "notes": list(notes),
        "leftOut": list(run.left_out),
        "tables": list(entries),
        "alignment": rows_of(run.alignment),
        "conclusions": rows_of(run.conclusions),
        "experiments": rows_of(run.experiments),
        "figures": figures,
        "numbers": numbers,
        "report": report.exists(),
        "compared": compared,
        "live": None,
    }
    write_chunk(site, "index", index)
    return index


def parts_of(run: Run) -> dict[str, epath.Path]:
    """Return the folders of a run that hold results: its experiments by name, or itself as ""."""
    if run.kind != REPRODUCE:
        return {"": run.directory}
    names = [] if run.experiments is None else run.experiments["experiment"]
    return {str(each): run.directory / str(each) for each in names}


def copy_figures(site: epath.Path, run: Run) -> dict[str, str]:
    """Copy the run's figures (SVG); return their places in the site by `experiment/figure`, or `figure` alone."""
    copied = {}
    for name, directory in {"": run.directory, **parts_of(run)}.items():
        prefix, folder = f"{name}/" if name else "", directory / "figures"
        for figure in sorted(folder.iterdir()) if folder.is_dir() else ():
            if figure.suffix == ".svg":
                copied[f"{prefix}{figure.stem}"] = _copy(figure, site, f"figures/{prefix}{figure.name}")
    return copied


def copy_numbers(site: epath.Path, run: Run) -> dict[str, list[str]]:
    """Copy the tables (CSV) that an experiment's verdicts rest on; return their places in the site by experiment."""
    copied: dict[str, list[str]] = {}
    for name, directory in parts_of(run).items():
        prefix = f"{name}/" if name else ""
        for table in sorted(directory.iterdir()) if directory.is_dir() else ():
            if table.suffix == ".csv" and table.name not in _TOLD and table.stat().length <= _LARGEST_TABLE:
                copied.setdefault(name, []).append(_copy(table, site, f"numbers/{prefix}{table.name}"))
    return copied


def _copy(file: epath.Path, site: epath.Path, place: str) -> str:
    target = site / place
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(file.read_bytes())
    return place
