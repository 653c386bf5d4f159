"""Which sentences mention a concept: its word in any of the word's forms, as a whole word.

A word of a sentence mentions a concept if it is the concept's word, or has it for its lemma in simplemma's dictionary
(ran: run; happier: happy; Katzen: Katze), or is one of the forms given with the concept. The dictionary has one lemma
for a form. So English adds what it leaves out: the regular plural and the participle in -ing, and a short list of
forms that it gives to another word (left, rose, leaves).

What is left out of a concept's negatives should be rather too much than too little, so a homograph is a mention: "saw"
is one of the concept "see" and of the concept "saw", "rose" of "rise" and of "rose". But the concept itself is taken as
it is written: "see" is no mention of "saw"; "rise" is none of "rose", and "cat" none of a concept "cats".

Chinese, Japanese, Thai, Lao, Khmer and Burmese are written without spaces: there a concept is found anywhere in the
text. Korean adds particles to words: there it is found at the beginning of a word.
"""

import collections
import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import regex

from expertlens_jax.cards import counted
from expertlens_jax.data.languages import check_language, is_listed, lemmas, listed_forms, lower, words_of
from expertlens_jax.errors import ConceptDataError

_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
_SUFFIXED = regex.compile(r"\p{Hangul}")
_SEPARATORS = re.compile(r"[\s_-]+")

# English forms for which the dictionary has another lemma. Left out are those that are far more often a word of
# another sense than a form of this one, of a concept that is often a noun: born and bore (bear), wound (wind), dove.
_OTHER_FORMS = {
    **{"bad": ("worse",), "bend": ("bent",), "bid": ("bade", "bidden"), "big": ("bigger",), "bind": ("bound",)},
    **{
        "bite": ("bit",),
        "break": ("broke",),
        "cow": ("kine",),
        "datum": ("data",),
        "drink": ("drunk",),
        "far": ("further", "furthest"),
        "feel": ("felt",),
    },
    **{"go": ("gone",), "grind": ("ground",), "hot": ("hotter",), "leave": ("left",)},
    **{"little": ("less", "least"), "many": ("more", "most"), "much": ("more", "most")},
    **{"old": ("eldest",), "panic": ("panicked", "panicking"), "program": ("programmed",)},
    **{"ring": ("rung",), "rise": ("rose",), "shake": ("shook",), "shoot": ("shot",), "sink": ("sunken",)},
    **{"slay": ("slew",), "smell": ("smelt",), "spell": ("spelt",), "swear": ("swore",), "think": ("thought",)},
    **{"tread": ("trod",), "well": ("better", "best"), "win": ("won",)},
}
_ENDINGS = (
    (re.compile("(?<=lea|loa|hea|hal|cal|sel|hel|wol|hie|hoo|har|car|war)f$"), "ves"),
    (re.compile("(?<=[lnw]i)fe$"), "ves"),
    (re.compile("is$"), "es"),
    (re.compile("o$"), "oes"),
    (re.compile("person$"), "people"),
)
"""Endings of plurals that the dictionary gives to another word: wives, axes, mangoes, salespeople."""


@functools.lru_cache(2**16)  # rated words are looked up for every similarity that is aligned with them
def normal_name(name: str) -> str:
    """Return what two spellings of one name share: without case, and with one space for spaces, hyphens, underscores.

    Accents may be composed with their letters or follow them.
    """
    return _SEPARATORS.sub(" ", _normal(unicodedata.normalize("NFKC", name))).strip()


def split_words(text: str, language: str = "en") -> tuple[str, ...]:
    """Return the words of `text`, without case, punctuation, and the possessive 's."""
    return tuple(_normal(word) for word, _, _ in _words(_lower(text, language), language))


def word_forms(concept: str, *, language: str = "en", forms: Sequence[str] = ()) -> frozenset[tuple[str, ...]]:
    """Return the forms under which a sentence may mention `concept`, each as its words.

    These are the concept as it is written, the forms that the dictionary lists of it or, of several words, of its last
    one (ice creams), the regular plural and participle in English, and those given. `find_mentions` finds them all, and
    further ones that the dictionary has rules for.

    Args:
      concept: its word or words.
      language: its ISO 639 code.
      forms: others that stand for the concept.

    Raises:
      ConceptDataError: an unknown language.
    """
    language = check_language(language)
    own = split_words(concept, language)
    if not own:
        return frozenset()
    *before, last = own
    written = _lower(concept, language).split()[-1:]
    listed = {
        form
        for lemma in {last, *written, last.capitalize(), *(word.capitalize() for word in written)}
        for form in (listed_forms(language).get(lemma, ()) if is_listed(lemma, language) else ())
    }
    # A capital may make it another word; sentences are read without.
    found = {words for form in listed for words in [split_words(form, language)] if _is_form(form, last, language)}
    inflected = {(*before, *words) for words in found}
    given = {split_words(form, language) for form in forms}
    return frozenset(inflected | _written_forms(concept, language) | given) - {()}


def _is_form(form: str, lemma: str, language: str) -> bool:
    words = [word for word, _, _ in _words(_lower(form, language), language)]
    return len(words) == 1 and lemma in map(_normal, lemmas(words[0], language))


def find_mentions(
    concepts: Sequence[str],
    sentences: Sequence[str],
    *,
    language: str | Sequence[str] = "en",
    forms: Mapping[str, Sequence[str]] | Sequence[Sequence[str]] = (),
) -> np.ndarray:
    """Return bool `[concepts, sentences]`: the sentence holds the concept's word in one of its forms.

    Whole words only, whatever their case: "Cats' eyes" and "cat-like" mention "cat", "category" doesn't. Each
    sentence is split once, each distinct word lemmatised once, and looked up in a table of all concepts' forms, so
    time hardly grows with the number of concepts. The module's docstring has the rule.

    Args:
      concepts: `[concepts]`, the word or words of each.
      sentences: `[sentences]`.
      language: an ISO 639 code, of all concepts or `[concepts]`.
      forms: others that stand for a concept: by concept, or `[concepts]`.

    Raises:
      ConceptDataError: an unknown language, or forms of what is no concept.
    """
    mentions = np.zeros((len(concepts), len(sentences)), bool)
    rows_of = collections.defaultdict(list)  # of each language
    languages, forms = _of_each(concepts, language, forms)
    for row, code in enumerate(languages):
        rows_of[code].append(row)
    for code, rows in rows_of.items():
        table = _Table([(concepts[row], forms[row]) for row in rows], code)
        rows = np.array(rows)
        for column, sentence in enumerate(sentences):
            if found := table.mentioned(sentence):
                mentions[rows[list(found)], column] = True
    return mentions


def mention_finder(
    concept: str, *, language: str = "en", forms: Sequence[str] = ()
) -> Callable[[str], list[tuple[int, int]]]:
    """Return a function that finds a concept's word in a text: `[(start, end)]`, in order, none overlapping another.

    It finds something in a text if and only if `find_mentions` does. A possessive 's isn't part of the word.
    """
    table = _Table([(concept, tuple(forms))], check_language(language))

    def find(text: str) -> list[tuple[int, int]]:
        merged: list[tuple[int, int]] = []
        for start, end in sorted((start, end) for _, start, end in table.places(text)):
            if merged and start < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        return merged

    return find


def place_finder(concepts: Sequence[str], *, language: str = "en") -> Callable[[str], list[tuple[int, int, int]]]:
    """Return a function that finds the words of many concepts in a text: `[(row, start, end)]`, in order of the text.

    The table of forms is made once, so that many texts can be read for many concepts. A possessive 's isn't part of the
    word.
    """
    table = _Table([(concept, ()) for concept in concepts], check_language(language))
    return lambda text: sorted(table.places(text), key=lambda place: place[1:])


class _Table:
    """The forms of concepts of one language, to look sentences' words up in."""

    def __init__(self, concepts: Sequence[tuple[str, Sequence[str]]], language: str) -> None:
        self.language = language
        if language == "en":  # a short list: read with the dictionary, it keeps nobody waiting later
            listed_forms(language)
        # By words as they stand, and by lemmas: what follows the dictionary's rules from a form that is listed as
        # another word's is no form of the concept ("roses" isn't one of "rise").
        self.by_words = collections.defaultdict(set)
        self.by_lemmas = collections.defaultdict(set)
        self.anywhere: list[tuple[int, regex.Pattern[str]]] = []  # ty: ignore[invalid-type-form]: as in `languages`
        for row, (concept, forms) in enumerate(concepts):
            for form in (concept, *forms):
                if pattern := _unspaced_pattern(form, language):
                    self.anywhere.append((row, pattern))
                elif words := split_words(form, language):
                    self.by_lemmas[words].add(row)
                    self.by_words[words].add(row)
            if not _unspaced_pattern(concept, language):
                for words in _written_forms(concept, language):
                    self.by_words[words].add(row)
        self.lengths = sorted({len(words) for words in self.by_words})
        self.parts = {part for words in self.by_words if len(words) > 1 for part in words}
        self.known: dict[str, tuple[frozenset[int], tuple[str, ...]]] = {}

    def mentioned(self, text: str) -> set[int]:
        """Rows of the concepts that a text mentions."""
        lowered = _lower(text, self.language)
        rows = {row for row, pattern in self.anywhere if pattern.search(_normal(lowered))}
        words = [word for word, _, _ in _words(lowered, self.language)] if self.by_words else ()
        for found, _, _ in self._runs(words):
            rows |= found
        return rows

    def places(self, text: str) -> Iterator[tuple[int, int, int]]:
        """(row, start, end) of every mention in a text; those of one row may overlap."""
        lowered, origins = _lower_with_origins(text, self.language)

        def place(start: int, end: int) -> tuple[int, int]:
            return origins[start][0], origins[end - 1][1]

        words = list(_words(lowered, self.language))
        for found, first, last in self._runs([word for word, _, _ in words]):
            for row in found:
                yield row, *place(words[first][1], words[last][2])
        if self.anywhere:
            # Casefolding may change the length, but not of what is written without spaces.
            folded, where = _fold_with_origins(lowered)
            for row, pattern in self.anywhere:
                for match in pattern.finditer(folded):
                    yield row, *place(where[match.start()], where[match.end() - 1] + 1)

    def _runs(self, words: Sequence[str]) -> Iterator[tuple[frozenset[int] | set[int], int, int]]:
        """Return the rows that each run of words mentions, and its first and last word."""
        keys = [self._look_up(word) for word in words]
        for place, (rows, _) in enumerate(keys):
            if rows:
                yield rows, place, place
        for length in self.lengths:
            if length == 1:
                continue
            for first in range(len(words) - length + 1):
                parts = [keys[place][1] for place in range(first, first + length)]
                if not all(parts):
                    continue
                rows = set(self.by_words.get(tuple(_normal(word) for word in words[first : first + length]), ()))
                for run in itertools.product(*parts):
                    rows |= self.by_lemmas.get(run, set())
                if rows:
                    yield rows, first, first + length - 1

    def _look_up(self, word: str) -> tuple[frozenset[int], tuple[str, ...]]:
        """Return the rows that a word mentions by itself, and some of its readings.

        These are the readings that are part of a concept of several words.
        """
        if word not in self.known:
            written = _normal(word)
            readings = {written, *map(_normal, lemmas(word, self.language))}
            rows = set(self.by_words.get((written,), ()))
            for reading in readings:
                rows |= self.by_lemmas.get((reading,), set())
            self.known[word] = frozenset(rows), tuple(sorted(readings & self.parts))
        return self.known[word]


def _of_each(
    concepts: Sequence[str], language: str | Sequence[str], forms: Mapping[str, Sequence[str]] | Sequence[Sequence[str]]
) -> tuple[list[str], list[Sequence[str]]]:
    """Return the language and the other forms of each concept."""
    languages = [language] * len(concepts) if isinstance(language, str) else list(language)
    if isinstance(forms, Mapping):
        if unknown := [name for name in forms if name not in concepts]:
            raise ConceptDataError(f"forms of {unknown[0]!r} were given, which is no concept here")
        forms = [forms.get(concept, ()) for concept in concepts]
    elif not len(forms):
        forms = [()] * len(concepts)
    if len(languages) != len(concepts) or len(forms) != len(concepts):
        raise ConceptDataError(
            f"{counted(len(concepts), 'concept needs', 'concepts need')} as many languages and lists of forms, not "
            f"{len(languages)} and {len(forms)}"
        )
    return [check_language(code) for code in languages], [(each,) if isinstance(each, str) else each for each in forms]


@functools.cache
def _written_forms(concept: str, language: str) -> frozenset[tuple[str, ...]]:
    """Return a concept's words, and further forms of the last one.

    In English these are its regular plural and participle, and what the dictionary lacks.
    """
    words = split_words(concept, language)
    if not words or language != "en":
        return frozenset({words}) - {()}
    *before, last = words
    inflected = {last, *_plurals(last), _participle(last), *_OTHER_FORMS.get(last, ())}
    return frozenset((*before, form) for form in inflected)


def _plurals(word: str) -> set[str]:
    """Return the regular plural, and what the dictionary may give to another word."""
    if word.endswith(("s", "x", "z", "ch", "sh")):
        plurals = {word + "es"}
    elif re.search("[^aeiou]y$", word):
        plurals = {word[:-1] + "ies"}
    else:
        plurals = {word + "s"}
    return plurals | {ending.sub(plural, word) for ending, plural in _ENDINGS}


def _participle(word: str) -> str:
    if len(word) < 3:
        return word
    if re.search("[^aeio]e$", word):
        return word[:-1] + "ing"
    if re.search("^[^aeiou]*[aeiou][^aeiouwxy]$", word):  # one short syllable: running
        return word + word[-1] + "ing"
    return word + "ing"


def _unspaced_pattern(form: str, language: str) -> regex.Pattern[str] | None:  # ty: ignore[invalid-type-form]
    """Return the pattern of a form in folded text, if it is of a script that doesn't set words apart.

    Return None if it is of another script.
    """
    parts = [part for part in _SEPARATORS.split(_normal(_lower(form, language)).strip()) if part]
    if not any(_UNSPACED.search(part) or _SUFFIXED.search(part) for part in parts) or not split_words(form, language):
        return None
    start = "" if any(map(_UNSPACED.search, parts)) else r"(?<![\p{L}\p{N}\p{M}])"
    # White space as str.split and re have it: the separators of ASCII too, which aren't any to regex.
    return regex.compile(start + r"[\s\x1c-\x1f_-]*".join(map(regex.escape, parts)))


def _lower(text: str, language: str) -> str:
    if text.isascii():
        return lower(text, language)
    text = lower(unicodedata.normalize("NFKC", text), language).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return unicodedata.normalize("NFKC", text)


def _normal(lowered: str) -> str:
    """Return what spellings of one word share."""
    return lowered.casefold() if lowered.isascii() else unicodedata.normalize("NFKC", lowered.casefold())


def _words(lowered: str, language: str) -> Iterator[tuple[str, int, int]]:
    """(word, start, end) of the words of lower-case text, without the possessive 's."""
    for match in words_of(language).finditer(lowered):
        word = match.group().removesuffix("'s")
        yield word, match.start(), match.start() + len(word)


def _lower_with_origins(text: str, language: str) -> tuple[str, list[tuple[int, int]]]:
    """Lower-case text, and where each of its characters comes from in `text`: (start, end)."""
    lowered = _lower(text, language)
    if text.isascii():
        return lowered, [(place, place + 1) for place in range(len(lowered))]
    # A letter and its marks are lowered together, since they may compose into one.
    clusters = [(match.start(), match.end(), _lower(match.group(), language)) for match in regex.finditer(r"\X", text)]
    pieces = "".join(piece for _, _, piece in clusters)
    origins = [(start, end) for start, end, piece in clusters for _ in piece]
    # The last sigma of a word is lowered by what stands around it.
    return lowered if len(lowered) == len(pieces) else pieces, origins


def _fold_with_origins(lowered: str) -> tuple[str, list[int]]:
    """Folded text, and the place in `lowered` of each of its characters."""
    folded = [_normal(match.group()) for match in regex.finditer(r"\X", lowered)]
    starts = [match.start() for match in regex.finditer(r"\X", lowered)]
    return "".join(folded), [
        start + min(offset, len(piece) - 1)
        for start, piece in zip(starts, folded, strict=True)
        for offset in range(len(piece))
    ]
