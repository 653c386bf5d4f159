"""What an experiment found of its claim, in a sentence with the number in it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """A claim beside what was found."""

    claim: str
    """What the literature says."""
    found: str
    """What this run measured of it, with numbers, intervals and what they were held against."""
    held: bool
    """Whether the claim held here, by the rule that `found` states."""
    figure: str
    """Name of the figure that shows it, among the run's."""
