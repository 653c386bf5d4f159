"""What a run directory holds that a page can show: its tables of expertise, ratings, alignments and verdicts.

Three kinds of launches write run directories: `find_experts` (one table), `reproduce` (many experiments, with
verdicts), and each other experiment (tables in `expertise/`, and CSV files of its own).
"""

import dataclasses
import json
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import xarray as xr
from etils import epath

import expertlens_jax
from expertlens_jax.errors import ExpertLensError, ExpertLensWarning, RunDirectoryError
from expertlens_jax.experts.table import STORE, open_expertise
from expertlens_jax.models.provenance import NUMBERS_VERSION

FIND, REPRODUCE, OTHER = "find_experts", "reproduce", "experiment"
_TABLES = "expertise"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of expertise of a run, opened and not read."""

    name: str
    """The name of its directory."""
    expertise: xr.Dataset
    halves: xr.Dataset | None = None
    """Where average precision in each half of the sentences is: this table or another of the same responses."""
    random: Mapping[str, xr.Dataset] = dataclasses.field(default_factory=dict)
    """Tables of the same network with random weights, of the same sentences, by name."""

    @property
    def title(self) -> str:
        """The model and the sentences, for people."""
        attributes = self.expertise.attrs
        return f"{attributes.get('model', self.name)}, {attributes.get('sentences', 'unnamed sentences')}"


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory, as far as a page shows it."""

    directory: epath.Path
    kind: str
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    """Of the last launch."""
    tables: Sequence[Table]
    left_out: Sequence[str]
    """Directories of tables that aren't shown."""
    notes: Sequence[str]
    """What a reader must know: what isn't done, what another version wrote."""
    rated: pd.DataFrame
    """Columns `word_1, word_2, rating, ratings`: the run's rated pairs, each once; empty if there are none."""
    alignment: pd.DataFrame | None
    """`alignment.csv`."""
    conclusions: pd.DataFrame | None
    """`conclusions.csv`."""
    experiments: pd.DataFrame | None
    """`experiments.csv`: how far each is."""


def read_run(directory: epath.PathLike) -> Run:
    """Read what a run directory holds, finished or not.

    Raises:
      RunDirectoryError: there is no such directory; it is no run; or none of its tables has a ranked unit.
    """
    directory = epath.Path(directory)
    config = _read_json(directory, "config.json", dict)
    launches = _read_json(directory, "environment.json", list) if (directory / "environment.json").exists() else []
    environment = launches[-1] if launches and isinstance(launches[-1], dict) else {}
    kind = _kind(directory, config)
    notes: list[str] = []
    opened = _open_tables(directory, kind, config, notes)
    tables, left_out = _choose(opened, kind, config)
    notes += _notes_of_versions(tables)
    experiments = _read_csv(directory / "experiments.csv", notes)
    if kind == REPRODUCE:
        notes += _notes_of_experiments(experiments, config)
    questions = directory / "alignment" if kind == REPRODUCE else directory
    alignment = _read_csv(questions / "alignment.csv", notes)
    if kind == OTHER and "ratings" in config and alignment is None and directory.name in ("", "alignment"):
        notes.append("The alignment with human ratings isn't there: the run isn't done. Launch it again to go on.")
    return Run(
        directory=directory,
        kind=kind,
        config=config,
        environment=environment,
        tables=tables,
        left_out=left_out,
        notes=notes,
        rated=_rated_pairs(_read_csv(questions / "pairs.csv", notes)),
        alignment=alignment,
        conclusions=_read_csv(directory / "conclusions.csv", notes),
        experiments=experiments,
    )


def tell_notes(notes: Sequence[str]) -> None:
    """Warn the caller's caller of what a reader must know."""
    for note in notes:
        warnings.warn(note, ExpertLensWarning, stacklevel=3)


def _read_json(directory: epath.Path, name: str, kind: type) -> Any:
    if not directory.is_dir():
        raise RunDirectoryError(
            f"there is no directory {directory}. Give the workdir of a run, of `expertlens find`, `align` or "
            "`reproduce`, or of el.find_experts."
        )
    if not (directory / name).exists():
        raise RunDirectoryError(
            f"{directory} is no run directory: it has no {name}. Give the workdir of a run, of `expertlens find`, "
            "`align` or `reproduce`, or of el.find_experts."
        )
    try:
        read = json.loads((directory / name).read_text())
    except ValueError:  # not JSON, or not even text
        read = None
    if not isinstance(read, kind):
        raise RunDirectoryError(f"{directory / name} is none that a run wrote. Give the workdir of a run.")
    return read


def _kind(directory: epath.Path, config: Mapping[str, Any]) -> str:
    if (directory / STORE).exists() or "contrast_sha256" in config:
        return FIND
    asked = config.get("experiments", ())
    begun = any((directory / str(name) / "config.json").exists() for name in asked)
    return REPRODUCE if begun or (directory / "experiments.csv").exists() else OTHER


def _open_tables(
    directory: epath.Path, kind: str, config: Mapping[str, Any], notes: list[str]
) -> dict[epath.Path, xr.Dataset]:
    """Return the tables that have ranked units, by their directories; of the others, a note."""
    if kind == FIND:
        return {directory: _open(directory, notes)}
    stated = [epath.Path(config["expertise"])] if config.get("expertise") else []
    roots = [root for root in (*stated, directory / _TABLES, directory.parent / _TABLES) if root.is_dir()]
    found = sorted(path for path in (roots[0].iterdir() if roots else ()) if (path / STORE).exists())
    opened = {}
    for path in found:
        try:
            opened[path] = _open(path, notes)
        except ExpertLensError as error:
            notes.append(_sentence(str(error)))
    if not opened:
        raise RunDirectoryError(
            f"{directory} has no table of expertise to show{' yet' if 'model' in config else ''}. "
            + (" ".join(notes) or "Launch the run again to go on with it, or give the workdir of another.")
        )
    return opened


def _open(path: epath.Path, notes: list[str]) -> xr.Dataset:
    """Return a table; that it isn't done becomes a note."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        expertise = open_expertise(path)
    for each in told:
        if issubclass(each.category, ExpertLensWarning):
            notes.append(_sentence(str(each.message)))
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    return expertise


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _choose(
    opened: Mapping[epath.Path, xr.Dataset], kind: str, config: Mapping[str, Any]
) -> tuple[list[Table], list[str]]:
    """Return the tables of the run's own model and sentences, and the rest by name.

    Each has its halves and controls.
    """
    if kind == FIND:
        ((path, expertise),) = opened.items()
        halves = expertise if "average_precision_halves" in expertise else None
        return [Table(path.resolve().name, expertise, halves)], []
    own = {path: each for path, each in opened.items() if _is_own(each.attrs, config)}
    plain = {path: each for path, each in own.items() if "average_precision_halves" not in each}
    chosen = plain or own or opened
    tables, used = [], set()
    for path, expertise in chosen.items():
        same = {
            other: each
            for other, each in opened.items()
            if each.attrs.get("sentences_sha256") == expertise.attrs.get("sentences_sha256")
            and list(each["concept"].values) == list(expertise["concept"].values)
            and _settings(each.attrs) == _settings(expertise.attrs)
        }
        model = str(expertise.attrs.get("model", ""))
        halves = {
            other: each
            for other, each in same.items()
            if "average_precision_halves" in each
            and each.attrs.get("weights") == expertise.attrs.get("weights")
            and each.sizes["unit"] == expertise.sizes["unit"]
        }
        random = {o: each for o, each in same.items() if str(each.attrs.get("model")).startswith(f"{model}-random")}
        used |= {path, *halves, *random}
        named = {str(each.attrs["model"]): each for each in random.values()}
        tables.append(Table(path.name, expertise, next(iter(halves.values()), None), named))
    return tables, sorted(path.name for path in opened if path not in used)


def _settings(attributes: Mapping[str, Any]) -> list[Any]:
    names = (
        *("negatives_per_positive", "exclude_mentions", "sampled", "seed"),
        *("pool_over", "pooling", "significant_bits", "saes", "sites"),
    )
    return [attributes.get(name, {"pool_over": "all"}.get(name, "")) for name in names]


def _is_own(attributes: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Return whether a table is of the config's model and sentences, at its settings, and not of a control."""
    model, revision = str(config.get("model", "")).removesuffix("/"), config.get("revision") or ""
    called = {model, pathlib.PurePosixPath(model).name}
    called |= {f"{name}@{revision}" for name in called} if revision else set()
    sentences = config.get("sentences", ())
    sets = [sentences] if isinstance(sentences, str) else sentences
    named = {_stem(str(each)) for each in sets}
    alike = all(
        name not in config or name not in attributes or attributes[name] == config[name]
        for name in ("negatives_per_positive", "exclude_mentions", "sampled", "seed")
    )
    plain = attributes.get("pool_over", "all") == "all" and not attributes.get("saes")
    return attributes.get("model") in called and attributes.get("sentences") in named and alike and plain


def _stem(path: str) -> str:
    name = pathlib.PurePosixPath(path).name
    return name.rpartition(".")[0] or name


def _notes_of_versions(tables: Sequence[Table]) -> list[str]:
    """Of each version other than this one that wrote tables, a note that names it."""
    by_version: dict[tuple[str, bool], list[str]] = {}
    for table in tables:
        attributes = table.expertise.attrs
        package, alike = str(attributes.get("package", "")), attributes.get("numbers_version") == NUMBERS_VERSION
        if package != expertlens_jax.__version__ or not alike:
            by_version.setdefault((package, alike), []).append(table.name)
    notes = []
    for (package, alike), names in by_version.items():
        wrote = f"version {package}" if package else "an early version, which doesn't name itself,"
        notes.append(
            f"{', '.join(names)}: written by {wrote} of expertlens_jax; this page by version "
            f"{expertlens_jax.__version__}, which reads the same files and settings "
            + ("alike." if alike else "otherwise: its numbers may be others.")
        )
    return notes


def _notes_of_experiments(experiments: pd.DataFrame | None, config: Mapping[str, Any]) -> list[str]:
    """Return what of a run of all experiments isn't done."""
    asked = list(dict.fromkeys(map(str, config.get("experiments", ()))))
    states = {} if experiments is None else dict(zip(experiments["experiment"], experiments["state"], strict=True))
    waiting = [name for name in asked if states.get(name, "waiting") == "waiting"]
    failed = [name for name in asked if states.get(name) == "failed"]
    notes = []
    if waiting:
        notes.append(f"The run isn't done: {', '.join(waiting)} didn't run yet. Launch it again to go on with it.")
    if failed:
        notes.append(f"Stopped with an error: {', '.join(failed)}. The reasons are under Verdicts.")
    return notes


def _read_csv(path: epath.Path, notes: list[str]) -> pd.DataFrame | None:
    """Return a table, or None if it isn't there, is empty, or can't be read (which is noted)."""
    if not path.exists():
        return None
    try:
        with path.open() as file:
            return pd.read_csv(file)
    except pd.errors.EmptyDataError:
        return None
    except (ValueError, UnicodeDecodeError) as error:
        notes.append(f"{path.name} can't be read ({error}); it is left out.")
        return None


def _rated_pairs(pairs: pd.DataFrame | None) -> pd.DataFrame:
    columns = ["word_1", "word_2", "rating", "ratings"]
    if pairs is None or not set(columns) <= set(pairs.columns):
        return pd.DataFrame(columns=columns)
    return pairs[columns].drop_duplicates().reset_index(drop=True)
