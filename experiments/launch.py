"""What every launcher does first and last: read flags, and print errors as a paragraph."""

from __future__ import annotations

import dataclasses
import faulthandler
import functools
import os
import pathlib
import re
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence

import ml_collections
from absl import app, flags, logging
from etils import epath
from ml_collections import config_flags

import expertlens_jax as el
from expertlens_jax.errors import ExpertLensError, ExpertLensWarning, SuiteError

from . import suites

HELP = {"-h", "--help", "-help", "--helpshort", "--helpfull"}
Experiment = Callable[[ml_collections.ConfigDict, epath.Path], object]


@dataclasses.dataclass(frozen=True)
class Launcher:
    """An experiment, and how it is launched.

    Attributes:
      name: such as "alignment".
      claim: what help says of it.
      find_run: imports the experiment, and returns it; called when flags and settings are known to be right.
      program: how the user calls it.
      several_hosts: whether it can be one run over several hosts (`--multihost`).
      plain: plain names of settings that its suite calls otherwise.
    """

    name: str
    claim: str
    find_run: Callable[[], Experiment]
    program: str
    several_hosts: bool = False
    plain: Mapping[str, str] = dataclasses.field(default_factory=dict)


class _Flags:
    """The flags of every launcher, among the values given: absl's own, or those of one launch."""

    def __init__(self, values: flags.FlagValues, argv: list[str] | None = None) -> None:
        self.values = values
        self.config = config_flags.DEFINE_config_file(
            "config", None, "A suite's name or a file, with :VARIANT if you like.", flag_values=values, sys_argv=argv
        )
        self.workdir = flags.DEFINE_string(
            "workdir", None, "Run directory to write; a bucket's path will do.", flag_values=values
        )
        self.multihost = flags.DEFINE_bool(
            "multihost", False, "One run over several hosts; launch it on each of them.", flag_values=values
        )
        self.coordinator = flags.DEFINE_string(
            "coordinator", None, "Address and port of the first host, off TPU pods.", flag_values=values
        )
        self.num_hosts = flags.DEFINE_integer(
            "num_hosts", None, "How many hosts there are, off TPU pods.", flag_values=values
        )
        self.host = flags.DEFINE_integer(
            "host", None, "Which of them this is, from 0, off TPU pods.", flag_values=values
        )


@functools.cache
def _command_line() -> _Flags:
    # Not on import: a launcher may be imported as `experiments` and as `expertlens_jax.experiments` in one process.
    return _Flags(flags.FLAGS)


def launch(run: Experiment, *, several_hosts: bool = False, argv: list[str] | None = None) -> None:
    """Run `run(config, workdir)` under absl, with the flags `--config`, `--workdir` and one for each setting.

    `--config` is a suite's name or a file, and left out the launcher's own suite. `--config.KEY=VALUE`, or
    `--KEY=VALUE`, is one of its settings. `--help` prints the docstring of the module that `run` is in, the flags and
    the settings. Errors of the user's making are printed as one paragraph, without a traceback, and exit with status 1.

    Args:
      run: the experiment.
      several_hosts: whether it can be one run over several hosts (`--multihost`).
      argv: the program's name and its flags, to launch within a process that goes on; None for the command line, which
        ends the process.

    Raises:
      SystemExit: with a status other than 0, where a process would end with it.
    """
    scope = run.__globals__
    spec = scope.get("__spec__")
    module = argv[0] if argv else spec.name if spec else pathlib.Path(scope["__file__"]).stem
    program = f"python -m {module}" if argv or spec else f"python {scope['__file__']}"
    name = module.rpartition(".")[2]
    launcher = Launcher(name, scope["__doc__"] or "", lambda: run, program, several_hosts)
    start(launcher, None if argv is None else argv[1:])


def start(launcher: Launcher, arguments: Sequence[str] | None = None) -> None:
    """Launch an experiment, see `launch`.

    Args:
      launcher: the experiment.
      arguments: its flags, to launch within a process that goes on; None for the command line, which ends the process.

    Raises:
      SystemExit: with a status other than 0, where a process would end with it.
    """
    logging.set_verbosity(logging.WARNING)  # jax tells at INFO of every backend it doesn't find
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if HELP & set(given):
            print(describe(launcher, given))
            return
        argv = [launcher.program, *read_arguments(launcher, given)]
    except SuiteError as error:
        _stop(str(error))
    if arguments is None:
        warnings.formatwarning = format_warning
        sys.argv = argv  # where ml_collections looks for settings
        parse = functools.partial(_parse_flags, _command_line())
        app.run(lambda rest: _run_with(_command_line(), rest, launcher, given), argv=argv, flags_parser=parse)
    else:
        own = _Flags(flags.FlagValues(), argv)
        _run_with(own, _parse_flags(own, argv), launcher, given)


def _run_with(values: _Flags, rest: Sequence[str], launcher: Launcher, given: Sequence[str]) -> None:
    """Run an experiment with flags that are parsed; `rest` is what is left of the arguments."""
    leave = None
    if len(rest) > 1:
        _stop(f"unexpected arguments {' '.join(rest[1:])}; flags are written --name=value.")
    if not values.workdir.value:
        _stop("--workdir is missing: the run directory to write, as in --workdir=runs/mine.")
    try:
        if values.multihost.value:
            if not launcher.several_hosts:
                _stop("this experiment can't be one run over several hosts; launch it without --multihost.")
            faulthandler.disable()  # absl's; where a dead host leaves this one, a page of threads tells nothing
            leave = el.connect_hosts(values.coordinator.value, values.num_hosts.value, values.host.value)
        launcher.find_run()(values.config.value, epath.Path(values.workdir.value))
    except ExpertLensError as error:
        _tell(str(error))
    except (AttributeError, KeyError) as error:
        if (setting := _lacking(error)) is None:
            raise
        _tell(
            f"the config {_config(given, launcher)} has no setting {setting!r}, which {launcher.name} reads. Suites "
            f"that have all it reads: {', '.join(suites.fitting(launcher.name))}. Take one of these, or take the "
            "setting over from it."
        )
    else:
        return
    if leave is not None:
        leave()
        os._exit(1)  # an orderly exit would wait for hosts that are dead, or for this one
    sys.exit(1)


def _config(given: Sequence[str], launcher: Launcher) -> str:
    """Return what the user gave as `--config`, or the launcher's own suite."""
    config = suites.suite_of(launcher.name)
    for i, argument in enumerate(given):
        flag, equals, value = argument.partition("=")
        if flag in ("-config", "--config"):
            config = value if equals else "".join(given[i + 1 : i + 2])
    if not config or config.startswith("--"):
        raise SuiteError(f"--config has no value; write --config=NAME, one of {', '.join(suites.suite_names())}.")
    return config


def read_arguments(launcher: Launcher, given: Sequence[str]) -> list[str]:
    """Return a launcher's flags as absl and ml_collections read them: `--config=PATH` first, then the others.

    Raises:
      SuiteError: a config, flag or setting that doesn't exist, or a suite that isn't for this launcher.
    """
    name = _config(given, launcher)
    config = suites.read_suite(name)
    suites.check_fit(config, name, launcher.name)
    switches = {flag: bool(flags.FLAGS[flag].boolean) for flag in _command_line().values}
    written = suites.write_out([_rename(each, launcher.plain) for each in given], config, name, switches)
    return [f"--config={suites.find_suite(name)}", *(flag for flag in written if not flag.startswith("--config="))]


def _rename(argument: str, plain: Mapping[str, str]) -> str:
    flag, equals, value = argument.partition("=")
    return f"--{plain[flag[2:]]}{equals}{value}" if flag.startswith("--") and flag[2:] in plain else argument


def describe(launcher: Launcher, given: Sequence[str]) -> str:
    """Return what `--help` prints: the claim, the flags, and the settings with their values."""
    name, values = _config(given, launcher), _command_line().values
    shown = ["config", "workdir"] + ["multihost", "coordinator", "num_hosts", "host"] * launcher.several_hosts
    return "\n".join(
        [
            f"{launcher.program} [--config=SUITE] --workdir=DIR [--SETTING=VALUE ...]",
            f"\n{launcher.claim.strip()}",
            "\nFlags:",
            *(f"  {f'--{flag}':<13} {values[flag].help}" for flag in shown),
            f"\nSettings of the suite {name}, each a flag (lists are written a,b,c):",
            suites.describe_settings(name, launcher.name),
            *(f"  --{plain} is --{setting}" for plain, setting in launcher.plain.items()),
        ]
    )


def _lacking(error: AttributeError | KeyError) -> str | None:
    """Return the setting that a config lacks; None if the error is another."""
    name = re.search(r"\w+", str(error))
    return name.group() if "ml_collections" in traceback.extract_tb(error.__traceback__)[-1].filename and name else None


def _parse_flags(values: _Flags, argv: list[str]) -> list[str]:
    """Parse flags; a value that a setting can't take is told as a paragraph too."""
    try:
        return values.values(argv)
    except flags.Error as error:
        _stop(str(error).strip().splitlines()[0])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        _stop(str(error))


def format_warning(message: Warning | str, category: type[Warning], *_: object) -> str:
    """Return what a launcher prints of a warning, without the line of code that gave it."""
    if issubclass(category, ExpertLensWarning):
        return textwrap.fill(f"Note: {message}", 100) + "\n"
    return f"{category.__name__}: {message}\n"


def _stop(message: str) -> None:
    _tell(message)
    sys.exit(1)


def _tell(message: str) -> None:
    text = textwrap.fill(f"Error: {message}", 100, break_long_words=False, break_on_hyphens=False)
    print(text, file=sys.stderr, flush=True)
