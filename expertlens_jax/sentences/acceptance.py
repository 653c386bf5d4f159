"""What counts as a sentence of a concept: one whole sentence, of fitting length, that mentions it and is new."""

import collections
import dataclasses
import re
from collections.abc import Container, Iterable

from expertlens_jax.data.words import find_mentions, split_words
from expertlens_jax.errors import SelectionError

_CLOSERS = "\"'”’»)\\]"
_OPENERS = "\"'“‘«(\\["
_END = re.compile(f"[.!?…]+[{_CLOSERS}]*(?= )")
_ENDED = re.compile(f"[.!?…][{_CLOSERS}]*$")
_START = re.compile(rf"[{_OPENERS}—–\-]*\s*")
_LAST_WORD = re.compile(r"[^\s\"'“‘(\[]+$")
_PAIRS = (('"', '"'), ("“", "”"), ("«", "»"), ("(", ")"))
_ABBREVIATIONS = frozenset(
    "mr mrs ms mme messrs dr prof rev hon st mt capt col gen lieut lt sgt gov sen rep jr sr esq "
    "no vol fig vs cf e.g i.e viz approx ca".split()
)
_STRAY_QUOTE = re.compile(r"(?:^| )[\"“”'](?: |$)|\w[\"“]\w")
_DOUBLE = (re.compile(r"(?<![^\s(\[—–-])[\"“](?=\S)"), re.compile(r"(?<=\S)[\"”](?!\w)"))
_SINGLE = (re.compile(r"(?<![\w.,;:!?…])['‘](?=\w)"), re.compile(r"(?<=[\w.,;:!?…])(?<!s)['’](?!\w)"))
_ROUND = (re.compile(r"[(«]"), re.compile(r"[)»]"))
"""What opens a quote or bracket, and what closes it."""
_LOST_DASH = re.compile(r" [,;:!?.](?:\W|$)| n['’]t\b")
_HEADING = re.compile(r"\b[A-Z]{2,}[ .,]+[A-Z]{2,}\b|\b(?:CHAPTER|VOLUME|BOOK|Chapter [IVXLC\d]+)\b")
_MARKS = re.compile(r"[_*\[\]{}<>|=~^#@\\]|\.{4}")
_CLIPPED = re.compile(
    r"\w['’](?= \w)(?<!s['’])|(?<!\w)['’](?:em|un|ee|im|er|is|tis|twas|twere|twill|t|d|s|re|ll|way|cause)\b"
)
_OLD_WORDS = frozenset(
    "thee thou thy thine ye hath hast doth dost didst hadst wilt shalt canst wouldst shouldst couldst wert tis twas "
    "methinks nay yea quoth ain't bain't hain't em yer ter wi nowt owt summat summut tha thi mun dunna canna wunna "
    "didna couldna shanna dunno gwine dat dis dem ze zis zat vas ee oop doan't doant naw wot ov hev "
    "hisself theirselves yourn hern ourn knowed growed catched wuz sez cos ole feyther ower owd weel wull iss zo "
    "vor vur zur zee zay yo yow o th bairn lass lassie laddie whilk nae sae frae gie gang auld "
    "mair wha guid haud mak tak maun verra dinna wadna wouldna hadna wasna isna mem marm".split()
)
"""Words of dialect, and of the English of the Bible."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """How many words a sentence may have, both ends included; words are what spaces separate.

    Raises:
      SelectionError: no length fits.
    """

    min_words: int
    max_words: int

    def __post_init__(self) -> None:
        if not 1 <= self.min_words <= self.max_words:
            raise SelectionError(
                f"sentences of {self.min_words} to {self.max_words} words were given; wanted min_words of at least "
                "1, and max_words no smaller."
            )


def split_sentences(text: str) -> list[str]:
    """Split prose into sentences, by a simple rule that needs no model.

    A sentence ends at `.`, `!`, `?` or `…`, with the quotes and brackets that close after it, if a space follows and
    then anything but a lowercase letter. A lone full stop after an abbreviation (Mr., Dr., e.g.) or an initial (J.)
    ends nothing. So `"Stop!" she cried.` is one sentence and `"Stop!" Mary cried.` two. White space, line ends too,
    becomes single spaces. The last sentence may be unfinished.
    """
    text = " ".join(text.split())
    sentences, start = [], 0
    for end in _END.finditer(text):
        following = _beginning(text, end.end() + 1)
        if text[following : following + 1].islower() or (end.group() == "." and _abbreviates(text, start, end.start())):
            continue
        sentences.append(text[start : end.end()])
        start = end.end() + 1
    return sentences + ([text[start:]] if text[start:] else [])


def _abbreviates(text: str, start: int, stop: int) -> bool:
    """Return whether the word of `text[start:stop]` before a full stop is an abbreviation or an initial.

    "I" is a word.
    """
    word = _LAST_WORD.search(text[max(start, stop - 12) : stop])
    if word is None:
        return False
    last = word.group()
    return last.lower() in _ABBREVIATIONS or (len(last) == 1 and last.isupper() and last != "I")


def trim_torn_quotes(sentence: str) -> str:
    """Return the sentence without a quote or bracket at its ends whose other half stands in another sentence."""
    for opener, closer in _PAIRS:
        torn = sentence.count(opener) % 2 if opener == closer else sentence.count(opener) - sentence.count(closer)
        if torn and sentence.startswith(opener) and (opener == closer or torn > 0):
            sentence = sentence[1:].lstrip()
        elif torn and sentence.endswith(closer) and (opener == closer or torn < 0):
            sentence = sentence[:-1].rstrip()
    return sentence


def sentence_key(sentence: str) -> str:
    """Return what two sentences share that say the same: their words, without case and punctuation."""
    return " ".join(split_words(sentence))


def refusal(sentence: str, concept: str, limits: Limits) -> str | None:
    """Return why a sentence can't stand for a concept, or None if it can.

    Args:
      sentence: with single spaces.
      concept: the word that must be in it, in one of its forms (`words.find_mentions`).
      limits: of its length.
    """
    reason = refusal_of_form(sentence, limits)
    if reason is None and not find_mentions([concept], [sentence]).item():
        return "lacks the word"
    return reason


def _beginning(text: str, start: int = 0) -> int:
    """Return where the first letter stands, after quotes and brackets."""
    found = _START.match(text, start)
    return found.end() if found else start


def refusal_of_form(sentence: str, limits: Limits) -> str | None:
    """Return why a text isn't one whole sentence of fitting length, or None if it is."""
    if not sentence.isprintable():
        return "unprintable characters"
    if not _ENDED.search(sentence):
        return "unfinished"
    if sentence[_beginning(sentence) :][:1].islower():
        return "begins in the middle"
    if len(split_sentences(sentence)) > 1:
        return "several sentences"
    length = len(sentence.split())
    if length < limits.min_words:
        return "too short"
    if length > limits.max_words:
        return "too long"
    return None


def flaw_of_prose(sentence: str) -> str | None:
    """Return why a sentence of a book isn't whole and plain English prose, or None if it is.

    Refused are quotes and brackets whose other half is missing, spaces before punctuation (where a dash was lost),
    headings in capitals, footnotes and other marks, and the words of dialect and of an older English ("th' owd 'un",
    "hath").

    Args:
      sentence: with single spaces.
    """
    if _STRAY_QUOTE.search(sentence) or not all(_in_turn(sentence, *pair) for pair in (_DOUBLE, _SINGLE, _ROUND)):
        return "torn quotes"
    if _LOST_DASH.search(sentence):
        return "a gap"
    if _HEADING.search(sentence):
        return "a heading"
    if _MARKS.search(sentence):
        return "marks"
    words = sentence.replace("’", "'").lower().split()
    if any(word.strip("\"'“”‘’()[],;:.!?…") in _OLD_WORDS for word in words) or _CLIPPED.search(sentence):
        return "dialect"
    return None


def _in_turn(sentence: str, opener: re.Pattern[str], closer: re.Pattern[str]) -> bool:
    """Return whether what opens and what closes stand in turn, and end with what closes."""
    opened = {match.start() for match in opener.finditer(sentence)}
    places = sorted(opened | {match.start() for match in closer.finditer(sentence)})
    return all((place in opened) is (number % 2 == 0) for number, place in enumerate(places)) and len(places) % 2 == 0


def accept_sentences(
    candidates: Iterable[str], concept: str, limits: Limits, taken: Container[str] = frozenset()
) -> tuple[dict[str, str], collections.Counter[str]]:
    """Return the sentences among the candidates that can stand for a concept, each once.

    Args:
      candidates: sentences, in order; of those with one key the first that fits is taken.
      concept: whose word they must hold.
      limits: of their length.
      taken: keys of sentences that are used already, for this concept or another.

    Returns:
      Sentences by their keys, in order; and how many were refused for what reason.
    """
    accepted: dict[str, str] = {}
    refused: collections.Counter[str] = collections.Counter()
    for candidate in candidates:
        sentence = " ".join(candidate.split())
        key = sentence_key(sentence)
        reason = refusal(sentence, concept, limits)
        if reason is None and (key in accepted or key in taken):
            reason = "duplicate"
        if reason is None:
            accepted[key] = sentence
        else:
            refused[reason] += 1
    return accepted, refused
