"""Which sentences mention a concept: its word, or the word's plural, as a whole word."""

import collections
import functools
import re
import unicodedata
import unittest.mock
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import inflect

# Letters and digits, with apostrophes inside ("don't" is one word, so that it doesn't mention "don").
# Hyphens and underscores separate: "ice-cream", "ice_cream" and "ice cream" are the same two words.
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def split_words(text: str) -> tuple[str, ...]:
    """Returns the words of `text`, without case, punctuation, and the possessive 's."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return tuple(word.removesuffix("'s") for word in _WORD.findall(text))


@functools.cache
def word_forms(concept: str) -> frozenset[tuple[str, ...]]:
    """Returns the forms under which a sentence may mention `concept`, each as its words.

    These are the concept as it is written, its irregular plurals, modern and classical (foot: feet; person:
    people and persons; brother: brothers and brethren), and the regular one beside them, because dictionaries
    settle on one where writers use both (flamingos and flamingoes, scarfs and scarves, fish and fishes). The
    regular plural of an irregular word (mans) isn't English, so it costs nothing. Of several words the plural
    is inflect's (mothers in law) or the last word's (ice creams). No singular is sought: a concept that is
    itself a plural (clothes, news) is matched as it stands.
    """
    words = split_words(concept)
    if not words:
        return frozenset()
    joined = " ".join(words)
    plurals = (engine.plural_noun(joined) for engine in _inflections())
    return frozenset({words, (*words[:-1], _regular_plural(words[-1])), *map(split_words, plurals)}) - {()}


def find_mentions(concepts: Sequence[str], sentences: Sequence[str]) -> np.ndarray:
    """Returns bool `[concepts, sentences]`: the sentence holds the concept's word or its plural.

    Whole words only, whatever their case: "Cats' eyes" and "cat-like" mention "cat", "category" doesn't. Each
    sentence is split once, and its words (or runs of words, for concepts of several) looked up in a table of
    all concepts' forms, so time doesn't grow with the number of concepts.
    """
    rows_of = collections.defaultdict(list)
    for row, concept in enumerate(concepts):
        for form in word_forms(concept):
            rows_of[form].append(row)
    lengths = {len(form) for form in rows_of}

    mentions = np.zeros((len(concepts), len(sentences)), bool)
    for column, sentence in enumerate(sentences):
        words = split_words(sentence)
        for length in lengths:
            for start in range(len(words) - length + 1):
                if rows := rows_of.get(words[start : start + length]):
                    mentions[rows, column] = True
    return mentions


def _regular_plural(word: str) -> str:
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if re.search("[^aeiou]y$", word):
        return word[:-1] + "ies"
    return word + "s"


@functools.cache
def _inflections() -> "tuple[inflect.engine, inflect.engine]":
    """Returns two engines: modern plurals (cows) and classical ones (kine)."""
    # inflect has typeguard rewrite all its functions as it is imported, to check types at run time: three seconds.
    with unittest.mock.patch("typeguard.typechecked", lambda function: function):
        import inflect

    modern, classical = inflect.engine(), inflect.engine()
    classical.classical(all=True)
    return modern, classical
