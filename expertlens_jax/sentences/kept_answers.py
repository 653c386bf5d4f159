"""A language model's answers, kept as they come: a killed run asks only what was not answered."""

import functools
import json
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath
from tqdm.auto import tqdm

from expertlens_jax.errors import EndpointError, RunDirectoryError
from expertlens_jax.run_directory import write_text
from expertlens_jax.sentences.acceptance import Limits
from expertlens_jax.sentences.answers import Ask, collect_sentences
from expertlens_jax.sentences.concept_list import Concept
from expertlens_jax.sentences.writing import Answer

COLUMNS = ("domain", "concept", "sentence", "source")


def write_sentences(
    ask: Ask,
    concepts: Sequence[Concept],
    limits: Limits,
    directory: epath.Path,
    *,
    fill: Callable[[Concept, list[str]], str],
    draw_seed: Callable[[str, int], int],
    chats: bool,
    wanted: int,
    most_answers: int,
) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """Collect every concept's sentences, from the answers that a directory holds and as many more as it takes.

    Args:
      ask: who answers.
      concepts: each once.
      limits: of a sentence's length.
      directory: holds a file of answers a concept, as JSON lines with the prompt, the seed and the model's name.
      fill: the prompt, given a concept and the sentences of it that are there already.
      draw_seed: the seed of a question, given a concept's word and the question's number.
      chats: answers are lists; otherwise continuations, one a line.
      wanted: how many sentences of each concept.
      most_answers: after so many answers nothing more is asked of a concept.

    Returns:
      Rows with the keys `COLUMNS`, and of each concept what its answers came to, see `collect_sentences`.

    Raises:
      EndpointError: an answer that didn't come; all before it are kept.
      RunDirectoryError: a file that doesn't hold answers as they were written.
    """

    def ask_or_explain(prompt: str, seed: int) -> Answer:
        try:
            return ask(prompt, seed)
        except EndpointError as error:
            raise EndpointError(f"{error} All answers so far are kept; launch again to go on.") from error

    rows, summaries, taken = [], [], set()
    for concept in tqdm(concepts, desc="concepts", unit="concept"):
        file = directory / f"{urllib.parse.quote(concept.word, safe='')}.jsonl"
        with tqdm(total=wanted, desc=concept.word, unit="sentence", leave=False) as bar:
            found, summary = collect_sentences(
                ask_or_explain,
                concept.word,
                limits,
                fill=functools.partial(fill, concept),
                draw_seed=functools.partial(draw_seed, concept.word),
                chats=chats,
                wanted=wanted,
                most_answers=most_answers,
                taken=taken,
                answers=read_answers(file),
                keep=functools.partial(_write_answers, file),
                tell=functools.partial(_advance, bar),
            )
        sources = f"{directory.name}/{file.name}"
        rows += [row_of(concept, sentence, f"{sources}:{answer}") for sentence, answer in found]
        summaries.append(summary)
    return rows, summaries


def _write_answers(file: epath.Path, answers: list[dict[str, Any]]) -> None:
    write_text(file, "".join(json.dumps(each) + "\n" for each in answers))


def _advance(bar: tqdm, sentences: int, answers: int) -> None:
    bar.update(sentences)
    bar.set_postfix_str(f"{answers} answers")


def read_answers(file: epath.Path) -> list[dict[str, Any]]:
    """Return the answers that a concept's file holds.

    Raises:
      RunDirectoryError: the file isn't as it was written.
    """
    if not file.exists():
        return []
    try:
        answers = [json.loads(line) for line in file.read_text().splitlines()]
        if not all(isinstance(answer["text"], str) and isinstance(answer["model"], str) for answer in answers):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise RunDirectoryError(f"{file} doesn't hold answers as they were written. Remove it to ask anew.") from None
    return answers


def row_of(concept: Concept, sentence: str, source: str) -> dict[str, str]:
    """Return a row of the sentence set."""
    return dict(zip(COLUMNS, (concept.domain, concept.word, sentence, source), strict=True))
