"""Every public name has an example in its docstring, which runs as a user would paste it, and gives what it says."""

import doctest
import importlib
import inspect
import pathlib
import tempfile

import pytest

import expertlens_jax as el

PACKAGE = pathlib.Path(el.__file__).parent
ROOMS = [each.parent.name for each in sorted(PACKAGE.glob("*/__init__.py")) if "\n__all__ = " in each.read_text()]
PUBLIC = {f"el.{name}": getattr(el, name) for name in el.__all__} | {
    f"el.{room}.{name}": getattr(getattr(el, room), name) for room in ROOMS for name in getattr(el, room).__all__
}
WITHOUT = {
    "el.connect_hosts": "joins its process to others for good; experiments/test_hosts.py launches such processes",
}
"""Public names whose docstring says how they are used, without an example that could run here; and why."""


@pytest.fixture(autouse=True)
def files_of_examples(tmp_path, monkeypatch):
    """What an example writes into a temporary directory is the test's."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def run(examples: doctest.DocTest) -> doctest.TestResults:
    """Run the examples of one docstring; those that fail are printed."""
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(examples)
    return runner.summarize(verbose=False)


@pytest.mark.parametrize("name", sorted({*PUBLIC} - {*WITHOUT}))
def test_every_public_name_has_an_example_that_runs(name):
    (examples,) = doctest.DocTestFinder(recurse=False).find(PUBLIC[name], name, globs={})  # no names but its own
    done = run(examples)
    assert done.attempted > 0 and done.failed == 0


def test_the_examples_of_all_other_names_run():
    public = {f"{each.__module__}.{each.__qualname__}" for each in PUBLIC.values()}
    attempted = 0
    for file in sorted(PACKAGE.rglob("*.py")):
        if ">>> " not in file.read_text():
            continue
        module = importlib.import_module(".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts))
        for examples in doctest.DocTestFinder().find(module):
            if examples.name not in public:
                done = run(examples)
                assert done.failed == 0, examples.name
                attempted += done.attempted
    assert attempted > 0


@pytest.mark.parametrize("name", WITHOUT)
def test_a_public_name_without_an_example_tells_how_it_is_used(name):
    said = inspect.getdoc(PUBLIC[name])
    assert ">>> " not in said and f"    {name}(" in said


def test_the_rooms_are_the_documented_ones():
    assert ROOMS == ["analysis", "plot", "sentences", "training"]
