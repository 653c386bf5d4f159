"""A site of plain files that shows a run: its concepts, units, pairs, maps, sentences and verdicts."""

import importlib.resources
import json
from collections.abc import Sequence
from typing import Any

import pandas as pd
from etils import epath

import expertlens_jax
from expertlens_jax.data.concepts import ConceptDataset
from expertlens_jax.data.ratings import Ratings, load_ratings
from expertlens_jax.errors import RunDirectoryError, SelectionError
from expertlens_jax.explorer.chunks import write_chunk
from expertlens_jax.explorer.runs import REPRODUCE, Run, read_run, tell_notes
from expertlens_jax.explorer.sources import check_given, find_model, find_sentences, load_given
from expertlens_jax.explorer.tables import Bounds, write_table
from expertlens_jax.models.model import Model

_MARKER = "expertlens-explore"
_PACKAGED_RATINGS = "wordsim353"


def explore(
    run: epath.PathLike,
    out: epath.PathLike | None = None,
    *,
    experts: int = 100,
    speaking: int = 5,
    model: Model | epath.PathLike | None = None,
    sentences: Sequence[ConceptDataset | epath.PathLike] = (),
    tokens: bool = True,
    progress: bool = False,
) -> epath.Path:
    """Write a page to explore a run: its concepts, units, pairs, sentences and verdicts, each view with its own link.

    >>> import tempfile
    >>> import expertlens_jax as el
    >>> run, model = tempfile.mkdtemp(), el.load_model("lenslet-2m")
    >>> concepts = el.load_concepts("facts").subset(["cat", "dog", "tiger"])
    >>> expertise = el.find_experts(model, concepts, run, permutations=0)
    >>> page = el.explore(run)  # or el.explore(run, out="site")
    >>> page.name, page.parent.name  # open it in a browser
    ('index.html', 'explore')

    The page is a folder of plain files. It opens from the file system and from any web host, needs no network, and
    loads data as it is looked at. Of each concept it shows the `experts` units with the highest average precision;
    all that is counted (experts at each τ, where they are, overlaps) is counted over all units.

    Sentences show what the best units say at each token where the sentences and the model can be had: the run's own,
    if they ship with the package or are still where the run's config says, or those given here. What isn't what the run
    was measured with is refused, and what can't be had is left out; the page says so, and shows all else.

    Args:
      run: the directory of a run: of `el.find_experts`, of `expertlens find`, `align`, `reproduce` or another
        experiment.
      out: the folder to write; default `explore` in the run. One that is there is replaced if it holds such a page.
      experts: how many units of each concept to show, its best.
      speaking: how many of these to read at every token.
      model: the run's model, or where it is, if the run's own name for it doesn't load it.
      sentences: the run's sentence sets, or their files, if they aren't where the run's config says.
      tokens: whether to read tokens at all: it takes about as long as recording the sentences did.
      progress: show bars.

    Returns:
      The page's file, `out/index.html`.

    Raises:
      RunDirectoryError: `run` is no run or has ranked no unit; or `out` holds something else.
      SelectionError: `experts` or `speaking` is below 1.
      ConceptDataError, CheckpointError: `model` or `sentences` that can't be loaded, or aren't the run's.

    Warns:
      ExpertLensWarning: that the run isn't done, or of another version; what the page leaves out, and why.
    """
    for name, number in (("experts", experts), ("speaking", speaking)):
        if number < 1:
            raise SelectionError(f"{name} is {number}; wanted 1 or more units of each concept.")
    found = read_run(run)
    site = found.directory / "explore" if out is None else epath.Path(out)
    check_no_other_files(site)
    given = load_given(model, sentences)
    check_given(given, found.tables)

    clear(site)
    rated = found.rated if len(found.rated) else _packaged_ratings()
    notes, entries, loaded = list(found.notes), [], {}
    for number, table in enumerate(found.tables):
        concepts, why_not = find_sentences(table, given, found.config, found.directory)
        told, reader = [why_not], None
        if tokens and concepts is not None:
            key = table.expertise.attrs.get("model"), table.expertise.attrs.get("weights")
            if key not in loaded:
                loaded[key] = find_model(table, given, found.config)
            reader, why_not = loaded[key]
            told.append(why_not)
        notes += [f"{table.title}: {each}" for each in told if each]
        bounds = Bounds(experts, speaking, progress)
        entries.append(write_table(site, f"t{number}", table, concepts, reader, rated, bounds))
    unread = [] if tokens else ["What units say at each token isn't shown: it wasn't asked for."]
    write_page(site, found, entries, [*notes, *unread])
    tell_notes(notes)
    return site / "index.html"


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
    for name in ("data", "figures"):
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
    """The ratings that ship with the package, for a run that has none of its own."""
    ratings: Ratings = load_ratings(_PACKAGED_RATINGS)
    words = pd.DataFrame(list(ratings.pairs), columns=["word_1", "word_2"])
    return words.assign(rating=ratings.scores, ratings=ratings.name)


def write_page(site: epath.Path, run: Run, entries: Sequence[dict[str, Any]], notes: Sequence[str]) -> None:
    """Write the index, which the page loads first, and copy the run's figures and report beside it."""
    figures = copy_figures(site, run)
    report = run.directory / "report.html"
    if report.exists():
        (site / "report.html").write_bytes(report.read_bytes())
    write_chunk(
        site,
        "index",
        {
            "version": expertlens_jax.__version__,
            "run": run.directory.resolve().name,
            "kind": run.kind,
            "started": str(run.environment.get("started", "")),
            "notes": list(notes),
            "leftOut": list(run.left_out),
            "tables": list(entries),
            "alignment": _rows(run.alignment),
            "conclusions": _rows(run.conclusions),
            "experiments": _rows(run.experiments),
            "figures": figures,
            "report": report.exists(),
        },
    )


def copy_figures(site: epath.Path, run: Run) -> dict[str, str]:
    """Copy the run's figures (SVG); return their places in the site by `experiment/figure`, or `figure` alone."""
    parts = {"": run.directory}
    if run.kind == REPRODUCE:
        names = [] if run.experiments is None else run.experiments["experiment"]
        parts = {f"{each}/": run.directory / each for each in names}
    copied = {}
    for prefix, directory in parts.items():
        folder = directory / "figures"
        for figure in sorted(folder.iterdir()) if folder.is_dir() else ():
            if figure.suffix == ".svg":
                target = site / "figures" / f"{prefix}{figure.name}"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(figure.read_bytes())
                copied[f"{prefix}{figure.stem}"] = f"figures/{prefix}{figure.name}"
    return copied


def _rows(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    return [] if table is None else json.loads(table.to_json(orient="records", double_precision=10))
