"""Sentence sets of one's own concepts: mined from text, or written by a language model."""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import pandas as pd
from etils import epath
from tqdm.auto import tqdm

from expertlens_jax.data.concepts import load_concepts
from expertlens_jax.errors import ConceptDataError, CorpusError, ExpertLensWarning, SelectionError
from expertlens_jax.models.model import Model
from expertlens_jax.run_directory import write_text
from expertlens_jax.sentences import prompts
from expertlens_jax.sentences.acceptance import Limits
from expertlens_jax.sentences.answers import ask_model, chats_with, collect_sentences
from expertlens_jax.sentences.auditing import Audit, audit
from expertlens_jax.sentences.concept_list import Concept, check_concepts
from expertlens_jax.sentences.kept_answers import COLUMNS
from expertlens_jax.sentences.mining import leave_out_books, mine_sentences
from expertlens_jax.sentences.writing import Answer, Wording, draw_seed
from expertlens_jax.training.corpus import read_lines

MORE_TEXT = "Give more text, a paragraph a line, or wider limits of words."


@dataclasses.dataclass(frozen=True, eq=False)
class SentenceSet:
    """Sentences of concepts, and where each is from.

    >>> import expertlens_jax as el
    >>> lines = ["A cat sleeps on the warm stove.", "The old dog barked at the door."]
    >>> found = el.sentences.mine(lines, ["cat", "dog"], per_concept=1)
    >>> found.counts.to_dict()
    {'cat': 1, 'dog': 1}
    """

    table: pd.DataFrame = dataclasses.field(repr=False)
    """A row per sentence: `domain`, `concept`, `sentence`, `source`."""
    counts: pd.Series
    """Sentences of each concept, also of those without any."""
    found: pd.Series | None = dataclasses.field(default=None, repr=False)
    """Of mined sets: how many there were of each concept before the choice, repeats included."""
    audit: Audit | None = dataclasses.field(default=None, repr=False)
    """Of written sets with any sentence: which sentences are doubtful, and why; `.audit.table` has a row for each."""

    def save(self, path: os.PathLike | str) -> epath.Path:
        """Write the set as a `.tsv` that `el.load_concepts` reads, and return its path.

        Raises:
          ConceptDataError: the path is no `.tsv`, or there are no sentences.
        """
        path = epath.Path(path)
        if path.suffix != ".tsv":
            raise ConceptDataError(f"the set can't be saved as {path.name!r}. Give a name that ends in .tsv.")
        if self.table.empty:
            raise ConceptDataError("there are no sentences to save. Give more text, or wider limits of words.")
        path.parent.mkdir(parents=True, exist_ok=True)
        return self.write_to(path)

    def write_to(self, path: epath.Path) -> epath.Path:
        """Write the set, as `save` does, also one without sentences."""
        # Quotes are literal: load_concepts reads a .tsv so, and a sentence holds neither tabs nor line ends.
        lines = ["\t".join(COLUMNS), *("\t".join(row) for row in self.table[list(COLUMNS)].to_numpy())]
        write_text(path, "\n".join(lines) + "\n")
        return path


def mine(
    text: os.PathLike | str | Iterable[os.PathLike | str],
    concepts: Sequence[str | Concept],
    *,
    per_concept: int = 40,
    min_words: int = 6,
    max_words: int = 26,
    seed: int = 0,
    per_book: int = 0,
    prose: bool = False,
    complete: bool = False,
    books_until: int = 0,
    books_left_out: Sequence[str] = (),
    progress: bool = False,
) -> SentenceSet:
    """Take sentences that mention each concept out of text.

    Args:
      text: a UTF-8 file, plain or `.xz`, with a paragraph a line; or several, as `pathlib.Path`s; or lines of text. A
        line `# NAME` says which book the lines after it are of.
      concepts: words, each once; or `Concept`s, words with their domains and parts of speech. One with a part of speech
        is found only where it is that, by form and neighbours, and no name: no "Grace" for "grace".
      per_concept: sentences that a concept gets at most.
      min_words, max_words: of a sentence.
      seed: of the choice among more.
      per_book: sentences that a concept gets from one book at most; 0 for any number.
      prose: refuse torn quotes, headings, footnotes' marks, and words of dialect.
      complete: give a concept `per_concept` sentences or none, so that those of a rare one serve others.
      books_until: the last year of a book that is read, where names end in years (`# Eliot_Adam_1859`); 0 for any.
      books_left_out: how names of books begin that aren't read.
      progress: show a bar for each file.

    Returns:
      A `SentenceSet`; `source` is the book's name; or else a file's name and line ("corpus.txt:12"), or "line 12".

    Warns:
      ExpertLensWarning: concepts have fewer sentences than wanted.

    Raises:
      SelectionError: limits that no sentence can meet, or no sentences wanted.
      ConceptDataError: no concepts, or one that is there twice.
      CorpusError: a file that isn't there, or can't be read; or a file's name among lines of text.

    >>> import expertlens_jax as el
    >>> lines = ["A cat sleeps on the warm stove. It rains.", "The old dog barked at the door."]
    >>> found = el.sentences.mine(lines, ["cat", "dog"], per_concept=1)
    >>> found.table["sentence"].tolist()
    ['A cat sleeps on the warm stove.', 'The old dog barked at the door.']
    >>> found.table["source"].tolist()
    ['line 1', 'line 2']
    """
    made = mined_set(
        text,
        check_words(concepts),
        Limits(min_words, max_words),
        per_concept=per_concept,
        seed=seed,
        per_book=per_book,
        prose=prose,
        complete=complete,
        books_until=books_until,
        books_left_out=books_left_out,
        progress=progress,
    )
    _tell_few(made.counts, per_concept, MORE_TEXT)
    return made


def mined_set(
    text: os.PathLike | str | Iterable[os.PathLike | str],
    concepts: Sequence[Concept],
    limits: Limits,
    *,
    per_concept: int,
    seed: int,
    per_book: int = 0,
    prose: bool = False,
    complete: bool = False,
    books_until: int = 0,
    books_left_out: Sequence[str] = (),
    progress: bool = False,
) -> SentenceSet:
    """Return what `mine` returns, and leave it to the caller to tell which concepts have few sentences."""
    mined, found = mine_sentences(
        leave_out_books(_lines(text, progress), books_until, books_left_out),
        concepts,
        limits,
        most=per_concept,
        seed=seed,
        most_per_book=per_book,
        prose=prose,
        complete=complete,
    )
    rows = [
        (concept.domain, concept.word, each.sentence, each.book or each.place)
        for concept in concepts
        for each in mined[concept.word]
    ]
    return dataclasses.replace(set_of_rows(rows, concepts), found=pd.Series(found, name="found", dtype=int))


def write(
    writer: Model | Callable[[str, int], str],
    concepts: Sequence[str | Concept],
    *,
    kind: Literal["facts", "stories"] = "facts",
    per_concept: int = 40,
    min_words: int = 6,
    max_words: int = 26,
    per_answer: int = 20,
    most_answers: int = 8,
    style: Literal["", "chat", "continue"] = "",
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: int = 0,
) -> SentenceSet:
    """Have a language model write sentences of concepts, and keep those that are sentences of them.

    What is kept is then compared among itself, see `audit`: a wrong sense, near-duplicates, templates, leaked words.
    Nothing is dropped for that.

    Args:
      writer: a causal `Model`; or a function of a prompt and a seed that returns the answer, for any other service.
      concepts: words, each once; or `Concept`s, words with their domains, which tell a bat that is an animal from one
        of sports.
      kind: of sentences: "facts" or "stories".
      per_concept: sentences wanted of each.
      min_words, max_words: of a sentence.
      per_answer: sentences that one prompt asks for.
      most_answers: prompts for a concept, at most.
      style: how a `Model` is asked: by "chat", or given openings to "continue"; "" is what it is made for.
      temperature, top_p: of a `Model`'s sampling.
      seed: of all draws.

    Returns:
      A `SentenceSet`; `source` names the model, or the function, and the number of the answer; `.audit` tells what is
      doubtful.

    Warns:
      ExpertLensWarning: concepts have fewer sentences than wanted, or sentences are doubtful in a high degree.

    Raises:
      SelectionError: an unknown kind or style, a number below 1, or limits that no sentence can meet.
      ConceptDataError: no concepts, or one that is there twice.
      UnsupportedModelError: the model is an encoder.

    >>> import expertlens_jax as el
    >>> def writer(prompt, seed):
    ...     return "1. A cat sleeps on the warm stove.\\n2. Every cat has whiskers on its face."
    >>> el.sentences.write(writer, ["cat"], per_concept=2).table["sentence"].tolist()
    ['A cat sleeps on the warm stove.', 'Every cat has whiskers on its face.']
    """
    listed, limits = check_words(concepts), Limits(min_words, max_words)
    if kind not in prompts.PROMPTS:
        raise SelectionError(f"Unknown kind of sentences {kind!r}. Choose from: {', '.join(prompts.PROMPTS)}.")
    wording = Wording(prompts.PROMPTS[kind], prompts.OPENINGS[kind], prompts.SENSE, prompts.AGAIN)
    for name, number in (("per_concept", per_concept), ("per_answer", per_answer), ("most_answers", most_answers)):
        if number < 1:
            raise SelectionError(f"{name}={number}; wanted 1 or more.")
    if isinstance(writer, Model):
        chats, name = chats_with(writer, style), writer.name
        ask = ask_model(writer, chats=chats, temperature=temperature, top_p=top_p)
    elif callable(writer):
        chats, name = style != "continue", getattr(writer, "__name__", type(writer).__name__)

        def ask(prompt: str, seed: int) -> Answer:
            return Answer(writer(prompt, seed), name)
    else:
        raise SelectionError(
            f"writer is a {type(writer).__name__}; wanted a model, as el.load_model returns, or a function of a prompt "
            "and a seed that returns the answer."
        )
    rows, taken = [], set()
    for concept in listed:
        fill = functools.partial(
            wording.fill, concept.word, concept.domain, chats=chats, count=per_answer, limits=limits
        )
        found, _ = collect_sentences(
            ask,
            concept.word,
            limits,
            fill=fill,
            draw_seed=functools.partial(draw_seed, seed, kind, concept.word),
            chats=chats,
            wanted=per_concept,
            most_answers=most_answers,
            taken=taken,
            answers=[],
        )
        rows += [(concept.domain, concept.word, sentence, f"{name}:{answer}") for sentence, answer in found]
    made = set_of_rows(rows, listed)
    _tell_few(made.counts, per_concept, "Raise most_answers, or ask a better model.")
    if made.table.empty:
        return made
    audited = audit(load_concepts(made.table, minimum_sentences=1, name="written"))
    _tell_doubtful(audited)
    return dataclasses.replace(made, audit=audited)


def check_words(concepts: Sequence[str | Concept]) -> list[Concept]:
    """Return concepts as such, each once.

    Raises:
      ConceptDataError: a text instead of a list, no concepts, or one that is there twice.
    """
    if isinstance(concepts, str):
        raise ConceptDataError(f"concepts is the text {concepts!r}; wanted a list of words: [{concepts!r}].")
    listed = [each if isinstance(each, Concept) else Concept(str(each).strip()) for each in concepts]
    check_concepts(listed)
    return listed


def _lines(text: os.PathLike | str | Iterable[os.PathLike | str], progress: bool) -> Iterator[tuple[str, str]]:
    """Lines of text and where they stand: those of files, or those that were given."""
    for number, each in enumerate([epath.Path(text)] if isinstance(text, str | os.PathLike) else text, start=1):
        if isinstance(each, os.PathLike):
            name = epath.Path(each).name
            read = tqdm(read_lines(each), desc=f"reading {name}", unit="line", mininterval=1, disable=not progress)
            yield from ((f"{name}:{at}", line) for at, line in enumerate(read, start=1))
        elif " " not in each and each and epath.Path(each).is_file():
            raise CorpusError(f"{each!r} stands among lines of text, and is a file. Give pathlib.Path({each!r}).")
        else:
            yield f"line {number}", each


def set_of_rows(rows: Sequence[tuple[str, ...]], concepts: Sequence[Concept]) -> SentenceSet:
    """Return the set of rows (domain, concept, sentence, source), with the count of each concept."""
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    counts = table["concept"].value_counts().reindex([concept.word for concept in concepts], fill_value=0)
    return SentenceSet(table, counts.rename("sentences"))


def _tell_few(counts: pd.Series, wanted: int, remedy: str) -> None:
    few = counts[counts < wanted]
    if len(few):
        tell_few({str(word): int(count) for word, count in few.items()}, len(counts), wanted, remedy, stacklevel=4)


def _tell_doubtful(audited: Audit) -> None:
    grave = audited.table[audited.table["severity"] == "high"]
    if len(grave):
        problems = grave.groupby("problem", sort=False)["sentence"].nunique()
        named = ", ".join(f"{problem} ({count})" for problem, count in problems.items())
        warnings.warn(
            f"{grave['sentence'].nunique()} of {sum(audited.sentences.values())} sentences are doubtful: {named}. They "
            "are kept; `.audit` of the set says which and why. Drop them, or ask a better model.",
            ExpertLensWarning,
            stacklevel=3,
        )


def tell_few(few: Mapping[str, int], concepts: int, wanted: int, remedy: str, *, stacklevel: int = 3) -> None:
    """Warn of concepts that have fewer sentences than wanted.

    Args:
      few: their sentences, by concept.
      concepts: how many there are in all.
      wanted: sentences of each.
      remedy: what to do.
      stacklevel: of the warning.

    Warns:
      ExpertLensWarning: it names them.
    """
    named = ", ".join(f"{word} ({count})" for word, count in few.items())
    warnings.warn(
        f"{len(few)} of {concepts} concepts have fewer than {wanted} sentences: {named}. {remedy}",
        ExpertLensWarning,
        stacklevel=stacklevel,
    )
