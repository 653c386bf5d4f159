"""Runs side by side: what they were told, what each found, and which verdicts change."""

import functools
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from etils import epath

from expertlens_jax import plot
from expertlens_jax.analysis.conditions.side_by_side import compare_concepts, measure_agreement
from expertlens_jax.analysis.given import given_ratings
from expertlens_jax.analysis.result import Result, interval
from expertlens_jax.analysis.similarity.comparison import compare_alignments
from expertlens_jax.cards import counted, listed
from expertlens_jax.data.ratings import Ratings, load_ratings
from expertlens_jax.data.rows import each_row
from expertlens_jax.errors import RunDirectoryError, SelectionError
from expertlens_jax.experts.selection import check_threshold
from expertlens_jax.explorer.runs import Run, Table, read_run, tell_notes
from expertlens_jax.models.provenance import setting_defaults
from expertlens_jax.report.pages import Page
from expertlens_jax.run_directory import settings_apart, write_csv, write_text

PACKAGED_RATINGS = "wordsim353"
REPORT, FIGURE = "comparison.html", "runs"
_MARKER = "expertlens-compare"
_SETTINGS = 5
"""So many of those that differ are in the summary."""


def compare_runs(
    *runs: epath.PathLike,
    threshold: float = 0.5,
    ratings: Ratings | str | Sequence[Ratings | str] | None = None,
    out: epath.PathLike | None = None,
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
) -> Result:
    """Compare runs: of two models, revisions, sentence sets or settings. All are compared with the first.

    >>> import tempfile
    >>> import expertlens_jax as el
    >>> concepts, runs = el.load_concepts("facts").subset(["cat", "dog", "car", "train"]), tempfile.mkdtemp()
    >>> for name in ("lenslet-2m", "lenslet-2m-seed1"):
    ...     table = el.find_experts(el.load_model(name), concepts, f"{runs}/{name}", sites="attn.v", permutations=0)
    >>> compared = el.compare_runs(f"{runs}/lenslet-2m", f"{runs}/lenslet-2m-seed1", permutations=99)
    >>> compared.table["concept"].tolist(), sorted(compared.tables)
    (['cat', 'dog', 'car', 'train'], ['agreement', 'alignment', 'settings', 'verdicts'])
    >>> compared.tables["settings"]["setting"].tolist()
    ['model', 'weights']

    Args:
      runs: the directories of two or more runs, of `el.find_experts` or of `expertlens find`, `align`, `reproduce` or
        another experiment. Of runs with several sets of sentences, those that all have are compared.
      threshold: τ, of average precision: which units are a concept's experts.
      ratings: human ratings to align the overlaps with, or the name or file of some, or several of them; default the
        runs' own, and if they have none, WordSim-353.
      out: a folder to write tables (CSV), the figure and a page into; default none.
      resamples: draws of the intervals.
      permutations: draws of the p-values.
      seed: of the draws.

    Returns:
      A `Result`. Its table has a row per sentence set, concept and further run: `sentences`, `run` (the first),
      `other`, and what `analysis.conditions.side_by_side.compare_concepts` gives: `experts`, `other_experts`,
      `best_ap`, `other_best_ap`, `overlap` of the concept's experts with its experts in the other run (where the units
      are the same), `chance` of that, and `neighbours`, the correlation of its overlaps with other concepts. The other
      tables:

        `settings`: what differs of settings and provenance, a column per run.
        `agreement`: the correlation of the overlap matrices and the mean overlap of experts, with 95% intervals.
        `alignment`: both correlations with people's ratings, and their difference.
        `verdicts`: each claim that a run put to the test, its verdict in each run, and whether it changes.

      Its figure draws all of these that are numbers.

    Raises:
      RunDirectoryError: fewer than two runs, one twice, no run, or one that has ranked no unit; `out` holds others'
        files.
      SelectionError: the runs have no sentence set or no concept in common, or the threshold isn't in [0, 1].
      RatingsError: see `load_ratings`.

    Warns:
      ExpertLensWarning: a run isn't done, or of another version: what there is of it is compared.
    """
    threshold = check_threshold(threshold)
    if len(runs) < 2:
        raise RunDirectoryError(f"{counted(len(runs), 'run')} was given; wanted two or more directories of runs.")
    found = [read_run(each) for each in runs]
    names = name_runs([each.directory for each in found])
    target = None if out is None else check_folder(epath.Path(out))
    groups = match_tables(dict(zip(names, found, strict=True)))
    rated = _ratings_of(found, ratings)
    draws = {"resamples": resamples, "seed": seed}
    parts: dict[str, list[pd.DataFrame]] = {"concepts": [], "agreement": [], "alignment": [], "pairs": []}
    left_out = []
    for sentences, tables in groups.items():
        common = common_concepts(tables)
        left_out += _left_out(tables, common)
        (first, of_first), *others = ((name, each.expertise.sel(concept=common)) for name, each in tables.items())
        for other, of_other in others:
            place = {"sentences": sentences, "run": first, "other": other}
            compared = compare_concepts(of_first, of_other, threshold)
            concepts, matrices = compared
            agreement = measure_agreement(compared, permutations=permutations, **draws)
            parts["concepts"].append(concepts.assign(**place))
            parts["agreement"].append(pd.DataFrame([place | agreement]))
            parts["pairs"].append(_pairs(matrices).assign(**place))
            parts["alignment"] += [
                compare_alignments(
                    matrices["overlap"], {"": matrices["other_overlap"].rename("overlap")}, each, seed=seed
                ).assign(**place, ratings=each.name)
                for each in rated
            ]
    table, agreement, pairs = (
        _front(pd.concat(parts[name], ignore_index=True), "sentences", "run", "other")
        for name in ("concepts", "agreement", "pairs")
    )
    alignment = _front(pd.concat(parts["alignment"], ignore_index=True), "sentences", "ratings", "run", "other")
    alignment = alignment.rename(columns={"baseline_spearman": "other_spearman"}).drop(columns=["baseline", "p_holm"])
    tables = {
        "settings": compare_settings(dict(zip(names, found, strict=True)), groups),
        "agreement": agreement,
        "alignment": alignment,
        "verdicts": compare_verdicts(dict(zip(names, found, strict=True))),
    }
    sentences = _sentences(names, table, tables, threshold)
    notes = [f"{name}: {note}" for name, run in zip(names, found, strict=True) for note in run.notes]
    result = Result(
        "compare_runs",
        table,
        (*sentences, *dict.fromkeys(left_out), *notes),
        {FIGURE: functools.partial(plot.runs, table, pairs, agreement, alignment, threshold=threshold)},
        tables,
    )
    tell_notes(notes)
    if target is not None:
        save_comparison(result, target)
    return result


def name_runs(directories: Sequence[epath.Path]) -> list[str]:
    """Return a name of each directory: its last part, and as many of those before it as tell it from the others.

    Raises:
      RunDirectoryError: one is there twice.
    """
    paths = [os.fspath(each.resolve()) for each in directories]
    for path in paths:
        if paths.count(path) > 1:
            raise RunDirectoryError(f"{path} was given twice; wanted the directories of different runs.")
    parts = [path.split("/") for path in paths]
    length = 1
    while len({tuple(each[-length:]) for each in parts}) < len(parts):
        length += 1
    return ["/".join(each[-length:]) for each in parts]


def match_tables(runs: Mapping[str, Run]) -> dict[str, dict[str, Table]]:
    """Return, by sentence set, each run's table of it: of runs with one table each that table, whatever its sentences.

    Raises:
      SelectionError: no sentence set is in all of them.
    """
    by_sentences = {
        name: {str(table.expertise.attrs.get("sentences", table.name)): table for table in reversed(run.tables)}
        for name, run in runs.items()
    }
    if all(len(tables) == 1 for tables in by_sentences.values()):
        called = dict.fromkeys(sentences for tables in by_sentences.values() for sentences in tables)
        return {" / ".join(called): {name: next(iter(tables.values())) for name, tables in by_sentences.items()}}
    first = list(reversed(next(iter(by_sentences.values()))))
    common = [each for each in first if all(each in tables for tables in by_sentences.values())]
    if not common:
        have = "; ".join(f"{name} has {', '.join(reversed(tables))}" for name, tables in by_sentences.items())
        raise SelectionError(
            f"these runs have no set of sentences in common ({have}), so nothing can be held side by side. Give runs "
            "of the same set, or of each run the one table that is meant, RUN/expertise/NAME."
        )
    return {each: {name: tables[each] for name, tables in by_sentences.items()} for each in common}


def common_concepts(tables: Mapping[str, Table]) -> list[str]:
    """Return the concepts that all tables have, in the first one's order.

    Raises:
      SelectionError: there are none.
    """
    names = {name: [str(each) for each in table.expertise["concept"].values] for name, table in tables.items()}
    first = next(iter(names.values()))
    common = [each for each in first if all(each in others for others in names.values())]
    if not common:
        have = "; ".join(f"{name} has {listed(concepts, 5)}" for name, concepts in names.items())
        raise SelectionError(f"these runs have no concept in common ({have}), so nothing can be held side by side.")
    return common


def _left_out(tables: Mapping[str, Table], common: Sequence[str]) -> list[str]:
    """Of each run, the concepts that another lacks."""
    told = []
    for name, table in tables.items():
        more = [str(each) for each in table.expertise["concept"].values if str(each) not in set(common)]
        if more:
            told.append(f"{name} has {counted(len(more), 'further concept')}, which not all have: {listed(more, 5)}.")
    return told


def _ratings_of(runs: Sequence[Run], ratings: Ratings | str | Sequence[Ratings | str] | None) -> list[Ratings]:
    """Return the ratings that were given, the runs' own, or those that ship with the package."""
    if ratings is not None:
        return given_ratings(ratings)
    own = pd.concat([each.rated for each in runs], ignore_index=True)
    if own.empty:
        return [load_ratings(PACKAGED_RATINGS)]
    found = []
    for name, rows in own.groupby("ratings", sort=False):
        scores: dict[frozenset[str], tuple[tuple[str, str], float]] = {}
        for row in each_row(rows):
            pair = str(row.word_1), str(row.word_2)
            scores.setdefault(frozenset(pair), (pair, float(row.rating)))
        pairs, values = zip(*scores.values(), strict=True)
        found.append(Ratings(str(name), pairs, np.array(values, np.float64)))
    return found


def _pairs(matrices: xr.Dataset) -> pd.DataFrame:
    """Overlap of each pair of concepts in both runs."""
    names = matrices["concept"].values
    first, second = np.triu_indices(len(names), 1)
    values = {name: matrices[name].values[first, second] for name in ("overlap", "other_overlap")}
    return pd.DataFrame({"concept_1": names[first], "concept_2": names[second]} | values)


def _front(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return table[[*columns, *(name for name in table if name not in columns)]]


def compare_settings(runs: Mapping[str, Run], groups: Mapping[str, Mapping[str, Table]]) -> pd.DataFrame:
    """Return what differs of settings and provenance: `sentences` (if of one set alone), `setting`, a column per run.

    Compared are what each table says of itself, the sizes of the tables, the runs' configs where one kind of launch
    wrote them, and the versions, devices and commit of their last launch.
    """
    rows = []
    told: set[str] = set()
    for sentences, tables in groups.items():
        said = [_said(table.expertise) for table in tables.values()]
        told |= {name for each in said for name in each}
        different = settings_apart(said, _stated(setting_defaults(), said))
        rows += [(sentences if len(groups) > 1 else "", name, *values) for name, values in different.items()]
    if len({run.kind for run in runs.values()}) == 1:
        configs = [{name: value for name, value in run.config.items() if name not in told} for run in runs.values()]
        rows += [
            ("", name, *values) for name, values in settings_apart(configs).items() if not name.startswith("sentences")
        ]
    environments = [
        {name: value for name, value in run.environment.items() if name != "started"} for run in runs.values()
    ]
    rows += [("", name, *values) for name, values in settings_apart(environments).items()]
    return pd.DataFrame(rows, columns=["sentences", "setting", *runs])


def _said(expertise: xr.Dataset) -> dict[str, Any]:
    """Return what a table says of itself, nested as configs are, and its sizes."""
    said: dict[str, Any] = {}
    for name, value in expertise.attrs.items():
        value = value.item() if isinstance(value, np.generic) else value
        structured = isinstance(value, str) and value[:1] in ("{", "[")
        said[name] = json.loads(value) if structured else value
    return said | {"number of concepts": expertise.sizes["concept"], "number of units": expertise.sizes["unit"]}


def _stated(defaults: Mapping[str, Any], configs: Sequence[Any]) -> dict[str, Any]:
    """Return the defaults of the settings that any of the configs states; what all leave out can't differ."""
    nested = [each for each in configs if isinstance(each, dict)]
    return {
        name: _stated(value, [each.get(name) for each in nested]) if isinstance(value, Mapping) else value
        for name, value in defaults.items()
        if any(name in each for each in nested)
    }


def compare_verdicts(runs: Mapping[str, Run]) -> pd.DataFrame:
    """Return each claim that any run put to the test: `experiment`, `claim`, its verdict in each run, and `changes`.

    A claim that a run didn't test is "" there; it changes where two runs that did test it have other verdicts.
    """
    verdicts: dict[tuple[str, str, int], dict[str, str]] = {}
    for name, run in runs.items():
        if run.conclusions is None:
            continue
        table = run.conclusions.astype(object).where(run.conclusions.notna(), "")
        if "experiment" not in table:  # a run of one experiment
            table = table.assign(experiment="")
        numbers = table.groupby(["experiment", "claim"]).cumcount()
        for number, row in zip(numbers, table.to_dict("records"), strict=True):
            verdicts.setdefault((row["experiment"], row["claim"], number), {})[name] = row["verdict"]
    rows = [
        (experiment, claim, *(found.get(name, "") for name in runs), len(set(found.values())) > 1)
        for (experiment, claim, _), found in verdicts.items()
    ]
    return pd.DataFrame(rows, columns=["experiment", "claim", *runs, "changes"])


def _sentences(
    names: Sequence[str], table: pd.DataFrame, tables: Mapping[str, pd.DataFrame], threshold: float
) -> list[str]:
    """Return what a comparison says in a few sentences."""
    settings, verdicts = tables["settings"], tables["verdicts"]
    said = []
    all_of_them = f"{', '.join(names[:-1])} and {names[-1]}"
    shown = settings[~settings["setting"].str.endswith("sha256")]  # each follows from something that has a name
    if len(shown):
        of_network = shown["setting"].str.startswith("config.")
        shown = pd.concat([shown[~of_network], shown[of_network]])
        first = [f"{row[1]} ({', '.join(row[2:])})" for row in shown.head(_SETTINGS).itertuples(index=False)]
        more = f"; and {len(settings) - len(first)} more: tables['settings']" if len(settings) > len(first) else ""
        said.append(f"{all_of_them} differ in {'; '.join(first)}{more}.")
    elif not len(settings):
        said.append(f"{all_of_them} don't differ in any setting, and were measured with the same model and sentences.")
    for row in tables["agreement"].to_dict("records"):
        here = table[(table["sentences"] == row["sentences"]) & (table["other"] == row["other"])]
        about = f"{row['sentences']}, {row['run']} and {row['other']}"
        more, fewer = ((here["other_experts"] > here["experts"]).sum(), (here["other_experts"] < here["experts"]).sum())
        said.append(
            f"{about}: at τ = {threshold:g} a concept has {here['experts'].median():,.0f} and "
            f"{here['other_experts'].median():,.0f} experts (medians over {counted(len(here), 'concept')}); more in "
            f"{row['other']} for {more}, fewer for {fewer}. The best units' average precision is "
            f"{here['best_ap'].median():.3f} and {here['other_best_ap'].median():.3f}."
        )
        if np.isnan(row["overlap"]):
            said.append(f"{about} have no units in common, so whether experts are the same can't be asked.")
        else:
            said.append(
                f"{about}: a concept's experts overlap by "
                f"{interval(row, 'overlap', 'overlap_low', 'overlap_high')} (chance {row['chance']:.2g}, p = "
                f"{row['overlap_p']:.2g})."
            )
        told = interval(row, "spearman")
        said.append(
            f"{about}: the overlaps of {counted(row['pairs'], 'pair')} of concepts correlate by {told}"
            + ("." if np.isnan(row["p_value"]) else f" (chance 0, p = {row['p_value']:.2g}).")
        )
    said += [
        f"{row['sentences']}, {row['ratings']}: alignment is {row['spearman']:.3g} in {row['run']} and "
        f"{row['other_spearman']:.3g} in {row['other']}; the difference is {interval(row, 'difference')} (p = "
        f"{row['p_value']:.2g})."
        for row in tables["alignment"].to_dict("records")
        if not row["note"]
    ]
    short = {row["ratings"]: row["pairs"] for row in tables["alignment"].to_dict("records") if row["note"]}
    if short:
        pairs = ", ".join(f"{name} has {counted(number, 'pair')}" for name, number in short.items())
        said.append(f"Not enough pairs of these concepts were rated for an alignment: {pairs}.")
    changing = verdicts[verdicts["changes"]]
    if len(verdicts):
        said.append(f"{len(changing)} of {counted(len(verdicts), 'verdict')} change{'s' * (len(changing) == 1)}.")
        for row in changing.to_dict("records"):
            found = ", ".join(f"{row[name] or 'not tested'} in {name}" for name in names)
            said.append(f"{row['experiment']}{': ' * bool(row['experiment'])}{row['claim']} It is {found}.")
    return said


def check_folder(folder: epath.Path) -> epath.Path:
    """Return a folder that a comparison may be written into.

    Raises:
      RunDirectoryError: it is a file, or holds anything but a comparison of before.
    """
    if folder.exists() and not folder.is_dir():
        raise RunDirectoryError(f"{folder} is a file, and a comparison is a folder. Choose another --out.")
    page = folder / REPORT
    if folder.exists() and any(folder.iterdir()) and not (page.exists() and _MARKER in page.read_text()):
        raise RunDirectoryError(f"{folder} holds files that aren't a comparison of runs. Choose another --out.")
    return folder


def save_comparison(result: Result, folder: epath.Path) -> epath.Path:
    """Write a comparison's tables as CSV, its figure, and a page that binds them; return the page."""
    page = Page("Runs side by side")
    write_text(folder / REPORT, f"<!-- {_MARKER} -->")  # first, so that a folder of a killed launch is known
    for name, table in {"concepts": result.table, **result.tables}.items():
        write_csv(folder / f"{name}.csv", table)
    svg = plot.save_figure(result.plot(), folder / "figures" / FIGURE)[1]
    for sentence in result.sentences:
        page.paragraph(sentence)
    page.figure(svg, "Experts, their average precision, and the overlaps of concepts, in both runs")
    titles = {
        "settings": "What differs",
        "verdicts": "Verdicts",
        "agreement": "Agreement",
        "alignment": "Alignment with people's ratings",
    }
    for name, title in titles.items():
        if len(result.tables[name]):
            page.heading(title)
            page.table(result.tables[name])
    page.heading("Concepts")
    page.table(result.table)
    html = page.html().replace("<html", f"<!-- {_MARKER} -->\n<html", 1)
    write_text(folder / REPORT, html)
    return folder / REPORT
