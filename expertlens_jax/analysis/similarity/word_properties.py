"""What words are like apart from what they mean: frequency, concreteness and the like, to be partialled out."""

import csv
import io
import math
from collections.abc import Sequence

import numpy as np
import xarray as xr
from etils import epath

from expertlens_jax.cards import counted
from expertlens_jax.data.text import find_file, read_text
from expertlens_jax.data.words import normal_name
from expertlens_jax.errors import ExpertLensError

_DELIMITERS = {".tsv": "\t", ".csv": ","}


def word_property_similarities(path: epath.PathLike, concepts: Sequence[str]) -> dict[str, xr.DataArray]:
    """Return similarities of concepts by properties of their words, as `partial_alignments` takes them for controls.

    Args:
      path: a UTF-8 file, `.tsv` or `.csv`, with a header: the word, then a number in each further column. Take the
        logarithm of frequencies before: ranks of a pair's difference depend on it.
      concepts: `[concepts]`, whose words are looked up, whatever their capitals and hyphens.

    Returns:
      For each column NAME, over the concepts that are in the file: `NAME_difference`, less the absolute difference of
        the two words (alike is near 0), and `NAME_mean`, the mean of the two. Each float64 (concept, other).

    Raises:
      ExpertLensError: no such file, no column of numbers, a value that is no finite number, a word that is there twice,
        or fewer than three of the concepts in it.
    """
    file = find_file(path)
    if file is None or file.suffix.lower() not in _DELIMITERS:
        what = "no file" if file is None else "can't read the file"
        raise ExpertLensError(f"{what} {str(path)!r} of word properties; give a .tsv or .csv: a word, then numbers")
    text = io.StringIO(read_text(file, ExpertLensError), newline="")
    reader = csv.reader(text, delimiter=_DELIMITERS[file.suffix.lower()])
    rows = [(reader.line_num, [field.strip() for field in row]) for row in reader if any(map(str.strip, row))]
    names = rows[0][1][1:] if rows else []
    if not names or len(set(names)) < len(names) or not all(names):
        raise ExpertLensError(f"{file}: the columns after the word are {names}; give each a name of its own")
    found: dict[str, tuple[int, list[float]]] = {}
    for number, (word, *fields) in rows[1:]:
        if len(fields) != len(names):
            raise ExpertLensError(
                f"{file}:{number}: wanted a word and {counted(len(names), 'number')}, not {[word, *fields]}"
            )
        key = normal_name(word)
        if key in found:
            raise ExpertLensError(f"{file}:{number}: {word!r} is at line {found[key][0]} too; keep one of them")
        found[key] = number, [_number(f"{file}:{number}", *each) for each in zip(names, fields, strict=True)]
    there = [concept for concept in concepts if normal_name(concept) in found]
    if len(there) < 3:
        raise ExpertLensError(f"{file} has {len(there)} of the {len(concepts)} concepts; at least 3 are needed")
    values = np.array([found[normal_name(concept)][1] for concept in there])
    similarities = {}
    for name, column in zip(names, values.T, strict=True):
        for kind, matrix in (
            ("difference", -np.abs(column[:, None] - column)),
            ("mean", (column[:, None] + column) / 2),
        ):
            coordinates = {"concept": there, "other": there}
            similarities[f"{name}_{kind}"] = xr.DataArray(matrix, dims=("concept", "other"), coords=coordinates)
    return similarities


def _number(place: str, name: str, field: str) -> float:
    try:
        value = float(field)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ExpertLensError(f"{place}: {name!r} is {field!r}, which is no finite number; leave the word out")
    return value
