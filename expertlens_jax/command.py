"""The command `expertlens`: a thin dispatcher over the launchers, which can also be run as `python -m`.

What a command needs is imported when its flags are known to be right, so that help and errors come quickly.
"""

import argparse
import contextlib
import dataclasses
import difflib
import importlib
import itertools
import os
import pathlib
import sys
import textwrap
import warnings
from collections.abc import Generator, Sequence
from typing import NoReturn

import expertlens_jax


@dataclasses.dataclass(frozen=True)
class Command:
    """One of the launchers.

    `launcher` is its file in `experiments`; `says` is what it does, or asks; `brief` says a question in a few words,
    for the help, where two stand in a line. `names` are plain names of settings that the suite calls otherwise.
    """

    launcher: str
    says: str
    brief: str = ""
    several_hosts: bool = False
    names: tuple[tuple[str, str], ...] = ()


COMMANDS = {
    "find": Command(
        "find_experts", "Find the experts of a model", several_hosts=True, names=(("concepts", "sentences"),)
    ),
    "reproduce": Command("reproduce", "All experiments of a suite, bound into one page"),
    "align": Command("alignment", "Does the overlap of experts go with human similarity?", brief="human similarity?"),
    "stability": Command(
        "stability", "Are experts the same in other sentences, negatives, models?", brief="in other sentences?"
    ),
    "training": Command("training", "When in training do experts appear and settle?", brief="when do they form?"),
    "scale": Command("scale", "Do larger models' experts align better?", brief="in larger models?"),
    "localise": Command("localisation", "Where in the model are they?", brief="where are they?"),
    "organise": Command(
        "organisation", "Do domains and hierarchies come out of their overlap?", brief="are there domains?"
    ),
    "polysemanticity": Command(
        "polysemanticity", "How many concepts does a unit serve, and which?", brief="concepts per unit?"
    ),
    "negatives": Command("negatives", "What do more negative sentences change?", brief="more negatives?"),
    "senses": Command("senses", "Are experts of the concept, or of the word?", brief="concept, or word?"),
    "mixture": Command("mixture", "Do a mixture's experts divide concepts among them?", brief="in which of an MoE?"),
    "detect": Command(
        "detection", "Do experts detect their concept, and does anything better?", brief="do others do better?"
    ),
    "sparse-features": Command(
        "sparse_features", "Are expert units better than features of autoencoders?", brief="or SAEs' features?"
    ),
    "necessity": Command("necessity", "Does the model need its experts, or only have them?", brief="are they needed?"),
    "steer": Command("steering", "Does the model write of what its experts are made to say?", brief="what is written?"),
    "write-concepts": Command("write_concepts", "Write or mine sentences for new concepts"),
    "pretrain": Command("pretrain", "Train a small causal model from text files"),
}
EXPLORE = {
    "explore": "A page to explore a run: its concepts, units, maps, verdicts",
    "compare": "Runs side by side: settings, experts, alignments, verdicts",
    "audit": "Sentences that may spoil a set: wrong senses, templates",
    "push": "A run's table, or a steering, to a Hugging Face repository",
}
LISTS = {"models": "models and families", "configs": "suites"}


def main() -> None:
    """Run `expertlens COMMAND ...`, the arguments of this process."""
    try:
        dispatch(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # `expertlens configs | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def dispatch(arguments: Sequence[str]) -> None:
    """Do what the arguments say: tell of the commands, the models or the suites, or start a launcher."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        if len(arguments) < 2:
            print(overview())
            return
        arguments = [arguments[1], "--help"]
    name, *rest = arguments
    if name in ("--version", "version"):
        print(f"expertlens_jax {expertlens_jax.__version__}")
    elif name in LISTS and not rest:
        print(list_models() if name == "models" else list_configs())
    elif name == "explore":
        explore(rest)
    elif name == "compare":
        compare(rest)
    elif name == "audit":
        audit(rest)
    elif name == "push":
        push(rest)
    elif name in COMMANDS:
        start(name, rest)
    else:
        _tell_unknown(name, rest)


def overview() -> str:
    """Return what `expertlens --help` prints."""
    launched = {name: command.says for name, command in COMMANDS.items() if not command.brief}
    asked = [f"  {name:<16} {command.brief:<20}" for name, command in COMMANDS.items() if command.brief]
    half = -(-len(asked) // 2)  # the questions go down one column, then the other
    return "\n".join(
        [
            "expertlens finds the neurons of a language model that are experts on a concept.",
            "  expertlens find --model=lenslet-5m --concepts=facts --workdir=runs/facts",
            "Do:",
            *(f"  {name:<16} {says}" for name, says in (launched | EXPLORE).items()),
            "".join(f"  {name:<16} {lists:<20}" for name, lists in LISTS.items()).rstrip(),
            "Ask, by an experiment each:",
            *(
                (left + right).rstrip()
                for left, right in itertools.zip_longest(asked[:half], asked[half:], fillvalue="")
            ),
            "expertlens COMMAND --help tells the claim, the flags and every setting.",
        ]
    )


def start(name: str, arguments: Sequence[str]) -> None:
    """Run a command's launcher."""
    command = COMMANDS[name]
    # Which stand at the top as experiments/, and are installed within the package: no type checker sees them there.
    from expertlens_jax.experiments import launch, suites  # ty: ignore[missing-module-member]

    file = pathlib.Path(launch.__file__).with_name(f"{command.launcher}.py")
    launcher = launch.Launcher(
        command.launcher,
        suites.docstring(file),
        lambda: importlib.import_module(f"expertlens_jax.experiments.{command.launcher}").run,
        f"expertlens {name}",
        command.several_hosts,
        dict(command.names),
    )
    sys.argv[1:] = arguments
    launch.start(launcher)


class _Arguments(argparse.ArgumentParser):
    """Arguments whose errors are told as all others are."""

    def error(self, message: str) -> NoReturn:
        _stop(f"{message}. {self.prog} --help tells the arguments.")


@contextlib.contextmanager
def _told_plainly() -> Generator[None]:
    """Within it, the package's warnings are lines as a launcher's, and its errors end the command in one line."""
    from expertlens_jax.errors import ExpertLensError
    from expertlens_jax.experiments.launch import format_warning  # ty: ignore[import-not-found]: as in `start`

    warnings.formatwarning = format_warning
    try:
        yield
    except ExpertLensError as error:
        _stop(str(error))


def explore(arguments: Sequence[str]) -> None:
    """Write the page of a run, and print where it is."""
    parser = _Arguments(
        "expertlens explore",
        description="Write a page to explore a run: concepts, units, pairs, maps, sentences and verdicts. It is a "
        "folder of plain files, which opens from the file system and from any web host.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="the directory of a run, finished or not")
    parser.add_argument("--out", metavar="DIR", help="the folder to write; explore in the run if left out")
    parser.add_argument("--experts", type=int, default=100, metavar="N", help="units of each concept to show (100)")
    parser.add_argument("--speaking", type=int, default=5, metavar="N", help="of these, to read at every token (5)")
    parser.add_argument("--model", metavar="NAME", help="the run's model, if its own name for it doesn't load it")
    parser.add_argument("--sentences", action="append", default=[], metavar="FILE", help="the run's, if they moved")
    parser.add_argument("--notokens", action="store_true", help="don't read tokens, and show none")
    parser.add_argument(
        "--compare", action="append", default=[], metavar="RUN", help="a further run, to compare with it"
    )
    parser.add_argument(
        "--live", action="store_true", help="serve it with the model loaded: type, steer, watch it write"
    )
    parser.add_argument("--host", metavar="HOST", help="with --live, the address to serve at (127.0.0.1: this machine)")
    parser.add_argument("--port", type=int, metavar="PORT", help="with --live, the port to serve at (any that is free)")
    given = parser.parse_args(list(arguments))
    if not given.live and (given.host is not None or given.port is not None):
        parser.error("--host and --port say where a page is served, and only --live serves it")
    settings = {
        "experts": given.experts,
        "speaking": given.speaking,
        "model": given.model,
        "sentences": given.sentences,
        "tokens": not given.notokens,
        "compare": given.compare,
        "progress": True,
    }
    try:
        with _told_plainly():
            if given.live:
                from expertlens_jax.explorer.live import LOOPBACK, serve

                serve(given.run, given.out, host=given.host or LOOPBACK, port=given.port or 0, **settings)
                return
            page = expertlens_jax.explore(given.run, given.out, **settings)
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"The page is {page}; open it in a browser.")


def compare(arguments: Sequence[str]) -> None:
    """Print how runs differ, and write it down where that is asked for."""
    parser = _Arguments(
        "expertlens compare",
        description="Compare runs: of two models, revisions, sentence sets or settings. What differs in "
        "settings and provenance; of each concept how many experts, how good, and whether they are the same; how the "
        "overlaps of concepts and the alignments with people's ratings differ; which verdicts change.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="directories of two or more runs; the first is the measure"
    )
    parser.add_argument("--out", metavar="DIR", help="a folder to write tables, the figure and a page into")
    parser.add_argument("--threshold", type=float, default=0.5, metavar="TAU", help="of average precision (0.5)")
    parser.add_argument("--ratings", action="append", metavar="NAME", help="people's ratings, if not the runs' own")
    given = parser.parse_args(list(arguments))
    with _told_plainly():
        compared = expertlens_jax.compare_runs(
            *given.runs, threshold=given.threshold, ratings=given.ratings, out=given.out
        )
    print(compared)
    if given.out is not None:
        print(f"\nThe comparison is {os.path.join(given.out, 'comparison.html')}; its tables are beside it.")


def audit(arguments: Sequence[str]) -> None:
    """Look over a sentence set, print what was found, and write the table and the figure if asked."""
    parser = _Arguments(
        "expertlens audit",
        description="Look for sentences that may spoil a set: in the wrong sense, like another concept or domain, "
        "near-duplicates, templates, another concept's word, no word. Nothing is changed.",
        allow_abbrev=False,
    )
    parser.add_argument("--concepts", required=True, metavar="SET", help="a packaged set, or a file of sentences")
    parser.add_argument("--model", metavar="NAME", help="a model whose responses are asked too")
    parser.add_argument("--out", metavar="DIR", help="a folder for audit.csv, audit.png, .svg and .pdf")
    given = parser.parse_args(list(arguments))
    with _told_plainly():
        concepts = expertlens_jax.load_concepts(given.concepts)
        model = expertlens_jax.load_model(given.model) if given.model else None
        found = expertlens_jax.sentences.audit(concepts, model)
        if given.out:
            found.save(given.out)
    print(found)
    if given.out:
        print(f"All {len(found.table)} rows are in {pathlib.Path(given.out) / 'audit.csv'}.")


def push(arguments: Sequence[str]) -> None:
    """Push a run's table, or a saved steering, to a repository of the hub, and print where it is."""
    parser = _Arguments(
        "expertlens push",
        description="Push the table of a finished run, or a saved steering, to a repository of the Hugging Face hub, "
        "with a card: model, data, settings, figures. It never holds a sentence. Needs a token: hf auth login.",
        allow_abbrev=False,
    )
    parser.add_argument("thing", metavar="RUN", help="the directory of a run, or the file of a steering (.json)")
    parser.add_argument("repo", metavar="OWNER/NAME", help="the repository, which is made if need be")
    parser.add_argument("--revision", metavar="BRANCH", help="a branch, which is made if need be (the main one)")
    parser.add_argument("--private", action="store_true", default=None, help="make the repository a private one")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier push left there")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")
    parser.add_argument("--threshold", type=float, metavar="TAU", help="from which on the card counts experts (0.5)")
    parser.add_argument("--about", default="", metavar="TEXT", help="a paragraph for the card")
    parser.add_argument("--license", metavar="NAME", help="of what is pushed, such as cc-by-4.0")
    parser.add_argument("--base_model", metavar="ID", help="the model's on the hub, if its name isn't that")
    given = vars(parser.parse_args(list(arguments)))
    with _told_plainly():
        commit = expertlens_jax.push(given.pop("thing"), given.pop("repo"), **given)
    print(f"It is at {commit.commit_url}")


def list_models() -> str:
    """Return the models that ship with the package, and the families that load, with an example of each."""
    from expertlens_jax.models.families import FAMILIES
    from expertlens_jax.models.packaged import packaged_models, packaged_revisions

    lines = ["Ship with the package:"]
    for name in packaged_models():
        revisions = packaged_revisions(name)
        steps = f" (revisions {', '.join(revisions)})" if len(revisions) > 1 else ""
        lines.append(f"  {name}{steps}")
    lines += ["", "Load from a directory or from the hub, with a model of each family:"]
    lines += [f"  {family.title:<22} {family.examples[0]}" for family in FAMILIES.values()]
    return "\n".join(lines)


def list_configs() -> str:
    """Return the suites that ship with the package, their variants, and what each is."""
    from expertlens_jax.experiments import suites  # ty: ignore[missing-module-member]: as in `start`

    lines = []
    for name in suites.suite_names():
        variants = ",".join(suites.variants(name))
        lines.append(f"{name}:{{{variants}}}" if variants else name)
        lines.append(f"    {suites.first_line(suites.FOLDER / f'{name}.py')}")
    return "\n".join(lines)


def _tell_unknown(name: str, rest: Sequence[str]) -> None:
    """Tell that there is no such command, or that a list takes no arguments, and exit with status 1."""
    if name in LISTS:
        message = f"expertlens {name} takes no arguments, and was given {' '.join(rest)}."
    else:
        known = {command.launcher: n for n, command in COMMANDS.items()} | {n: n for n in [*COMMANDS, *EXPLORE, *LISTS]}
        near = dict.fromkeys(known[each] for each in difflib.get_close_matches(name, known, n=3, cutoff=0.6))
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        message = f"there is no command {name!r}.{meant} Commands: {', '.join([*COMMANDS, *EXPLORE, *LISTS])}."
    _stop(message)


def _stop(message: str) -> NoReturn:
    """Tell an error in a paragraph, and exit with status 1."""
    text = textwrap.fill(f"Error: {message}", 100, break_long_words=False, break_on_hyphens=False)
    print(text, file=sys.stderr)
    sys.exit(1)
