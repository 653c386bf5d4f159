"""Concept sentences: which sentences hold each concept, read from whatever their user keeps them in."""

import collections
import dataclasses
import difflib
import os
import warnings
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Literal

import numpy as np
import pandas as pd
from etils import epath

from expertlens_jax.cards import counted
from expertlens_jax.data.axbench import axbench_columns, from_axbench, is_axbench
from expertlens_jax.data.concept_dataset import ConceptDataset
from expertlens_jax.data.gathering import NUMBER, Gathered, gather
from expertlens_jax.data.languages import check_language
from expertlens_jax.data.listed import listed_sentences, read_folder, read_json, read_mapping
from expertlens_jax.data.records import (
    Columns,
    Records,
    check_no_problems,
    column_name,
    read_records,
    suffix_of,
    text_column,
)
from expertlens_jax.data.tables import (
    HUB,
    is_dataset,
    is_hub_id,
    load_hub_dataset,
    read_dataset,
    read_frame,
    read_parquet,
    read_workbook,
)
from expertlens_jax.data.text import PackedFile, TextFile, find_file, tell_shadowed_file
from expertlens_jax.data.words import find_mentions, normal_name
from expertlens_jax.errors import BudgetError, ConceptDataError, ExpertLensWarning

PACKAGED = ("facts", "stories", "senses", "novels", "sentiment", "alltag")

_OPTIONAL = ("domain", "label", "word", "forms", "language")
_READABLE = (".tsv", ".csv", ".jsonl", ".json", ".parquet", ".xlsx")
_MOST_LABELS = 0.5
"""The share of the machine's memory that labels may take."""

Sentences = epath.PathLike | Sequence[str]
Source = epath.PathLike | pd.DataFrame | Mapping[str, Any] | Any


@dataclasses.dataclass(frozen=True)
class _Reading:
    """How tables are read."""

    columns: Columns
    quoted: bool | None
    encoding: str | None
    sheet: str | None
    split: str | None
    used: set[str] = dataclasses.field(default_factory=set)  # which of these settings anything had a use for


def load_concepts(
    source: Source | None = None,
    *,
    positives: Mapping[str, Sentences] | None = None,
    negatives: Sentences | Mapping[str, Sentences] | None = None,
    sentence: str | None = None,
    concept: str | Sequence[str] | None = None,
    label: str | None = None,
    domain: str | None = None,
    word: str | None = None,
    words: Mapping[str, str] | Literal[""] | None = None,
    forms: Mapping[str, Sequence[str]] | None = None,
    language: str = "en",
    minimum_sentences: int = 5,
    name: str | None = None,
    ignore_columns: Sequence[str] = (),
    quoted: bool | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
    split: str | None = None,
) -> ConceptDataset:
    """Load concept sentences.

    >>> import expertlens_jax as el
    >>> el.load_concepts("facts")
    ConceptDataset('facts': 176 concepts in 16 domains, 7,040 sentences)
    >>> el.load_concepts({"cat": ["A cat sat.", "Two cats."], "dog": ["Dogs bark.", "A dog ran."]}, minimum_sentences=2)
    ConceptDataset('concepts': 2 concepts in 1 domain, 4 sentences)
    >>> polite = {"polite": ["Thank you so much!", "Could you help me, please?"]}
    >>> rude = {"polite": ["Get lost.", "What do you want?"]}
    >>> el.load_concepts(positives=polite, negatives=rude, words="", minimum_sentences=2)
    ConceptDataset('concepts': 1 concept in 1 domain, 4 sentences)

    A table's columns, in any order, whatever their case:

    - `concept`, `sentence`: must be there.
    - `domain`: the concept's category.
    - `label`: whether the sentence is a positive of the concept (1, true, yes, positive) or a negative (0, false, no,
      negative). A concept with negatives of its own is told apart from all of these and from nothing else, also from
      those that mention it: they were given as negatives. Other concepts are told apart from the other concepts'
      positives. The concept `*` with the label 0 stands for all concepts without negatives of their own.
    - `word`: the word by which sentences mention the concept, if it isn't the concept's name; `-` if it has none.
    - `forms`: other forms that stand for it, between `|`.
    - `language`: its ISO 639 code.

    A sentence may stand for several concepts, in a row each. Rows that repeat a sentence of the same concept count
    once, and are counted in a warning. Columns of row numbers (`id`, `index`, one without a name, pandas' `Unnamed: 0`)
    and `source`, which `experiments.write_concepts` writes, are passed over. Others are told.

    A concept without a word (toxicity, a topic, a part of speech, a language) is mentioned by no sentence: none is left
    out of its negatives, and what needs the word (`pool_over="concept"`, masked sentences) refuses it by name.

    Args:
      source: any of these:

        - "facts" or "stories", sets that ship with the package (176 concepts in 16 domains, 40 sentences each);
          "senses" (35 words in two senses each, and another word for each sense, 20 sentences each); "novels" (961
          words of SimLex-999 and WordSim-353, 40 sentences each, of 95 novels); "sentiment" (two concepts without a
          word, 100 sentences each, with each other's as negatives); "alltag" (20 concepts in German, 20 each).
        - A file: `.csv` (commas, semicolons or tabs), `.tsv`, `.jsonl` (a JSON object a line), `.json`, `.parquet`
          (needs pyarrow), `.xlsx` (needs openpyxl). A `.json` file is a list of objects, or what a dictionary may be,
          below.
        - A `pandas.DataFrame`, or what has a method `to_pandas`.
        - A dictionary: lists of sentences by concept (as the files of ml-act), also `{"positive": [...], "negative":
          [...]}` by concept; or columns as lists; or `{"concept": ..., "sentences": {"positive": [...], "negative":
          [...]}}`, as the files of ml-selfcond. A WordNet sense for a name (`football-1_04_00__`) gives the word.
        - A folder of such files, by its `concept_list.csv` if there is one.
        - A Hugging Face `datasets.Dataset`, or a dataset's id on the hub, "owner/name" (needs datasets; a file or
          folder of that name goes before it). Class labels stand for concepts by their names.
        - In any of these tables, AxBench's columns: the answers (`output`; `sentence="input"` for the questions) are
          the sentences, and a concept's negatives are the answers of its genre without a concept.

        None, if all is in `positives`.
      positives: more sentences by concept: a list of them, or a file (`.txt` with one a line, or any of the above with
        a column `sentence`).
      negatives: the same for negatives; or sentences that serve as the only negatives, of every concept without
        negatives of its own. Without it, each concept's negatives are the other concepts' positives.
      sentence: the column of sentences, if it isn't called so.
      concept: the column of concepts; or several columns, each a concept, with labels (1 and 0).
      label: the column of labels.
      domain: the column of domains.
      word: the column of words.
      words: of a concept, the word by which sentences mention it, if it isn't its name: `{"bat (animal)": "bat"}`; ""
        if it has none. `words=""` says that no concept has one.
      forms: of a concept, other forms that stand for it: `{"mouse": ["rodent"]}`.
      language: of the concepts' words, where no column says it: an ISO 639 code. It decides which forms of a word are
        found (`data.words`).
      minimum_sentences: the fewest positive sentences a concept may have.
      name: of the set; by default the file's name without its suffix, or "concepts".
      ignore_columns: columns that aren't read, and that no message names.
      quoted: whether a file's fields are in quotes, with their own quotes doubled, as pandas and spreadsheets write
        them, or hold quotes as text. By default fields between commas or semicolons are quoted, and those between tabs
        if all of the file says so.
      encoding: of a text file; by default UTF-8, or UTF-16 with its mark, or else, told, Windows-1252.
      sheet: of a workbook; by default the first that isn't empty.
      split: of a dataset on the hub, such as "train".

    Warns:
      ExpertLensWarning: columns that aren't read; quotes that can be read in two ways; an encoding or a separator that
        isn't what it should be; rows that repeat others; concepts whose names differ in case, accents' composition,
        spaces or hyphens only; sentences that lack the word of their concept, if it has one and no negatives of its own
        (one warning counts them).

    Raises:
      ConceptDataError: a file that isn't there or can't be read, a missing column, an empty sentence, one that is a
        positive and a negative of its concept, a label that is none, a concept with too few sentences or with two
        domains, words or languages, an unknown language. The message names file and line, or row, of every problem.
    """
    if minimum_sentences < 1:
        raise ConceptDataError(f"minimum_sentences must be at least 1, not {minimum_sentences}")
    if source is None and not positives:
        raise ConceptDataError("there is nothing to load; give a file, a table or a dictionary, or positives=")
    language = check_language(language)
    called = {"sentence": sentence, "concept": concept, "label": label, "domain": domain, "word": word}
    reading = _Reading(_columns(called, ignore_columns), quoted, encoding, sheet, split)
    parts, shared = [], None
    if source is not None:
        parts.append(_read(source, reading))
    for each, sentences in (positives or {}).items():
        parts.append(_read_sentences(sentences, f"positives[{each!r}]", each, None, reading))
    if isinstance(negatives, Mapping):
        for each, sentences in negatives.items():
            parts.append(_read_sentences(sentences, f"negatives[{each!r}]", each, "0", reading))
    elif negatives is not None:
        shared = _read_sentences(negatives, "negatives", None, None, reading)
    _check_used(reading)
    gathered, problems = gather(parts, minimum_sentences=minimum_sentences, negatives=shared)
    tables = [*parts, *([shared] if shared is not None else [])]
    for table in tables:
        if not len(table) and not table.problems:
            problems.append(f"{table.source}: there are no sentences in this file, table or list")
    if not problems:
        problems = _unknown_names(
            gathered, {"words": words if isinstance(words, Mapping) else {}, "forms": forms or {}}
        )
    remarks = [remark for table in tables for remark in table.remarks]
    check_no_problems(tables[0].source, problems + (remarks if problems else []))
    dataset = _make(gathered, name or _name(source), words, forms or {}, language)
    told = [*filter(None, (_tell_unread(table) for table in tables)), *remarks, gathered.merged]
    told += [_tell_same_names(dataset), _tell_lacking(dataset, gathered)]
    for message in filter(None, told):
        warnings.warn(message, ExpertLensWarning, stacklevel=2)
    return dataset


def _columns(called: Mapping[str, Any], ignore_columns: Sequence[str]) -> Columns:
    """Return which columns are read, by the names that the user gave them."""
    ignored = {column_name(name) for name in ignore_columns}
    given = {name: asked for name, asked in called.items() if asked is not None}
    for name, asked in given.items():
        several = name == "concept" and isinstance(asked, Sequence) and not isinstance(asked, str)
        if not all(isinstance(each, str) for each in (asked if several else (asked,))):
            raise ConceptDataError(f"{name}= must be a column's name, not {asked!r}")
    if isinstance(given.get("concept", ""), str):
        wanted, labels = ("concept", "sentence"), ("label",)
    else:  # each column a concept
        several = tuple(dict.fromkeys(given.pop("concept")))
        if not several or "label" in given:
            raise ConceptDataError("several columns of concepts hold the labels; give one or more, and no label=")
        wanted, labels = ("sentence", *several), several
    names = [column_name(given.get(each, each)) for each in wanted] + [
        column_name(given[each]) for each in given if each not in wanted
    ]
    if twice := [each for each in names if names.count(each) > 1]:
        raise ConceptDataError(
            f"the column {twice[0]!r} can't be two things at once; the columns asked for are {names}"
        )
    # A name that another column goes by is no longer its own.
    taken = {column_name(asked) for asked in given.values()} | {*map(column_name, wanted)} - {"concept", "sentence"}
    optional = tuple(
        each for each in (*_OPTIONAL, NUMBER) if each in given or (each not in ignored and each not in taken)
    )
    if labels != ("label",):
        optional = tuple(each for each in optional if each not in ("label", *labels))
    columns = Columns(wanted, optional, given, labels, tuple(ignored))
    if "concept" in given or labels != ("label",):
        return columns
    return dataclasses.replace(columns, fitted=lambda found: axbench_columns(columns) if is_axbench(found) else columns)


def _read(source: Any, reading: _Reading) -> Records:
    """Read concepts and sentences from whatever they are in."""
    columns = reading.columns
    if isinstance(source, Mapping):
        if any(is_dataset(each) for each in source.values()):
            splits = ", ".join(map(str, source))
            first = next(iter(source))
            raise ConceptDataError(f"the dataset has the splits {splits}; give one, as dataset[{first!r}]")
        return _finish(read_mapping(source, columns), reading)
    if is_dataset(source):
        return _finish(read_dataset(source, columns), reading)
    if hasattr(source, "to_pandas"):
        source = source.to_pandas()
    if isinstance(source, pd.DataFrame):
        return _finish(read_frame(source, columns), reading)
    if isinstance(source, str | os.PathLike):
        return _read_path(source, reading)
    raise ConceptDataError(
        f"can't read concepts from {type(source).__name__}; give a file, a data frame, a dictionary of lists of "
        "sentences, or a Hugging Face dataset"
    )


def _read_path(source: epath.PathLike, reading: _Reading) -> Records:
    if source in PACKAGED:
        tell_shadowed_file(str(source), "the sentence set that ships with the package")
        return _finish(read_records(_packaged(str(source)), reading.columns, quoted=False), reading)
    if isinstance(source, str) and source.startswith(HUB):
        return _read_hub(source, reading)
    path = epath.Path(source).expanduser()
    if path.is_dir():
        reading.used.add("encoding")
        return read_folder(path, reading.columns, encoding=reading.encoding)
    file = find_file(source)
    if file is not None:
        return _read_file(file, reading)
    if isinstance(source, str) and is_hub_id(source):
        return _read_hub(source, reading)
    raise ConceptDataError(
        f"no file {str(source)!r}; the sets that ship with the package are {', '.join(map(repr, PACKAGED[:-1]))} and "
        f"{PACKAGED[-1]!r}"
    )


def _read_hub(name: str, reading: _Reading) -> Records:
    reading.used.add("split")
    return _finish(read_dataset(load_hub_dataset(name, reading.split), reading.columns, name), reading)


def _read_file(file: TextFile, reading: _Reading) -> Records:
    columns, suffix = reading.columns, suffix_of(file.name)
    readable = _READABLE if columns.wanted != ("sentence",) else (*_READABLE, ".txt")
    if suffix not in readable:
        raise ConceptDataError(f"{file}: can't read a {suffix or 'suffixless'} file; give {', '.join(readable)}")
    if suffix == ".parquet":
        return _finish(read_parquet(file, columns), reading)
    if suffix == ".xlsx":
        reading.used.add("sheet")
        return _finish(read_workbook(file, columns, sheet=reading.sheet), reading)
    reading.used.add("encoding")
    if suffix == ".json":
        return _finish(read_json(file, columns, encoding=reading.encoding), reading)
    reading.used.add("quoted")
    return _finish(read_records(file, columns, quoted=reading.quoted, encoding=reading.encoding), reading)


def _finish(records: Records, reading: _Reading) -> Records:
    """Return a table's records as concepts, sentences and labels, if it has them in another form."""
    if "number" in records.columns:
        return from_axbench(records)
    names = reading.columns.labels
    if names == ("label",):
        return records
    rows = np.repeat(np.arange(len(records)), len(names))
    labels = np.stack([records.columns[each] for each in names], axis=1).ravel()
    return records.take(rows, concept=text_column(list(names) * len(records)), label=labels)


def _read_sentences(given: Any, what: str, concept: str | None, label: str | None, reading: _Reading) -> Records:
    """Read sentences alone, from a list or wherever they are."""
    if not isinstance(given, str | os.PathLike | pd.DataFrame | Mapping) and not hasattr(given, "to_pandas"):
        return listed_sentences(given, what, concept, label)
    asked = column_name(reading.columns.called.get("sentence", "sentence"))
    plain = Columns(("sentence",))
    named = dataclasses.replace(plain, called={"sentence": asked}) if asked != "sentence" else plain
    columns = dataclasses.replace(named, fitted=lambda found: named if asked in found else plain)
    records = _read(given, dataclasses.replace(reading, columns=columns))
    added = {} if concept is None else {"concept": text_column([concept] * len(records))}
    if label is not None:
        added["label"] = text_column([label] * len(records))
    kept = {"sentence": records.columns["sentence"]}  # where a table says more, it says it of other concepts
    return dataclasses.replace(records, columns=kept | added, unread=())


def _packaged(name: str) -> TextFile:
    folder = resources.files("expertlens_jax") / "data" / "concepts"
    file = folder / f"{name}.tsv"
    return file if file.is_file() else PackedFile(file.name, folder / f"{file.name}.xz")


def _name(source: Any) -> str:
    """Return what a set is called after its source."""
    if not isinstance(source, str | os.PathLike):
        return "concepts"
    last = epath.Path(source).name
    return last.rpartition(".")[0] or last


def _check_used(reading: _Reading) -> None:
    """Refuse settings that none of what was read has a use for."""
    for setting, what in {
        "quoted": "a file with fields between commas, semicolons or tabs",
        "encoding": "a text file",
        "sheet": "a workbook (.xlsx)",
        "split": "a dataset of the Hugging Face hub",
    }.items():
        if getattr(reading, setting) is not None and setting not in reading.used:
            raise ConceptDataError(
                f"{setting}={getattr(reading, setting)!r} is for {what}, and there is none; leave it"
            )


def _unknown_names(gathered: Gathered, given: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what was given of concepts that aren't there."""
    return [
        f"{what} were given of {name!r}, which is no concept here; there is "
        + ", ".join(difflib.get_close_matches(name, gathered.concepts) or gathered.concepts[:5])
        for what, of_concepts in given.items()
        for name in of_concepts
        if name not in gathered.concepts
    ]


def _make(
    gathered: Gathered,
    name: str,
    words: Mapping[str, str] | str | None,
    forms: Mapping[str, Sequence[str]],
    language: str,
) -> ConceptDataset:
    concepts, sentences = gathered.concepts, gathered.sentences
    _check_memory(len(concepts), len(sentences), 2 if len(gathered.negatives) else 1)
    labels = np.zeros((len(concepts), len(sentences)), bool)
    labels[gathered.positives[:, 0], gathered.positives[:, 1]] = True
    own_negatives = None
    if len(gathered.negatives):
        own_negatives = np.zeros_like(labels)
        own_negatives[gathered.negatives[:, 0], gathered.negatives[:, 1]] = True
    pool = np.asarray(labels.any(0))
    if gathered.shared is not None:
        pool = np.zeros(len(sentences), bool)
        pool[gathered.shared] = True

    stated = [gathered.stated.get(concept, {}) for concept in concepts]
    codes = [check_language(each["language"]) if "language" in each else language for each in stated]
    given = {each: (one,) if isinstance(one, str) else tuple(one) for each, one in forms.items()}
    all_forms = tuple((*gathered.forms.get(concept, ()), *given.get(concept, ())) for concept in concepts)
    return ConceptDataset(
        name=name,
        sentences=sentences,
        concepts=concepts,
        domains=tuple(each.get("domain", "") for each in stated),
        labels=labels,
        negative_pool=pool,
        own_negatives=own_negatives,
        words=_words(concepts, [each.get("word") for each in stated], words),
        languages=tuple(codes) if {*codes} != {"en"} else (),
        forms=all_forms if any(all_forms) else (),
    )


def _words(
    concepts: Sequence[str], stated: Sequence[str | None], given: Mapping[str, str] | str | None
) -> tuple[str, ...]:
    """Return the concepts' words, "" for none; () where they are the concepts' names."""
    if isinstance(given, str):
        if given:
            raise ConceptDataError(
                f"words={given!r} would be every concept's word; give the word of each, as {{{concepts[0]!r}: "
                f'{given!r}}}, or words="" if none has one'
            )
        given = dict.fromkeys(concepts, "")
    words = []
    for concept, said in zip(concepts, stated, strict=True):
        said = said if said is None or any(map(str.isalnum, said)) else ""
        word = (given or {}).get(concept, said)
        if said is not None and word != said:
            raise ConceptDataError(
                f"the word of {concept!r} is {said or 'none'!r} in its table and {word or 'none'!r} in words=; say one"
            )
        words.append(concept if word is None else word.strip())
    return tuple(words) if tuple(words) != tuple(concepts) else ()


def _check_memory(num_concepts: int, num_sentences: int, matrices: int) -> None:
    """Refuse labels that wouldn't fit.

    Raises:
      BudgetError: they take more than half of the machine's memory.
    """
    wanted = num_concepts * num_sentences * matrices
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if wanted > _MOST_LABELS * there:
        raise BudgetError(
            f"{counted(num_concepts, 'concept')} and {counted(num_sentences, 'sentence')} have {wanted / 1e9:,.1f} GB "
            f"of labels, and this machine has {there / 1e9:,.1f} GB of memory; load fewer concepts or sentences at a "
            "time"
        )


def _tell_unread(table: Records) -> str:
    """Say which columns weren't read."""
    if not table.unread:
        return ""
    return (
        f"{table.source}: columns that aren't read: {', '.join(map(repr, table.unread))}; read are "
        f"{', '.join(table.read)}. To read one, give it one of the names concept, sentence, {', '.join(_OPTIONAL)}, or "
        'say which it is (as domain="NAME"); to silence this, take it out or name it in ignore_columns.'
    )


def _tell_same_names(dataset: ConceptDataset) -> str:
    """Say which concepts' names differ in spelling only."""
    names = collections.defaultdict(list)
    for concept in dataset.concepts:
        names[normal_name(concept)].append(concept)
    same = [f"{' and '.join(map(ascii, each))}" for each in names.values() if len(each) > 1]
    if not same:
        return ""
    return (
        f"concepts of {dataset.name!r} whose names differ only in case, in how accents are composed, or in spaces, "
        f"hyphens and underscores: {'; '.join(same)}. They are kept apart; if they are one, give them one name."
    )


def _tell_lacking(dataset: ConceptDataset, gathered: Gathered) -> str:
    """Say which positives lack their concept's word. Where negatives are given, these say what the concept is."""
    own = dataset.own_negatives
    rows = [
        row
        for row, concept in enumerate(dataset.concepts)
        if (not dataset.words or dataset.words[row]) and (own is None or not own[row].any())
    ]
    if not rows:
        return ""
    labels = dataset.labels[rows]
    lacking = find_mentions(
        [(dataset.words or dataset.concepts)[row] for row in rows],
        dataset.sentences,
        language=[dataset.languages[row] for row in rows] if dataset.languages else "en",
        forms=[dataset.forms[row] for row in rows] if dataset.forms else (),
    )
    np.logical_not(lacking, out=lacking)
    lacking &= labels
    places = np.argwhere(lacking.T)
    if not places.size:
        return ""
    examples = "; ".join(f"{gathered.place_of(column)} ({dataset.concepts[rows[row]]!r})" for column, row in places[:3])
    languages = ", ".join(sorted({*(dataset.languages or ("en",))}))
    return (
        f"{len(places)} of {labels.sum()} sentences lack their concept's word and its forms: {examples}"
        f"{' ...' if len(places) > 3 else ''}. They count as positives all the same. (Looked for in the language "
        f"{languages}; language= names another, forms= what else stands for a concept, and words= its word, "
        '"" if it has none.)'
    )
