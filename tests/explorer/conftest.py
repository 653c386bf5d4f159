"""One small run for all tests of the page: twelve concepts of lenslet-2m, and the site that shows it."""

import json
import pathlib
import shutil

import pytest

import expertlens_jax as el

CONCEPTS = (
    *("animal", "cat", "dog", "tiger", "car", "train", "automobile", "plane", "forest", "woodland", "father"),
    "brother",
)


class Shown:
    """A run, what it was measured with, and its site."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.directory, self.site = folder / "run", folder / "site"
        self.model = el.load_model("lenslet-2m")
        self.facts = el.load_concepts("facts")
        self.concepts = self.facts.subset(CONCEPTS)
        self.expertise = el.find_experts(self.model, self.concepts, self.directory, permutations=5).load()
        el.explore(self.directory, self.site, model=self.model, experts=20, speaking=2)

    def chunk(self, name: str):
        return read_chunk(self.site, name)

    def copy(self, folder: pathlib.Path) -> pathlib.Path:
        return pathlib.Path(shutil.copytree(self.directory, folder))


def read_chunk(site: pathlib.Path, name: str):
    """What a chunk gives the page: its file is a call, and what is in it JSON."""
    text = (site / "data" / f"{name}.js").read_text()
    start = f"EXPERTLENS.give({json.dumps(name)},"
    assert text.startswith(start) and text.endswith(");\n")
    return json.loads(text[len(start) : -3])


@pytest.fixture(scope="session")
def shown(tmp_path_factory):
    return Shown(tmp_path_factory.mktemp("explored"))
