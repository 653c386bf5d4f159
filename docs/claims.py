"""Gather what runs say of the claims into docs/claims.csv, and write it as the table in README.

    python docs/claims.py runs/detection runs/sparse_features ...    # run directories, of one or several models
    python docs/claims.py                                            # README's table of the CSV as it is

Each row of the CSV is a number with its 95% interval. Beside it stand the number it is compared with and that one's
interval, the level of chance, and the verdict of the claim, as the experiment wrote it. A run replaces all rows of the
same experiment and model.
"""

import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pandas as pd

from expertlens_jax.report.detection_findings import DIFFERENCES, RIVALS, WORDLESS, shown_rows

HERE = pathlib.Path(__file__).parent
FILE, README = HERE / "claims.csv", HERE.parent / "README.md"
BEGIN, END = "<!-- claims -->\n", "<!-- /claims -->"
NUMBERS = ("value", "ci_low", "ci_high", "control_value", "control_low", "control_high", "chance")
COLUMNS = ("experiment", "claim", "model", "measure", "of", *NUMBERS[:3], "control", *NUMBERS[3:], "verdict")
CLAIMS = {
    "Experts tell a concept's sentences in new text": "detection",
    "... better than a difference of means": "detection",
    "... better than a linear probe and a bag of words": "detection",
    "... also where the concept's word is masked": "detection",
    "Experts among units are closer to people than SAE features (as published)": "sparse_features",
    "... and detect better than SAE features": "sparse_features",
    "... and are more alike across sentence sets": "sparse_features",
    "SAE features do better than those of random twins": "sparse_features",
    "The model needs its experts for their concept's word": "necessity",
    "Average precision and attribution choose the same units": "necessity",
    "Learned steering changes the experts": "necessity",
    "Experts are of the concept rather than of the word": "senses",
}
"""In the order in which each experiment concludes them."""
MODELS = {"model": "all-MiniLM-L6-v2"}  # a folder within a package
ORDER = ("lenslet-5m", "all-MiniLM-L6-v2")
Row = dict[str, Any]


def gather(run: pathlib.Path) -> pd.DataFrame:
    """Return a row per number that a run holds a claim by."""
    (experiment,) = (name for name in GATHER if (run / f"{name}.csv").exists())
    verdicts = pd.read_csv(run / "conclusions.csv")["verdict"]
    claims = [claim for claim, asked in CLAIMS.items() if asked == experiment]
    model = json.loads((run / "config.json").read_text())["model"].rpartition("/")[2]
    rows = []
    for number, row in GATHER[experiment](run):
        told = {"experiment": experiment, "claim": claims[number], "model": MODELS.get(model, model)}
        rows.append(told | row | {"verdict": verdicts[number]})
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def _against(row: pd.Series, control: str, other: pd.Series, **told: Any) -> Row:
    numbers = dict(zip(NUMBERS[3:6], other[["value", "ci_low", "ci_high"]], strict=True))
    return told | row[["value", "ci_low", "ci_high"]].to_dict() | {"control": control} | numbers


def _detection(run: pathlib.Path) -> Iterator[tuple[int, Row]]:
    table = shown_rows(pd.read_csv(run / "detection.csv"))
    for kind, number, others in (
        ("sets", 0, ("random_units",)),
        *(("sets", 1, (name,)) for name in DIFFERENCES),
        *(("sets", 2, (name,)) for name in RIVALS),
        ("masked", 3, WORDLESS),
    ):
        for (train, test), rows in table[table["kind"] == kind].groupby(["train", "test"], sort=False):
            by_name = rows.set_index("detector")
            own = by_name.loc["top_experts"]
            for name in others:
                told = {"measure": "average precision", "of": f"{train} → {test}", "chance": own["chance"]}
                yield number, _against(own, name.replace("_", " "), by_name.loc[name], **told)


def _sparse_features(run: pathlib.Path) -> Iterator[tuple[int, Row]]:
    table = pd.read_csv(run / "sparse_features.csv")
    table = table[~table["selection"].str.startswith("top")]
    table["ratings"] = table["ratings"].fillna("")
    named = {"alignment": "Spearman's ρ", "detection": "average precision", "stability": "Jaccard overlap"}
    keys = ["statistic", "sentences", "ratings"]
    sources = {name: rows.set_index(keys) for name, rows in table.groupby("source", sort=False)}
    features, units = sources.pop("SAE features"), sources.pop("units, as many")
    for key, own in units.iterrows():
        told = {"measure": named[key[0]], "of": ", ".join(filter(None, key[1:])), "chance": own["chance"]}
        yield list(named).index(key[0]), _against(own, "SAE features", features.loc[key], **told)
        for name, twin in sources.items():
            if key[0] != "stability":
                yield 3, _against(features.loc[key], name, twin.loc[key], **told)


def _necessity(run: pathlib.Path) -> Iterator[tuple[int, Row]]:
    falls = pd.read_csv(run / "necessity.csv")
    count = json.loads((run / "config.json").read_text())["necessity"]["drawn_size"]
    for (ablation, measure), rows in falls[falls["count"] == count].groupby(["ablation", "measure"], sort=False):
        by_name = rows.set_index("units")
        own = by_name.loc["average_precision"]
        for control in ("random, placed as by average_precision", "attribution"):
            name = control.partition(",")[0] + (" units" if "random" in control else "")
            told = {"measure": f"nats, {measure}", "of": f"{count} units, {ablation}"}
            yield 0, _against(own, name, by_name.loc[control], **told)
    agreed = pd.read_csv(run / "agreement.csv")
    row = agreed[(agreed["measure"] == "shared") & (agreed["count"] == count)].iloc[0]
    yield 1, {"measure": "share in common", "of": f"{count} units"} | row[[*NUMBERS[:3], "chance"]].to_dict()
    if (run / "learned.csv").exists():
        shares = pd.read_csv(run / "learned.csv").rename(columns={"shared": "value"}).set_index("score")
        own = shares.loc["average_precision"]
        told = {"measure": "share of learned units", "of": "as many units", "chance": own["chance"]}
        yield 2, _against(own, "attribution", shares.loc["attribution"], **told)


def _senses(run: pathlib.Path) -> Iterator[tuple[int, Row]]:
    kinds = pd.read_csv(run / "senses.csv").rename(columns={"overlap": "value"}).set_index(["measure", "kind"])
    for measure in dict.fromkeys(kinds.index.get_level_values(0)):
        if measure.startswith("experts") and "halves" not in measure:
            sense, word, neither = (
                kinds.loc[(measure, kind)] for kind in ("other word, same sense", "same word, other sense", "neither")
            )
            told = {"measure": "Jaccard overlap", "of": measure, "chance": neither["value"]}
            yield 0, _against(sense, "same word, other sense", word, **told)


GATHER = {
    "detection": _detection,
    "sparse_features": _sparse_features,
    "necessity": _necessity,
    "senses": _senses,
}
RATED = {"wordsim353": "WordSim-353", "simlex999": "SimLex-999"}


def tabulate(table: pd.DataFrame) -> str:
    """Return README's table: a line per claim and model, and per ratings; two numbers are of two sentence sets."""
    lines = ["| Claim | Model | Number | Against | Chance | Verdict |", "| --- | --- | --- | --- | --- | --- |"]
    for claim in CLAIMS:
        for _, rows in table[table["claim"] == claim].groupby("model", sort=False):
            for label, shown in _lines(claim, rows):
                first = shown.drop_duplicates("of")
                against = [
                    f"{name}: {_numbers(own, 'control_value', 'control_low', 'control_high')}"
                    for name, own in shown.groupby("control", sort=False)
                ]
                chances = " / ".join(dict.fromkeys(_number(each) for each in first["chance"]))
                cells = [label, rows["model"].iloc[0], _numbers(first, *NUMBERS[:3]), "; ".join(against) or "–"]
                lines.append(f"| {' | '.join([*cells, chances, rows['verdict'].iloc[0]])} |")
    return "\n".join(lines) + "\n"


def _lines(claim: str, rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the lines of a claim: what each is called, and its rows; the others stand in the CSV alone."""
    kind = rows["experiment"].iloc[0]
    if kind == "necessity":
        rows = rows[~rows["measure"].isin(["nats, own", "nats, others", "nats, sufficiency"])]
    if kind == "senses":
        rows = rows[rows["of"] == "experts, τ = 0.5"]
    rated = rows["of"].str.extract(f"({'|'.join(RATED)})", expand=False)
    for name in rated.dropna().unique():
        yield f"{claim}, {RATED[name]}", rows[rated == name]
    if rated.isna().any():
        yield claim, rows[rated.isna()]


def _numbers(rows: pd.DataFrame, value: str, low: str, high: str) -> str:
    return " / ".join(
        _number(row[value]) + (f" [{_number(row[low])}, {_number(row[high])}]" if pd.notna(row[low]) else "")
        for _, row in rows.iterrows()
    )


def _number(value: float) -> str:
    if pd.isna(value):
        return "–"
    return "0" if value == 0 else f"{value:.2f}" if abs(value) >= 0.0095 else f"{value:.3f}"


def main(runs: list[str]) -> None:
    """Add runs to the CSV, and write README's table."""
    table = pd.read_csv(FILE) if FILE.exists() else pd.DataFrame(columns=list(COLUMNS))
    for run in runs:
        found = gather(pathlib.Path(run))
        same = [(table[name] == found[name].iloc[0]) for name in ("experiment", "model")]
        table = pd.concat([table[~(same[0] & same[1])], found], ignore_index=True)
    places = {name: number for names in (CLAIMS, ORDER) for number, name in enumerate(names)}
    table = table.sort_values(["claim", "model"], key=lambda each: each.map(places), kind="stable")
    table.to_csv(FILE, index=False, float_format="%.4g")
    assert BEGIN in README.read_text(), "README has no place for the table"
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}{tabulate(pd.read_csv(FILE))}{END}{after}")


if __name__ == "__main__":
    main(sys.argv[1:])
