"""What the tests of the page explore: twelve concepts of lenslet-2m, and a run of several experiments made of that."""

import json
import pathlib
import shutil

import pandas as pd

import expertlens_jax as el

CONCEPTS = (
    *("animal", "cat", "dog", "tiger", "car", "train", "automobile", "plane", "forest", "woodland", "father"),
    "brother",
)

PAIRS = ["word_1", "word_2", "rating", "similarity", "sentences", "ratings"]


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


def change(run, **attributes):
    """Says something else of a run's table."""
    file = run / "expertise.zarr" / "zarr.json"
    told = json.loads(file.read_text())
    told["attributes"] |= attributes
    file.write_text(json.dumps(told))


def reproduced_run(shown, folder):
    """A run of several experiments, one of them still to come."""
    root = folder / "run"
    config = {"model": "lenslet-2m", "sentences": ["facts"], "experiments": ["alignment", "stability", "steering"]}
    (root / "alignment" / "figures").mkdir(parents=True)
    (root / "config.json").write_text(json.dumps(config))
    (root / "alignment" / "config.json").write_text(json.dumps(config))
    (root / "alignment" / "figures" / "alignment.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (root / "report.html").write_text("<h1>Report</h1>")
    pd.DataFrame(
        [("alignment", "done", ""), ("stability", "left out", "one set"), ("steering", "waiting", "")],
        columns=["experiment", "state", "reason"],
    ).to_csv(root / "experiments.csv", index=False)
    claim = {"claim": "Alike <b>", "found": "0.5", "verdict": "held", "figure": "alignment", "reason": ""}
    pd.DataFrame([{"experiment": "alignment"} | claim]).to_csv(root / "conclusions.csv", index=False)
    pd.DataFrame([("cat", "tiger", 7.35, 0.1, "facts", "mine")], columns=PAIRS).to_csv(
        root / "alignment" / "pairs.csv", index=False
    )
    pd.DataFrame([{"measure": "jaccard", "ratings": "mine", "spearman": 0.5}]).to_csv(
        root / "alignment" / "alignment.csv", index=False
    )
    tables = root / "expertise"
    shown.copy(tables / "lenslet-2m_facts_halves")
    random = shown.copy(tables / "lenslet-2m-random0_facts")
    change(random, model="lenslet-2m-random0", weights="others")
    other = shown.copy(tables / "lenslet-5m_facts")
    change(other, model="lenslet-5m", weights="more")
    return root
