"""What the tests of the page explore: twelve concepts of lenslet-2m, and a run of several experiments made of that."""

import json
import pathlib
import shutil
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from etils import epath

import expertlens_jax as el
from expertlens_jax.experts import table
from expertlens_jax.models.provenance import NUMBERS_VERSION

CONCEPTS = (
    *("animal", "cat", "dog", "tiger", "car", "train", "automobile", "plane", "forest", "woodland", "father"),
    "brother",
)

REPORT = '<h1>Report</h1>\n<h2 id="alignment">Alignment</h2>\n<p>Found.</p>'
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


def run_of_names(
    directory: pathlib.Path,
    names: Sequence[str],
    precision: np.ndarray | None = None,
    experts: np.ndarray | None = None,
    **attributes: object,
) -> pathlib.Path:
    """A finished run of concepts that are called so, of 400 units that no module of Hugging Face's has.

    Average precision `[concepts, units]` is at random unless it is given; `attributes` are added to the table's. Units
    are of a mixture's `experts` `[units]`, if these are given.
    """
    number = len(names)
    values = np.random.default_rng(0).beta(8, 8, (number, 400)) if precision is None else precision
    units = values.shape[1]
    of_concept = {"domain": [""] * number, "base_rate": [0.5] * number, "num_positives": [4] * number}
    of_concept |= {"num_negatives": [4] * number}
    of_unit = {"layer": np.arange(units) // 200, "site": ["attn.head"] * units, "channel": np.arange(units) % 200}
    of_unit |= {} if experts is None else {"expert": experts}
    of_unit |= {"hf_module": [""] * units, "hf_channel": [-1] * units}
    coordinates = {"concept": ("concept", np.array(names, object)), "unit": ("unit", np.arange(units))}
    for dim, columns in (("concept", of_concept), ("unit", of_unit)):
        for name, column in columns.items():
            kind = object if isinstance(column[0], str) else None
            coordinates[name] = (dim, np.array(column, kind))
    said = {"model": "odd", "sentences": "odd", "package": el.__version__, "numbers_version": NUMBERS_VERSION}
    directory.mkdir(parents=True)
    run = epath.Path(directory)
    described = xr.Dataset(coords=coordinates, attrs=said | attributes)
    table.create_table(run, described, {"average_precision": ("concept", "unit")})
    table.write_units(run, 0, {"average_precision": values.astype(np.float32)})
    table.write_progress(run, table.Progress(((0, units),), (), True))
    (directory / "config.json").write_text(json.dumps({"contrast_sha256": ""}))
    return directory


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
    (root / "report.html").write_text(REPORT)
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
