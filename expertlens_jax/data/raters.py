"""Ratings with their raters: how alike each person found each pair of words, and not their mean alone."""

import csv
import dataclasses
import io
import math

import numpy as np
from etils import epath

from expertlens_jax.cards import counted
from expertlens_jax.data.ratings import Ratings
from expertlens_jax.data.text import find_file, read_text
from expertlens_jax.data.words import normal_name
from expertlens_jax.errors import RatingsError

_DELIMITERS = {".tsv": "\t", ".csv": ","}
_MISSING = frozenset(("", "na", "nan", "none", "n/a", "-"))


@dataclasses.dataclass(frozen=True, eq=False)
class Raters:
    """Each rater's ratings of pairs of words.

    Attributes:
      name: of the data set.
      pairs: `[pairs]`, two different words each, lower-cased; each unordered pair once.
      raters: `[raters]`, their names.
      scores: float64 `[pairs, raters]`; NaN where somebody didn't rate a pair.

    Raises:
      RatingsError: fewer than two raters, or a rater who shares no rated pair with any other.
    """

    name: str
    pairs: tuple[tuple[str, str], ...]
    raters: tuple[str, ...]
    scores: np.ndarray

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.pairs), len(self.raters)):
            raise RatingsError(
                f"{self.name}: {counted(len(self.pairs), 'pair')} and {counted(len(self.raters), 'rater')} need scores "
                f"of that shape, not {list(self.scores.shape)}"
            )
        if len(self.raters) < 2:
            raise RatingsError(
                f"{self.name}: {counted(len(self.raters), 'rater was', 'raters were')} given; how far people agree "
                "needs two or more, a column each"
            )
        rated = ~np.isnan(self.scores)
        alone = [
            rater for rater, own in zip(self.raters, rated.T, strict=True) if not (own & (rated.sum(axis=1) > 1)).any()
        ]
        if alone:
            raise RatingsError(
                f"{self.name}: {', '.join(map(repr, alone))} rated no pair that anybody else did; nobody can agree or "
                "disagree with them: leave these columns out"
            )

    def mean(self) -> Ratings:
        """Return the mean of the raters of each pair, which `el.align` takes."""
        return Ratings(self.name, self.pairs, np.nanmean(self.scores, axis=1))


def load_raters(path: epath.PathLike) -> Raters:
    """Load ratings with a column for each rater.

    Args:
      path: a UTF-8 file, `.tsv` or `.csv`, with a header: the first two columns hold the words, each further one a
        rater's numbers. A field that is empty, "NA" or "NaN" says that the rater didn't rate the pair.

    Raises:
      RatingsError: no such file; a line with another number of fields, without a rating, or with one that is no finite
        number; a pair that is there twice; or raters that don't overlap, see `Raters`.
    """
    file = find_file(path)
    if file is None:
        raise RatingsError(f"no file {str(path)!r} of ratings; give a .tsv or .csv with a column for each rater")
    if file.suffix.lower() not in _DELIMITERS:
        raise RatingsError(f"{file}: can't read a {file.suffix or 'suffixless'} file of raters; give .tsv or .csv")
    text = io.StringIO(read_text(file, RatingsError), newline="")
    reader = csv.reader(text, delimiter=_DELIMITERS[file.suffix.lower()])
    rows = [(reader.line_num, [field.strip() for field in row]) for row in reader if any(map(str.strip, row))]
    if not rows:
        raise RatingsError(f"{file}: there are no ratings in this file")
    raters = tuple(rows[0][1][2:])
    for rater in raters:
        if raters.count(rater) > 1 or not rater:
            raise RatingsError(f"{file}:{rows[0][0]}: the raters' columns are {list(raters)}; give each its own name")
    places: dict[frozenset[str], int] = {}
    pairs, scores = [], []
    for number, fields in rows[1:]:
        if len(fields) != 2 + len(raters) or not all(fields[:2]):
            raise RatingsError(f"{file}:{number}: wanted two words and {counted(len(raters), 'rating')}, not {fields}")
        first, second = (word.lower() for word in fields[:2])
        key = frozenset((normal_name(first), normal_name(second)))
        if len(key) == 1:
            continue
        if places.setdefault(key, number) != number:
            raise RatingsError(
                f"{file}:{number}: {first}/{second} is rated at line {places[key]} too; keep one of them"
            )
        own = [_number(f"{file}:{number}", rater, field) for rater, field in zip(raters, fields[2:], strict=True)]
        if all(map(math.isnan, own)):
            raise RatingsError(f"{file}:{number}: nobody rated {first}/{second}; leave the line out")
        pairs.append((first, second))
        scores.append(own)
    return Raters(file.stem, tuple(pairs), raters, np.array(scores, np.float64).reshape(len(pairs), len(raters)))


def _number(place: str, rater: str, field: str) -> float:
    if field.lower() in _MISSING:
        return math.nan
    try:
        score = float(field)
    except ValueError:
        score = math.inf
    if not math.isfinite(score):
        raise RatingsError(
            f"{place}: the rating {field!r} of {rater!r} is no finite number; leave it empty if there is none"
        )
    return score
