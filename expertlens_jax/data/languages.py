"""Languages that mentions are found in: which are lemmatised, which are matched as they stand, and how words end."""

import functools
from collections.abc import Mapping

import regex
import simplemma
from simplemma.strategies.dictionaries import dictionary_factory

from expertlens_jax.errors import ConceptDataError

LEMMATIZED = tuple(sorted(dictionary_factory.SUPPORTED_LANGUAGES))
"""Codes of the languages with a dictionary of forms and lemmas."""

LITERAL = tuple(
    "af am as az be bn bo dz eu fo gu ha ig ja jv kk km kn ko ku ky lo mi mn mr mt my ne om or pa ps sa sd si so su ta "
    "te tg th ti tk ug ur uz vi wo xh yi yo yue zh zu".split()
)
"""Codes of languages without one: a concept is found as it is written, and in the forms that are given."""

_OTHER_NAMES = {"no": "nb", "hr": "hbs", "sr": "hbs", "bs": "hbs", "sh": "hbs", "fil": "tl", "iw": "he", "cmn": "zh"}

# Where an apostrophe separates two words: l'homme, dell'acqua, d'Kaz, Ankara'da. Elsewhere it is a letter of one.
_ELIDING = frozenset("ast ca fr ga gd gl it lb pt tr".split())
# Where a word's initial decides what it is: Bäume (trees) and bäume (of "bäumen", to rear).
_CAPITALIZING = frozenset({"de", "lb"})

# Letters and digits with their marks, and joiners between them; and apostrophes inside ("don't" is one word, so
# that it doesn't mention "don"). Hyphens and underscores separate: "ice-cream", "ice_cream" and "ice cream" are the
# same two words.
_LETTERS = r"[\p{L}\p{N}][\p{L}\p{N}\p{M}\u200c\u200d]*"
_WORD = regex.compile(rf"{_LETTERS}(?:'{_LETTERS})*")
_ELIDED_WORD = regex.compile(_LETTERS)


def check_language(language: str) -> str:
    """Return a language's code as it stands in `LEMMATIZED` or `LITERAL`; "de-AT" and "de_DE" are "de".

    Raises:
      ConceptDataError: it is none of them; the message lists them.
    """
    code = language.strip().replace("_", "-").casefold().partition("-")[0] if isinstance(language, str) else ""
    code = _OTHER_NAMES.get(code, code)
    if code not in LEMMATIZED and code not in LITERAL:
        raise ConceptDataError(
            f"no language {language!r}; give an ISO 639 code: with inflected forms there are {', '.join(LEMMATIZED)}; "
            f"matched as written, {', '.join(LITERAL)}"
        )
    return code


def words_of(language: str) -> regex.Pattern[str]:  # ty: ignore[invalid-type-form]: regex has no type stubs
    """Return the pattern of a word in lower-case text of a language."""
    return _ELIDED_WORD if language in _ELIDING else _WORD


def lower(text: str, language: str) -> str:
    """Return text in the language's lower case: Turkish has I of ı and İ of i."""
    return (text.replace("I", "ı").replace("İ", "i") if language in ("tr", "az") else text).lower()


@functools.lru_cache(maxsize=2**20)
def lemmas(word: str, language: str) -> frozenset[str]:
    """Return the base forms that the dictionary has for a lower-case word: ran -> run, läuft -> laufen."""
    if language not in LEMMATIZED:
        return frozenset()
    readings = [word]
    if language in _CAPITALIZING:
        readings += [word.replace("ss", "ß")] * ("ss" in word)  # STRASSE, and Strasse in Switzerland
        readings += [reading.capitalize() for reading in readings]
    return frozenset(simplemma.lemmatize(reading, lang=language) for reading in readings)


def is_listed(word: str, language: str) -> bool:
    """Return whether the dictionary has a word, of more than one letter: only such have listed forms."""
    return len(word) > 1 and language in LEMMATIZED and word in _dictionary(language)


@functools.lru_cache(maxsize=4)
def listed_forms(language: str) -> dict[str, list[str]]:
    """Return the forms that the dictionary lists of each lemma, other than itself."""
    forms: dict[str, list[str]] = {}
    if language in LEMMATIZED:
        dictionary = _dictionary(language)
        listed = list(dictionary)
        for form, lemma in ((form, dictionary[form]) for form in listed):
            if form != lemma:
                forms.setdefault(lemma, []).append(form)
    return forms


def _dictionary(language: str) -> Mapping[str, str]:
    """Return lemmas by their forms."""
    return dictionary_factory.DEFAULT_DICTIONARY_FACTORY.get_dictionary(language)
