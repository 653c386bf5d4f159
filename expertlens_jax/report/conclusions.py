"""What an experiment found of its claim: held, not held, or not testable, in a sentence with the number in it.

A claim rests on comparisons. A comparison that can't be made (nothing to compare, too few concepts or draws for a small
p) is neither for the claim nor against it. So each comparison is an `Outcome`: True, False, or an `Untestable` that
says why; `every` and `most` join outcomes to a verdict without taking one for another.
"""

import dataclasses
import enum
import math
from collections.abc import Sequence

import pandas as pd
from etils import epath

from expertlens_jax.run_directory import write_csv

CONCLUSIONS = "conclusions.csv"
"""Where a run keeps them."""
LEVEL = 0.05  # of every test: p below it is significant, and a test that can't go below it isn't made
FEWEST_CONCEPTS = 6  # for an interval to say something: all on one side has p = 0.03, of five 0.06


class Verdict(enum.StrEnum):
    """What became of a claim on this model and these sentences."""

    HELD = "held"
    NOT_HELD = "not held"
    NOT_TESTABLE = "not testable"


@dataclasses.dataclass(frozen=True)
class Untestable:
    """A comparison that could not be made."""

    reason: str
    """Why not, as a clause: "3 concepts give a least p of 0.25"."""

    def __bool__(self) -> bool:
        raise TypeError(f"an untestable comparison ({self.reason}) is neither true nor false; use every() or most()")


Outcome = bool | Untestable


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """A claim beside what was found."""

    claim: str
    """What the literature says."""
    found: str
    """What this run measured of it, with numbers, intervals and what they were compared with."""
    verdict: Verdict
    """Whether the claim held here, by the rule that `found` states."""
    figure: str
    """Name of the figure that shows it, among the run's."""
    reason: str = ""
    """Why it is not testable; "" otherwise."""


def every(outcomes: Sequence[Outcome]) -> Outcome:
    """Return whether all comparisons came out as claimed.

    One that did not is enough against the claim; one that could not be made leaves it open. None at all is untestable.
    """
    made = [bool(outcome) for outcome in outcomes if not isinstance(outcome, Untestable)]
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, Untestable)]
    if not all(made):
        return False
    if reasons:
        return Untestable("; ".join(dict.fromkeys(reasons)))
    return True if made else Untestable("there is nothing to compare")


def most(outcomes: Sequence[Outcome]) -> Outcome:
    """Return whether more than half of the comparisons that could be made came out as claimed.

    Those that could not be made are left out; if none could be, the result says why.
    """
    made = [bool(outcome) for outcome in outcomes if not isinstance(outcome, Untestable)]
    return 2 * sum(made) > len(made) if made else every(outcomes)


def of_those_made(outcomes: Sequence[Outcome]) -> Outcome:
    """Return whether all comparisons that could be made came out as claimed: `every`, without what can't be made."""
    return every([each for each in outcomes if not isinstance(each, Untestable)] or outcomes)


def above(value: float, other: float, what: str) -> Outcome:
    """Return whether `value` > `other`; NaN on either side is untestable.

    Args:
      value: claimed to be larger.
      other: than this.
      what: what would be missing, as "the interval of stories".
    """
    if math.isnan(value) or math.isnan(other):
        return Untestable(f"{what} could not be computed")
    return bool(value > other)


def significant(p_value: float, least_p: float, what: str) -> Outcome:
    """Return whether `p_value` < 0.05; untestable if the test could not have gone so low.

    Args:
      p_value: of the test; NaN if there is none.
      least_p: the smallest p that the test could have given: see `analysis.statistics.least_p`.
      what: what was tested, as "12 pairs of stories".
    """
    if least_p >= LEVEL:
        return Untestable(f"{what} give a least p of {least_p:.2g}")
    return above(LEVEL, p_value, f"the p of {what}")


def enough(least_p: float, what: str) -> Outcome:
    """Return True if a test of so few could have been significant, else why it could not: for intervals without p."""
    return True if least_p < LEVEL else Untestable(f"{what} give a least p of {least_p:.2g}")


def conclude_from(claim: str, found: str, outcome: Outcome, figure: str) -> Conclusion:
    """Return the conclusion that an outcome makes."""
    if isinstance(outcome, Untestable):
        return Conclusion(claim, found, Verdict.NOT_TESTABLE, figure, outcome.reason)
    return Conclusion(claim, found, Verdict.HELD if outcome else Verdict.NOT_HELD, figure)


def write_conclusions(file: epath.Path, conclusions: Sequence[Conclusion]) -> None:
    """Write conclusions as a table."""
    columns = [field.name for field in dataclasses.fields(Conclusion)]
    write_csv(file, pd.DataFrame([dataclasses.asdict(each) for each in conclusions], columns=columns))


def read_conclusions(file: epath.Path) -> list[Conclusion]:
    """Return the conclusions that a finished run wrote; an `OSError` says that it wrote none."""
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    return [Conclusion(**row | {"verdict": Verdict(row["verdict"])}) for row in table.to_dict("records")]
