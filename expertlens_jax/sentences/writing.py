"""Asking a language model for sentences: prompts filled in, answers read; who answers is the caller's affair."""

import dataclasses
import hashlib
import re
import string
from collections.abc import Sequence

from expertlens_jax.errors import SelectionError
from expertlens_jax.sentences.acceptance import Limits, split_sentences, trim_torn_quotes

PROMPT_FIELDS = ("concept", "sense", "count", "min_words", "max_words")

# "1.", "1)", "(1)", "**1.**", "a)", "-", "*", "•" before a sentence
_MARK = re.compile(r"(?:\*\*)?(?:\(?\d{1,3}[.):]|[a-zA-Z]\)|[-*•·–—‣◦▪])(?:\*\*)?\s+")
_EMPHASIS = re.compile(r"(\*\*|__|\*|`)(?=\S)(.+?)(?<=\S)\1")
_QUOTED = re.compile(r"([\"“‘'«])(.+)([\"”’'»])([.!?]?)")
_CLOSER_OF = dict(zip("\"“‘'«", "\"”’'»", strict=True))
_THOUGHT = re.compile(r"<think>.*?(?:</think>|$)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a language model answered, and the name it goes by."""

    text: str
    model: str


def check_template(name: str, template: str, fields: Sequence[str], needed: str) -> None:
    """Refuse a template that could not be filled in.

    Args:
      name: of the setting, for the message.
      template: text with fields in braces.
      fields: the fields there are.
      needed: the field that must be in it.

    Raises:
      SelectionError: unbalanced braces, a field that there isn't, or the needed one is missing.
    """
    wanted = f"wanted text with {{{needed}}}; the fields are {', '.join(f'{{{field}}}' for field in fields)}"
    try:
        found = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as problem:
        raise SelectionError(f"{name} is {template!r}: {problem}; {wanted}. A brace itself is doubled.") from None
    if not found <= {*fields} or needed not in found:
        raise SelectionError(f"{name} is {template!r}; {wanted}.")


def fill_prompt(
    template: str,
    concept: str,
    domain: str,
    *,
    count: int,
    limits: Limits,
    sense: str = "",
    again: str = "",
    known: Sequence[str] = (),
) -> str:
    """Return a prompt that asks for sentences of a concept.

    Args:
      template: with the fields `PROMPT_FIELDS`.
      concept: the word.
      domain: its category, which tells a bat that is an animal from one of sports; "" where none is known.
      count: how many sentences to ask for.
      limits: of their length.
      sense: template of the field {sense}, with {domain}; empty where the domain is unknown or the concept itself.
      again: template of what is added where sentences are known already, with {sentences}, one a line.
      known: those sentences.
    """
    filled = template.format(
        concept=concept,
        sense=sense.format(domain=domain) if domain and domain != concept else "",
        count=count,
        **dataclasses.asdict(limits),
    )
    return filled + (again.format(sentences="\n".join(known)) if known else "")


def fill_openings(openings: Sequence[str], concept: str, count: int) -> str:
    """Return `count` openings of a sentence about a concept, one a line, for models that only continue text.

    Args:
      openings: templates with {concept}, taken in turn.
      concept: the word.
      count: how many lines.
    """
    return "\n".join(openings[i % len(openings)].format(concept=concept) for i in range(count))


@dataclasses.dataclass(frozen=True)
class Wording:
    """How a language model is asked for sentences of a kind: templates, with fields in braces."""

    prompt: str
    """For a model that chats, with the fields `PROMPT_FIELDS`."""
    openings: Sequence[str]
    """For one that only continues text, with {concept}; taken in turn."""
    sense: str = ""
    """Where the domain is known, with {domain}; "" leaves it out."""
    again: str = ""
    """Where sentences are known already, with {sentences}; "" asks the same again."""

    def check(self, kind: str, *, openings: bool = True) -> None:
        """Refuse what could not be filled in.

        Args:
          kind: of sentences, for the message.
          openings: whether these are used.

        Raises:
          SelectionError: see `check_template`.
        """
        check_template(f"prompts.{kind}", self.prompt, PROMPT_FIELDS, "concept")
        for name, field in (("sense", "domain"), ("again", "sentences")):
            if getattr(self, name):
                check_template(name, getattr(self, name), (field,), field)
        for opening in (self.openings or ("",)) if openings else ():  # none is refused as one without {concept}
            check_template(f"openings.{kind}", opening, ("concept",), "concept")

    def fill(self, concept: str, domain: str, known: Sequence[str], *, chats: bool, count: int, limits: Limits) -> str:
        """Return what a model is asked: the prompt if it chats, or else openings.

        Args:
          concept: the word.
          domain: its category; "" where none is known.
          known: sentences of it that are there already.
          chats: whether the model is asked by a prompt.
          count: sentences that one question asks for.
          limits: of their length.
        """
        if not chats:
            return fill_openings(self.openings, concept, count)
        return fill_prompt(
            self.prompt, concept, domain, count=count, limits=limits, sense=self.sense, again=self.again, known=known
        )


def draw_seed(seed: int, kind: str, concept: str, attempt: int) -> int:
    """Return the seed of one question: below 2^31, the same whatever the other concepts are."""
    digest = hashlib.blake2b(f"{seed}\0{kind}\0{concept}\0{attempt}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def read_list(answer: str) -> list[str]:
    """Return the items of an answer that should be a list, without numbers, bullets, emphasis and quotes around them.

    Where any line is marked as an item, lines that aren't are chatter. Where none is, each line is an item, if there
    are several: a single unmarked line is a refusal or a remark. A reasoning model's `<think>` part isn't its answer.
    An answer without a list gives no items.
    """
    lines = [line.strip() for line in _THOUGHT.sub("", answer).splitlines()]
    lines = [line for line in lines if line and not line.startswith("```") and line not in ("[", "]")]
    marked = [line[mark.end() :] for line in lines if (mark := _MARK.match(line))]
    return [_bare(item) for item in marked or (lines if len(lines) > 1 else [])]


def read_continuations(answer: str) -> list[str]:
    """Return the sentences of an answer of openings and their continuations, one a line, without unfinished ends.

    Whether a line's last sentence is finished shows in its full stop; what has none is refused later.
    """
    return [trim_torn_quotes(each) for line in answer.splitlines() for each in split_sentences(line)]


def _bare(item: str) -> str:
    """Return an item without emphasis, and without the quotes that hold all of it."""
    item = item.strip()
    while (plain := _EMPHASIS.sub(r"\2", item)) != item:  # one within another
        item = plain
    item = item.removesuffix(",")
    quoted = _QUOTED.fullmatch(item)
    if quoted is None:
        return item
    opener, inner, closer, stop = quoted.groups()
    # '"Sit," he said, "or go."' begins and ends with quotes, but not with one pair of them.
    inner_quotes = {'"'} if opener == '"' else {opener} - {"'"}
    if closer != _CLOSER_OF[opener] or any(quote in inner for quote in inner_quotes):
        return item
    return inner + stop
