"""Where a steering applies, if not at every token: `When`, and which tokens of a text that is, as far as text tells.

A condition is looked up by a token's position, counted from its row's first token. What only the model can tell, such
as whether a unit fires, is decided on the device: see `gated_maps.py`.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from expertlens_jax.data.languages import check_language
from expertlens_jax.data.words import mention_finder, split_words
from expertlens_jax.errors import SelectionError, SettingError
from expertlens_jax.models.sites import SITES, check_no_summaries
from expertlens_jax.models.tokens import holds_any

Part = Literal["prompt", "continuation"]
Address = tuple[int, str, int]


@dataclasses.dataclass(frozen=True, repr=False)
class When:
    """At which tokens a steering applies. All that is given has to hold.

    A steering changes what the model computes at a token, and so what it expects after it. A token that is generated is
    of the continuation; the first of them is drawn from what the model computes at the prompt's last token.

    >>> import expertlens_jax as el
    >>> model = el.load_model("lenslet-2m")
    >>> units = model.units.query("site == 'attn.v' and layer == 0").head(1)
    >>> late = el.steer_units(model, units, shift=7.0, when=el.When(from_token=2))
    >>> seen = el.trace(model, ["A cat sat there."], units, steering=late)
    >>> (seen.activations[0] == 7.0)[:, 0].tolist()  # by token
    [False, False, True, True, True]
    """

    part: Part | None = None
    """"prompt": what a text is generated from, or scored after. "continuation": what is generated, or scored."""
    from_token: int | None = None
    """From this token of a row on, counted from 0 without padding. What the tokenizer adds counts (BOS, CLS), as do a
    chat template's tokens; the prompt counts in a continuation."""
    words: Sequence[str] | str = ()
    """At the tokens of these concepts' words, in any of a word's forms (`data/words.py`); of several, at those of each.
    A token is a word's if it holds any character of it."""
    language: str = "en"
    """Of the words: an ISO 639 code."""
    unit: Any = None
    """At tokens where this unit says more than `above`, or less than `below`: (3, "mlp.up", 417), "L3 mlp.up 417", or a
    row of a units table. The model has to compute it before what is steered, or in the same place, where it is read
    before it is steered. An expert's unit says 0 at a token that isn't routed to the expert."""
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        """Check the values; `words` becomes a tuple, `unit` (layer, site, channel).

        Raises:
          SettingError: nothing is given, or what can't hold, isn't known or is of the wrong kind.
          SelectionError: no unit, or one that is only read.
          ConceptDataError: an unknown language.
        """
        words = (self.words,) if isinstance(self.words, str) else tuple(self.words)
        object.__setattr__(self, "words", words)
        if self.unit is not None:
            from expertlens_jax.models.addresses import one_address  # it imports the model, which imports this file

            address = one_address(tuple(self.unit) if isinstance(self.unit, list) else self.unit)
            check_no_summaries([address[1]], "what a steering goes by")
            if address[1] not in SITES:
                raise SettingError(f"unit={self.unit!r} was given; the sites of units are {', '.join(SITES)}.")
            object.__setattr__(self, "unit", address)
        self._check_unit()
        if self.part is None and self.from_token is None and not words and self.unit is None:
            raise SettingError(
                "el.When() was given nothing to go by; give one or more of part=, from_token=, words=, unit=. Without "
                "when= a steering applies at every token."
            )
        if self.part is not None and self.part not in get_args(Part):
            raise SettingError(f"part={self.part!r} was given; wanted one of {', '.join(get_args(Part))}.")
        if self.from_token is not None and not _is_count(self.from_token):
            raise SettingError(f"from_token={self.from_token!r} was given; wanted a whole number of 0 or more.")
        object.__setattr__(self, "from_token", None if self.from_token is None else int(self.from_token))
        self._check_words()

    def _check_words(self) -> None:
        code = check_language(self.language)
        if code != "en" and not self.words:
            raise SettingError(f"language={self.language!r} was given without words, whose language it would be.")
        for word in self.words:
            if not isinstance(word, str) or not split_words(word, code):
                raise SettingError(
                    f"words={self.words!r} were given, and {word!r} has no word in it; wanted words such as 'cat'."
                )

    def _check_unit(self) -> None:
        bounds = {name: value for name in ("above", "below") if (value := getattr(self, name)) is not None}
        for name, value in bounds.items():
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise SettingError(f"{name}={value!r} was given; wanted a finite number.")
            object.__setattr__(self, name, float(value))
        if self.unit is None and bounds:
            raise SettingError(f"{' and '.join(bounds)} were given without unit=, whose activation they would bound.")
        if self.unit is not None and not bounds:
            raise SettingError(
                f"unit={self.unit!r} was given with neither above= nor below=; say what it means that it fires, such "
                "as above=0.5."
            )
        if len(bounds) == 2 and bounds["above"] >= bounds["below"]:
            raise SettingError(
                f"above={self.above:g} and below={self.below:g} were given, and no number is both; wanted above < below"
                "."
            )

    @property
    def given(self) -> dict[str, Any]:
        """What was given, by name, as it can be written to JSON and given again."""
        fields = {field.name: (getattr(self, field.name), field.default) for field in dataclasses.fields(self)}
        given = {name: value for name, (value, default) in fields.items() if value != default}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    def __repr__(self) -> str:
        shown = {name: tuple(value) if isinstance(value, list) else value for name, value in self.given.items()}
        return f"When({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def __str__(self) -> str:
        said = [] if self.part is None else [f"in the {self.part}"]
        if self.from_token is not None:
            said.append(f"from token {self.from_token} on")
        if self.words:
            said.append(f"at {', '.join(map(repr, self.words))}")
        if self.unit is not None:
            bounds = [
                f"{sign} {value:g}" for sign, value in ((">", self.above), ("<", self.below)) if value is not None
            ]
            said.append(f"where L{self.unit[0]} {self.unit[1]} {self.unit[2]} {' and '.join(bounds)}")
        return ", ".join(said)


def check_when(when: Any) -> When:
    """Return a condition as such.

    Raises:
      SettingError: it is something else.
    """
    if not isinstance(when, When):
        raise SettingError(f"when={when!r} was given; wanted el.When(part, from_token, words, unit).")
    return when


def goes_by_words(steering: Any) -> bool:
    """Return whether a steering, or None, applies at words anywhere."""
    return any(when is not None and when.words for _, when in getattr(steering, "stages", ()))


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0


_STAGES = (
    ("resid.pre",),
    ("attn.q", "attn.k", "attn.v"),
    ("attn.z",),
    ("attn.out",),
    ("mlp.router",),
    ("mlp.gate", "mlp.up"),
    ("mlp.act",),
    ("mlp.shared_router",),
    ("mlp.shared_gate", "mlp.shared_up"),
    ("mlp.shared_act",),
    ("mlp.shared_down",),
    ("mlp.down",),
    ("resid",),
)
"""A block's sites as they are computed one after the other; those that stand together are computed side by side."""
_STAGE_OF = {site: number for number, sites in enumerate(_STAGES) for site in sites}


def check_comes_first(when: When, units: Sequence[Address]) -> None:
    """Refuse a condition that goes by a unit that isn't known yet where others are to be steered by it.

    Args:
      when: the condition.
      units: (layer, site, channel) of those that are to be steered.

    Raises:
      SelectionError: one of them is computed before the condition's unit, or beside it; the message names it.
    """
    if when.unit is None:
        return
    layer, site, _ = when.unit
    early = [
        unit
        for unit in units
        if (unit[0], _STAGE_OF.get(unit[1], -1)) <= (layer, _STAGE_OF[site]) and unit[:2] != (layer, site)
    ]
    if early:
        first = early[0]
        beside = first[0] == layer and _STAGE_OF.get(first[1], -1) == _STAGE_OF[site]
        raise SelectionError(
            f"{len(early)} of the {len(units)} units can't be steered {when}: the model computes L{first[0]} "
            f"{first[1]} {'beside' if beside else 'before'} L{layer} {site}, and so doesn't know yet whether that unit "
            "fires. Steer units of later sites or layers, or go by an earlier unit."
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ReadText:
    """What a call knows of the rows it reads."""

    tokenizer: Any
    ids: Sequence[np.ndarray]
    """int `[tokens]` a row, without padding; of a call that generates, its prompts."""
    prompts: Sequence[int] | None = None
    """How many tokens of each row are its prompt's; None where rows have no prompt."""
    goes_on: bool = False
    """Whether rows are continued by tokens that nobody knows yet."""
    texts: Sequence[Any] | None = None
    """Of each row, the text that its tokens are the beginning of; something else where it was given as ids."""
    offsets: Sequence[np.ndarray] | None = None
    """int `[tokens, 2]` a row: where in its text each token stands, if that is known already."""
    own: Sequence[np.ndarray] | None = None
    """bool `[tokens]` a row: which tokens are the text's own; given with `offsets`."""

    def take(self, rows: Sequence[int] | np.ndarray) -> "ReadText":
        """Return what is known of some of the rows, in this order."""
        by_row = ("ids", "prompts", "texts", "offsets", "own")
        given = {name: values for name in by_row if (values := getattr(self, name)) is not None}
        return dataclasses.replace(self, **{name: [each[row] for row in rows] for name, each in given.items()})


def listed_tokens(when: When, text: ReadText) -> list[np.ndarray] | None:
    """Return at which tokens of each row the text lets a condition hold, bool `[tokens]` each.

    What it says of positions and of a unit isn't looked at; None where it says nothing else.

    Raises:
      SelectionError: there is no prompt to tell from a continuation; no row has any of the words, or words are looked
        for where there is no text yet, or none that these token ids are of.
    """
    if when.part is None and not when.words:
        return None
    listed = [np.ones(len(ids), bool) for ids in text.ids]
    if when.part is not None:
        if text.prompts is None:
            raise SelectionError(
                f"a steering that applies only {when} was given to a call that reads texts as they are, and so has no "
                "prompt and no continuation. Give it to el.generate, or to score_continuations; or say "
                "el.When(from_token=...)."
            )
        in_prompt = when.part == "prompt"
        listed = [(np.arange(len(ids)) < end) == in_prompt for ids, end in zip(text.ids, text.prompts, strict=True)]
    if when.words:
        if text.goes_on and when.part != "prompt":
            raise SelectionError(
                f"a steering that applies only {when} was given to a call that writes text: whether a token is of a "
                "word (cat) or of a longer one (category) isn't known before those after it are written. Steer the "
                "words of the prompt alone: el.When(part='prompt', words=...)."
            )
        finders = [mention_finder(word, language=when.language) for word in when.words]
        listed = [each & _of_words(text, row, finders) for row, each in enumerate(listed)]
        if not any(each.any() for each in listed):
            raise SelectionError(
                f"a steering that applies only {when} was given, and none of the {len(listed)} texts has such a token. "
                "Give texts with the word, or leave the steering out."
            )
    return listed


def _of_words(text: ReadText, row: int, finders: Sequence[Callable[[str], list[tuple[int, int]]]]) -> np.ndarray:
    """bool [tokens] of a row: those that hold a character of a word."""
    said, places, own = _places(text, row)
    found = np.zeros(len(text.ids[row]), bool)
    for find in finders:
        found |= holds_any(places, find(said))
    return found & own


def _places(text: ReadText, row: int) -> tuple[str, np.ndarray, np.ndarray]:
    """Return a row's text, where each of its tokens stands in it, int `[tokens, 2]`, and bool: which are its own.

    Token ids are decoded, and taken for the text that they are tokens of if it is tokenized to the same ones.
    """
    ids = np.asarray(text.ids[row])
    given = None if text.texts is None else text.texts[row]
    if text.offsets is not None and text.own is not None and isinstance(given, str):
        return given, text.offsets[row], text.own[row]
    if not getattr(text.tokenizer, "is_fast", False):
        raise SelectionError(
            f"{type(text.tokenizer).__name__} doesn't tell where in a text its tokens stand, so the tokens of words "
            "can't be found; only a fast tokenizer does: save one (a tokenizer.json) beside the model."
        )
    if isinstance(given, str):
        candidates = [(given, True)]
    else:
        whole, bare = (
            text.tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            for skip in (False, True)
        )
        candidates = [(whole, False), (bare, True), (bare, False)]
    for said, adds in candidates:
        told: Mapping[str, Any] = text.tokenizer(
            said,
            add_special_tokens=adds,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        if list(told["input_ids"][: len(ids)]) == ids.tolist():
            offsets = np.asarray(told["offset_mapping"], np.int64).reshape(-1, 2)[: len(ids)]
            return said, offsets, np.asarray(told["special_tokens_mask"][: len(ids)]) == 0
    raise SelectionError(
        f"a steering that applies at words was given, and the token ids of row {row} aren't those that the tokenizer "
        f"makes of any text ({candidates[0][0]!r} gives others), so its words can't be found. Give texts, or their ids."
    )
