"""The rooms stand on floors: no import goes up."""

import ast
import pathlib

import pytest

import expertlens_jax as el

PACKAGE = pathlib.Path(el.__file__).parent
FLOORS = (
    ("errors", "cache_directory", "cards", "settings"),
    ("data", "parallel", "run_directory"),
    ("models",),
    ("experts", "training"),
    ("sentences", "plot"),
    ("analysis",),
    ("explorer", "report"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ROOMS = sorted(
    {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
)


def imported(path):
    """The rooms that a file imports from, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "expertlens_jax":
            names = [f"expertlens_jax.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "expertlens_jax" and rest:
                yield rest.partition(".")[0]


@pytest.mark.parametrize("room", [room for room in ROOMS if room in FLOOR])
def test_no_import_goes_up(room):
    files = [PACKAGE / f"{room}.py"] if (PACKAGE / f"{room}.py").exists() else (PACKAGE / room).rglob("*.py")
    for path in files:
        for other in imported(path):
            assert FLOOR[other] <= FLOOR[room], f"{path.relative_to(PACKAGE)} imports {other}, which stands above it"


def test_rooms_of_one_floor_import_each_other_one_way_at_most():
    arrows = {
        (room, other)
        for room in ROOMS
        if room in FLOOR and (PACKAGE / room).is_dir()
        for path in (PACKAGE / room).rglob("*.py")
        for other in imported(path)
        if other != room
    }
    assert not {(a, b) for a, b in arrows if (b, a) in arrows}
