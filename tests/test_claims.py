"""README's table of claims holds the numbers of docs/claims.csv, and its first words say what units lose against."""

import pathlib
import re

import pandas as pd
import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
INTERVAL = re.compile(r"(-?[\d.]+|–)(?: \[(-?[\d.]+), (-?[\d.]+)\])?")
RATINGS = {"WordSim-353": "wordsim353", "SimLex-999": "simlex999"}


@pytest.fixture(scope="module")
def claims():
    return pd.read_csv(ROOT / "docs" / "claims.csv")


def table():
    (lines,) = re.findall(r"<!-- claims -->\n(.*?)<!-- /claims -->", README, re.DOTALL)
    head, _, *rows = (tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines.splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


def numbers(cell):
    """Value, low and high of each of a cell's numbers, None where there is none."""
    return [
        tuple(None if each in ("–", "") else float(each) for each in found.groups(""))
        for found in INTERVAL.finditer(cell)
    ]


def close(told, kept):
    """Whether a number in README is one of the CSV, rounded: to two decimals, or three below a hundredth."""
    if told is None:
        return pd.isna(kept)
    return told == round(kept, 2 if abs(kept) >= 0.0095 else 3)


@pytest.mark.parametrize("line", table(), ids=lambda line: f"{line['Claim']}, {line['Model']}")
def test_each_line_of_readme_has_the_numbers_of_the_csv(line, claims):
    claim, _, ratings = (
        line["Claim"].rpartition(", ") if line["Claim"].endswith(tuple(RATINGS)) else (line["Claim"], "", "")
    )
    rows = claims[(claims["claim"] == claim) & (claims["model"] == line["Model"])]
    if ratings:
        rows = rows[rows["of"].str.endswith(RATINGS[ratings])]
    assert set(rows["verdict"]) == {line["Verdict"]}
    own = {(row.value, row.ci_low, row.ci_high) for row in rows.itertuples()}
    told = numbers(line["Number"])
    assert told
    for each in told:
        assert any(all(map(close, each, kept)) for kept in own), each
    for part in filter(None, line["Against"].replace("–", "").split("; ")):
        name, _, cell = part.partition(": ")
        kept = rows[rows["control"] == name]
        beside = [(row.control_value, row.control_low, row.control_high) for row in kept.itertuples()]
        assert len(numbers(cell)) == len(told)
        for each in numbers(cell):
            assert any(all(map(close, each, other)) for other in beside), (name, each)
    for chance, *_ in numbers(line["Chance"]):
        assert any(close(chance, each) for each in rows["chance"])
