"""Models in Python packages: the small ones that ship with this one (see `lenslet/README.md`), and others'."""

import difflib
import importlib.util
import pathlib

from expertlens_jax.errors import CheckpointError

ROOT = pathlib.Path(__file__).parent / "lenslet"
"""A directory a model, and in it a Hugging Face directory a training step: `lenslet-2m/step256`."""


def packaged_models() -> tuple[str, ...]:
    """Return the models' names, as `load_model` takes them."""
    return tuple(sorted(path.name for path in ROOT.iterdir() if path.is_dir()))


def packaged_revisions(name: str) -> tuple[str, ...]:
    """Return the training steps that a model ships with, first to last: "step0", ..."""
    return tuple(sorted((path.name for path in (ROOT / name).iterdir()), key=lambda step: int(step[len("step") :])))


def check_spelling(name: str) -> None:
    """Refuse a name that is nearly a packaged model's; the hub has none like it, and would be asked in vain.

    Raises:
      CheckpointError: it is; the message names those there are.
    """
    names = packaged_models()
    if name in names or "/" in name:
        return
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.7)
    if near or name.lower().startswith("lenslet"):
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        raise CheckpointError(
            f"no model called {name!r} ships with the package, and there is no directory of that name here; packaged "
            f"are {', '.join(names)}.{meant} A model of the hub has an owner: owner/{name}."
        )


def packaged_directory(name: str, revision: str | None) -> pathlib.Path | None:
    """Return where a packaged model lies; None if none is called so.

    Args:
      name: as in `packaged_models`.
      revision: as in `packaged_revisions`; None or "main" is the last.

    Raises:
      CheckpointError: it doesn't ship with this revision.
    """
    if name not in packaged_models():
        return None
    revisions = packaged_revisions(name)
    if revision in (None, "main"):
        revision = revisions[-1]
    if revision not in revisions:
        raise CheckpointError(f"{name} has no revision {revision!r}; it ships with {', '.join(revisions)}.")
    return ROOT / name / revision


def folder_in_package(path: str) -> pathlib.Path | None:
    """Return where `package:NAME/FOLDER` lies, a folder within an installed Python package.

    Return None if NAME isn't installed.
    """
    package, _, folder = path.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return pathlib.Path(spec.submodule_search_locations[0]) / folder
