"""Settings that travel together: small frozen values that configs, launchers and the library share.

A function that takes one of them takes its fields as plain keywords too, which are quicker to type by hand:

    el.find_experts(model, concepts, workdir, negatives=el.Negatives(per_positive=5), recording=el.Recording("resid"))
    el.find_experts(model, concepts, workdir, negatives_per_positive=5, sites="resid")

Both say the same. A setting that is unknown, or given both ways, is refused by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import numbers
import operator
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypedDict

from expertlens_jax.errors import ConceptDataError, SelectionError, SettingError


@dataclasses.dataclass(frozen=True)
class Negatives:
    """Which sentences a concept is told apart from, and how much they weigh.

    >>> import expertlens_jax as el
    >>> el.Negatives(per_positive=5).base_rate
    0.16666666666666666
    """

    per_positive: float = 2.5
    """The total weight of a concept's negatives, or their number if sampled, per positive. It sets the base rate."""
    exclude_mentions: bool = True
    """Leave sentences that mention a concept's word out of its negatives."""
    sampled: bool = False
    """Draw the negatives, instead of weighting all of them."""
    seed: int = 0
    """Of that draw."""

    plain: ClassVar[Mapping[str, str]] = {
        "negatives_per_positive": "per_positive",
        "exclude_mentions": "exclude_mentions",
        "sampled": "sampled",
        "seed": "seed",
    }
    """Its fields by the keywords that functions take in their place."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
          ConceptDataError: `per_positive` isn't a number above 0, or the seed isn't an integer from 0 on.
        """
        known = isinstance(self.per_positive, numbers.Real) and not isinstance(self.per_positive, bool)
        if not (known and self.per_positive > 0 and math.isfinite(self.per_positive)):
            raise ConceptDataError(f"negatives_per_positive must be a number above 0, not {self.per_positive!r}")
        if not isinstance(self.seed, numbers.Integral) or self.seed < 0:
            raise ConceptDataError(f"seed must be 0 or above, not {self.seed!r}")

    @property
    def base_rate(self) -> float:
        """The share of positives, which is the average precision of a unit that knows nothing."""
        return 1 / (1 + self.per_positive)

    def attributes(self) -> dict[str, float | bool | int]:
        """Return the fields under their plain names, as a table of expertise and a run's `config.json` have them."""
        kinds = {"per_positive": float, "exclude_mentions": bool, "sampled": bool, "seed": int}
        return {name: kinds[field](getattr(self, field)) for name, field in self.plain.items()}

    @classmethod
    def of_attributes(cls, attributes: Mapping[str, Any]) -> Negatives:
        """Return the negatives that a table of expertise was measured with.

        Raises:
          SelectionError: the table doesn't say.
        """
        lacking = [name for name in cls.plain if name not in attributes]
        if lacking:
            raise SelectionError(
                f"this table of expertise doesn't say which negatives it was measured with: it lacks the attributes "
                f"{', '.join(lacking)}. Measure it again with el.measure_expertise or el.find_experts."
            )
        return cls(**{field: attributes[name] for name, field in cls.plain.items()})


TURNS = ("user", "assistant")


@dataclasses.dataclass(frozen=True)
class Chat:
    """A conversation that a sentence stands in, as the model's own chat template writes it.

    What the template writes around the sentence (roles, marks of turns, the system prompt) is read by the model, and
    never pooled over.

    >>> import expertlens_jax as el
    >>> el.Chat(turn="assistant", asked="Tell me something.").turn
    'assistant'
    """

    turn: str = "user"
    """Whose words the sentence is: the "user"'s, or the "assistant"'s."""
    system: str = ""
    """The system prompt; "" for what the template writes without one."""
    asked: str = ""
    """What the user said before, where the sentence is the assistant's."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
          SettingError: an unknown turn, or something asked before the user's own turn.
        """
        if self.turn not in TURNS:
            raise SettingError(f"turn={self.turn!r} of a chat was given; wanted one of {', '.join(TURNS)}.")
        if self.asked and self.turn == "user":
            raise SettingError(
                f"asked={self.asked!r} was given for a chat where the sentence is the user's own turn, which nothing "
                'comes before. Give turn="assistant" for an answer to it, or leave it out.'
            )
        for name in ("system", "asked"):
            if not isinstance(getattr(self, name), str):
                raise SettingError(f"{name}={getattr(self, name)!r} of a chat was given; wanted a text.")

    def attribute(self) -> str:
        """Return it as JSON, as provenance has it."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def of_attribute(cls, text: str) -> Chat | None:
        """Return the chat of a provenance; None where sentences were read as they are."""
        return cls(**json.loads(text)) if text else None


def check_chat(chat: Chat | bool | None) -> Chat | None:
    """Return a chat as such: True stands for one where the sentence is all that the user says.

    Raises:
      SettingError: it is something else.
    """
    if chat is None or isinstance(chat, bool):
        return Chat() if chat else None
    if not isinstance(chat, Chat):
        raise SettingError(f"chat={chat!r} was given; wanted True, or el.Chat(turn, system, asked).")
    return chat


@dataclasses.dataclass(frozen=True)
class Recording:
    """How sentences are read: of which units, and over which tokens a response is pooled.

    >>> import expertlens_jax as el
    >>> el.Recording("resid", pooling="mean").sites
    ('resid',)
    """

    sites: Sequence[str] | str | None = None
    """Names of sites, or one; None for the outputs of linear layers. "sae" for the features of `model.with_sae`."""
    pooling: str = "max"
    """Over a sentence's tokens: "max"; "min", for units that say a concept by going down; "mean" or "last"."""
    pool_over: str = "all"
    """Which of them: "all"; "concept", those of the concept's own word; or "others", all but those."""
    tokens_per_batch: int | None = None
    """About how many tokens, padding included, each device takes at a time; None for what suits its kind."""
    truncate: bool = False
    """Cut sentences longer than the model's context, rather than refuse them."""
    chat: Chat | bool | None = None
    """The conversation that each sentence stands in, by the model's chat template; True for a plain user's turn."""
    significant_bits: int | None = None
    """Round each response to so many significant bits, 2 to 24; None keeps them as computed, all 24 of float32.

    Where a causal model's sentences begin alike, many of its responses are the same number, but for what a kind of
    processor or a size of batch rounds in another way, and average precision orders them by that. With 12 bits they
    tie: suites of causal models have 12. Here it is None, so that responses are what `trace` shows, to the bit."""

    plain: ClassVar[Mapping[str, str]] = {
        name: name
        for name in ("sites", "pooling", "pool_over", "tokens_per_batch", "truncate", "chat", "significant_bits")
    }

    def __post_init__(self) -> None:
        """Check the values, and make the sites a tuple.

        Raises:
          SelectionError: `tokens_per_batch` isn't an integer above 0, or `significant_bits` none from 2 to 24.
          SettingError: `chat` is no chat.
        """
        object.__setattr__(self, "chat", check_chat(self.chat))
        if self.sites is not None:
            object.__setattr__(self, "sites", (self.sites,) if isinstance(self.sites, str) else tuple(self.sites))
        size = self.tokens_per_batch
        if size is not None and (not isinstance(size, numbers.Integral) or isinstance(size, bool) or size < 1):
            raise SelectionError(f"tokens_per_batch must be an integer above 0, or None, not {size!r}")
        bits = self.significant_bits
        if bits is not None and (
            not isinstance(bits, numbers.Integral) or isinstance(bits, bool) or not 2 <= bits <= 24
        ):
            raise SelectionError(
                f"significant_bits={bits!r} was given; wanted an integer from 2 to 24 (with 12, what differs by "
                "rounding alone ties), or None for responses as they are computed."
            )


@dataclasses.dataclass(frozen=True)
class Resampling:
    """How often something is drawn anew (permuted labels, a bootstrap), and from which seed.

    >>> import expertlens_jax as el
    >>> el.Statistics(permutations=el.Resampling(draws=1000, seed=3)).permutations
    Resampling(draws=1000, seed=3)
    """

    draws: int
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
          SelectionError: one isn't an integer from 0 on.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 0:
                raise SelectionError(f"{field.name} of a resampling must be an integer from 0 on, not {value!r}")


MORE_SCORES = ("average_precision_down", "cohens_d")
"""Scores that are measured where they are asked for, beside average precision and AUROC."""


def check_scores(scores: Sequence[str] | str) -> tuple[str, ...]:
    """Return scores in the order of `MORE_SCORES`.

    Raises:
      SettingError: one is none of them.
    """
    scores = (scores,) if isinstance(scores, str) else tuple(scores)
    unknown = [score for score in scores if score not in MORE_SCORES]
    if unknown:
        raise SettingError(
            f"Unknown score {unknown[0]!r}. Choose from: {', '.join(MORE_SCORES)}; average_precision and auroc are "
            "always measured."
        )
    return tuple(score for score in MORE_SCORES if score in scores)


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What `find_experts` measures beside each unit's average precision.

    >>> import expertlens_jax as el
    >>> el.Statistics(halves=False, permutations=el.Resampling(draws=1000)).permutations.draws
    1000
    """

    halves: bool = True
    """Average precision in each half of the sentences too, so that experts chosen in one are scored in the other."""
    transport: bool = True
    """The slope of the linear transport too, which steering by it needs: about half of ranking's time on a CPU."""
    scores: Sequence[str] = ()
    """More scores of `MORE_SCORES`: "average_precision_down", of units that say a concept by falling silent, which a
    selection with `sign="both"` needs; "cohens_d", the difference of means in standard deviations."""
    permutations: Resampling = Resampling(100)
    """Sets of sentences with permuted labels, ranked beside the concepts for p-values that hold with ties and for the
    maximum over all units; 0 draws for none, and for no p- or q-values at all. Halves are drawn from its seed too."""

    plain: ClassVar[Mapping[str, str]] = {
        "halves": "halves",
        "transport": "transport",
        "scores": "scores",
        "permutations": "permutations.draws",
        "seed": "permutations.seed",
    }

    def __post_init__(self) -> None:
        """Check the values, and bring the scores into one order.

        Raises:
          SettingError: `permutations` isn't a `Resampling`, or a score is unknown.
        """
        object.__setattr__(self, "scores", check_scores(self.scores))
        if not isinstance(self.permutations, Resampling):
            raise SettingError(
                f"permutations of Statistics is {self.permutations!r}; wanted el.Resampling(draws, seed), such as "
                "el.Resampling(100)."
            )


class PlainNegatives(TypedDict, total=False):
    """The fields of `Negatives` as plain keywords."""

    negatives_per_positive: float
    exclude_mentions: bool
    sampled: bool
    seed: int


class PlainRecording(TypedDict, total=False):
    """The fields of `Recording` as plain keywords, where all tokens are pooled over."""

    sites: Sequence[str] | str | None
    pooling: str
    tokens_per_batch: int | None
    truncate: bool
    significant_bits: int | None
    chat: Chat | bool | None


class PlainFinding(PlainNegatives, PlainRecording, total=False):
    """All that `find_experts` takes as plain keywords."""

    pool_over: str
    halves: bool
    transport: bool
    scores: Sequence[str]
    permutations: int
    passes: int | None
    store: str


def settings_of(
    function: str,
    plain: Mapping[str, Any],
    parameters: Mapping[str, tuple[Any, Any]],
    *,
    others: Sequence[str] = (),
    without: Sequence[str] = (),
) -> tuple[Any, ...]:
    """Return a function's settings, each given as a value, by plain keywords, or not at all.

    A field that is None in a value that was given says nothing yet, and a plain keyword may say it.

    Args:
      function: its name, for errors.
      plain: the keywords it was given.
      parameters: by name, the class of its settings, whose `plain` names the keywords of the fields; and what it was
        given, or None.
      others: names of its other parameters, for errors.
      without: plain keywords that this function doesn't have.

    Returns:
      A value for each of `parameters`, in their order.

    Raises:
      SettingError: a keyword that none of them has, one beside the value that holds it, or a value of another class.
    """
    own = {
        parameter: [name for name in kind.plain if name not in without] for parameter, (kind, _) in parameters.items()
    }
    allowed = list(dict.fromkeys(name for names in own.values() for name in names))
    for name in plain:
        if name not in allowed:
            raise SettingError(f"{function} has no setting {name!r}. {_allowed(name, allowed, [*parameters, *others])}")
    settings: list[Any] = []
    for parameter, (kind, value) in parameters.items():
        if value is not None and not isinstance(value, kind):
            fields = ", ".join(field.name for field in dataclasses.fields(kind))
            raise SettingError(
                f"{function} was given {parameter}={value!r}; wanted el.{kind.__name__}({fields}), or plain keywords: "
                f"{', '.join(own[parameter])}."
            )
        settings.append(kind() if value is None else value)
        for name in own[parameter]:
            if name not in plain:
                continue
            if value is not None and _field(value, kind.plain[name]) is not None:
                raise SettingError(
                    f"{function} was given {name}={plain[name]!r} beside {parameter}={value!r}, which holds that "
                    f"setting too. Say it there, as el.{kind.__name__}(...), or give plain keywords alone."
                )
            settings[-1] = _with_field(settings[-1], kind.plain[name], plain[name])
    return tuple(settings)


def _field(settings: Any, path: str) -> Any:
    """Return a field, or `outer.inner`, one of a value that is a field."""
    return operator.attrgetter(path)(settings)


def _with_field(settings: Any, path: str, value: Any) -> Any:
    """Return the settings with another value of a field, or of `outer.inner`."""
    field, _, inner = path.partition(".")
    changed = _with_field(getattr(settings, field), inner, value) if inner else value
    return dataclasses.replace(settings, **{field: changed})


def _allowed(name: str, allowed: Sequence[str], parameters: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, [*allowed, *parameters], n=1)
    meant = f"Did you mean {close[0]!r}? " if close else ""
    values = ", ".join(f"{parameter}=" for parameter in parameters)
    return f"{meant}Allowed are {', '.join(allowed)}; and {values}."
