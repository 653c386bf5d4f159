"""Suites by name, and their settings: what the command line takes beside absl's flags, and what help says of it."""

import ast
import difflib
import numbers
import pathlib
import re
import runpy
from collections.abc import Iterator, Mapping, Sequence

import ml_collections

import expertlens_jax.configs
from expertlens_jax.errors import SuiteError

FOLDER = pathlib.Path(expertlens_jax.configs.__path__[-1])
SHARED = "common"  # no suite, but where suites take settings from
DEFAULT = "demo"
OWN = {
    **{"find_experts": "find_experts", "write_concepts": "write_concepts", "pretrain": "lenslet"},
    "mixture": "mixture",
}
"""The suite of a launcher that doesn't read `DEFAULT`."""


def suite_names() -> tuple[str, ...]:
    """Return the names of the suites that ship with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in (SHARED, "__init__")))


def suite_of(launcher: str) -> str:
    """Return the suite that a launcher runs where none is given: one that has all settings it reads."""
    return OWN.get(launcher, DEFAULT)


def find_suite(given: str) -> str:
    """Return the path of a config, with its variant: "pythia:1b" is `.../configs/pythia.py:1b`.

    Args:
      given: the name of a suite that ships, or the path of any config file; and, after a colon, the variant.

    Raises:
      SuiteError: no suite is called so, and there is no such file; the message names the near ones.
    """
    name, colon, variant = given.partition(":")
    if name in suite_names():
        return f"{FOLDER / name}.py{colon}{variant}"
    if pathlib.Path(name).is_file():
        return given
    stem = pathlib.PurePath(name).stem
    near = [stem] if stem in suite_names() else difflib.get_close_matches(stem.lower(), suite_names(), n=2, cutoff=0.5)
    meant = f" Did you mean --config={' or --config='.join(near)}?" if near else ""
    raise SuiteError(
        f"the config {given} can't be found: there is no such file here, and no suite of that name.{meant} "
        f"Suites are {', '.join(suite_names())}."
    )


def read_suite(given: str) -> ml_collections.ConfigDict:
    """Return the settings of a config.

    Args:
      given: as in `find_suite`.

    Raises:
      SuiteError: it can't be found or read, or has no such variant.
    """
    path, _, variant = find_suite(given).partition(":")
    try:
        config = runpy.run_path(path)["get_config"](*[variant] if variant else [])
    except ValueError as error:
        raise SuiteError(str(error)) from error  # a suite's own word on its variants
    except Exception as error:
        raise SuiteError(f"the config {given} can't be read ({type(error).__name__}: {error}).") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise SuiteError(f"the config {given} can't be read: its get_config returns {config!r}, not a ConfigDict.")
    return config


def check_fit(config: ml_collections.ConfigDict, given: str, launcher: str) -> None:
    """Refuse a suite of another launcher's: one whose settings of the same names are of other kinds.

    Args:
      config: the suite, before flags override its settings.
      given: what the user called it.
      launcher: such as "alignment".

    Raises:
      SuiteError: the message names the setting, and the suites that fit.
    """
    wanted = read_suite(suite_of(launcher))
    trouble = ""
    for name in wanted:
        if not trouble and name in config and (kind := _kind(wanted[name])) != (found := _kind(config[name])):
            trouble = f"its setting {name!r} is {found}, where {launcher} reads {kind}" if kind and found else ""
    if trouble:
        fits = ", ".join(fitting(launcher))
        raise SuiteError(f"the config {given} isn't for {launcher}: {trouble}. Suites that fit: {fits}.")


def own_settings(launcher: str) -> set[str]:
    """Return the settings of `DEFAULT` that only this launcher reads, and `reproduce` with all the others."""
    if launcher == "reproduce":
        return {"experiments"}
    return {launcher} & set(read_suite(DEFAULT)) if suite_of(launcher) == DEFAULT else set()


def fitting(launcher: str) -> tuple[str, ...]:
    """Return the names of the suites that have all settings that a launcher reads."""
    if suite_of(launcher) != DEFAULT:
        return (suite_of(launcher),)
    needed = {"measures"} | own_settings(launcher)
    return tuple(name for name in suite_names() if needed <= set(read_suite(name)))


def _kind(value: object) -> str:
    kinds = {
        bool: "true or false",
        numbers.Number: "a number",
        str: "text",
        ml_collections.ConfigDict: "a section",
        Sequence: "a list",
    }
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), "")


def write_out(
    argv: Sequence[str], config: ml_collections.ConfigDict, given: str, switches: Mapping[str, bool]
) -> list[str]:
    """Return flags as absl reads them: of a setting `--model X` is `--config.model=X`.

    Args:
      argv: what stands after the program.
      config: its settings may be given by name, `--model` for `--config.model`.
      given: what the user called the config.
      switches: the flags that there are, and whether each goes without a value.

    Raises:
      SuiteError: a flag that is neither; the message names near ones. Or one without its value.
    """
    written, rest = [], list(argv)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--") or argument == "--":
            written.append(argument)
            continue
        flag, equals, value = argument[2:].partition("=")
        name = flag.removeprefix("config.")
        setting = _setting(name, config)
        if flag in switches or (flag.startswith("no") and switches.get(flag[2:])):
            alone = switches.get(flag, True)
        elif setting is not None:
            flag, alone = f"config.{name}", isinstance(setting, bool)
        elif name.startswith("no") and isinstance(_setting(name[2:], config), bool):
            flag, alone = f"noconfig.{name[2:]}", True
        else:
            meant = _meant(name, config, switches)
            if flag != name:
                raise SuiteError(f"the config {given} has no setting {name!r}.{meant}")
            raise SuiteError(f"there is no flag --{name}, and no setting {name!r} in the config {given}.{meant}")
        if not equals and not alone:
            if not rest or rest[0].startswith("--"):
                raise SuiteError(f"{argument} has no value; write {argument}=VALUE.")
            equals, value = "=", rest.pop(0)
        if isinstance(setting, tuple) and flag.startswith("config."):
            value = _listed(value)
        written.append(f"--{flag}{equals}{value}")
    return written


def _listed(value: str) -> str:
    """Name written a,b,c as Python writes a tuple of them; what Python reads already, or holds options, as it is."""
    try:
        ast.literal_eval(value)
    except (SyntaxError, ValueError):
        if "," in value and "=" not in value and not value.lstrip().startswith(("(", "[")):
            return repr(tuple(each.strip() for each in value.split(",") if each.strip()))
    return value


def _setting(path: str, config: ml_collections.ConfigDict) -> object:
    """Return the setting at `section.name`, or None where there is none; `name[0]` and `name['key']` are within one."""
    value: object = config
    for name in path.partition("[")[0].split("."):
        if not isinstance(value, ml_collections.ConfigDict) or name not in value:
            return None
        value = value[name]
    return "" if value is None or "[" in path else value


def _meant(name: str, config: ml_collections.ConfigDict, switches: Mapping[str, bool]) -> str:
    settings = [setting for setting, _ in leaves(config)]
    near = [setting for setting in settings if setting.rpartition(".")[2] == name]  # in one of its sections
    near += difflib.get_close_matches(name, [*settings, *switches], n=2, cutoff=0.6)
    return f" Did you mean --{' or --'.join(dict.fromkeys(near))}?" if near else " --help lists all there are."


def leaves(config: ml_collections.ConfigDict, section: str = "") -> Iterator[tuple[str, object]]:
    """Yield each setting's name, with its section before it, and its value."""
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict) and len(value):
            yield from leaves(value, f"{section}{name}.")
        else:
            yield f"{section}{name}", value


def describe_settings(given: str, launcher: str) -> str:
    """Return a line a setting that a launcher reads: its name, its value, and the comment beside it in the file.

    Raises:
      SuiteError: see `read_suite`.
    """
    config = read_suite(given)
    others = set(read_suite(DEFAULT).experiments) | {"experiments"}
    left_out = others - own_settings(launcher) if "experiments" in config and launcher != "reproduce" else set()
    file = pathlib.Path(find_suite(given).partition(":")[0])
    comments: dict[str, str] = {}
    for source in (file, *(FOLDER / f"{name}.py" for name in (DEFAULT, SHARED))):
        for name, comment in re.findall(r"^    c\.([\w.]+) = .*?  # (.*)$", source.read_text(), re.MULTILINE):
            comments.setdefault(name, comment)
    lines = []
    for name, value in leaves(config):
        if name.partition(".")[0] not in left_out:
            shown = ",".join(map(str, value)) if isinstance(value, tuple) and _is_flat(value) else str(value)
            shown = shown if len(shown) < 50 else f"{shown[:46]}..."
            comment = f"  # {comments[name]}" if name in comments else ""
            lines.append(f"  {f'--{name}={shown}':<36}{comment}".rstrip())
    return "\n".join(lines)


def _is_flat(value: tuple) -> bool:
    return all(isinstance(each, str | int | float) for each in value)


def first_line(file: pathlib.Path) -> str:
    """Return the first line of a file's docstring, without importing it."""
    return docstring(file).partition("\n")[0]


def docstring(file: pathlib.Path) -> str:
    """Return a file's docstring, without importing it."""
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def variants(name: str) -> tuple[str, ...]:
    """Return what a suite takes after the colon, without importing it: its `VARIANTS`."""
    for node in ast.parse((FOLDER / f"{name}.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "VARIANTS":
            keys = node.value.keys if isinstance(node.value, ast.Dict) else node.value.elts
            return tuple(ast.literal_eval(key) for key in keys)
    return ()
