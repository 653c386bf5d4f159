"""Sentence sets of one's own concepts: mined from text, or written by a language model."""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import pandas as pd
from etils import epath

from expertlens_jax.errors import ConceptDataError, CorpusError, ExpertLensWarning, SelectionError
from expertlens_jax.models.model import Model
from expertlens_jax.run_directory import write_text
from expertlens_jax.sentences import prompts
from expertlens_jax.sentences.acceptance import Limits
from expertlens_jax.sentences.answers import ask_model, chats_with, collect_sentences
from expertlens_jax.sentences.concept_list import Concept, check_concepts
from expertlens_jax.sentences.mining import mine_sentences
from expertlens_jax.sentences.writing import Answer, draw_seed, fill_openings, fill_prompt
from expertlens_jax.training.corpus import read_lines

_COLUMNS = ("domain", "concept", "sentence", "source")


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
        # Quotes are literal: load_concepts reads a .tsv so, and a sentence holds neither tabs nor line ends.
        lines = ["\t".join(_COLUMNS), *("\t".join(row) for row in self.table[list(_COLUMNS)].to_numpy())]
        path.parent.mkdir(parents=True, exist_ok=True)
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
    listed, limits = _concepts(concepts), Limits(min_words, max_words)
    mined, _ = mine_sentences(
        _lines(text), listed, limits, most=per_concept, seed=seed, most_per_book=per_book, prose=prose
    )
    rows = [
        (concept.domain, concept.word, each.sentence, each.book or each.place)
        for concept in listed
        for each in mined[concept.word]
    ]
    return _sentence_set(rows, listed, per_concept, "Give more text, a paragraph a line, or wider limits of words.")


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
      A `SentenceSet`; `source` names the model, or the function, and the number of the answer.

    Warns:
      ExpertLensWarning: concepts have fewer sentences than wanted.

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
    listed, limits = _concepts(concepts), Limits(min_words, max_words)
    if kind not in prompts.PROMPTS:
        raise SelectionError(f"Unknown kind of sentences {kind!r}. Choose from: {', '.join(prompts.PROMPTS)}.")
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
        fill = functools.partial(_prompt, concept, kind, chats, per_answer, limits)
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
    return _sentence_set(rows, listed, per_concept, "Raise most_answers, or ask a better model.")


def _prompt(concept: Concept, kind: str, chats: bool, count: int, limits: Limits, known: list[str]) -> str:
    if not chats:
        return fill_openings(prompts.OPENINGS[kind], concept.word, count)
    return fill_prompt(
        prompts.PROMPTS[kind],
        concept.word,
        concept.domain,
        count=count,
        limits=limits,
        sense=prompts.SENSE,
        again=prompts.AGAIN,
        known=known,
    )


def _concepts(concepts: Sequence[str | Concept]) -> list[Concept]:
    if isinstance(concepts, str):
        raise ConceptDataError(f"concepts is the text {concepts!r}; wanted a list of words: [{concepts!r}].")
    listed = [each if isinstance(each, Concept) else Concept(str(each).strip()) for each in concepts]
    check_concepts(listed)
    return listed


def _lines(text: os.PathLike | str | Iterable[os.PathLike | str]) -> Iterator[tuple[str, str]]:
    """Lines of text and where they stand: those of files, or those that were given."""
    for number, each in enumerate([epath.Path(text)] if isinstance(text, str | os.PathLike) else text, start=1):
        if isinstance(each, os.PathLike):
            yield from ((f"{epath.Path(each).name}:{at}", line) for at, line in enumerate(read_lines(each), start=1))
        elif " " not in each and each and epath.Path(each).is_file():
            raise CorpusError(f"{each!r} stands among lines of text, and is a file. Give pathlib.Path({each!r}).")
        else:
            yield f"line {number}", each


def _sentence_set(
    rows: Sequence[tuple[str, ...]], concepts: Sequence[Concept], wanted: int, remedy: str
) -> SentenceSet:
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    counts = table["concept"].value_counts().reindex([concept.word for concept in concepts], fill_value=0)
    few = counts[counts < wanted]
    if len(few):
        named = ", ".join(f"{word} ({count})" for word, count in few.items())
        warnings.warn(
            f"{len(few)} of {len(concepts)} concepts have fewer than {wanted} sentences: {named}. {remedy}",
            ExpertLensWarning,
            stacklevel=3,
        )
    return SentenceSet(table, counts.rename("sentences"))
