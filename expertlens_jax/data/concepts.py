"""Concept sentences: which sentences hold each concept, read from a packaged set or a user's own file."""

import collections
import dataclasses
import difflib
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import resources

import numpy as np
import pandas as pd
from etils import epath

from expertlens_jax.cards import Card, listed, shortened
from expertlens_jax.data.languages import check_language
from expertlens_jax.data.records import Records, check_no_problems, read_records
from expertlens_jax.data.text import PackedFile, TextFile, find_file, tell_shadowed_file
from expertlens_jax.data.words import find_mentions, mention_finder, normal_name
from expertlens_jax.errors import ConceptDataError, ExpertLensWarning

PACKAGED = ("facts", "stories", "senses", "novels")

_OPTIONAL = ("domain", "label", "word", "forms", "language")
_STATED = ("domain", "word", "language")  # once of each concept
_LABELS = {
    **dict.fromkeys(("1", "1.0", "true", "t", "yes", "y", "positive", "pos", "+"), True),
    **dict.fromkeys(("0", "0.0", "false", "f", "no", "n", "negative", "neg", "-"), False),
}


@dataclasses.dataclass(frozen=True, eq=False)
class ConceptDataset:
    """Sentences, and which of them stand for which concept.

    Attributes:
      name: name of the set: a packaged name, or the file's name without its suffix.
      sentences: `[sentences]`, each once; the concepts' own, then those that serve as negatives only.
      concepts: `[concepts]`, each once, in order of appearance.
      domains: `[concepts]`, the category of each; "" where none is known.
      labels: bool `[concepts, sentences]`, True where the sentence is a positive of the concept.
      negative_pool: bool `[sentences]`, True where the sentence may be a negative (of concepts it isn't a
        positive of): all of them, unless sentences were given that are the only negatives.
      own_negatives: bool `[concepts, sentences]`, True where the sentence is one of the concept's own negatives: a
        concept that has any is told apart from these, all of them, and from nothing else. None where no concept has.
      words: `[concepts]`, the word or words by which sentences mention each; () where these are the concepts' names.
      languages: `[concepts]`, of the words, as ISO 639 codes; () where all are English.
      forms: `[concepts]`, other forms that stand for each; () where there are none.

    Raises:
      ConceptDataError: the fields don't fit together.
    """

    name: str
    sentences: tuple[str, ...]
    concepts: tuple[str, ...]
    domains: tuple[str, ...]
    labels: np.ndarray
    negative_pool: np.ndarray
    own_negatives: np.ndarray | None = None
    words: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    forms: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        num_concepts, num_sentences = len(self.concepts), len(self.sentences)
        for field in ("domains", "words", "languages", "forms"):
            given = len(getattr(self, field))
            if given != num_concepts and (given or field == "domains"):
                raise ConceptDataError(f"{num_concepts} concepts need as many {field}, not {given}")
        wanted = {"labels": (num_concepts, num_sentences), "negative_pool": (num_sentences,)}
        if self.own_negatives is not None:
            wanted["own_negatives"] = (num_concepts, num_sentences)
        for field, shape in wanted.items():
            array = getattr(self, field)
            if array.dtype != bool or array.shape != shape:
                raise ConceptDataError(
                    f"{field} must be bool {list(shape)} for {num_concepts} concepts and {num_sentences} "
                    f"sentences, not {array.dtype} {list(array.shape)}"
                )
        for field in ("concepts", "sentences"):
            for value, count in collections.Counter(getattr(self, field)).most_common(1):
                if count > 1:
                    raise ConceptDataError(f"{field} must be there once each, but {value!r} is {count} times")
        if self.own_negatives is not None and (both := self.labels & self.own_negatives).any():
            row, column = np.argwhere(both)[0]
            raise ConceptDataError(
                f"a sentence is a positive and a negative of concept {self.concepts[row]!r}: {self.sentences[column]!r}"
            )

    def __repr__(self) -> str:
        return (
            f"ConceptDataset({self.name!r}: {len(self.concepts)} concepts in {len(set(self.domains))} "
            f"domains, {len(self.sentences)} sentences)"
        )

    def _repr_html_(self) -> str:
        shown = range(min(len(self.concepts), 8))
        first = [np.flatnonzero(self.labels[row])[:1] for row in shown]
        table = pd.DataFrame(
            {
                "concept": self.concepts[:8],
                "domain": self.domains[:8],
                "positives": self.labels[:8].sum(axis=1),
                "a sentence of its own": [shortened(self.sentences[each[0]]) if len(each) else "" for each in first],
            }
        )
        more = f"... and {len(self.concepts) - 8} more" if len(self.concepts) > 8 else ""
        return Card(repr(self), {"domains": listed(filter(None, dict.fromkeys(self.domains)), 16)}, table, more).html()

    def mentions(self) -> np.ndarray:
        """Return bool `[concepts, sentences]`: the sentence holds the concept's word in one of its forms.

        A concept's own positives are among them where they hold it. `data.words` has the rule.
        """
        return find_mentions(
            self.words or self.concepts, self.sentences, language=self.languages or "en", forms=self.forms
        )

    def mention_finders(self) -> list[Callable[[str], list[tuple[int, int]]]]:
        """Return, of each concept, a function that finds its word in a text; see `data.words.mention_finder`."""
        count = len(self.concepts)
        words, languages = self.words or self.concepts, self.languages or ("en",) * count
        return [
            mention_finder(word, language=language, forms=forms)
            for word, language, forms in zip(words, languages, self.forms or ((),) * count, strict=True)
        ]

    def subset(self, concepts: Sequence[str]) -> "ConceptDataset":
        """Return the set of these concepts, in this order, and their sentences, in the order they have here.

        The other concepts' sentences go, also as negatives; sentences that are no concept's positives stay.

        Raises:
          ConceptDataError: a concept isn't there, is asked for twice, or none is asked for.
        """
        concepts = (concepts,) if isinstance(concepts, str) else tuple(concepts)
        if not concepts:
            raise ConceptDataError("a subset needs at least one concept")
        row_of = {concept: row for row, concept in enumerate(self.concepts)}
        for concept in concepts:
            if concept not in row_of:
                close = difflib.get_close_matches(concept, self.concepts) or list(self.concepts[:5])
                raise ConceptDataError(
                    f"no concept {concept!r} among the {len(self.concepts)} of {self.name!r}; "
                    f"there is {', '.join(close)}"
                )
        rows = [row_of[concept] for concept in concepts]
        own = self.own_negatives
        of_any = self.labels.any(0) if own is None else (self.labels | own).any(0)
        keep = self.labels[rows].any(0) | ~of_any
        if own is not None:
            keep |= own[rows].any(0)
        return dataclasses.replace(
            self,
            sentences=tuple(sentence for sentence, kept in zip(self.sentences, keep, strict=True) if kept),
            concepts=concepts,
            domains=tuple(self.domains[row] for row in rows),
            labels=self.labels[rows][:, keep],
            negative_pool=self.negative_pool[keep],
            own_negatives=None if own is None or not own[rows].any() else own[rows][:, keep],
            **{
                field: tuple(getattr(self, field)[row] for row in rows)
                for field in ("words", "languages", "forms")
                if getattr(self, field)
            },
        )


def load_concepts(
    name_or_path: epath.PathLike,
    *,
    negatives: epath.PathLike | None = None,
    minimum_sentences: int = 5,
    language: str = "en",
    forms: Mapping[str, Sequence[str]] | None = None,
    quoted: bool | None = None,
    ignore_columns: Sequence[str] = (),
) -> ConceptDataset:
    """Load concept sentences.

    A file's columns, in any order, whatever their case:

    - `concept`, `sentence`: must be there.
    - `domain`: the concept's category.
    - `label`: whether the sentence is a positive of the concept (1, true, yes, positive) or a negative (0, false, no,
      negative). A concept with negatives of its own is told apart from all of these and from nothing else, also from
      those that mention it: they were given as negatives. Other concepts are told apart from the other concepts'
      positives. In a file with labels a sentence may stand once for each of several concepts.
    - `word`: the word by which sentences mention the concept, if it isn't the concept's name.
    - `forms`: other forms that stand for it, between `|`.
    - `language`: its ISO 639 code.

    Columns of row numbers (`id`, `index`, one without a name, pandas' `Unnamed: 0`) and `source`, which
    `experiments.write_concepts` writes, are passed over. Others are told.

    Args:
      name_or_path: "facts" or "stories", sets that ship with the package (176 concepts in 16 domains, 40 sentences
        each), "senses" (35 words in two senses each, and another word for each sense, 20 sentences each), or "novels"
        (961 words of SimLex-999 and WordSim-353, 40 sentences each, of 95 novels); or a file in UTF-8: tab-separated
        (`.tsv`), comma-separated (`.csv`) or a JSON object a line (`.jsonl`).
      negatives: sentences that serve as the only negatives, of every concept without negatives of its own: a `.txt`
        file with one a line, or any of the above with a `sentence` column. Without it, each concept's negatives are
        the other concepts' positives.
      minimum_sentences: the fewest positive sentences a concept may have.
      language: of the concepts' words, where no column says it: an ISO 639 code. It decides which forms of a word are
        found (`data.words`).
      forms: of a concept, other forms that stand for it: `{"mouse": ["rodent"]}`.
      quoted: whether a file's fields are in quotes, with their own quotes doubled, as pandas and spreadsheets write
        them, or hold quotes as text. By default `.csv` files are quoted, and `.tsv` files if all of the file says so.
      ignore_columns: columns that aren't to be read, nor told.

    Warns:
      ExpertLensWarning: columns that aren't read; quotes that can be read in two ways; concepts whose names differ in
        case, accents' composition, spaces or hyphens only; sentences that lack the word of their concept, if it has
        no negatives of its own (one warning counts them).

    Raises:
      ConceptDataError: a file that isn't there or can't be read, a missing column, an empty or repeated sentence, a
        label that is none, a concept with too few sentences or with two domains, words or languages, an unknown
        language. The message names file and line of every problem.
    """
    if minimum_sentences < 1:
        raise ConceptDataError(f"minimum_sentences must be at least 1, not {minimum_sentences}")
    language = check_language(language)
    source = _find(name_or_path)
    ignored = {" ".join(name.split()).lower() for name in ignore_columns}
    optional = [name for name in _OPTIONAL if name not in ignored]
    records = read_records(
        source, ("concept", "sentence"), optional, quoted=False if name_or_path in PACKAGED else quoted
    )
    gathered = _gather(source, records)
    problems = gathered.problems
    for concept, number in gathered.num_positives.items():
        if number < minimum_sentences:
            problems.append(
                f"{gathered.started[concept]}: concept {concept!r}, which starts here, has {number} sentences, but at "
                f"least {minimum_sentences} are needed; add some, leave it out, or lower minimum_sentences"
            )
    if not gathered.started and not problems:
        problems.append(f"{source}: there are no sentences in this file")
    place_of = gathered.place_of

    shared: list[str] = []  # the only negatives of concepts that have none of their own
    tables = [(source, records)]
    if negatives is not None:
        source_of_negatives = _find(negatives)
        more = read_records(source_of_negatives, ("sentence",), quoted=quoted)
        tables.append((source_of_negatives, more))
        problems += more.problems
        for line, record in more.rows:
            place, sentence = f"{source_of_negatives}:{line}", record["sentence"]
            if not sentence:
                problems.append(f"{place}: the sentence is empty")
            elif sentence in place_of:
                problems.append(_duplicate(place, place_of[sentence], sentence))
            else:
                place_of[sentence] = place
                shared.append(sentence)
        if not more.rows and not more.problems:
            problems.append(f"{source_of_negatives}: there are no sentences in this file")
    check_no_problems(source, problems + [table.remark for _, table in tables if problems and table.remark])
    _tell_unread(tables, ignored)

    concepts, sentences = tuple(gathered.started), tuple(place_of)
    extra = _forms_given(forms or {}, concepts)
    row_of = {concept: row for row, concept in enumerate(concepts)}
    column_of = {sentence: column for column, sentence in enumerate(sentences)}
    marked = np.zeros((2, len(concepts), len(sentences)), bool)  # negatives, positives
    for (concept, sentence), (label, _) in gathered.stands_for.items():
        marked[int(label), row_of[concept], column_of[sentence]] = True
    own_negatives, labels = marked
    if negatives is None:
        pool = labels.any(0)
    else:
        pool = np.isin(np.arange(len(sentences)), [column_of[sentence] for sentence in shared])
    stated = {field: [gathered.stated[concept].get(field, "") for concept in concepts] for field in _STATED}
    languages = tuple(check_language(code) if code else language for code in stated["language"])
    all_forms = tuple((*gathered.forms[concept], *extra[concept]) for concept in concepts)
    dataset = ConceptDataset(
        name=source.name.rpartition(".")[0],
        sentences=sentences,
        concepts=concepts,
        domains=tuple(stated["domain"]),
        labels=labels,
        negative_pool=pool,
        own_negatives=own_negatives if own_negatives.any() else None,
        words=tuple(word or name for word, name in zip(stated["word"], concepts, strict=True))
        if any(stated["word"])
        else (),
        languages=languages if {*languages} != {"en"} else (),
        forms=all_forms if any(all_forms) else (),
    )
    _tell_same_names(dataset)
    _tell_lacking(dataset, place_of)
    return dataset


@dataclasses.dataclass
class _Gathered:
    """What a file says of its concepts, in the order in which they start, and what is wrong with it."""

    problems: list[str]
    started: dict[str, str]  # file:line of each concept's first sentence
    stated: dict[str, dict[str, str]]  # of each concept: domain, word, language
    forms: dict[str, dict[str, None]]
    num_positives: dict[str, int]  # of each concept, refused ones included
    place_of: dict[str, str]  # file:line at which each sentence stands first
    stands_for: dict[tuple[str, str], tuple[bool, str]]  # (concept, sentence): label and file:line


def _gather(source: TextFile, records: Records) -> _Gathered:
    gathered = _Gathered([*records.problems], {}, {}, {}, {}, {}, {})
    stated_at: dict[tuple[str, str], str] = {}
    has_labels = "label" in records.columns
    for line, record in records.rows:
        place, concept, sentence = f"{source}:{line}", record["concept"], record["sentence"]
        if not concept:
            gathered.problems.append(f"{place}: the concept is empty")
            continue
        label = _LABELS.get(record.get("label", "").casefold()) if has_labels else True
        if label is None:
            gathered.problems.append(
                f"{place}: the label is {record.get('label', '')!r}; write 1 for a positive of the concept and 0 for a "
                "negative (or true and false, yes and no, positive and negative)"
            )
        gathered.started.setdefault(concept, place)
        gathered.num_positives[concept] = gathered.num_positives.get(concept, 0) + (label is not False)
        gathered.forms.setdefault(concept, {}).update(
            dict.fromkeys(form.strip() for form in record.get("forms", "").split("|") if form.strip())
        )
        _state(gathered, stated_at, concept, record, place)
        before = gathered.stands_for.get((concept, sentence))
        if not sentence:
            gathered.problems.append(f"{place}: the sentence is empty")
        elif before and before[0] is not label:
            gathered.problems.append(
                f"{place}: the sentence is a positive of {concept!r} here or at {before[1]}, and a negative at the "
                f"other; keep one: {sentence!r}"
            )
        elif before or (sentence in gathered.place_of and not has_labels):
            other = "" if before else "; or say with a column `label` (1 or 0) which concepts it stands for"
            gathered.problems.append(_duplicate(place, gathered.place_of[sentence], sentence) + other)
        else:
            gathered.place_of.setdefault(sentence, place)
            gathered.stands_for[concept, sentence] = (label, place)
    return gathered


def _state(
    gathered: _Gathered, stated_at: dict[tuple[str, str], str], concept: str, record: Mapping[str, str], place: str
) -> None:
    """Note what a record states of its concept, or that another record states something else."""
    stated = gathered.stated.setdefault(concept, {})
    for field in _STATED:
        value = record.get(field, "")
        if field == "language" and value:
            try:
                check_language(value)
            except ConceptDataError as problem:
                gathered.problems.append(f"{place}: {problem}")
                continue
        if field != "domain" and not value:  # said once, they hold for all of the concept's sentences
            continue
        known_at = stated_at.setdefault((concept, field), place)
        if stated.setdefault(field, value) != value:
            gathered.problems.append(
                f"{place}: concept {concept!r} is in {field} {value!r} here and in {stated[field]!r} at {known_at}; "
                f"give it one {field}, or two names"
            )


def _duplicate(place: str, other: str, sentence: str) -> str:
    return f"{place}: duplicate sentence, which is at {other} too; keep one: {sentence!r}"


def _forms_given(forms: Mapping[str, Sequence[str]], concepts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    for name in forms:
        if name not in concepts:
            close = difflib.get_close_matches(name, concepts) or list(concepts[:5])
            raise ConceptDataError(
                f"forms were given of {name!r}, which is no concept here; there is {', '.join(close)}"
            )
    given = {name: (each,) if isinstance(each, str) else tuple(each) for name, each in forms.items()}
    return {concept: given.get(concept, ()) for concept in concepts}


def _tell_unread(tables: Sequence[tuple[TextFile, Records]], ignored: set[str]) -> None:
    """Warn of columns that weren't read, and of quotes that may mean two things."""
    for file, records in tables:
        unread = [name for name in records.unread if name not in ignored]
        if unread:
            warnings.warn(
                f"{file}: columns that aren't read: {', '.join(map(repr, unread))}; read are "
                f"{', '.join(records.columns)}. To read one, give it one of the names concept, sentence, "
                f"{', '.join(_OPTIONAL)}; to silence this, take it out or name it in ignore_columns.",
                ExpertLensWarning,
                stacklevel=3,
            )
        if records.remark:
            warnings.warn(records.remark, ExpertLensWarning, stacklevel=3)


def _tell_same_names(dataset: ConceptDataset) -> None:
    """Warn of concepts whose names differ in spelling only."""
    names = collections.defaultdict(list)
    for concept in dataset.concepts:
        names[normal_name(concept)].append(concept)
    same = [f"{' and '.join(map(ascii, each))}" for each in names.values() if len(each) > 1]
    if same:
        warnings.warn(
            f"concepts of {dataset.name!r} whose names differ only in case, in how accents are composed, or in spaces, "
            f"hyphens and underscores: {'; '.join(same)}. They are kept apart; if they are one, give them one name.",
            ExpertLensWarning,
            stacklevel=3,
        )


def _tell_lacking(dataset: ConceptDataset, place_of: Mapping[str, str]) -> None:
    """Warn of positives that lack their concept's word. Where negatives are given, these say what the concept is."""
    labels = dataset.labels.copy()
    if dataset.own_negatives is not None:
        labels[dataset.own_negatives.any(1)] = False
    lacking = np.argwhere((labels & ~dataset.mentions()).T)
    if not lacking.size:
        return
    examples = "; ".join(
        f"{place_of[dataset.sentences[column]]} ({dataset.concepts[row]!r})" for column, row in lacking[:3]
    )
    languages = ", ".join(sorted({*(dataset.languages or ("en",))}))
    warnings.warn(
        f"{len(lacking)} of {labels.sum()} sentences lack their concept's word and its forms: {examples}"
        f"{' ...' if len(lacking) > 3 else ''}. They count as positives all the same. (Looked for in the language "
        f"{languages}; language= names another, and forms= what else stands for a concept.)",
        ExpertLensWarning,
        stacklevel=3,
    )


def _find(name_or_path: epath.PathLike) -> TextFile:
    if name_or_path in PACKAGED:
        tell_shadowed_file(name_or_path, "the sentence set that ships with the package")
        file = resources.files("expertlens_jax") / "data" / "concepts" / f"{name_or_path}.tsv"
        return file if file.is_file() else PackedFile(file.name, file.parent / f"{file.name}.xz")
    file = find_file(name_or_path)
    if file is None:
        raise ConceptDataError(
            f"no file {str(name_or_path)!r}; the sets that ship with the package are "
            f"{', '.join(map(repr, PACKAGED[:-1]))} and {PACKAGED[-1]!r}"
        )
    return file
