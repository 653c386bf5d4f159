"""Checks what `make demo SIZE=small` wrote: files there, numbers where they should be.

python .ci/check_demo.py RUN_DIRECTORY
"""

import json
import pathlib
import sys

import pandas as pd

import expertlens_jax as el

COLUMNS = (
    "sentences measure threshold negatives_per_positive ratings pairs experts_median spearman ci_low ci_high p_value"
)

root = pathlib.Path(sys.argv[1])
run = root / "minilm"
config = json.loads((run / "config.json").read_text())
launches = json.loads((run / "environment.json").read_text())
assert config["sentences"] == ["stories"] and launches[0]["packages"]["jax"], (config, launches)

table = pd.read_csv(run / "alignment.csv")
assert list(table.columns) == COLUMNS.split(), table.columns
assert table["pairs"].isin([29, 72]).all(), table["pairs"]
assert ((table["ci_low"] <= table["spearman"]) & (table["spearman"] <= table["ci_high"])).all()
ratio = table["negatives_per_positive"]
of_rate = ratio.isna() | (ratio == config["negatives_per_positive"])
by_name = table[of_rate & (table["ratings"] == "wordsim353")].set_index("measure")

# With sentences that mention the concept left out of its negatives, a little off the prototype's 292 and 0.749.
assert 280 < by_name.loc["jaccard", "experts_median"] < 320, by_name
assert 0.65 < by_name.loc["jaccard", "spearman"] < 0.85, by_name
assert by_name.loc["jaccard", "p_value"] < 0.01, by_name
assert abs(by_name.loc["jaccard_random_weights_0", "spearman"]) < 0.5, by_name
assert abs(by_name.loc["tfidf", "spearman"] - 0.300) < 0.01, by_name

expertise = el.open_expertise(run / "expertise" / "model_stories")
assert expertise["average_precision"].shape == (176, 20736), expertise
for name in "alignment", "measures", "overlap_stories", "localisation_stories":
    for suffix in "png", "svg":
        assert (run / "figures" / f"{name}.{suffix}").stat().st_size > 10_000, (name, suffix)
print(f"{run}: {len(table)} alignments checked")

conclusions = pd.read_csv(root / "lenslet" / "conclusions.csv")
asked = json.loads((root / "lenslet" / "config.json").read_text())["experiments"]
assert list(dict.fromkeys(conclusions["experiment"])) == asked, conclusions
steering = conclusions.set_index("experiment").loc["steering"]
assert steering["verdict"] == "held", steering["found"]
# The small demo's concepts are chosen so that ratings speak: what it concludes of them rests on numbers.
rated = conclusions[
    conclusions["claim"].str.contains("lignment with human similarity") | (conclusions["experiment"] == "alignment")
]
assert len(rated) == 3 and rated["verdict"].isin(["held", "not held"]).all(), rated
experiments = pd.read_csv(root / "lenslet" / "experiments.csv")
assert (experiments["state"] == "done").all(), experiments
page = (root / "lenslet" / "report.html").read_text()
assert all(claim.split("'")[0] in page for claim in conclusions["claim"]) and "data:image/svg+xml" in page
print(f"{root / 'lenslet'}: {len(conclusions)} conclusions checked")

site = root / "lenslet" / "explore"
call = (site / "data" / "index.js").read_text()
index = json.loads(call[call.index(",") + 1 : call.rindex(")")])
assert index["notes"] == [] and len(index["conclusions"]) == len(conclusions), index["notes"]
assert {each["sentences"] for each in index["tables"]} == {"facts", "stories"}, index["tables"]
assert all(each["speaking"] and each["random"] and each["rated"] for each in index["tables"])
assert all((site / path).exists() for path in index["figures"].values()) and (site / "report.html").exists()
print(f"{site}: {len(index['tables'])} tables checked")
