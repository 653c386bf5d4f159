"""A suite of experiments, bound: how far each is, what was concluded, and the page of it all."""

import dataclasses
from collections.abc import Sequence

import pandas as pd
from etils import epath

from expertlens_jax.errors import FailedExperimentsError
from expertlens_jax.report.conclusions import Conclusion, Verdict
from expertlens_jax.report.pages import Page, VerdictRow
from expertlens_jax.run_directory import write_csv, write_text

DONE, LEFT_OUT, FAILED, WAITING = "done", "left out", "failed", "waiting"
SENTENCES = {
    Verdict.HELD: "It held here",
    Verdict.NOT_HELD: "It did not hold here",
    Verdict.NOT_TESTABLE: "It is not testable here",
}


@dataclasses.dataclass
class Part:
    """One experiment of a suite, and how far it is."""

    name: str
    state: str = WAITING
    reason: str = ""
    """Why it is left out, or failed; or what it goes without."""
    conclusions: list[Conclusion] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a suite is about."""

    model: str
    revision: str
    sentences: Sequence[str]
    ratings: Sequence[str]


def bind(parts: Sequence[Part], subject: Subject, workdir: epath.Path) -> None:
    """Write `experiments.csv`, `conclusions.csv` and `report.html`, of what is done so far."""
    states = [{"experiment": part.name, "state": part.state, "reason": part.reason} for part in parts]
    columns = ["experiment", *(field.name for field in dataclasses.fields(Conclusion))]
    rows = [{"experiment": part.name} | dataclasses.asdict(each) for part in parts for each in part.conclusions]
    write_csv(workdir / "experiments.csv", pd.DataFrame(states))
    write_csv(workdir / "conclusions.csv", pd.DataFrame(rows, columns=columns))
    write_text(workdir / "report.html", make_page(parts, subject, workdir).html())


def make_page(parts: Sequence[Part], subject: Subject, workdir: epath.Path) -> Page:
    """Return the page: a table of verdicts, then a section an experiment, with a paragraph a claim."""
    page = Page(f"What the experts of {subject.model} show")
    page.paragraph(
        "Each section puts a claim of the literature to the test on this one model: what is claimed, what was "
        "measured, whether it held here. What did not hold here may hold for other models, and the other way round. "
        "Not testable is what these concepts, ratings or settings are too few for: it speaks neither for the claim nor "
        "against it."
    )
    page.paragraph(
        f"Model {subject.model}{f' at {subject.revision}' if subject.revision else ''}; sentences "
        f"{', '.join(map(str, subject.sentences))}; ratings {', '.join(map(str, subject.ratings)) or 'none'}. τ is the "
        "least average precision of an expert; numbers in parentheses after another are its 95% interval, unless "
        "something else is said."
    )
    rows = []
    for part in parts:
        if part.state in (LEFT_OUT, FAILED, WAITING):
            rows.append(VerdictRow(part.name, "", part.state, part.reason))
        rows += [VerdictRow(part.name, each.claim, each.verdict, each.reason) for each in part.conclusions]
    page.verdicts(rows)
    for part in parts:
        page.heading(part.name.capitalize(), anchor=part.name)
        if part.state == DONE:
            if part.reason:
                page.paragraph(f"Left out of it: {part.reason}")
            write_section(page, part, workdir)
        else:
            told = {LEFT_OUT: "It was left out", FAILED: "It stopped with an error", WAITING: "It has not run yet"}
            page.paragraph(f"{told[part.state]}{f': {part.reason}' if part.reason else '.'}")
    return page


def write_section(page: Page, part: Part, workdir: epath.Path) -> None:
    """Add a finished experiment's claims, and each figure once, after the last claim that it shows."""
    for i, each in enumerate(part.conclusions):
        page.paragraph(f"Claim: {each.claim}")
        reason = f" ({each.reason})" if each.reason else ""
        page.paragraph(f"{SENTENCES[each.verdict]}{reason}: {each.found}", verdict=each.verdict)
        shown = [other.claim for other in part.conclusions if other.figure == each.figure]
        figure = workdir / part.name / "figures" / f"{each.figure}.svg"
        again = any(other.figure == each.figure for other in part.conclusions[i + 1 :])
        if not again and figure.exists():  # there is none of what couldn't be compared
            page.figure(figure, " ".join(shown))


def tell(parts: Sequence[Part], workdir: epath.Path) -> None:
    """Print the verdicts, and where everything is.

    Raises:
      FailedExperimentsError: some experiments failed.
    """
    print()
    for part in parts:
        for each in part.conclusions:
            reason = f" ({each.reason})" if each.reason else ""
            print(f"{each.verdict:<12}  {part.name}: {each.claim}\n    {each.found}{reason}")
        if part.state == LEFT_OUT:
            print(f"{part.state:<12}  {part.name}: {part.reason}")
    print(f"\nEverything is in {workdir / 'report.html'}")
    failed = [part for part in parts if part.state == FAILED]
    if failed:
        told = "; ".join(f"{part.name}: {part.reason}" for part in failed)
        raise FailedExperimentsError(
            f"{len(failed)} of {len(parts)} experiments failed ({told}). The others are in {workdir / 'report.html'}; "
            "launch again to run what is missing."
        )
