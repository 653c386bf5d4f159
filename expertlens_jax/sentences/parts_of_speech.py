"""Whether an English word stands in a sentence as a noun, a verb or an adjective: by its form and its neighbours.

There is no model here and no dictionary of parts of speech, only closed lists of function words. They say "surely" for
what follows an article ("the smell of hay") or a pronoun ("they smell"), "no" for what can't be ("to smell", of the
noun), and "may be" for the rest. With much text, the sure ones are enough.
"""

from __future__ import annotations

import enum
import re

from expertlens_jax.errors import SelectionError


class Fit(enum.IntEnum):
    """Whether a word is the part of speech that is asked for."""

    NO = 0
    MAY_BE = 1
    SURE = 2


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DETERMINERS = _words("a an the my your his its our their some any every each another these those whose either neither")
_LOOSE_DETERMINERS = _words("that this no such what which all both many few several one two three four five six her")
_PREPOSITIONS = _words(
    "of in on at by with from for into upon under over through against between among amid about behind before after "
    "without within during toward towards across along near beyond beneath beside above below like than as"
)
_SUBJECTS = _words("i you he she it we they who thou ye")
_MODALS = _words(
    "will would shall should can could may might must do does did don't didn't doesn't won't wouldn't can't couldn't "
    "cannot shan't shouldn't mustn't needn't let's dare i'll you'll he'll she'll we'll they'll i'd you'd he'd she'd "
    "we'd they'd"
)
_ADVERBS = _words("not never always often ever still also just only even now then soon hardly scarcely almost")
_BE = _words("is was were are am be been being isn't wasn't weren't aren't i'm you're he's she's it's we're they're")
_HAVE = _words("have has had having haven't hasn't hadn't i've you've we've they've")
_LINKS = _words(
    "seem seems seemed look looks looked feel feels felt become becomes became grow grows grew turned remain remained"
)
_DEGREES = _words("so very too more most quite rather how less least somewhat extremely perfectly exceedingly")
_OBJECTS = _words("him me us them her it you himself herself myself themselves itself")
_JOINERS = _words(
    "and but or nor if when while because where how why though although till until since yet up down out off away "
    "back again there here to that which who whom"
)
_FUNCTION = (
    _DETERMINERS
    | _LOOSE_DETERMINERS
    | _PREPOSITIONS
    | _SUBJECTS
    | _MODALS
    | _ADVERBS
    | _BE
    | _HAVE
    | _OBJECTS
    | _JOINERS
)
_IRREGULAR_PLURALS = _words("men women children people feet teeth geese mice lice oxen kine dice brethren data media")
_IRREGULAR_DEGREES = _words(
    "better best worse worst further furthest farther farthest less least more most eldest elder"
)

_AFTER = re.compile(r"\s+([^\s]+)")
_EDGES = "\"'“”‘’()[],;:.!?…-–—"

PARTS_OF_SPEECH = ("noun", "verb", "adjective")


def check_part_of_speech(name: str) -> str:
    """Return a part of speech as it is written here, or "" for any.

    Raises:
      SelectionError: it is none.
    """
    if name and name not in PARTS_OF_SPEECH:
        raise SelectionError(f"no part of speech {name!r}; give {', '.join(PARTS_OF_SPEECH)}, or '' for any.")
    return name


def fits(sentence: str, start: int, end: int, word: str, part_of_speech: str) -> Fit:
    """Return whether a form of a word stands in a sentence as a part of speech.

    Args:
      sentence: the text.
      start, end: where the form stands in it.
      word: whose form it is, as it is listed.
      part_of_speech: "noun", "verb" or "adjective".

    A form with a capital is a name or begins a sentence, which tells too little; one beside a hyphen is part of another
    word. Neither fits.
    """
    form = sentence[start:end]
    if form != form.lower() or "-" in (sentence[start - 1 : start], sentence[end : end + 1]):
        return Fit.NO
    earlier, before = _neighbours_before(sentence[:start])
    after = _neighbour_after(sentence[end:])
    return _RULES[part_of_speech](form, word, earlier, before, after)


def _neighbours_before(text: str) -> tuple[str, str]:
    """Return the last two words before, in lower case; "" where punctuation or nothing stands between."""
    if not text.endswith(" "):
        return "", ""
    *_, earlier, before = ["", "", *text.lower().split()]
    before_word = _joined_to_next(before)
    return (_joined_to_next(earlier) if before_word and before[:1].isalnum() else ""), before_word


def _joined_to_next(token: str) -> str:
    """Return a token's word, or "" if punctuation follows it."""
    return token.lstrip(_EDGES).replace("’", "'") if token and token[-1].isalnum() else ""


def _neighbour_after(text: str) -> str:
    """Return the next word, in lower case; "" where punctuation follows. A capital stays: it may be a name."""
    found = _AFTER.match(text)
    return "" if found is None or not found.group(1)[0].isalnum() else found.group(1).rstrip(_EDGES)


def _is_content(word: str) -> bool:
    """Return whether it is a word of the open classes."""
    return bool(word) and word[0].islower() and word not in _FUNCTION


def _determines(word: str) -> bool:
    return word in _DETERMINERS or (word.endswith("'s") and word not in _BE)


def _noun(form: str, word: str, earlier: str, before: str, after: str) -> Fit:
    plural = form != word and (form.endswith("s") or form in _IRREGULAR_PLURALS or form.endswith("men"))
    if form != word and not plural:
        return Fit.NO
    if before in _SUBJECTS or before in _MODALS or before in _ADVERBS or (before == "to" and not plural):
        return Fit.NO
    if before in _OBJECTS - {"her"} or (before in _DEGREES and before not in ("more", "most", "less")):
        return Fit.NO
    if form.endswith("ing") and after in _DETERMINERS | _OBJECTS | {"that"}:
        return Fit.NO
    ends = not _is_content(after)
    if _determines(before) or before in _PREPOSITIONS - {"as", "like", "than"}:
        return Fit.SURE if ends else Fit.MAY_BE
    between = _is_content(before) and not before.endswith(("s", "ly"))
    if between and ends and not plural and _determines(earlier) and after not in _DETERMINERS | _OBJECTS:
        return Fit.SURE
    return Fit.MAY_BE


def _verb(form: str, word: str, earlier: str, before: str, after: str) -> Fit:
    if _determines(before) or before in _DEGREES | {"no"}:
        return Fit.NO
    transitive = after in _DETERMINERS | _OBJECTS | {"her", "that", "to"}
    if form.endswith("ing") and form != word:
        if after == "of":
            return Fit.NO
        return Fit.SURE if before in _BE | _SUBJECTS | _ADVERBS or transitive else Fit.MAY_BE
    if form == word or form.endswith("s"):
        if before in _SUBJECTS | _MODALS | _ADVERBS or (before == "to" and after != "of"):
            return Fit.SURE
        return Fit.NO if before in _PREPOSITIONS or _determines(earlier) or before == "her" else Fit.MAY_BE
    if before in _PREPOSITIONS | {"to", "her"}:  # to the left, her left hand
        return Fit.NO
    led = before in _SUBJECTS | _ADVERBS | _BE | _HAVE or before.endswith("ly")
    return Fit.SURE if led or transitive else Fit.MAY_BE


def _adjective(form: str, word: str, earlier: str, before: str, after: str) -> Fit:
    if form != word and not form.endswith(("er", "est")) and form not in _IRREGULAR_DEGREES:
        return Fit.NO
    if form == word and (before in _SUBJECTS | _MODALS | {"to"}):
        return Fit.NO
    if _determines(before) or before in _PREPOSITIONS:
        return Fit.SURE if _is_content(after) else Fit.NO
    if before in _DEGREES | _BE | _LINKS and after not in _DETERMINERS | _OBJECTS:
        return Fit.SURE
    return Fit.MAY_BE


_RULES = {"noun": _noun, "verb": _verb, "adjective": _adjective}
